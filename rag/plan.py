"""What an ingest would do: `--dry-run`."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from index.records import DocumentRecord
from rag.errors import DocumentError
from rag.ingest import IngestOptions, Trouble, documents_gone, none_of
from rag.reader import PageReader, ReaderPool
from rag.sources import Discovery, Source, file_sha256


@dataclass
class IngestPlan:
    """Counts as an ingest would report them, and what it could not open."""

    documents: Counter[str] = field(default_factory=Counter)
    n_pages: int = 0
    failures: list[Trouble] = field(default_factory=list)


def plan_ingest(
    discovery: Discovery,
    known: Sequence[DocumentRecord],
    options: IngestOptions,
    stored_pages: Callable[[str], frozenset[int]],
) -> IngestPlan:
    """Hash and open every file, compare with the index, write nothing.

    stored_pages  sha256 of a file -> numbers of its pages that are in the index
    """
    by_name = {each.name: each for each in known}
    counts = {each.sha256: each.n_pages for each in known}
    complete = {each.sha256 for each in known if each.status == "complete"}
    planned: dict[str, set[int]] = {}  # of files with the same bytes, pages are read once
    plan = IngestPlan()
    plan.failures += [Trouble(name, None, why) for name, why in discovery.unlisted.items()]

    def look(reader: PageReader, source: Source) -> tuple[Source, str, int, str]:
        try:
            sha256 = file_sha256(source.path)
            if sha256 in complete:
                n_pages = counts[sha256]
            elif source.is_office:
                # LibreOffice would take seconds a file: a new Office file counts as one page here.
                n_pages = counts.get(sha256) or options.pages.first
            else:
                n_pages = reader.page_count(source.path)
        except DocumentError as error:
            return source, "", 0, str(error)
        return source, sha256, n_pages, none_of(options.pages, n_pages)

    with ReaderPool(1, options.passwords, options.limits) as pool:
        for source, sha256, n_pages, trouble in pool.map_ahead(look, discovery.sources):
            if trouble:
                plan.documents["failed"] += 1
                plan.failures.append(Trouble(source.name, None, trouble))
                continue
            done = planned.setdefault(sha256, set(stored_pages(sha256)))
            wanted = set(options.pages.of(n_pages)) - done
            done |= wanted
            plan.n_pages += len(wanted)
            before = by_name.get(source.name)
            if before is None:
                plan.documents["added"] += 1
            else:
                is_same = before.sha256 == sha256 and not wanted
                plan.documents["unchanged" if is_same else "updated"] += 1
    if options.prune:
        plan.documents["removed"] = len(documents_gone(known, discovery))
    return plan
