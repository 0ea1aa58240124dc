"""A question → the type of its answer, and what in a passage is of that type.

As in classic question answering (TREC; Li and Roth, 2002): "when" wants a date, "how many" a
number. Only what numbers answer is typed: names of people and places are not told apart well enough
by their letters.
"""

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from rag.asked import WHEN
from rag.moments import DATE, moments
from rag.terms import terms


class Kind(StrEnum):
    """What a number is, or what a question wants; CODE: a part of a name, a section, a footnote."""

    DATE = "date"
    MONEY = "money"
    PERCENTAGE = "percentage"
    CODE = "code"
    NUMBER = "number"


SCALE = "(?:兆|億|千万|百万|万|千)"
AMOUNT = rf"\d[\d,]*(?:\.\d+)?(?: ?{SCALE}(?:\d[\d,]*{SCALE}?)*)?"
SPANS = {  # in this order: what one has found is not looked at by the next
    Kind.DATE: DATE,
    Kind.MONEY: re.compile(
        r"(?:US ?)?[$€£¥]\s?\d[\d,]*(?:\.\d+)?(?: (?:thousand|million|billion|trillion)\b)?"
        rf"|{AMOUNT} ?(?:円|米?ドル|ユーロ|ポンド|元)"
        r"|\d[\d,]*(?:\.\d+)? (?:(?:thousand|million|billion) )?(?:dollars|euros|pounds|yen)\b",
        re.IGNORECASE,
    ),
    Kind.PERCENTAGE: re.compile(
        r"(?:\((?=\d[\d.,]*\)))?[-−△▲]?\d[\d,]*(?:\.\d+)?\)?\s?(?:[%％]|per ?cent\b|パーセント)",
        re.IGNORECASE,
    ),
    # GPT-3, Flight 610, Table 2, ※1, 第26条の2, 10-K, 3rd, 401(k), 8:30, 2. at a list
    Kind.CODE: re.compile(
        r"(?:[A-Za-z][A-Za-z\d_.]*[-–]?|(?<=\S )[A-Z][a-z]+ |[#§*＊※†] ?)\d[\d.-]*"
        r"|(?:\b(?:Fig(?:ure|\.)|Table|Chart|Section|Chapter|Page|Note|Step) |[図表] ?)\d[\d.-]*"
        r"|第\d[\d.-]*(?:[^\W\d_](?:の\d+)?)?"
        r"|\d+(?:-[A-Za-z\d]+)+|\d+(?:st|nd|rd|th)\b|\d+\([a-z]\)|\b\d{1,2}[.)] "
        r"|(?<!\d)\d{1,2}[:：]\d\d(?!\d)"
    ),
    Kind.NUMBER: re.compile(rf"(?<![\d.,])[-−△▲]?{AMOUNT}(?P<unit>[ -]?[^\W\d_]{{1,12}})?"),
}
PERCENTAGE = re.compile(
    r"[%％]|\bper ?cent(age)?\b|\b(share|how much) of\b|パーセント|割合|比率", re.IGNORECASE
)
MONEY = re.compile(
    r"\bhow much\b|\b(costs?|prices?|revenues?|sales|spen[dt]|pa(y|id)|fees?|expenses?|profits?"
    r"|income)\b|いくら|何[億万千百]*円|金額|費用|料金|売上",
    re.IGNORECASE,
)
NUMBER = re.compile(
    r"\bhow (many|long|old|far|big|large|high|often)\b|\bnumber of\b|\baverage\b"
    r"|いくつ|どれ(くらい|だけ|ほど)|何(?![がをでのにはもと])|[^\W\d]数(は|を|\W|$)|量",
    re.IGNORECASE,
)
FOR_HOW_LONG = re.compile(r"何[年月日](間|か|分)")  # wants no date
YES_OR_WHY = re.compile(  # or which of two
    r"^\W*(is|are|was|were|do|does|did|has|have|can)\b|\b(why|how (do|does|can))\b|どちら|なぜ|どう"
    r"|(ますか|ませんか)",
    re.IGNORECASE,
)
WHAT = re.compile("(?<!第)何|いくつ|いくら|いつ")
UNIT = re.compile(r"何(か月|ヶ月|カ月|[^\W\d_\u3041-\u309f]{1,3}間?)")
COUNTED = re.compile(
    r"\bhow many ([a-z-]+(?: [a-z-]+)?)|([^\W\d_\u3041-\u309f]+)[はがの](?:数は)?いくつ",
    re.IGNORECASE,
)
PERIOD = re.compile(r"(second|minute|hour|day|week|month|year)s?", re.IGNORECASE)
SAME_UNITS = {"ヶ月": "か月", "カ月": "か月", "名": "人"}
FIGURE = re.compile(r"\d[\d,]*(?:\.\d+)?")
RANGE = re.compile(r" ?(?:to|[–〜~～-]|から) ?")
JAPANESE = re.compile(r"[\u3041-\u30ff\u3400-\u9fff]")


@dataclass(frozen=True)
class Span:
    """A number in a text, from start to end; with the letters that follow it, for a plain one."""

    kind: Kind
    start: int
    end: int
    unit: str = ""


