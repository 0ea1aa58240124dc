"""What goes into the index and what comes out of it: frozen records, no behaviour.

A **document** is a name (path below the ingested folder, with `/`); its **content** is known by
the sha256 of the file, so two names may share one content, stored once. A **page** is 1-based.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

Codec = Literal["fp16", "int8"]
Mode = Literal["hybrid", "visual", "text"]
# thin: only part of what the page says (a footer under a picture, the good lines of a broken text
# layer); searched, and to be completed by OCR
# read: completed by what a small model read off the page's image, not surely; OCR replaces it
TextClass = Literal["healthy", "thin", "missing", "garbage", "ocr", "read"]
# new: never seen, or changed, or damaged; partial: some pages are stored; complete: every page is
# stored; damaged: complete but for pages that failed and are to be tried again; failed: the file
# as a whole could not be read
Status = Literal["new", "partial", "complete", "damaged", "failed"]

FORMAT_VERSION = 3


@dataclass(frozen=True)
class VectorSettings:
    """Everything that shapes stored vectors; kept in the index and compared at every opening."""

    model: str  # sha256 of the model folder's model.json, or another stable digest of the weights
    model_name: str  # for messages only, never compared
    dpi: int
    max_visual_tokens: int
    pool_factor: int = 1  # vectors per page are divided by this (2409.14683); 1 = none
    codec: Codec = "int8"
    dim: int = 128
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class Tuning:
    """What shapes speed and upkeep, not vectors; may differ from one opening to the next."""

    exact_pages: int = 3000  # up to so many pages (after the filter) every one is scored
    n_probe: int | None = None  # centroids looked up for a query vector; None: one in 64, <= 128
    n_candidates: int | None = None  # pages that get an exact score; None: 2 sqrt(pages)
    train_pages: int = 4096  # from here on there is a codebook
    retrain_growth: int = 4  # a new one when the index has grown so many times
    merge_factor: int = 10  # segments of one size class that become one
    merge_now_pages: int = 10_000  # larger merges wait for maintain()
    max_segment_pages: int = 262_144  # 4.3 GB at 128 vectors a page
    dead_share: float = 0.2  # a segment with more removed pages than this is rewritten


@dataclass(frozen=True)
class DocumentInput:
    """A document about to be read."""

    name: str  # path below the ingested folder, with "/"
    sha256: str  # of the file's bytes
    n_pages: int
    source: str  # absolute path it was read from, so that it can be read again to mend
    size_bytes: int
    modified: float  # seconds since the epoch, as in os.stat
    date: str | None = None  # ISO "YYYY-MM-DD"; None: the local day of `modified`
    language: str | None = None  # "en", "ja", …; may be set later by finish_document
    title: str = ""  # its own; found as words of its name are, with every page


@dataclass(frozen=True)
class Resume:
    """What is already stored of a document's content, so that reading goes on where it stopped."""

    status: Status
    done: frozenset[int]  # page numbers that are committed for this content under these settings
    failed: dict[int, str] = field(default_factory=dict)  # page -> reason, to be tried again

    @property
    def unchanged(self) -> bool:
        """Nothing to do: every page of this content is stored."""
        return self.status == "complete"


@dataclass(frozen=True)
class PatchGrid:
    """Where the vectors of a page sit on the page, for heatmaps.

    rows, cols  size of the page in cells (one visual token each)
    cells       (n,) int32, one per vector given to add_page: row * cols + column of its cell
                (where views of the page overlap, a cell has several vectors),
                or -1 for a vector that is no place on the page (prompt tokens). Skipped (blank)
                cells simply do not occur. Cells of an overview are counted on from rows * cols.
    overview    rows and columns of a smaller view of the whole page; (0, 0): it has none
    """

    rows: int
    cols: int
    cells: NDArray[np.int32]
    overview: tuple[int, int] = (0, 0)

    @property
    def n_cells(self) -> int:
        """How many cells there are, the overview's with them."""
        return self.rows * self.cols + self.overview[0] * self.overview[1]

    @classmethod
    def full(cls, rows: int, cols: int) -> "PatchGrid":
        """Every cell kept, in reading order."""
        return cls(rows, cols, np.arange(rows * cols, dtype=np.int32))

    @classmethod
    def kept(cls, mask: NDArray[np.bool_]) -> "PatchGrid":
        """Keep the cells where `mask` (rows, cols) is true, in reading order."""
        rows, cols = mask.shape
        return cls(rows, cols, np.flatnonzero(mask).astype(np.int32))


