"""The Retrieval test tab: one question by image, by text and by both; or pages like an image.

Layout and wiring only.
"""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from ui import handlers
from ui.look import I18N, language, panel
from ui.page_ask import QUIET, no_page, show_from
from ui.service import Service
from ui.upload_folder import discard


def build(service: Service) -> None:
    """Lay out the tab and wire it to the service."""
    with gr.Row(elem_classes="yomu-ask"):
        question = gr.Textbox(
            label=I18N("question"), info=I18N("test_intro"),
            scale=6, elem_id="test-question",
        )  # fmt: skip
        top_k = gr.Slider(1, 20, 5, step=1, label=I18N("top_k"), scale=3, min_width=220)
        run = gr.Button(
            I18N("test_run"), variant="primary", scale=1, min_width=96, elem_id="test-run"
        )
    picture = gr.File(
        label=I18N("test_image"), file_count="single", height=140, elem_id="test-image",
        type="filepath",
    )  # fmt: skip
    columns = panel("columns")
    sheet = panel("test-viewer")

    def compare(request: gr.Request, text: str, n: float) -> Iterator[Any]:
        yield gr.skip(), no_page(request, opened, text)
        for shown in handlers.compare(service, text, n, language(request)):
            yield shown, gr.skip()

    def alike(request: gr.Request, given: str, n: float) -> Iterator[Any]:
        yield gr.skip(), gr.skip(), no_page(request, opened, given)
        name = getattr(given, "orig_name", None) or str(given)
        found = handlers.alike(service, name, str(given), n, language(request))
        discard(str(given))
        yield found, None, gr.skip()

    opened = show_from(service, [columns, sheet], sheet, None)
    gr.on(
        [run.click, question.submit], compare, [question, top_k], [columns, sheet],
        concurrency_limit=None, **QUIET,
    )  # fmt: skip
    picture.upload(
        alike, [picture, top_k], [columns, picture, sheet], concurrency_limit=None, **QUIET,
    )  # fmt: skip
