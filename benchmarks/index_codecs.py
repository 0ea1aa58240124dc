"""What each codec, and pooling, keeps of the exact ranking (`--codecs`)."""

import json
import sys

import numpy as np
from numpy.typing import NDArray

from benchmarks.index_corpus import BLOCK, DIM, N_VECTORS, Corpus, Floats, recall, truth
from index.codec import FilterCodec, Fp16, Int8
from index.maxsim import maxsim_ragged
from index.pooling import pool


def codecs(noise: float, n_pages: int = 1000, n_queries: int = 40) -> list[object]:
    """Recall@10 of ranking all pages by each codec's vectors, and of its top 50."""
    corpus = Corpus(noise)
    pages = np.concatenate([corpus.block(first) for first in range(0, n_pages, BLOCK)])
    queries = corpus.queries(n_queries, n_pages)
    exact = truth(corpus, queries, n_pages)
    flat = pages.reshape(-1, DIM)
    rows: list[object] = []

    def note(name: str, per_page: float, vectors: Floats, lengths: NDArray[np.int64]) -> None:
        starts = np.cumsum(lengths) - lengths
        scores = np.stack([maxsim_ragged(query @ vectors.T, starts) for query in queries])
        ranked = np.argsort(-scores, axis=1, kind="stable").tolist()
        best = np.argsort(-exact, axis=1, kind="stable")[:, :10].tolist()
        in_50 = np.mean([len(set(a[:50]) & set(b)) / 10 for a, b in zip(ranked, best, strict=True)])
        row = {"codec": name, "bytes_per_page": round(per_page)}
        row |= {"recall_at_10": round(recall(ranked, exact), 3), "in_top_50": round(in_50, 3)}
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)

    whole = np.full(n_pages, N_VECTORS)
    for name, codec in (("fp16", Fp16(DIM)), ("int8", Int8(DIM))):
        decoded = codec.decode(codec.encode(flat))
        note(name, N_VECTORS * codec.record_bytes, decoded, whole)
    for name in ("rabitq", "pq"):
        bits = FilterCodec(name, DIM)
        bits.train(flat[:: max(1, len(flat) // 20_000)])
        note(name, N_VECTORS * bits.record_bytes, bits.decode(bits.encode(flat)), whole)
    for factor in (2, 3, 4):
        pooled = [pool(page, factor).vectors for page in pages]
        stored = Int8(DIM).decode(Int8(DIM).encode(np.concatenate(pooled)))
        lengths = np.array([len(page) for page in pooled])
        note(f"int8, pool {factor}", float(lengths.mean()) * 130, stored, lengths)
    return rows
