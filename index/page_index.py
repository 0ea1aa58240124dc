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

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

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
    VectorSettings,
    VerifyReport,
)

EVERYTHING = Filters()


class PageIndex:
    """A folder of multi-vectors, texts and thumbnails, one per page."""

    settings: VectorSettings
    folder: Path

    # -- opening ---------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        folder: Path,
        settings: VectorSettings | None = None,
        *,
        writable: bool = False,
        wait_s: float = 0.0,
    ) -> Self:
        """Open the index in `folder`; make it when it is missing and `writable`.

        settings  what the caller would encode with; None (reading only): whatever is stored
        wait_s    how long to wait for another writer to finish; -1: for as long as it takes
        Raises IndexMissing, IndexMismatch (other model, dpi, …: names the command that mends
        it), IndexLocked (another writer, after wait_s), IndexCorrupt.
        Several processes may hold a reader on one index, also on a read-only file system.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Give back files and the lock; what was not committed is forgotten."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commit when the block ended well, and close."""
        raise NotImplementedError

    # -- writing ---------------------------------------------------------------------------

    def begin_document(self, document: DocumentInput) -> Resume:
        """Say that this document is about to be read; returns what is already stored of it.

        The same bytes under a known name: status "complete" (nothing to do), "damaged" (retry
        the pages in `failed`) or "partial" (go on with the pages not in `done`). The same bytes
        under a new name: the name is added and the state of the stored content is returned, so
        a duplicate of a complete document needs nothing more. Other bytes under a known name:
        status "new"; the old pages stay visible until finish_document. A file that was only
        touched (same bytes, other date) gets its new date.
        """
        raise NotImplementedError

    def add_page(self, document: str, page: PageInput) -> None:
        """Pool, compress and buffer one page of a begun document; commit() makes it count.

        A page that is stored already is ignored (never twice). Clears the page's failure.
        Raises ShapeMismatch, DocumentUnknown.
        """
        raise NotImplementedError

    def fail_page(self, document: str, page: int, reason: str) -> None:
        """Record that a page could not be read; the document becomes "damaged", not lost."""
        raise NotImplementedError

    def fail_document(self, name: str, reason: str, *, source: str = "") -> None:
        """Record that a document as a whole could not be read; a stored content is kept."""
        raise NotImplementedError

    def finish_document(self, document: str, *, language: str | None = None) -> Status:
        """Say that reading is over; replaces the old content of the name by the new one.

        Returns "complete", "damaged" (some pages failed) or "partial" (pages were left out).
        Takes effect with the next commit().
        """
        raise NotImplementedError

    def set_text(self, document: str, page: int, text: str, text_class: TextClass) -> None:
        """Replace the text of a stored page, as OCR does afterwards; counts after commit()."""
        raise NotImplementedError

    def remove(self, pattern: str) -> tuple[str, ...]:
        """Remove the documents whose name matches a glob; returns their names, sorted.

        Commits at once. Their pages are invisible from then on; vectors, text and thumbnails
        of contents that no other name holds are deleted, and small segments rewritten; what is
        left over in big segments comes back with compact().
        """
        raise NotImplementedError

    def remove_documents(self, names: Iterable[str]) -> tuple[str, ...]:
        """Remove exactly these documents (`--prune`); otherwise as remove()."""
        raise NotImplementedError

    def commit(self) -> int:
        """Make everything since the last commit durable and visible; returns pages added.

        All or nothing: after an error (IndexFull) the pages are still buffered and commit() may
        be called again once there is space.
        """
        raise NotImplementedError

    @property
    def n_uncommitted(self) -> int:
        """Pages buffered since the last commit."""
        raise NotImplementedError

    def compact(self) -> IndexStats:
        """Rewrite segments without removed pages, renew the codebook, shrink the database."""
        raise NotImplementedError

    def maintain(self) -> None:
        """Do what `compact` does, but only where it pays now; call at the end of an ingest."""
        raise NotImplementedError

    def mend(self, report: VerifyReport) -> tuple[str, ...]:
        """Drop what `verify` found damaged; returns the documents the next ingest must read.

        Derived files (centroid sets, postings) are rebuilt from the vectors without reading.
        """
        raise NotImplementedError

    # -- searching -------------------------------------------------------------------------

    def search(
        self,
        k: int,
        *,
        vectors: Floats | None = None,
        text: str | None = None,
        mode: Mode = "hybrid",
        filters: Filters = EVERYTHING,
        exact: bool = False,
    ) -> tuple[PageHit, ...]:
        """Rank pages: the best k, best first; ties by age (the page stored first wins).

        vectors  (Q, dim) float32 of the question or of an image; needed by visual and hybrid
        text     the question; needed by text and hybrid
        exact    score every page (otherwise: every page when there are few or the filter leaves
                 few, candidates by their centroids and then exact scores when there are many)
        Returns fewer than k hits when fewer pages match (mode text: that share no word with the
        question). Raises FilterError, ShapeMismatch, IndexCorrupt.
        """
        raise NotImplementedError

    def patch_scores(self, vectors: Floats, document: str, page: int) -> PatchScores:
        """Where on the page each query vector finds its match; raises DocumentUnknown."""
        raise NotImplementedError

    # -- reading ---------------------------------------------------------------------------

    def documents(self, pattern: str = "*") -> tuple[DocumentRecord, ...]:
        """Documents whose name matches a glob, by name."""
        raise NotImplementedError

    def failures(self) -> tuple[Failure, ...]:
        """Everything that could not be read and is to be tried again."""
        raise NotImplementedError

    def pages(self, document: str) -> tuple[PageRecord, ...]:
        """List the stored pages of a document, by number; raises DocumentUnknown."""
        raise NotImplementedError

    def page(self, document: str, number: int) -> PageRecord:
        """One stored page; raises DocumentUnknown."""
        raise NotImplementedError

    def pages_by_text_class(self, *classes: TextClass) -> tuple[tuple[str, int], ...]:
        """(document, page) of the pages whose text layer is of these classes, for OCR."""
        raise NotImplementedError

    def stats(self) -> IndexStats:
        """Count and weigh everything."""
        raise NotImplementedError

    def verify(self) -> VerifyReport:
        """Check every checksum of files and rows; says what is damaged and what to read again."""
        raise NotImplementedError
