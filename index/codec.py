"""Compress page vectors into fixed-size records and compare queries with them.

A record is one vector: `fp16` 2 bytes a component; `int8` one byte a component and an fp16 scale.
Final scores never come from less than int8: 4-bit codes kept 0.915 of the exact top 10, 2-bit
0.785, 1-bit 0.54 to 0.70 (20 k pages, benchmarks/index.py codecs). Those (`rabitq`, `pq`) may only
filter: FilterCodec.
"""

from dataclasses import dataclass
from typing import Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from index.records import Codec, Floats
from index.threads import faiss_threads

Bytes = NDArray[np.uint8]

FP16_TINY = np.float16(6e-8)  # smallest positive: a zero vector keeps a scale it can be divided by


class StoreCodec(Protocol):
    """How vectors lie on disk."""

    @property
    def dim(self) -> int:
        """Components of a vector."""

    @property
    def record_bytes(self) -> int:
        """Bytes a vector."""

    def encode(self, vectors: Floats) -> Bytes:
        """(n, dim) float32 -> (n, record_bytes) uint8."""

    def decode(self, records: Bytes) -> Floats:
        """(n, record_bytes) uint8 -> (n, dim) float32."""

    def similarities(self, query: Floats, records: Bytes) -> Floats:
        """(Q, dim) against (n, record_bytes): (Q, n) float32 dot products with decode(records)."""


@dataclass(frozen=True)
class Fp16:
    """Half precision; error per component at most 2^-11 of its size."""

    dim: int

    @property
    def record_bytes(self) -> int:
        """Two bytes a component."""
        return 2 * self.dim

    def encode(self, vectors: Floats) -> Bytes:
        """See StoreCodec."""
        return np.ascontiguousarray(vectors, np.float16).view(np.uint8)

    def decode(self, records: Bytes) -> Floats:
        """See StoreCodec."""
        return np.ascontiguousarray(records).view(np.float16).astype(np.float32)

    def similarities(self, query: Floats, records: Bytes) -> Floats:
        """See StoreCodec."""
        return query @ self.decode(records).T


@dataclass(frozen=True)
class Int8:
    """Symmetric int8 with one fp16 scale a vector: 130 bytes at 128 dimensions.

    Error per component at most scale / 2, where scale = max|x| / 127 rounded up to fp16.
    """

    dim: int

    @property
    def record_bytes(self) -> int:
        """One byte a component and two for the scale."""
        return self.dim + 2

    def encode(self, vectors: Floats) -> Bytes:
        """See StoreCodec."""
        scale = (np.abs(vectors).max(axis=1) / 127).astype(np.float16)
        # Rounded to nearest, the scale may be too small for the largest component: next one up.
        scale = np.maximum(np.nextafter(scale, np.float16(np.inf)), FP16_TINY)
        records = np.empty((len(vectors), self.record_bytes), np.uint8)
        levels = np.rint(vectors / scale.astype(np.float32)[:, None])
        records[:, : self.dim] = levels.astype(np.int8).view(np.uint8)
        records[:, self.dim :] = scale[:, None].view(np.uint8)
        return records

    def _parts(self, records: Bytes) -> tuple[Floats, Floats]:
        levels = records[:, : self.dim].view(np.int8).astype(np.float32)  # (n, dim)
        scale = records[:, self.dim :].view(np.float16)[:, 0]  # a copy takes 3 times as long
        return levels, scale.astype(np.float32)

    def decode(self, records: Bytes) -> Floats:
        """See StoreCodec."""
        levels, scale = self._parts(records)
        return levels * scale[:, None]

    def similarities(self, query: Floats, records: Bytes) -> Floats:
        """See StoreCodec; scaling the (Q, n) products is cheaper than the (n, dim) levels."""
        levels, scale = self._parts(records)
        products = query @ levels.T  # (Q, n)
        products *= scale
        return products


def store_codec(name: Codec, dim: int) -> StoreCodec:
    """Build the codec a page index stores its vectors with."""
    return Fp16(dim) if name == "fp16" else Int8(dim)


class FilterCodec:
    """Few bits a vector by FAISS: `rabitq` (1 bit a component) or `pq` (a byte for 4 components).

    For filtering, and for measuring what compression costs; never for final scores.
    """

    FACTORY = {"rabitq": "RaBitQ", "pq": "PQ32x8"}

    def __init__(self, name: str, dim: int) -> None:
        self.dim = dim
        self._codes = faiss.index_factory(dim, self.FACTORY[name], faiss.METRIC_INNER_PRODUCT)

    @property
    def record_bytes(self) -> int:
        """Bytes a vector."""
        return int(self._codes.sa_code_size())

    def train(self, sample: Floats) -> None:
        """Fit to a sample of vectors (n, dim)."""
        with faiss_threads(len(sample)):
            self._codes.train(np.ascontiguousarray(sample, np.float32))

    def encode(self, vectors: Floats) -> Bytes:
        """(n, dim) float32 -> (n, record_bytes) uint8."""
        with faiss_threads(len(vectors)):
            codes: Bytes = self._codes.sa_encode(np.ascontiguousarray(vectors, np.float32))
        return codes

    def decode(self, records: Bytes) -> Floats:
        """(n, record_bytes) uint8 -> (n, dim) float32."""
        vectors: Floats = self._codes.sa_decode(np.ascontiguousarray(records))
        return vectors
