"""`yomu list`, `remove`, `verify`, `stats`, `compact`: the index and its upkeep."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rag.cli_common import (
    DeviceOption,
    IndexOption,
    JsonFlag,
    ModelOption,
    WaitOption,
    human_bytes,
    out,
    pipeline_for,
    print_json,
    read_lines,
)
from rag.cli_ingest import progress_for, report_json
from rag.settings import Settings
from rag.words import counted

if TYPE_CHECKING:
    from index.records import DocumentRecord, Failure, IndexStats
    from rag.house import Dropped
    from rag.intake import IngestRequest
    from rag.pipeline import Pipeline


def list_documents(
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="[NAME|GLOB]",
            help="Only documents of this name or pattern, or with a word in the name that "
            "begins so.",
        ),
    ] = "*",
    index: IndexOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the documents of the index, and what could not be read of them."""
    from rag.names import documents_meant
    from rag.sources import path_of, which_gone

    house = pipeline_for(Settings.resolve(index=index)).house
    records, failures = house.documents()
    if pattern != "*":
        names = set(documents_meant(house, pattern))
        records = tuple(each for each in records if each.name in names)
        failures = [each for each in failures if each.document in names]
    gone = which_gone(path_of(each.source) for each in records)
    if as_json:
        print_json(
            {
                "documents": [_document_json(each, gone) for each in records],
                "failures": [asdict(each) for each in failures],
            }
        )
    else:
        _print_documents(records, failures, gone)


def remove(
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="NAME|GLOB", help="Documents to remove: 'drafts/*', 'old.pdf', a folder."
        ),
    ],
    index: IndexOption = None,
    wait: WaitOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove documents from the index: their vectors, text and page images. Files stay.

    They stop being found at once. `yomu compact` frees the space they took in the index's own
    files, and in an index of more than 100,000 pages their words.
    """
    settings = Settings.resolve(index=index)
    from rag.names import documents_meant

    house = pipeline_for(settings).house
    meant = documents_meant(house, pattern, to_remove=True)
    names = house.remove_documents(meant, wait_s=-1 if wait else 0)
    if as_json:
        print_json({"removed": list(names), "index": str(settings.index)})
    else:
        out().print(f"Removed {len(names)}: {escape(', '.join(names))}")


def verify(
    mend: Annotated[
        bool,
        typer.Option("--mend", help="Drop what is damaged and read it again from its file."),
    ] = False,
    password: Annotated[
        list[str] | None,
        typer.Option(help="Password of encrypted PDFs to mend; may be given several times."),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(help="File with one password a line; all are tried on encrypted PDFs."),
    ] = None,
    index: IndexOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    wait: WaitOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Check every checksum of the index.

    With --mend, damaged pages are dropped and read again as before (by OCR only where they were
    read so); all other pages stay, even if their file is gone. A part of the index whose pages
    could not be saved and whose file is gone is set aside in the index as segments/lost-….

    Exit code 0: nothing is damaged, or all of it was mended. 1: damage, listed. 2: nothing done.
    """
    settings = Settings.resolve(index=index, model=model, device=device)
    wait_s = -1.0 if wait else 0.0
    passwords = (*(password or ()), *(read_lines(password_file) if password_file else ()))
    pipeline = pipeline_for(settings)
    report = pipeline.house.verify()
    result: dict[str, Any] = {
        "clean": report.clean,
        "files": report.n_files,
        "bytes": report.n_bytes,
        "damage": [asdict(each) for each in report.damage],
        "documents": list(report.documents),
    }
    is_well = report.clean
    if mend and report.mendable:
        dropped = pipeline.house.mend(wait_s)
        result["mended"], is_well = _read_again(pipeline, dropped, passwords, wait_s)
    if as_json:
        print_json(result)
    else:
        _print_verify(result, report.mendable)
    if not is_well:
        raise typer.Exit(1)


def stats(index: IndexOption = None, as_json: JsonFlag = False) -> None:
    """Show how many documents, pages and vectors there are, and the bytes they take."""
    numbers = stats_json(pipeline_for(Settings.resolve(index=index)).house.stats())
    if as_json:
        print_json(numbers)
        return
    table = Table(box=None, show_header=False)
    for name, value in numbers.items():
        if name == "bytes":
            for part, size in value.items():
                table.add_row(f"bytes, {part}", human_bytes(size))
        else:
            table.add_row(name.replace("_", " "), escape(str(value)))
    out().print(table)


def compact(index: IndexOption = None, wait: WaitOption = False, as_json: JsonFlag = False) -> None:
    """Give back the space of removed pages and renew what speeds up the search."""
    settings = Settings.resolve(index=index)
    before, after = pipeline_for(settings).house.compact(wait_s=-1 if wait else 0)
    if as_json:
        print_json({"before": stats_json(before), "after": stats_json(after)})
    else:
        sizes = [human_bytes(each.bytes["total"]) for each in (before, after)]
        out().print(f"{sizes[0]} before, {sizes[1]} now.")


def stats_json(numbers: "IndexStats") -> dict[str, Any]:
    """Return the object that `yomu stats --json` prints."""
    settings = numbers.settings
    return {
        "documents": numbers.documents,
        "pages": numbers.pages,
        "vectors": numbers.vectors,
        "bytes": numbers.bytes,
        "model": settings.model_name,
        "model_sha256": settings.model,
        "dpi": settings.dpi,
        "max_visual_tokens": settings.max_visual_tokens,
        "pool_factor": settings.pool_factor,
        "codec": settings.codec,
        "dim": settings.dim,
        "format_version": settings.format_version,
        "segments": numbers.segments,
        "centroids": numbers.codebook,
        "failed_documents": numbers.failed_documents,
        "failed_pages": numbers.failed_pages,
        "dead_pages": numbers.dead_pages,
    }


