"""Check every checksum of an index: files, rows, the word index, and that they fit together."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from index import catalogue
from index.codec import StoreCodec
from index.database import TABLES, WORD_INDEXES, Database, crc_holds
from index.errors import IndexCorrupt
from index.opening import has_present_words
from index.records import Damage, VerifyReport
from index.salvage import Recorded, Whole, Wreck
from index.segment import DERIVED, Segment, SegmentInfo
from index.snapshot import codebook_path, generation_of
from index.store import Thumbnails, read_checked, reading, sha256_of

# What SQLite says of the disk or of others, which is nothing about the words.
NOT_RUN = tuple(
    f"SQLITE_{name}" for name in ("READONLY", "CANTOPEN", "FULL", "IOERR", "BUSY", "LOCKED")
)


KEYS = {"pages": "id", "documents": "name", "contents": "id", "readings": "page"}


@dataclass
class Findings:
    """Everything `verify` learned, as `mend` needs it."""

    damage: list[Damage] = field(default_factory=list)
    n_files: int = 0
    n_bytes: int = 0
    pages: set[int] = field(default_factory=set)  # whose row or vectors are not what was written
    strays: set[int] = field(default_factory=set)  # contents with vectors of pages without a row
    contents: set[int] = field(default_factory=set)  # whose row is damaged
    documents: set[str] = field(default_factory=set)  # whose row is damaged
    segments: dict[str, set[int]] = field(default_factory=dict)  # to be rewritten with these pages
    unreadable: set[str] = field(default_factory=set)  # segments to be given up
    salvaged: dict[str, dict[int, Whole]] = field(default_factory=dict)  # of these, pages
    codebooks: set[int] = field(default_factory=set)
    thumbnails: set[str] = field(default_factory=set)
    words: bool = False  # the word index is to be built again
    hopeless: bool = False  # nothing but a new index helps

    def add(self, path: str, reason: str) -> None:
        """Note a damage."""
        self.damage.append(Damage(path, reason))


class Verifier:
    """Reads everything; changes nothing.

    A writer may merge and remove meanwhile: what is missing is damage only if it is still recorded.
    """

    def __init__(self, folder: Path, database: Database, codec: StoreCodec) -> None:
        self._folder, self._database, self._codec = folder, database, codec
        self._found = Findings()

    def run(self) -> Findings:
        """Check database, segments, codebooks and thumbnails."""
        try:
            self._check_database()
            with self._database.view() as sql:
                self._check_rows(sql)
            if not self._found.hopeless:
                self._check_segments()
                self._check_codebooks()
                self._check_thumbnails()
        except IndexCorrupt as error:
            self._found.add("index.db", str(error).removeprefix(f"{self._database.path}: "))
            self._found.hopeless = True
        return self._found

    def report(self) -> VerifyReport:
        """Run, and name the documents that must be read again."""
        found = self.run()
        names = set(found.documents)
        if not found.hopeless:
            with self._database.view() as sql:
                contents = contents_of(sql, found.pages) | found.contents | found.strays
                names |= catalogue.names_of(sql, contents)
                names |= catalogue.names_drawn(sql, found.thumbnails)
        return VerifyReport(
            found.n_files, found.n_bytes, tuple(found.damage), tuple(sorted(names)), found.hopeless
        )

    def _count(self, path: Path) -> None:
        self._found.n_files += 1
        self._found.n_bytes += path.stat().st_size

    # -- database --------------------------------------------------------------------------

    def _check_database(self) -> None:
        self._count(self._database.path)
        with self._database.view() as sql:
            rows = sql.execute("PRAGMA integrity_check(5)").fetchall()
        for (line,) in rows:
            if line != "ok":
                self._found.add("index.db", str(line))
                self._found.hopeless = True
        if self._found.hopeless or not has_present_words(self._database):
            return  # words of an earlier version are made anew by the next writer
        if not words_are_whole(self._database):
            self._found.add("index.db", "the word index differs from the texts of the pages")
            self._found.words = True

    def _check_rows(self, sql: sqlite3.Connection) -> None:
        for table in filter(_names(sql).__contains__, TABLES):
            key = KEYS.get(table, "NULL")
            rows = sql.execute(f"SELECT {key} FROM {table} WHERE NOT {crc_holds(table)}").fetchall()
            for (value,) in rows:
                self._found.add("index.db", f"a row of {table} is damaged ({key} {value})")
                self._note_row(table, value)

    def _note_row(self, table: str, value: object) -> None:
        if table in ("pages", "readings") and isinstance(value, int):
            self._found.pages.add(value)
            self._found.words = True  # made from a text that is not what was written
        elif table == "contents" and isinstance(value, int):
            self._found.contents.add(value)
            self._found.words = True  # and from the heading
        elif table == "documents":
            self._found.documents.add(str(value))
        else:
            self._found.hopeless = True

    # -- files -----------------------------------------------------------------------------

    def _check_segments(self) -> None:
        """Check every segment, and that each page has its vectors in one of them."""
        held: dict[str, dict[int, int]] = {}  # segment → page → content, where vectors are whole
        while True:
            with self._database.view() as sql:
                rows = self._database.checked("segments")
                deleted = {row[0] for row in sql.execute("SELECT content FROM deletions")}
                recorded = dict(sql.execute("SELECT id, content FROM pages").fetchall())
            infos = [SegmentInfo(*row) for row in rows]  # type: ignore[arg-type]
            for info in infos:
                if info.id not in held and (pages := self._look_at(info)) is not None:
                    held[info.id] = pages
            if all(info.id in held for info in infos):
                break  # otherwise some were merged while we read them: look at what they became
        self._salvage([info for info in infos if info.id in self._found.unreadable], held)
        stored = {
            info.id: {p: c for p, c in held[info.id].items() if c not in deleted} for info in infos
        }
        self._account(recorded, stored)

    def _salvage(self, infos: list[SegmentInfo], held: dict[str, dict[int, int]]) -> None:
        """Look for whole pages in segments that cannot be opened, and add them to those held."""
        wrecks = {info.id: Wreck(self._folder, info, self._codec.record_bytes) for info in infos}
        with self._database.view() as sql:
            rows = (
                sql.execute("SELECT id, content, n_vectors FROM pages").fetchall() if infos else []
            )
        lost = {page: Recorded(content, n_vectors) for page, content, n_vectors in rows}
        for pages in held.values():
            for page in pages:
                lost.pop(page, None)
        n_damaged = len(wrecks) + len(self._found.segments)
        for name, wreck in sorted(wrecks.items(), key=lambda each: not each[1].knows_its_pages):
            found = wreck.whole_pages(lost, alone=n_damaged == 1)
            held[name] = {page: whole.content for page, whole in found.items()}
            self._found.salvaged[name] = found
            for page in found:
                del lost[page]

    def _account(self, recorded: dict[int, int], held: dict[str, dict[int, int]]) -> None:
        """Compare pages (id → content) with those that have vectors, by segment."""
        found = self._found
        stored = {page: content for pages in held.values() for page, content in pages.items()}
        lost = {page for page, content in recorded.items() if stored.get(page) != content}
        strays = stored.keys() - recorded.keys()
        if strays:
            found.add("index.db", f"{len(strays)} pages with vectors are not recorded")
        if lost and not found.damage:
            found.add("index.db", f"vectors of {len(lost)} pages are missing")
        found.pages |= lost
        found.strays |= {stored[page] for page in strays}
        gone = found.pages | strays
        for whole in found.salvaged.values():
            for page in gone & whole.keys():
                del whole[page]
        for segment, pages in held.items():
            is_readable = segment not in found.unreadable
            if is_readable and (segment in found.segments or not gone.isdisjoint(pages)):
                found.segments[segment] = pages.keys() - gone

    def _look_at(self, info: SegmentInfo) -> dict[int, int] | None:
        """Check a segment; returns its whole pages, or None if it has been merged meanwhile."""
        before, self._found = self._found, Findings()
        try:
            pages = dict(self._check_segment(info))
        except (FileNotFoundError, IndexCorrupt) as error:
            missing = isinstance(error, FileNotFoundError)
            reason = "missing" if missing else _reason(error)
            self._found.add(self._name(self._folder / "segments" / info.id), reason)
            self._found.unreadable.add(info.id)
            pages = {}
        finally:
            seen, self._found = self._found, before
        if seen.damage and not self._is_recorded(info):
            return None
        self._found.damage += seen.damage
        self._found.n_files += seen.n_files
        self._found.n_bytes += seen.n_bytes
        self._found.segments |= seen.segments
        self._found.unreadable |= seen.unreadable
        return pages

    def _is_recorded(self, info: SegmentInfo) -> bool:
        with self._database.view() as sql:
            query = "SELECT 1 FROM segments WHERE id = ?"
            return sql.execute(query, (info.id,)).fetchone() is not None

    def _check_segment(self, info: SegmentInfo) -> Iterator[tuple[int, int]]:
        """Check every file; yields (page, content) of each page whose vectors are whole."""
        path = self._folder / "segments" / info.id
        bad = set(self._bad_files(path, info.manifest_sha256))
        if not bad - DERIVED:
            segment = Segment(self._folder, info, self._codec)
            if bad:
                self._found.segments[info.id] = set()
            yield from zip(segment.pages.tolist(), segment.contents.tolist(), strict=True)
        elif bad - DERIVED == {"vectors.bin"} and self._same_size(path):
            self._found.segments[info.id] = set()
            yield from self._whole_pages(Segment(self._folder, info, self._codec))
        else:
            self._found.unreadable.add(info.id)

    @staticmethod
    def _same_size(path: Path) -> bool:
        vectors = path / "vectors.bin"
        wanted = json.loads((path / "manifest.json").read_text())["files"]["vectors.bin"]["bytes"]
        with reading(vectors):
            return vectors.exists() and vectors.stat().st_size == wanted

    def _bad_files(self, path: Path, manifest_sha256: str) -> Iterator[str]:
        try:
            manifest = read_checked(path / "manifest.json", manifest_sha256)
        except IndexCorrupt as error:
            self._found.add(self._name(path / "manifest.json"), _reason(error))
            yield "manifest.json"
            return
        self._count(path / "manifest.json")
        for name, wanted in json.loads(manifest)["files"].items():
            file = path / name
            try:
                with reading(file):
                    self._count(file)
                    reason = "" if sha256_of(file) == wanted["sha256"] else "checksum differs"
            except IndexCorrupt as error:  # a part of it may be readable all the same
                missing = isinstance(error.__cause__, FileNotFoundError)
                reason = "missing" if missing else _reason(error)
            if reason:
                self._found.add(self._name(file), reason)
                yield name

    @staticmethod
    def _whole_pages(segment: Segment) -> Iterator[tuple[int, int]]:
        for row in range(segment.info.n_pages):
            try:
                segment.records(np.array([row]))
            except IndexCorrupt:
                continue
            yield int(segment.pages[row]), int(segment.contents[row])

    def _check_codebooks(self) -> None:
        with self._database.view() as sql:
            rows = sql.execute("SELECT version, sha256 FROM codebooks").fetchall()
        for version, sha256 in rows:
            path = codebook_path(self._folder, version)
            if self._is_damaged(path, sha256, "SELECT 1 FROM codebooks WHERE sha256 = ?"):
                self._found.codebooks.add(version)

    def _check_thumbnails(self) -> None:
        thumbnails = Thumbnails(self._folder)
        query = "SELECT DISTINCT thumbnail FROM pages WHERE thumbnail IS NOT NULL"
        with self._database.view() as sql:
            rows = sql.execute(query).fetchall()
        for (sha256,) in rows:
            path = thumbnails.path(sha256)
            if self._is_damaged(path, sha256, "SELECT 1 FROM pages WHERE thumbnail = ? LIMIT 1"):
                self._found.thumbnails.add(sha256)

    def _is_damaged(self, path: Path, sha256: str, who_needs_it: str) -> bool:
        """Check a file, and note damage if it is still needed in the state that it was read in."""
        before = None
        while True:
            try:
                read_checked(path, sha256)
                self._count(path)
                return False
            except FileNotFoundError:
                reason = "missing"
            except IndexCorrupt as error:
                reason = _reason(error)
            with self._database.view() as sql:
                is_needed = sql.execute(who_needs_it, (sha256,)).fetchone() is not None
                generation = generation_of(sql)
            if not is_needed:
                return False
            if generation == before:
                self._found.add(self._name(path), reason)
                return True
            before = generation  # it may have gone and come back: read it again

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()


def contents_of(sql: sqlite3.Connection, pages: Iterable[int]) -> set[int]:
    """Collect the contents that pages belong to."""
    query = "SELECT content FROM pages WHERE id = ?"
    return {row[0] for page in pages for row in sql.execute(query, (page,))}


def _reason(error: Exception) -> str:
    return str(error).split(": ", 1)[-1].split(";", 1)[0]


def words_are_whole(database: Database) -> bool:
    """Compare the word index with the texts it was made from.

    FTS5 does this by a command that looks like a write, so a connection that may only read works
    on a copy.
    """
    with database.errors():
        try:
            return _passes(database.sql)
        except sqlite3.OperationalError as error:
            if not getattr(error, "sqlite_errorname", "").startswith("SQLITE_READONLY"):
                raise
        with database.copy() as copy:
            return _passes(copy)


def _names(sql: sqlite3.Connection) -> set[str]:
    """Names of the tables there are: an index of an earlier version has fewer."""
    return {name for (name,) in sql.execute("SELECT name FROM sqlite_schema")}


def _passes(sql: sqlite3.Connection) -> bool:
    """Run the check; raises where it could not be run to its end."""
    try:
        for index in filter(_names(sql).__contains__, WORD_INDEXES):
            sql.execute(f"INSERT INTO {index}({index}, rank) VALUES('integrity-check', 1)")
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorname", "").startswith(NOT_RUN):
            raise
        return False
    return True
