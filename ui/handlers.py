"""What happens when someone asks, or looks at a page: the service's events to what is shown.

Plain generators, without gradio. Each yields named outputs; None leaves one as it is.
"""

import logging
import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from rag.answer import QUOTED, Answer
from rag.page_choice import PageRef
from rag.records import Cancellation, DocumentUnknown, Filters
from rag.settings import Mode
from rag.terms import terms
from rag.words import LONGEST_QUESTION, QUOTED_NOTE
from ui import markup, markup_ask, visit
from ui.errors import OUR_FAULT, ExpectedError, public
from ui.heat import Floats
from ui.heatmap import answer_words, bytes_uri, data_uri, overlay, quoted_words
from ui.japanese import in_japanese
from ui.markup_ask import Card, Layer, Sheet, Step, Turn
from ui.requests import (
    AskRequest,
    Event,
    Finished,
    Found,
    Piece,
    Queued,
    SearchRequest,
    Stage,
)
from ui.service import Service
from ui.texts import counted, word

log = logging.getLogger(__name__)

PAGE_PX = 1500  # longer side of the page in the viewer: text of 8 pt is readable at full width
BETWEEN_S = 0.1  # between two sights of a growing answer: each is sent whole
MAX_WORDS = 40  # with a heatmap each: a pasted paragraph has hundreds
MAX_HISTORY = 20  # turns that go with a follow-up
# what the command line advises → what to do on the page instead
HERE = {
    "give its password by --password or --password-file": "type its password and read it again",
    "`yomu list` says why": "the Library tab says why",
    "理由は`yomu list`で分かります": "理由は「文書」タブで分かります",
    "; `yomu list` shows all, `yomu ingest` adds some": "; the Library tab shows all and adds some",
    "`yomu list` shows": "the Library tab shows",
    "`yomu ingest` reads it anew": "read it again",
    "wait for it (--wait) or stop it": "wait until it is done",
    "ingest again into a new folder with `yomu ingest PATH --index NEW`": "start the server on a "
    "new index",
    "; `yomu remove GLOB` takes documents out of the index": "",
}


class Shown(NamedTuple):
    """Outputs of a question; None: as it is."""

    progress: str | None = None
    evidence: str | None = None
    answer: str | None = None
    earlier: str | None = None
    turns: tuple[Turn, ...] | None = None


@dataclass(frozen=True)
class Form:
    """What was filled in beside a question; as the components give it."""

    question: str
    document: str | None = None
    date_from: str | None = None
    date_to: str | None = None
    mode: Mode = "hybrid"
    top_k: float = 5
    pages: float = 0
    neighbours: float = 0
    is_follow_up: bool = False
    client: str = ""  # clients take turns in the queue

    @property
    def filters(self) -> Filters:
        """Which documents may be looked at."""
        return Filters(
            document=_given(self.document),
            date_from=_given(self.date_from),
            date_to=_given(self.date_to),
        )

    def request(self, turns: Sequence[Turn]) -> AskRequest:
        """Return what the service is asked, with the conversation where it is to go on."""
        earlier = turns[-MAX_HISTORY:] if self.is_follow_up else ()
        kept = earlier[-1].pages if earlier else ()
        return AskRequest(
            question=self.question.strip(),
            history=tuple((each.question, each.answer) for each in earlier),
            kept=tuple(PageRef(document, page) for document, page in kept),
            pages=int(self.pages) or None,
            neighbours=int(self.neighbours),
            top_k=int(self.top_k),
            mode=self.mode,
            filters=self.filters,
            client=self.client,
        )


def _given(text: str | None) -> str | None:
    return (text or "").strip() or None


def reason(error: BaseException | str, language: str = "en") -> str:
    """Return the one line of an error, without where anything lies on the server's disk."""
    lines = str(error).strip().splitlines()
    line = public(lines[0]) if lines else type(error).__name__
    line = in_japanese(line) if language == "ja" else line
    for advice, here in HERE.items():
        line = line.replace(advice, here)
    return line


