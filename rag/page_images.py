"""Images of indexed pages: drawn from their files again, or the small ones the index keeps."""

import hashlib
import threading
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from PIL import Image

from index.database import READABLE
from index.page_index import PageIndex
from index.records import DocumentRecord, PageRecord
from rag.answer import PageImage
from rag.errors import DocumentError
from rag.office import OfficeConverter
from rag.reader import PageReader
from rag.sources import Source, file_sha256, path_of


class PageImages:
    """Draws pages one at a time; safe to use from several threads."""

    def __init__(self, reader: PageReader) -> None:
        self._reader = reader
        self._office = OfficeConverter()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Delete what Office files were turned into; the reader belongs to the caller."""
        self._office.__exit__(None, None, None)

    def read(
        self, page_index: PageIndex, document: str, number: int, *, dpi: float, max_pixels: int
    ) -> PageImage:
        """Return a page as RGB, drawn from its file; where that is gone, the stored thumbnail.

        A file that has changed since it was read counts as gone: the page that was found is not
        in it any more. Raises DocumentUnknown, or DocumentError when neither can be had.
        """
        page = page_index.page(document, number)
        record = page_index.document(document)
        try:
            with self._lock:
                file = self._file(record)
                drawn = self._reader.read(file, number, dpi=dpi, max_pixels=max_pixels)
        except DocumentError as error:
            return _from_thumbnail(page, error)
        return PageImage(drawn.image)

    def find(
        self, page_index: PageIndex, document: str, number: int, words: Sequence[str]
    ) -> list[tuple[float, float, float, float]]:
        """Return where a page has these words, as shares of the page; [] where its file is gone."""
        record = page_index.document(document)
        try:
            with self._lock:
                return self._reader.find(self._file(record), number, words)
        except DocumentError:
            return []

    def rows(self, page_index: PageIndex, document: str, number: int) -> list[str]:
        """Return what a page says, a row each: its text layer, then what else was read of it.

        Raises DocumentUnknown.
        """
        page = page_index.page(document, number)
        rows = []
        if page.text_class in READABLE:
            with suppress(DocumentError), self._lock:  # gone; the index still has its words
                rows = self._reader.rows(self._file(page_index.document(document)), number)
        if page.text_class == "healthy" and rows:
            return rows
        stored = _unspaced(page.text)  # without lines of the layer that are garbage
        rows = [row for row in rows if all(piece in stored for piece in row.split())]
        shown, pieces = _unspaced("".join(rows)), {piece for row in rows for piece in row.split()}
        return rows + [line for line in page.text.splitlines() if not _is_in(line, shown, pieces)]

    def image_of(self, path: Path, *, dpi: float, max_pixels: int) -> Image.Image:
        """Return the first page of a file that is no part of the index. Raises DocumentError."""
        with self._lock:
            return self._reader.read(path, 1, dpi=dpi, max_pixels=max_pixels).image

    def _file(self, record: DocumentRecord) -> Path:
        _require_unchanged(record)
        source = Source(record.name, path_of(record.source))
        if not source.is_office:
            return source.path
        return self._office.to_pdf(source.path, record.sha256 or "")


def _is_in(line: str, shown: str, pieces: set[str]) -> bool:
    """Whether a line is shown already; a figure only as such: 20 is in 2023, and not said by it."""
    if any(map(str.isalpha, line)):
        return _unspaced(line) in shown
    return pieces.issuperset(line.split())


def _require_unchanged(record: DocumentRecord) -> None:
    """Raise DocumentError if the file is gone or holds something else than what was read.

    Size and date are those of what is stored; the file's bytes tell where a newer one is being
    read, or could not be.
    """
    try:
        state = path_of(record.source).stat()
    except OSError as error:
        raise DocumentError(f"its file cannot be read: {error.strerror}") from None
    is_as_read = (state.st_size, state.st_mtime) == (record.size_bytes, record.modified)
    if is_as_read and record.status in ("complete", "damaged"):
        return
    if file_sha256(path_of(record.source)) != record.sha256:
        raise DocumentError("its file has changed since; `yomu ingest` reads it anew")


def _unspaced(text: str) -> str:
    return "".join(text.split())


def document_file(record: DocumentRecord) -> bytes:
    """Return the bytes a document was read from. Raises DocumentError if they are gone."""
    try:
        data = path_of(record.source).read_bytes()
    except OSError as error:
        raise DocumentError(f"its file cannot be read: {error.strerror}") from None
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise DocumentError("its file has changed since; `yomu ingest` reads it anew")
    return data


def _from_thumbnail(page: PageRecord, error: DocumentError) -> PageImage:
    if page.thumbnail is None:
        raise error
    try:
        data = Path(page.thumbnail).read_bytes()
    except OSError:
        raise error from None
    image = Image.open(BytesIO(data)).convert("RGB")
    return PageImage(image, f"only its small stored image could be used: {error}")
