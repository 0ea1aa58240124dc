"""Folder to index, question to pages: wires documents, model and index, holds no algorithm."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from PIL import Image

from index.errors import DocumentUnknown, IndexMissing
from index.fusion import DEFAULT as DEFAULT_FUSION
from index.maxsim import ends_of
from index.page_index import PageIndex
from index.records import (
    DocumentRecord,
    Filters,
    Floats,
    PageHit,
    PageRecord,
    PatchScores,
    VectorSettings,
)
from rag.answer import (
    READ_PAGES,
    AnswerStream,
    Evidence,
    PageImage,
    PageRows,
    Question,
    older_note,
    unread_note,
    worth_quoting,
)
from rag.encoder import PIXELS_PER_TOKEN, Encoder, ModelEncoder
from rag.errors import DocumentError, UsageError
from rag.house import House
from rag.ingest import IngestReport, Progress
from rag.intake import IngestRequest, Intake, reader_limits
from rag.manner import AnswerOptions, Manner
from rag.page_choice import PageRef, choose_pages
from rag.page_images import PageImages
from rag.plan import IngestPlan
from rag.reader import PageReader
from rag.settings import DEFAULT_DPI, DEFAULT_MODEL, Mode, Settings
from rag.words import OLD_WORDS, in_language_of

if TYPE_CHECKING:
    from models.session import Cancellation

EVERYTHING = Filters()
ANSWER_DEFAULTS = AnswerOptions()


@dataclass(frozen=True)
class Query:
    """What to look for: a question, or an image file, or both."""

    text: str = ""
    image: Path | None = None
    id: str | None = None  # what the asker knows it by


@dataclass(frozen=True)
class SearchResult:
    """Ranked pages of one query.

    vectors      (Q, dim) of the query, for heatmaps; None in mode text. All of a long question,
                 though only those of ends_of() are looked for
    is_answered  whether the best page is good enough to be an answer (mode hybrid; in the other
                 modes scores have no scale of their own, and any hit counts)
    seconds      encoding and searching
    encode_s     the part of `seconds` that encoding took
    notes        of documents among the hits whose newest version could not be read, and of words
                 of an earlier version, a line each
    """

    query: Query
    mode: Mode
    hits: tuple[PageHit, ...]
    vectors: Floats | None
    is_answered: bool
    seconds: float
    encode_s: float = 0.0
    notes: tuple[str, ...] = ()


class Pipeline:
    """One index and one model, for the command line, the page and tests.

    Searching, asking and drawing are safe from several threads; `ingest`, `remove` and the other
    writers belong in a pipeline of their own, which may share this one's encoder.
    """

    def __init__(self, settings: Settings, encoder: Encoder | None = None) -> None:
        self.settings = settings
        self._given_encoder = encoder
        self.house = House(settings.index)
        self._intake = Intake(settings, lambda: self.encoder, lambda: self.stored)
        self._reader: PageReader | None = None
        self._images: PageImages | None = None
        self._opened: PageIndex | None = None
        self._retired: list[PageIndex] = []
        self._is_checked = False
        self._stored: VectorSettings | None = None
        self._place: tuple[int, int] | None = None  # of the index.db that the above are about
        self._lock = threading.RLock()  # around opening things once

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the index and end the render worker."""
        self.close()

    def close(self) -> None:
        """Close the index and end the render worker."""
        if self._images is not None:
            self._images.close()
        if self._reader is not None:
            self._reader.close()
        for each in (*self._retired, self._opened):
            if each is not None:
                each.close()
        self._retired.clear()
        self._images = None
        self._reader = self._opened = None

    # -- ingest ----------------------------------------------------------------------------------

    def ingest(self, request: IngestRequest, progress: Progress) -> IngestReport:
        """Bring the index up to date with files and folders; see `Intake.run`."""
        return self._intake.run(request, progress)

    def plan(self, request: IngestRequest) -> IngestPlan:
        """Say what `ingest` would do, reading files but writing nothing."""
        return self._intake.plan(request)

    # -- model and settings ----------------------------------------------------------------------

    @property
    def stored(self) -> VectorSettings | None:
        """What the index was built with; None where there is no index yet."""
        with self._lock:
            self._forget_another()
            if self._stored is None:
                try:
                    with PageIndex.open(self.settings.index) as page_index:
                        self._stored = page_index.settings
                except IndexMissing:
                    return None
            return self._stored

    @property
    def encoder(self) -> Encoder:
        """The model: as asked for, or the one the index was built with, or the default."""
        with self._lock:
            return self._encoder

    @cached_property
    def _encoder(self) -> Encoder:
        if self._given_encoder is not None:
            return self._given_encoder
        stored = self.stored
        settings = self.settings
        model = settings.model or (stored.model_name if stored else DEFAULT_MODEL)
        tokens = settings.max_visual_tokens or (stored.max_visual_tokens if stored else None)
        return ModelEncoder(model, settings.device, settings.threads, tokens)

    @property
    def is_embedded(self) -> bool:
        """Whether the model is the one that ships, by its name or by its path."""
        from models.folder import EMBEDDED

        return self.encoder.folder.resolve() == EMBEDDED.resolve()

    def check_model(self) -> None:
        """Raise IndexMismatch where the index was made with another model; opens no model.

        Also raises ModelFilesError where there is no such model.
        """
        from models.folder import ModelInfo

        stored = self.stored
        if stored is None:
            return
        digest = ModelInfo.load(self.encoder.folder).digest
        if digest != stored.model:
            wanted = replace(stored, model=digest, model_name=self.encoder.name)
            PageIndex.open(self.settings.index, wanted).close()

    # -- search ----------------------------------------------------------------------------------

    def search(
        self,
        queries: Sequence[Query],
        filters: Filters = EVERYTHING,
        *,
        exact: bool = False,
        top_k: int | None = None,
        mode: Mode | None = None,
    ) -> list[SearchResult]:
        """Return the best pages of each query, in the order given.

        top_k, mode  None: as the settings say

        Questions are encoded together. Mode text needs no model; an image alone is searched for by
        its looks. Raises UsageError for an empty query, IndexMissing, IndexMismatch, and what the
        model raises.
        """
        started = time.perf_counter()
        modes = [self._mode_of(query, mode or self.settings.mode) for query in queries]
        page_index = self._searchable(with_model=any(mode != "text" for mode in modes))
        vectors = self._encode(queries, modes)
        encoding = (time.perf_counter() - started) / max(1, len(queries))
        found = []
        for query, own_mode, own in zip(queries, modes, vectors, strict=True):
            started = time.perf_counter()
            fusion = DEFAULT_FUSION if own_mode == "text" else self.encoder.fusion
            is_image = own_mode == "visual" and query.image is not None
            hits = page_index.search(
                top_k or self.settings.top_k,
                vectors=own if own is None or query.image else ends_of(own),
                text=None if is_image else query.text.strip(),
                mode=own_mode,
                filters=filters,
                fusion=fusion,
                exact=exact,
            )
            seconds = encoding + time.perf_counter() - started
            is_answered = bool(hits) and (own_mode != "hybrid" or fusion.answers(hits[0].score))
            notes = [older_note(query.text, each) for each in self._outdated(hits)]
            notes += self._words_note(query.text, own_mode)
            result = SearchResult(
                query, own_mode, hits, own, is_answered, seconds, encoding, tuple(notes)
            )
            found.append(result)
        return found

    def _outdated(self, pages: Sequence[PageHit | PageRef]) -> list[DocumentRecord]:
        """Documents of pages whose newest version could not be read, each once."""
        page_index = self._searchable(with_model=False)
        found = []
        for name in dict.fromkeys(page.document for page in pages):
            with suppress(DocumentUnknown):  # removed meanwhile
                record = page_index.document(name)
                found += [record] if record.outdated else []
        return found

    def _words_note(self, question: str, mode: Mode) -> tuple[str, ...]:
        """Say that the words of an index that is only read are those of an earlier version."""
        if mode == "visual" or self._searchable(with_model=False).has_present_words:
            return ()
        return (in_language_of(question, OLD_WORDS),)

    def _mode_of(self, query: Query, mode: Mode) -> Mode:
        if not query.text.strip() and query.image is None:
            raise UsageError("the question is empty; say what to look for")
        if query.image is None:
            return mode
        if mode == "text":
            raise UsageError("--image is looked for by its looks; --mode text cannot")
        return mode if query.text.strip() else "visual"

    def _encode(self, queries: Sequence[Query], modes: Sequence[Mode]) -> list[Floats | None]:
        found: list[Floats | None] = [None] * len(queries)
        by_text = [
            at
            for at, (query, mode) in enumerate(zip(queries, modes, strict=True))
            if mode != "text" and query.image is None
        ]
        if by_text:
            encoded = self.encoder.questions([queries[at].text for at in by_text])
            for at, vectors in zip(by_text, encoded, strict=True):
                found[at] = vectors
        for at, query in enumerate(queries):
            if query.image is not None:
                found[at] = self._encode_image(query.image)
        return found

    def _encode_image(self, path: Path) -> Floats:
        pixels = self.encoder.max_visual_tokens * PIXELS_PER_TOKEN
        try:
            image = self.images.image_of(path, dpi=DEFAULT_DPI, max_pixels=pixels)
        except DocumentError as error:
            raise UsageError(f"{path}: {error}") from error
        return self.encoder.image_query(image)

    def _searchable(self, *, with_model: bool) -> PageIndex:
        """Return the index, opened once; before vectors are compared, the model is checked."""
        if with_model:
            self.encoder.digest  # noqa: B018 - opens the model, seconds in which others may search
        with self._lock:
            return self._open(with_model)

    def _open(self, with_model: bool) -> PageIndex:
        stored = self.stored  # and forgets an index that is gone
        if self._opened is None or (with_model and not self._is_checked):
            wanted = None
            if stored is not None and with_model:
                wanted = replace(stored, model=self.encoder.digest, model_name=self.encoder.name)
            opened = PageIndex.open(self.settings.index, wanted)
            self._retire()
            self._opened, self._is_checked = opened, with_model
        return self._opened

    def _retire(self) -> None:
        """Close what is open only at the end: another thread may be in the middle of it."""
        if self._opened is not None:
            self._retired.append(self._opened)
            self._opened = None

    def _forget_another(self) -> None:
        """Forget an index that was deleted or replaced: what is open of it would answer on."""
        try:
            state = (self.settings.index / "index.db").stat()
            place = state.st_dev, state.st_ino
        except OSError:
            place = None
        if place != self._place:
            self._retire()
            self._stored, self._place = None, place

    def patch_scores(self, vectors: Floats, document: str, page: int) -> PatchScores:
        """Where on a page each query vector finds its match, for heatmaps."""
        return self._searchable(with_model=True).patch_scores(vectors, document, page)

    # -- page images -----------------------------------------------------------------------------

    @property
    def images(self) -> PageImages:
        """Draws single pages in a render worker of its own."""
        with self._lock:
            if self._images is None:
                self._reader = PageReader(limits=reader_limits(self.settings))
                self._images = PageImages(self._reader)
            return self._images

    def text_boxes(
        self, document: str, page: int, words: Sequence[str]
    ) -> list[tuple[float, float, float, float]]:
        """Return where the page's text layer has these words, as shares of the page."""
        return self.images.find(self._searchable(with_model=False), document, page, words)

    def page(self, document: str, page: int) -> PageRecord:
        """Return what is stored of a page. Raises DocumentUnknown."""
        return self._searchable(with_model=False).page(document, page)

    def page_image(self, document: str, page: int, *, dpi: int, max_pixels: int) -> Image.Image:
        """Return a page as RGB, drawn from its file; where that is gone, the stored thumbnail.

        Raises DocumentUnknown, or DocumentError when neither can be had.
        """
        page_index = self._searchable(with_model=False)
        return self._drawn(page_index, document, page, dpi, max_pixels).image

    def _drawn(
        self, page_index: PageIndex, document: str, page: int, dpi: int, max_pixels: int
    ) -> PageImage:
        return self.images.read(page_index, document, page, dpi=dpi, max_pixels=max_pixels)

    # -- ask -------------------------------------------------------------------------------------

    def ask(
        self,
        question: Question,
        options: AnswerOptions = ANSWER_DEFAULTS,
        filters: Filters | None = None,
        cancellation: "Cancellation | None" = None,
        *,
        top_k: int | None = None,
        mode: Mode | None = None,
    ) -> AnswerStream:
        """Find the pages that answer; reading them and writing happen while the stream is iterated.

        Raises UsageError (empty question, no document to look at), IndexMissing, IndexMismatch and
        what the model raises; while iterated, DocumentError if no page can be read, PromptError if
        the question does not fit the model's context.
        """
        filters = filters or EVERYTHING
        documents = self._require_documents(filters)
        manner = Manner.load(self.encoder.folder)
        quotes = manner.quotes and not options.generate
        n_pages = options.pages or (READ_PAGES if quotes else manner.pages)
        top_k = max(n_pages, top_k or self.settings.top_k)
        query = Query(question.in_full, id=question.id)
        (found,) = self.search([query], filters, top_k=top_k, mode=mode)
        page_index = self._searchable(with_model=False)

        def is_stored(document: str, page: int) -> bool:
            try:
                return bool(page_index.page(document, page))
            except DocumentUnknown:
                return False

        hits = found.hits if found.is_answered else ()
        kept = question.kept
        if kept and filters != EVERYTHING:
            names = page_index.names(filters)
            kept = tuple(page for page in kept if page.document in names)
        if question.history and not question.is_follow_up and (quotes or not found.is_answered):
            kept = ()  # this question is about something else
        pages = choose_pages(
            worth_quoting(hits) if quotes and options.pages is None else hits,
            n_pages,
            options.neighbours,
            is_stored,
            kept,
        )
        encode_s = found.encode_s
        below = f"{filters.folder.strip('/')}/" if filters.folder else ""
        within = [each for each in documents if each.name.startswith(below)]
        notes = tuple(older_note(question.text, each) for each in self._outdated(pages))
        if not pages:
            notes = unread_note(question.text, within)
        notes += self._words_note(question.text, found.mode)
        evidence = Evidence(question, found.hits, pages, encode_s, found.seconds - encode_s, notes)
        return AnswerStream(
            evidence,
            lambda: self.encoder.engine,
            self._page_as_indexed,
            options,
            cancellation,
            self._rows if quotes else None,
        )

    def _rows(self, page: PageRef) -> PageRows:
        """Return what a page says, a row each; none where it is gone from the index."""
        try:
            page_index = self._searchable(with_model=False)
            is_certain = page_index.page(page.document, page.page).text_class != "read"
            return PageRows(
                self.images.rows(page_index, page.document, page.page), is_certain=is_certain
            )
        except DocumentUnknown:
            return PageRows(())

    def _require_documents(self, filters: Filters) -> tuple[DocumentRecord, ...]:
        """Raise UsageError where there is nothing to look at: say so, rather than "not found"."""
        page_index = self._searchable(with_model=False)
        documents = page_index.documents(filters.document or "*")
        if filters.names is not None:
            names = frozenset(filters.names)
            documents = tuple(each for each in documents if each.name in names)
        if not documents:
            which = (
                f"no document matches {filters.document!r}"
                if filters.document
                else (f"the index {self.settings.index} holds no document")
            )
            raise UsageError(f"{which}; `yomu list` shows all, `yomu ingest` adds some")
        return documents

    def _page_as_indexed(self, page: PageRef) -> PageImage:
        """Draw a page as it was when it was indexed: at that resolution and that many tokens."""
        page_index = self._searchable(with_model=False)
        pixels = self.encoder.max_visual_tokens * PIXELS_PER_TOKEN
        try:
            dpi = page_index.settings.dpi
            return self._drawn(page_index, page.document, page.page, dpi, pixels)
        except DocumentUnknown as error:
            raise DocumentError(str(error)) from None