class _Conversation:
    """One question on its way: takes events, says what to show."""

    def __init__(
        self, service: Service, form: Form, turns: tuple[Turn, ...], language: str
    ) -> None:
        self._service, self._language = service, language
        self._before = turns
        self._turn = Turn(form.question.strip())
        self._steps: tuple[Step, ...] = ()
        self._began_s = 0.0  # when the present stage began, since the question came
        self._shown_s = -math.inf  # when the answer was last shown

    def start(self) -> Shown:
        """Clear what was there and say that the search is on."""
        searching = Step(word(self._language, "searching"))
        return Shown(
            progress=self._progress(searching),
            evidence="",
            answer=markup_ask.answer(self._language, self._turn),
            earlier=markup_ask.earlier(self._language, self._before),
        )

    def take(self, event: Event) -> Shown:
        """Return what an event changes."""
        language = self._language
        match event:
            case Queued(position):
                if position <= 0:
                    return Shown()
                waiting = Step(word(language, "waiting", n=position))
                return Shown(progress=self._progress(waiting))
            case Found():
                return self._found(event)
            case Stage(name, seconds):
                return self._stage(name, seconds)
            case Piece(text):
                return self._grown(text)
            case Finished(answer):
                return self._finished(answer)
        return Shown()

    def failed(self, error: BaseException | str) -> Shown:
        """Say in one line what went wrong; what was written so far stays."""
        self._turn = replace(self._turn, is_finished=True)
        line = word(self._language, "error", reason=reason(error, self._language))
        return Shown(
            progress=markup.note(line, "error"),
            answer=markup_ask.answer(self._language, self._turn),
        )

    def _grown(self, text: str) -> Shown:
        """Return the answer so far, or nothing where it was shown a moment ago."""
        self._turn = replace(self._turn, answer=self._turn.answer + text)
        now = time.monotonic()
        if now - self._shown_s < BETWEEN_S:
            return Shown()
        self._shown_s = now
        return Shown(answer=markup_ask.answer(self._language, self._turn))

    def _progress(self, *running: Step) -> str:
        return markup_ask.stages(self._language, (*self._steps, *running))

    def _done(self, step: Step) -> None:
        self._steps = (*self._steps, step)

    def _stage(self, name: str, seconds: float) -> Shown:
        """Note that a stage begins, so the one before it is done."""
        reading = counted(self._language, "reading", len(self._turn.pages))
        if name == "reading":
            self._began_s = seconds
            return Shown(progress=self._progress(Step(reading)))
        self._done(Step(reading, seconds - self._began_s))
        return Shown(progress=self._progress(Step(word(self._language, "writing"))))

    def _found(self, event: Found) -> Shown:
        language, n_hits = self._language, len(event.hits)
        self._done(Step(counted(language, "found", n_hits), event.seconds))
        pages = () if event.abstained else event.pages
        self._turn = replace(
            self._turn,
            hits=tuple((hit.document, hit.page, float(hit.score)) for hit in event.hits),
            pages=tuple(each.key for each in pages),
            abstained=event.abstained,
        )
        running = (Step(counted(language, "reading", len(pages))),) if pages else ()
        found = cards_of(self._service, self._turn.hits)
        return Shown(
            progress=self._progress(*running),
            evidence=markup_ask.evidence(
                language, found, self._turn.question, abstained=event.abstained
            ),
            answer=markup_ask.answer(language, self._turn),
        )

    def _finished(self, answer: Answer) -> Shown:
        language, spent = self._language, answer.timings
        remarks = {
            "cancelled": "stopped",
            "length": "cut",
            "repetition": "repeated",
            QUOTED: "quoted",
        }
        remark = remarks.get(answer.stop_reason or "")
        if remark == "quoted" and not any(text for _, text in answer.quotations):
            remark = None  # a page is shown, and no words of it
        notes = [reason(each, self._language) for each in answer.notes if each != QUOTED_NOTE]
        key = answer.key
        self._turn = replace(
            self._turn,
            answer=answer.text,
            pages=tuple(each.key for each in answer.citations),
            quoted=tuple((page.key, text) for page, text in answer.quotations),
            key=(key.page.key, key.start, key.start + len(key.text)) if key else None,
            abstained=answer.abstained,
            notes=(*notes, *((word(language, remark),) if remark else ())),
            seconds=spent.encode_query + spent.search + spent.read_pages + spent.prefill
            + spent.decode,
            is_finished=True,
        )  # fmt: skip
        self._steps = self._steps[:1]
        if not answer.abstained:
            n_pages = counted(language, "reading", len(answer.pages))
            self._done(Step(n_pages, spent.read_pages + spent.prefill))
            self._done(Step(word(language, "writing"), spent.decode))
        self._done(Step(word(language, "done"), self._turn.seconds))
        return Shown(
            progress=self._progress(),
            answer=markup_ask.answer(language, self._turn, visit.written(self._turn)),
            turns=(*self._before, self._turn)[-visit.MAX_TURNS :],
        )


