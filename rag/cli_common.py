"""What every verb of the command line shares: options, tables, numbers for people."""

import json
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from index.text_layer import is_unicode
from rag.errors import UsageError
from rag.settings import ENVIRONMENT_PREFIX, Mode, Settings
from rag.words import LONGEST_QUESTION

LANGUAGE_NAMES = {"english": "en", "japanese": "ja"}
OF_DAY = "whose file was last changed on this day"
UNLIMITED = 100_000  # columns

if TYPE_CHECKING:
    from index.records import Filters
    from rag.pipeline import Pipeline


def setting(name: str, *flags: str, **extra: Any) -> Any:  # noqa: ANN401 - as typer.Option is typed
    """Return the option of a setting: its help text, and the variable that stands for it."""
    default = getattr(Settings(), name)
    shown = "" if default is None else f" (default: {default})"
    return typer.Option(
        *(flags or (f"--{name.replace('_', '-')}",)),
        help=Settings.help(name) + shown,
        envvar=ENVIRONMENT_PREFIX + name.upper(),
        show_default=False,
        **extra,
    )


def print_json(result: dict[str, Any]) -> None:
    """Write one JSON object on a line of stdout."""
    sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")


JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
IndexOption = Annotated[Path | None, setting("index", "--index", metavar="DIR", file_okay=False)]
ModelOption = Annotated[str | None, setting("model", metavar="NAME|DIR")]
DeviceOption = Annotated[str | None, setting("device")]
ThreadsOption = Annotated[int | None, setting("threads")]
WaitOption = Annotated[
    bool, typer.Option("--wait", help="Wait for another process that writes to the index.")
]


QuestionArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[QUESTION]", help="What to look for.")
]
DocumentOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|GLOB",
        help="Only documents of this name or pattern, or with a word in the name that begins so: "
        "'reports/*2024*', invoice.",
    ),
]
FolderOption = Annotated[str | None, typer.Option(help="Only documents in this folder and below.")]
FromOption = Annotated[
    str | None, typer.Option(metavar="YYYY-MM-DD", help=f"Only documents {OF_DAY} or later.")
]
ToOption = Annotated[
    str | None, typer.Option(metavar="YYYY-MM-DD", help=f"Only documents {OF_DAY} or earlier.")
]
LanguageOption = Annotated[
    str | None,
    typer.Option(
        metavar="CODE",
        help="Only documents in this language (en or ja), and those whose language is unknown.",
    ),
]
ModeOption = Annotated[Mode | None, setting("mode", case_sensitive=False)]


def pipeline_for(settings: Settings) -> "Pipeline":
    """Return a pipeline; imported only now, or `--help` would wait for faiss and scipy."""
    from rag.pipeline import Pipeline

    return Pipeline(settings)


def out() -> Console:
    """Return where results go; tables wrap on a terminal only, so that grep finds whole names."""
    width = None if sys.stdout.isatty() else UNLIMITED
    return Console(soft_wrap=True, highlight=False, width=width)


def printable(text: str) -> str:
    """Text without control characters: neither a model nor a file name steers the terminal."""
    return "".join(
        char
        for char in text
        # isprintable() refuses every space but " ": Japanese has U+3000
        if char.isprintable() or char in "\n\t" or unicodedata.category(char) == "Zs"
    )


class QuestionError(UsageError):
    """A question that cannot be asked; of many, the next one may well be."""


def checked_question(text: str, where: str = "QUESTION") -> str:
    """Return a question that can be asked: neither empty nor too long, and Unicode.

    Half a letter would be looked for as if it were not there. Raises QuestionError.
    """
    if not text.strip():
        raise QuestionError(f"{where}: the question is empty; say what to look for")
    if not is_unicode(text):
        raise QuestionError(f"{where}: {text[:60]!r} is not valid Unicode")
    if len(text) > LONGEST_QUESTION:
        raise QuestionError(
            f"{where}: the question has {len(text)} characters, {LONGEST_QUESTION} are the most"
        )
    return text


def filters_for(
    pipeline: "Pipeline",
    document: str | None,
    folder: str | None,
    date_from: str | None,
    date_to: str | None,
    language: str | None,
) -> "Filters":
    """Return what the flags mean. Raises UsageError for what is no document and no language."""
    from index.records import Filters
    from rag.names import filters_meant
    from rag.text_quality import LANGUAGES

    if language is not None:
        typed, language = language, LANGUAGE_NAMES.get(language.lower(), language.lower())
        if language not in LANGUAGES:
            raise UsageError(f"--language {typed!r}: choose one of {', '.join(LANGUAGES)}")
    return filters_meant(pipeline.house, Filters(document, folder, date_from, date_to, language))


def id_text(given: object) -> str | None:
    """Return the id of a question in a file as text: 7 is "7"; None where it has none."""
    if given is None or isinstance(given, str):
        return given
    return json.dumps(given, ensure_ascii=False)


def some_of(names: Sequence[str], most: int = 3) -> str:
    """List names for people: all, or the first and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def human_bytes(number: float) -> str:
    """Return a size for people: 1.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, "" for those of nothing but spaces. Raises UsageError.

    Lines end as editors end them; the other ends that Unicode knows may stand in JSON.
    """
    try:
        lines = path.read_text("utf-8-sig").removesuffix("\n").split("\n")
        return [line if line.strip() else "" for line in lines]
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8 text ({error})") from None
