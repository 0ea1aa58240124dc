"""The `yomu` command: flags in, tables or JSON out."""

import logging
import os
import sys
from collections.abc import Sequence

import typer

from rag.cli_models import look, models_app
from rag.errors import ExpectedError, UsageError

app = typer.Typer(
    name="yomu",
    help="Ask a folder of PDFs a question; get an answer read from the page images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


app.add_typer(models_app, name="models")
app.command("look")(look)


@app.callback()
def _common() -> None:
    """Ask a folder of PDFs a question; get an answer read from the page images."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit 0 all done, 1 some of it failed and is listed, 2 nothing done."""
    try:
        _start_log(os.environ.get("YOMU_LOG", "WARNING"))
        app(args=list(arguments) if arguments is not None else None)
    except ExpectedError as error:
        sys.stderr.write(f"yomu: {error}\n")
        sys.exit(2)


def _start_log(level: str) -> None:
    """Log to stderr from this level on. Raises UsageError for a level that is none."""
    known = logging.getLevelNamesMapping()
    if level.upper() not in known:
        raise UsageError(f"YOMU_LOG is {level!r}; choose one of {', '.join(known)}")
    logging.basicConfig(level=level.upper(), format="%(message)s")
