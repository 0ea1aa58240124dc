"""Vectors to ranked pages: candidates by centroids, then exact MaxSim over int8 records.

Q query vectors, n pages, N vectors.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from index.candidates import Probe
from index.codec import StoreCodec
from index.maxsim import best_ragged, pair_up
from index.records import DocumentHit, Floats, PageHit, Tuning
from index.segment import Segment
from index.snapshot import Snapshot
from index.threads import workers

T = TypeVar("T")
Ints = NDArray[np.int64]
BLOCK_VECTORS = 4096  # records compared at once: 26 CPU-ms a 1000 pages; 512: 27, 8192: 30
TASK_VECTORS = 4 * BLOCK_VECTORS  # records that one thread reads and compares: 128 pages
# So little is done by the thread that asks: handing it to others costs more than it saves (200
# pages 11.7 CPU-ms instead of 8.6 beside other programs, centroids of 20 k pages 3.9 and 2.9).
FEW_VECTORS = 300 * 128
FEW_PAGES = 50_000
# A page's centroids miss part of it (Codebook.page_codes). Recall@10 of the first 200 of 20 k pages
# went from 0.91 to 1.00 with it, on much noisier ones from 0.65 to 0.95; a weight of 1 helped as
# much there and cost more on 644 real pages (first 100: 0.947 without, 0.931 by 0.75, 0.916 by 1).
RESIDUAL_WEIGHT = 0.75
# Recall@10 of 20 k pages with 4096 centroids is 0.987 by the nearest 48, 64 or 128, 0.982 by 32. Of
# 80 k the best ten are kept to 0.998 by 64 and to 0.995 by 32; by 64 to 0.993 before pages in no
# list were given less (IMPUTED), so half as many do. Of a million pages with 16,384 centroids 128
# keep the recall of 192 (0.985 by 2000 candidates) in 195 CPU-ms instead of 266.
PROBE_SHARE, LEAST_PROBE, MOST_PROBE = 64, 32, 128
# The better the best pages of a larger index, the more others are nearly as good: 300 gave a
# recall@10 of 0.99, 0.98 and 0.955 at 20, 100 and 300 thousand pages, 1000 gave 0.985 at the last.
LEAST_CANDIDATES = 200  # what 2 sqrt(pages) is at 10 k
POOL_FACTOR = 16  # pages by their centroids, for each one that gets an exact score
MOST_REMEMBERED = 20_000  # pages that are all compared; of more only the scores are kept
DECIMALS = 5  # scores that agree so far are ties: float32 sums differ by 1e-6 with their order


@dataclass(frozen=True)
class Ranked:
    """Pages by score: best first, ties by page id."""

    pages: Ints  # (n,)
    scores: NDArray[np.float64]  # (n,)

    def top(self, k: int) -> "Ranked":
        """Keep the first k."""
        return Ranked(self.pages[:k], self.scores[:k])


def rank(pages: Ints, scores: NDArray[np.float64]) -> Ranked:
    """Sort pages by score."""
    rounded = np.round(scores, DECIMALS) + 0.0
    order = np.lexsort((pages, -rounded))
    return Ranked(pages[order], scores[order])


def match_rows(
    segment: Segment, rows: Ints, query: Floats, codec: StoreCodec, *, in_pairs: bool = False
) -> Floats:
    """Best similarity (Q, n) of every query vector in some pages of a segment; rows ascending.

    in_pairs  behind them those of every two neighbouring query vectors, (2Q - 1, n); see pair_up()
    """
    n_query = len(query)
    best = np.empty((2 * n_query - 1 if in_pairs else n_query, len(rows)), np.float32)
    lengths = segment.lengths(rows)
    records, starts = segment.records(rows)
    for block in _split(lengths, BLOCK_VECTORS):
        first, last = starts[block.start], starts[block.stop - 1] + lengths[block.stop - 1]
        similarities = codec.similarities(query, records[first:last])  # (Q, N)
        own = starts[block] - first
        best[:n_query, block] = best_ragged(similarities, own)
        if in_pairs:
            best[n_query:, block] = best_ragged(pair_up(similarities, own), own)
    return best


def _split(lengths: Ints, most: int) -> list[slice]:
    """Cut pages into runs of at most `most` vectors (a longer page stands alone)."""
    ends = np.cumsum(lengths)
    cuts = [0]
    while cuts[-1] < len(lengths):
        done = ends[cuts[-1] - 1] if cuts[-1] else 0
        cuts.append(max(cuts[-1] + 1, int(np.searchsorted(ends, done + most, side="right"))))
    return [slice(a, b) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]


def by_document(hits: tuple[PageHit, ...]) -> tuple[DocumentHit, ...]:
    """Rank documents by their best page, each with its pages in order."""
    pages: dict[str, list[PageHit]] = {}
    for hit in hits:
        pages.setdefault(hit.document, []).append(hit)
    found = [DocumentHit(name, own[0].score, tuple(own)) for name, own in pages.items()]
    return tuple(sorted(found, key=lambda document: -document.score))


class Comparison:
    """The vectors (Q, D) of one question, compared with the pages of a snapshot.

    Reading and comparing a page is what a search spends its time on. It is done once, whatever is
    asked of the page then.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        query: Floats,
        codec: StoreCodec,
        tuning: Tuning,
        *,
        in_pairs: bool = False,
    ) -> None:
        """Compare neighbouring query vectors as well (`in_pairs`), if there are any."""
        self._snapshot, self._query = snapshot, query
        self._codec, self._tuning = codec, tuning
        self._in_pairs = in_pairs and len(query) > 1
        self._pages = np.zeros(0, np.int64)  # compared so far, ascending
        n_best = 2 * len(query) - 1 if self._in_pairs else len(query)
        self._best = np.zeros((n_best, 0), np.float32)

    def rank(self, k: int, allowed: Ints | None, *, exact: bool) -> Ranked:
        """Rank the best k pages among those allowed (contents; None: all that are shown)."""
        shown = [(each, self._snapshot.rows(each, allowed)) for each in self._snapshot.segments]
        rows = [(segment, own) for segment, own in shown if len(own)]
        n_pages = sum(len(own) for _, own in rows)
        if not exact and n_pages > self._tuning.exact_pages:
            rows = self._candidates(rows, max(k, self._n_candidates(n_pages)))
        elif n_pages > MOST_REMEMBERED:
            found = [(pages, _maxsim(best)) for pages, best in self._compare(rows)]
            pages, scores = map(np.concatenate, zip(*found, strict=True))
            return rank(pages, scores).top(k)
        return self.score(rows).top(k)

    def score(self, rows: list[tuple[Segment, Ints]]) -> Ranked:
        """Exact scores of these pages."""
        pages, best = self.matches(rows)
        return rank(pages, _maxsim(best))

    def matches(
        self, rows: list[tuple[Segment, Ints]], *, in_pairs: bool = False
    ) -> tuple[Ints, Floats]:
        """Return these pages (n,), ascending, and each query vector's best match there (Q, n).

        in_pairs  those of neighbouring query vectors, (Q - 1, n), if there are any
        """
        new = [(s, own[~np.isin(s.pages[own], self._pages)]) for s, own in rows]
        found = [*self._compare([(segment, own) for segment, own in new if len(own)])]
        pages = np.concatenate([self._pages, *(pages for pages, _ in found)])
        order = np.argsort(pages)
        self._pages = pages[order]
        self._best = np.concatenate([self._best, *(best for _, best in found)], axis=1)[:, order]
        wanted = np.concatenate([np.zeros(0, np.int64), *(s.pages[own] for s, own in rows)])
        wanted.sort()
        first, n_query = np.searchsorted(self._pages, wanted), len(self._query)
        kind = slice(n_query, None) if in_pairs and self._in_pairs else slice(n_query)
        return wanted, self._best[kind, first]

    def sample(self, n_pages: int, *, in_pairs: bool = False) -> tuple[Ints, Floats]:
        """Return pages (n,) from all over the index, the same for all queries, and their matches.

        As matches() does.
        """
        shown = [(each, self._snapshot.rows(each, None)) for each in self._snapshot.segments]
        step = max(1, sum(len(rows) for _, rows in shown) // n_pages)
        rows = [(s, own[::step]) for s, own in shown if len(own)]
        return self.matches(rows, in_pairs=in_pairs)

    def _compare(self, rows: list[tuple[Segment, Ints]]) -> Iterable[tuple[Ints, Floats]]:
        """Yield pages and their matches, some of the rows at a time."""
        parts = _tasks(rows)
        found = _over(
            parts,
            lambda s, own: match_rows(s, own, self._query, self._codec, in_pairs=self._in_pairs),
            is_little=_are_few(parts),
        )
        return zip((segment.pages[own] for segment, own in parts), found, strict=True)

    def _candidates(
        self, rows: list[tuple[Segment, Ints]], n_best: int
    ) -> list[tuple[Segment, Ints]]:
        """Choose the n_best pages by their centroids, and every page that has none yet."""
        probes = {
            version: codebook.probe(self._query, self._n_probe(codebook.n_centroids))
            for version, codebook in self._snapshot.codebooks.items()
        }
        known = [(segment, part) for segment, part in rows if segment.info.codebook in probes]
        unknown = [(segment, part) for segment, part in rows if segment.info.codebook not in probes]
        if not known:
            return unknown
        is_small = sum(segment.info.n_pages for segment, _ in known) <= FEW_PAGES
        found = _over(known, lambda s, own: _centroid_scores(s, own, probes), is_little=is_small)
        scores = np.concatenate(list(found))
        pool = _largest(scores, POOL_FACTOR * n_best)
        known, scores = _kept(known, pool), scores[pool]
        total = self._query.sum(axis=0)
        scores += np.concatenate([self._residual_scores(each, total) for each in known])
        return unknown + _kept(known, _largest(scores, n_best))

    def _n_candidates(self, n_pages: int) -> int:
        return self._tuning.n_candidates or max(LEAST_CANDIDATES, round(2 * np.sqrt(n_pages)))

    def _n_probe(self, n_centroids: int) -> int:
        by_share = min(n_centroids // PROBE_SHARE, MOST_PROBE)
        return self._tuning.n_probe or max(LEAST_PROBE, by_share)

    def _residual_scores(self, at: tuple[Segment, Ints], total: Floats) -> Floats:
        """Estimate what the centroid scores of pages miss, from the sum of the query vectors."""
        segment, rows = at
        if segment.residuals is None:
            return np.zeros(len(rows), np.float32)
        products: Floats = self._codec.similarities(total[None], segment.residuals[rows])[0]
        products *= RESIDUAL_WEIGHT
        return products


def _maxsim(best: Floats) -> NDArray[np.float64]:
    """Sum the best matches (Q, n) of a question: (n,)."""
    scores: NDArray[np.float64] = best.sum(axis=0, dtype=np.float64)
    return scores


def _tasks(rows: list[tuple[Segment, Ints]]) -> list[tuple[Segment, Ints]]:
    """Cut rows into what one thread reads and compares at a time."""
    return [
        (segment, shown[cut])
        for segment, shown in rows
        for cut in _split(segment.lengths(shown), TASK_VECTORS)
    ]


def _are_few(parts: list[tuple[Segment, Ints]]) -> bool:
    return sum(int(segment.lengths(rows).sum()) for segment, rows in parts) <= FEW_VECTORS


def _over(
    parts: list[tuple[Segment, Ints]], job: Callable[[Segment, Ints], T], *, is_little: bool
) -> Iterable[T]:
    """Do a job for every part, in order; by several threads unless there is little to do."""
    others = workers()  # asked for in any case: from then on BLAS uses one thread
    segments, rows = [segment for segment, _ in parts], [own for _, own in parts]
    return map(job, segments, rows) if is_little else others.map(job, segments, rows)


def _kept(rows: list[tuple[Segment, Ints]], marks: NDArray[np.bool_]) -> list[tuple[Segment, Ints]]:
    """Leave the marked rows; segments without any are left out."""
    ends = np.cumsum([len(part) for _, part in rows])[:-1]
    kept = [
        (segment, part[keep])
        for (segment, part), keep in zip(rows, np.split(marks, ends), strict=True)
    ]
    return [(segment, part) for segment, part in kept if len(part)]


def _largest(scores: Floats, n: int) -> NDArray[np.bool_]:
    """Mark the n largest scores; of equals the first ones."""
    if len(scores) <= n:
        return np.ones(len(scores), bool)
    bar = np.partition(scores, len(scores) - n)[len(scores) - n]
    marked: NDArray[np.bool_] = scores > bar
    marked[np.flatnonzero(scores == bar)[: n - np.count_nonzero(marked)]] = True
    return marked


def _centroid_scores(segment: Segment, rows: Ints, probes: dict[int, Probe]) -> Floats:
    """Centroid interaction of the shown pages of a segment."""
    assert segment.info.codebook is not None
    probe = probes[segment.info.codebook]
    if segment.postings is not None:
        scores = probe.score_by_postings(segment.postings, segment.info.n_pages)
    else:
        scores = probe.score_by_codes(segment.codes)
    return scores[rows]
