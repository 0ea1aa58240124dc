"""Retrieval metrics over one query: recall@k and nDCG@k with any of several relevant pages.

A query's relevant pages are alternatives (any of them answers), as in the development files: a hit
is the first of them, and the ideal ranking has one of them at rank 1.
"""

import math
from collections.abc import Collection, Hashable, Sequence


def rank_of_first(ranked: Sequence[Hashable], relevant: Collection[Hashable]) -> int | None:
    """Return the 1-based rank of the first relevant item, None when there is none."""
    return next((rank for rank, item in enumerate(ranked, 1) if item in relevant), None)


def recall_at(ranked: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
    """1 when a relevant item is among the first k, else 0."""
    rank = rank_of_first(ranked[:k], relevant)
    return 0.0 if rank is None else 1.0


def ndcg_at(ranked: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
    """1 / log2(1 + rank) of the first relevant item among the first k: 1 at rank 1."""
    rank = rank_of_first(ranked[:k], relevant)
    return 0.0 if rank is None else 1 / math.log2(1 + rank)
