"""Files and folders to index: what an ingest is made with, what it holds open and how it ends."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from index.errors import IndexFull, IndexMissing
from index.opening import compare
from index.page_index import PageIndex
from index.records import DocumentRecord, VectorSettings
from rag.encoder import Encoder
from rag.errors import UsageError
from rag.ingest import INTERRUPTED, Ingest, IngestOptions, IngestReport, PageRange, Progress
from rag.ocr import Tesseract
from rag.ocr_pass import OcrPass, pages_read_by_model, unread_pages
from rag.office import OfficeConverter
from rag.plan import Before, IngestPlan, plan_ingest
from rag.reader import Limits
from rag.settings import DEFAULT_DPI, Settings
from rag.sources import Discovery, Known, discover, path_of


@dataclass(frozen=True)
class IngestRequest:
    """What to ingest, beyond the settings."""

    paths: tuple[Path, ...]
    passwords: tuple[str, ...] = ()
    pages: PageRange = PageRange()
    prune: bool = False
    wait_s: float = 0.0
    names: Mapping[str, Path] = field(default_factory=dict)  # names files are to go by


class Intake:
    """Brings one index up to date.

    encoder  the model, opened when it is asked for
    stored   what the index was built with; None where there is none yet
    """

    def __init__(
        self,
        settings: Settings,
        encoder: Callable[[], Encoder],
        stored: Callable[[], VectorSettings | None],
    ) -> None:
        self._settings, self._encoder, self._stored = settings, encoder, stored

    def run(self, request: IngestRequest, progress: Progress) -> IngestReport:
        """Bring the index up to date with files and folders.

        Raises UsageError, OcrError, IndexMismatch, IndexLocked, ModelError before anything is
        written; what goes wrong with a document afterwards is listed in the report.
        """
        started = time.monotonic()
        tesseract = Tesseract.find(self._settings.ocr)
        known = self._known()
        discovery = self._discover(request, known)
        settings = self._vector_settings()
        run: Ingest | None = None
        try:
            with (
                OfficeConverter() as office,
                PageIndex.open(
                    self._settings.index, settings, writable=True, wait_s=request.wait_s
                ) as page_index,
            ):
                if (now := page_index.documents()) != known:  # names that others took meanwhile
                    discovery = self._discover(request, now)
                options = self._options(request, settings.dpi)
                run = Ingest(page_index, self._encoder(), options, progress, office)
                report = run.run(discovery)
                if tesseract is not None and not report.interrupted:
                    reading = OcrPass(page_index, tesseract, options, office)
                    reading.run(discovery.sources, report, progress)
                report.unread_pages = len(unread_pages(page_index))
                report.pages_read_by_model = len(pages_read_by_model(page_index))
                page_index.maintain()
        except IndexFull as error:
            if run is None or not run.report.pages["added"]:
                raise
            run.report.interrupted = str(error)
        except KeyboardInterrupt:  # after the pages, while the index was put in order
            if run is None:
                raise
            run.report.interrupted = INTERRUPTED
        run.report.seconds = time.monotonic() - started
        return run.report

    def plan(self, request: IngestRequest) -> IngestPlan:
        """Say what `ingest` would do, reading files but writing nothing.

        Refuses what `run` refuses: other settings than those of the index.
        """
        if (stored := self._stored()) is not None:
            compare(self._settings.index, stored, self._vector_settings())
        known = self._known()
        discovery = self._discover(request, known)
        options = self._options(request, DEFAULT_DPI)
        try:
            with PageIndex.open(self._settings.index) as page_index:
                before = Before(known, page_index.stored_pages, page_index.failed_pages)
                return plan_ingest(discovery, before, options)
        except IndexMissing:
            return plan_ingest(discovery, Before(), options)

    def _discover(self, request: IngestRequest, records: Sequence[DocumentRecord]) -> Discovery:
        known = {
            each.name: Known(path_of(each.source), each.sha256, each.size_bytes) for each in records
        }
        known |= {name: Known(path) for name, path in request.names.items()}
        discovery = discover(request.paths, known, self._settings.index)
        if not discovery.sources:
            # also with --prune: an unmounted disk must not empty the index
            advice = "; `yomu remove GLOB` takes documents out of the index" if known else ""
            raise UsageError(
                f"nothing to read in {', '.join(map(str, request.paths))}: no PDF, image or "
                f"Office file{advice}"
            )
        return discovery

    def _known(self) -> tuple[DocumentRecord, ...]:
        try:
            with PageIndex.open(self._settings.index) as page_index:
                return page_index.documents()
        except IndexMissing:
            return ()

    def _options(self, request: IngestRequest, dpi: int) -> IngestOptions:
        settings = self._settings
        return IngestOptions(
            dpi=dpi,
            passwords=request.passwords,
            pages=request.pages,
            prune=request.prune,
            n_readers=settings.readers or max(1, (os.cpu_count() or 2) // 2),
            commit_seconds=settings.commit_seconds,
            limits=reader_limits(settings),
        )

    def _vector_settings(self) -> VectorSettings:
        """Return flags over what the index holds over defaults; it refuses what disagrees."""
        stored, settings, encoder = self._stored(), self._settings, self._encoder()
        same_model = stored is not None and stored.model == encoder.digest
        return VectorSettings(
            model=encoder.digest,
            model_name=_model_name(encoder.name),
            dpi=settings.dpi or (stored.dpi if stored else DEFAULT_DPI),
            max_visual_tokens=encoder.max_visual_tokens,
            pool_factor=settings.pool_factor or (stored.pool_factor if stored else 1),
            codec=stored.codec if stored else "int8",
            # asking the model would open it: seconds to minutes that an unchanged folder saves
            dim=stored.dim if stored and same_model else encoder.dim,
        )


def reader_limits(settings: Settings) -> Limits:
    """Return what reading one page may take."""
    return Limits(
        memory_bytes=settings.page_megabytes * 1_000_000,
        cpu_s=settings.page_seconds,
        wall_s=settings.page_seconds,
    )


def _model_name(name: str) -> str:
    """Name of a model for the index: a folder by its absolute path, so that it is found again."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name
