"""Exact late-interaction scores in numpy (ColBERT, arXiv:2004.12832): the reference for the rest.

Q query vectors, P page vectors, D dimensions, N vectors of many pages one after the other.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from index.errors import ShapeMismatch
from index.records import Floats

MOST_COMPARED = 256  # vectors of a question: 2070 of them took 35 CPU-seconds over 644 pages


def maxsim(query: Floats, page: Floats, mask: NDArray[np.bool_] | None = None) -> float:
    """Late-interaction score of one query against one page.

    query  (Q, D) float32, rows of unit length
    page   (P, D) float32, rows of unit length
    mask   (P,) bool, False = padding, which can never win (-inf, not 0)
    Returns a float in [-Q, Q]. Raises ShapeMismatch if the two D differ or nothing is unmasked.
    """
    if page.ndim != 2 or query.ndim != 2 or query.shape[1] != page.shape[1]:
        raise ShapeMismatch(f"query {query.shape} and page {page.shape} need one width")
    if mask is not None:
        page = page[mask]
    if not len(page):
        raise ShapeMismatch("a page without vectors has no score")
    similarities = query @ page.T  # (Q, P)
    return float(similarities.max(axis=1).sum(dtype=np.float64))


def maxsim_ragged(similarities: Floats, starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Scores of many pages from their similarities, laid out one after the other.

    similarities  (Q, N) float32
    starts        (n,) first vector of each page; a page ends where the next one starts
    Returns (n,) float64. No padding exists here, so none can win.
    """
    scores: NDArray[np.float64] = best_ragged(similarities, starts).sum(axis=0, dtype=np.float64)
    return scores


def best_ragged(similarities: Floats, starts: NDArray[np.int64]) -> Floats:
    """Best similarity (Q, n) float32 of every query vector in each page; see maxsim_ragged."""
    best: Floats = np.maximum.reduceat(similarities, starts, axis=1)
    return best


def chance(lengths: NDArray[np.int64], width: int) -> NDArray[np.float64]:
    """Best cosine that unrelated pages of so many vectors (n,) have with any vector: (n,) float64.

    Unit vectors in D dimensions that have nothing to do with each other have cosines of deviation
    D ** -0.5, and the largest of n of them is expected at this quantile (Blom 1958, alpha 0.375):
    the longer a page, the better its best match with whatever is asked.
    """
    found: NDArray[np.float64] = ndtri((lengths - 0.375) / (lengths + 0.25)) / np.sqrt(width)
    return found


def pair_up(similarities: Floats, starts: NDArray[np.int64]) -> Floats:
    """Similarities of two neighbouring query vectors to one vector of a page and the one after it.

    similarities  (Q, N) float32, starts as in maxsim_ragged, Q at least 2
    Returns (Q - 1, N): of a query vector and the next one the mean, the next one by the same or by
    the following vector of the page, whichever is nearer. Words that are asked for side by side
    then count where they stand side by side: the vectors of a page lie in reading order.
    """
    nearer = similarities[1:].copy()
    np.maximum(similarities[1:, :-1], similarities[1:, 1:], out=nearer[:, :-1])
    last = np.append(starts[1:], similarities.shape[1]) - 1
    nearer[:, last] = similarities[1:, last]  # what follows is another page
    pairs: Floats = np.float32(0.5) * (similarities[:-1] + nearer)
    return pairs


def ends_of(query: Floats) -> Floats:
    """Leave of the vectors (Q, D) of a question the first and last ones, MOST_COMPARED at most.

    What has more is a text that was pasted, and what is asked stands before or behind it. The two
    halves go on without gaps, since neighbours are compared in pairs.
    """
    half = MOST_COMPARED // 2
    return query if len(query) <= MOST_COMPARED else np.concatenate([query[:half], query[-half:]])


def maxsim_pages(query: Floats, pages: list[Floats]) -> NDArray[np.float64]:
    """Scores of one query against ragged pages: (n,) float64; (0,) for no pages."""
    if not pages:
        return np.zeros(0)
    lengths = [len(page) for page in pages]
    if min(lengths) == 0 or any(page.shape[1] != query.shape[1] for page in pages):
        raise ShapeMismatch("every page needs at least one vector, as wide as the query's")
    starts = np.concatenate([[0], np.cumsum(lengths[:-1])]).astype(np.int64)
    return maxsim_ragged(query @ np.concatenate(pages).T, starts)
