"""What is still whole in a segment whose own description of itself is not.

A page counts as whole only where two witnesses agree. Its bytes: their CRC-32, or the digest of the
whole file. Where they begin: that CRC, or offsets with the right digest, or lengths from the
database that add up to the file. Whose they are: page ids with the right digest, or those that the
database misses, where their number, contents and lengths are those of the segment. n pages.
"""

import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path

import numpy as np

from index.errors import IndexCorrupt
from index.segment import Ints, SegmentInfo
from index.store import reading, sha256_of

# Read from the text, which may be cut short or have a damaged byte elsewhere.
IN_MANIFEST = re.compile(rb'"([a-z_.]+)":\s*\{\s*"bytes":\s*\d+,\s*"sha256":\s*"([0-9a-f]{64})"')


@dataclass(frozen=True)
class Recorded:
    """What the database knows of a page."""

    content: int
    n_vectors: int


@dataclass(frozen=True)
class Whole:
    """Where a page that is whole lies in vectors.bin."""

    content: int
    first_byte: int
    n_bytes: int


class Wreck:
    """A damaged segment."""

    def __init__(self, folder: Path, info: SegmentInfo, record_bytes: int) -> None:
        self._path, self._info, self._width = folder / "segments" / info.id, info, record_bytes
        self._sure = set(self._intact())
        n = info.n_pages
        self._pages, self._contents = self._array("pages.npy", n), self._array("contents.npy", n)
        self._offsets = self._array("offsets.npy", n + 1)
        self._crc = self._array("crc.npy", n, np.uint32)

    @property
    def knows_its_pages(self) -> bool:
        """Tell whether the page ids are those that were written."""
        return "pages.npy" in self._sure

    def whole_pages(self, lost: dict[int, Recorded], *, alone: bool) -> dict[int, Whole]:
        """Find pages (by id) of those that no other segment has; none where that is not sure.

        alone  no other segment is damaged: what is lost was here
        """
        ids = self._ids(lost, alone)
        if ids is None:
            return {}
        return dict(self._confirmed(ids, lost))

    def _intact(self) -> Iterator[str]:
        """Files whose digest is in the manifest: no damage of either makes them agree."""
        for name, digest in IN_MANIFEST.findall(self._bytes("manifest.json")):
            file = self._path / name.decode()
            try:
                with reading(file):
                    is_intact = sha256_of(file) == digest.decode()
            except IndexCorrupt:
                continue
            if is_intact:
                yield file.name

    def _bytes(self, name: str) -> bytes:
        try:
            with reading(self._path / name):
                return (self._path / name).read_bytes()
        except IndexCorrupt:
            return b""

    def _array(self, name: str, length: int, kind: type[np.generic] = np.int64) -> Ints:
        """Read numbers whatever the header says; -1 where the file is too short."""
        header = io.BytesIO()
        np.save(header, np.zeros(length, kind), allow_pickle=False)
        size = np.dtype(kind).itemsize
        data = self._bytes(name)[len(header.getvalue()) - length * size :]
        numbers = np.full(length, -1, np.int64)
        known = np.frombuffer(data[: len(data) // size * size], kind)[:length]
        numbers[: len(known)] = known
        return numbers

    def _ids(self, lost: dict[int, Recorded], alone: bool) -> Ints | None:
        """Page id of every row, -1 for those of removed documents; None where it is not sure."""
        if self.knows_its_pages:
            return self._pages
        contents = {page.content for page in lost.values()}
        if "contents.npy" in self._sure:
            here = {page for page, known in lost.items() if known.content in self._contents}
            shown = np.flatnonzero(np.isin(self._contents, list(contents)))
            candidates = sorted(here)
            if [lost[page].content for page in candidates] != self._contents[shown].tolist():
                return None
            ids = np.full(self._info.n_pages, -1, np.int64)
            ids[shown] = candidates
            return ids
        is_told = [
            lost[page].content == content if page in lost else content not in contents
            for page, content in zip(self._pages.tolist(), self._contents.tolist(), strict=True)
        ]
        if all(is_told) and (np.diff(self._pages) > 0).all():
            return self._pages
        if alone and len(lost) == self._info.n_pages:
            return np.array(sorted(lost), np.int64)
        return None

    def _confirmed(self, ids: Ints, lost: dict[int, Recorded]) -> Iterator[tuple[int, Whole]]:
        added_up = self._added_up(ids, lost)
        is_placed = "offsets.npy" in self._sure or added_up is not None
        is_sure = is_placed and "vectors.bin" in self._sure
        firsts = {-1: 0, self._info.n_pages: self._info.n_vectors}  # first vector of rows found
        vectors = self._path / "vectors.bin"
        try:
            with reading(vectors):
                file = vectors.open("rb", buffering=0)
        except IndexCorrupt:
            return
        rows = [row for row, page in enumerate(ids.tolist()) if page in lost]
        with file:
            for row in [*rows, *reversed(rows)]:  # where one ends, the next one begins
                if row in firsts:
                    continue
                page = int(ids[row])
                n_bytes = lost[page].n_vectors * self._width
                before = firsts.get(row - 1)
                if before is not None and row:
                    before += lost[int(ids[row - 1])].n_vectors
                ends = (before, firsts.get(row + 1))
                for first in self._places(row, lost[page].n_vectors, added_up, ends):
                    data = _read(file, first * self._width, n_bytes)
                    if len(data) == n_bytes and (is_sure or zlib.crc32(data) == self._crc[row]):
                        firsts[row] = first
                        yield page, Whole(lost[page].content, first * self._width, n_bytes)
                        break

    def _added_up(self, ids: Ints, lost: dict[int, Recorded]) -> Ints | None:
        """Offsets from the lengths that the database knows, where they make the whole file."""
        if not all(page in lost for page in ids.tolist()):
            return None
        lengths = [lost[page].n_vectors for page in ids.tolist()]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return offsets if offsets[-1] == self._info.n_vectors else None

    def _places(
        self, row: int, n_vectors: int, added_up: Ints | None, ends: tuple[int | None, int | None]
    ) -> list[int]:
        """First vectors that a page may have, by the files and by the ends of its neighbours."""
        start, end = self._offsets[row : row + 2].tolist()
        if "offsets.npy" in self._sure:
            return [start] if end - start == n_vectors else []
        if added_up is not None:
            return [int(added_up[row])]
        before, after = ends
        found = [start, end - n_vectors]
        found += [] if before is None else [before]
        found += [] if after is None else [after - n_vectors]
        most = self._info.n_vectors - n_vectors
        return [first for first in dict.fromkeys(found) if 0 <= first <= most]


def _read(file: RawIOBase, place: int, n_bytes: int) -> bytes:
    """Read a part of a file, as far as that can be read."""
    parts = []
    try:
        file.seek(place)
        while n_bytes and (part := file.read(n_bytes)):
            parts.append(part)
            n_bytes -= len(part)
    except OSError:
        return b""
    return b"".join(parts)
