"""What an ingest would do: `--dry-run`."""

from collections import Counter
from collections.abc import Sequence
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
    discovery: Discovery, known: Sequence[DocumentRecord], options: IngestOptions
) -> IngestPlan:
    """Hash and open every file, compare with the index, write nothing."""
    by_name = {each.name: each for each in known}
    stored = {each.sha256 for each in known if each.status == "complete"}
    plan = IngestPlan()
    plan.failures += [Trouble(name, None, why) for name, why in discovery.unlisted.items()]

    def look(reader: PageReader, source: Source) -> tuple[Source, str, int, str]:
        try:
            sha256 = file_sha256(source.path)
            # LibreOffice would take seconds a file: an Office file counts as one page here.
            needs_count = sha256 not in stored and not source.is_office
            return source, sha256, reader.page_count(source.path) if needs_count else 1, ""
        except DocumentError as error:
            return source, "", 0, str(error)

    with ReaderPool(1, options.passwords, options.limits) as pool:
        for source, sha256, n_pages, trouble in pool.map_ahead(look, discovery.sources):
            before = by_name.get(source.name)
            if not trouble and not source.is_office and sha256 not in stored:
                trouble = none_of(options.pages, n_pages)
            if trouble:
                plan.documents["failed"] += 1
                plan.failures.append(Trouble(source.name, None, trouble))
            elif before is not None and before.sha256 == sha256 and sha256 in stored:
                plan.documents["unchanged"] += 1
            else:
                plan.documents["added" if before is None else "updated"] += 1
                n_stored = before.n_pages_stored if before and before.sha256 == sha256 else 0
                n_wanted = len(options.pages.of(n_pages)) if sha256 not in stored else 0
                plan.n_pages += max(0, n_wanted - n_stored)
                stored.add(sha256)
    if options.prune:
        plan.documents["removed"] = len(documents_gone(known, discovery))
    return plan
