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
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rag.answer import AnswerStream, Question
from rag.errors import UsageError
from rag.manner import AnswerOptions
from rag.pipeline import Pipeline, Query, SearchResult
from rag.records import Cancellation, IndexMismatch, ModelError
from rag.settings import DEFAULT_MODEL, Settings
from ui.errors import OUR_FAULT, ExpectedError, NotReady, RequestTimeout, for_clients, public
from ui.heat import QueryHeat, query_heat
from ui.library import Library
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
        self._pipeline = Pipeline(settings)
        self.library = Library(self._pipeline, limits.upload_bytes, roots)
        self._queue = AnswerQueue(limits.most_waiting)
        self._opening = threading.Thread(target=self._open, name="open-model", daemon=True)
        self._state, self._reason = "loading", ""
        self._versions = {name: _version(name) for name in VERSIONED}

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the model in the background; returns at once."""
        self._opening.start()

    def close(self) -> None:
        """Stop the ingest, close the index and end the render worker."""
        self.library.close()
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
            self._state, self._reason = "failed", OUR_FAULT
        else:
            self._state = "ready"
            self._resume()

    def _resume(self) -> None:
        """Read what was taken and not read before the last end, where this model may."""
        try:
            if not self._other_model():
                self.library.resume()
        except ExpectedError as error:
            log.warning("uploads of the last run stay unread: %s", error)

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
        device = precision = ""
        if self._state == "ready":
            engine = self._pipeline.encoder.engine
            device = engine.device.used
            parts = dict.fromkeys(engine.info.precision.values())
            precision = ", ".join(parts)
        job = self.library.job()
        index_error = ""
        try:
            n_documents, n_pages, sizes = self.library.sizes()
            index_error = self._other_model()
        except ExpectedError as error:
            n_documents, n_pages, sizes, index_error = 0, 0, {}, public(str(error))
        return ServiceStatus(
            state=self._state,
            reason=self._reason,
            model=self.model_name,
            is_embedded=self._is_embedded(),
            device=device,
            precision=precision,
            index=self.settings.index.absolute().name,
            n_documents=n_documents,
            n_pages=n_pages,
            bytes=sizes,
            versions=self._versions,
            job=job if job is not None and not job.finished else None,
            waiting=self._queue.n_waiting,
            index_error=index_error,
        )

    def _other_model(self) -> str:
        """Say why an open model cannot search the index: it was made with another one."""
        try:
            if self._state == "ready":
                self._pipeline.check_model()
        except IndexMismatch as error:
            return public(str(error))
        except ModelError:
            pass  # its folder has gone since it was opened
        return ""

    def _is_embedded(self) -> bool:
        try:
            return self._pipeline.is_embedded
        except ExpectedError:  # no such model, or an index that cannot be read
            return self._model_name() == DEFAULT_MODEL

    @property
    def model_name(self) -> str:
        """What clients call the model: its name, or that of its folder."""
        return Path(self._model_name()).name

    def _model_name(self) -> str:
        if self.settings.model:
            return self.settings.model
        try:
            stored = self._pipeline.stored
        except ExpectedError:
            return DEFAULT_MODEL
        return stored.model_name if stored else DEFAULT_MODEL

    # -- search ----------------------------------------------------------------------------------

    def search(self, request: SearchRequest) -> SearchResult:
        """Return the best pages; never waits behind answers.

        Raises UsageError, NotReady, IndexMissing and what the index and the model raise.
        """
        self._check_question(request.text)
        top_k = _within("top_k", request.top_k, self.limits.top_k)
        with for_clients():
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
        with for_clients():
            try:
                self._require_model()
            except NotReady:
                yield self._found_by_text(request)
                raise
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

    def _found_by_text(self, request: AskRequest) -> Found:
        """Return the pages that a model is not needed for."""
        (found,) = self._pipeline.search(
            [Query(request.question)], request.filters, top_k=request.top_k, mode="text"
        )
        return Found(found.hits, (), abstained=False, seconds=found.seconds)

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
        self._check_question(request.question)  # what was said before may be longer, or no question
        _within("pages", request.pages, limits.pages)
        _within("neighbours", request.neighbours, limits.neighbours, least=0)
        _within("top_k", request.top_k, limits.top_k)
        _within("earlier turns", len(request.history), limits.turns, least=0)
        _within("kept pages", len(request.kept), limits.pages, least=0)

    def heatmap(self, query: str, document: str, page: int) -> QueryHeat:
        """Return where on a page a query and each of its words find their match."""
        self._check_question(query)
        with for_clients():
            self._require_model()
            encoder = self._pipeline.encoder
            (vectors,) = encoder.questions([query])
            scores = self._pipeline.patch_scores(vectors, document, page).scores
            return query_heat(query, encoder.question_spans(query), scores)


def _within(name: str, value: int | None, most: int, least: int = 1) -> int | None:
    if value is not None and not least <= value <= most:
        raise UsageError(f"{name} is {value}, it must be from {least} to {most}")
    return value


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
