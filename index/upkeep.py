"""Keeping house: merge small segments, drop removed pages, renew the codebook, sweep leftovers.

Segments are merged in tiers, as Lucene does: ten of one size class (a power of ten of pages)
become one, or, where one would be too large, as few as may be. A merge copies records and page ids
as they are, so no page is encoded again and no page changes its id; centroid sets are looked up
anew only when the codebook is another.
"""

import logging
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index import catalogue
from index.codebook import POINTS_PER_CENTROID, Codebook, suitable_centroids
from index.codec import StoreCodec
from index.database import TO_ERASE, Database, merge_words
from index.errors import IndexCorrupt
from index.records import Floats, Tuning
from index.segment import RESIDUALS, SEGMENT_NAME, Segment, SegmentInfo, SegmentWriter
from index.snapshot import Snapshot, codebook_path, contains, load_codebook
from index.store import TEMPORARY, Thumbnails, disk_errors, sha256_of, sweep, write_durably
from index.writer import insert_segment

Ints = NDArray[np.int64]
# Ids of pages grow. With a codebook of pages that were all replaced recall@10 was 0.15. Below half,
# maintain() trains anew; compact() is asked for, and has more time.
KNOWN_TO_MAINTAIN, KNOWN_TO_COMPACT = 0.5, 0.8
TRAINED_TO = "SELECT value + 0 FROM settings WHERE key = 'pages_of_codebook_' || ?"
READ_PAGES = 256  # pages copied at once: 4 MB at 128 vectors a page

# Never a number that a segment still refers to, even if its codebook was damaged and dropped.
NEXT_VERSION = (
    "SELECT 1 + max(coalesce((SELECT max(version) FROM codebooks), 0),"
    " coalesce((SELECT max(codebook) FROM segments), 0))"
)

log = logging.getLogger(__name__)


