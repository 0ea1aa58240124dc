"""What the server keeps: documents, their pages, uploaded files, and the one ingest.

Part of `ui.service`; as there, every method may be called from any thread, and nothing that it
returns or raises says where on this machine's disk a file lies.
"""

import stat
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from PIL import Image

from rag.errors import DocumentError, UsageError
from rag.ingest import IngestReport, Progress
from rag.intake import IngestRequest
from rag.page_images import document_file
from rag.pipeline import Pipeline
from rag.records import DocumentRecord, DocumentUnknown, Failure, IndexMissing, PageRecord
from rag.sources import Known, discover, path_of
from ui.errors import ExpectedError, NotAllowed, ServiceBusy, for_clients, public
from ui.jobs import IngestJob, IngestProgress
from ui.uploads import Unread, store

Box = tuple[float, float, float, float]
MOST_DPI = 300
MOST_SIDE_PX = 4000
MOST_WORDS = 100
Mark = tuple[tuple[int, int, int] | None, ...]


class Library:
    """The documents of one server."""

    def __init__(self, pipeline: Pipeline, upload_bytes: int, roots: tuple[Path, ...]) -> None:
        """Open nothing.

        roots  folders that `ingest` may read from, beside `folder`, that of uploaded files
        """
        self._pipeline, self._settings = pipeline, pipeline.settings
        self._upload_bytes = upload_bytes
        self.roots = tuple(root.resolve() for root in roots)
        index = pipeline.settings.index.absolute()
        # links followed, as in what is recorded of a document
        self.folder = index.parent.resolve() / f"{index.name.lstrip('.') or 'yomu'}-library"
        self._writing = threading.Lock()  # one job or removal at a time
        self._job: IngestJob | None = None
        self._line = threading.Lock()  # around the three below
        self._waiting: list[IngestRequest] = []  # uploads that the running job is to read as well
        self._taken: list[Path] = []  # those of them that it has begun
        self._takes_more = False
        self._unread = Unread(self.folder)
        self._is_closing = False
        self._sized: tuple[Mark, tuple[int, int, dict[str, int]]] | None = None

    def close(self) -> None:
        """Stop the ingest; uploads that are not read yet are kept for the next start."""
        self._is_closing = True
        if self._job is not None:
            self._job.cancel()
            self._job.join(30.0)

    def mark(self) -> Mark:
        """Return what is another once a document has come, gone or changed; costs a few stats."""
        index = self._settings.index
        watched = (index / "index.db", index / "index.db-wal", index / "segments", self.folder)
        return tuple(map(_mark, watched))

    def sizes(self) -> tuple[int, int, dict[str, int]]:
        """Return how many documents and pages there are, and bytes by part, uploads and total.

        They are counted anew only where the mark is another: every open page asks all the time.
        """
        mark, sized = self.mark(), self._sized
        if sized is None or sized[0] != mark:
            self._sized = sized = mark, self._count()
        return sized[1]

    def _count(self) -> tuple[int, int, dict[str, int]]:
        uploads = sum(each.stat().st_size for each in self.folder.glob("*") if each.is_file())
        with for_clients():
            try:
                stats = self._pipeline.house.stats()
            except IndexMissing:
                return 0, 0, {"uploads": uploads, "total": uploads}
        sizes = {**stats.bytes, "uploads": uploads, "total": stats.bytes["total"] + uploads}
        return stats.documents, stats.pages, sizes

    def documents(self, pattern: str = "*") -> tuple[tuple[DocumentRecord, ...], list[Failure]]:
        """Return the documents whose name matches a glob, and what could not be read of them.

        Nothing says where they lie.
        """
        with for_clients():
            try:
                records, failures = self._pipeline.house.documents(pattern)
            except IndexMissing:
                return (), []
        return (
            tuple(replace(each, source="", reason=_public(each.reason)) for each in records),
            [replace(each, reason=public(each.reason)) for each in failures],
        )

    def page(self, document: str, page: int) -> PageRecord:
        """Return what is stored of a page: its text layer, its size in cells."""
        with for_clients():
            return replace(self._pipeline.page(document, page), thumbnail=None)

    def page_image(self, document: str, page: int, max_side_px: int) -> Image.Image:
        """Return a page as RGB for people to look at, its longer side `max_side_px` at most."""
        side = min(max(max_side_px, 64), MOST_SIDE_PX)
        with for_clients():
            image = self._pipeline.page_image(document, page, dpi=MOST_DPI, max_pixels=side * side)
        image.thumbnail((side, side))
        return image

    def thumbnail(self, document: str, page: int) -> bytes | None:
        """Return the stored WebP of a page, or None where none is stored."""
        with for_clients():
            path = self._pipeline.page(document, page).thumbnail
        try:
            return Path(path).read_bytes() if path else None
        except OSError:
            return None

    def text_boxes(self, document: str, page: int, words: Sequence[str]) -> tuple[Box, ...]:
        """Return boxes, as shares of the page, where its text layer has these words."""
        with for_clients():
            found = self._pipeline.text_boxes(document, page, tuple(words)[:MOST_WORDS])
        return tuple(found)

    def document_bytes(self, document: str) -> bytes:
        """Return the PDF a document was read from.

        Raises DocumentUnknown, or DocumentError where it has changed, is gone or is no PDF.
        """
        with for_clients():
            data = document_file(self._record(document))
        if not data[:1024].lstrip().startswith(b"%PDF-") and b"%PDF-" not in data[:1024]:
            raise DocumentError("is no PDF; look at its pages instead")
        return data

    def _records(self) -> tuple[DocumentRecord, ...]:
        try:
            return self._pipeline.house.documents()[0]
        except IndexMissing:
            return ()

    def _record(self, document: str) -> DocumentRecord:
        for each in self._pipeline.house.documents()[0]:
            if each.name == document:
                return each
        raise DocumentUnknown(f"{document!r} is not in the index")

    def store_upload(self, name: str, path_or_bytes: Path | bytes) -> Path:
        """Keep a file that a person sent; `ingest` it then with uploaded=True.

        Raises NotAllowed for one that is too large, or not what its name says.
        """
        return store(self.folder, name, path_or_bytes, self._upload_bytes)

    def ingest(
        self, sources: Sequence[Path], *, uploaded: bool, passwords: tuple[str, ...] = ()
    ) -> str:
        """Read files and folders in the background; returns the id of the job.

        passwords  all are tried on encrypted PDFs, and none is kept

        Uploads that come while a job runs are read by it, too. Raises NotAllowed for a path outside
        the roots (or the library, if uploaded), ServiceBusy while another job runs; uploads that
        are refused are not kept.
        """
        allowed = (self.folder.resolve(),) if uploaded else self.roots
        paths = tuple(_allowed(path, allowed) for path in sources)
        if not paths:
            raise UsageError("nothing to read: name a file or a folder")
        request = IngestRequest(paths, passwords=passwords)
        if uploaded:
            self._unread.add(paths)
        with self._line:
            if uploaded and self._takes_more and self._job is not None:
                self._waiting.append(request)
                return self._job.id
        try:
            return self._start(request, uploads=paths if uploaded else ())
        except ServiceBusy:
            if uploaded:
                self.discard(paths)
                self._unread.remove(paths)
            raise

    def resume(self) -> None:
        """Read the uploads that were not read to the end when the server was stopped."""
        paths = tuple(self._unread.paths())
        if paths and not self._is_closing:
            with suppress(ServiceBusy):  # that job takes them in
                self._start(IngestRequest(paths), uploads=paths, is_resumed=True)

    def names_of(self, paths: Sequence[Path]) -> list[str]:
        """Return the names that the index has, or is going to have, for uploads."""
        known = {
            each.name: Known(path_of(each.source), each.sha256, each.size_bytes)
            for each in self._records()
        }
        found = {
            each.path: each.name for each in discover(paths, known, self._settings.index).sources
        }
        return [found[path.resolve()] for path in paths]

    def reread(self, document: str, passwords: tuple[str, ...] = ()) -> str:
        """Read a document again from its file; returns the id of the job.

        What is stored of it stays until all of that has been read anew. Raises DocumentUnknown,
        DocumentError where its file is gone or cannot be opened, ServiceBusy.
        """
        with for_clients():
            path = path_of(self._record(document).source)
            try:
                path.open("rb").close()
            except OSError:
                raise DocumentError(f"{document}: its file is gone; add it again") from None
        request = IngestRequest((path,), names={document: path}, passwords=passwords)
        return self._start(request, again=document)

    def _start(
        self,
        request: IngestRequest,
        again: str = "",
        uploads: tuple[Path, ...] = (),
        *,
        is_resumed: bool = False,
    ) -> str:
        def work(progress: Progress) -> IngestReport:
            with self._writing:
                is_read = False
                try:
                    report = read(progress)
                    is_read = not report.interrupted
                    return report
                finally:
                    # another server may be at what this one owed and could not read
                    is_owed = is_resumed and not is_read and not job.is_cancelled
                    job.dropped = self._take_no_more(() if is_owed else uploads)

        def read(progress: Progress) -> IngestReport:
            with Pipeline(self._settings, self._pipeline.encoder) as pipeline:
                if again:
                    pipeline.house.read_again(again)
                report = pipeline.ingest(request, progress)
                while not report.interrupted and (more := self._next()):
                    report.add(pipeline.ingest(more, progress))
                return report

        if not self._writing.acquire(blocking=False):
            raise ServiceBusy("documents are being added or removed; wait until that is done")
        try:
            if self._job is not None and self._job.is_running:
                raise ServiceBusy("documents are being added already; wait until that is done")
            self._job = job = IngestJob(work)
            with self._line:
                self._takes_more = True
        finally:
            self._writing.release()
        job.start()
        return job.id

    def _next(self) -> IngestRequest | None:
        """Return what waits; where there is nothing, no more is taken."""
        with self._line:
            found, self._waiting = self._waiting, []
            self._takes_more = bool(found)
            self._taken += [path for each in found for path in each.paths]
        paths = dict.fromkeys(path for each in found for path in each.paths)
        passwords = dict.fromkeys(word for each in found for word in each.passwords)
        return IngestRequest(tuple(paths), passwords=tuple(passwords)) if found else None

    def _take_no_more(self, uploads: Sequence[Path]) -> tuple[str, ...]:
        """End the line; what was not read, since the job was stopped or failed, is not kept.

        Returns the names of what was dropped. At the end of the server all is kept.
        """
        with self._line:
            left, self._waiting, self._takes_more = self._waiting, [], False
            taken, self._taken = self._taken, []
        if self._is_closing:
            return ()
        ended = [*uploads, *taken, *(path for each in left for path in each.paths)]
        dropped = self.discard(ended)
        self._unread.remove(ended)
        return dropped

    def discard(self, paths: Sequence[Path]) -> tuple[str, ...]:
        """Delete uploads that no document was read from; an index that is damaged may know all.

        Returns their names.
        """
        if not paths:
            return ()
        try:
            known = {path_of(each.source) for each in self._records()}
        except ExpectedError:
            return ()
        unknown = [path for path in dict.fromkeys(paths) if path not in known]
        for path in unknown:
            path.unlink(missing_ok=True)
        return tuple(path.name for path in unknown)

    def job(self) -> IngestProgress | None:
        """Return how far the last ingest is; None before the first."""
        return None if self._job is None else self._job.snapshot()

    def cancel_job(self) -> None:
        """Stop the ingest at its next commit; what was read is kept."""
        if self._job is not None:
            self._job.cancel()

    def remove(self, document: str) -> None:
        """Remove a document: vectors, text, images, and its file if it was uploaded.

        Raises DocumentUnknown, ServiceBusy.
        """
        with for_clients():
            record = self._record(document)
            if not self._writing.acquire(blocking=False):
                raise ServiceBusy("documents are being added; wait until that is done")
            try:
                self._pipeline.house.remove_documents([document])
            finally:
                self._writing.release()
        source = path_of(record.source)
        if record.source and source.parent == self.folder:
            source.unlink(missing_ok=True)


def _mark(path: Path) -> tuple[int, int, int] | None:
    """Return what tells a file or folder from what it was; None where there is none.

    An empty file counts as none: readers leave an empty log beside the index.
    """
    try:
        state = path.stat()
    except OSError:
        return None
    if not state.st_size and stat.S_ISREG(state.st_mode):
        return None
    return state.st_ino, state.st_mtime_ns, state.st_size


def _allowed(path: Path, roots: tuple[Path, ...]) -> Path:
    """Return a path below one of the roots, links followed. Raises NotAllowed."""
    resolved = path.resolve()
    if not any(resolved.is_relative_to(root) for root in roots):
        raise NotAllowed(
            f"{path.name or 'this folder'} may not be read by this server; start it with "
            "`--root FOLDER` to allow a folder"
        )
    return resolved


def _public(message: str | None) -> str | None:
    return None if message is None else public(message)