def _read_again(
    pipeline: "Pipeline",
    dropped: "Sequence[Dropped]",
    passwords: tuple[str, ...],
    wait_s: float,
) -> tuple[dict[str, Any], bool]:
    """Ingest the files of dropped documents that are still there, under the names they had."""
    from rag.ingest import IngestReport
    from rag.pipeline import Pipeline
    from rag.sources import path_of

    settings = pipeline.settings
    sources = {each.record.name: path_of(each.record.source) for each in dropped}
    missing = [name for name, path in sources.items() if not os.path.exists(path)]
    present = [each for each in dropped if each.record.name not in missing]
    result: dict[str, Any] = {"missing": missing}
    if not present:
        return result, not missing
    whole = IngestReport()
    with progress_for(Console(stderr=True)) as progress:
        for ocr, request in _requests(present, settings.ocr):
            request = replace(request, passwords=passwords, wait_s=wait_s)
            with Pipeline(replace(settings, ocr=ocr), pipeline.encoder) as reading:
                report = reading.ingest(request, progress)
            whole.add(report)
            if report.interrupted:
                break
    is_well = not (missing or whole.failures or whole.interrupted)
    return report_json(whole, settings) | result, is_well


def _requests(dropped: "Sequence[Dropped]", ocr: str) -> "Iterator[tuple[str, IngestRequest]]":
    """Yield what to ingest and whether by OCR: each document as it had been ingested.

    All that were read whole go together; ranges of pages are each of one document.
    """
    from rag.intake import IngestRequest
    from rag.sources import path_of

    together: dict[str, dict[str, Path]] = {}
    for each in dropped:
        name, path = each.record.name, path_of(each.record.source)
        own_ocr = ocr if each.by_ocr else "off"
        if each.pages and _is_the_file(path, each.record.sha256):
            for pages in each.pages:
                yield own_ocr, IngestRequest((path,), names={name: path}, pages=pages)
        else:
            together.setdefault(own_ocr, {})[name] = path
    for own_ocr, names in together.items():
        yield own_ocr, IngestRequest(tuple(names.values()), names=names)


def _is_the_file(path: Path, sha256: str | None) -> bool:
    """Say whether a file is still what was read: of another, other pages may be wanted."""
    from rag.errors import DocumentError
    from rag.sources import file_sha256

    try:
        return file_sha256(path) == sha256
    except DocumentError:  # ingest says what is wrong with it
        return False


def _print_verify(result: dict[str, Any], is_mendable: bool) -> None:
    console = out()
    n_files = counted(result["files"], "file")
    console.print(f"{n_files}, {human_bytes(result['bytes'])} checked.")
    for each in result["damage"]:
        console.print(f"damaged: {each['path']}: {each['reason']}", markup=False)
    if result["clean"]:
        console.print("Nothing is damaged.")
    elif "mended" in result:
        _print_mended(result["mended"])
    elif is_mendable:
        console.print("`yomu verify --mend` reads what is damaged again.")


def _print_mended(mended: dict[str, Any]) -> None:
    console = out()
    n_pages = counted(mended.get("pages", {}).get("added", 0), "page")
    console.print(f"Dropped what was damaged; read again: {n_pages}.")
    for name in mended["missing"]:
        line = f"cannot be read again, its file is gone: {name} (its other pages stay)"
        console.print(line, markup=False)
    for each in mended.get("failures", ()):
        page = f", page {each['page']}" if each["page"] else ""
        line = f"could not be read again: {each['document']}{page}: {each['reason']}"
        console.print(line, markup=False)
    if mended.get("interrupted"):
        sys.stderr.write(f"yomu: {mended['interrupted']}\n")


def _document_json(record: "DocumentRecord", gone: Mapping[Path, bool]) -> dict[str, Any]:
    is_gone = _is_gone(record, gone)
    values = {**asdict(record), "same_as": list(record.same_as), "file_gone": is_gone}
    return {"document": values.pop("name"), **values}


def _status(record: "DocumentRecord", gone: Mapping[Path, bool]) -> str:
    """Return the status in words; "damaged" would say that `yomu verify` finds something."""
    status = str(record.status).replace("damaged", "incomplete")
    if record.outdated:
        status = "older version"
    seen = {True: ", file gone", False: "", None: ", file not checked"}
    return status + seen[_is_gone(record, gone)]


def _is_gone(record: "DocumentRecord", gone: Mapping[Path, bool]) -> bool | None:
    """Say whether a document's file is gone; None where its drive gave no answer."""
    from rag.sources import path_of

    return gone.get(path_of(record.source))


def _print_documents(
    records: "tuple[DocumentRecord, ...]", failures: "list[Failure]", gone: Mapping[Path, bool]
) -> None:
    from rag.answer import older_note

    console = out()
    if not records:
        console.print("The index holds no document; `yomu ingest FOLDER` adds some.")
        return
    table = Table(box=None)
    for heading in ("document", "pages", "status", "size", "date", "language"):
        table.add_column(heading, overflow="fold")
    for each in records:
        pages = f"{each.n_pages_stored}/{each.n_pages}"
        table.add_row(
            escape(" = ".join((each.name, *each.same_as))),
            pages if each.n_pages_stored != each.n_pages else str(each.n_pages),
            _status(each, gone),
            human_bytes(each.size_bytes) if each.size_bytes else "",
            each.date or "",
            each.language or "",
        )
    console.print(table)
    older = [each for each in records if each.outdated]
    for each in older:
        console.print(older_note("", each), markup=False)
    told = {each.name for each in older}
    for failure in failures:
        if failure.document in told:
            continue
        page = f", page {failure.page}" if failure.page else ""
        console.print(f"{failure.document}{page}: {failure.reason}", markup=False)
