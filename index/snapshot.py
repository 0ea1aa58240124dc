"""One state of the index in memory: open segments and which of their pages are shown.

Immutable, so that a search sees one state from its first page to its last whatever is written
meanwhile; and shared by searches until the database says that something has changed.
"""

import logging
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.codebook import Codebook
from index.codec import StoreCodec
from index.database import Database
from index.errors import IndexCorrupt
from index.segment import Segment, SegmentInfo
from index.store import read_checked

Ints = NDArray[np.int64]
log = logging.getLogger(__name__)
HIDDEN = (
    "SELECT content FROM deletions UNION SELECT pending FROM documents d WHERE pending IS NOT NULL"
    " AND NOT EXISTS (SELECT 1 FROM documents o WHERE o.content = d.pending)"
)


@dataclass(frozen=True)
class Place:
    """Where a page's vectors lie."""

    segment: Segment
    row: int


class Snapshot:
    """Segments of one generation."""

    def __init__(
        self,
        generation: int,
        segments: tuple[Segment, ...],
        hidden: Ints,
        deleted: Ints,
        codebooks: dict[int, Codebook],
    ) -> None:
        self.generation, self.segments, self.codebooks = generation, segments, codebooks
        self._hidden, self.deleted = hidden, deleted
        self._shown: dict[str, Ints] = {}

    def rows(self, segment: Segment, allowed: Ints | None) -> Ints:
        """Rows of a segment that may be shown, ascending.

        allowed  contents the filter leaves; None: all that are not hidden
        """
        if allowed is not None:
            return np.flatnonzero(contains(allowed, segment.contents))
        if segment.info.id not in self._shown:
            rows = np.flatnonzero(~contains(self._hidden, segment.contents))
            self._shown[segment.info.id] = rows
        return self._shown[segment.info.id]

    def n_deleted(self, segment: Segment) -> int:
        """Pages of a segment whose content was removed."""
        return int(np.count_nonzero(contains(self.deleted, segment.contents)))

    def place(self, page: int) -> Place | None:
        """Find a page by its id."""
        for segment in self.segments:
            row = int(np.searchsorted(segment.pages, page))
            if row < len(segment.pages) and segment.pages[row] == page:
                return Place(segment, row)
        return None

    def lengths(self, pages: Ints) -> Ints:
        """Vectors of each of these pages, in the order given; all of them are known."""
        found = np.zeros(len(pages), np.int64)
        for segment in self.segments:
            rows = np.minimum(np.searchsorted(segment.pages, pages), len(segment.pages) - 1)
            own = segment.pages[rows] == pages
            found[own] = segment.lengths(rows[own])
        return found

    def group(self, pages: Iterable[int]) -> list[tuple[Segment, Ints]]:
        """Rows of the given pages, by segment, ascending; unknown pages are left out."""
        wanted = np.unique(np.fromiter(pages, np.int64))
        found = []
        for segment in self.segments:
            rows = np.searchsorted(segment.pages, wanted)
            rows = rows[rows < len(segment.pages)]
            rows = np.unique(rows[contains(wanted, segment.pages[rows])])
            if len(rows):
                found.append((segment, rows))
        return found


def contains(members: Ints, values: Ints) -> NDArray[np.bool_]:
    """Tell which values are members: a table look-up, 1 M values in 2 ms."""
    top = int(max(members.max(initial=0), values.max(initial=0)))
    table = np.zeros(top + 1, bool)
    table[members] = True
    return table[values]


def generation_of(sql: sqlite3.Connection) -> int:
    """Counter that grows with every change a snapshot could notice."""
    (value,) = sql.execute("SELECT value FROM settings WHERE key = 'generation'").fetchone()
    return int(value)


def take(folder: Path, database: Database, codec: StoreCodec, before: Snapshot | None) -> Snapshot:
    """Read the present state inside a view; what was open already stays open."""
    generation = generation_of(database.sql)
    if before is not None and before.generation == generation:
        return before
    known = {segment.info.id: segment for segment in before.segments} if before else {}
    infos = [SegmentInfo(*row) for row in database.checked("segments")]  # type: ignore[arg-type]
    segments = tuple(
        known.get(info.id) or Segment(folder, info, codec)
        for info in sorted(infos, key=lambda info: info.id)
    )
    deleted = np.array([row[0] for row in database.checked("deletions")], np.int64)
    hidden = np.array([row[0] for row in database.sql.execute(HIDDEN)], np.int64)
    versions = {info.codebook for info in infos if info.codebook is not None}
    codebooks = dict(before.codebooks) if before else {}
    for version in versions - codebooks.keys():
        try:
            codebooks[version] = load_codebook(folder, database, version)
        except IndexCorrupt as error:
            log.warning("every page is scored, which is slow: %s", error)
    codebooks = {version: book for version, book in codebooks.items() if version in versions}
    return Snapshot(generation, segments, hidden, deleted, codebooks)


def codebook_path(folder: Path, version: int) -> Path:
    """File of a codebook."""
    return folder / f"codebook-{version}.faiss"


def load_codebook(folder: Path, database: Database, version: int) -> Codebook:
    """Read a codebook, checked; raises IndexCorrupt."""
    rows = database.checked("codebooks", "version = ?", (version,))
    if not rows:
        raise IndexCorrupt(f"{database.path}: codebook {version} is not recorded")
    return Codebook.load(version, read_checked(codebook_path(folder, version), str(rows[0][1])))