class AnswerType:
    """The type of a question's answer."""

    def __init__(self, question: str) -> None:
        self._question = _narrow(question)
        self._figures = _figures(_but_dates(self._question))  # 7月 says nothing of 7社
        self._moments = moments(question)

    @cached_property
    def wants_value(self) -> bool:
        """Whether a word or a number may answer: not yes or no, nor why, nor which of two."""
        return bool(WHAT.search(self._question) or not YES_OR_WHY.search(self._question))

    @cached_property
    def kind(self) -> Kind | None:
        """What is asked for; None if that is not known, or no number."""
        asked = self._question
        if not self.wants_value:
            return None
        if WHEN.search(asked) and not FOR_HOW_LONG.search(asked):
            return Kind.DATE
        if PERCENTAGE.search(asked):
            return Kind.PERCENTAGE
        if MONEY.search(asked):
            return Kind.MONEY
        return Kind.NUMBER if NUMBER.search(asked) or UNIT.search(asked) else None

    def spans(self, text: str, said: Collection[str], *, is_row: bool) -> list[Span]:
        """Return what in a passage is of that type and is not said by the question itself.

        said    the terms of it and of what stands over it: what is counted has to be among them
        is_row  whether it is a row of a table, where a figure has its unit elsewhere
        """
        text = _narrow(text)
        spans = _but_asides(text, spans_of(text))
        new = [each for each in spans if self._is_new(text[each.start : each.end], each.kind)]
        if self.kind == Kind.NUMBER:
            return self._counted(text, new, said, is_row)
        of_kind = [each for each in new if each.kind == self.kind]
        if self.kind == Kind.MONEY and is_row and not of_kind:
            return [each for each in new if each.kind == Kind.NUMBER]
        return of_kind

    def _is_new(self, text: str, kind: Kind) -> bool:
        if kind != Kind.DATE:
            return not _figures(text) <= self._figures
        return any(found - self._moments[each] for each, found in moments(text).items())

    def _counted(
        self, text: str, spans: Sequence[Span], said: Collection[str], is_row: bool
    ) -> list[Span]:
        """Return the numbers of the unit that is asked for, or of what is counted.

        何条 asks for 第26条, which is a code.
        """
        numbers = [each for each in spans if each.kind == Kind.NUMBER]
        if asked := UNIT.search(self._question):
            unit = SAME_UNITS.get(asked[1], asked[1])
            measured = [
                each for each in spans
                if each.kind in (Kind.NUMBER, Kind.CODE)
                and unit in _in_same_units(text[each.start : each.end] + each.unit)
            ]  # fmt: skip
            return measured or [each for each in numbers if is_row and not each.unit]
        if found := COUNTED.search(self._question):
            counted = terms(next(filter(None, found.groups())))
            if counted.isdisjoint(said):
                return []
            numbers = [  # 14 months are no shops
                each for each in numbers
                if not PERIOD.fullmatch(each.unit) or not counted.isdisjoint(terms(each.unit))
            ]  # fmt: skip
        return [each for each in numbers if is_row or each.unit]


def spans_of(text: str) -> list[Span]:
    """Return the numbers of a text by what they are, in its order; a range is one of them."""
    text = _narrow(text)
    found: list[Span] = []
    is_taken = [False] * len(text)
    for kind, pattern in SPANS.items():
        for match in pattern.finditer(text):
            unit = match["unit"] or "" if kind == Kind.NUMBER else ""
            start, end = match.start(), match.end() - len(unit)
            if not any(is_taken[start:end]):
                is_taken[start:end] = [True] * (end - start)
                found.append(Span(kind, start, end, unit.strip(" -")))
    return _with_ranges(text, sorted(found, key=lambda span: span.start))


def _with_ranges(text: str, spans: Sequence[Span]) -> list[Span]:
    """Return spans with the two ends of a range made one: $400 million to $475 million."""
    found: list[Span] = []
    for span in spans:
        last = found[-1] if found else None
        if last and last.kind == span.kind and RANGE.fullmatch(text, last.end, span.start):
            found[-1] = Span(span.kind, last.start, span.end, span.unit)
        else:
            found.append(span)
    return found


def _but_asides(text: str, spans: Sequence[Span]) -> list[Span]:
    """Return spans without those in brackets behind another: 2858 (2806), of a part of them.

    Of Japanese alone: elsewhere (2806) may be a figure of its own, below zero.
    """
    if not JAPANESE.search(text):
        return list(spans)
    is_aside = [False] + [
        bool(re.fullmatch(r"\S{0,3}\s?\(", text[last.end : each.start]))
        for last, each in zip(spans, spans[1:], strict=False)
    ]
    return [each for each, aside in zip(spans, is_aside, strict=False) if not aside]


def _narrow(text: str) -> str:
    """Return a text in letters of ordinary width, each in its place."""
    each = ((char, unicodedata.normalize("NFKC", char)) for char in text)
    return "".join(new if len(new) == 1 else char for char, new in each)


def _but_dates(text: str) -> str:
    return SPANS[Kind.DATE].sub(" ", text)


def _figures(text: str) -> set[str]:
    return {each.replace(",", "") for each in FIGURE.findall(text)}


def _in_same_units(text: str) -> str:
    for one, other in SAME_UNITS.items():
        text = text.replace(one, other)
    return text
