"""Question and pages to a streamed answer that shows its pages.

The evidence is known before the first word: `AnswerStream` has hits, pages and citations at once,
and reads the pages while it is iterated. Citations are the pages that retrieval found and the model
was given; nothing in the text the model writes is ever taken for one.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from PIL import Image

from index.records import DocumentRecord, PageHit
from rag.encoder import PIXELS_PER_TOKEN
from rag.errors import DocumentError
from rag.follow_up import in_full, is_follow_up
from rag.manner import AnswerOptions, Manner
from rag.page_choice import PageRef, fitting, in_reading_order
from rag.words import (
    NOTHING_TO_QUOTE,
    OLDER,
    QUOTED_NOTE,
    READ_OFF_IMAGE,
    UNREAD,
    in_language_of,
    not_found,
    page_named,
)

if TYPE_CHECKING:
    from models.engine import Engine
    from models.generator import Answer as Generated
    from models.images import VisualInput
    from models.session import Cancellation
    from rag.quote import Quotation

Turn = tuple[str, str]  # an earlier question and its answer

# Control tokens around each message (5) and each image (2), line ends, the system message: counted
# generously, 30 tokens are 1 % of the smallest context in use.
TEMPLATE_TOKENS = 30
TURN_TOKENS = 10
QUOTED = "quoted"  # stop reason of an answer that is the page's own words
READ_PAGES = 5  # are read for a quotation at most
QUOTED_PAGES = 3  # are quoted at most: the best one, and those of the others that say most
QUOTED_SHARE = 0.7  # of the best page's score that a further page needs
# Beside how well a page was found counts how much of the question its best passage says, and more
# what stands with the one thing that is asked for, or explains it. Of 169 questions on real pages,
# the first page quoted then had the answer of 0.65 instead of 0.59, any of 0.72 instead of 0.70.
SAID_WEIGHT, KEY_WEIGHT = 0.25, 0.5
KEY_LEAD = 0.1  # share of the question's words by which a key is ahead of another page's


@dataclass(frozen=True)
class Question:
    """What is asked.

    id       what the asker knows it by
    history  earlier questions and answers of this conversation
    kept     pages that conversation is about: they stay in front of what is found anew, so that
             what the model has read of them is not read again
    """

    text: str
    id: str | None = None
    history: tuple[Turn, ...] = ()
    kept: tuple[PageRef, ...] = ()

    @property
    def is_follow_up(self) -> bool:
        """Whether it cannot be understood without the earlier ones."""
        return bool(self.history) and is_follow_up(self.text)

    @property
    def in_full(self) -> str:
        """What to look for: "And in 2022?" with what the questions before were about."""
        return in_full(self.text, [asked for asked, _ in self.history])


@dataclass(frozen=True)
class AnswerTimings:
    """Seconds of wall time, and tokens written.

    The first question also opens the model, in encode_query and in read_pages.
    """

    encode_query: float = 0.0
    search: float = 0.0
    read_pages: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    tokens: int = 0


@dataclass(frozen=True)
class Key:
    """What is asked for, where there is no doubt: it begins at `start` of what `page` says."""

    page: PageRef
    text: str
    start: int


@dataclass(frozen=True)
class Answer:
    """A finished answer with its evidence.

    hits       what retrieval found, best first
    pages      what the model was given, in that order; empty when abstained
    citations  those of `pages` that retrieval found
    abstained  nothing here answers; `text` says so and `hits` are the nearest pages
    notes      what went wrong on the way, a line each: pages left out, pages read from small images
    quotations the words of each of `pages`, "" for none; empty where the model wrote
    key        what in them is asked for; None in doubt, and where the model wrote
    """

    question: Question
    text: str
    abstained: bool
    hits: tuple[PageHit, ...]
    pages: tuple[PageRef, ...]
    timings: AnswerTimings
    stop_reason: str | None = None
    notes: tuple[str, ...] = ()
    quotations: tuple[tuple[PageRef, str], ...] = ()
    key: Key | None = None

    @property
    def citations(self) -> tuple[PageRef, ...]:
        """Pages that retrieval found and the model was given."""
        return tuple(page for page in self.pages if page.found)


@dataclass(frozen=True)
class Evidence:
    """What retrieval says of a question: hits, and pages to give by importance; none: abstain."""

    question: Question
    hits: tuple[PageHit, ...]
    pages: tuple[PageRef, ...]
    encode_s: float = 0.0
    search_s: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PageImage:
    """A page as RGB; note: why it is not as sharp as it could be, "" if it is."""

    image: Image.Image
    note: str = ""


@dataclass(frozen=True)
class PageRows:
    """What a page says, a row each.

    is_certain  False: a small model read it off the image, and may have mistaken letters and digits
    """

    rows: Sequence[str]
    is_certain: bool = True


@dataclass
class _State:
    """What is known of an answer in the making."""

    pages: tuple[PageRef, ...] = ()
    notes: list[str] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    read_s: float = 0.0
    stop_reason: str | None = None
    quotations: tuple[tuple[PageRef, str], ...] = ()
    key: Key | None = None


class AnswerStream(Iterator[str]):
    """The text of one answer, streamed; hits and pages are there before it.

    Iterate to get pieces of text. `result()` is the answer so far, complete once iterated to its
    end. `pages` shrinks when the first piece is asked for, should some not fit or not be readable.
    `close` stops within one token, from any thread.
    """

    def __init__(
        self,
        evidence: Evidence,
        open_engine: Callable[[], "Engine"],
        read_page: Callable[[PageRef], PageImage],
        options: AnswerOptions,
        cancellation: "Cancellation | None" = None,
        read_rows: Callable[[PageRef], PageRows] | None = None,
    ) -> None:
        """Prepare; nothing is read yet.

        open_engine  called when the model is first needed, which is not when abstaining
        read_page    draws a page; DocumentError if it cannot
        read_rows    the text of a page, where the model's manner is to quote; then neither of the
                     others is called
        """
        from models.session import Cancellation

        self.evidence = evidence
        self._open_engine, self._read_page, self._read_rows = open_engine, read_page, read_rows
        self._options, self._cancellation = options, cancellation or Cancellation()
        pages = in_reading_order(evidence.pages, evidence.question.kept)
        self._state = _State(pages, list(evidence.notes))
        self._generated: Generated | None = None
        self._pieces = self._run()

    def __next__(self) -> str:
        piece = next(self._pieces)
        self._state.pieces.append(piece)
        return piece

    @property
    def abstained(self) -> bool:
        """Whether nothing here answers the question."""
        return not self.evidence.pages

    @property
    def generates(self) -> bool:
        """Whether the model is going to write; otherwise the text is there at once."""
        return not self.abstained and self._read_rows is None

    @property
    def pages(self) -> tuple[PageRef, ...]:
        """Pages given to the model, in the order it sees them."""
        return self._state.pages

    @property
    def notes(self) -> tuple[str, ...]:
        """What went wrong on the way so far."""
        return tuple(self._state.notes)

    def close(self) -> None:
        """Stop within one token; what was written so far remains in `result()`."""
        self._cancellation.cancel()
        if self._generated is not None:
            self._generated.close()

    def result(self) -> Answer:
        """Return the answer as far as it has been read."""
        state, generated = self._state, self._generated
        stop_reason = generated.stop_reason if generated else state.stop_reason
        if stop_reason is None and self._cancellation.cancelled:
            stop_reason = "cancelled"  # before there was anything to stop
        return Answer(
            question=self.evidence.question,
            text="".join(state.pieces).strip(),
            abstained=self.abstained,
            hits=self.evidence.hits,
            pages=state.pages,
            timings=self._timings(),
            stop_reason=stop_reason,
            notes=tuple(state.notes),
            quotations=state.quotations,
            key=state.key,
        )

    def _timings(self) -> AnswerTimings:
        evidence, generated = self.evidence, self._generated
        if generated is None:
            return AnswerTimings(evidence.encode_s, evidence.search_s, self._state.read_s)
        spent = generated.timings
        return AnswerTimings(
            encode_query=evidence.encode_s,
            search=evidence.search_s,
            read_pages=self._state.read_s,
            prefill=spent.vision_s + spent.prefill_s,
            decode=spent.decode_s,
            tokens=spent.n_tokens,
        )

    def _run(self) -> Iterator[str]:
        question = self.evidence.question
        if self.abstained:
            yield not_found(question.text)
            return
        if self._read_rows is not None:
            yield self._quoted(question, self._read_rows)
            return
        started = time.perf_counter()
        engine = self._open_engine()
        manner = Manner.load(engine.folder)
        longest = self._options.max_new_tokens or manner.max_new_tokens
        question = self._shortened(engine, manner, longest)
        budget = image_budget(engine, question, manner, longest)
        images = self._images(engine, budget)
        self._state.read_s = time.perf_counter() - started
        self._generated = engine.generator.generate(
            images,
            question.text,
            longest,
            history=question.history,
            system=manner.system,
            cancellation=self._cancellation,
        )
        yield from self._generated

    def _quoted(self, question: Question, read_rows: Callable[[PageRef], PageRows]) -> str:
        """Quote the pages that say most of the question, and set `pages` to them.

        The best hit stays in any case: where it has no such words, they may be in its picture.
        What a small model read off an image is quoted with a warning, and nothing in it is said to
        be what is asked for.
        """
        from rag.quote import quotation

        started = time.perf_counter()
        state, pages = self._state, self.evidence.pages
        state.stop_reason = QUOTED
        first = {(hit.document, hit.page) for hit in self.evidence.hits[:1]}
        best = next((page for page in pages if page.key in first), pages[0])
        found: dict[PageRef, Quotation] = {}
        uncertain: list[PageRef] = []
        for page in pages:
            if self._cancellation.cancelled:
                state.stop_reason = "cancelled"
                break
            read = read_rows(page)
            said = quotation(question.in_full, read.rows)
            if said.text or page == best:
                found[page] = said if read.is_certain else replace(said, key=None)
            if said.text and not read.is_certain:
                uncertain.append(page)
        found = {page: found[page] for page in self._by_worth(found, best)}
        state.pages, state.key = tuple(found), _key_of(found)
        state.quotations = tuple((page, said.text) for page, said in found.items())
        if any(said.text for said in found.values()):
            state.notes.append(QUOTED_NOTE)
        warning = in_language_of(question.text, READ_OFF_IMAGE)
        for page in filter(uncertain.__contains__, found):
            state.notes.append(warning.format(document=page.document, page=page.page))
        state.read_s = time.perf_counter() - started
        nothing = in_language_of(question.text, NOTHING_TO_QUOTE)
        if len(found) < 2:
            return "".join(text or nothing for _, text in state.quotations)
        return "\n\n".join(
            f"{page_named(question.text, page.document, page.page)}:\n{text or nothing}"
            for page, text in state.quotations
        )

    def _by_worth(self, found: Mapping[PageRef, "Quotation"], best: PageRef) -> list[PageRef]:
        """Order pages by how well they were found and how much of the question they say.

        Pages of the conversation come first, and the best hit where it has no such words. Of pages
        that nobody asked for, QUOTED_PAGES are left.
        """
        scores = {(hit.document, hit.page): hit.score for hit in self.evidence.hits}
        most = max(scores.get(best.key, 1.0), 1e-6)

        kept = self.evidence.question.kept

        def worth(page: PageRef) -> float:
            if page in kept or not found[page].text:
                return math.inf
            score = scores.get(page.key, QUOTED_SHARE * most) / most  # neighbours are no hits
            said = found[page]
            return score + SAID_WEIGHT * said.share + KEY_WEIGHT * said.key_share

        pages = sorted(found, key=worth, reverse=True)
        if self._options.pages is not None:
            return pages
        others = [page for page in pages if page.found and page not in kept and page != best]
        return [page for page in pages if page not in others[QUOTED_PAGES - 1 :]]

    def _shortened(self, engine: "Engine", manner: Manner, max_new_tokens: int) -> Question:
        """Drop the earliest turns of a conversation that would leave no room for one page."""
        question = self.evidence.question
        page = engine.generator.options.max_pixels // PIXELS_PER_TOKEN + 2
        history = question.history
        while history and (
            image_budget(engine, replace(question, history=history), manner, max_new_tokens) < page
        ):
            history = history[1:]
        if n_dropped := len(question.history) - len(history):
            self._state.notes.append(
                f"the earliest {n_dropped} of {len(question.history)} turns are left out: the "
                f"model's context of {engine.config.text.max_positions} tokens is full"
            )
        return replace(question, history=history)

    def _images(self, engine: "Engine", budget: int) -> "list[VisualInput]":
        """Read the pages, drop what cannot be read or does not fit, set `pages` to the rest."""
        state = self._state
        read: list[tuple[PageRef, VisualInput]] = []
        for page in self.evidence.pages:
            try:
                read.append((page, self._read(engine, page)))
            except DocumentError as error:
                state.notes.append(f"{page.document}, p. {page.page} is left out: {error}")
        if not read:
            raise DocumentError(f"no page can be read any more: {state.notes[0]}")
        fits = fitting([visible_tokens(engine, visual) for _, visual in read], budget)
        given = {page: visual for (page, visual), fit in zip(read, fits, strict=True) if fit}
        for (page, _), fit in zip(read, fits, strict=True):
            if not fit:
                state.notes.append(
                    f"{page.document}, p. {page.page} is left out: the model's context of "
                    f"{engine.config.text.max_positions} tokens is full"
                )
        state.pages = in_reading_order(given, self.evidence.question.kept)
        return [given[page] for page in state.pages]

    def _read(self, engine: "Engine", page: PageRef) -> "VisualInput":
        from models.images import preprocess

        found = self._read_page(page)
        if found.note:
            self._state.notes.append(f"{page.document}, p. {page.page}: {found.note}")
        limits = engine.generator.options
        return preprocess(found.image, limits.min_pixels, limits.max_pixels)


def _key_of(found: Mapping[PageRef, "Quotation"]) -> Key | None:
    """Return the key that stands with most of the question, unless another's is about as near."""
    keys = [(page, said) for page, said in found.items() if said.key]
    if not keys:
        return None
    page, best = max(keys, key=lambda pair: pair[1].key_share)
    near = {said.key_text for _, said in keys if said.key_share > best.key_share - KEY_LEAD}
    return Key(page, best.key_text, best.key[0]) if best.key and len(near) == 1 else None


