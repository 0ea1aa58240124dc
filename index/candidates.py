"""Which pages deserve an exact score: centroids and the pages near them (PLAID, arXiv:2205.09707).

A page is known by the set of centroids its vectors are nearest to (index/codebook.py). A query
vector scores a page by the best centroid in the page's set: only the nearest `n_probe` centroids
are looked up, and a page that has none of them is given what its best one has by chance (XTR,
2304.01982, imputes the last one looked up, an upper bound). Q query vectors, C centroids, n pages
of a segment.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from index.records import Floats

Ints = NDArray[np.int64]
NO_ROWS: Ints = np.zeros(0, np.int64)


@dataclass(frozen=True)
class PageCodes:
    """Sets of centroid ids, one a page: page i has ids[offsets[i] : offsets[i + 1]]."""

    ids: NDArray[np.uint16]
    offsets: Ints

    @classmethod
    def of(cls, sets: Sequence[NDArray[np.uint16]]) -> Self:
        """Lay sets out one after the other."""
        ids = np.concatenate([*sets, np.zeros(0, np.uint16)])
        return cls(ids, np.concatenate([[0], np.cumsum([len(s) for s in sets])]).astype(np.int64))

    def page(self, row: int) -> NDArray[np.uint16]:
        """Ids of one page."""
        return self.ids[self.offsets[row] : self.offsets[row + 1]]


@dataclass(frozen=True)
class Probe:
    """A query seen from the centroids."""

    n_centroids: int
    lists: Ints  # (Q, n_probe) nearest centroids, the nearest last
    gains: Floats  # (Q, n_probe) how much more similar they are than the floor
    floor: Floats  # (Q,) similarity given to pages that have none of them

    @classmethod
    def of(cls, similarities: Floats, n_probe: int, n_imputed: int) -> Self:
        """Choose centroids by their similarities (Q, C); the floor is that of the n_imputed-th."""
        n_centroids = similarities.shape[1]
        n_imputed = min(n_imputed, n_centroids)
        lists = np.argpartition(similarities, n_centroids - n_imputed, axis=1)[:, -n_imputed:]
        found = np.take_along_axis(similarities, lists, 1)
        order = np.argsort(found, axis=1)[:, -n_probe:]
        floor = found.min(axis=1)
        gains = np.take_along_axis(found, order, 1) - floor[:, None]
        return cls(n_centroids, np.take_along_axis(lists, order, 1), gains, floor)

    def score_by_codes(self, codes: PageCodes) -> Floats:
        """Centroid interaction of every page of a segment: (n,)."""
        gains = np.zeros((len(self.lists), self.n_centroids), np.float32)
        np.put_along_axis(gains, self.lists, self.gains, 1)
        best = np.maximum.reduceat(gains[:, codes.ids], codes.offsets[:-1], axis=1)
        scores: Floats = best.sum(axis=0) + self.floor.sum()
        return scores

    def score_by_postings(self, postings: "Postings", n_pages: int) -> Floats:
        """Return the same scores as score_by_codes, reading only the lists that were probed."""
        total = np.full(n_pages, self.floor.sum(), np.float32)
        best = np.zeros(n_pages, np.float32)
        for lists, gains in zip(self.lists, self.gains, strict=True):
            rows = [postings.rows(number) for number in lists.tolist()]
            # Nearest last: where a page is in several lists, the last assignment stays.
            best[np.concatenate(rows)] = np.repeat(gains, [len(part) for part in rows])
            total += best  # all pages: adding to those touched alone costs more (fancy indices)
            best.fill(0)
        return total


class Postings:
    """FAISS inverted lists centroid -> rows, memory-mapped; never added to (that would abort)."""

    def __init__(self, path: Path) -> None:
        flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
        ivf: Any = faiss.read_index(str(path), flags)
        self._ivf = ivf  # owns the lists
        self._lists = ivf.invlists
        self.n_centroids = int(ivf.nlist)
        self._views: dict[int, Ints] = {}  # making one takes 3 us, a search needs some thousand

    def rows(self, number: int) -> Ints:
        """Rows of the pages that have this centroid; a view into the mapped file."""
        if number not in self._views:
            size = self._lists.list_size(number)
            ids = faiss.rev_swig_ptr(self._lists.get_ids(number), size) if size else NO_ROWS
            self._views[number] = ids
        return self._views[number]


def invert(postings: Postings, n_pages: int) -> PageCodes:
    """Return the sets of centroid ids that the inverted lists were made from."""
    lists = [postings.rows(number) for number in range(postings.n_centroids)]
    ids = np.repeat(np.arange(len(lists), dtype=np.uint16), [len(rows) for rows in lists])
    rows = np.concatenate(lists)
    counts = np.bincount(rows, minlength=n_pages)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return PageCodes(ids[np.argsort(rows, kind="stable")], offsets)


def postings_file(codes: PageCodes, n_centroids: int) -> memoryview:
    """Return the inverted lists of a segment as a FAISS IVF file without vectors or centroids.

    The caller writes it: of a disk that is full FAISS says nothing that could be told apart.
    """
    rows = np.repeat(np.arange(len(codes.offsets) - 1), np.diff(codes.offsets))
    order = np.argsort(codes.ids, kind="stable")
    rows = np.ascontiguousarray(rows[order])
    bounds = np.searchsorted(codes.ids[order], np.arange(n_centroids + 1))
    ivf = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(1), 1, n_centroids, faiss.ScalarQuantizer.QT_0bit
    )
    lists = ivf.invlists
    assert lists is not None
    nothing = np.zeros(1, np.uint8)
    for number, (start, end) in enumerate(_pairs(bounds)):
        if end > start:
            part = np.ascontiguousarray(rows[start:end])
            lists.add_entries(number, len(part), faiss.swig_ptr(part), faiss.swig_ptr(nothing))
    ivf.ntotal, ivf.is_trained = len(rows), True
    data: memoryview = faiss.serialize_index(ivf).data
    return data


def _pairs(bounds: Ints) -> Iterable[tuple[int, int]]:
    return zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
