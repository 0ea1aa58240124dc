"""Keeping house: what an index holds, what of it is damaged, what can go."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from index.page_index import PageIndex
from index.records import DocumentRecord, Failure, Filters, IndexStats, VerifyReport
from rag.ingest import PageRange


@dataclass(frozen=True)
class Dropped:
    """A document that is to be read again, and how it had been read.

    pages   the pages it was read for; none: all of them, as usual
    by_ocr  some of its pages were read by OCR
    """

    record: DocumentRecord
    pages: tuple[PageRange, ...]
    by_ocr: bool


class House:
    """One index; every call opens it anew, so that it may be asked for beside an ingest.

    Writers wait `wait_s` seconds for another one to be done (below 0: as long as it takes) and then
    raise IndexLocked; all raise IndexMissing where there is no index.
    """

    def __init__(self, index: Path) -> None:
        self.index = index

    def documents(self, pattern: str = "*") -> tuple[tuple[DocumentRecord, ...], list[Failure]]:
        """Return the documents whose name matches a glob, and what could not be read of them."""
        with PageIndex.open(self.index) as page_index:
            records = page_index.documents(pattern)
            names = {each.name for each in records}
            return records, [each for each in page_index.failures() if each.document in names]

    def names(self, filters: Filters) -> frozenset[str]:
        """Names of the documents with pages that filters leave."""
        with PageIndex.open(self.index) as page_index:
            return page_index.names(filters)

    def has_pages(self) -> bool:
        """Say whether there is anything to search."""
        return bool(self.names(Filters()))

    def remove_documents(self, names: Sequence[str], wait_s: float = 0.0) -> tuple[str, ...]:
        """Remove exactly these documents: vectors, text and images."""
        with PageIndex.open(self.index, writable=True, wait_s=wait_s) as page_index:
            return page_index.remove_documents(names)

    def read_again(self, document: str, wait_s: float = 0.0) -> None:
        """Have the next ingest read a document again; its pages stay until that is done."""
        with PageIndex.open(self.index, writable=True, wait_s=wait_s) as page_index:
            page_index.read_again(document)

    def verify(self) -> VerifyReport:
        """Check every checksum of files and rows."""
        with PageIndex.open(self.index) as page_index:
            return page_index.verify()

    def mend(self, wait_s: float = 0.0) -> tuple[Dropped, ...]:
        """Drop what is damaged; returns the documents to be read again (`ingest` their source)."""
        with PageIndex.open(self.index, writable=True, wait_s=wait_s) as page_index:
            by_ocr = {name for name, _ in page_index.pages_by_text_class("ocr")}
            dropped = []
            names = page_index.mend()
            failed: dict[str, set[int]] = defaultdict(set)
            for each in page_index.failures():
                if each.page is not None:
                    failed[each.document].add(each.page)
            for name in names:
                record = page_index.document(name)
                is_ocr = not by_ocr.isdisjoint((name, *record.same_as))
                pages = _asked_for(page_index, record, failed[name])
                dropped.append(Dropped(record, pages, is_ocr))
            return tuple(dropped)

    def stats(self) -> IndexStats:
        """Return counts and sizes."""
        with PageIndex.open(self.index) as page_index:
            return page_index.stats()

    def compact(self, wait_s: float = 0.0) -> tuple[IndexStats, IndexStats]:
        """Reclaim space; return the sizes before and after."""
        with PageIndex.open(self.index, writable=True, wait_s=wait_s) as page_index:
            before = page_index.stats()
            return before, page_index.compact()


def _asked_for(
    page_index: PageIndex, record: DocumentRecord, failed: set[int]
) -> tuple[PageRange, ...]:
    """Pages a document was read for, or nothing if none was left out."""
    if not record.n_pages_stored:
        numbers = set()
    else:
        numbers = {page.number for page in page_index.pages(record.name)}
    numbers |= failed
    return runs_of(numbers) if len(numbers) < record.n_pages else ()


def runs_of(numbers: Iterable[int]) -> tuple[PageRange, ...]:
    """Write page numbers as ranges, as few as may be."""
    runs: list[PageRange] = []
    for number in sorted(numbers):
        if runs and runs[-1].last == number - 1:
            runs[-1] = PageRange(runs[-1].first, number)
        else:
            runs.append(PageRange(number, number))
    return tuple(runs)