def ask(
    service: Service,
    form: Form,
    turns: tuple[Turn, ...],
    language: str,
    cancellation: Cancellation | None = None,
) -> Iterator[Shown]:
    """Yield what is shown from the question to the end of its answer; pages come first.

    Closing this generator stops the model; so does `cancellation`, after which the answer so far
    is shown as stopped.
    """
    if not form.question.strip():  # said, and all else stays: nothing yielded would be a blank
        line = reason("the question is empty; say what to look for", language)
        yield Shown(progress=markup.note(line, "error"))
        return
    conversation = _Conversation(service, form, turns, language)
    yield conversation.start()
    try:
        request = form.request(turns)
        still_there = tuple(each for each in request.kept if _is_there(service, each))
        for event in service.ask(replace(request, kept=still_there), cancellation):
            if (shown := conversation.take(event)) != Shown():
                yield shown
    except ExpectedError as error:
        yield conversation.failed(error)
    except Exception:  # raised on, it would be an empty message, and the buttons stay disabled
        log.exception("a question failed for a reason that is our bug")
        yield conversation.failed(OUR_FAULT)


def _is_there(service: Service, page: PageRef) -> bool:
    """Say whether a page an earlier answer was read from is in the index yet."""
    try:
        service.library.page(*page.key)
    except DocumentUnknown:
        return False
    return True


def again(service: Service, turns: tuple[Turn, ...], unanswered: str, language: str) -> Shown:
    """Return what a visit showed before the browser loaded the page anew.

    unanswered  the question that was broken off by that; "" if there was none
    """
    shown = Shown()
    if turns:
        *before, last = turns
        found = cards_of(service, last.hits)
        shown = Shown(
            evidence=markup_ask.evidence(language, found, last.question, abstained=last.abstained),
            answer=markup_ask.answer(language, last),
            earlier=markup_ask.earlier(language, before),
            turns=turns,
        )
    if unanswered:
        shown = shown._replace(progress=markup.note(word(language, "unanswered"), "warn"))
    return shown


def forgotten(language: str, user: str = "") -> tuple[Shown, str]:
    """Return the page as it was before the first question, and its viewer."""
    empty, no_page = welcome(language, user)
    return Shown(progress="", evidence="", answer=empty, earlier="", turns=()), no_page


def welcome(language: str, user: str = "") -> tuple[str, str]:
    """Return what stands in the places of answer and page before anything was asked.

    user  who is logged in, or "": what the browser kept of another user's visit is dropped
    """
    return markup_ask.no_answer(language, user), markup_ask.viewer(language, None)


def cards_of(service: Service, hits: Sequence[tuple[str, int, float]]) -> list[Card]:
    """Return pages with their small images."""
    return [
        Card(document, page, score, _thumbnail(service, document, page))
        for document, page, score in hits
    ]


def _thumbnail(service: Service, document: str, page: int) -> str:
    try:
        content = service.library.thumbnail(document, page)
    except ExpectedError:  # removed since it was found
        return ""
    return bytes_uri(content, "image/webp") if content else ""


@dataclass(frozen=True)
class Selection:
    """A page that was chosen, and the question its heatmap is about; as the browser sent it.

    number  grows with each choice of a visit: they are sent at once, and may come in any order
    """

    document: str
    page: int
    query: str = ""
    number: int = 0

    @classmethod
    def read(cls, data: object) -> "Selection | None":
        """Read what a click sent; None if that is no page."""
        if not isinstance(data, dict):
            return None
        document, page = data.get("document"), str(data.get("page", ""))
        if not isinstance(document, str) or not re.fullmatch("[0-9]{1,10}", page):
            return None
        if not 1 <= int(page) <= markup.LAST_PAGE:
            return None
        query, number = str(data.get("query", ""))[:LONGEST_QUESTION], data.get("number")
        return cls(document, int(page), query, number if isinstance(number, int) else 0)


