"""A small hub on loopback: the routes that huggingface_hub asks, and faults on demand."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "5" * 40
LFS_FROM = 5000  # bytes; like the hub, large files have a sha256 and small ones a git id


@dataclass(frozen=True)
class Request:
    """One request for a file: where it began to read, and how much it was sent."""

    file: str
    start: int
    n_sent: int
    ranged: bool


@dataclass
class Hub:
    """Serves the folders below `root` as repositories `owner/name`."""

    root: Path
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    # file -> bytes after which the connection is cut, or left hanging, once
    cut_after: dict[str, int] = field(default_factory=dict)
    hang_after: dict[str, int] = field(default_factory=dict)
    refuse: dict[str, int] = field(default_factory=dict)  # repository -> HTTP status
    spoil: set[str] = field(default_factory=set)  # files sent with one wrong byte, once
    released: threading.Event = field(default_factory=threading.Event)

    def of(self, file: str) -> list[Request]:
        """The requests for one file."""
        return [request for request in self.requests if request.file == file]

    def n_sent(self) -> int:
        """Bytes of files sent in all."""
        return sum(request.n_sent for request in self.requests)


@contextmanager
def serve(root: Path) -> Iterator[Hub]:
    """Run a hub until the block ends."""
    hub = Hub(root)

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:  # noqa: N802 - the name is the protocol's
        self.do_GET()

    def do_GET(self) -> None:  # noqa: N802
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path):
            self._json(match[1], {"id": match[1], "sha": COMMIT, "siblings": []})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+/?", path):
            self._json(match[1], self._tree(match[1]))
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self._resolve(match[1], match[2])
        elif match := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
            self._file(match[1], match[2])
        else:
            self.send_error(404)

    def _tree(self, repository: str) -> list[dict]:
        entries = []
        for path in sorted((self.hub.root / repository).iterdir()):
            content = path.read_bytes()
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry = {"type": "file", "path": path.name, "size": len(content), "oid": blob}
            if len(content) >= LFS_FROM:
                sha = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 130}
            entries.append(entry)
        return entries

    def _refused(self, repository: str) -> bool:
        status = self.hub.refuse.get(repository)
        if status is None and not (self.hub.root / repository).is_dir():
            status = 404
        if status is not None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
        return status is not None

    def _json(self, repository: str, content: object) -> None:
        if self._refused(repository):
            return
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _page(self) -> None:
        """Answer like a network that wants a log-in first."""
        body = b"<html>Welcome to the hotel</html>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _resolve(self, repository: str, name: str) -> None:
        """Like the hub, send small files at once and large ones from elsewhere."""
        if self._refused(repository):
            return
        if not (self.hub.root / repository / name).exists():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if (self.hub.root / repository / name).stat().st_size < LFS_FROM:
            self._file(repository, name)
            return
        self.send_response(302)
        self.send_header("Location", f"{self.hub.url}/cdn/{repository}/{name}")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _file(self, repository: str, name: str) -> None:
        content = (self.hub.root / repository / name).read_bytes()
        if name in self.hub.spoil:
            self.hub.spoil.discard(name)
            content = content[:-1] + bytes([content[-1] ^ 1])
        start, end = 0, len(content)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            start, end = int(wanted[1]), min(end, int(wanted[2] or end) + 1)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.send_header("Content-Length", str(end - start))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.hub.cut_after.pop(name, None)
        hang = self.hub.hang_after.pop(name, None)
        stop = next((each for each in (cut, hang) if each is not None), end)
        body = content[start : min(end, stop)]
        self.hub.requests.append(Request(name, start, len(body), wanted is not None))
        self.wfile.write(body)
        self.wfile.flush()
        if hang is not None:
            self.hub.released.wait(60)
        if cut is not None or hang is not None:
            self.close_connection = True
            self.connection.close()
