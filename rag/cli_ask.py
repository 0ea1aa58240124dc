"""`yomu ask`: a question in, the pages that answer it and a streamed answer out."""

import json
import sys
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from models.errors import PromptError
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
    QuestionError,
    ThreadsOption,
    ToOption,
    checked_question,
    filters_for,
    id_text,
    pipeline_for,
    print_json,
    printable,
    read_lines,
    setting,
)
from rag.errors import DocumentError, ExpectedError, UsageError
from rag.settings import Settings
from rag.words import (
    NEAREST,
    QUOTED_HINT,
    QUOTED_NOTE,
    READ_FROM,
    READING,
    ended_early,
    in_language_of,
    page_named,
)

if TYPE_CHECKING:
    from index.records import Filters, PageHit
    from rag.answer import Answer, AnswerStream, Question
    from rag.manner import AnswerOptions
    from rag.page_choice import PageRef
    from rag.pipeline import Pipeline

# The question is empty or too long, or the pages that answer it are gone: the next may succeed.
OF_ONE_QUESTION = (PromptError, DocumentError, QuestionError)


def ask(
    question: QuestionArgument = None,
    index: IndexOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    pages: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="How many pages the model reads, best first; by default what suits the model.",
        ),
    ] = None,
    neighbours: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Also read the N pages before and after each, where an answer may go on.",
        ),
    ] = 0,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Longest answer, in tokens.")
    ] = None,
    generate: Annotated[
        bool,
        typer.Option(
            "--generate",
            help="Let the model write the answer, even where its folder says to quote the pages.",
        ),
    ] = False,
    top_k: Annotated[int | None, setting("top_k", "--top-k", "-k")] = None,
    mode: ModeOption = None,
    document: DocumentOption = None,
    folder: FolderOption = None,
    date_from: FromOption = None,
    date_to: ToOption = None,
    language: LanguageOption = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl",
            help='Many questions, a line {"id": …, "question": …} each; prints a JSON line each.',
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Answer a question from the pages, and say which pages.

    The pages go to stderr as soon as they are found, then the answer streams to stdout, then the
    pages it was read from. A line on stderr says if the answer was cut, or stopped because it
    repeated itself. Where nothing in the index answers, it says so and names the nearest pages.

    Exit code 0, also when nothing was found; 1: some of --questions failed and are listed; 2: the
    question could not be asked.
    """
    settings = Settings.resolve(
        index=index, model=model, device=device, threads=threads, top_k=top_k, mode=mode
    )
    from rag.manner import AnswerOptions

    options = AnswerOptions(pages, neighbours, max_new_tokens, generate)
    wanted = _questions(" ".join(question) if question else None, questions)
    with pipeline_for(settings) as pipeline:
        filters = filters_for(pipeline, document, folder, date_from, date_to, language)
        if questions is not None:
            failed = _ask_all(pipeline, wanted, options, filters)
        else:
            failed = False
            answer = answered(pipeline, wanted[0], options, filters, as_json=as_json)
            if as_json:
                print_json(answer_json(answer))
    if failed:
        raise typer.Exit(1)


def answered(
    pipeline: "Pipeline",
    question: "Question",
    options: "AnswerOptions",
    filters: "Filters | None" = None,
    *,
    as_json: bool,
) -> "Answer":
    """Answer to the end, for people while it comes; what went wrong on the way goes to stderr."""
    stream = pipeline.ask(question, options, filters)
    if as_json:
        deque(stream, maxlen=0)
    else:
        _show(stream)
    for note in stream.notes:
        said = in_language_of(question.text, QUOTED_HINT) if note == QUOTED_NOTE else note
        sys.stderr.write(f"yomu: {printable(said)}\n")
    answer = stream.result()
    remark = ended_early(question.text, answer.stop_reason, answer.timings.tokens)
    if remark and not as_json:
        sys.stderr.write(f"yomu: {remark}\n")
    return answer


def _show(stream: "AnswerStream") -> None:
    """Write the pages to stderr, the text to stdout as it comes, and the pages it is read from."""
    question = stream.evidence.question.text

    def line(texts: dict[str, str], pages: "Iterable[PageRef | PageHit]") -> str:
        listed = "; ".join(
            page_named(question, printable(page.document), page.page) for page in pages
        )
        return in_language_of(question, texts).format(pages=listed)

    if not stream.abstained:
        sys.stderr.write(f"{line(READING, stream.pages)}\n")
        sys.stderr.flush()
    for piece in stream:
        before, key, behind = _around_key(piece, stream)
        sys.stdout.write(printable(before))
        if key:  # bold where this is a terminal
            Console(soft_wrap=True, highlight=False).print(Text(printable(key), "bold"), end="")
        sys.stdout.write(printable(behind))
        sys.stdout.flush()
    answer = stream.result()
    sys.stdout.write("\n")
    if not answer.abstained:
        sys.stdout.write(f"\n{line(READ_FROM, answer.pages)}\n")
    elif answer.hits:
        sys.stdout.write(f"\n{line(NEAREST, answer.hits)}\n")
    sys.stdout.flush()


def _around_key(piece: str, stream: "AnswerStream") -> tuple[str, str, str]:
    """Divide what is quoted, which comes in one piece, at what is asked for."""
    key = None if stream.generates else stream.result().key
    if key is None:
        return piece, "", ""
    start = piece.index(dict(stream.result().quotations)[key.page]) + key.start
    end = start + len(key.text)
    return piece[:start], piece[start:end], piece[end:]


def answer_json(answer: "Answer") -> dict[str, Any]:
    """Return the object that `--json` prints.

    Beyond the contract: pages (all the model was given, neighbours included), stop_reason, notes,
    timings.read_pages and, where a quotation leaves no doubt of what is asked for, key.
    """
    timings = asdict(answer.timings)
    key = answer.key and {"text": answer.key.text, **_page_json(answer.key.page)}
    return {
        "id": answer.question.id,
        "question": answer.question.text,
        "answer": answer.text,
        "abstained": answer.abstained,
        "citations": [_page_json(page) for page in answer.citations],
        "hits": [
            {"document": hit.document, "page": hit.page, "score": round(hit.score, 6)}
            for hit in answer.hits
        ],
        "timings": {name: round(value, 4) for name, value in timings.items()},
        "pages": [_page_json(page) for page in answer.pages],
        "stop_reason": answer.stop_reason,
        "notes": list(answer.notes),
        **({"key": key} if key else {}),
    }


def _ask_all(
    pipeline: "Pipeline", wanted: "list[Question]", options: "AnswerOptions", filters: "Filters"
) -> bool:
    """Print a JSON line for each question; one that fails has an `error`. Return if any did."""
    failed, n_asked = False, 0
    for n, question in enumerate(wanted):
        try:
            checked_question(question.text)
            n_asked += 1
            answer = answered(pipeline, question, options, filters, as_json=True)
            print_json(answer_json(answer))
        except ExpectedError as error:
            if n_asked == 1 and not isinstance(error, OF_ONE_QUESTION):
                raise  # no index, no model, no such document: every question would fail
            failed = True
            print_json({"id": question.id, "question": question.text, "error": str(error)})
            name = n + 1 if question.id is None else question.id
            sys.stderr.write(f"yomu: question {name}: {error}\n")
        sys.stdout.flush()
    return failed


def _questions(question: str | None, file: Path | None) -> "list[Question]":
    from rag.answer import Question

    if file is None:
        if question is None:
            raise UsageError("nothing to answer: give a QUESTION or --questions")
        return [Question(checked_question(question))]
    if question is not None:
        raise UsageError("--questions brings its own questions; leave out QUESTION")
    found = [_parse(line, f"{file}:{n}") for n, line in enumerate(read_lines(file), 1) if line]
    if not found:
        raise UsageError(f"{file}: holds no question")
    return found


def _parse(line: str, where: str) -> "Question":
    from rag.answer import Question

    try:
        values = json.loads(line)
        text, name = values["question"], id_text(values.get("id"))
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise UsageError(
            f'{where}: wanted {{"id": …, "question": "…"}}, found {line[:60]}'
        ) from None
    if not isinstance(text, str):
        raise UsageError(f"{where}: the question is not text")
    return Question(text, id=name)


def _page_json(page: "PageRef") -> dict[str, Any]:
    return {"document": page.document, "page": page.page}
