"""Files into the index: read ahead, encode, store, and go on where the last run stopped.

    discover → prepare (hash, count pages) → begin_document → read pages ahead → encode → add_page
                                              └ pages that are stored already are not read again

Preparing and reading run in worker processes ahead of the encoder, which therefore never waits;
everything that touches the index or the model runs in the caller's thread.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from index.errors import DocumentUnknown
from index.page_index import PageIndex
from index.records import DocumentInput, DocumentRecord, PageInput, Resume, TextClass
from rag.encoder import PIXELS_PER_TOKEN, Encoder
from rag.errors import DocumentError
from rag.interrupts import interrupts_later
from rag.office import OfficeConverter
from rag.reader import Limits, PageReader, ReaderPool, ReadPage
from rag.sources import (
    Discovery,
    Source,
    file_sha256,
    is_gone,
    path_of,
    storable,
    which_gone,
)
from rag.text_quality import language_of
from rag.words import counted

COMMIT_PAGES = 32
INTERRUPTED = "interrupted; the same command goes on where this one stopped"
LANGUAGE_SAMPLE = 20_000  # characters of a document that its language is told from


@dataclass(frozen=True)
class PageRange:
    """Pages first to last, both included, 1-based; last None is the end of the document."""

    first: int = 1
    last: int | None = None

    def __str__(self) -> str:
        return f"--pages {self.first}-{self.last or ''}"

    def of(self, n_pages: int) -> range:
        """Return the page numbers of a document that has `n_pages`."""
        return range(self.first, min(n_pages, self.last or n_pages) + 1)


@dataclass(frozen=True)
class IngestOptions:
    """How to read; what shapes vectors (dpi, tokens) must agree with the index's settings."""

    dpi: int
    passwords: tuple[str, ...] = ()
    pages: PageRange = PageRange()
    prune: bool = False
    n_readers: int = 1
    commit_seconds: float = 2.0
    limits: Limits = Limits()


@dataclass(frozen=True)
class Trouble:
    """A failure or a remark: document, page (None: the whole document) and one line."""

    document: str
    page: int | None
    reason: str


LINK_NOTE = "is a link to a folder and was not followed; name the folder itself to read it"


class StopIngest(Exception):
    """Raised by a Progress that wants the run to end; what was read is kept."""


@dataclass
class IngestReport:
    """What a run did; `interrupted` says that Ctrl-C or a full disk ended it early."""

    documents: Counter[str] = field(default_factory=Counter)
    pages: Counter[str] = field(default_factory=Counter)
    failures: list[Trouble] = field(default_factory=list)
    notes: list[Trouble] = field(default_factory=list)
    skipped: Mapping[str, int] = field(default_factory=dict)
    read_by_ocr: list[tuple[str, int]] = field(default_factory=list)
    unread_pages: int = 0  # without usable text, and nothing to read them
    pages_read_by_model: int = 0  # off their images; no OCR to read them more surely
    moved: Mapping[str, str] = field(default_factory=dict)  # names of files that have another now
    gone: tuple[str, ...] = ()  # documents whose files are no longer there, and which stay
    elsewhere: tuple[str, ...] = ()  # so are these, of folders that were not given
    older: tuple[str, ...] = ()  # documents shown as before: their new version cannot be read
    kept: list[str] = field(default_factory=list)  # so are these: just now, no byte could be read
    seconds: float = 0.0
    interrupted: str = ""

    def add(self, later: "IngestReport") -> None:
        """Take in the report of a run that came after this one."""
        self.documents = Counter(self.documents + later.documents)
        self.pages = Counter(self.pages + later.pages)
        self.failures += later.failures
        self.notes += later.notes
        self.read_by_ocr += later.read_by_ocr
        self.unread_pages = later.unread_pages  # of the whole index
        self.pages_read_by_model = later.pages_read_by_model
        self.seconds += later.seconds
        self.older += later.older
        self.kept += later.kept
        self.interrupted = later.interrupted