class Upkeep:
    """Rewrites segments; its caller holds the writer's lock."""

    def __init__(self, folder: Path, database: Database, codec: StoreCodec, tuning: Tuning) -> None:
        self._folder, self._database = folder, database
        self._codec, self._tuning = codec, tuning
        self._is_lost = False  # a codebook is recorded, but its file is not what was written
        self._is_unread = False  # or cannot be read now, which may pass
        self.codebook = self._newest_codebook()

    def _newest_codebook(self) -> Codebook | None:
        with self._database.view() as sql:
            (version,) = sql.execute("SELECT max(version) FROM codebooks").fetchone()
            if version is None:
                return None
            try:
                return load_codebook(self._folder, self._database, version)
            except IndexCorrupt as error:
                log.warning("going on without a codebook: %s", error)
                is_refused = isinstance(error.__cause__, OSError)
                self._is_unread = is_refused and not isinstance(error.__cause__, FileNotFoundError)
                self._is_lost = not self._is_unread
                return None

    # -- codebook --------------------------------------------------------------------------

    def renew_codebook(self, snapshot: Snapshot, least_known: float | None = None) -> bool:
        """Cluster anew when the index has grown enough since the last time, or lost what it had.

        least_known  also when fewer than this share of its pages were there the last time
        """
        n_pages = sum(segment.info.n_pages for segment in snapshot.segments)
        (trained,) = self._database.sql.execute(
            "SELECT coalesce(max(n_pages), 0) FROM codebooks"
        ).fetchone()
        due = trained * self._tuning.retrain_growth
        if not trained or self._is_lost or self._is_strange(snapshot, least_known):
            due = self._tuning.train_pages
        if n_pages < due:
            return False
        n_vectors = sum(segment.info.n_vectors for segment in snapshot.segments)
        n_centroids = suitable_centroids(n_vectors)
        sample = self._sample(snapshot, n_centroids * POINTS_PER_CENTROID)
        (version,) = self._database.sql.execute(NEXT_VERSION).fetchone()
        log.info("training codebook %d: %d centroids", version, n_centroids)
        codebook = Codebook.train(version, sample, n_centroids)
        path = codebook_path(self._folder, version)
        with disk_errors(self._folder):
            write_durably(path, codebook.save())
        with self._database.transaction() as sql:
            catalogue.insert(
                sql, "codebooks", version, sha256_of(path), codebook.n_centroids, n_pages
            )
            sql.execute("DELETE FROM settings WHERE key LIKE 'pages_of_codebook_%'")
            last = max(int(segment.pages[-1]) for segment in snapshot.segments)
            catalogue.insert(sql, "settings", f"pages_of_codebook_{version}", str(last))
        self.codebook, self._is_lost, self._is_unread = codebook, False, False
        return True

    def _is_strange(self, snapshot: Snapshot, least_known: float | None) -> bool:
        """Tell whether the codebook was trained on other pages than there are now.

        Where that is not recorded, as in an index of old, compact() has it so.
        """
        if least_known is None or self.codebook is None:
            return False
        row = self._database.sql.execute(TRAINED_TO, (self.codebook.version,)).fetchone()
        if row is None:
            return least_known == KNOWN_TO_COMPACT
        live = [s.pages[~contains(snapshot.deleted, s.contents)] for s in snapshot.segments]
        n_known = sum(int(np.count_nonzero(pages <= row[0])) for pages in live)
        return n_known < least_known * sum(map(len, live))

    def _sample(self, snapshot: Snapshot, n_vectors: int) -> Floats:
        """Draw vectors from pages all over the index, some of every page drawn."""
        generator = np.random.default_rng(0)
        n_pages = sum(segment.info.n_pages for segment in snapshot.segments)
        per_page = max(16, -(-n_vectors // n_pages))
        share = min(1.0, n_vectors / per_page / n_pages)
        found = []
        for segment in snapshot.segments:
            rows = np.flatnonzero(generator.random(segment.info.n_pages) < share)
            for part in np.split(rows, range(READ_PAGES, len(rows), READ_PAGES)):
                if not len(part):
                    continue
                records, starts = segment.records(part)
                lengths = segment.lengths(part)
                picks = starts[:, None] + generator.integers(
                    0, lengths[:, None], (len(part), per_page)
                )
                found.append(self._codec.decode(records[picks.ravel()]))
        return np.concatenate(found)

    # -- merging ---------------------------------------------------------------------------

    def due(self, snapshot: Snapshot, most_pages: int) -> list[list[Segment]]:
        """Choose segments worth merging now, in groups of not more than most_pages pages."""
        if self._is_unread:
            return []  # the merged segment would be without codes
        tiers: dict[int, list[Segment]] = defaultdict(list)
        groups = []
        for segment in snapshot.segments:
            n_pages = segment.info.n_pages
            n_dead = snapshot.n_deleted(segment)
            if n_dead > self._tuning.dead_share * n_pages and n_pages <= most_pages:
                groups.append([segment])
            else:
                tiers[int(np.log10(n_pages))].append(segment)
        for tier in tiers.values():
            while len(tier) >= self._tuning.merge_factor:
                group = tier[: self._tuning.merge_factor]
                del tier[: self._tuning.merge_factor]
                groups += [part for part in self._pack(group, most_pages) if len(part) > 1]
        return groups

    def outdated(self, snapshot: Snapshot) -> list[list[Segment]]:
        """Every segment that knows another codebook than the newest, in groups of fair size."""
        if self._is_unread:
            return []
        old = [segment for segment in snapshot.segments if not self._coded(segment)]
        return self._pack(old, self._tuning.max_segment_pages)

    def _coded(self, segment: Segment) -> bool:
        """Tell whether a segment knows the newest codebook, residuals included."""
        if self.codebook is None:
            return segment.info.codebook is None
        return segment.info.codebook == self.codebook.version and RESIDUALS in segment.files

    def everything(self, snapshot: Snapshot) -> list[list[Segment]]:
        """Choose groups that leave as few segments as may be, and no removed page in any."""
        groups = self._pack(snapshot.segments, self._tuning.max_segment_pages)
        return [
            group
            for group in groups
            if len(group) > 1 or not self._coded(group[0]) or snapshot.n_deleted(group[0])
        ]

    @staticmethod
    def _pack(segments: Sequence[Segment], most_pages: int) -> list[list[Segment]]:
        groups: list[list[Segment]] = []
        room = 0
        for segment in segments:
            if segment.info.n_pages > room or not groups:
                groups.append([])
                room = most_pages
            groups[-1].append(segment)
            room -= segment.info.n_pages
        return groups

    def merge(self, snapshot: Snapshot, group: list[Segment], *, derive: bool = False) -> None:
        """Write the pages of several segments into one; those of deleted contents are left out.

        derive  look every centroid set up again, also where the codebook is the same
        """
        with disk_errors(self._folder):
            merged = self._copy(group, snapshot.deleted, derive)
        with self._database.transaction() as sql:
            if merged is not None:
                insert_segment(self._database, merged)
            for segment in group:
                sql.execute("DELETE FROM segments WHERE id = ?", (segment.info.id,))
            catalogue.bump(sql)
        for segment in group:
            shutil.rmtree(segment.path, ignore_errors=True)

    def _copy(self, group: list[Segment], deleted: Ints, derive: bool) -> SegmentInfo | None:
        rows = [np.flatnonzero(~contains(deleted, segment.contents)) for segment in group]
        pages = np.concatenate([s.pages[part] for s, part in zip(group, rows, strict=True)])
        if not len(pages):
            return None
        owner = np.repeat(np.arange(len(group)), [len(part) for part in rows])
        every = np.concatenate(rows)
        order = np.argsort(pages)  # ids stay ascending, whichever segments come together
        cuts = np.flatnonzero(np.diff(owner[order])) + 1
        with SegmentWriter(self._folder, self._codec, self.codebook) as writer:
            for run in np.split(order, cuts):
                for part in np.split(run, range(READ_PAGES, len(run), READ_PAGES)):
                    self._copy_rows(writer, group[owner[part[0]]], every[part], derive)
            return writer.finish()

    def _copy_rows(self, writer: SegmentWriter, segment: Segment, rows: Ints, derive: bool) -> None:
        records, starts = segment.records(rows)
        ends = starts + segment.lengths(rows)
        keep = not derive and self.codebook is not None and self._coded(segment)
        for row, start, end in zip(rows.tolist(), starts, ends, strict=True):
            code = segment.code(row) if keep else None
            writer.add(
                int(segment.pages[row]), int(segment.contents[row]), records[start:end], code
            )

    # -- leftovers -------------------------------------------------------------------------

    def forget_deletions(self, snapshot: Snapshot) -> None:
        """Drop the record of removed contents that no segment holds any more."""
        with self._database.transaction() as sql:
            rows = sql.execute("SELECT content FROM deletions").fetchall()
            gone = {content for (content,) in rows}
            for segment in snapshot.segments:
                gone -= set(np.unique(segment.contents).tolist())
            sql.executemany("DELETE FROM deletions WHERE content = ?", [(c,) for c in gone])

    def sweep_segments(self) -> None:
        """Delete segments and codebooks that a killed writer left unrecorded."""
        with self._database.view() as sql:
            known = {row[0] for row in sql.execute("SELECT id FROM segments")}
            books = {row[0] for row in sql.execute("SELECT version FROM codebooks")}
        for path in (self._folder / "segments").glob("*"):
            if path.name not in known and SEGMENT_NAME.fullmatch(path.name):
                sweep(path)
        kept = {codebook_path(self._folder, version).name for version in books}
        for path in self._folder.glob("codebook-*.faiss"):
            if path.name not in kept:
                sweep(path)
        for path in self._folder.glob(f"{TEMPORARY}*"):
            sweep(path)

    def sweep_codebooks(self, snapshot: Snapshot) -> None:
        """Forget codebooks that neither a segment nor the writer uses."""
        if self._is_unread:
            return
        used = {segment.info.codebook for segment in snapshot.segments}
        with self._database.transaction() as sql:
            rows = sql.execute("SELECT version FROM codebooks").fetchall()
            newest = self.codebook.version if self.codebook else None
            old = [version for (version,) in rows if version not in used | {newest}]
            sql.executemany("DELETE FROM codebooks WHERE version = ?", [(v,) for v in old])
        for version in old:
            codebook_path(self._folder, version).unlink(missing_ok=True)

    def sweep_thumbnails(self) -> None:
        """Delete images that no page refers to."""
        with self._database.view() as sql:
            rows = sql.execute("SELECT DISTINCT thumbnail FROM pages WHERE thumbnail IS NOT NULL")
            used = {image for (image,) in rows}
        Thumbnails(self._folder).sweep(used)

    def shrink_database(self) -> None:
        """Merge the word index and give free pages of the file back."""
        with self._database.errors():
            merge_words(self._database.sql)
            self._database.sql.execute("VACUUM")
            self._database.sql.execute(f"DELETE FROM settings WHERE key = '{TO_ERASE}'")
            self._database.sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")
