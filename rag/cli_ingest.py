"""`yomu ingest`: files and folders into the index, with progress and a summary."""

import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer
from rich import progress as bars
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rag.cli_ask import answer_json, answered
from rag.cli_common import (
    DeviceOption,
    IndexOption,
    JsonFlag,
    ModelOption,
    ThreadsOption,
    WaitOption,
    checked_question,
    out,
    pipeline_for,
    print_json,
    read_lines,
    setting,
    some_of,
)
from rag.errors import ExpectedError, UsageError
from rag.interrupts import interrupts_later
from rag.settings import Settings
from rag.words import counted

if TYPE_CHECKING:
    from rag.ingest import IngestReport, PageRange, Trouble
    from rag.intake import IngestRequest
    from rag.pipeline import Pipeline
    from rag.plan import IngestPlan

SHOWN_NOTES = 20
PLAIN_SECONDS = 1.0
OUTCOMES = ("added", "updated", "unchanged", "removed", "failed")


def ingest(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="PDFs, images, Office files, and folders of them (walked recursively).",
        ),
    ],
    index: IndexOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    dpi: Annotated[int | None, setting("dpi")] = None,
    max_visual_tokens: Annotated[int | None, setting("max_visual_tokens")] = None,
    pool_factor: Annotated[int | None, setting("pool_factor")] = None,
    ocr: Annotated[str | None, setting("ocr", metavar="auto|off|LANGS")] = None,
    password: Annotated[
        list[str] | None,
        typer.Option(help="Password of encrypted PDFs; may be given several times."),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(help="File with one password a line; all are tried on encrypted PDFs."),
    ] = None,
    pages: Annotated[
        str | None,
        typer.Option(
            metavar="1-4", help="Only these pages of each document: 3, 1-4 or 5- (to the end)."
        ),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Drop documents that are gone from the given folders."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")
    ] = False,
    readers: Annotated[int | None, setting("readers")] = None,
    page_seconds: Annotated[float | None, setting("page_seconds")] = None,
    page_megabytes: Annotated[int | None, setting("page_megabytes")] = None,
    commit_seconds: Annotated[float | None, setting("commit_seconds")] = None,
    wait: WaitOption = False,
    ask: Annotated[
        str | None,
        typer.Option(metavar="QUESTION", help="Then answer this, as `yomu ask` does."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Read documents into the index.

    Adds what is new, replaces what changed (told by content, not by name or date), skips what is
    unchanged and goes on where an interrupted run stopped. A file or page that cannot be read is
    listed with its reason and tried again next time; the rest goes on. With --ask and --json, the
    object of `yomu ask` stands under "ask" (null where the question failed).

    Exit code 0: all done. 1: done, but something failed and is listed. 2: nothing done.
    """
    settings = Settings.resolve(
        index=index, model=model, device=device, threads=threads, dpi=dpi, ocr=ocr,
        max_visual_tokens=max_visual_tokens, pool_factor=pool_factor, readers=readers,
        page_seconds=page_seconds, page_megabytes=page_megabytes, commit_seconds=commit_seconds,
    )  # fmt: skip
    from rag.intake import IngestRequest

    request = IngestRequest(
        paths=tuple(paths),
        passwords=(*(password or ()), *(read_lines(password_file) if password_file else ())),
        pages=parse_pages(pages),
        prune=prune,
        wait_s=-1 if wait else 0,
    )
    if ask is not None:
        checked_question(ask, "--ask")
        if dry_run:
            raise UsageError("--ask needs an index: leave out --dry-run")
    with pipeline_for(settings) as pipeline:
        if dry_run:
            failed = _show_plan(pipeline.plan(request), settings, as_json)
        else:
            failed = _ingest(pipeline, request, ask, as_json)
    if failed:
        raise typer.Exit(1)


def _ingest(pipeline: "Pipeline", request: "IngestRequest", ask: str | None, as_json: bool) -> bool:
    """Ingest, show the report, answer the question if there is one; return if any of it failed."""
    from rag.answer import Question
    from rag.manner import AnswerOptions

    with progress_for(Console(stderr=True)) as progress:
        report = pipeline.ingest(request, progress)
    failed = False if as_json else show_report(report, pipeline.settings, as_json)
    more: dict[str, Any] = {} if ask is None else {"ask": None}
    if ask is not None and not report.interrupted:
        try:
            answer = answered(pipeline, Question(ask), AnswerOptions(), as_json=as_json)
            more["ask"] = answer_json(answer)
        except ExpectedError as error:  # the documents are in the index all the same
            sys.stderr.write(f"yomu: {error}\n")
            failed = True
    if as_json:
        failed |= show_report(report, pipeline.settings, as_json, more)
    return failed


def parse_pages(text: str | None) -> "PageRange":
    """Return the range of `3`, `1-4` or `5-`; UsageError for anything else."""
    from rag.ingest import PageRange

    if text is None:
        return PageRange()
    found = re.fullmatch(r"(\d+)(-(\d*))?", text.strip())
    first = int(found[1]) if found else 0
    last = (int(found[3]) if found[3] else None) if found and found[2] else first
    if first < 1 or (last is not None and last < first):
        raise UsageError(f"--pages {text!r}: write 3, 1-4 or 5-; the first page is 1")
    return PageRange(first, last)


class BarProgress:
    """A live bar for people: pages, pages per second, time left, documents, failures."""

    def __init__(self, console: Console) -> None:
        self._bars = bars.Progress(
            bars.TextColumn("{task.fields[documents]} documents"),
            bars.BarColumn(),
            bars.TextColumn("{task.completed:.0f}/{task.total:.0f} pages"),
            bars.TextColumn("{task.fields[speed]}"),
            bars.TimeRemainingColumn(),
            bars.TextColumn("[red]{task.fields[failed]}[/]{task.fields[what]}"),
            console=console,
            transient=True,
        )
        self._task = self._bars.add_task(
            "", total=0, documents="0/0", speed="", failed="", what=" opening …"
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        self._bars.stop()

    def update(
        self, *, documents: tuple[int, int], pages: tuple[int, int], failed: int, what: str
    ) -> None:
        """Draw how far the ingest is."""
        speed = self._bars.tasks[0].speed
        self._bars.update(
            self._task,
            completed=pages[0],
            total=pages[1],
            documents=f"{documents[0]}/{documents[1]}",
            speed=f"{speed:.1f} pages/s" if speed else "",
            failed=f"{failed} failed " if failed else "",
            what=escape(what[-40:]),
        )


class LineProgress:
    """A line now and then, where nobody watches: cron, a pipe, a test."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._last = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to take away."""

    def update(
        self, *, documents: tuple[int, int], pages: tuple[int, int], failed: int, what: str
    ) -> None:
        """Write how far the ingest is, at most once a second."""
        now = time.monotonic()
        if now - self._last < PLAIN_SECONDS:
            return
        self._last = now
        rate = pages[0] / max(now - self._started, 1e-6)
        left = f", {(pages[1] - pages[0]) / rate:.0f} s left" if rate else ""
        self._console.print(
            f"{documents[0]}/{documents[1]} documents, {pages[0]}/{pages[1]} pages done, "
            f"{rate:.1f} pages/s{left}, {failed} failed {what}".rstrip(),
            markup=False,
            soft_wrap=True,
        )


def progress_for(console: Console) -> BarProgress | LineProgress:
    """Return a bar on a terminal, lines elsewhere."""
    return BarProgress(console) if console.is_terminal else LineProgress(console)


def report_json(report: "IngestReport", settings: Settings) -> dict[str, Any]:
    """Return the object that `--json` prints."""
    return {
        "documents": {name: report.documents[name] for name in OUTCOMES},
        "pages": {name: report.pages[name] for name in ("added", "failed")},
        "failures": [_trouble(each) for each in report.failures],
        "seconds": round(report.seconds, 3),
        "index": str(settings.index),
        "notes": [_trouble(each, "note") for each in report.notes],
        "ocr": [{"document": name, "page": page} for name, page in report.read_by_ocr],
        "unread_pages": report.unread_pages,
        "pages_read_by_model": report.pages_read_by_model,
        "skipped": dict(report.skipped),
        "moved": dict(report.moved),
        "gone": list(report.gone),
        "elsewhere": list(report.elsewhere),
        "older": list(report.older),
        "kept": list(report.kept),
        "interrupted": report.interrupted or None,
    }


def show_report(
    report: "IngestReport",
    settings: Settings,
    as_json: bool,
    more: Mapping[str, Any] | None = None,
) -> bool:
    """Print the summary, with `more` in its JSON; return whether anything failed."""
    with suppress(KeyboardInterrupt), interrupts_later():  # it is done: nothing to interrupt
        if as_json:
            print_json(report_json(report, settings) | dict(more or {}))
        else:
            _print_summary(report, settings)
        if report.interrupted:
            sys.stderr.write(f"yomu: {report.interrupted}\n")
    return bool(report.failures or report.interrupted)


def _print_summary(report: "IngestReport", settings: Settings) -> None:
    console = out()
    counts = ", ".join(f"{report.documents[name]} {name}" for name in OUTCOMES)
    rate = report.pages["added"] / report.seconds if report.seconds else 0.0
    console.print(f"Documents: {counts}.")
    console.print(
        f"Pages: {report.pages['added']} added, {report.pages['failed']} failed, "
        f"in {report.seconds:.1f} s ({rate:.1f} pages/s). Index: {escape(str(settings.index))}"
    )
    if report.read_by_ocr:
        per_document = Counter(name for name, _ in report.read_by_ocr)
        listed = ", ".join(f"{escape(name)} ({n})" for name, n in per_document.items())
        console.print(f"Read by OCR: {counted(len(report.read_by_ocr), 'page')} of {listed}.")
    if settings.ocr == "auto" and not report.interrupted:
        _print_unread(console, report)
    _print_gone(console, report)
    if report.older:
        names = escape(", ".join(report.older))
        console.print(f"An older version is shown, as the new one could not be read: {names}.")
    if report.kept:
        names = escape(some_of(report.kept))
        console.print(f"Could not be read this time, and shown as they were read before: {names}.")
    _print_skipped(console, report.skipped)
    _print_troubles(console, "Failed, to be tried again next time", report.failures, None)
    _print_troubles(console, "Remarks", report.notes, SHOWN_NOTES)


def _print_unread(console: Console, report: "IngestReport") -> None:
    """Say of how many pages the words are missing, or not sure."""
    has_tesseract = shutil.which("tesseract") is not None
    if n_read := report.pages_read_by_model:
        advice = (
            "give their files to `yomu ingest` to have Tesseract read them, which is surer"
            if has_tesseract
            else "Tesseract, where it is installed, reads them more surely"
        )
        console.print(
            f"Read off their images by the model: {counted(n_read, 'page')} without a usable text "
            f"layer. Letters and digits may be wrong; {advice}."
        )
    if report.unread_pages:
        advice = (
            "; give their files to `yomu ingest` to have them read"
            if has_tesseract
            else "; with Tesseract installed they would be read as well"
        )
        console.print(
            f"Found by their looks alone: {counted(report.unread_pages, 'page')} with a text "
            f"layer that lacks something, or with none{advice}."
        )


def _print_skipped(console: Console, skipped: Mapping[str, int]) -> None:
    if skipped:
        kinds = ", ".join(f"{n} {suffix}" for suffix, n in sorted(skipped.items()))
        console.print(f"Left out, as they are no documents: {escape(kinds)}.")


def _print_gone(console: Console, report: "IngestReport") -> None:
    """Say which names went with their files, and which stay though their files are gone."""
    if report.moved:
        pairs = [f"{before} is now {now}" for before, now in report.moved.items()]
        console.print(f"Moved: {escape(some_of(pairs))}.")
    stays = "Still in the index, though the files are gone"
    if report.gone:
        console.print(f"{stays}: {escape(some_of(report.gone))}; --prune takes them out.")
    if report.elsewhere:
        names = escape(some_of(report.elsewhere))
        console.print(f"{stays}, with their folder: {names}; `yomu remove NAME` takes one out.")


def _print_troubles(
    console: Console, title: str, troubles: "list[Trouble]", most: int | None
) -> None:
    if not troubles:
        return
    table = Table(title=f"{title} ({len(troubles)})", title_justify="left", box=None)
    for heading in ("document", "page", "reason"):
        table.add_column(heading, overflow="fold")
    for each in troubles[:most]:
        table.add_row(escape(each.document), str(each.page or ""), escape(each.reason))
    console.print(table)
    if most is not None and len(troubles) > most:
        console.print(f"… and {len(troubles) - most} more; --json lists all.")


def _show_plan(plan: "IngestPlan", settings: Settings, as_json: bool) -> bool:
    if as_json:
        print_json(
            {
                "dry_run": True,
                "documents": {name: plan.documents[name] for name in OUTCOMES},
                "pages": {"added": plan.n_pages, "failed": 0},
                "failures": [_trouble(each) for each in plan.failures],
                "seconds": 0.0,
                "index": str(settings.index),
                "notes": [_trouble(each, "note") for each in plan.notes],
                "skipped": dict(plan.skipped),
            }
        )
    else:
        counts = ", ".join(f"{plan.documents[name]} {name}" for name in OUTCOMES)
        pages = counted(plan.n_pages, "page")
        out().print(f"Would be: {counts}; {pages} to read. Nothing was written.")
        _print_skipped(out(), plan.skipped)
        _print_troubles(out(), "Cannot be read", plan.failures, None)
        _print_troubles(out(), "Remarks", plan.notes, SHOWN_NOTES)
    return bool(plan.failures)


def _trouble(trouble: "Trouble", key: str = "reason") -> dict[str, Any]:
    return {"document": trouble.document, "page": trouble.page, key: trouble.reason}
