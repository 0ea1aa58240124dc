"""Who may talk to the server, from where, and how much: one gate before every route.

The gate is plain ASGI around the whole application, so that no route, of Gradio's or ours, can be
added behind its back.
"""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import os
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rag.errors import UsageError
from ui.errors import error_body
from ui.refusal_page import refusal_page
from ui.upload_folder import KEPT_UPLOADS

if TYPE_CHECKING:
    from anyio import CapacityLimiter

SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**15, 8, 1  # 32 MB and about 0.1 s a guess
SCRYPT_MEMORY = 64 * 2**20
LEAST_PASSWORD = 8
FREE_FAILURES = 5  # then each costs twice the time of the one before
MOST_WAIT_S = 900.0
NAME_GROUPS = 64  # names of an address that wait together
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
BODY_BYTES = 2_000_000
UPLOAD_ROUTES = ("/gradio_api/upload", "/api/documents", "/api/search/image")
HEADERS = {
    # Gradio's page has inline scripts and styles, and turns `js=` strings into functions.
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "media-src 'self' data: blob:; worker-src 'self' blob:; connect-src 'self'; "
        "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach a server on this address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


# -- passwords -----------------------------------------------------------------------------------


def hash_password(password: str) -> str:
    """Return `scrypt$salt$key` for an auth file. Raises UsageError for one that is too short."""
    if len(password) < LEAST_PASSWORD:
        raise UsageError(f"a password has at least {LEAST_PASSWORD} characters")
    salt = secrets.token_bytes(16)
    return f"scrypt${salt.hex()}${_key(password, salt).hex()}"


def _key(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "replace"), salt=salt, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P,
        maxmem=SCRYPT_MEMORY, dklen=32,
    )  # fmt: skip


def read_users(path: Path) -> dict[str, str]:
    """Return name → hash of an auth file: a line `name:scrypt$…` each. Raises UsageError."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from None
    users = {}
    for n, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, hashed = line.partition(":")
        parts = hashed.strip().split("$")
        is_well = len(parts) == 3 and parts[0] == "scrypt" and _is_hex(parts[1] + parts[2])
        if not name or not is_well or len(parts[2]) != 64:
            raise UsageError(f"{path}:{n}: wanted name:scrypt$…; `yomu serve --add-user` writes it")
        users[name] = hashed.strip()
    if not users:
        raise UsageError(f"{path}: holds no user; add one with `yomu serve --add-user NAME`")
    return users


def add_user(path: Path, name: str, password: str) -> None:
    """Write or replace a user of an auth file, which only its owner may read."""
    if not name or ":" in name or not name.isprintable():
        raise UsageError("a user's name has no colon and no control characters")
    users = read_users(path) if path.exists() and path.stat().st_size else {}
    users[name] = hash_password(password)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.writelines(f"{user}:{hashed}\n" for user, hashed in users.items())


def _is_hex(text: str) -> bool:
    return bool(text) and all(char in "0123456789abcdef" for char in text)


@dataclass
class _Failures:
    count: int = 0
    blocked_until: float = 0.0


class Login:
    """Checks names and passwords; who guesses wrong waits longer each time.

    Failures count against a name at an address: behind a proxy all clients have one address, and
    who guesses one name's password must not lock the others out. Names wait in groups, so that
    names which nobody has cost a guesser as much, and tell as little, as those of users.
    """

    def __init__(self, users: Mapping[str, str]) -> None:
        self._users = dict(users)
        self._pepper = secrets.token_bytes(32)
        self._known: dict[bytes, str] = {}  # credentials that were right, as keyed hashes
        self._failures: dict[str, _Failures] = {}
        self._lock = threading.Lock()
        self._guessing = threading.Lock()  # one at a time, or guesses at once would all be free
        # an unknown name costs as much time as a known one
        self._nobody = f"scrypt${'00' * 16}${'00' * 32}"

    def _guesser(self, client: str, name: str) -> str:
        mark = hmac.digest(self._pepper, name.encode("utf-8", "replace"), "sha256")
        return f"{client} {mark[0] % NAME_GROUPS}"

    def wait_s(self, client: str, name: str) -> float:
        """Return for how long a client may not try a name again."""
        with self._lock:
            failed = self._failures.get(self._guesser(client, name))
            return max(0.0, failed.blocked_until - time.monotonic()) if failed else 0.0

    def check(self, client: str, name: str, password: str) -> str | None:
        """Return the user's name, or None for wrong credentials, which count against the client."""
        known = self.known(name, password)
        if known is not None:
            return known
        with self._guessing:
            return self._guess(client, name, password, self._mark(name, password))

    def known(self, name: str, password: str) -> str | None:
        """Return the user's name for credentials that were right before; costs next to nothing."""
        with self._lock:
            return self._known.get(self._mark(name, password))

    def _mark(self, name: str, password: str) -> bytes:
        said = f"{name}\0{password}".encode("utf-8", "replace")
        return hmac.digest(self._pepper, said, "sha256")

    def _guess(self, client: str, name: str, password: str, mark: bytes) -> str | None:
        if self.wait_s(client, name) > 0:  # since others guessed meanwhile
            return None
        _, salt, key = self._users.get(name, self._nobody).split("$")
        is_right = hmac.compare_digest(_key(password, bytes.fromhex(salt)), bytes.fromhex(key))
        with self._lock:
            if is_right and name in self._users:
                self._failures.pop(self._guesser(client, name), None)
                self._known[mark] = name
                return name
            self._count_failure(self._guesser(client, name))
        return None

    def _count_failure(self, guesser: str) -> None:
        if len(self._failures) > 10_000:
            self._failures.clear()
        failed = self._failures.setdefault(guesser, _Failures())
        failed.count += 1
        over = failed.count - FREE_FAILURES
        if over >= 0:
            wait = min(2.0 ** min(over, 32), MOST_WAIT_S)
            failed.blocked_until = time.monotonic() + wait


