"""How much each passage of a page says of a question.

Words that are rare on the page count more (as in BM25), and what stands over a passage counts as
said by it: "XARELTO" over the row "US".
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property

from index.text_layer import CJK_FIRST, words
from rag.asked import Asked
from rag.moments import moments
from rag.passages import passages_of
from rag.rows import CELL_END, FIGURE, width
from rag.scope import YEARS, heads_of, is_value, scopes_of
from rag.table_columns import named_figure
from rag.terms import asked_in_kana, terms

LABEL_HELP = 1.2  # times; of a row whose whole name is in the question
OTHER_TIME_SHARE = 0.4  # of a passage of other years
LENT_SHARE = 0.9  # of the weight of words that stand right over a passage, or over a table
LENT_FAR = 0.4  # over the sentences before a sentence
WHOLE_WORD = 2.0  # times: the weight of one beside Japanese words of several pairs and letters
ORDINARY, LONG = 200, 800  # wide; a passage of both together counts half
REFERENCE_SHARE = 0.5
INITIALS = re.compile(r"\b[A-Z]{3,5}\b")
COMPARED = re.compile(  # a sentence is not of the years it only compares with
    r"\b(?:compared (?:to|with)|versus|vs\.)\s[^;]*?(?<!\d)(?:19|20)\d\d(?!\d)"
    r"|[^、。\s]{1,12}(?:[とに]比[べ較し]|(?<=[年度])比)",
    re.IGNORECASE,
)
REFERENCE = re.compile(r"https?://|\bdoi\b", re.IGNORECASE)


class Relevance:
    """The passages of a page and how much each says of a question.

    passages, texts  of the page, in its order
    asked            what the question speaks of
    found            what each passage speaks of
    weight           of each word of the question that the page has
    wanted           the kind of answer
    """

    def __init__(self, question: str, rows: Sequence[str]) -> None:
        self._question, self._rows = question, rows
        self.wanted = Asked(question)
        self.passages = passages_of(rows)
        self.texts = [passage.text for passage in self.passages]
        self.scopes = scopes_of(self.passages)
        self.is_head = heads_of(self.passages)
        kana = asked_in_kana(question)
        self.asked = terms(question) | _times(question) | kana
        self.found = [
            terms(text) | _times(text) | kana.intersection(words(text)) for text in self.texts
        ]
        shorts = {each.lower() for each in INITIALS.findall(question)} & self.asked
        shorts = shorts.difference(*self.found)
        if shorts:
            pairs = zip(self.found, self.texts, strict=True)
            self.found = [found | _spelt_out(text, shorts) for found, text in pairs]
        self.weight = self._weights()

    def _weights(self) -> dict[str, float]:
        count = Counter(word for found in self.found for word in found)
        known = self.asked & set(count)
        weight = {word: math.log(1 + len(self.texts) / count[word]) for word in known}
        if CJK_FIRST.search(self._question):
            for word in known:
                weight[word] *= 1 if CJK_FIRST.search(word) else WHOLE_WORD
        defined = terms(self.wanted.defined) & known
        if 0 < len(defined) < len(known):  # "what does LRS stand for in the data model?"
            weight |= dict.fromkeys(defined, max(weight.values()))
        return weight

    def weight_of(self, found: Iterable[str]) -> float:
        """Return the weight of the question's words among some, whatever their order."""
        return math.fsum(self.weight.get(word, 0.0) for word in found)

    @cached_property
    def lent(self) -> list[frozenset[str]]:
        """Words of the question that stand over each passage, and not in it."""
        found: list[frozenset[str]] = []
        for scope, own in zip(self.scopes, self.found, strict=True):
            over = frozenset().union(*(self.found[n] for n in scope.over))
            found.append((over & self.asked) - own)
        return found

    def share_said(self, at: int) -> float:
        """Share of the question's words, 0 to 1, in a passage and in what stands over it."""
        said = (self.found[at] | self.lent[at]) & self.asked
        return len(said) / max(1, len(self.asked))

    @cached_property
    def help(self) -> list[float]:
        """How many times as much each passage counts for being of the kind that is asked for."""
        return [self.wanted.help(text) for text in self.texts]

    @cached_property
    def scores(self) -> list[float]:
        """How much each passage says, with what stands over it; heads of columns say nothing."""
        return [self._score(at) for at in range(len(self.texts))]

    def _score(self, at: int) -> float:
        if self.is_head[at]:
            return 0.0
        is_near = at - 1 in self.scopes[at].heading or not self.passages[at].is_sentence
        lent = self.weight_of(self.lent[at]) * (LENT_SHARE if is_near else LENT_FAR)
        said = (self.weight_of(self.found[at]) + lent) * self.help[at]
        if self.is_of_other_time(at):
            said *= OTHER_TIME_SHARE
        elif is_value(self.texts[at]) and self.is_named(at):
            said *= LABEL_HELP
        longer = max(0, width(self.texts[at]) - ORDINARY) / LONG
        return said * (REFERENCE_SHARE if REFERENCE.search(self.texts[at]) else 1) / (1 + longer)

    def is_of_other_time(self, at: int) -> bool:
        """Whether a passage, or its own heading, is of other years than are asked for."""
        asked = self._asked_years
        own = (at, *self.scopes[at].heading)
        years = frozenset().union(*(self._years[n] for n in own))
        return bool(asked and years) and not asked & years

    @cached_property
    def _asked_years(self) -> frozenset[int]:
        return moments(self._question)["year"]

    @cached_property
    def _years(self) -> list[frozenset[int]]:
        return [moments(COMPARED.sub(" ", text))["year"] for text in self.texts]

    def is_named(self, at: int) -> bool:
        """Whether all words of a row's name are in the question."""
        label = terms(label_of(self.texts[at]))
        return bool(label) and label <= self.asked

    def figure(self, at: int) -> str:
        """Return "column: figure" of the one column that is asked for, or ""."""
        row = self.passages[at].row
        return "" if row is None else named_figure(self._question, self._rows, row)


def label_of(text: str) -> str:
    """Return the name of a table's row."""
    if CELL_END in text:
        return text.split(CELL_END)[0].casefold()
    parts = text.casefold().split()
    return " ".join(each for each in parts if YEARS.match(each) or not FIGURE.match(each))


def _times(text: str) -> frozenset[str]:
    """Return the years and quarters a text names: 令和4年 is 2022, the third quarter is Q3."""
    named = moments(text)
    return frozenset([*map(str, named["year"]), *(f"q{n}" for n in named["quarter"])])


def _spelt_out(text: str, shorts: Iterable[str]) -> frozenset[str]:
    """Return the abbreviations whose letters begin words that follow each other in a text.

    "ceo" in "Dave Kimbell, chief executive officer".
    """
    initials = "".join(word[0] for word in re.findall(r"[a-z]+", text.lower()))
    return frozenset(short for short in shorts if short in initials)
