"""Keeping house: what an index holds, what of it is damaged, what can go."""

from collections.abc import Sequence
from pathlib import Path

from index.page_index import PageIndex
from index.records import DocumentRecord, Failure, IndexStats, VerifyReport


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

    def remove(self, pattern: str, wait_s: float = 0.0) -> tuple[str, ...]:
        """Remove the documents whose name matches a glob: vectors, text and images."""
        with PageIndex.open(self.index, writable=True, wait_s=wait_s) as page_index:
            return page_index.remove(pattern)

    def remove_documents(self, names: Sequence[str], wait_s: float = 0.0) -> tuple[str, ...]:
        """Remove exactly these documents; a name may look like a glob."""
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

    def mend(self) -> tuple[DocumentRecord, ...]:
        """Drop what is damaged; returns the documents to be read again (`ingest` their source)."""
        with PageIndex.open(self.index, writable=True) as page_index:
            known = {each.name: each for each in page_index.documents()}
            return tuple(known[name] for name in page_index.mend() if name in known)

    def stats(self) -> IndexStats:
        """Return counts and sizes."""
        with PageIndex.open(self.index) as page_index:
            return page_index.stats()

    def compact(self, wait_s: float = 0.0) -> tuple[IndexStats, IndexStats]:
        """Reclaim space; return the sizes before and after."""
        with PageIndex.open(self.index, writable=True, wait_s=wait_s) as page_index:
            before = page_index.stats()
            return before, page_index.compact()