class Progress(Protocol):
    """Who wants to know how far an ingest is; pages count as done once they are committed."""

    def update(
        self, *, documents: tuple[int, int], pages: tuple[int, int], failed: int, what: str
    ) -> None:
        """Documents and pages as (done, known so far), failures so far, what is being read."""


@dataclass(frozen=True)
class Prepared:
    """A source whose bytes are known, but for those that cannot be read: sha256 is "" then."""

    source: Source
    sha256: str = ""
    size_bytes: int = 0
    modified: float = 0.0
    n_pages: int = 0
    pdf: Path | None = None  # what to render: the file, or LibreOffice's conversion
    title: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class PageJob:
    """One page to be read."""

    document: Prepared
    number: int


@dataclass(frozen=True)
class DocumentEnd:
    """All pages of a document have been handed out."""

    document: Prepared
    resume: Resume
    is_whole: bool  # no page was left out by --pages


@dataclass(frozen=True)
class PageDone:
    """A page as read, or why it could not be."""

    job: PageJob
    page: ReadPage | None
    reason: str = ""


@dataclass
class _Reading:
    """What is kept of a document between its first and last page."""

    has_content: bool = False
    blank: list[PageInput] = field(default_factory=list)
    notes: list[Trouble] = field(default_factory=list)  # on the blank ones
    text: str = ""
    n_new: int = 0
    n_failed: int = 0


