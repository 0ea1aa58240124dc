"""The Library tab: add, watch, remove and read again. Layout and wiring only."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ui import handlers_library
from ui.look import I18N, language, panel
from ui.page_ask import QUIET
from ui.service import Service
from ui.upload_folder import discard


@dataclass(frozen=True)
class LibraryTab:
    """Components that the state of things is shown in."""

    job: gr.HTML
    documents: gr.HTML
    usage: gr.HTML
    changed: gr.State  # counts what was done here, so that all is looked at again at once


def build(service: Service) -> LibraryTab:
    """Lay out the tab and wire it to the service."""
    changed = gr.State(0)
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            files = gr.File(
                label=I18N("drop"), file_count="multiple", height=150, elem_id="upload",
                type="filepath",
            )  # fmt: skip
            with gr.Row(elem_classes="yomu-ask"):
                folder = gr.Textbox(
                    label=I18N("folder"), info=I18N("folder_info"),
                    placeholder=I18N("folder_hint"), max_length=500, scale=3, elem_id="folder",
                )  # fmt: skip
                read = gr.Button(I18N("read_folder"), scale=1, min_width=110, elem_id="read-folder")
            with gr.Row(elem_classes="yomu-ask"):
                password = gr.Textbox(
                    label=I18N("password"), info=I18N("password_info"), type="password",
                    max_length=200, elem_id="password",
                )  # fmt: skip
            said = panel("said")
            job = panel("job")
        with gr.Column(scale=2, min_width=320):
            documents = panel("documents")
            usage = panel("usage")

    def upload(request: gr.Request, given: list[Any], word: str, n: int) -> tuple[str, None, int]:
        named = [(getattr(each, "orig_name", None) or str(each), str(each)) for each in given]
        said = handlers_library.add_files(service, named, language(request), word)
        for _, path in named:
            discard(path)
        return said, None, n + 1

    def from_folder(request: gr.Request, given: str, word: str, n: int) -> tuple[str, int]:
        return handlers_library.read_folder(service, given, language(request), word), n + 1

    def reread(request: gr.Request, word: str, n: int, event: gr.EventData) -> tuple[str, int]:
        said = handlers_library.reread(service, named_in(event), language(request), word)
        return said, n + 1

    def remove(request: gr.Request, n: int, event: gr.EventData) -> tuple[str, int]:
        return handlers_library.remove(service, named_in(event), language(request)), n + 1

    def named_in(event: gr.EventData) -> str:
        return str(event._data.get("document", ""))

    done = [said, changed]
    files.upload(upload, [files, password, changed], [said, files, changed], **QUIET)
    gr.on([read.click, folder.submit], from_folder, [folder, password, changed], done, **QUIET)
    documents.select(reread, [password, changed], done, **QUIET)
    documents.delete(remove, changed, done, **QUIET)
    job.clear(lambda: handlers_library.cancel(service), None, None, queue=False, **QUIET)
    return LibraryTab(job, documents, usage, changed)
