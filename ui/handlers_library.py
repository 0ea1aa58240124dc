"""What happens in the library and on the status page; plain functions, without gradio."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import NamedTuple

from ui import markup, markup_ask, markup_library
from ui.errors import ExpectedError
from ui.handlers import reason
from ui.jobs import IngestProgress
from ui.markup_library import Job, Row
from ui.requests import ServiceStatus
from ui.service import Service
from ui.texts import counted, examples, sentences, size_text, word

MAX_PROBLEMS = 50  # of one run, in the browser; the rest is in the log and in `yomu list`


class Looked(NamedTuple):
    """What is shown of the state of things; None: as it is."""

    banner: str | None = None
    examples: str | None = None
    job: str | None = None
    documents: str | None = None
    usage: str | None = None
    names: list[str] | None = None
    is_busy: bool | None = None  # it will change by itself: documents are read, or a model opened
    seen: str = ""


def look(service: Service, language: str, seen: str = "") -> Looked:
    """Return head, examples, running job and documents, unless they are as they were `seen`."""
    status = service.status()
    progress = service.library.job()
    mark = repr(
        (
            status.state,
            service.library.mark(),
            status.reason,
            status.job,  # was seen before `progress`, which may have ended since
            progress,
            status.index_error,
        )
    )
    if mark == seen:
        return Looked(seen=seen)
    is_busy = status.job is not None or status.state == "loading"
    try:
        records, failures = service.library.documents()
    except ExpectedError as error:
        line = markup.note(word(language, "error", reason=reason(error, language)), "error")
        head = banner(status, language)
        return Looked(banner=head, documents=line, is_busy=is_busy, seen=mark)
    names = [each.name for each in records]
    rows = [
        Row(
            each.name, each.status, each.n_pages, each.n_pages_stored, each.size_bytes,
            each.date or "",
            tuple((None, reason(each.reason, language)) for _ in (1,) if each.reason)
            + tuple((f.page, reason(f.reason, language)) for f in failures
                    if f.document == each.name and f.page is not None),
        )
        for each in records
    ]  # fmt: skip
    shown = examples(frozenset(names), language) if names else []
    return Looked(
        banner=banner(status, language),
        examples=markup_ask.example_row(language, shown) if shown else "",
        job=markup_library.job(language, job_of(progress, language)),
        documents=markup_library.documents(language, rows),
        usage=markup_library.usage(language, status.bytes) if names else "",
        names=names,
        is_busy=is_busy,
        seen=mark,
    )


def banner(status: ServiceStatus, language: str) -> str:
    """Return the head of the page with what a reader should know before asking."""
    notes: list[tuple[str, str]] = []
    running = status.job
    if running is not None and not running.finished:
        done, total = running.pages_done, running.pages_total
        key = "indexing" if total else "indexing_start"
        notes.append(("wait", word(language, key, done=done, total=total)))
    elif status.index_error:
        said = reason(status.index_error, language)
        notes.append(("error", word(language, "error", reason=said)))
    elif not status.n_documents:
        text = sentences(language, "empty_title", "empty_text")
        notes.append(("info", text))
    if status.state == "loading":
        notes.append(("wait", word(language, "model_loading")))
    elif status.state == "failed":
        notes.append(
            ("error", word(language, "model_failed", reason=reason(status.reason or "", language)))
        )
    return markup.banner(language, notes)


def job_of(progress: IngestProgress | None, language: str = "en") -> Job | None:
    """Return a run as it is shown."""
    if progress is None:
        return None
    report = progress.report
    summary = None
    if report is not None:
        summary = {
            "added": report.added, "updated": report.updated,
            "unchanged": report.unchanged, "failed": report.failed,
        }  # fmt: skip
    return Job(
        documents=(progress.documents_done, progress.documents_total),
        pages=(progress.pages_done, progress.pages_total),
        pages_per_second=progress.pages_per_second,
        seconds_left=progress.seconds_left,
        is_finished=progress.finished,
        problems=tuple(
            (each.document, each.page, reason(each.reason, language))
            for each in list(progress.failures)[:MAX_PROBLEMS]
        ),
        is_stopped=progress.stopped,
        dropped=progress.dropped,
        remarks=tuple(
            (each.document, each.page, reason(each.reason, language))
            for each in (report.notes[:MAX_PROBLEMS] if report else ())
        ),
        summary=summary,
        error=reason(progress.error, language) if progress.error else "",
    )


def add_files(
    service: Service, files: Sequence[tuple[str, str]], language: str, password: str = ""
) -> str:
    """Take uploaded files (name, where it was put) and have them read; returns a line about it."""
    taken: list[Path] = []
    problems = []
    for sent, path in files:
        name = PurePath(sent).name  # what Gradio says may be where it put the file
        try:
            taken.append(service.library.store_upload(name, Path(path)))
        except ExpectedError as error:
            said = reason(error, language)
            problems.append(said if name in said else f"{name}: {said}")
    lines = [markup.note(word(language, "error", reason=each), "error") for each in problems]
    if taken:
        text = counted(language, "uploading", len(taken))
        words = _passwords(password)
        action = partial(service.library.ingest, taken, uploaded=True, passwords=words)
        lines.append(_started(action, text, language))
    return "".join(lines)


def read_folder(service: Service, folder: str, language: str, password: str = "") -> str:
    """Have a folder of the server read, where the server allows that."""
    if not folder.strip():
        return ""
    sources, words = [Path(folder.strip())], _passwords(password)
    text = word(language, "job_running")
    action = partial(service.library.ingest, sources, uploaded=False, passwords=words)
    return _started(action, text, language)


def reread(service: Service, document: str, language: str, password: str = "") -> str:
    """Have a document read again."""
    text = word(language, "rereading", document=document)
    words = _passwords(password)
    return _started(lambda: service.library.reread(document, words), text, language)


def remove(service: Service, document: str, language: str) -> str:
    """Remove a document: vectors, text and images."""
    text = word(language, "removed", document=document)
    return _started(lambda: service.library.remove(document), text, language)


def cancel(service: Service) -> None:
    """Stop the run; what was read stays."""
    service.library.cancel_job()


def _passwords(given: str) -> tuple[str, ...]:
    return (given,) if given else ()


def _started(action: Callable[[], object], text: str, language: str) -> str:
    try:
        action()
    except ExpectedError as error:
        return markup.note(word(language, "error", reason=reason(error, language)), "error")
    return markup.note(text)


def status_page(service: Service, language: str) -> str:
    """Return model, device, precision, index and versions, and what the model can do."""
    status = service.status()
    facts = [
        ("status_model", reason(status.model or "–")),
        ("status_state", word(language, f"state_{status.state}")),
        ("status_device", status.device or "–"),
        ("status_precision", status.precision or "–"),
        ("status_index", reason(status.index_error or str(status.index), language)),
        ("status_documents", str(status.n_documents)),
        ("status_pages", str(status.n_pages)),
        ("status_bytes", size_text(status.bytes.get("total", 0))),
        ("status_waiting", str(status.waiting)),
    ]
    about = "about_embedded" if status.is_embedded else "about_real"
    if status.state == "failed":
        about = "about_missing"
    rows = [(word(language, key), value) for key, value in facts]
    versions = sorted(status.versions.items())
    return markup_library.status(language, rows, versions, word(language, about))