class Ingest:
    """One run over some sources."""

    def __init__(
        self,
        page_index: PageIndex,
        encoder: Encoder,
        options: IngestOptions,
        progress: Progress,
        office: OfficeConverter,
    ) -> None:
        self.report = IngestReport()
        self._index = page_index
        self._encoder = encoder
        self._options = options
        self._progress = progress
        self._office = office
        self._known = {each.name: each for each in page_index.documents()}
        self._pages_of_complete = {
            each.sha256: each.n_pages for each in self._known.values() if each.status == "complete"
        }
        self._reading: dict[str, _Reading] = {}
        self._begun_sha256: dict[str, str] = {}
        self._later: list[Prepared] = []
        self._finished: Counter[str] = Counter()  # documents whose pages wait for a commit
        self._last_commit = time.monotonic()
        self._n_documents = (0, 0)
        self._n_pages = [0, 0]  # committed, begun
        self._n_ahead: dict[str, int] = {}  # pages of documents that have been opened, not begun

    def run(self, discovery: Discovery) -> IngestReport:
        """Bring the index up to date with what was discovered; see `report` for how it went.

        Ctrl-C, or StopIngest of the progress, ends it early and keeps what was read; IndexFull is
        raised, the report stays true.
        """
        self.report.skipped = discovery.skipped
        self.report.failures += [
            Trouble(name, None, why) for name, why in discovery.unlisted.items()
        ]
        self.report.notes += link_notes(discovery)
        self._n_documents = (0, len(discovery.sources))
        try:
            self._read_all(discovery)
            self._commit("")  # counted here: removing commits, too
            self.report.older = self._older()
            self._forget_gone(discovery)
        except (KeyboardInterrupt, StopIngest):
            self._commit("")
            self.report.interrupted = INTERRUPTED
        return self.report

    def _read_all(self, discovery: Discovery) -> None:
        options = self._options
        with (
            ReaderPool(1, options.passwords, options.limits) as preparing,
            ReaderPool(options.n_readers, options.passwords, options.limits) as reading,
        ):
            preparing.depth = max(1, len(discovery.sources))  # results are small: run far ahead
            jobs = self._jobs(preparing.map_ahead(self._prepare, discovery.sources))
            for done in reading.map_ahead(self._read, jobs):
                if isinstance(done, DocumentEnd):
                    self._finish(done)
                else:
                    self._store(done)
                self._commit_sometimes(done)

    # -- ahead of the encoder, in other threads -------------------------------------------------

    def _prepare(self, reader: PageReader, source: Source) -> Prepared:
        sha256 = ""
        try:
            sha256 = file_sha256(source.path)
            state = source.path.stat()
            n_pages, title = self._pages_of_complete.get(sha256), ""
            pdf = source.path
            if n_pages is None:
                if source.is_office:
                    pdf = self._office.to_pdf(source.path, sha256)
                n_pages, title = reader.about(pdf)
        except DocumentError as error:
            return Prepared(source, sha256, trouble=str(error))
        except OSError as error:
            return Prepared(source, sha256, trouble=f"cannot be read: {error.strerror}")
        if sha256 not in self._pages_of_complete:
            self._n_ahead[source.name] = len(self._options.pages.of(n_pages))
        return Prepared(source, sha256, state.st_size, state.st_mtime, n_pages, pdf, title=title)

    def _read(self, reader: PageReader, job: PageJob | DocumentEnd) -> PageDone | DocumentEnd:
        if isinstance(job, DocumentEnd):
            return job
        assert job.document.pdf is not None
        try:
            page = reader.read(
                job.document.pdf,
                job.number,
                dpi=self._options.dpi,
                max_pixels=self._encoder.max_visual_tokens * PIXELS_PER_TOKEN,
                thumbnail=True,
            )
        except DocumentError as error:
            return PageDone(job, None, str(error))
        return PageDone(job, page)

    # -- in the caller's thread -----------------------------------------------------------------

    def _jobs(self, documents: Iterator[Prepared]) -> Iterator[PageJob | DocumentEnd]:
        for document in documents:
            self._n_ahead.pop(document.source.name, None)
            if document.trouble:
                self._fail_document(document)
            elif document.sha256 in self._begun_sha256.values():
                # Its twin is being read: once that is stored, this one needs only its name.
                self._later.append(document)
            else:
                yield from self._pages_of(document)

    def _pages_of(self, document: Prepared) -> Iterator[PageJob | DocumentEnd]:
        name = document.source.name
        if reason := none_of(self._options.pages, document.n_pages):
            self.report.failures.append(Trouble(name, None, reason))
            self.report.documents["failed"] += 1
            self._document_done()
            return
        resume = self._begin(document)
        if resume.unchanged:
            if not self._is_shown(document):
                self._index.finish_document(name)
            self._count_unchanged(document)
            return
        self._begun_sha256[name] = document.sha256
        self._reading[name] = _Reading()
        wanted = [n for n in self._options.pages.of(document.n_pages) if n not in resume.done]
        self._n_pages[1] += len(wanted)
        for number in wanted:
            yield PageJob(document, number)
        is_whole = len(wanted) + len(resume.done) >= document.n_pages
        yield DocumentEnd(document, resume, is_whole)

    def _is_shown(self, document: Prepared) -> bool:
        """Say whether the index already shows these bytes under this name."""
        before = self._known.get(document.source.name)
        return before is not None and (before.sha256, before.status) == (
            document.sha256,
            "complete",
        )

    def _begin(self, document: Prepared) -> Resume:
        return self._index.begin_document(
            DocumentInput(
                name=document.source.name,
                sha256=document.sha256,
                n_pages=document.n_pages,
                source=storable(document.source.path),
                size_bytes=document.size_bytes,
                modified=document.modified,
                title=document.title,
            )
        )

    def _store(self, done: PageDone) -> None:
        name, number = done.job.document.source.name, done.job.number
        reading = self._reading[name]
        if done.page is None:
            reading.n_failed += 1
            self._fail_page(name, number, done.reason)
            return
        page = done.page
        encoded = self._encoder.page(page.image)
        text, kind = text_of(page, encoded.read)
        record = PageInput(
            number, encoded.vectors, encoded.grid, text, kind, page.thumbnail, encoded.read
        )
        reading.notes += [Trouble(name, number, note) for note in page.notes]
        if page.blank and not reading.has_content:
            reading.blank.append(record)  # until a page with something on it turns up
            return
        reading.has_content = True
        self._note(reading)
        if len(reading.text) < LANGUAGE_SAMPLE:
            reading.text += text
        self._add(name, [*reading.blank, record])
        reading.blank.clear()

    def _note(self, reading: _Reading) -> None:
        """Report the remarks on pages that are stored; of others, the failure says it all."""
        self.report.notes += reading.notes
        reading.notes.clear()

    def _add(self, name: str, pages: Iterable[PageInput]) -> None:
        for page in pages:
            self._index.add_page(name, page)
            self._reading[name].n_new += 1

    def _finish(self, end: DocumentEnd) -> None:
        name = end.document.source.name
        reading = self._reading[name]
        del self._begun_sha256[name]
        if end.resume.done or not end.is_whole:
            reading.has_content |= bool(reading.blank or end.resume.done)
            self._note(reading)
            self._add(name, reading.blank)
        else:
            for each in reading.blank:
                self._fail_page(name, each.number, "page is blank, like all of this document")
        self._index.finish_document(name, language=language_of(reading.text))
        del self._reading[name]
        self._finished[self._outcome(end, reading)] += 1
        self._document_done()
        self._finish_twins(end.document.sha256)

    def _outcome(self, end: DocumentEnd, reading: _Reading) -> str:
        """Say what a document that was read counts as."""
        if not reading.has_content:
            return "failed"
        before = self._known.get(end.document.source.name)
        if before is None or is_new(before, end.document.sha256):
            return "added"
        if before.sha256 == end.document.sha256 and not reading.n_new:
            return "failed" if reading.n_failed else "unchanged"
        return "updated"

    def _finish_twins(self, sha256: str) -> None:
        twins = [each for each in self._later if each.sha256 == sha256]
        if not twins:
            return
        self._later = [each for each in self._later if each.sha256 != sha256]
        self._commit("")  # begin_document tells what is committed
        for twin in twins:
            name = twin.source.name
            resume = self._begin(twin)
            self._index.finish_document(name)
            for number, reason in resume.failed.items():
                self._fail_page(name, number, reason)
            self._count_unchanged(twin)

    def _count_unchanged(self, document: Prepared) -> None:
        """Count a document that needed no reading: known as it is, or another name for it."""
        before = self._known.get(document.source.name)
        if before is None or is_new(before, document.sha256):
            self.report.documents["added"] += 1
        else:
            is_same = before.sha256 == document.sha256
            self.report.documents["unchanged" if is_same else "updated"] += 1
        self._document_done()

    def _fail_page(self, name: str, number: int, reason: str) -> None:
        self._index.fail_page(name, number, reason)
        self.report.failures.append(Trouble(name, number, reason))
        self.report.pages["failed"] += 1

    def _fail_document(self, document: Prepared) -> None:
        name = document.source.name
        if self._is_as_read(document):
            self.report.kept.append(name)
        else:
            source = storable(document.source.path)
            self._index.fail_document(name, document.trouble, source=source)
        self.report.failures.append(Trouble(name, None, document.trouble))
        self.report.documents["failed"] += 1
        self._document_done()

    def _is_as_read(self, document: Prepared) -> bool:
        """Say whether nothing tells a file whose bytes cannot be read from what is stored of it."""
        before = self._known.get(document.source.name)
        if document.sha256 or before is None or not before.n_pages_stored:
            return False
        try:
            state = document.source.path.stat()
        except OSError:
            return True
        return (state.st_size, state.st_mtime) == (before.size_bytes, before.modified)

    def _older(self) -> tuple[str, ...]:
        """Names of the documents that failed and are shown as they were before."""
        failed = sorted({each.document for each in self.report.failures})
        return tuple(name for name in failed if self._is_outdated(name))

    def _is_outdated(self, name: str) -> bool:
        try:
            return self._index.document(name).outdated is not None
        except DocumentUnknown:  # a folder
            return False

    def _forget_gone(self, discovery: Discovery) -> None:
        """Take out the names of files that have moved, and with --prune those of all that went."""
        gone = documents_gone(self._known.values(), discovery)
        found = {each.name for each in discovery.sources}
        moved = {name: now for name in gone if (now := self._name_now(name, found))}
        forgotten = gone if self._options.prune else tuple(moved)
        if forgotten:
            self.report.documents["removed"] = len(self._index.remove_documents(forgotten))
        self.report.moved = moved
        self.report.gone = tuple(name for name in gone if name not in forgotten)
        self.report.elsewhere = documents_elsewhere(self._known.values(), discovery)

    def _name_now(self, name: str, found: set[str]) -> str | None:
        """Return the new name of a file whose old one is gone; None: it did not move.

        A copy that was known before says nothing: the other may lie on a drive that is not there.
        """
        twins = [
            each
            for each in self._index.document(name).same_as
            if each in found and each not in self._known and not self._is_outdated(each)
        ]
        return min(twins, default=None)

    def _document_done(self) -> None:
        self._n_documents = (self._n_documents[0] + 1, self._n_documents[1])

    def _commit_sometimes(self, done: PageDone | DocumentEnd) -> None:
        document = done.document if isinstance(done, DocumentEnd) else done.job.document
        waited = time.monotonic() - self._last_commit
        if waited > self._options.commit_seconds or self._index.n_uncommitted >= COMMIT_PAGES:
            self._commit(document.source.name)

    def _commit(self, what: str) -> None:
        with interrupts_later():  # what is committed and what is reported are to agree
            n_committed = self._index.commit()
            self.report.pages["added"] += n_committed
            self._n_pages[0] += n_committed
            self.report.documents.update(self._finished)
            self._finished.clear()
        self._last_commit = time.monotonic()
        self._progress.update(
            documents=self._n_documents,
            # a list first, all at once: other threads add to it
            pages=(self._n_pages[0], self._n_pages[1] + sum(list(self._n_ahead.values()))),
            failed=len(self.report.failures),
            what=what,
        )


