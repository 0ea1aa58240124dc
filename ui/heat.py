"""Scores of single words over a page: tokens of a query put together to the words they spell."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Span = tuple[int, int]
# Japanese has no spaces: a run of one script stands for a word.
WORD = re.compile(
    r"[\u3400-\u9fff\u3005]+|[\u30a0-\u30ff]+|[\u3040-\u309f]+"
    r"|[^\W\u3005\u3040-\u30ff\u3400-\u9fff]+(?:['’][A-Za-z]{1,2}\b)?"  # Adobe's, they'll
)


@dataclass(frozen=True)
class QueryHeat:
    """Where on a page a query, and each of its words, finds its match.

    words   of the query, in its order
    scores  (n_words, rows, cols) float32 cosine; NaN where nothing there was encoded
    total   (rows, cols): for each cell the best of all words
    """

    words: tuple[str, ...]
    scores: Floats
    total: Floats


def words_of(query: str, spans: Sequence[Span | None]) -> tuple[tuple[str, ...], list[list[int]]]:
    """Return the words of a query, and for each the rows of its tokens among `spans`."""
    words, rows = [], []
    for found in WORD.finditer(query):
        own = [
            row
            for row, span in enumerate(spans)
            if span is not None and span[0] < found.end() and span[1] > found.start()
        ]
        if own:
            words.append(found[0])
            rows.append(own)
    return tuple(words), rows


def query_heat(query: str, spans: Sequence[Span | None], scores: Floats) -> QueryHeat:
    """Put token scores (Q, rows, cols) together to those of words."""
    words, rows = words_of(query, spans)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a blank cell is NaN for every token
        if not words:
            return QueryHeat((), scores[:0], np.nanmax(scores, axis=0))
        by_word = np.stack([np.nanmax(scores[own], axis=0) for own in rows])
        return QueryHeat(words, by_word, np.nanmax(by_word, axis=0))
