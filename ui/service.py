"""One index and one model for many people: search, ask, page images, documents, one ingest.

No gradio and no fastapi here: the page and the API call this and only this. Every method may be
called from any thread. Searches go on beside answers and beside an ingest; answers wait in line for
the model, clients by turns. What a message or record says of this machine's disk is taken out.
"""

import importlib.metadata
import logging
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from PIL import Image

from rag.answer import AnswerStream, Question
from rag.errors import DocumentError, UsageError
from rag.ingest import IngestReport, Progress
from rag.manner import AnswerOptions
from rag.page_images import document_file
from rag.pipeline import IngestRequest, Pipeline, Query, SearchResult
from rag.records import (
    Cancellation,
    DocumentRecord,
    DocumentUnknown,
    Failure,
    IndexMissing,
    PageRecord,
)
from rag.settings import DEFAULT_MODEL, Settings
from ui.errors import (
    ExpectedError,
    NotAllowed,
    NotReady,
    RequestTimeout,
    ServerError,
    ServiceBusy,
    public,
)
from ui.heat import QueryHeat, query_heat
from ui.jobs import IngestJob, IngestProgress
from ui.queue import AnswerQueue
from ui.requests import (
    AskRequest,
    Event,
    Finished,
    Found,
    Piece,
    Queued,
    SearchRequest,
    ServiceLimits,
    ServiceStatus,
    Stage,
)
from ui.uploads import store

log = logging.getLogger(__name__)

Box = tuple[float, float, float, float]
MOST_DPI = 300
MOST_SIDE_PX = 4000
MOST_WORDS = 100
LIMITS = ServiceLimits()
VERSIONED = ("yomu", "onnxruntime", "faiss-cpu", "pymupdf", "gradio")


