"""After the pages are stored: read those without a usable text layer by Tesseract.

Off the encoder's path and resumable: what a page says is committed every few pages, and a page
that was read is marked so, even if nothing was found on it.
"""

import os
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from index.page_index import PageIndex
from rag.errors import DocumentError
from rag.ingest import (
    INTERRUPTED,
    IngestOptions,
    IngestReport,
    Progress,
    StopIngest,
    Trouble,
)
from rag.ocr import OCR_DPI, OCR_MAX_PIXELS, Tesseract
from rag.office import OfficeConverter
from rag.reader import PageReader, ReaderPool
from rag.sources import Source
from rag.text_quality import language_of


@dataclass(frozen=True)
class OcrJob:
    """A stored page to be read, and its file."""

    document: str
    number: int
    source: Source
    sha256: str


@dataclass(frozen=True)
class OcrDone:
    """The text of a page, or why there is none."""

    job: OcrJob
    text: str
    reason: str = ""


class OcrPass:
    """Reads the stored pages of some documents that have no usable text."""

    def __init__(
        self,
        page_index: PageIndex,
        tesseract: Tesseract,
        options: IngestOptions,
        office: OfficeConverter,
    ) -> None:
        self._index = page_index
        self._tesseract = tesseract
        self._options = options
        self._office = office
        self._texts: dict[str, list[str]] = defaultdict(list)  # read by OCR, by the name at hand

    def run(self, sources: Iterable[Source], report: IngestReport, progress: Progress) -> None:
        """Read every page in need, adding to the report; Ctrl-C keeps what was read."""
        by_name = {each.name: each for each in sources}
        jobs = []
        lacking = sorted([*unread_pages(self._index), *pages_read_by_model(self._index)])
        for name, pages in groupby(lacking, key=itemgetter(0)):
            # a page goes by one of its names; the file at hand may have another
            names = (name, *self._index.document(name).same_as)
            source = next((by_name[each] for each in names if each in by_name), None)
            if source is not None:
                jobs += [self._job(name, number, source) for _, number in pages]
        try:
            self._read_all(jobs, report, progress, len(by_name))
        except (KeyboardInterrupt, StopIngest):
            report.interrupted = INTERRUPTED
        self._tell_languages()
        self._index.commit()

    def _tell_languages(self) -> None:
        """Record the language of documents that had no text to tell it from before."""
        for name, texts in self._texts.items():
            known = self._index.document(name)
            language = language_of("\n".join(texts))
            if known.language is None and language is not None:
                self._index.finish_document(name, language=language)

    def _read_all(
        self, jobs: list[OcrJob], report: IngestReport, progress: Progress, n_documents: int
    ) -> None:
        last_commit = time.monotonic()
        n_workers = max(1, (os.cpu_count() or 2) // 2)
        with ReaderPool(n_workers, self._options.passwords, self._options.limits) as pool:
            for n_done, done in enumerate(pool.map_ahead(self._read, jobs), 1):
                self._keep(done, report)
                if time.monotonic() - last_commit <= self._options.commit_seconds:
                    continue
                self._index.commit()
                last_commit = time.monotonic()
                progress.update(
                    documents=(n_documents, n_documents),
                    pages=(n_done, len(jobs)),
                    failed=len(report.failures),
                    what=f"OCR {done.job.document}",
                )

    def _job(self, name: str, number: int, source: Source) -> OcrJob:
        sha256 = self._index.document(name).sha256 if source.is_office else ""
        return OcrJob(name, number, source, sha256 or "")

    def _read(self, reader: PageReader, job: OcrJob) -> OcrDone:
        try:
            path: Path = job.source.path
            if job.source.is_office:
                path = self._office.to_pdf(path, job.sha256)
            page = reader.read(path, job.number, dpi=OCR_DPI, max_pixels=OCR_MAX_PIXELS)
            text = "" if page.blank else self._tesseract.read(page.image)
        except DocumentError as error:
            return OcrDone(job, "", str(error))
        return OcrDone(job, "\n".join(filter(None, (page.text, text))))

    def _keep(self, done: OcrDone, report: IngestReport) -> None:
        job = done.job
        if done.reason:
            report.notes.append(Trouble(job.document, job.number, f"OCR: {done.reason}"))
            return
        self._index.set_text(job.document, job.number, done.text, "ocr")
        report.read_by_ocr.append((job.document, job.number))
        self._texts[job.source.name].append(done.text)


def unread_pages(page_index: PageIndex) -> tuple[tuple[str, int], ...]:
    """(document, page) of every stored page whose text layer lacks something, read by none."""
    return page_index.pages_by_text_class("missing", "garbage", "thin")


def pages_read_by_model(page_index: PageIndex) -> tuple[tuple[str, int], ...]:
    """(document, page) of every stored page that the model itself read off its image."""
    return page_index.pages_by_text_class("read")
