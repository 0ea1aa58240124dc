"""Keeps the name of a folder from browsers: Gradio answers an upload with where it put the file.

The page hands that path back when the upload is complete. Here the folder goes under another name
on its way out and gets its own on its way in; Gradio's checks then see what they always see. A
request that names a file in any other place is refused here: whoever has not uploaded a file cannot
have it read, whatever Gradio checks.
"""

import json
import posixpath
import secrets
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.upload_folder import UploadFolder

ROUTES = "/gradio_api/"  # in the path of everything that Gradio's client calls
UPLOAD = "/gradio_api/upload"


class HiddenFolder:
    """ASGI: the folder has a random name in all answers of Gradio's routes and requests to them.

    Bodies are held as a whole only where they are JSON (requests, at most what the gate lets in;
    answers, a few kB); streams are renamed message by message, as Gradio sends them.
    """

    def __init__(self, app: ASGIApp, folder: UploadFolder) -> None:
        self._app, self._folder = app, folder
        self._real = json.dumps(str(folder.path))[1:-1].encode()
        self._shown = f"/{secrets.token_hex(12)}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, renamed, and its answer back."""
        if scope["type"] != "http" or ROUTES not in scope["path"]:
            await self._app(scope, receive, send)
            return
        if scope["path"].endswith(UPLOAD) and not await run_in_threadpool(self._folder.has_room):
            full = "too many uploads at once; try again in a while"
            await JSONResponse({"error": full}, 503)(scope, receive, send)
            return
        if scope["method"] == "POST" and not _is_form(Headers(scope=scope)):
            body, scope, receive = await self._renamed_request(scope, receive)
            if not self._names_uploads_only(body):
                foreign = "a file has to be uploaded before it can be used"
                await JSONResponse({"error": foreign}, 403)(scope, receive, send)
                return
        await self._app(scope, receive, self._renamed_answer(send))

    async def _renamed_request(
        self, scope: Scope, receive: Receive
    ) -> tuple[bytes, Scope, Receive]:
        body, more, last = b"", True, None
        while more:
            last = await receive()
            if last["type"] != "http.request":  # the client went away
                break
            body += last.get("body", b"")
            more = last.get("more_body", False)
        body = body.replace(self._shown, self._real)
        headers = [(k, v) for k, v in scope["headers"] if k != b"content-length"]
        length = (b"content-length", str(len(body)).encode())
        scope = {**scope, "headers": [*headers, length]}
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        if last is not None and last["type"] != "http.request":
            pending = [last]

        async def renamed() -> Message:
            return pending.pop() if pending else await receive()

        return body, scope, renamed

    def _names_uploads_only(self, body: bytes) -> bool:
        """Say whether every file that a body of JSON names lies in the folder, by its real name."""
        try:
            paths = _paths_in(json.loads(body))
        except ValueError:  # no JSON: nothing is made of it
            return True
        own = f"{self._folder.path}/"
        return all(isinstance(path, str) and posixpath.normpath(path).startswith(own)
                   for path in paths if path is not None)  # fmt: skip

    def _renamed_answer(self, send: Send) -> Send:
        start: Message | None = None
        whole = b""

        async def renamed(message: Message) -> None:
            nonlocal start, whole
            if message["type"] == "http.response.start":
                kind = Headers(raw=message["headers"]).get("content-type", "")
                if kind.startswith("application/json"):
                    start = message  # its length is known when the body is
                    return
                await send(message)
                return
            if message["type"] != "http.response.body":
                await send(message)
                return
            body = message.get("body", b"")
            if start is None:
                await send({**message, "body": body.replace(self._real, self._shown)})
                return
            whole += body
            if not message.get("more_body", False):
                whole = whole.replace(self._real, self._shown)
                MutableHeaders(scope=start)["content-length"] = str(len(whole))
                await send(start)
                await send({"type": "http.response.body", "body": whole})

        return renamed


def _is_form(headers: Headers) -> bool:
    return headers.get("content-type", "").startswith("multipart/form-data")


def _paths_in(data: Any) -> list[Any]:  # noqa: ANN401 - what a client sent
    """Return what any part of a request names as the path of a file, as Gradio looks for it."""
    found, parts = [], [data]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            if "path" in part:
                found.append(part["path"])
            parts += part.values()
        elif isinstance(part, list):
            parts += part
    return found
