"""Centroids: which of them is nearest to a vector, and what they leave of a page.

FAISS clusters a sample of vectors (spherical k-means). n vectors, C centroids, D dimensions.
"""

from functools import cached_property
from typing import Self

import faiss
import numpy as np
from numpy.typing import NDArray

from index.candidates import Ints, Probe
from index.records import Floats
from index.threads import faiss_threads, workers

POINTS_PER_CENTROID = 48  # k-means needs no more, and every point costs time and memory
ITERATIONS = 8
MAX_CENTROIDS = 16384  # ids are uint16
# Centroids are looked for in the nearest 6 of sqrt(C) groups of them, and the nearest is found for
# 98 % of vectors in 1.2 CPU-ms a page at 16 k (all of them: 8.9; HNSW: 3.3).
GROUPS_TRIED = 6
# A page that has none of the n_probe nearest centroids is given the similarity of the one so many
# times as far down: its best one lies beyond those looked up, not at their end. Of 20 k pages the
# first 200 then hold 0.988 (0.995) of the exact ten by 32 (64) lists, without it 0.863 (0.980).
IMPUTED = 3
BLOCK = 16_384  # vectors that one thread looks up: 8 MB


def suitable_centroids(n_vectors: int) -> int:
    """Centroids for so many vectors: a power of two near 2.56 sqrt(n); 4096 for 20 k pages."""
    wanted = 2 ** round(np.log2(max(1.0, 2.56 * np.sqrt(n_vectors))))
    return int(min(max(wanted, 16), MAX_CENTROIDS))


class Codebook:
    """Centroids of one version."""

    def __init__(self, version: int, centroids: Floats) -> None:
        self.version = version
        self.n_centroids = len(centroids)
        self.centroids = centroids  # (C, D)

    @classmethod
    def train(cls, version: int, sample: Floats, n_centroids: int, seed: int = 0) -> Self:
        """Cluster a sample (n, D) of unit vectors into unit centroids."""
        centroids = _cluster(sample, min(n_centroids, len(sample)), seed)
        return cls(version, centroids.astype(np.float16).astype(np.float32))  # as they are saved

    @classmethod
    def load(cls, version: int, data: bytes) -> Self:
        """Read what save() wrote; the caller has checked the bytes."""
        quantizer = faiss.deserialize_index(np.frombuffer(data, np.uint8))
        return cls(version, quantizer.reconstruct_n(0, quantizer.ntotal))

    def save(self) -> bytes:
        """Serialize for codebook-N.faiss."""
        dim, half = self.centroids.shape[1], faiss.ScalarQuantizer.QT_fp16
        quantizer = faiss.IndexScalarQuantizer(dim, half, faiss.METRIC_INNER_PRODUCT)
        quantizer.add(self.centroids)
        data: bytes = faiss.serialize_index(quantizer).tobytes()
        return data

    @cached_property
    def _groups(self) -> tuple[Floats, list[Ints], list[Floats]]:
        """Clusters of centroids: their middles, the members of each, and these as vectors."""
        middles = _cluster(self.centroids, int(np.sqrt(self.n_centroids)), seed=0)
        owners = np.argmax(self.centroids @ middles.T, axis=1)
        members = [np.flatnonzero(owners == group) for group in range(len(middles))]
        return middles, members, [self.centroids[own] for own in members]

    def nearest(self, vectors: Floats) -> Ints:
        """Return a centroid for every vector (n, D), almost always the nearest: (n,)."""
        middles, members, parts = self._groups
        n_tried = min(GROUPS_TRIED, len(middles))
        tried = np.argpartition(-(vectors @ middles.T), n_tried - 1, axis=1)[:, :n_tried]
        groups = tried.astype(np.uint16).ravel()
        order = np.argsort(groups, kind="stable")
        bounds = np.searchsorted(groups[order], np.arange(len(middles) + 1))
        cosines = np.full(len(groups), -np.inf, np.float32)
        ids = np.zeros(len(groups), np.int64)
        for group, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
            if end > start and len(members[group]):
                at = order[start:end]
                products = vectors[at // n_tried] @ parts[group].T
                best = products.argmax(axis=1)
                cosines[at] = np.take_along_axis(products, best[:, None], 1)[:, 0]
                ids[at] = members[group][best]
        winner = cosines.reshape(-1, n_tried).argmax(axis=1)
        nearest: Ints = ids.reshape(-1, n_tried)[np.arange(len(vectors)), winner]
        return nearest

    def page_codes(self, vectors: Floats, lengths: Ints) -> tuple[list[NDArray[np.uint16]], Floats]:
        """Describe n pages whose vectors lie one after the other, `lengths` of each.

        Returns for each page the centroids its vectors are nearest to (sorted, each once), and
        its residual (n, D), what these centroids miss on average: the mean over them of the mean
        difference of their vectors, so that a hundred margins weigh no more than one line.
        """
        _ = self._groups  # made once, before several threads ask for it
        blocks = [vectors[at : at + BLOCK] for at in range(0, len(vectors), BLOCK)]
        nearest = np.concatenate(list(workers().map(self.nearest, blocks)))
        starts = np.cumsum(lengths) - lengths
        weights = np.empty((len(vectors), 1), np.float32)
        ids = []
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            own, where, counts = np.unique(
                nearest[start : start + length], return_inverse=True, return_counts=True
            )
            weights[start : start + length, 0] = 1 / (counts[where] * len(own))
            ids.append(own.astype(np.uint16))
        residuals = np.add.reduceat((vectors - self.centroids[nearest]) * weights, starts, axis=0)
        return ids, residuals

    def probe(self, query: Floats, n_probe: int) -> Probe:
        """Find the nearest centroids of every query vector (Q, D)."""
        return Probe.of(query @ self.centroids.T, n_probe, IMPUTED * n_probe)


def _cluster(sample: Floats, n_centroids: int, seed: int) -> Floats:
    """Spherical k-means: (n_centroids, D) unit vectors."""
    clustering = faiss.Clustering(sample.shape[1], n_centroids)
    clustering.niter, clustering.seed, clustering.spherical = ITERATIONS, seed, True
    clustering.min_points_per_centroid = 1
    clustering.max_points_per_centroid = POINTS_PER_CENTROID
    assigned = faiss.IndexFlatIP(sample.shape[1])
    with faiss_threads(len(sample)):
        clustering.train(np.ascontiguousarray(sample, np.float32), assigned)
    # Read from the index that clustering leaves its centroids in: `faiss.Kmeans` reads them through
    # a C++ vector that pymupdf, imported before faiss, has claimed for its own type of that name.
    return np.asarray(assigned.reconstruct_n(0, n_centroids), np.float32)
