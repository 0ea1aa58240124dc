"""Reads pages through worker processes, so that no file can take the program down.

`PageReader` is one worker: it is given limits, watched, killed when it overruns them, and started
anew. `ReaderPool` is several of them working ahead of whoever consumes the pages.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self, TypeVar

from PIL import Image

from rag.errors import DocumentError

Job = TypeVar("Job")
Result = TypeVar("Result")
START_TIMEOUT_S = 120.0  # importing MuPDF on a busy machine, nothing of the file


@dataclass(frozen=True)
class Limits:
    """What one page may take before its worker is stopped."""

    memory_bytes: int = 1_500_000_000
    cpu_s: float = 60.0
    wall_s: float = 60.0


@dataclass(frozen=True)
class ReadPage:
    """One page from a worker: RGB image, trusted text and what was odd about it.

    text_state  "good", "none" or "garbage", as `rag.text_quality` judged it
    thumbnail   WebP bytes, b"" when not asked for
    """

    number: int
    image: Image.Image
    text: str
    text_state: str
    blank: bool
    notes: tuple[str, ...]
    thumbnail: bytes


class WorkerDied(Exception):
    """The worker ended while it was reading; never leaves this module."""


class PageReader:
    """One render worker and its limits; start is lazy, restart automatic. Not thread-safe."""

    def __init__(self, passwords: Sequence[str] = (), limits: Limits = Limits()) -> None:
        self.n_started = 0
        self._passwords = list(passwords)
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._n_answers = 0
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the worker."""
        self.close()

    def page_count(self, path: Path) -> int:
        """Open a file and return its number of pages, at least 1; DocumentError if it has none."""
        return self.about(path)[0]

    def about(self, path: Path) -> tuple[int, str]:
        """Return a file's number of pages and the title it gives itself; as page_count."""
        message, _ = self._ask(path, page=None)
        return int(message["n_pages"]), str(message["title"])

    def read(
        self, path: Path, number: int, *, dpi: float, max_pixels: int, thumbnail: bool = False
    ) -> ReadPage:
        """Return page `number` (1-based) of a file, at most `max_pixels` large.

        Raises DocumentError: the page cannot be read, or reading it crashed, hung or ate too much.
        """
        message, parts = self._ask(
            path, page=number, dpi=dpi, max_pixels=max_pixels, thumbnail=thumbnail
        )
        return ReadPage(
            number=number,
            image=Image.frombytes("RGB", tuple(message["size"]), parts[0]),
            text=message["text"],
            text_state=message["text_state"],
            blank=message["blank"],
            notes=tuple(message["notes"]),
            thumbnail=parts[1],
        )

    def find(
        self, path: Path, number: int, words: Sequence[str]
    ) -> list[tuple[float, float, float, float]]:
        """Return where the text layer of a page has these words, as shares of the page."""
        message, _ = self._ask(path, page=number, words=tuple(words))
        return [tuple(box) for box in message["boxes"]]

    def rows(self, path: Path, number: int) -> list[str]:
        """Return the text layer of a page as rows from top to bottom, cells of a row together."""
        message, _ = self._ask(path, page=number, rows=True)
        return list(message["rows"])

    def close(self) -> None:
        """End the worker for good, also from another thread while it reads."""
        self._closed = True
        self._stop()

    def _stop(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._pipe = self._process = None

    def _ask(
        self,
        path: Path,
        **wanted: int | float | bool | Sequence[str] | None,
    ) -> tuple[dict[str, Any], list[bytes]]:
        request = {"path": str(path.resolve()), "passwords": self._passwords} | wanted
        if self._pipe is None:
            self._start()
        was_fresh = self._n_answers == 0
        message, parts = self._try(request)
        if message.get("retry") and not was_fresh:
            # What earlier files left behind may be to blame: once more in a clean process.
            self._start()
            message, parts = self._try(request)
        if "error" in message:
            raise DocumentError(str(message["error"]))
        return message, parts

    def _try(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        try:
            answer = self._exchange(request)
            self._n_answers += 1
        except TimeoutError:
            self._stop()
            return {"error": f"took longer than {self._limits.wall_s:g} s and was stopped"}, []
        except WorkerDied:
            return self._post_mortem(), []
        if answer[0].get("memory"):
            self._stop()
            answer[0]["retry"] = True
        return answer

    def _exchange(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        if self._pipe is None:
            self._start()
        assert self._pipe is not None
        try:
            self._pipe.send_bytes(json.dumps(request).encode())
            if not self._pipe.poll(self._limits.wall_s):
                raise TimeoutError
            message = json.loads(self._pipe.recv_bytes())
            parts = [self._pipe.recv_bytes() for _ in range(2 if "size" in message else 0)]
        except (EOFError, ConnectionError) as error:
            raise WorkerDied from error
        return message, parts

    def _post_mortem(self) -> dict[str, Any]:
        """Say what the worker died of."""
        if self._process is None:
            return {"error": "reading was stopped"}
        code = self._process.wait()
        self._stop()
        if code == -signal.SIGXCPU:
            return {"error": f"took more than {self._limits.cpu_s:g} s of CPU and was stopped"}
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return {"error": f"crashed the renderer ({name})", "retry": code < 0}

    def _start(self) -> None:
        self._stop()
        if self._closed:
            raise DocumentError("reading was stopped")
        ours, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rag.render_worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None if os.environ.get("YOMU_LOG") == "DEBUG" else subprocess.DEVNULL,
                cwd=Path(__file__).parent.parent,
            )
        self._pipe, self._n_answers = ours, 0
        self.n_started += 1
        limits = {"memory_bytes": self._limits.memory_bytes, "cpu_s": self._limits.cpu_s}
        with contextlib.suppress(ConnectionError):  # then the first request reports the death
            ours.send_bytes(json.dumps(limits).encode())
            if not ours.poll(START_TIMEOUT_S):
                raise DocumentError(f"the renderer did not start within {START_TIMEOUT_S:g} s")
            with contextlib.suppress(EOFError):
                ours.recv_bytes()


class ReaderPool:
    """Several workers that read ahead, so that the consumer (the encoder) never waits."""

    def __init__(
        self, n_workers: int, passwords: Sequence[str] = (), limits: Limits = Limits()
    ) -> None:
        self._readers: list[PageReader] = []
        self._lock = threading.Lock()
        self._own = threading.local()
        self._passwords = tuple(passwords)
        self._limits = limits
        self._threads = ThreadPoolExecutor(n_workers, thread_name_prefix="reader")
        self.depth = 2 * n_workers + 2

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Drop what was not begun, end the workers."""
        self._threads.shutdown(wait=error is None, cancel_futures=True)
        for reader in self._readers:
            reader.close()

    def map_ahead(
        self, work: Callable[[PageReader, Job], Result], jobs: Iterable[Job]
    ) -> Iterator[Result]:
        """Yield work(reader, job) in the order of the jobs, a few of them ahead.

        `jobs` is drawn from in the caller's thread, `work` runs in the pool's.
        """
        waiting: deque[Future[Result]] = deque()
        for job in jobs:
            waiting.append(self._threads.submit(self._run, work, job))
            if len(waiting) >= self.depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _run(self, work: Callable[[PageReader, Job], Result], job: Job) -> Result:
        reader = getattr(self._own, "reader", None)
        if reader is None:
            reader = self._own.reader = PageReader(self._passwords, self._limits)
            with self._lock:
                self._readers.append(reader)
        return work(reader, job)