def link_notes(discovery: Discovery) -> list[Trouble]:
    """Remarks on links to folders."""
    return [Trouble(name, None, LINK_NOTE) for name in discovery.links]


def is_new(before: DocumentRecord, sha256: str) -> bool:
    """Say whether a document counts as new though it is known: its first reading was cut short."""
    return before.unfinished and before.sha256 == sha256


def none_of(pages: PageRange, n_pages: int) -> str:
    """Say that a document has none of the pages that are to be read; "" if it has one."""
    return "" if pages.of(n_pages) else f"has {counted(n_pages, 'page')}, none of them in {pages}"


def text_of(page: ReadPage, read: str) -> tuple[str, TextClass]:
    """Return what the index is to keep as a page's text, and how it is to take it.

    read  what the model itself reads on the page: it completes a text layer that lacks something
    """
    kind = text_class(page)
    if kind == "healthy" or page.blank or not read.strip():
        return page.text, kind
    return "\n".join(filter(None, (page.text, read))), "read"


def text_class(page: ReadPage) -> TextClass:
    """Return how the index is to take a page's text."""
    if page.text_state == "good":
        return "healthy"
    if page.text.strip():
        return "thin"  # a footer under a picture, or the good lines of a garbage text layer
    return "garbage" if page.text_state == "garbage" else "missing"


def documents_gone(known: Iterable[DocumentRecord], discovery: Discovery) -> tuple[str, ...]:
    """Names of the documents that were read from the ingested folders and are no longer there."""
    found = {each.name for each in discovery.sources}
    return tuple(
        each.name
        for each in known
        if each.name not in found
        and any(path_of(each.source).is_relative_to(folder) for folder in discovery.folders)
        and is_gone(path_of(each.source))
    )


def documents_elsewhere(known: Iterable[DocumentRecord], discovery: Discovery) -> tuple[str, ...]:
    """Names of the documents whose folders are gone, and are none that was ingested, or in one."""
    found = {each.name for each in discovery.sources}
    names = defaultdict(list)
    for each in known:
        if each.name not in found:
            names[path_of(each.source).parent].append(each.name)
    outside = which_gone(
        folder
        for folder in names
        if not any(folder.is_relative_to(each) for each in discovery.folders)
    )
    gone = (folder for folder, is_gone in outside.items() if is_gone)
    return tuple(sorted(name for folder in gone for name in names[folder]))
