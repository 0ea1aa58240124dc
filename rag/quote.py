"""Question and the rows of a page → the few passages that speak of it, word for word.

For a model that finds pages but cannot read answers off them: what the page says is quoted, nothing
is made up. First comes the one row or sentence that says most, words that are rare on the page
counting more (as in BM25); what stands over it counts as said by it. Then what is said of words
that are still missing, near passages preferred, and the heads of its columns.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rag.answer_key import Key, key_of
from rag.moments import moments
from rag.passages import SENTENCE_END, Passage
from rag.relevance import LABEL_HELP, Relevance, label_of
from rag.rows import CELL_END, FIGURE, joined_lines, width
from rag.scope import ends_in_figure, has_value, is_bare, is_over, is_value
from rag.small_page import QUESTION_END, but_ticks, said_at

MOST_ROWS = 4
MOST_HEADS = 3  # beside them, of the first one
MOST_TWINS = 3  # rows of the same name that the question does not tell from the first
MOST_GROUP = 4  # rows under a heading that are quoted with it
MOST_CHARS = 240  # of a row; a page with no more is small
MOST_SENTENCE = 400  # letters
MOST_QUOTED = 400  # letters, more than which nothing is added to
MOST_RIVALS = 8  # passages that say most
NAMED_HELP = 1.3  # of a row of which the one figure is known that is asked for
RIVAL_SHARE = 0.7  # of what the first one says; that of one that has what is asked for
LEAST_SAID = 0.25  # of the question's words: of a page of few words, less is a mere footer
LEAST_SHARE = 0.1  # of the question's weight that a further row must bring
ENOUGH = 0.85  # of it that is said: nothing further is looked for
ENOUGH_NAMED = 0.6  # by a row of which the one figure is known that is asked for
MOST_HEADING = 60  # wide; of what stands over a sentence or figures
ANSWER_ROWS = 2  # that follow a question of the page's own
MOST_ANSWERS = 6
MOST_FURTHER = 2  # sentences
MOST_BELOW = 2  # rows under a heading in which its figures stand
QUESTION_START = re.compile(r"(how|what|which|why|do|does|are|is|have|has) .*[^.:]$", re.IGNORECASE)
LABELLED = re.compile(r"[^:：]{1,20}[:：]\s?\S")  # 納期：令和6年9月30日
WHO = re.compile(r"\b(who|whose|whom)\b|誰|だれ|どなた|氏名|名前", re.IGNORECASE)
WHY = re.compile(r"\bwhy\b|なぜ|どうして|理由", re.IGNORECASE)
BACK = re.compile(
    r"(we call )?(this|these|it|they|such|that|those)\b|これ|この|その|それ|同[^じ]", re.IGNORECASE
)


@dataclass(frozen=True)
class Quotation:
    """Words of a page, and what in them is asked for.

    key        where it begins and ends; None if there is a doubt
    key_share  of the question's words that stand with it, or where the thing asked for is explained
    share      of them in the passage that says most, with what stands over it
    """

    text: str = ""
    key: tuple[int, int] | None = None
    key_share: float = 0.0
    share: float = 0.0

    @property
    def key_text(self) -> str:
        """What is asked for, "" if there is a doubt."""
        return self.text[slice(*self.key)] if self.key else ""


def quote(question: str, rows: Sequence[str]) -> str:
    """Return the text of `quotation`."""
    return quotation(question, rows).text


def quotation(question: str, rows: Sequence[str]) -> Quotation:
    """Return up to four rows or sentences that say most of the question's words, in page order.

    Beside them what a row of a table stands under, rows of the same name that the question does not
    tell from it, and the answer where the page itself asks. Empty if nothing has such words.
    Passages left out between two are shown as " … ". A table's row is followed by the figure of
    the one column that is asked for: "Sales 1,300 1,420 (2023: 1,420)". A page of few words, such
    as a slide with a chart, is quoted whole but for the ticks of an axis, unless a sentence or a
    row of a table says it.
    """
    page = Relevance(question, rows)
    texts = page.texts
    is_small = sum(map(len, texts)) <= MOST_CHARS
    said = said_at(texts, page.found, page.asked) if is_small else None
    if said is not None:
        return _joined(page, [said], said, key=key_of(question, page, [said], [said]))
    if not page.weight:
        return Quotation()
    choice = _Choice(page)
    chosen, beside, missing = choice.choose()
    if is_small:
        is_said = not missing and any(is_value(texts[at]) for at in chosen)
        has_all = len(page.weight) == len(page.asked)
        if not (has_all and (is_said or page.figure(chosen[0]))):
            says_little = len(page.weight) < LEAST_SAID * len(page.asked)
            if says_little:
                return Quotation()
            whole = but_ticks(texts)
            key = key_of(question, page, chosen, whole)
            return _joined(page, whole, chosen[0], chosen, key)
    asks = [at for at in beside if choice.is_question(at)]
    shown = {*choice.with_what_follows([*chosen, *asks]), *beside}
    shown |= choice.names_at([*chosen, *beside])
    named = [*chosen, *beside]
    key = key_of(question, page, named, sorted(shown))
    return _joined(page, sorted(shown), chosen[0], named, key)


class _Choice:
    """Which passages of a page are quoted."""

    def __init__(self, page: Relevance) -> None:
        self.page = page
        self.passages, self.texts = page.passages, page.texts

    def choose(self) -> tuple[list[int], list[int], set[str]]:
        """Return the passages to quote, best first, what goes with them, and the words not said."""
        page, first = self.page, self._first()
        chosen = [first, *self._of_kind(first), *self._like_headings(first)]
        beside = self._twins(first)
        beside += self._heads([first, *beside])
        missing = set(page.weight).difference(*(page.found[at] for at in (*chosen, *beside)))
        if self.passages[first].is_sentence:
            beside += self._around(first)
        whole = math.fsum(page.weight.values())
        enough = (ENOUGH_NAMED if page.figure(first) else ENOUGH) * whole
        says_it = self.passages[first].is_sentence or has_value(self.texts[first])
        is_done = page.wanted.is_defined_by(self.texts[first])
        while not is_done and missing and len(chosen) < MOST_ROWS:
            is_enough = page.weight_of(missing) < whole - enough
            gains = [
                page.weight_of(found & missing)
                * page.help[at]
                * (self._adds(at, first, is_enough) if says_it else 1)
                for at, found in enumerate(page.found)
            ]
            best = max(range(len(gains)), key=lambda at: (gains[at], _nearness(at, first)))
            if gains[best] < LEAST_SHARE * whole or not gains[best]:
                break
            chosen.append(best)
            missing -= page.found[best]
            is_done = sum(len(self.texts[at]) for at in chosen) >= MOST_QUOTED
        return chosen, beside, missing

    def _first(self) -> int:
        """Return the passage that says most, a row whose column is asked for before others."""
        every: Sequence[int] = range(len(self.texts))
        defining = [at for at in every if self.page.wanted.is_defined_by(self.texts[at])]
        if WHY.search(self.page.wanted.text):
            every = [at for at in every if self._may_say_why(at)] or every
        best = sorted(defining or every, key=self.page.scores.__getitem__, reverse=True)[
            :MOST_RIVALS
        ]
        return max(
            best,
            key=lambda at: (
                self.page.scores[at] * (NAMED_HELP if self.page.figure(at) else 1),
                self.texts[at].count(CELL_END),
            ),
        )

    def _may_say_why(self, at: int) -> bool:
        """Whether a passage has words of the question, and is no heading and no row of figures."""
        passage = self.passages[at]
        is_row = not passage.is_sentence and has_value(passage.text)
        is_own = bool(self.page.found[at] & self.page.asked)
        return is_own and not is_row and not is_over(passage)

    def _of_kind(self, first: int) -> list[int]:
        """Return what has the date or number that is asked for, where the first one has none.

        Under a heading that is the next one of its section.
        """
        if not self.page.wanted.wants_kind or self.page.wanted.is_of_kind(self.texts[first]):
            return []
        of_kind = [at for at, text in enumerate(self.texts) if self.page.wanted.is_of_kind(text)]
        if is_over(self.passages[first]):
            under = [at for at in of_kind if first in self.page.scopes[at].heading]
            if under:
                return under[:1]
        best = max(of_kind, key=self.page.scores.__getitem__, default=first)
        is_rival = self.page.scores[best] >= RIVAL_SHARE * self.page.scores[first]
        return [best] if best != first and is_rival else []

    def _like_headings(self, first: int) -> list[int]:
        """Return the headings that the question does not tell from the first one, if it is one."""
        if not is_over(self.passages[first]):
            return []
        score = self.page.scores[first]
        every = (at for at, passage in enumerate(self.passages) if is_over(passage) and at != first)
        alike = [at for at in every if math.isclose(self.page.scores[at], score)]
        return alike if len(alike) <= MOST_TWINS else []

    def _adds(self, at: int, first: int, is_enough: bool) -> float:
        """Say how much a passage may add to a row or sentence that says it.

        A heading adds nothing, nor does what is of other years, or a sentence to a row. Another
        row whose whole name is in the question may, "A or B?", even where enough is said.
        """
        if self.page.is_of_other_time(at):
            return 0.0
        if is_value(self.texts[at]) and self.page.is_named(at):
            return LABEL_HELP
        if is_enough or self.page.is_head[at] or is_over(self.passages[at]):
            return 0.0
        return float(self.passages[first].is_sentence)

    def _twins(self, first: int) -> list[int]:
        """Return rows of the first one's name that the question says as much of, under other heads.

        Or, where the question has only words of what stands over it, the rows beside it.
        """
        if self.passages[first].is_sentence or is_over(self.passages[first]):
            return []
        scope = self.page.scopes[first]
        if not self.page.weight_of(self.page.found[first]):
            group = [at for at, each in enumerate(self.page.scopes) if each == scope]
            return group if len(group) <= MOST_GROUP else []
        label = label_of(self.texts[first])
        score = self.page.scores[first]
        twins = [
            at
            for at, text in enumerate(self.texts)
            if at != first and is_value(text) and label_of(text) == label
            and math.isclose(self.page.scores[at], score)
        ]  # fmt: skip
        return twins if len(twins) <= MOST_TWINS else []

    def _around(self, first: int) -> list[int]:
        """Return the sentence before one that begins with "this", or the rest of an answer.

        That is up to the sentence with the date or number that the first one lacks.
        """
        asked = self.page.wanted
        is_behind = first > 0 and self.passages[first - 1].is_sentence
        if is_behind and BACK.match(self.texts[first]):
            return [first - 1]
        if not asked.wants_kind or asked.is_of_kind(self.texts[first]):
            return []
        for at in range(first + 1, min(first + 1 + MOST_FURTHER, len(self.texts))):
            if not self.passages[at].is_sentence:
                break
            if asked.is_of_kind(self.texts[at]):
                return list(range(first + 1, at + 1))
        return []

    def _heads(self, under: Sequence[int]) -> list[int]:
        """Return what stands over the first of some rows and has words of the question.

        And what tells rows of one name from each other.
        """
        first = under[0]
        scope = self.page.scopes[first]
        heads: list[int] = []
        missing = set(self.page.lent[first])
        while missing and len(heads) < MOST_HEADS:
            best = max(
                scope.over, key=lambda at: (self.page.weight_of(self.page.found[at] & missing), at)
            )
            if not self.page.found[best] & missing:
                break
            heads.append(best)
            missing -= self.page.found[best]
        overs = [self.page.scopes[at].over for at in under]
        if any(over != overs[0] for over in overs):
            shared = set.intersection(*({self.texts[n] for n in over} for over in overs))
            for over in overs:
                heads += [n for n in over if self.texts[n] not in shared][-1:]
        return heads

    def with_what_follows(self, chosen: Sequence[int]) -> set[int]:
        """Add what answers a question of the page, and what a heading stands over."""
        further = set(chosen)
        for at in chosen:
            end = at
            if self.is_question(at):
                end = self._end_of_answers(at)
            elif self.page.wanted.is_name(self.texts[at]):
                end = min(at + 1, len(self.texts) - 1)
            elif _is_heading(self.passages[at]):
                end = self._end_below(at)
            elif at == chosen[0] and self._is_term(at):
                end = min(at + 1, len(self.texts) - 1)
            further |= set(range(at, end + 1))
        return further

    def _is_term(self, at: int) -> bool:
        """Whether a short sentence names what is to be explained, and the next one explains it."""
        wanted, text = self.page.wanted, self.texts[at]
        if not wanted.defined or wanted.is_defined_by(text) or width(text) >= MOST_HEADING:
            return False
        return all(each.is_sentence for each in self.passages[at : at + 2])

    def names_at(self, rows: Sequence[int]) -> set[int]:
        """Return what may be the name of who is asked for: it stands over or under a title."""
        if not WHO.search(self.page.wanted.text):
            return set()
        titles = [at for at in rows if self._is_lone_name(at) and self.page.found[at]]
        around = {at for title in titles for at in (title - 1, title + 1)}
        return set(filter(self._is_lone_name, around & set(range(len(self.texts)))))

    def _is_lone_name(self, at: int) -> bool:
        text = self.texts[at]
        is_name = not self.passages[at].is_sentence and width(text) < MOST_HEADING
        return is_name and CELL_END not in text and not any(map(str.isdigit, text))

    def is_question(self, at: int) -> bool:
        """Whether a passage asks, so that the page answers it below."""
        text = self.texts[at]
        return bool(QUESTION_END.search(text)) or (
            is_over(self.passages[at]) and bool(QUESTION_START.match(text))
        )

    def _end_of_answers(self, at: int) -> int:
        """Return the passage in which ends what answers a question of the page: all of a chart."""
        end = min(at + ANSWER_ROWS, len(self.texts) - 1)
        for below in range(at + 1, end + 1):
            if self.is_question(below):
                return below - 1
        while (
            end + 1 < len(self.texts)
            and end - at < MOST_ANSWERS
            and is_value(self.texts[end])
            and is_value(self.texts[end + 1])
        ):
            end += 1
        return end

    def _end_below(self, at: int) -> int:
        """Return the passage in which ends what a heading stands over: a sentence, or figures."""
        below = at + 1
        if below < len(self.texts) and self.passages[below].is_sentence:
            return below
        for end in range(below, min(below + MOST_BELOW, len(self.texts))):
            if is_bare(self.texts[end]):
                return end
        return at


def _joined(
    page: Relevance,
    chosen: Sequence[int],
    first: int,
    named: Sequence[int] = (),
    key: Key | None = None,
) -> Quotation:
    """Put chosen passages under each other, sentences of one paragraph in one line.

    first  the one that says most
    named  those behind which the figure is said that is asked for
    """
    shown = ""
    before = -2
    where = None
    for at in chosen:
        passage = page.passages[at]
        own = text = _shown(page, at, at in named)
        if passage.is_begun_before and before != at - 1:
            text = f"… {text}"
        if not shown:
            shown = text
        elif at != before + 1:
            shown += f"\n{text}" if shown.endswith(" …") else f" …\n{text}"
        elif passage.follows:
            shown = joined_lines(shown, text)
        else:
            shown += f"\n{text}"
        if key and key.at == at and key.end <= len(own.removesuffix(" …")):
            start = len(shown) - len(own)
            where = (start + key.start, start + key.end)
        if passage.is_cut and not shown.endswith(" …"):
            shown += " …"
        before = at
    share = page.share_said(first)
    is_explained = page.wanted.is_defined_by(page.texts[first])
    key_share = key.share if key and where else share * is_explained
    return Quotation(shown.replace(CELL_END, " "), where, key_share, share)


def _shown(page: Relevance, at: int, is_named: bool) -> str:
    text = page.texts[at]
    most = MOST_SENTENCE if page.passages[at].is_sentence else MOST_CHARS
    if is_named and (figure := page.figure(at)):
        text = f"{text} ({figure})"
    return text if len(text) <= most else text[: most - 2].rstrip() + " …"


def _nearness(at: int, first: int) -> float:
    """How near a passage is to the first; above is nearer: what explains a row is over it."""
    return first - at if at > first else (at - first) / 2


def _is_heading(passage: Passage) -> bool:
    """Whether a row says nothing by itself: a few words, no figures behind them."""
    if ends_in_figure(passage.text) or LABELLED.match(passage.text):
        return False
    most = 2 * MOST_HEADING if passage.is_sentence else MOST_HEADING  # of two lines
    *numbers, words_of_it = passage.text.split(CELL_END)
    is_name = len(numbers) < 2 and all(map(FIGURE.match, numbers)) and not FIGURE.match(words_of_it)
    has_figure = any(
        FIGURE.match(word) and not any(moments(word).values()) for word in words_of_it.split()[1:]
    )
    is_name = is_name and not has_figure
    return is_name and width(passage.text) < most and not SENTENCE_END.search(passage.text)