def credentials(header: str) -> tuple[str, str] | None:
    """Return name and password of `Basic …`, or of `Bearer name:password` for programs."""
    kind, _, value = header.partition(" ")
    if kind.lower() == "basic":
        try:
            value = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
    elif kind.lower() != "bearer":
        return None
    name, colon, password = value.partition(":")
    return (name, password) if colon else None


# -- the gate ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GateOptions:
    """What the gate lets through.

    hosts   names beside localhost and IP addresses that the server may be called by
    login   None: nobody has to say who they are
    """

    upload_bytes: int
    hosts: frozenset[str] = frozenset()
    login: Login | None = None
    body_bytes: int = BODY_BYTES
    upload_routes: tuple[str, ...] = field(default=UPLOAD_ROUTES)


class _TooLarge(HTTPException):
    """A body without a length turned out to be too large.

    An HTTPException, because FastAPI turns everything else that reading a body raises into 400.
    """

    def __init__(self) -> None:
        super().__init__(413, "the request is too large")


class Gate:
    """ASGI: host, origin, size and log-in of every request; security headers on every answer."""

    def __init__(self, app: ASGIApp, options: GateOptions) -> None:
        self._app, self._options = app, options
        self._guesses: CapacityLimiter | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it before anything else sees it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no WebSockets here
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers) or await self._log_in(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, _with_headers(send))
            return
        try:
            await self._app(scope, self._limited(scope, receive), _with_headers(send))
        except _TooLarge:
            refusal = _refuse(scope, 413, "the request is too large")
            await refusal(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return _refuse(
                scope, 421, "this server does not go by that name; see `yomu serve --allow-host`"
            )
        if scope["method"] not in SAFE_METHODS and not _is_same_origin(headers, hosts[0]):
            return _refuse(scope, 403, "requests from another site are not accepted")
        length = headers.get("content-length")
        if length is not None and not length.isdigit():
            return _refuse(scope, 400, "the content length is no number")
        if length is not None and int(length) > self._most_bytes(scope):
            return _refuse(scope, 413, "the request is too large")
        return None

    def _is_ours(self, host: str) -> bool:
        """Say whether a Host header names this server; a rebound DNS name does not."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            port = urlsplit(f"//{host}").port  # noqa: F841 - raises for an impossible one
        except ValueError:
            return False
        if name == "localhost" or name in self._options.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _most_bytes(self, scope: Scope) -> int:
        options = self._options
        is_upload = str(scope["path"]).rstrip("/").endswith(options.upload_routes)
        # a file may be that large, and several come at once
        return KEPT_UPLOADS * options.upload_bytes * is_upload + options.body_bytes

    async def _log_in(self, scope: Scope, headers: Headers) -> Response | None:
        login = self._options.login
        if login is None:
            return None
        import anyio
        import anyio.to_thread

        client = scope["client"][0] if scope.get("client") else ""
        given = credentials(headers.get("authorization", ""))
        # before any wait: who guesses a name's password must not throw its owner out
        if given is not None and (user := login.known(*given)) is not None:
            scope.setdefault("state", {})["user"] = user
            return None
        if given is not None and (wait := login.wait_s(client, given[0])) > 0:
            answer = _refuse(scope, 429, "too many wrong passwords; wait before the next try")
            answer.headers["retry-after"] = str(int(wait) + 1)
            return answer
        if given is not None:
            if self._guesses is None:
                self._guesses = anyio.CapacityLimiter(1)  # or waiting guesses took all threads
            user = await anyio.to_thread.run_sync(
                login.check, client, *given, limiter=self._guesses
            )
            if user is not None:
                scope.setdefault("state", {})["user"] = user
                return None
        answer = _refuse(scope, 401, "log in with a name and a password")
        answer.headers["www-authenticate"] = 'Basic realm="Yomu", charset="UTF-8"'
        return answer

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        left = self._most_bytes(scope)

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise _TooLarge
            return message

        return counted


def _is_same_origin(headers: Headers, host: str) -> bool:
    """Say whether a request comes from our own page, or from no page at all (a program)."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == host.lower()


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if "server" in headers:
                del headers["server"]
        await send(message)

    return sent


def _refuse(scope: Scope, status: int, message: str) -> Response:
    """Return why a request is refused: a page for a person's browser, JSON for a program."""
    headers = Headers(scope=scope)
    if "text/html" in headers.get("accept", ""):
        return HTMLResponse(refusal_page(message, headers.get("accept-language")), status)
    return JSONResponse(error_body(scope["path"], status, message), status)
