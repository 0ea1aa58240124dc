"""Changes to the index: buffered pages become a segment and one database transaction.

Order of a commit: thumbnails and segment are written under temporary names, fsynced and renamed;
then one SQLite transaction makes pages, words, segment and finished documents visible together.
A kill before it leaves files nobody refers to; the next writer deletes them.
"""

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from index import catalogue
from index.buffer import Buffer, prepare
from index.codebook import Codebook
from index.codec import StoreCodec
from index.database import TEXT_INDEX, TO_ERASE, Database, pack_text
from index.errors import DocumentUnknown, FilterError, PageIndexError
from index.records import (
    DocumentInput,
    PageInput,
    Resume,
    Status,
    TextClass,
    VectorSettings,
)
from index.segment import SegmentInfo, SegmentWriter
from index.store import Thumbnails, disk_errors

log = logging.getLogger(__name__)


class Writer:
    """The one writer of an index; its caller holds the lock."""

    def __init__(
        self, folder: Path, database: Database, settings: VectorSettings, codec: StoreCodec
    ) -> None:
        self._folder, self._database = folder, database
        self._settings, self._codec = settings, codec
        self._thumbnails = Thumbnails(folder)
        self._begun: dict[str, tuple[DocumentInput, int]] = {}  # and the contents to be filled
        self._buffer = Buffer()
        self.codebook: Codebook | None = None

    @property
    def n_buffered(self) -> int:
        """Pages that wait for commit()."""
        return len(self._buffer.pages)

    # -- documents -------------------------------------------------------------------------

    def begin(self, document: DocumentInput) -> Resume:
        """See PageIndex.begin_document."""
        check_name(document.name)
        sql = self._database.sql
        with self._database.errors():
            content = catalogue.is_current(sql, document)
            if content is None:
                self._settle(document.name)
                with self._database.transaction():
                    content, left = catalogue.begin(sql, document)
                    images = catalogue.collect(sql, left)
                    catalogue.bump(sql)
                self._drop(images)
            self._begun[document.name] = document, content
            return catalogue.resume(sql, content)

    def _settle(self, name: str) -> None:
        """Commit what waits for another content of the same name, before that content goes."""
        if self._buffer and name in self._begun:
            self.commit()

    def fail(self, name: str, reason: str, source: str) -> None:
        """See PageIndex.fail_document."""
        check_name(name)
        with self._database.transaction() as sql:
            catalogue.fail(sql, name, reason, source)

    def finish(self, name: str, language: str | None) -> Status:
        """See PageIndex.finish_document."""
        content = self._content(name)
        self._buffer.finished[name] = language
        with self._database.view() as sql:
            stored = catalogue.resume(sql, content)
            (n_pages,) = sql.execute(
                "SELECT n_pages FROM contents WHERE id = ?", (content,)
            ).fetchone()
        done = stored.done | self._buffer.numbers(content)
        failed = {page for owner, page in self._buffer.failures if owner == content}
        return catalogue.status_of(n_pages, len(done), len((failed | set(stored.failed)) - done))

    def _content(self, name: str) -> int:
        if name not in self._begun:
            raise DocumentUnknown(f"{name!r} was not begun; call begin_document first")
        return self._begun[name][1]

    # -- pages -----------------------------------------------------------------------------

    def add_page(self, name: str, page: PageInput) -> None:
        """See PageIndex.add_page."""
        content = self._content(name)
        key = (content, page.number)
        if key in self._buffer.pages or self._is_stored(content, page.number):
            return
        self._buffer.pages[key] = prepare(content, page, self._settings, self._codec)
        self._buffer.failures.pop(key, None)

    def _is_stored(self, content: int, number: int) -> bool:
        (n_pages,) = self._one("SELECT n_pages FROM contents WHERE id = ?", content) or (0,)
        if not 1 <= number <= n_pages:
            raise DocumentUnknown(f"page {number} of a document of {n_pages} pages")
        where = "SELECT 1 FROM pages WHERE content = ? AND number = ?"
        return self._one(where, content, number) is not None

    def _one(self, query: str, *values: object) -> tuple[int, ...] | None:
        with self._database.errors():
            row: tuple[int, ...] | None = self._database.sql.execute(query, values).fetchone()
        return row

    def fail_page(self, name: str, page: int, reason: str) -> None:
        """See PageIndex.fail_page."""
        content = self._content(name)
        if (content, page) not in self._buffer.pages and not self._is_stored(content, page):
            self._buffer.failures[content, page] = reason

    def set_text(self, name: str, page: int, text: str, text_class: TextClass) -> None:
        """See PageIndex.set_text."""
        with self._database.errors():
            content = catalogue.content_of(self._database.sql, name)
        if not self._is_stored(content, page):
            raise DocumentUnknown(f"page {page} of {name!r} is not stored; commit it first")
        self._buffer.texts[name, page] = (text, text_class)

    # -- commit ----------------------------------------------------------------------------

    def commit(self) -> int:
        """See PageIndex.commit."""
        if not self._buffer:
            return 0
        n_pages = len(self._buffer.pages)
        with disk_errors(self._folder):
            images = [
                self._thumbnails.add(page.thumbnail) if page.thumbnail is not None else None
                for page in self._buffer.pages.values()
            ]
            first, segment = self._write_segment()
        try:
            with self._database.transaction() as sql:
                gone = self._apply(first, segment, images)
                catalogue.bump(sql)
        except PageIndexError:
            if segment is not None:
                shutil.rmtree(self._folder / "segments" / segment.id, ignore_errors=True)
            raise
        self._buffer = Buffer()
        self._drop(gone)
        return n_pages

    def _write_segment(self) -> tuple[int, SegmentInfo | None]:
        """Write the buffered pages; returns the id of the first and what was written."""
        if not self._buffer.pages:
            return 0, None
        row = self._one("SELECT seq FROM sqlite_sequence WHERE name = 'pages'")
        first = row[0] + 1 if row else 1
        with SegmentWriter(self._folder, self._codec, self.codebook) as segment:
            for number, page in enumerate(self._buffer.pages.values(), first):
                segment.add(number, page.content, page.records)
            return first, segment.finish()

    def _apply(
        self, first: int, segment: SegmentInfo | None, images: list[str | None]
    ) -> list[str]:
        """Write every waiting change; returns thumbnails to delete."""
        sql = self._database.sql
        if segment is not None:
            insert_segment(self._database, segment)
            self._insert_pages(first, images)
            catalogue.learn_words(sql, "id >= ?", first)
        for (content, number), reason in self._buffer.failures.items():
            sql.execute("DELETE FROM failures WHERE content = ? AND page = ?", (content, number))
            catalogue.insert(sql, "failures", content, number, reason)
        of_page = "content = ? AND number = ?"
        for (name, number), (text, text_class) in self._buffer.texts.items():
            key = (catalogue.content_of(sql, name), number)
            catalogue.forget_words(sql, of_page, *key, indexes=TEXT_INDEX)
            sql.execute(
                f"UPDATE pages SET text = ?, text_class = ? WHERE {of_page}",
                (pack_text(text), text_class, *key),
            )
            catalogue.learn_words(sql, of_page, *key, indexes=TEXT_INDEX)
        left = [
            content
            for name, language in self._buffer.finished.items()
            for content in catalogue.finish(sql, self._begun[name][0], language)
        ]
        return catalogue.collect(sql, left)

    def _insert_pages(self, first: int, images: list[str | None]) -> None:
        sql = self._database.sql
        pages = self._buffer.pages.values()
        for number, (page, image) in enumerate(zip(pages, images, strict=True), first):
            catalogue.insert(
                sql,
                "pages",
                *(number, page.content, page.number, len(page.records)),
                *(page.grid.rows, page.grid.cols, *page.grid.overview, page.cells, image),
                *(page.text_class, pack_text(page.text)),
            )
            if page.read:
                catalogue.insert(sql, "readings", number, pack_text(page.read))
            sql.execute(
                "DELETE FROM failures WHERE content = ? AND page = ?", (page.content, page.number)
            )

    # -- reading again, removal -------------------------------------------------------------

    def read_again(self, name: str) -> None:
        """See PageIndex.read_again."""
        self.commit()
        with self._database.transaction() as sql:
            catalogue.read_again(sql, name)
            catalogue.bump(sql)

    def remove(self, names: Iterable[str]) -> tuple[str, ...]:
        """Commit what waits, then remove documents; returns the names that were there."""
        self.commit()
        with self._database.transaction() as sql:
            present = "SELECT 1 FROM documents WHERE name = ?"
            found = sorted({n for n in names if sql.execute(present, (n,)).fetchone()})
            if found:
                images = catalogue.remove(sql, found)
                sql.execute(f"DELETE FROM settings WHERE key = '{TO_ERASE}'")
                catalogue.insert(sql, "settings", TO_ERASE, "true")
                catalogue.bump(sql)
        if found:
            self._drop(images)
        for name in found:
            self._begun.pop(name, None)
        return tuple(found)

    def _drop(self, images: list[str]) -> None:
        for image in images:
            self._thumbnails.remove(image)


def check_name(name: str) -> None:
    """Raise FilterError for a name that no JSON and no terminal could show."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise FilterError(
            f"{name!r}: the file's name is not Unicode; rename it, or give it another name here"
        ) from error


def insert_segment(database: Database, segment: SegmentInfo) -> None:
    """Record a segment; it counts from this transaction on."""
    catalogue.insert(
        database.sql,
        "segments",
        *(segment.id, segment.n_pages, segment.n_vectors, segment.n_bytes),
        *(segment.codebook, segment.manifest_sha256),
    )
