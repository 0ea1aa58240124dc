"""The one ingest that runs behind the page, and how far it is."""

import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from rag.ingest import IngestReport, Progress, StopIngest, Trouble
from ui.errors import OUR_FAULT, ExpectedError, public

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobFailure:
    """A document or page that could not be read, and why."""

    document: str
    page: int | None
    reason: str


@dataclass(frozen=True)
class IngestSummary:
    """What a finished job did."""

    added: int
    updated: int
    unchanged: int
    failed: int
    pages_added: int
    pages_failed: int
    seconds: float
    notes: tuple[JobFailure, ...] = ()


@dataclass(frozen=True)
class IngestProgress:
    """How far a job is; seconds_left None while that cannot be told.

    error     why the job as a whole failed, "" if it did not
    stopped   it was cancelled: what was read is kept
    dropped   names of uploads that were not read and so are not kept
    report    once finished without error
    """

    id: str
    documents_done: int = 0
    documents_total: int = 0
    pages_done: int = 0
    pages_total: int = 0
    pages_per_second: float = 0.0
    seconds_left: float | None = None
    n_failed: int = 0
    what: str = ""
    finished: bool = False
    stopped: bool = False
    error: str = ""
    failures: tuple[JobFailure, ...] = ()
    dropped: tuple[str, ...] = ()
    report: IngestSummary | None = None


@dataclass
class IngestJob:
    """Runs one ingest in a thread of its own; `snapshot` may be asked from any other."""

    work: Callable[[Progress], IngestReport]
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._state = IngestProgress(self.id)
        self._started = time.monotonic()
        self._cancelled = False
        self._is_told = False
        self.dropped: tuple[str, ...] = ()
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def cancel(self) -> None:
        """Ask it to stop at the next commit, at most a few seconds away."""
        self._cancelled = True

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for the end."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def is_cancelled(self) -> bool:
        """Whether it was asked to stop."""
        return self._cancelled

    @property
    def is_running(self) -> bool:
        """Whether it has not finished."""
        return not self._state.finished

    def snapshot(self) -> IngestProgress:
        """Return how far it is."""
        with self._lock:
            return self._state

    def update(
        self, *, documents: tuple[int, int], pages: tuple[int, int], failed: int, what: str
    ) -> None:
        """Take note of progress; ends the run when it was cancelled."""
        rate = pages[0] / max(time.monotonic() - self._started, 1e-6)
        with self._lock:
            self._state = replace(
                self._state,
                documents_done=documents[0], documents_total=documents[1],
                pages_done=pages[0], pages_total=pages[1],
                pages_per_second=rate,
                seconds_left=(pages[1] - pages[0]) / rate if rate else None,
                n_failed=failed, what=what,
            )  # fmt: skip
        if self._cancelled and not self._is_told:
            self._is_told = True  # only once: the run commits, and so reports, while it ends
            raise StopIngest

    def _run(self) -> None:
        error, report = "", None
        try:
            report = self.work(self)
        except StopIngest:
            pass
        except ExpectedError as known:
            error = public(str(known))
        except Exception:
            log.exception("an ingest failed for a reason that is our bug")
            error = OUR_FAULT
        with self._lock:
            done = _finished(self._state, report, error, self._cancelled)
            self._state = replace(done, dropped=self.dropped)


def _finished(
    state: IngestProgress, report: IngestReport | None, error: str, cancelled: bool
) -> IngestProgress:
    state = replace(state, finished=True, error=error, seconds_left=None, what="")
    if report is None:
        return replace(state, stopped=cancelled and not error)
    counts = report.documents
    return replace(
        state,
        stopped=cancelled and bool(report.interrupted),
        error=error or ("" if cancelled else public(report.interrupted)),
        n_failed=len(report.failures),
        failures=tuple(_shown(each) for each in report.failures),
        report=IngestSummary(
            counts["added"], counts["updated"], counts["unchanged"], counts["failed"],
            report.pages["added"], report.pages["failed"], round(report.seconds, 3),
            tuple(_shown(each) for each in report.notes),
        ),
    )  # fmt: skip


def _shown(trouble: Trouble) -> JobFailure:
    return JobFailure(trouble.document, trouble.page, public(trouble.reason))
