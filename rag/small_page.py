"""A page of few words, such as a slide with a chart → the sentence that answers, or all of it."""

import math
import re
from collections.abc import Sequence
from itertools import pairwise

from rag.rows import FIGURE

SAID_SHARE = 0.6  # of the question's words: a sentence that has them answers without its page
QUESTION_END = re.compile(r"([?？]|か[。．]|教えて(下さい|ください)[。．]?)\W*$")
ENDED = re.compile(r"([.!。！][\"'”’」』]*|、)$")
LEAST_TICKS = 3
NUMBER = re.compile(r"[-−△▲]?\d[\d,]*(\.\d+)?")
CAPTION = re.compile(r"(fig|table|chart|source|note|図|表|出典|資料|注|※)", re.IGNORECASE)


def said_at(
    texts: Sequence[str], found: Sequence[frozenset[str]], asked: frozenset[str]
) -> int | None:
    """Return the sentence that has most of the question and more than it.

    Labels and captions do not say a thing alone: the figures around them do.
    """
    for at, (text, row) in enumerate(zip(texts, found, strict=True)):
        is_said = ENDED.search(text) and not QUESTION_END.search(text) and not CAPTION.match(text)
        if is_said and row - asked and len(row & asked) >= SAID_SHARE * len(asked):
            return at
    return None


def but_ticks(texts: Sequence[str]) -> list[int]:
    """Return the rows but for numbers along an axis: three or more in a column, evenly spaced."""
    kept: list[int] = []
    at = 0
    while at < len(texts):
        end = _end_of_ticks(texts, at)
        if end - at < LEAST_TICKS:
            end = at + 1
            kept.append(at)
        at = end
    return kept


def _end_of_ticks(texts: Sequence[str], start: int) -> int:
    """Return the row behind the evenly spaced numbers, of one unit, that begin in a row."""
    numbers: list[float] = []
    units: set[str] = set()
    for text in texts[start:]:
        number = NUMBER.search(text) if FIGURE.match(text) else None
        if not number:
            break
        numbers.append(float(number.group().replace(",", "")))
        units.add(NUMBER.sub("", text, count=1).strip())
        steps = [b - a for a, b in pairwise(numbers)]
        is_even = all(math.isclose(step, steps[0], rel_tol=0.01) for step in steps)
        zero = {""} if 0 in numbers else set()  # which often has none
        if not is_even or len(units - zero) > 1:
            numbers.pop()
            break
    return start + len(numbers)
