"""One segment: the vectors of some pages in files that never change.

    vectors.bin      one record a vector (index/codec.py), pages one after the other
    pages.npy        (n,) int64 page ids, ascending; contents.npy (n,) int64 what file they are of
    offsets.npy      (n + 1,) int64 first record of each page; crc.npy (n,) uint32 CRC-32 of its
                     records, checked when a page is first read
    postings.faiss   FAISS inverted lists centroid -> row (index/candidates.py); in a small segment
                     codes.npy instead: uint16 centroid ids of each page, sorted, each once, and
                     code_offsets.npy (n + 1,)
    residuals.npy    (n, record) what the centroids of a page miss on average, as one record
    manifest.json    counts, and size and sha256 of every file; its own sha256 is in the database

The files from postings.faiss on exist once the index has a codebook. n pages, N records.
"""

import hashlib
import io
import json
import os
import re
import secrets
import shutil
import time
import weakref
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Self, TypedDict

import numpy as np
from numpy.typing import NDArray

from index.candidates import PageCodes, Postings, invert, postings_file
from index.codebook import Codebook
from index.codec import Bytes, StoreCodec
from index.errors import IndexCorrupt, TooManyFiles
from index.records import FORMAT_VERSION
from index.store import (
    CHUNK,
    TEMPORARY,
    damaged,
    fsync_file,
    fsync_folder,
    make_folder,
    no_more_files,
    read_checked,
    reading,
)

Ints = NDArray[np.int64]

# Below this many pages the centroid sets are compared directly: lists of 16 k centroids would
# weigh more than what they find.
MIN_POSTINGS_PAGES = 256
SEGMENT_NAME = re.compile(rf"{re.escape(TEMPORARY)}.*|[0-9a-f]{{24}}")
CODES = ("codes.npy", "code_offsets.npy")
RESIDUALS = "residuals.npy"
DERIVED = {*CODES, RESIDUALS, "postings.faiss"}  # made again from the vectors
CODE_VECTORS = 65_536  # 34 MB as float32
WILLNEED = getattr(os, "POSIX_FADV_WILLNEED", None)  # macOS has none


