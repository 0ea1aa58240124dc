"""The process that meets strangers' files: reads pages on request, and may die of it.

Started by `rag/reader.py` as `python -m rag.render_worker FD`; never imported by it. One request
is one JSON message over the pipe; the answer is one JSON message and, for a page, its pixels.
Memory, CPU time and core dumps are limited here; wall-clock time is watched from outside, because
native code that spins cannot be interrupted from within.
"""

import contextlib
import io
import json
import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from PIL import Image

from rag.documents import OpenDocument, open_document
from rag.errors import DocumentError
from rag.page_content import PageContent, RasterSize

THUMBNAIL_SIDE_PX = 800
THUMBNAIL_QUALITY = 55  # about 25 KB for a page of text, still readable on screen
MEMORY_REASON = "needs more memory than a page may take"


class RenderWorker:
    """Answers requests; keeps the document of the last one open."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._document: OpenDocument | None = None

    def answer(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        """Return (message, binary parts) for one request; a bad file is an answer, too."""
        try:
            document = self._open(request["path"], request["passwords"])
            if request["page"] is None:
                return {"n_pages": document.n_pages, "title": document.title}, []
            if request.get("words") is not None:
                return {"boxes": document.find(request["page"], request["words"])}, []
            if request.get("rows"):
                return {"rows": document.rows(request["page"])}, []
            size = RasterSize(request["dpi"], request["max_pixels"])
            return _page_message(document.read(request["page"], size), request["thumbnail"])
        except DocumentError as error:
            return {"error": str(error)}, []
        except MemoryError:
            self._forget()
            return {"error": MEMORY_REASON, "memory": True}, []

    def _open(self, path: str, passwords: list[str]) -> OpenDocument:
        key = (path, *passwords, *_version(path))
        if self._document is None or self._key != key:
            self._forget()
            self._document = open_document(Path(path), passwords)
            self._key = key
        return self._document

    def _forget(self) -> None:
        if self._document is not None:
            self._document.close()
        self._document, self._key = None, ()


def _version(path: str) -> tuple[int, ...]:
    """Tell a file from another one that has taken its place."""
    try:
        found = os.stat(path)
    except OSError:  # opening it will say why
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def limit_resources(memory_bytes: int) -> None:
    """Cap this process's address space and turn core dumps off, where the system can."""
    _limit("RLIMIT_CORE", 0, for_good=True)
    _limit("RLIMIT_AS", memory_bytes, for_good=True)


def allow_cpu_seconds(seconds: float) -> None:
    """Let this process use `seconds` more of CPU time before the system ends it (SIGXCPU)."""
    _limit("RLIMIT_CPU", int(time.process_time() + seconds) + 1, for_good=False)


def _limit(name: str, wanted: int, *, for_good: bool) -> None:
    """Set a limit, or keep a stricter one that was set before; `for_good`: never to be raised.

    Windows has no such limits, macOS refuses some: pages are then read all the same.
    """
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        resource.setrlimit(kind, (wanted, wanted if for_good else hard))


def thumbnail(image: Image.Image) -> bytes:
    """Return a small WebP of a page, for lists and galleries."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX), reducing_gap=2.0)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=THUMBNAIL_QUALITY, method=2)
    return buffer.getvalue()


def _page_message(page: PageContent, with_thumbnail: bool) -> tuple[dict[str, Any], list[bytes]]:
    message = {
        "number": page.number,
        "size": page.image.size,
        "text": page.text,
        "text_state": page.text_state,
        "blank": page.blank,
        "notes": page.notes,
    }
    small = thumbnail(page.image) if with_thumbnail else b""
    return message, [page.image.tobytes(), small]


def main(descriptor: int) -> None:
    """Serve requests until the other end hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    worker = RenderWorker()
    with Connection(descriptor) as pipe, contextlib.suppress(EOFError, BrokenPipeError):
        limits = json.loads(pipe.recv_bytes())
        limit_resources(limits["memory_bytes"])
        pipe.send_bytes(b"{}")
        while True:
            request = json.loads(pipe.recv_bytes())
            allow_cpu_seconds(limits["cpu_s"])
            message, parts = worker.answer(request)
            # Text layers may hold lone surrogates; json escapes them, UTF-8 would not.
            pipe.send_bytes(json.dumps(message).encode("ascii"))
            for part in parts:
                pipe.send_bytes(part)


if __name__ == "__main__":
    main(int(sys.argv[1]))