class Service:
    """The server's one object. `start` it before it answers, `close` it at the end."""

    def __init__(
        self,
        settings: Settings,
        limits: ServiceLimits = LIMITS,
        roots: tuple[Path, ...] = (),
    ) -> None:
        """Prepare; opens nothing.

        roots  folders that `ingest` may read from, beside the library of uploaded files
        """
        self.settings, self.limits = settings, limits
        self.roots = tuple(root.resolve() for root in roots)
        index = settings.index.absolute()
        self.library = index.parent / f"{index.name.lstrip('.') or 'yomu'}-library"
        self._pipeline = Pipeline(settings)
        self._queue = AnswerQueue(limits.most_waiting)
        self._writing = threading.Lock()  # one job or removal at a time
        self._job: IngestJob | None = None
        self._opening = threading.Thread(target=self._open, name="open-model", daemon=True)
        self._state, self._reason = "loading", ""
        self._versions = {name: _version(name) for name in VERSIONED}

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the model in the background; returns at once."""
        self._opening.start()

    def close(self) -> None:
        """Stop the ingest, close the index and end the render worker."""
        if self._job is not None:
            self._job.cancel()
            self._job.join(30.0)
        if self._opening.is_alive():
            self._opening.join(30.0)
        self._pipeline.close()

    def _open(self) -> None:
        try:
            engine = self._pipeline.encoder.engine
            _ = engine.retriever, engine.generator
        except ExpectedError as error:
            self._state, self._reason = "failed", public(str(error))
        except Exception:
            log.exception("the model could not be opened for a reason that is our bug")
            self._state, self._reason = "failed", "an error of the server; its log has the cause"
        else:
            self._state = "ready"

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the model is open, or could not be opened."""
        self._opening.join(timeout_s)

    def _require_model(self) -> None:
        """Wait for the model if it is on its way. Raises NotReady."""
        if self._state == "loading" and not self._opening.ident:
            return  # not started: whoever asks first opens it
        self._opening.join(self.limits.open_s)
        if self._state != "ready":
            raise NotReady(self._reason or "the model is still being opened; try again in a minute")

    def status(self) -> ServiceStatus:
        """Say how the server is; an index that does not exist yet has no documents."""
        name = self._model_name()
        device = precision = ""
        if self._state == "ready":
            engine = self._pipeline.encoder.engine
            device = engine.device.used
            parts = dict.fromkeys(engine.info.precision.values())
            precision = ", ".join(parts)
        job = self.job()
        n_documents, n_pages, sizes = self._counts()
        return ServiceStatus(
            state=self._state,
            reason=self._reason,
            model=Path(name).name,
            is_embedded=name == DEFAULT_MODEL,
            device=device,
            precision=precision,
            index=self.settings.index.absolute().name,
            n_documents=n_documents,
            n_pages=n_pages,
            bytes=sizes,
            versions=self._versions,
            job=job if job is not None and not job.finished else None,
            waiting=self._queue.n_waiting,
        )

    def _model_name(self) -> str:
        if self.settings.model:
            return self.settings.model
        try:
            stored = self._pipeline.stored
        except ExpectedError:
            return DEFAULT_MODEL
        return stored.model_name if stored else DEFAULT_MODEL

    def _counts(self) -> tuple[int, int, dict[str, int]]:
        library = _bytes_below(self.library)
        try:
            stats = self._pipeline.stats()
        except IndexMissing:
            return 0, 0, {"uploads": library, "total": library}
        sizes = {**stats.bytes, "uploads": library, "total": stats.bytes["total"] + library}
        return stats.documents, stats.pages, sizes

    def usage(self) -> dict[str, int]:
        """Return bytes by part of the index, the uploaded files and the total."""
        with _for_clients():
            return self._counts()[2]

    # -- search ----------------------------------------------------------------------------------

    def search(self, request: SearchRequest) -> SearchResult:
        """Return the best pages; never waits behind answers.

        Raises UsageError, NotReady, IndexMissing and what the index and the model raise.
        """
        self._check_question(request.text)
        top_k = _within("top_k", request.top_k, self.limits.top_k)
        with _for_clients():
            if (request.mode or self.settings.mode) != "text":
                self._require_model()
            (found,) = self._pipeline.search(
                [Query(request.text, request.image)], request.filters, top_k=top_k,
                mode=request.mode,
            )  # fmt: skip
            return found

    def search_like(self, name: str, content: Path | bytes, request: SearchRequest) -> SearchResult:
        """Return the pages that look most like an image, or like the first page of a document.

        The file is checked as an upload is, and not kept. Raises NotAllowed for one that is not
        what its name says, and what `search` raises.
        """
        with tempfile.TemporaryDirectory(prefix="yomu-query-") as folder:
            path = store(Path(folder), name, content, self.limits.upload_bytes)
            return self.search(replace(request, image=path))

    def _check_question(self, text: str) -> None:
        if len(text) > self.limits.question_characters:
            most = self.limits.question_characters
            raise UsageError(f"the question has {len(text)} characters, {most} are the most")

    # -- ask -------------------------------------------------------------------------------------

    def ask(self, request: AskRequest, cancellation: Cancellation | None = None) -> Iterator[Event]:
        """Yield Found, then Queued while it waits for the model, Stage, Piece …, Finished.

        What the model need not write (nothing found, or a quotation) has neither Queued nor Stage.

        Closing it, or cancelling, ends it within one token and frees the model; a cancelled one
        ends with Finished of what was written so far. Raises UsageError, NotReady, ServiceBusy,
        RequestTimeout, IndexMissing, and what the index and the model raise.
        """
        self._check_ask(request)
        started = time.monotonic()
        cancellation = cancellation or Cancellation()
        with _for_clients():
            self._require_model()
            stream = self._stream(request, cancellation)
            evidence = stream.evidence
            yield Found(
                evidence.hits, stream.pages, stream.abstained,
                evidence.encode_s + evidence.search_s,
            )  # fmt: skip
            if not stream.generates:  # nothing to wait in line for
                yield from (Piece(text) for text in stream)
                yield Finished(stream.result())
                return
            ticket = self._queue.join(request.client)
            try:
                until = started + self.limits.wait_s
                for position in self._queue.positions(
                    ticket, until, lambda: cancellation.cancelled
                ):
                    yield Queued(position)
                if not cancellation.cancelled:
                    yield from self._write(stream, cancellation, started)
                yield Finished(stream.result())
            finally:
                stream.close()
                self._queue.leave(ticket)

    def _write(
        self, stream: AnswerStream, cancellation: Cancellation, started: float
    ) -> Iterator[Event]:
        """Yield the stages and the text; RequestTimeout when it takes too long."""
        timed_out = threading.Event()

        def stop() -> None:
            timed_out.set()
            cancellation.cancel()

        timer = threading.Timer(self.limits.answer_s, stop)
        timer.daemon = True
        timer.start()
        try:
            yield Stage("reading", time.monotonic() - started)
            is_first = True
            for text in stream:
                if is_first:
                    yield Stage("writing", time.monotonic() - started)
                    is_first = False
                yield Piece(text)
        finally:
            timer.cancel()
        if timed_out.is_set():
            raise RequestTimeout(
                f"the answer took longer than {self.limits.answer_s:g} s and was stopped"
            )

    def _stream(self, request: AskRequest, cancellation: Cancellation) -> AnswerStream:
        question = Question(request.question, history=request.history, kept=request.kept)
        longest = _within("max_new_tokens", request.max_new_tokens, self.limits.new_tokens)
        options = AnswerOptions(request.pages, request.neighbours, longest, request.generate)
        for page in request.kept:
            self._pipeline.page(*page.key)  # DocumentUnknown rather than a page nobody indexed
        return self._pipeline.ask(
            question, options, request.filters, cancellation,
            top_k=request.top_k, mode=request.mode,
        )  # fmt: skip

    def _check_ask(self, request: AskRequest) -> None:
        limits = self.limits
        self._check_question(request.question)
        for turn in request.history:
            for text in turn:
                self._check_question(text)
        _within("pages", request.pages, limits.pages)
        _within("neighbours", request.neighbours, limits.neighbours, least=0)
        _within("top_k", request.top_k, limits.top_k)
        _within("earlier turns", len(request.history), limits.turns, least=0)
        _within("kept pages", len(request.kept), limits.pages, least=0)

    # -- documents and pages -----------------------------------------------------------------------

    def documents(self) -> tuple[tuple[DocumentRecord, ...], list[Failure]]:
        """Return the documents, without where they lie, and what could not be read of them."""
        with _for_clients():
            try:
                records, failures = self._pipeline.documents()
            except IndexMissing:
                return (), []
        return (
            tuple(replace(each, source="", reason=_public(each.reason)) for each in records),
            [replace(each, reason=public(each.reason)) for each in failures],
        )

    def page(self, document: str, page: int) -> PageRecord:
        """Return what is stored of a page: its text layer, its size in cells."""
        with _for_clients():
            return replace(self._pipeline.page(document, page), thumbnail=None)

    def page_image(self, document: str, page: int, max_side_px: int) -> Image.Image:
        """Return a page as RGB for people to look at, its longer side `max_side_px` at most."""
        side = min(max(max_side_px, 64), MOST_SIDE_PX)
        with _for_clients():
            image = self._pipeline.page_image(document, page, dpi=MOST_DPI, max_pixels=side * side)
        image.thumbnail((side, side))
        return image

    def thumbnail(self, document: str, page: int) -> bytes | None:
        """Return the stored WebP of a page, or None where none is stored."""
        with _for_clients():
            path = self._pipeline.page(document, page).thumbnail
        try:
            return Path(path).read_bytes() if path else None
        except OSError:
            return None

    def heatmap(self, query: str, document: str, page: int) -> QueryHeat:
        """Return where on a page a query and each of its words find their match."""
        self._check_question(query)
        with _for_clients():
            self._require_model()
            encoder = self._pipeline.encoder
            (vectors,) = encoder.questions([query])
            scores = self._pipeline.patch_scores(vectors, document, page).scores
            return query_heat(query, encoder.question_spans(query), scores)

    def text_boxes(self, document: str, page: int, words: Sequence[str]) -> tuple[Box, ...]:
        """Return boxes, as shares of the page, where its text layer has these words."""
        with _for_clients():
            found = self._pipeline.text_boxes(document, page, tuple(words)[:MOST_WORDS])
        return tuple(found)

    def document_bytes(self, document: str) -> bytes:
        """Return the PDF a document was read from.

        Raises DocumentUnknown, or DocumentError where it has changed, is gone or is no PDF.
        """
        with _for_clients():
            data = document_file(self._record(document))
        if not data[:1024].lstrip().startswith(b"%PDF-") and b"%PDF-" not in data[:1024]:
            raise DocumentError("is no PDF; look at its pages instead")
        return data

    def _record(self, document: str) -> DocumentRecord:
        for each in self._pipeline.documents()[0]:
            if each.name == document:
                return each
        raise DocumentUnknown(f"{document!r} is not in the index")

    # -- ingest ----------------------------------------------------------------------------------

    def store_upload(self, name: str, path_or_bytes: Path | bytes) -> Path:
        """Keep a file that a person sent; `ingest` it then with uploaded=True.

        Raises NotAllowed for one that is too large, or not what its name says.
        """
        return store(self.library, name, path_or_bytes, self.limits.upload_bytes)

    def ingest(self, sources: Sequence[Path], *, uploaded: bool) -> str:
        """Read files and folders in the background; returns the id of the job.

        Raises NotAllowed for a path outside the roots (or the library, if uploaded), ServiceBusy
        while another job runs.
        """
        allowed = (self.library.resolve(),) if uploaded else self.roots
        paths = tuple(_allowed(path, allowed) for path in sources)
        if not paths:
            raise UsageError("nothing to read: name a file or a folder")
        return self._start(IngestRequest(paths))

    def reread(self, document: str) -> str:
        """Read a document again from its file; returns the id of the job.

        What is stored of it stays until all of that has been read anew. Raises DocumentUnknown,
        DocumentError where its file is gone or cannot be opened, ServiceBusy.
        """
        with _for_clients():
            path = Path(self._record(document).source)
            try:
                path.open("rb").close()
            except OSError:
                raise DocumentError(f"{document}: its file is gone; add it again") from None
        return self._start(IngestRequest((path,), names={document: path}), again=document)

    def _start(self, request: IngestRequest, again: str = "") -> str:
        def work(progress: Progress) -> IngestReport:
            with self._writing, Pipeline(self.settings, self._pipeline.encoder) as pipeline:
                if again:
                    pipeline.read_again(again)
                return pipeline.ingest(request, progress)

        if not self._writing.acquire(blocking=False):
            raise ServiceBusy("documents are being added or removed; wait until that is done")
        try:
            if self._job is not None and self._job.is_running:
                raise ServiceBusy("documents are being added already; wait until that is done")
            self._job = IngestJob(work)
        finally:
            self._writing.release()
        self._job.start()
        return self._job.id

    def job(self) -> IngestProgress | None:
        """Return how far the last ingest is; None before the first."""
        return None if self._job is None else self._job.snapshot()

    def cancel_job(self) -> None:
        """Stop the ingest at its next commit; what was read is kept."""
        if self._job is not None:
            self._job.cancel()

    def remove(self, document: str) -> None:
        """Remove a document: vectors, text, images, and its file if it was uploaded.

        Raises DocumentUnknown, ServiceBusy.
        """
        with _for_clients():
            record = self._record(document)
            if not self._writing.acquire(blocking=False):
                raise ServiceBusy("documents are being added; wait until that is done")
            try:
                self._pipeline.remove_documents([document])
            finally:
                self._writing.release()
        source = Path(record.source)
        if record.source and source.parent == self.library.absolute():
            source.unlink(missing_ok=True)


def _allowed(path: Path, roots: tuple[Path, ...]) -> Path:
    """Return a path below one of the roots, links followed. Raises NotAllowed."""
    resolved = path.resolve()
    if not any(resolved.is_relative_to(root) for root in roots):
        raise NotAllowed(
            f"{path.name or 'this folder'} may not be read by this server; start it with "
            "`--root FOLDER` to allow a folder"
        )
    return resolved


def _within(name: str, value: int | None, most: int, least: int = 1) -> int | None:
    if value is not None and not least <= value <= most:
        raise UsageError(f"{name} is {value}, it must be from {least} to {most}")
    return value


@contextmanager
def _for_clients() -> Iterator[None]:
    """Let errors say nothing of this machine's disk, and say the usual ones better."""
    try:
        yield
    except IndexMissing:
        raise IndexMissing("nothing is indexed yet; add documents first") from None
    except ServerError:
        raise
    except ExpectedError as error:
        raise type(error)(public(str(error))) from error


def _public(message: str | None) -> str | None:
    return None if message is None else public(message)


def _bytes_below(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.glob("*") if each.is_file())


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
