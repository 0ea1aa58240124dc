"""The `yomu` command: flags in, tables or JSON out."""

import logging
import os
import sys
from collections.abc import Sequence

import typer

from rag.cli_models import look, models_app
from rag.errors import ExpectedError

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
    logging.basicConfig(level=os.environ.get("YOMU_LOG", "WARNING"), format="%(message)s")
    try:
        app(args=list(arguments) if arguments is not None else None)
    except ExpectedError as error:
        sys.stderr.write(f"yomu: {error}\n")
        sys.exit(2)