def show_page(
    service: Service, chosen: Selection, turns: Sequence[Turn], language: str
) -> Iterator[str]:
    """Yield the page at once, then with its heatmap and the framed words of its answer."""
    try:
        picture = service.library.page_image(chosen.document, chosen.page, PAGE_PX)
        n_pages = _n_pages(service, chosen.document)
    except ExpectedError as error:
        yield markup.section(
            "viewer",
            word(language, "viewer"),
            markup.note(word(language, "error", reason=reason(error, language)), "error"),
        )
        return
    source = data_uri(picture.convert("RGB"), "JPEG")
    sheet = Sheet(chosen.document, chosen.page, n_pages, source)
    yield markup_ask.viewer(language, sheet, chosen.query)
    if chosen.query:
        sheet = replace(sheet, boxes=_boxes(service, chosen, turns))
        yield markup_ask.viewer(
            language, _with_heat(service, chosen, sheet, language), chosen.query
        )


def _n_pages(service: Service, document: str) -> int:
    records, _ = service.library.documents()
    return next((each.n_pages for each in records if each.name == document), 1)


def _with_heat(service: Service, chosen: Selection, sheet: Sheet, language: str) -> Sheet:
    try:
        heat = service.heatmap(chosen.query, chosen.document, chosen.page)
    except ExpectedError as error:
        return replace(
            sheet, problem=word(language, "heat_missing", reason=reason(error, language))
        )
    total = Layer(word(language, "heat_total"), data_uri(overlay(heat.total)))
    scores: dict[str, tuple[str, Floats]] = {}  # a word that is asked twice counts once
    for name, found in zip(heat.words, heat.scores, strict=True):
        if terms(name):  # "the" and の match anywhere
            scores.setdefault(name.casefold(), (name, found))
    words = (Layer(name, data_uri(overlay(found))) for name, found in scores.values())
    return replace(sheet, layers=(total, *islice(words, MAX_WORDS)))


def _boxes(
    service: Service, chosen: Selection, turns: Sequence[Turn]
) -> tuple[tuple[float, float, float, float], ...]:
    """Return where the words of this question's answer stand on a page it was read from."""
    key = (chosen.document, chosen.page)
    turn = next((each for each in reversed(turns) if each.question == chosen.query), None)
    if turn is None or turn.abstained or key not in turn.pages:
        return ()
    quotation = dict(turn.quoted).get(key)
    if quotation is None:
        words = answer_words(turn.answer)
    else:
        words = quoted_words(quotation, turn.question)
    try:
        return service.library.text_boxes(*key, words)
    except ExpectedError:  # no text layer to be had: the heatmap is there
        return ()


def alike(service: Service, name: str, path: str, top_k: float, language: str) -> str:
    """Return the pages that look like an image that was sent (its name, where it was put)."""
    try:
        found = service.search_like(name, Path(path), SearchRequest("", top_k=int(top_k)))
    except ExpectedError as error:
        return markup_ask.comparison(language, [("visual", (), reason(error, language))], "")
    hits = [(hit.document, hit.page, float(hit.score)) for hit in found.hits]
    return markup_ask.comparison(language, [("visual", cards_of(service, hits), "")], "")


def compare(service: Service, question: str, top_k: float, language: str) -> Iterator[str]:
    """Yield the pages of one question by image, by text and by both, as each is found."""
    question = question.strip()
    columns: list[tuple[str, Sequence[Card], str]] = []
    modes: tuple[Mode, ...] = ("hybrid", "visual", "text")
    for mode in modes if question else ():
        try:
            found = service.search(SearchRequest(question, mode=mode, top_k=int(top_k)))
        except ExpectedError as error:
            columns.append((mode, (), reason(error, language)))
        else:
            hits = [(hit.document, hit.page, float(hit.score)) for hit in found.hits]
            columns.append((mode, cards_of(service, hits), ""))
        yield markup_ask.comparison(language, columns, question)
