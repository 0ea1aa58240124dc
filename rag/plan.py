"""What an ingest would do: `--dry-run`."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from index.records import DocumentRecord
from rag.errors import DocumentError
from rag.ingest import IngestOptions, Trouble, documents_gone, is_new, link_notes, none_of
from rag.office import OfficeConverter
from rag.reader import PageReader, ReaderPool
from rag.sources import Discovery, Source, file_sha256


@dataclass
class IngestPlan:
    """Counts as an ingest would report them, and what it could not open.

    notes and skipped are as in IngestReport.
    """

    documents: Counter[str] = field(default_factory=Counter)
    n_pages: int = 0
    failures: list[Trouble] = field(default_factory=list)
    notes: list[Trouble] = field(default_factory=list)
    skipped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Before:
    """What is in the index.

    stored_pages  sha256 of a file -> numbers of its pages that are in the index
    failed_pages  sha256 of a file -> those that could not be read -> why
    """

    known: Sequence[DocumentRecord] = ()
    stored_pages: Callable[[str], frozenset[int]] = lambda sha256: frozenset()
    failed_pages: Callable[[str], Mapping[int, str]] = lambda sha256: {}


def plan_ingest(discovery: Discovery, index: Before, options: IngestOptions) -> IngestPlan:
    """Hash and open every file, compare with the index, write nothing.

    Pages of the same bytes that could not be read before count as failed again.
    """
    by_name = {each.name: each for each in index.known}
    counts = {each.sha256: each.n_pages for each in index.known}
    complete = {each.sha256 for each in index.known if each.status == "complete"}
    planned: dict[str, set[int]] = {}  # of files with the same bytes, pages are read once
    new: set[str] = set()  # bytes of files whose name is not known
    plan = IngestPlan(notes=link_notes(discovery), skipped=discovery.skipped)
    plan.failures += [Trouble(name, None, why) for name, why in discovery.unlisted.items()]

    def look(reader: PageReader, source: Source) -> tuple[Source, str, int, str]:
        try:
            sha256 = file_sha256(source.path)
            if sha256 in complete:
                n_pages = counts[sha256]
            elif source.is_office:
                office.require(source.path)
                # LibreOffice would take seconds a file: a new Office file counts as one page here.
                n_pages = counts.get(sha256) or options.pages.first
            else:
                n_pages = reader.page_count(source.path)
        except DocumentError as error:
            return source, "", 0, str(error)
        return source, sha256, n_pages, none_of(options.pages, n_pages)

    with OfficeConverter() as office, ReaderPool(1, options.passwords, options.limits) as pool:
        for source, sha256, n_pages, trouble in pool.map_ahead(look, discovery.sources):
            if trouble:
                plan.documents["failed"] += 1
                plan.failures.append(Trouble(source.name, None, trouble))
                continue
            done = planned.setdefault(sha256, set(index.stored_pages(sha256)))
            wanted = set(options.pages.of(n_pages)) - done
            done |= wanted
            before = by_name.get(source.name)
            if before is None:
                new.add(sha256)
            again = {n: why for n, why in index.failed_pages(sha256).items() if n in wanted}
            plan.failures += [Trouble(source.name, n, why) for n, why in sorted(again.items())]
            wanted -= again.keys()
            plan.n_pages += len(wanted)
            if again and not wanted:
                plan.documents["failed"] += 1
            elif before is None or is_new(before, sha256):
                plan.documents["added"] += 1
            else:
                is_same = before.sha256 == sha256 and not wanted
                plan.documents["unchanged" if is_same else "updated"] += 1
    gone = documents_gone(index.known, discovery)
    moved = [name for name in gone if by_name[name].sha256 in new]
    plan.documents["removed"] = len(gone if options.prune else moved)
    return plan