@dataclass(frozen=True)
class PageInput:
    """One page, read and encoded.

    vectors    (n, dim) float32, rows of unit length, n >= 1 and different from page to page
    thumbnail  bytes of a small image of the page (WebP), or None
    read       what the model itself reads on its image; part of what it is found by in mode visual
    """

    number: int  # 1-based
    vectors: Floats
    grid: PatchGrid
    text: str = ""
    text_class: TextClass = "missing"
    thumbnail: bytes | None = None
    read: str = ""


@dataclass(frozen=True)
class DocumentRecord:
    """A document as `list` shows it."""

    name: str
    sha256: str | None
    source: str
    size_bytes: int
    modified: float
    date: str | None
    language: str | None
    n_pages: int
    n_pages_stored: int
    status: Status
    reason: str | None  # why nothing of the document, or of its newest version, could be read
    same_as: tuple[str, ...]  # other names of the same content
    outdated: str | None = None  # why what is stored is an older version of the file
    unfinished: bool = False  # its first reading was not ended: nothing older is stored of it


@dataclass(frozen=True)
class Failure:
    """Something that could not be read; tried again at the next ingest."""

    document: str
    page: int | None  # None: the whole document
    reason: str


@dataclass(frozen=True)
class PageRecord:
    """What is stored of one page beside its vectors."""

    document: str
    number: int
    n_vectors: int
    text: str
    text_class: TextClass
    thumbnail: str | None  # path of the image file
    rows: int
    cols: int


@dataclass(frozen=True)
class Filters:
    """Which documents a search may look at; applied before ranking. Empty: all of them."""

    document: str | None = None  # glob over names: "reports/*2024*.pdf"; * also crosses "/"
    folder: str | None = None  # this folder and everything below it
    date_from: str | None = None  # ISO dates, both ends included
    date_to: str | None = None
    language: str | None = None  # those whose language is not known stay in
    names: tuple[str, ...] | None = None  # exactly these


@dataclass(frozen=True)
class PageHit:
    """One ranked page.

    score is MaxSim (sum over query vectors, in [-Q, Q]) for mode visual, or with_reading()'s 0 to 1
    where the fusion asks for it; BM25 (>= 0) for text; and for hybrid the calibrated probability
    that the page answers the question, in [0, 1].
    """

    document: str
    page: int
    score: float
    page_id: int  # stable for as long as the page is stored; never used for another page
    visual: float | None = None  # MaxSim, where it was computed
    text: float | None = None  # BM25, where it was computed
    same_as: tuple[str, ...] = ()  # other names of the same content


@dataclass(frozen=True)
class DocumentHit:
    """One ranked document: its best page stands for it."""

    document: str
    score: float
    pages: tuple[PageHit, ...]


@dataclass(frozen=True)
class PatchScores:
    """Similarity of every query vector with every cell of a page, for heatmaps.

    scores  (Q, rows, cols) float32 cosine; NaN where the cell was blank and skipped, and the
            overview's that lies over it was, too
    """

    document: str
    page: int
    scores: Floats


@dataclass(frozen=True)
class Damage:
    """One damaged or missing file (path below the index folder), or database row."""

    path: str
    reason: str


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found."""

    n_files: int
    n_bytes: int
    damage: tuple[Damage, ...]
    documents: tuple[str, ...]  # to be read again; mend() makes the next ingest do so
    hopeless: bool = False  # the database is damaged: nothing but a new index helps

    @property
    def mendable(self) -> bool:
        """Something is damaged, and mend() helps."""
        return not (self.clean or self.hopeless)

    @property
    def clean(self) -> bool:
        """Nothing is damaged."""
        return not self.damage


@dataclass(frozen=True)
class IndexStats:
    """Counts and sizes; bytes by part: vectors, codes, images, database, total, per_page."""

    documents: int
    pages: int
    vectors: int
    segments: int
    failed_pages: int
    failed_documents: int
    dead_pages: int  # removed, their space not yet reclaimed
    codebook: int | None  # number of centroids, None while every search is exact
    bytes: dict[str, int]
    settings: VectorSettings
