"""What was added since the last commit: pages, failures, finished documents.

Kept in memory until the commit succeeds, so that a full disk loses nothing of it.
"""

import zlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from index.codec import Bytes, StoreCodec
from index.errors import ShapeMismatch
from index.pooling import pool
from index.records import PageInput, PatchGrid, TextClass, VectorSettings

MOST_VECTORS = 2**16  # of a page: pooling numbers them in 16 bits


@dataclass(frozen=True)
class BufferedPage:
    """A page ready to be written."""

    content: int
    number: int
    records: Bytes
    grid: PatchGrid
    cells: bytes
    text: str
    text_class: TextClass
    thumbnail: bytes | None
    read: str


@dataclass
class Buffer:
    """Changes that wait for commit()."""

    pages: dict[tuple[int, int], BufferedPage] = field(default_factory=dict)
    failures: dict[tuple[int, int], str] = field(default_factory=dict)
    texts: dict[tuple[str, int], tuple[str, TextClass]] = field(default_factory=dict)
    finished: dict[str, str | None] = field(default_factory=dict)  # name -> language

    def __bool__(self) -> bool:
        return bool(self.pages or self.failures or self.texts or self.finished)

    def numbers(self, content: int) -> set[int]:
        """Pages of a content that wait."""
        return {number for owner, number in self.pages if owner == content}


def prepare(
    content: int, page: PageInput, settings: VectorSettings, codec: StoreCodec
) -> BufferedPage:
    """Check, pool and compress a page."""
    vectors = np.ascontiguousarray(page.vectors, np.float32)
    if vectors.ndim != 2 or not len(vectors) or vectors.shape[1] != settings.dim:
        raise ShapeMismatch(
            f"page {page.number}: vectors of shape {vectors.shape}; (n, {settings.dim}) with "
            "n >= 1 is wanted"
        )
    if not np.isfinite(vectors).all():
        raise ShapeMismatch(f"page {page.number}: vectors hold NaN or infinity")
    cells = np.asarray(page.grid.cells, np.int32)
    if len(cells) != len(vectors) or cells.max() >= page.grid.n_cells:
        raise ShapeMismatch(
            f"page {page.number}: {len(cells)} cells of a {page.grid.rows} x {page.grid.cols} "
            f"grid for {len(vectors)} vectors; one cell a vector is wanted"
        )
    if len(vectors) > MOST_VECTORS:
        raise ShapeMismatch(
            f"page {page.number}: {len(vectors)} vectors; {MOST_VECTORS} are the most"
        )
    pooled = pool(vectors, settings.pool_factor, cells < 0)
    return BufferedPage(
        content=content,
        number=page.number,
        records=codec.encode(pooled.vectors),
        grid=page.grid,
        cells=pack_cells(cells, pooled.owners),
        text=page.text,
        text_class=page.text_class,
        thumbnail=page.thumbnail,
        read=page.read,
    )


def pack_cells(cells: NDArray[np.int32], owners: NDArray[np.uint16]) -> bytes:
    """Compress the cell of every original vector and the stored vector it went into.

    Differences of neighbours are mostly 1, which zlib packs to almost nothing.
    """
    steps = np.stack([cells, owners.astype(np.int32)])
    steps = np.diff(steps, axis=1, prepend=0).astype("<i4")
    return zlib.compress(steps.tobytes())


def unpack_cells(data: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Reverse pack_cells: (n,) cells and (n,) owners."""
    steps = np.frombuffer(zlib.decompress(data), "<i4").reshape(2, -1)
    cells, owners = np.cumsum(steps, axis=1)
    return cells, owners
