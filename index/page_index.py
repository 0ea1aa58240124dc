"""The index of pages: add, remove, search. The only name other packages import.

Writing (one process at a time; everything else may read and search meanwhile):

    with PageIndex.open(folder, settings, writable=True) as page_index:
        resume = page_index.begin_document(document)
        for number in wanted - resume.done:
            page_index.add_page(document.name, PageInput(number, vectors, grid, text, "healthy"))
            page_index.commit()              # every few pages or seconds: only now they count
        page_index.finish_document(document.name)
                                             # leaving the block commits; an exception does not

Searching:

    with PageIndex.open(folder, settings) as page_index:
        hits = page_index.search(5, vectors=query_vectors, text=question, mode="hybrid")

A document whose file changed keeps its old pages visible until finish_document of the new
content is committed; the swap is one database transaction. A document never seen before shows
its pages as they are committed. Nothing that was not committed is ever visible to anybody, and
everything that was survives a kill, a full disk and a power cut (files are fsynced first).
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock

from index import catalogue, opening, pages
from index.codec import store_codec
from index.database import TO_ERASE, Database
from index.errors import DocumentUnknown, IndexMissing, IndexReadOnly, PageIndexError
from index.finder import Finder
from index.fusion import DEFAULT, Fusion
from index.mend import forget_damaged
from index.ranking import by_document
from index.records import (
    DocumentInput,
    DocumentRecord,
    Failure,
    Filters,
    Floats,
    IndexStats,
    Mode,
    PageHit,
    PageInput,
    PageRecord,
    PatchScores,
    Resume,
    Status,
    TextClass,
    Tuning,
    VectorSettings,
    VerifyReport,
)
from index.statistics import measure
from index.store import allow_open_files, disk_errors, lock_for_writing, make_folder
from index.upkeep import KNOWN_TO_COMPACT, KNOWN_TO_MAINTAIN, Upkeep
from index.verify import Verifier
from index.writer import Writer

log = logging.getLogger(__name__)

__all__ = ["PageIndex", "by_document"]

# Up to so many pages a removal erases words at once: 20,000 pages of 300 words take 1 to 2 s.
ERASED_NOW_PAGES = 100_000
ERASE_NOW = (
    f"SELECT EXISTS (SELECT 1 FROM settings WHERE key = '{TO_ERASE}')"
    " AND (SELECT coalesce(sum(n_pages), 0) FROM segments) <= ?"
)
EVERYTHING = Filters()
TUNING = Tuning()


class PageIndex:
    """A folder of multi-vectors, texts and thumbnails, one per page."""

    def __init__(
        self,
        folder: Path,
        database: Database,
        settings: VectorSettings,
        tuning: Tuning,
        lock: FileLock | None,
    ) -> None:
        self.folder, self.settings = folder, settings
        self._database, self._tuning, self._lock = database, tuning, lock
        self._codec = store_codec(settings.codec, settings.dim)
        self._finder = Finder(folder, database, self._codec, tuning)
        self._writing: tuple[Writer, Upkeep] | None = None
        if lock is not None:
            upkeep = Upkeep(folder, database, self._codec, tuning)
            upkeep.sweep_segments()
            self._erase_deleted()
            writer = Writer(folder, database, settings, self._codec)
            writer.codebook = upkeep.codebook
            self._writing = writer, upkeep

    # -- opening ---------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        folder: Path,
        settings: VectorSettings | None = None,
        *,
        writable: bool = False,
        wait_s: float = 0.0,
        tuning: Tuning = TUNING,
    ) -> Self:
        """Open the index in `folder`; make it when it is missing and `writable`.

        settings  what the caller would encode with; None (reading only): whatever is stored
        wait_s    how long to wait for another writer to finish; -1: for as long as it takes
        tuning    speed and upkeep; may differ from opening to opening
        Raises IndexMissing, IndexMismatch (other model, dpi, …: names the command that mends
        it), IndexLocked (another writer, after wait_s), IndexCorrupt.
        Several processes may hold a reader on one index, also on a read-only file system.
        """
        allow_open_files()
        if not writable:
            opening.refuse_lost_database(folder)
            database = Database(folder / "index.db", writable=False)
            return cls._open(folder, database, settings, tuning, None)
        if settings is None and not (folder / "index.db").exists():
            raise IndexMissing(f"no index in {folder}; make one with `yomu ingest FOLDER`")
        with disk_errors(folder):
            make_folder(folder)
            lock = lock_for_writing(folder, wait_s)
        try:
            opening.refuse_lost_database(folder)
            database = Database(folder / "index.db", writable=True)
            return cls._open(folder, database, settings, tuning, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _open(
        cls,
        folder: Path,
        database: Database,
        settings: VectorSettings | None,
        tuning: Tuning,
        lock: FileLock | None,
    ) -> Self:
        try:
            opening.refuse_lost_database(folder, database)
            if lock is not None and settings is not None and opening.is_empty(database):
                opening.create(database, settings)
            stored = opening.load_settings(database)
            if settings is not None:
                opening.compare(folder, stored, settings)
            if lock is not None:
                opening.add_readings(database)
                opening.renew_words(database)
            return cls(folder, database, stored, tuning, lock)
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        """Give back files and the lock; what was not committed is forgotten."""
        self._writing = None
        self._database.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commit when the block ended well, and close."""
        try:
            if kind is None and self._writing is not None:
                self.commit()
        finally:
            self.close()

    # -- writing ---------------------------------------------------------------------------

    @property
    def _writer(self) -> Writer:
        return self._tools()[0]

    @property
    def _upkeep(self) -> Upkeep:
        return self._tools()[1]

    def _tools(self) -> tuple[Writer, Upkeep]:
        if self._writing is None:
            raise IndexReadOnly(f"{self.folder}: opened for reading; open it with writable=True")
        return self._writing

    def begin_document(self, document: DocumentInput) -> Resume:
        """Say that this document is about to be read; returns what is already stored of it.

        The same bytes under a known name: status "complete" (nothing to do), "damaged" (retry
        the pages in `failed`) or "partial" (go on with the pages not in `done`). The same bytes
        under a new name: the name is added and the state of the stored content is returned, so
        a duplicate of a complete document needs nothing more. Other bytes under a known name:
        status "new"; the old pages stay visible until finish_document. A file that was only
        touched (same bytes, other date) gets its new date.
        """
        return self._writer.begin(document)

    def add_page(self, document: str, page: PageInput) -> None:
        """Pool, compress and buffer one page of a begun document; commit() makes it count.

        A page that is stored already is ignored (never twice). Clears the page's failure.
        Raises ShapeMismatch, DocumentUnknown.
        """
        self._writer.add_page(document, page)

    def fail_page(self, document: str, page: int, reason: str) -> None:
        """Record that a page could not be read; the document becomes "damaged", not lost."""
        self._writer.fail_page(document, page, reason)

    def fail_document(self, name: str, reason: str, *, source: str = "") -> None:
        """Record that a document as a whole could not be read; a stored content is kept."""
        self._writer.fail(name, reason, source)

    def finish_document(self, document: str, *, language: str | None = None) -> Status:
        """Say that reading is over; replaces the old content of the name by the new one.

        Returns "complete", "damaged" (some pages failed) or "partial" (pages were left out).
        Takes effect with the next commit().
        """
        return self._writer.finish(document, language)

    def read_again(self, document: str) -> None:
        """Forget that a document is up to date, so that the next ingest reads all its pages again.

        Commits at once. Its pages stay visible until finish_document of the new reading is
        committed, and for good if that one has fewer. Raises DocumentUnknown.
        """
        self._writer.read_again(document)

    def set_text(self, document: str, page: int, text: str, text_class: TextClass) -> None:
        """Replace the text of a stored page, as OCR does afterwards; counts after commit()."""
        self._writer.set_text(document, page, text, text_class)

    def remove(self, pattern: str) -> tuple[str, ...]:
        """Remove the documents whose name matches a glob; returns their names, sorted.

        Commits at once. Their pages are invisible from then on; vectors, text and thumbnails
        of contents that no other name holds are deleted, and small segments rewritten; no word of
        them is left in a file. Space of big segments comes back with compact(), which is also left
        to erase the words where the index has more than 100,000 pages.
        """
        with self._database.view() as sql:
            names = catalogue.names_like(sql, pattern)
        return self.remove_documents(names)

    def remove_documents(self, names: Iterable[str]) -> tuple[str, ...]:
        """Remove exactly these documents (`--prune`); otherwise as remove()."""
        removed = self._writer.remove(names)
        if removed:
            try:
                self._merge_due(self._tuning.merge_now_pages)
                self._upkeep.forget_deletions(self._finder.snapshot())
            except PageIndexError as error:  # the documents are removed all the same
                log.warning("upkeep was put off: %s", error)
            self._erase_deleted()
        return removed

    def _erase_deleted(self) -> None:
        """Erase words of removed pages; what fails is made up by the next writer."""
        try:
            with self._database.view() as sql:
                (is_due,) = sql.execute(ERASE_NOW, (ERASED_NOW_PAGES,)).fetchone()
            if is_due:
                self._database.erase_deleted()
        except PageIndexError as error:
            log.warning("words of removed pages are still in the files: %s", error)

    def commit(self) -> int:
        """Make everything since the last commit durable and visible; returns pages added.

        All or nothing: after an error (IndexFull) the pages are still buffered and commit() may
        be called again once there is space.
        """
        n_pages = self._writer.commit()
        if n_pages:
            self._tidy(self._tuning.merge_now_pages)
        return n_pages

    def _tidy(self, most_pages: int, least_known: float | None = None) -> None:
        """Renew the codebook and merge where it is due; a failure costs nothing but speed."""
        try:
            if self._upkeep.renew_codebook(self._finder.snapshot(), least_known):
                self._writer.codebook = self._upkeep.codebook
            self._merge_due(most_pages)
        except PageIndexError as error:
            log.warning("upkeep was put off: %s", error)

    def _merge_due(self, most_pages: int) -> None:
        snapshot = self._finder.snapshot()
        for group in self._upkeep.due(snapshot, most_pages):
            self._upkeep.merge(self._finder.snapshot(), group)

    @property
    def n_uncommitted(self) -> int:
        """Pages buffered since the last commit."""
        return self._writer.n_buffered

    def compact(self) -> IndexStats:
        """Rewrite segments without removed pages, shrink the database.

        The codebook is trained anew where a fifth of the pages came after its training.
        """
        self.commit()
        if self._upkeep.renew_codebook(self._finder.snapshot(), KNOWN_TO_COMPACT):
            self._writer.codebook = self._upkeep.codebook
        for group in self._upkeep.everything(self._finder.snapshot()):
            self._upkeep.merge(self._finder.snapshot(), group)
        snapshot = self._finder.snapshot()
        self._upkeep.forget_deletions(snapshot)
        self._upkeep.sweep_codebooks(snapshot)
        self._upkeep.sweep_thumbnails()
        self._upkeep.shrink_database()
        return self.stats()

    def maintain(self) -> None:
        """Do what `compact` does, but only where it pays now; call at the end of an ingest."""
        self.commit()
        self._tidy(self._tuning.max_segment_pages, KNOWN_TO_MAINTAIN)
        for group in self._upkeep.outdated(self._finder.snapshot()):
            self._upkeep.merge(self._finder.snapshot(), group)
        snapshot = self._finder.snapshot()
        self._upkeep.forget_deletions(snapshot)
        self._upkeep.sweep_codebooks(snapshot)

    def mend(self) -> tuple[str, ...]:
        """Verify, and drop what is damaged; returns the documents the next ingest must read.

        Pages that are whole stay; the damaged ones become failed pages of their documents, which
        the next ingest reads again. Derived files (centroid sets, postings, codebook, word index)
        are made again from vectors and texts. Raises IndexCorrupt when the database itself cannot
        be trusted.
        """
        self.commit()
        found = Verifier(self.folder, self._database, self._codec).run()
        codebook = self._upkeep.codebook
        names = forget_damaged(self.folder, self._database, self._codec, codebook, found)
        self._reopen()
        self.maintain()
        return names

    def _reopen(self) -> None:
        """Forget every open segment and codebook."""
        self._finder = Finder(self.folder, self._database, self._codec, self._tuning)
        upkeep = Upkeep(self.folder, self._database, self._codec, self._tuning)
        self._writer.codebook = upkeep.codebook
        self._writing = self._writer, upkeep

    # -- searching -------------------------------------------------------------------------

    def search(
        self,
        k: int,
        *,
        vectors: Floats | None = None,
        text: str | None = None,
        mode: Mode = "hybrid",
        filters: Filters = EVERYTHING,
        fusion: Fusion = DEFAULT,
        exact: bool = False,
    ) -> tuple[PageHit, ...]:
        """Rank pages: the best k, best first; ties by age (the page stored first wins).

        vectors  (Q, dim) float32 of the question or of an image; needed by visual and hybrid
        text     the question; needed by text and hybrid
        fusion   weights of both rankings, fitted for the model; fusion.answers(hit.score) tells
                 whether a hybrid hit is an answer at all. Mode visual is MaxSim where its sharpness
                 is 1 or `text` is None, else the best pages by MaxSim, and by what the model itself
                 read on them, in the order of sharpen() and with_reading()
        exact    score every page (otherwise: every page when there are few or the filter leaves
                 few, candidates by their centroids and then exact scores when there are many)
        Returns fewer than k hits when fewer pages match (mode text: that share no word with the
        question). Raises FilterError, ShapeMismatch, IndexCorrupt.
        """
        return self._finder.search(k, vectors, text, mode, filters, fusion, exact)

    def patch_scores(self, vectors: Floats, document: str, page: int) -> PatchScores:
        """Where on the page each query vector finds its match; raises DocumentUnknown."""
        with self._database.view():
            row = pages.row_of(self._database, document, page)
        similarities = self._finder.similarities(vectors, row.id)  # (Q, P)
        return PatchScores(document, page, pages.over_cells(similarities, row))

    # -- reading ---------------------------------------------------------------------------

    @property
    def has_present_words(self) -> bool:
        """Whether texts were folded as questions are now; the next opening for writing sees to it.

        Until then a search may miss pages by words that are folded otherwise today.
        """
        return opening.has_present_words(self._database)

    def documents(self, pattern: str = "*") -> tuple[DocumentRecord, ...]:
        """Documents whose name matches a glob, by name."""
        with self._database.view() as sql:
            return catalogue.records(sql, pattern)

    def names(self, filters: Filters) -> frozenset[str]:
        """Names of the documents that filters leave."""
        condition, values = catalogue.where(filters)
        with self._database.view() as sql:
            rows = sql.execute(f"SELECT d.name FROM documents d WHERE {condition}", values)
            return frozenset(name for (name,) in rows)

    def document(self, name: str) -> DocumentRecord:
        """Return the document of exactly this name. Raises DocumentUnknown."""
        with self._database.view() as sql:
            found = catalogue.record(sql, name)
        if found is None:
            raise DocumentUnknown(f"{name!r} is not in the index")
        return found

    def failures(self) -> tuple[Failure, ...]:
        """Everything that could not be read and is to be tried again."""
        with self._database.view() as sql:
            return catalogue.failures(sql)

    def stored_pages(self, sha256: str) -> frozenset[int]:
        """Return the numbers of the pages that are stored of a file with these bytes."""
        query = (
            "SELECT p.number FROM pages p JOIN contents c ON c.id = p.content WHERE c.sha256 = ?"
        )
        with self._database.view() as sql:
            return frozenset(number for (number,) in sql.execute(query, (sha256,)))

    def failed_pages(self, sha256: str) -> dict[int, str]:
        """Return why pages of a file with these bytes could not be read, by their number."""
        query = (
            "SELECT f.page, f.reason FROM failures f JOIN contents c ON c.id = f.content"
            " WHERE c.sha256 = ?"
        )
        with self._database.view() as sql:
            return dict(sql.execute(query, (sha256,)).fetchall())

    def pages(self, document: str) -> tuple[PageRecord, ...]:
        """List the stored pages of a document, by number; raises DocumentUnknown."""
        with self._database.view() as sql:
            content = catalogue.content_of(sql, document)
            rows = catalogue.page_rows(self._database, content)
        return tuple(pages.record_of(self.folder, document, row) for row in rows)

    def page(self, document: str, number: int) -> PageRecord:
        """One stored page; raises DocumentUnknown."""
        with self._database.view():
            row = pages.row_of(self._database, document, number)
        return pages.record_of(self.folder, document, row)

    def pages_by_text_class(self, *classes: TextClass) -> tuple[tuple[str, int], ...]:
        """(document, page) of the pages whose text layer is of these classes, for OCR."""
        with self._database.view() as sql:
            return pages.with_text_class(sql, classes)

    def stats(self) -> IndexStats:
        """Count and weigh everything."""
        return measure(self.folder, self._database, self.settings)

    def verify(self) -> VerifyReport:
        """Check every checksum of files and rows; says what is damaged and what to read again."""
        return Verifier(self.folder, self._database, self._codec).report()
