"""The server: our API and Gradio's page in one application, behind one gate, run by uvicorn."""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exception_handlers import request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.types import ASGIApp

from rag.errors import UsageError
from rag.pipeline import Pipeline
from rag.records import IndexMismatch, ModelError, PageIndexError
from rag.settings import Settings
from ui import api, openai_api
from ui.hidden_folder import HiddenFolder
from ui.memory import use_one_arena
from ui.requests import ServiceLimits
from ui.security import Gate, GateOptions, Login, is_loopback, read_users
from ui.service import Service
from ui.upload_folder import UploadFolder


@dataclass(frozen=True)
class ServeOptions:
    """Where to listen and who may come in."""

    host: str = "127.0.0.1"
    port: int = 7860
    auth_file: Path | None = None
    hosts: tuple[str, ...] = ()  # names the server is called by, beside localhost and addresses
    roots: tuple[Path, ...] = ()
    max_upload_mb: int = 200
    has_page: bool = True

    def check(self) -> None:
        """Raise UsageError for what is not safe or cannot be."""
        if self.auth_file is None and not is_loopback(self.host):
            raise UsageError(
                f"--host {self.host} can be reached from other machines: give --auth-file FILE "
                "(make one with `yomu serve --auth-file FILE --add-user NAME`)"
            )
        for root in self.roots:
            if not root.is_dir():
                raise UsageError(f"--root {root}: no such folder")


def build(
    service: Service, options: ServeOptions, announce: Callable[[], None] = lambda: None
) -> ASGIApp:
    """Return the whole application behind its gate; `announce` is called when it takes requests."""
    folder = UploadFolder(service.limits.upload_bytes) if options.has_page else None

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        announce()
        yield
        service.close()
        if folder is not None:
            folder.close()

    app = FastAPI(
        title="Yomu", version="1", lifespan=life, docs_url=None, redoc_url=None,
        openapi_url="/api/openapi.json",
        description="Search pages, ask questions of them, add and remove documents.",
    )  # fmt: skip
    api.install(app, service)
    openai_api.install(app, service)
    api.install_rest(app)
    inner: ASGIApp = app
    if folder is not None:
        _mount_page(app, service)
        inner = HiddenFolder(app, folder)
    login = Login(read_users(options.auth_file)) if options.auth_file else None
    names = frozenset(name.lower() for name in (*options.hosts, options.host))
    gate = GateOptions(service.limits.upload_bytes, names, login)
    return Gate(inner, gate)


def _mount_page(app: FastAPI, service: Service) -> None:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr

    from ui import mcp
    from ui.app import build_app
    from ui.look import mount_options

    tools, page = mcp.build_tools(service), build_app(service)
    for blocks in (tools, page):
        # Gradio checks that a file named by a request was uploaded only once an app "has launched",
        # which mounting leaves out: anybody could have had any file of this machine read.
        blocks.has_launched = True
    gr.mount_gradio_app(app, tools, path=mcp.PATH, mcp_server=True, **_mounting(service))
    look = _mounting(service) | mount_options()
    gr.mount_gradio_app(app, page, path="/", mcp_server=False, **look)


def _mounting(service: Service) -> dict[str, Any]:
    """Return what both mounts have in common; a new dict each, for Gradio writes into it.

    run_history would keep questions and answers in the browser after the visit: it is off.
    """
    return {
        "allowed_paths": [], "max_file_size": service.limits.upload_bytes,
        "enable_monitoring": False, "ssr_mode": False, "footer_links": [], "run_history": False,
        "show_error": False,
        "app_kwargs": {
            "docs_url": None, "redoc_url": None,
            "exception_handlers": {RequestValidationError: _nothing_to_cancel},
        },
    }  # fmt: skip


async def _nothing_to_cancel(request: Request, error: Exception) -> Response:
    """Take Gradio's cancelling of an event that it has no name for yet, instead of refusing it.

    A question that follows at once on the choice of a page would leave an error in the console.
    """
    assert isinstance(error, RequestValidationError)
    if request.url.path.endswith(("/cancel", "/reset")):
        return JSONResponse({"success": True})
    return await request_validation_exception_handler(request, error)


def serve(settings: Settings, options: ServeOptions) -> None:
    """Run until interrupted. Raises UsageError and IndexMismatch before anything listens."""
    options.check()
    _refuse_other_model(settings)
    use_one_arena()
    import uvicorn

    limits = ServiceLimits(upload_bytes=options.max_upload_mb * 1_000_000)
    service = Service(settings, limits, options.roots)
    listener = _listen(options.host, options.port)
    host = f"[{options.host}]" if ":" in options.host else options.host
    url = f"http://{host}:{listener.getsockname()[1]}"

    def announce() -> None:
        sys.stderr.write(f"Yomu is at {url}/ (API: {url}/api/docs); Ctrl-C ends it.\n")

    sys.stderr.write("Starting the page …\n")
    application = build(service, options, announce)
    config = uvicorn.Config(
        application, log_level="warning", access_log=False, server_header=False, ws="none",
        timeout_graceful_shutdown=5, proxy_headers=False,
    )  # fmt: skip
    logging.getLogger("uvicorn.error").addFilter(_is_worth_saying)
    with contextlib.suppress(KeyboardInterrupt):  # it ended well, and says so again
        uvicorn.Server(config).run(sockets=[listener])


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """Leave out that streams were open at the end: every page has some, and they end with it."""
    error = record.exc_info[1] if record.exc_info else None
    is_their_end = isinstance(error, asyncio.CancelledError)
    return not is_their_end and "graceful shutdown exceeded" not in record.getMessage()


def _refuse_other_model(settings: Settings) -> None:
    """Raise IndexMismatch where no question could be answered; the page says all else itself."""
    try:
        Pipeline(settings).check_model()
    except IndexMismatch:
        raise
    except (ModelError, PageIndexError):
        pass


def _listen(host: str, port: int) -> socket.socket:
    """Return a bound socket; the port is known before the page is built. Raises UsageError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UsageError(f"cannot listen on {host}:{port} ({error.strerror})") from None
    return listener
