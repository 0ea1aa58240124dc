"""The `yomu` command: flags in, tables or JSON out."""

import codecs
import inspect
import io
import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from rag.cli_ask import ask
from rag.cli_house import compact, list_documents, remove, stats, verify
from rag.cli_ingest import ingest
from rag.cli_look import look
from rag.cli_models import models_app
from rag.cli_search import search
from rag.cli_serve import serve
from rag.errors import ExpectedError, UsageError
from rag.interrupts import terminate_like_ctrl_c

# typer brings its own click; the base of every "no such option" and "missing argument".
CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="yomu",
    help="Ask a folder of PDFs a question; get an answer read from the page images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


app.command("ingest")(ingest)
app.command("search")(search)
app.command("ask")(ask)
app.command("serve")(serve)
app.command("list")(list_documents)
app.command("remove")(remove)
app.command("verify")(verify)
app.command("stats")(stats)
app.command("compact")(compact)
app.add_typer(models_app, name="models")
app.command("look")(look)
for _command in (*app.registered_commands, *models_app.registered_commands):
    # typer keeps the line ends of a docstring: paragraphs would break twice on a narrow terminal
    _text = inspect.cleandoc(getattr(_command.callback, "__doc__", None) or "")
    _command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", _text)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"yomu {version('yomu')}")
        raise typer.Exit


@app.callback()
def _common(
    _: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Ask a folder of PDFs a question; get an answer read from the page images."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit 0 all done, 1 some of it failed and is listed, 2 nothing done."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        _show_any_character()
        _start_log(os.environ.get("YOMU_LOG") or "WARNING")
        terminate_like_ctrl_c()
        # Not standalone: typer would write usage errors over six lines, a person needs one.
        sys.exit(app(args=given, prog_name="yomu", standalone_mode=False) or 0)
    except CommandLineError as error:
        message = str(getattr(error, "format_message", error.__str__)())
        message = message.replace("Value error, ", "")  # how pydantic begins
        context = getattr(error, "ctx", None)
        verb = context.command_path if context else "yomu"
        if message:  # none: help was shown
            sys.stderr.write(f"yomu: {message} (see {verb} --help)\n")
        sys.exit(2)
    except typer.Abort:
        sys.stderr.write("yomu: interrupted\n")
        sys.exit(2)
    except ExpectedError as error:
        sys.stderr.write(f"yomu: {error}\n")
        sys.exit(2)


def _show_any_character() -> None:
    r"""Write what a terminal's encoding lacks as \u00e9: lost to nobody, and the same in JSON."""
    codecs.register_error("yomu", _escaped)
    # None: closed by the caller (`>&-`), as some schedulers do
    sys.stdout, sys.stderr = (each or open(os.devnull, "w") for each in (sys.stdout, sys.stderr))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="yomu")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _start_log(level: str) -> None:
    """Log to stderr from this level on. Raises UsageError for a level that is none."""
    known = logging.getLevelNamesMapping()
    if level.upper() not in known:
        raise UsageError(f"YOMU_LOG is {level!r}; choose one of {', '.join(known)}")
    logging.basicConfig(level=level.upper(), format="%(message)s")
