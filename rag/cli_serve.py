"""`yomu serve`: the page and the API, until interrupted."""

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from rag.cli_common import DeviceOption, IndexOption, ModelOption, ThreadsOption, setting
from rag.errors import UsageError
from rag.settings import Mode, Settings


def serve(
    index: IndexOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; other than loopback needs --auth-file.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 7860,
    auth_file: Annotated[
        Path | None,
        typer.Option(help="Names and hashed passwords; everybody then has to log in."),
    ] = None,
    add_user: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Ask for a password, write it to --auth-file and end."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A name the server is called by, such as yomu.lan."),
    ] = None,
    root: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="A folder the page may add documents from."),
    ] = None,
    max_upload_mb: Annotated[int, typer.Option(min=1, help="Largest file to add.")] = 200,
    ocr: Annotated[str | None, setting("ocr", metavar="auto|off|LANGS")] = None,
    top_k: Annotated[int | None, setting("top_k", "--top-k", "-k")] = None,
    mode: Annotated[Mode | None, setting("mode")] = None,
) -> None:
    """Serve the page and the HTTP API to this machine, or with --auth-file to others.

    The page is at http://HOST:PORT/, the API is described at /api/docs. Ends with Ctrl-C.

    Exit code 0: interrupted. 2: could not be started.
    """
    settings = Settings.resolve(
        index=index, model=model, device=device, threads=threads, ocr=ocr, top_k=top_k, mode=mode
    )
    if add_user is not None:
        _add_user(auth_file, add_user)
        return
    from ui.server import ServeOptions
    from ui.server import serve as run

    run(
        settings,
        ServeOptions(
            host, port, auth_file, tuple(allow_host or ()), tuple(root or ()), max_upload_mb
        ),
    )


def _add_user(auth_file: Path | None, name: str) -> None:
    """Read a password, from a person twice or from a pipe, and write its hash."""
    from ui.security import add_user

    if auth_file is None:
        raise UsageError("--add-user needs --auth-file FILE to write to")
    if sys.stdin.isatty():
        password = getpass.getpass(f"Password of {name}: ")
        if getpass.getpass("Again: ") != password:
            raise UsageError("the two passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\n")
    add_user(auth_file, name, password)
    typer.echo(f"{name} can log in with {auth_file}.")
