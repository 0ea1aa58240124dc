"""`yomu search`: questions or images in, ranked pages out."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from index.text_layer import is_unicode
from rag.cli_common import (
    DeviceOption,
    IndexOption,
    JsonFlag,
    ModelOption,
    ThreadsOption,
    out,
    pipeline_for,
    print_json,
    read_lines,
    setting,
)
from rag.errors import UsageError
from rag.settings import Mode, Settings
from rag.words import NEAREST_ONLY, in_language_of

if TYPE_CHECKING:
    from index.records import Filters, PageHit
    from rag.pipeline import Query, SearchResult

PAGES_A_DOCUMENT = 10  # looked at for each document asked for
QUERIES_AT_ONCE = 32
OF_DAY = "whose file was last changed on this day"


def search(
    question: Annotated[
        str | None, typer.Argument(metavar="[QUESTION]", help="What to look for.")
    ] = None,
    index: IndexOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    top_k: Annotated[int | None, setting("top_k", "--top-k", "-k")] = None,
    mode: Annotated[Mode | None, setting("mode")] = None,
    document: Annotated[
        str | None,
        typer.Option(metavar="GLOB", help="Only documents whose name matches: 'reports/*2024*'."),
    ] = None,
    folder: Annotated[
        str | None, typer.Option(help="Only documents in this folder and below.")
    ] = None,
    date_from: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help=f"Only documents {OF_DAY} or later.")
    ] = None,
    date_to: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help=f"Only documents {OF_DAY} or earlier.")
    ] = None,
    language: Annotated[
        str | None, typer.Option(metavar="CODE", help="Only documents in this language: en, ja.")
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(help="Look for pages like this image (or the first page of this PDF)."),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl",
            help='Many questions, a line {"id": …, "query": …} each; prints a JSON line each.',
        ),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Score every page, however many there are.")
    ] = False,
    by_document: Annotated[
        bool, typer.Option("--by-document", help="Show documents, each with its pages.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Find the pages that answer a question, or that look like an image.

    Scores: in mode hybrid from 0 to 1, how likely the page answers; in mode visual MaxSim (or
    from 0 to 1, where the model asks for sharpened matches), in mode text BM25.

    Exit code 0, also when nothing was found; 2: the search could not be done.
    """
    settings = Settings.resolve(
        index=index, model=model, device=device, threads=threads, top_k=top_k, mode=mode
    )
    from index.records import Filters

    filters = Filters(
        document=document, folder=folder, date_from=date_from, date_to=date_to, language=language
    )
    wanted = _queries(question, image, queries)
    with pipeline_for(settings) as pipeline:
        for start in range(0, len(wanted), QUERIES_AT_ONCE):
            for result in pipeline.search(
                wanted[start : start + QUERIES_AT_ONCE],
                filters,
                exact=exact,
                top_k=settings.top_k * (PAGES_A_DOCUMENT if by_document else 1),
            ):
                most = settings.top_k if by_document else None
                if as_json or queries is not None:
                    print_json(result_json(result, most))
                else:
                    _print_hits(result, most, filters)


def result_json(result: "SearchResult", most_documents: int | None = None) -> dict[str, Any]:
    """Return the object that `--json` prints; with a number, also the hits by document."""
    found: dict[str, Any] = {
        "id": result.query.id,
        "query": result.query.text,
        "mode": result.mode,
        "hits": [
            {"document": hit.document, "page": hit.page, "score": round(hit.score, 6)}
            for hit in result.hits[:most_documents]  # None: all of them
        ],
        "seconds": round(result.seconds, 4),
        "answered": result.is_answered,
    }
    if most_documents is not None:
        found["documents"] = [
            {"document": hit.document, "score": round(score, 6), "pages": pages}
            for score, hit, pages in _rows(result, most_documents)
        ]
    return found


def _queries(question: str | None, image: Path | None, file: Path | None) -> "list[Query]":
    from rag.pipeline import Query

    if file is None:
        if question is None and image is None:
            raise UsageError("nothing to look for: give a QUESTION, --image or --queries")
        return [Query(_checked(question or "", "QUESTION"), image)]
    if question is not None or image is not None:
        raise UsageError("--queries brings its own questions; leave out QUESTION and --image")
    found = [_parse(line, f"{file}:{n}") for n, line in enumerate(read_lines(file), 1) if line]
    if not found:
        raise UsageError(f"{file}: holds no query")
    return found


def _parse(line: str, where: str) -> "Query":
    from rag.pipeline import Query

    try:
        values = json.loads(line)
        text, name = values["query"], values.get("id")
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise UsageError(f'{where}: wanted {{"id": …, "query": "…"}}, found {line[:60]}') from None
    if not isinstance(text, str) or not text.strip():
        raise UsageError(f"{where}: the query is empty or not text")
    return Query(_checked(text, where), id=None if name is None else str(name))


def _checked(text: str, where: str) -> str:
    """Return a question that is Unicode; half a letter would be looked for as if it were not there.

    Raises UsageError.
    """
    if not is_unicode(text):
        raise UsageError(f"{where}: {text[:60]!r} is not valid Unicode")
    return text


def _print_hits(result: "SearchResult", most_documents: int | None, filters: "Filters") -> None:
    """Print pages, or so many documents with their pages."""
    console = out()
    if not result.hits:
        given = [
            f"--{name.replace('_', '-')} {value}"
            for name, value in asdict(filters).items()
            if value
        ]
        where = f" with {' '.join(given)}; `yomu list` shows all documents" if given else ""
        console.print(f"Nothing found{escape(where)}.")
        return
    if not result.is_answered:
        console.print(in_language_of(result.query.text, NEAREST_ONLY))
    table = Table(box=None)
    table.add_column("score", justify="right")
    table.add_column("document", overflow="fold")
    table.add_column("page" if most_documents is None else "pages", justify="right")
    rows = _rows(result, most_documents)
    for score, hit, pages in rows:
        names = " = ".join((hit.document, *hit.same_as))
        table.add_row(f"{score:.3f}", escape(names), ", ".join(map(str, pages)))
    console.print(table)
    what = "pages" if most_documents is None else "documents"
    console.print(f"{len(rows)} {what} in {result.seconds * 1000:.0f} ms ({result.mode})")


def _rows(
    result: "SearchResult", most_documents: int | None
) -> "list[tuple[float, PageHit, list[int]]]":
    """Return score, hit and page numbers of each row: a page, or a document by its best page."""
    from index.page_index import by_document as documents_of

    if most_documents is None:
        return [(hit.score, hit, [hit.page]) for hit in result.hits]
    return [
        (found.score, found.pages[0], [hit.page for hit in found.pages])
        for found in documents_of(result.hits)[:most_documents]
    ]