class FileInfo(TypedDict):
    """Size and digest of a file, as the manifest has them."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class SegmentInfo:
    """What the database knows of a segment."""

    id: str
    n_pages: int
    n_vectors: int
    n_bytes: int
    codebook: int | None
    manifest_sha256: str


@dataclass(frozen=True)
class PageCode:
    """What the candidate stage knows of a page: see Codebook.page_codes."""

    ids: NDArray[np.uint16]
    residual: Bytes  # (record_bytes,)


class SegmentWriter:
    """Write pages into a new segment; finish() makes it durable under its final name.

    Used with `with`: leaving before finish() removes what was written.
    """

    def __init__(self, folder: Path, codec: StoreCodec, codebook: Codebook | None) -> None:
        self.id = f"{time.time_ns():016x}{secrets.token_hex(4)}"
        self._folder = folder / "segments"
        self._temporary = self._folder / f"{TEMPORARY}{self.id}"
        self._codec, self._codebook = codec, codebook
        self._lengths: list[int] = []
        self._pages: list[int] = []
        self._contents: list[int] = []
        self._crc: list[int] = []
        self._codes: dict[int, PageCode] = {}  # by row
        self._uncoded: dict[int, Bytes] = {}  # looked up many at a time, which is quicker
        self._n_uncoded = 0  # their vectors
        self._digest = hashlib.sha256()
        self._vectors: BinaryIO

    def __enter__(self) -> Self:
        make_folder(self._folder)
        self._temporary.mkdir()
        self._vectors = (self._temporary / "vectors.bin").open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        self._vectors.close()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def add(self, page: int, content: int, records: Bytes, code: PageCode | None = None) -> None:
        """Append a page; its code is looked up unless it is given."""
        data = records.tobytes()
        self._vectors.write(data)
        self._digest.update(data)
        self._lengths.append(len(records))
        self._pages.append(page)
        self._contents.append(content)
        self._crc.append(zlib.crc32(data))
        row = len(self._pages) - 1
        if code is not None:
            self._codes[row] = code
        elif self._codebook is not None:
            self._uncoded[row] = records
            self._n_uncoded += len(records)
            if self._n_uncoded >= CODE_VECTORS:
                self._look_up()

    def _look_up(self) -> None:
        """Find the codes of the pages that wait for theirs."""
        if self._codebook is not None and self._uncoded:
            records = list(self._uncoded.values())
            ids, residuals = self._codebook.page_codes(
                self._codec.decode(np.concatenate(records)),
                np.array([len(each) for each in records]),
            )
            codes = map(PageCode, ids, self._codec.encode(residuals))
            self._codes |= zip(self._uncoded, codes, strict=True)
            self._uncoded, self._n_uncoded = {}, 0

    def finish(self) -> SegmentInfo:
        """Write the rest, fsync every file, rename, fsync the folder."""
        self._look_up()
        self._vectors.flush()
        os.fsync(self._vectors.fileno())
        size = self._vectors.tell()
        files = {"vectors.bin": FileInfo(bytes=size, sha256=self._digest.hexdigest())}
        for name, array in self._arrays().items():
            files[name] = self._write(name, _npy(array))
        if self._codebook is not None and self._has_postings:
            postings = postings_file(self._page_codes(), self._codebook.n_centroids)
            files["postings.faiss"] = self._write("postings.faiss", postings)
        version = self._codebook.version if self._codebook is not None else None
        n_pages, n_vectors = len(self._pages), sum(self._lengths)
        manifest = {
            "format": FORMAT_VERSION,
            "id": self.id,
            "n_pages": n_pages,
            "n_vectors": n_vectors,
            "codebook": version,
            "files": files,
        }
        written = self._write("manifest.json", json.dumps(manifest, indent=1).encode())
        fsync_folder(self._temporary)
        self._temporary.rename(self._folder / self.id)
        fsync_folder(self._folder)
        n_bytes = sum(file["bytes"] for file in [*files.values(), written])
        return SegmentInfo(self.id, n_pages, n_vectors, n_bytes, version, written["sha256"])

    def _arrays(self) -> dict[str, NDArray[np.generic]]:
        arrays: dict[str, NDArray[np.generic]] = {
            "pages.npy": np.array(self._pages, np.int64),
            "contents.npy": np.array(self._contents, np.int64),
            "offsets.npy": np.concatenate([[0], np.cumsum(self._lengths)]).astype(np.int64),
            "crc.npy": np.array(self._crc, np.uint32),
        }
        if self._codebook is not None:
            if not self._has_postings:
                codes = self._page_codes()
                arrays |= {"codes.npy": codes.ids, "code_offsets.npy": codes.offsets}
            residuals = [self._codes[row].residual for row in range(len(self._pages))]
            arrays[RESIDUALS] = np.stack(residuals)
        return arrays

    @property
    def _has_postings(self) -> bool:
        return len(self._pages) >= MIN_POSTINGS_PAGES

    def _page_codes(self) -> PageCodes:
        return PageCodes.of([self._codes[row].ids for row in range(len(self._pages))])

    def _write(self, name: str, data: bytes | memoryview) -> FileInfo:
        path = self._temporary / name
        path.write_bytes(data)
        fsync_file(path)
        return FileInfo(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def _npy(array: NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


class Segment:
    """An open segment; keeps its files readable even after the writer has removed their names."""

    def __init__(self, folder: Path, info: SegmentInfo, codec: StoreCodec) -> None:
        self.info, self._codec = info, codec
        self.path = folder / "segments" / info.id
        manifest = json.loads(read_checked(self.path / "manifest.json", info.manifest_sha256))
        self.files: dict[str, FileInfo] = manifest["files"]
        self.pages: Ints = self._array("pages.npy")
        self.contents: Ints = self._array("contents.npy")
        self._offsets: Ints = self._array("offsets.npy")
        self._crc: NDArray[np.uint32] = self._array("crc.npy")
        self._checked = np.zeros(info.n_pages, bool)
        self._open = ExitStack()
        weakref.finalize(self, self._open.close)
        self._vectors = self._keep_open("vectors.bin")
        # What is made from the vectors may be damaged: noticed only by who needs it.
        self._derived: dict[str, int | IndexCorrupt] = {}
        for name in DERIVED & self.files.keys():
            try:
                self._derived[name] = self._keep_open(name)
            except IndexCorrupt as error:
                self._derived[name] = error

    def _keep_open(self, name: str) -> int:
        path, wanted = self.path / name, self.files[name]["bytes"]
        with reading(path):
            descriptor = os.open(path, os.O_RDONLY)
        self._open.callback(os.close, descriptor)
        size = os.fstat(descriptor).st_size
        if size != wanted:
            raise IndexCorrupt(damaged(path, f"{size} bytes instead of {wanted}"))
        return descriptor

    def _read_derived(self, name: str) -> Iterator[bytes]:
        """Read a derived file by its open descriptor; raises IndexCorrupt if it is damaged.

        The file's own name may be gone since a merge; the file is there while it is open. Never
        opened anew: on macOS /dev/fd/N shares its place with N and with whoever reads there, too.
        """
        descriptor, digest, place = self._derived[name], hashlib.sha256(), 0
        if isinstance(descriptor, IndexCorrupt):
            raise descriptor
        with reading(self.path / name):
            while part := os.pread(descriptor, CHUNK, place):
                digest.update(part)
                place += len(part)
                yield part
        if digest.hexdigest() != self.files[name]["sha256"]:
            raise IndexCorrupt(damaged(self.path / name, "checksum differs"))

    def _derived_array(self, name: str) -> NDArray[Any]:
        data = b"".join(self._read_derived(name))
        array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
        return array

    def _array(self, name: str) -> NDArray[Any]:
        data = read_checked(self.path / name, self.files[name]["sha256"])
        array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
        return array

    @cached_property
    def codes(self) -> PageCodes:
        """Centroid ids of every page; only for segments with a codebook."""
        if self.postings is not None:
            return invert(self.postings, self.info.n_pages)
        ids, offsets = map(self._derived_array, CODES)
        return PageCodes(ids, offsets)

    @cached_property
    def residuals(self) -> Bytes | None:
        """(n, record_bytes) what the centroids of each page miss; None in a segment of old."""
        if RESIDUALS not in self._derived:
            return None
        residuals: Bytes = self._derived_array(RESIDUALS)
        return residuals

    def code(self, row: int) -> PageCode:
        """Return what was looked up for a page; only for segments with residuals."""
        assert self.residuals is not None
        return PageCode(self.codes.page(row), self.residuals[row])

    @cached_property
    def postings(self) -> Postings | None:
        """Inverted lists, or None in a small segment. Checked whole before FAISS sees them."""
        if "postings.faiss" not in self._derived:
            return None
        for _ in self._read_derived("postings.faiss"):
            pass
        descriptor = self._derived["postings.faiss"]
        assert isinstance(descriptor, int)
        os.lseek(descriptor, 0, os.SEEK_SET)  # where FAISS begins on macOS
        try:
            return Postings(Path(f"/dev/fd/{descriptor}"))
        except RuntimeError as error:  # the bytes are right, so it was not allowed to open them
            path = self.path / "postings.faiss"
            raise TooManyFiles(no_more_files(path, "cannot be opened by FAISS")) from error

    def lengths(self, rows: Ints) -> Ints:
        """Vectors of each of these pages."""
        return self._offsets[rows + 1] - self._offsets[rows]

    def records(self, rows: Ints) -> tuple[Bytes, Ints]:
        """Read pages: (N, record_bytes) uint8 of all of them, and where each starts in it.

        rows ascending, at least one. All of it is asked for before any is waited for: a cold search
        of a million pages took 295 ms so, 443 with 16 threads that read. Raises
        IndexCorrupt when a page is not what was written (checked at its first reading).
        """
        starts = np.concatenate([[0], np.cumsum(self.lengths(rows))]).astype(np.int64)
        width = self._codec.record_bytes
        buffer = np.empty((starts[-1], width), np.uint8)
        # One read for each run of neighbours: (place in the file, from, to in the buffer).
        firsts = np.concatenate([[0], np.flatnonzero(np.diff(rows) != 1) + 1])
        ends = np.append(firsts[1:], len(rows))
        places = (self._offsets[rows[firsts]] * width).tolist()
        reads = list(
            zip(
                places,
                (starts[firsts] * width).tolist(),
                (starts[ends] * width).tolist(),
                strict=True,
            )
        )
        if WILLNEED is not None:
            with suppress(OSError):  # it is advice: a system that cannot take it reads all the same
                for place, start, end in reads:
                    os.posix_fadvise(self._vectors, place, end - start, WILLNEED)
        view = memoryview(buffer.reshape(-1).data)
        with reading(self.path / "vectors.bin"):
            n_read = sum(
                os.preadv(self._vectors, [view[start:end]], place) for place, start, end in reads
            )
        if n_read != buffer.size:
            raise IndexCorrupt(damaged(self.path / "vectors.bin", "shorter than at opening"))
        for i in np.flatnonzero(~self._checked[rows]).tolist():
            self._check(int(rows[i]), buffer[starts[i] : starts[i + 1]])
        return buffer, starts[:-1]

    def _check(self, row: int, records: Bytes) -> None:
        if zlib.crc32(records.data) != self._crc[row]:
            raise IndexCorrupt(
                damaged(self.path / "vectors.bin", f"checksum of page {self.pages[row]} differs")
            )
        self._checked[row] = True
