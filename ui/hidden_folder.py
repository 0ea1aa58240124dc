"""Keeps the name of a folder from browsers: Gradio answers an upload with where it put the file.

The page hands that path back when the upload is complete. Here the folder goes under another name
on its way out and gets its own on its way in; Gradio's checks then see what they always see.
"""

import json
import secrets
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ROUTES = "/gradio_api/"  # in the path of everything that Gradio's client calls


class HiddenFolder:
    """ASGI: `folder` has a random name in every answer of Gradio's routes, and in requests to them.

    Bodies are held as a whole only where they are JSON (requests, at most what the gate lets in;
    answers, a few kB); streams are renamed message by message, as Gradio sends them.
    """

    def __init__(self, app: ASGIApp, folder: Path) -> None:
        self._app = app
        self._real = json.dumps(str(folder))[1:-1].encode()
        self._shown = f"/{secrets.token_hex(12)}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, renamed, and its answer back."""
        if scope["type"] != "http" or ROUTES not in scope["path"]:
            await self._app(scope, receive, send)
            return
        if Headers(scope=scope).get("content-type", "").startswith("application/json"):
            scope, receive = await self._renamed_request(scope, receive)
        await self._app(scope, receive, self._renamed_answer(send))

    async def _renamed_request(self, scope: Scope, receive: Receive) -> tuple[Scope, Receive]:
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

        return scope, renamed

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
