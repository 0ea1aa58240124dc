"""`yomu search`: questions or images in, ranked pages out."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rag.cli_common import (
    DeviceOption,
    DocumentOption,
    FolderOption,
    FromOption,
    IndexOption,
    JsonFlag,
    LanguageOption,
    ModelOption,
    ModeOption,
    QuestionArgument,
    ThreadsOption,
    ToOption,
    checked_question,
    filters_for,
    id_text,
    out,
    pipeline_for,
    print_json,
    read_lines,
    setting,
)
from rag.errors import UsageError
from rag.settings import Settings
from rag.words import NEAREST_ONLY, counted, in_language_of

if TYPE_CHECKING:
    from index.records import PageHit
    from rag.pipeline import Query, SearchResult

PAGES_A_DOCUMENT = 10  # looked at for each document asked for
QUERIES_AT_ONCE = 32


def search(
    question: QuestionArgument = None,
    index: IndexOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    top_k: Annotated[int | None, setting("top_k", "--top-k", "-k")] = None,
    mode: ModeOption = None,
    document: DocumentOption = None,
    folder: FolderOption = None,
    date_from: FromOption = None,
    date_to: ToOption = None,
    language: LanguageOption = None,
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

    Scores in mode hybrid: from 0 to 1, how likely the page is to answer. In mode visual: MaxSim,
    or from 0 to 1 where the model asks for sharpened matches. In mode text: BM25.

    Exit code 0, also when nothing was found; 2: the search could not be done.
    """
    settings = Settings.resolve(
        index=index, model=model, device=device, threads=threads, top_k=top_k, mode=mode
    )
    wanted = _queries(" ".join(question) if question else None, image, queries)
    given = {
        "document": document, "folder": folder, "date-from": date_from, "date-to": date_to,
        "language": language,
    }  # fmt: skip
    narrowed = " ".join(f"--{name} {value}" for name, value in given.items() if value)
    with pipeline_for(settings) as pipeline:
        filters = filters_for(pipeline, document, folder, date_from, date_to, language)
        if not pipeline.house.has_pages():
            raise UsageError(
                f"the index {settings.index} holds no page to find; `yomu list` shows what it has, "
                "`yomu ingest` adds documents"
            )
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
                    _print_hits(result, most, narrowed)


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
        "notes": list(result.notes),
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
        if question or image is None:
            question = checked_question(question or "")
        return [Query(question or "", image)]
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
        text, name = values["query"], id_text(values.get("id"))
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise UsageError(f'{where}: wanted {{"id": …, "query": "…"}}, found {line[:60]}') from None
    if not isinstance(text, str):
        raise UsageError(f"{where}: the query is not text")
    return Query(checked_question(text, where), id=name)


def _print_hits(result: "SearchResult", most_documents: int | None, narrowed: str) -> None:
    """Print pages, or so many documents with their pages.

    narrowed  the flags that left documents out, as typed
    """
    console = out()
    if not result.hits:
        where = f" with {narrowed}; `yomu list` shows all documents" if narrowed else ""
        console.print(f"Nothing found{escape(where)}.")
        _print_notes(console, result)
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
    found = counted(len(rows), "page" if most_documents is None else "document")
    console.print(f"{found} in {result.seconds * 1000:.0f} ms ({result.mode})")
    _print_notes(console, result)


def _print_notes(console: Console, result: "SearchResult") -> None:
    for note in result.notes:
        console.print(note, markup=False)


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
