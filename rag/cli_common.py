"""What every verb of the command line shares: options, tables, numbers for people."""

import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from rag.cli_models import JsonFlag, print_json
from rag.errors import UsageError
from rag.settings import ENVIRONMENT_PREFIX, Settings

if TYPE_CHECKING:
    from rag.pipeline import Pipeline

__all__ = ["JsonFlag", "print_json"]


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


IndexOption = Annotated[Path | None, setting("index", "--index", metavar="DIR", file_okay=False)]
ModelOption = Annotated[str | None, setting("model", metavar="NAME|DIR")]
DeviceOption = Annotated[str | None, setting("device")]
ThreadsOption = Annotated[int | None, setting("threads")]
WaitOption = Annotated[
    bool, typer.Option("--wait", help="Wait for another process that writes to the index.")
]


def pipeline_for(settings: Settings) -> "Pipeline":
    """Return a pipeline; imported only now, or `--help` would wait for faiss and scipy."""
    from rag.pipeline import Pipeline

    return Pipeline(settings)


def out() -> Console:
    """Return where results go."""
    return Console(soft_wrap=True, highlight=False)


def printable(text: str) -> str:
    """Text without control characters: neither a model nor a file name steers the terminal."""
    return "".join(
        char
        for char in text
        # isprintable() refuses every space but " ": Japanese has U+3000
        if char.isprintable() or char in "\n\t" or unicodedata.category(char) == "Zs"
    )


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
