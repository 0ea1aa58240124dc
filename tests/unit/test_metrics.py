"""Recall and nDCG on rankings a person can check."""

import math

from benchmarks.metrics import ndcg_at, rank_of_first, recall_at


def test_rank_recall_and_ndcg():
    ranked, relevant = ["a", "b", "c", "d"], {"c", "x"}
    assert rank_of_first(ranked, relevant) == 3
    assert rank_of_first(ranked, {"z"}) is None
    assert [recall_at(ranked, relevant, k) for k in (1, 2, 3, 5)] == [0, 0, 1, 1]
    assert ndcg_at(ranked, relevant, 5) == 1 / math.log2(4) == 0.5
    assert ndcg_at(ranked, relevant, 2) == 0
    assert ndcg_at(ranked, {"a", "b"}, 5) == 1  # alternatives: one at rank 1 is ideal
