"""Which pages deserve an exact score: centroids and the pages near them (PLAID, arXiv:2205.09707).

FAISS clusters a sample of vectors (spherical k-means); a page is known by the set of centroids its
vectors are nearest to. A query vector scores a page by the best centroid in the page's set: only
the nearest `n_probe` centroids are looked up, and a page that has none of them is given the score
of the last one looked up, an upper bound of what its centroids can reach (as XTR imputes,
2304.01982). Q query vectors, C centroids, n pages of a segment.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from index.records import Floats
from index.threads import faiss_threads

Ints = NDArray[np.int64]

HNSW_CENTROIDS = 8192  # from here a graph finds the nearest one: 3.3 ms a page against 12.8 (16 k)
POINTS_PER_CENTROID = 48  # k-means needs no more, and every point costs time and memory
ITERATIONS = 8
MAX_CENTROIDS = 16384  # ids are uint16


def suitable_centroids(n_vectors: int) -> int:
    """Centroids for so many vectors: a power of two near 2.56 sqrt(n); 4096 for 20 k pages."""
    wanted = 2 ** round(np.log2(max(1.0, 2.56 * np.sqrt(n_vectors))))
    return int(min(max(wanted, 16), MAX_CENTROIDS))


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


class Codebook:
    """Centroids of one version, and which of them is nearest to a vector."""

    def __init__(self, version: int, quantizer: faiss.Index) -> None:
        self.version = version
        self._quantizer = quantizer
        self.n_centroids = int(quantizer.ntotal)
        self.centroids: Floats = quantizer.reconstruct_n(0, self.n_centroids)  # (C, D)

    @classmethod
    def train(cls, version: int, sample: Floats, n_centroids: int, seed: int = 0) -> Self:
        """Cluster a sample (n, D) of unit vectors into unit centroids."""
        n_centroids = min(n_centroids, len(sample))
        kmeans = faiss.Kmeans(
            sample.shape[1],
            n_centroids,
            niter=ITERATIONS,
            spherical=True,
            seed=seed,
            min_points_per_centroid=1,
            max_points_per_centroid=POINTS_PER_CENTROID,
        )
        with faiss_threads(len(sample)):
            kmeans.train(np.ascontiguousarray(sample, np.float32))
        quantizer: faiss.Index
        if n_centroids >= HNSW_CENTROIDS:
            graph = faiss.IndexHNSWFlat(sample.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
            graph.hnsw.efSearch = 64
            quantizer = graph
        else:
            quantizer = faiss.IndexFlatIP(sample.shape[1])
        with faiss_threads(n_centroids):
            quantizer.add(kmeans.centroids)
        return cls(version, quantizer)

    @classmethod
    def load(cls, version: int, data: bytes) -> Self:
        """Read what save() wrote; the caller has checked the bytes."""
        return cls(version, faiss.deserialize_index(np.frombuffer(data, np.uint8)))

    def save(self) -> bytes:
        """Serialize for codebook-N.faiss."""
        data: bytes = faiss.serialize_index(self._quantizer).tobytes()
        return data

    def page_codes(self, vectors: Floats) -> NDArray[np.uint16]:
        """Return the sorted set of centroids nearest to the vectors (P, D) of a page."""
        with faiss_threads(len(vectors)):
            _, nearest = self._quantizer.search(np.ascontiguousarray(vectors), 1)
        return np.unique(nearest).astype(np.uint16)

    def probe(self, query: Floats, n_probe: int) -> "Probe":
        """Find the nearest centroids of every query vector (Q, D)."""
        similarities = query @ self.centroids.T  # (Q, C)
        n_probe = min(n_probe, self.n_centroids)
        lists = np.argpartition(-similarities, n_probe - 1, axis=1)[:, :n_probe]
        return Probe(similarities, lists, np.take_along_axis(similarities, lists, 1).min(axis=1))


@dataclass(frozen=True)
class Probe:
    """A query seen from the centroids."""

    similarities: Floats  # (Q, C)
    lists: Ints  # (Q, n_probe) nearest centroids, in no order
    floor: Floats  # (Q,) similarity of the farthest of them

    def score_by_codes(self, codes: PageCodes) -> Floats:
        """Centroid interaction of every page of a segment: (n,)."""
        gains = np.maximum(self.similarities - self.floor[:, None], 0)  # (Q, C)
        best = np.maximum.reduceat(gains[:, codes.ids], codes.offsets[:-1], axis=1)
        scores: Floats = best.sum(axis=0) + self.floor.sum()
        return scores

    def score_by_postings(self, postings: "Postings", n_pages: int) -> Floats:
        """Return the same scores as score_by_codes, reading only the lists that were probed."""
        total = np.full(n_pages, self.floor.sum(), np.float32)
        best = np.zeros(n_pages, np.float32)
        for similarities, lists, floor in zip(
            self.similarities, self.lists, self.floor, strict=True
        ):
            # Nearest last: where a page is in several lists, the last assignment stays.
            ordered = lists[np.argsort(similarities[lists])]
            rows = [postings.rows(int(number)) for number in ordered]
            touched = np.concatenate(rows)
            best[touched] = np.repeat(similarities[ordered] - floor, [len(r) for r in rows])
            # A row that occurs twice is read once and written twice with the same sum.
            total[touched] += best[touched]
            best[touched] = 0
        return total


class Postings:
    """FAISS inverted lists centroid -> rows, memory-mapped; never added to (that would abort)."""

    def __init__(self, path: Path) -> None:
        flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
        ivf: Any = faiss.read_index(str(path), flags)
        self._ivf = ivf  # owns the lists
        self._lists = ivf.invlists

    def rows(self, number: int) -> Ints:
        """Rows of the pages that have this centroid; a view into the mapped file."""
        size = self._lists.list_size(number)
        if not size:
            return np.zeros(0, np.int64)
        rows: Ints = faiss.rev_swig_ptr(self._lists.get_ids(number), size)
        return rows


def write_postings(path: Path, codes: PageCodes, n_centroids: int) -> None:
    """Write the inverted lists of a segment as a FAISS IVF file without vectors or centroids."""
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
    faiss.write_index(ivf, str(path))


def _pairs(bounds: Ints) -> Iterable[tuple[int, int]]:
    return zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
