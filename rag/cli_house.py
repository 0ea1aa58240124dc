"""`yomu list`, `remove`, `verify`, `stats`, `compact`: the index and its upkeep."""

import os
from dataclasses import asdict
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
)
from rag.cli_ingest import progress_for, report_json
from rag.errors import UsageError
from rag.settings import Settings

if TYPE_CHECKING:
    from index.records import DocumentRecord, Failure, IndexStats
    from rag.pipeline import Pipeline


def list_documents(
    pattern: Annotated[
        str, typer.Argument(metavar="[GLOB]", help="Only documents whose name matches.")
    ] = "*",
    index: IndexOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the documents of the index, and what could not be read of them."""
    records, failures = pipeline_for(Settings.resolve(index=index)).house.documents(pattern)
    if as_json:
        print_json(
            {
                "documents": [_document_json(each) for each in records],
                "failures": [asdict(each) for each in failures],
            }
        )
    else:
        _print_documents(records, failures)


def remove(
    pattern: Annotated[
        str, typer.Argument(metavar="GLOB", help="Documents to remove: 'drafts/*', 'old.pdf'.")
    ],
    index: IndexOption = None,
    wait: WaitOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove documents from the index: their vectors, text and page images. Files stay.

    They are found no longer at once. What they leave in the index's own files goes with
    `yomu compact`: space, and in an index of more than 100,000 pages also their words.
    """
    settings = Settings.resolve(index=index)
    names = pipeline_for(settings).house.remove(pattern, wait_s=-1 if wait else 0)
    if not names:
        raise UsageError(f"no document matches {pattern!r}; `yomu list` shows the names")
    if as_json:
        print_json({"removed": list(names), "index": str(settings.index)})
    else:
        out().print(f"Removed {len(names)}: {escape(', '.join(names))}")


def verify(
    mend: Annotated[
        bool,
        typer.Option("--mend", help="Drop what is damaged and read it again from its file."),
    ] = False,
    index: IndexOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Check every checksum of the index.

    Exit code 0: nothing is damaged, or all of it was mended. 1: damage, listed.
    """
    settings = Settings.resolve(index=index, model=model, device=device)
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
        result["mended"], is_well = _read_again(pipeline, settings, pipeline.house.mend())
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
    pipeline: "Pipeline", settings: Settings, dropped: "tuple[DocumentRecord, ...]"
) -> tuple[dict[str, Any], bool]:
    """Ingest the files of dropped documents that are still there, under the names they had."""
    from rag.intake import IngestRequest
    from rag.sources import path_of

    sources = {each.name: path_of(each.source) for each in dropped}
    present = {name: path for name, path in sources.items() if os.path.exists(path)}
    missing = [name for name in sources if name not in present]
    result: dict[str, Any] = {"missing": missing}
    if not present:
        return result, not missing
    with progress_for(Console(stderr=True)) as progress:
        request = IngestRequest(tuple(present.values()), names=present)
        report = pipeline.ingest(request, progress)
    is_well = not (missing or report.failures or report.interrupted)
    return report_json(report, settings) | result, is_well


def _print_verify(result: dict[str, Any], is_mendable: bool) -> None:
    console = out()
    console.print(f"{result['files']} files, {human_bytes(result['bytes'])} checked.")
    for each in result["damage"]:
        console.print(f"damaged: {each['path']}: {each['reason']}", markup=False)
    if result["clean"]:
        console.print("Nothing is damaged.")
    elif "mended" in result:
        missing = result["mended"]["missing"]
        counts = result["mended"].get("documents", {})
        n_read = counts.get("added", 0) + counts.get("updated", 0)
        console.print(f"Dropped what was damaged; read again: {n_read} documents.")
        for name in missing:
            console.print(f"cannot be read again, its file is gone: {name}", markup=False)
    elif is_mendable:
        console.print("`yomu verify --mend` reads what is damaged again.")


def _document_json(record: "DocumentRecord") -> dict[str, Any]:
    values = asdict(record)
    return {"document": values.pop("name"), **values, "same_as": list(record.same_as)}


def _print_documents(records: "tuple[DocumentRecord, ...]", failures: "list[Failure]") -> None:
    console = out()
    table = Table(box=None)
    for heading in ("document", "pages", "status", "size", "date", "language"):
        table.add_column(heading, overflow="fold")
    for each in records:
        pages = f"{each.n_pages_stored}/{each.n_pages}"
        table.add_row(
            escape(" = ".join((each.name, *each.same_as))),
            pages if each.n_pages_stored != each.n_pages else str(each.n_pages),
            each.status,
            human_bytes(each.size_bytes),
            each.date or "",
            each.language or "",
        )
    console.print(table)
    for failure in failures:
        page = f", page {failure.page}" if failure.page else ""
        console.print(f"{failure.document}{page}: {failure.reason}", markup=False)
