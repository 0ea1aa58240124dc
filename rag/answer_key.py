"""A quotation → the one number or name in it that is asked for, where there is no doubt."""

from collections.abc import Sequence
from dataclasses import dataclass

from rag.answer_type import AnswerType, Kind, spans_of
from rag.relevance import Relevance
from rag.rows import CELL_END
from rag.terms import terms

LEAST_SHARE = 0.25  # of the question's words in or over what is marked
ALONE_SHARE = 0.99  # of the score of the first passage: another one that says as much is a doubt


@dataclass(frozen=True)
class Key:
    """What is asked for: passage `at` of the page, from start to end in its quoted text.

    share  of the question's words that stand with it
    """

    at: int
    start: int
    end: int
    share: float


def key_of(
    question: str, page: Relevance, named: Sequence[int], shown: Sequence[int]
) -> Key | None:
    """Return the one span that is of the type asked for; None in doubt.

    It stands in the passage that says most or else, if that has none, in one of the others that are
    shown; not where too little of the question is said, or another passage says as much.

    named  passages behind which the figure of a column may stand, the one that says most first
    """
    first = named[0]
    others = (score for at, score in enumerate(page.scores) if at != first)
    is_alone = max(others, default=0.0) < ALONE_SHARE * page.scores[first]
    if not is_alone or not page.found[first] & page.asked:
        return None
    wanted = AnswerType(question)
    if any(map(page.figure, named)):
        is_sure = not any(map(page.figure, named[1:]))
        keys = _of_column(wanted, page, first) if is_sure else []
    elif wanted.kind is None:
        keys = _of_label(page, first) if wanted.wants_value else []
    else:
        is_dated = wanted.kind == Kind.DATE  # as a date that stands alone may be taken for a head
        rest = (at for at in shown if at != first and (is_dated or not page.is_head[at]))
        keys = _of_type(wanted, page, first)
        keys = keys or [key for at in rest for key in _of_type(wanted, page, at, first)]
    return keys[0] if len(keys) == 1 and keys[0].share >= LEAST_SHARE else None


def _of_column(wanted: AnswerType, page: Relevance, at: int) -> list[Key]:
    """Return the figure of the column that is asked for, which is quoted behind its row."""
    figure = page.figure(at)
    value = figure.rpartition(": ")[2]
    spans = spans_of(value)
    must_be = wanted.kind if wanted.kind in (Kind.DATE, Kind.PERCENTAGE) else None
    is_other = must_be and any(each.kind != must_be for each in spans)
    end = len(page.texts[at]) + len(f" ({figure}")
    return [] if is_other or len(spans) != 1 else [_key(page, at, end - len(value), end)]


def _of_label(page: Relevance, at: int) -> list[Key]:
    """Return what stands behind a name of which all words are asked for, in a row of two cells.

    Where a thing is to be explained, the name is of that.
    """
    text = page.texts[at]
    explained = terms(page.wanted.defined)
    is_about = not explained or bool(page.found[at] & explained)
    is_pair = text.count(CELL_END) == 1 and page.is_named(at) and is_about
    return [_key(page, at, text.index(CELL_END) + 1, len(text))] if is_pair else []


def _of_type(wanted: AnswerType, page: Relevance, at: int, first: int | None = None) -> list[Key]:
    """Return what is of the type in a passage; one that follows `first` says what that says."""
    passage = page.passages[at]
    is_begun = passage.is_begun_before or passage.text.startswith(("(", "（"))
    if passage.is_sentence and is_begun:  # what is before may be what is asked for
        return []
    spans = wanted.spans(passage.text, _said(page, at), is_row=not passage.is_sentence)
    said = [at] if first is None or first != at - 1 or not passage.follows else [first, at]
    return [_key(page, at, each.start, each.end, said) for each in spans]


def _key(page: Relevance, at: int, start: int, end: int, said: Sequence[int] = ()) -> Key:
    own = frozenset().union(*(_said(page, each) for each in said or [at]))
    return Key(at, start, end, len(own & page.asked) / len(page.asked))


def _said(page: Relevance, at: int) -> frozenset[str]:
    """Return what a passage speaks of, with the words of the question that stand over it."""
    return page.found[at] | page.lent[at]