def worth_quoting(hits: Sequence[PageHit]) -> tuple[PageHit, ...]:
    """Hits of which a quotation may help: the best, and others nearly as good."""
    further = (hit for hit in hits[1:READ_PAGES] if hit.score >= QUOTED_SHARE * hits[0].score)
    return (*hits[:1], *further)


def unread_note(question: str, documents: Sequence[DocumentRecord]) -> tuple[str, ...]:
    """Say that "not found" was said without all pages having been read, if so."""
    n_unread = sum(each.status != "complete" for each in documents)
    if not n_unread:
        return ()
    note = in_language_of(question, UNREAD).format(unread=n_unread, all=len(documents))
    return (note,)


def older_note(question: str, document: DocumentRecord) -> str:
    """Say that a document is shown as it was before, as its newest version could not be read."""
    texts = in_language_of(question, OLDER)
    return texts.format(document=document.name, reason=document.outdated)


def image_budget(engine: "Engine", question: Question, manner: Manner, max_new_tokens: int) -> int:
    """Tokens of the model's context left for page images after all words and the answer."""
    words: Sequence[str] = (
        manner.system or "", question.text, *(part for turn in question.history for part in turn),
    )  # fmt: skip
    n_words = sum(len(engine.tokenizer.encode(each)) for each in words)
    template = TEMPLATE_TOKENS + TURN_TOKENS * len(question.history)
    return engine.config.text.max_positions - max_new_tokens - n_words - template


def visible_tokens(engine: "Engine", visual: "VisualInput") -> int:
    """Tokens a page takes in the prompt: one for each cell that is seen, and two around them."""
    is_thinned = engine.generator.options.skip_blank_blocks
    return (int(visual.kept.sum()) if is_thinned else visual.n_tokens) + 2
