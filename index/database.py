"""The index's SQLite file: documents, pages, texts and what else must change together.

WAL and synchronous=FULL: a commit is on the disk before it is reported. Every row carries a CRC-32
of its columns (SQLite has no checksums of its own), computed by the database when the row is
written and compared by `verify` and wherever a row decides what a person is shown.
"""

import os
import shutil
import sqlite3
import threading
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from urllib.parse import quote

from index.errors import (
    IndexCorrupt,
    IndexFull,
    IndexLocked,
    IndexMissing,
    IndexReadOnly,
    PageIndexError,
)
from index.store import TEMPORARY
from index.text_layer import fold_page

# table -> columns in the order they are declared
TABLES = {
    "settings": "key TEXT PRIMARY KEY, value TEXT NOT NULL",
    # one row a distinct file content that some document has or is being read to
    "contents": "id INTEGER PRIMARY KEY AUTOINCREMENT, sha256 TEXT NOT NULL UNIQUE,"
    " n_pages INTEGER NOT NULL, title TEXT NOT NULL, heading TEXT NOT NULL",
    # content is what is shown under the name; pending is what replaces it once it is whole, or the
    # same content until its first reading has ended
    "documents": "name TEXT PRIMARY KEY, content INTEGER, pending INTEGER, source TEXT NOT NULL,"
    " size INTEGER NOT NULL, modified REAL NOT NULL, date TEXT, language TEXT, reason TEXT",
    "pages": "id INTEGER PRIMARY KEY AUTOINCREMENT, content INTEGER NOT NULL,"
    " number INTEGER NOT NULL, n_vectors INTEGER NOT NULL, rows INTEGER NOT NULL,"
    " cols INTEGER NOT NULL, overview_rows INTEGER NOT NULL, overview_cols INTEGER NOT NULL,"
    " cells BLOB NOT NULL, thumbnail TEXT, text_class TEXT NOT NULL,"
    " text BLOB NOT NULL",
    # what the model itself reads on the image of a page, if it can: page is its id
    "readings": "page INTEGER PRIMARY KEY, text BLOB NOT NULL",
    "failures": "content INTEGER NOT NULL, page INTEGER NOT NULL, reason TEXT NOT NULL",
    "segments": "id TEXT PRIMARY KEY, n_pages INTEGER NOT NULL, n_vectors INTEGER NOT NULL,"
    " n_bytes INTEGER NOT NULL, codebook INTEGER, manifest_sha256 TEXT NOT NULL",
    # contents that are gone but still have pages in a segment; ids are never used again
    "deletions": "content INTEGER PRIMARY KEY",
    "codebooks": "version INTEGER PRIMARY KEY, sha256 TEXT NOT NULL,"
    " n_centroids INTEGER NOT NULL, n_pages INTEGER NOT NULL",
}
INDEXES = """
CREATE UNIQUE INDEX pages_by_content ON pages(content, number);
CREATE UNIQUE INDEX failures_by_content ON failures(content, page);
CREATE INDEX documents_by_content ON documents(content);
CREATE INDEX documents_by_pending ON documents(pending);
CREATE INDEX pages_by_thumbnail ON pages(thumbnail);
CREATE VIEW words AS SELECT p.id AS id, folded(p.text, p.text_class) || ' ' || c.heading AS body
 FROM pages p JOIN contents c ON c.id = p.content;
CREATE VIRTUAL TABLE word_index USING fts5(body, content='words', content_rowid='id');
CREATE VIRTUAL TABLE word_counts USING fts5vocab('word_index', 'row');
CREATE VIEW looks AS SELECT page AS id, folded(text, 'read') AS body FROM readings;
CREATE VIRTUAL TABLE reading_index USING fts5(body, content='looks', content_rowid='id');
CREATE VIRTUAL TABLE reading_counts USING fts5vocab('reading_index', 'row');
"""
TEXT_INDEX = {"word_index": "words"}  # and the view of its texts
WORD_INDEXES = TEXT_INDEX | {"reading_index": "looks"}
REBUILD = "delete the index folder and ingest again; the documents themselves are untouched"
VERIFY = "`yomu verify --mend` reads what is damaged again"
NO_LOCKS = (
    "this file system cannot lock ({error}); keep the index on a local disk: move its folder "
    "there, or name another --index"
)
# First letters of SQLite's names for errors, what each is, and what to do; the first that fits.
COMPLAINTS: tuple[tuple[tuple[str, ...], type[PageIndexError], str], ...] = (
    (("BUSY", "LOCKED"), IndexLocked, "busy for too long ({error}); try again"),
    (
        ("CANTOPEN", "READONLY", "PERM"),
        IndexReadOnly,
        "{error}; see who may read and write it, or name another --index",
    ),
    (
        ("PROTOCOL", "IOERR_SHM", "IOERR_LOCK", "IOERR_UNLOCK", "IOERR_RDLOCK", "IOERR_CHECKRES"),
        IndexReadOnly,
        NO_LOCKS,
    ),
    (
        ("IOERR_READ", "IOERR_SHORT_READ", "IOERR_CORRUPTFS", "IOERR_DATA"),
        IndexCorrupt,
        "cannot be read ({error}); see to the disk, then run `yomu verify`",
    ),
    (
        ("FULL", "IOERR"),
        IndexFull,
        "could not write ({error}); everything committed before is safe: make room and run the "
        "same command again",
    ),
    (("CORRUPT_VTAB",), IndexCorrupt, "{error}; " + VERIFY),  # words, made again from the texts
    (("CORRUPT", "NOTADB"), IndexCorrupt, "{error}; " + REBUILD),
)
TO_ERASE = "words_to_erase"  # a setting that is there while words of removed pages may be
TIMEOUT_S = 30  # how long a connection waits for others
LOG_WAIT_MS = 1000
COPY_IN_MEMORY_BYTES = 64 << 20
READABLE = ("healthy", "thin", "ocr", "read")  # text of other classes is kept but not searched
# Text that says what the page shows. Thin text does not, nor what a small model read, not surely.
COMPLETE = ("healthy", "ocr")


def columns(table: str) -> list[str]:
    """Names of a table's columns without the checksum."""
    return [part.split()[0] for part in TABLES[table].split(",")]


def crc_expression(table: str) -> str:
    """Write SQL for the checksum a row of the table should have."""
    return f"row_crc({', '.join(columns(table))})"


def crc_holds(table: str) -> str:
    """Write SQL that tells whether a row of the table is what was written."""
    crc = crc_expression(table)
    return f"(crc IS {crc} OR crc IS {crc.replace('row_crc', 'row_crc_before', 1)})"


def schema() -> list[str]:
    """Write SQL that makes an empty database, statement by statement."""
    tables = [
        f"CREATE TABLE {table} ({declared},"
        f" crc INTEGER GENERATED ALWAYS AS ({crc_expression(table)}) STORED)"
        for table, declared in TABLES.items()
    ]
    return [*tables, *filter(str.strip, INDEXES.split(";\n"))]


def _row_crc(*values: object) -> int:
    return zlib.crc32(ascii(values).encode())


def _row_crc_before(*values: object) -> int:
    """Checksum of rows of old: how repr writes a rare letter depends on Python's version."""
    return zlib.crc32(repr(values).encode())


def pack_text(text: str) -> bytes:
    """Compress the text of a page for its row."""
    return zlib.compress(text.encode("utf-8", "replace"))


def unpack_text(data: bytes) -> str:
    """Reverse pack_text."""
    return zlib.decompress(data).decode()


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _is_refused(error: sqlite3.OperationalError) -> bool:
    name = getattr(error, "sqlite_errorname", "")
    return name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY"))


def _folded(data: bytes, text_class: str) -> str:
    return fold_page(unpack_text(data)) if text_class in READABLE else ""


def merge_words(sql: sqlite3.Connection) -> None:
    """Have FTS5 merge what it holds of words, and so forget those of deleted pages."""
    for index in WORD_INDEXES:
        sql.execute(f"INSERT INTO {index}({index}) VALUES('optimize')")


class Changed(IndexLocked):
    """The file was changed while it was read without a lock; what was read may be torn."""


class Database:
    """One connection; threads take turns at views and transactions.

    Who may not write beside the file reads it without SQLite's locks, as what cannot change. Its
    owner may change it all the same: then the connection is made anew (`n_reopened`).
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path = path
        self.n_reopened = 0
        self._taken_as: tuple[int, ...] | None = None  # state of the file; None: it is locked
        self._lock = threading.RLock()
        if not path.exists() and not writable:
            raise IndexMissing(f"no index in {path.parent}; make one with `yomu ingest FOLDER`")
        with self.errors():
            self.sql = self._connect(writable)

    def _connect(self, writable: bool) -> sqlite3.Connection:
        if writable:
            connection = self._open(self.path.absolute().as_uri() + "?mode=rwc")
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            if mode != "wal":
                connection.close()
                raise IndexReadOnly(f"{self.path}: {NO_LOCKS.format(error='no shared memory')}")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA secure_delete=ON")
            return connection
        address = f"file:{quote(str(self.path.absolute()))}?mode=ro"
        connection = self._open(address)
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema")
            self._taken_as = None
        except sqlite3.OperationalError as error:
            connection.close()
            if not _is_refused(error):
                raise
            # WAL needs to write beside the file. Others may still do so: see _renew.
            state = self._state()
            self._refuse_unread_log()
            connection = self._open(f"{address}&immutable=1")
            self._taken_as = state
        return connection

    def _state(self) -> tuple[int, ...]:
        """Return what differs after every change of the file by its owner."""
        known = []
        for path in (self.path, self._log):
            try:
                now = path.stat()
                known += [now.st_ino, now.st_size, now.st_mtime_ns]
            except OSError:
                known.append(-1)
        return tuple(known)

    @property
    def _is_changed(self) -> bool:
        return self._taken_as is not None and self._state() != self._taken_as

    def _renew(self) -> None:
        """Connect again where the file is another than the one that was opened as unchanging."""
        if self._is_changed:
            before, self.sql = self.sql, self._connect(writable=False)
            self.n_reopened += 1
            before.close()

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Raise Changed, whatever else the block raised, if the file was changed meanwhile."""
        changed = Changed(f"{self.path}: changed while it was read; try again")
        try:
            yield
        except Exception as error:
            if self._is_changed:
                raise changed from error
            raise
        if self._is_changed:
            raise changed

    @property
    def _log(self) -> Path:
        return self.path.with_name(f"{self.path.name}-wal")

    def _refuse_unread_log(self) -> None:
        """Raise IndexReadOnly where a log waits: who takes the file as it is misses all of it."""
        if self._log.exists() and self._log.stat().st_size:
            raise IndexReadOnly(
                f"{self.path.parent}: {self._log.name} holds changes that cannot be read "
                "where nothing can be written; run `yomu compact` on the index where it can be, "
                "then copy it"
            )

    @staticmethod
    def _open(address: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            address, uri=True, isolation_level=None, check_same_thread=False, timeout=TIMEOUT_S
        )
        connection.create_function("row_crc", -1, _row_crc, deterministic=True)
        connection.create_function("row_crc_before", -1, _row_crc_before, deterministic=True)
        connection.create_function("folded", 2, _folded, deterministic=True)
        connection.execute("PRAGMA cell_size_check=ON")
        return connection

    def close(self) -> None:
        """Close the connection; the last writer empties the write-ahead log."""
        self.sql.close()

    def erase_deleted(self) -> None:
        """Leave no word of deleted pages in the file or its log.

        FTS5 only notes that a page is gone and keeps its words until it merges; and the log holds
        what the file held before.
        """
        with self._lock, self.errors():
            merge_words(self.sql)
            if self.empty_log():
                self.sql.execute(f"DELETE FROM settings WHERE key = '{TO_ERASE}'")

    def empty_log(self) -> bool:
        """Write the log into the file; not while somebody reads, which the next closing makes up.

        To wait for a long reading, `verify` of a large index, would keep a person waiting.
        """
        self.sql.execute(f"PRAGMA busy_timeout = {LOG_WAIT_MS}")
        try:
            (is_busy, *_), *_ = self.sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return not is_busy
        finally:
            self.sql.execute(f"PRAGMA busy_timeout = {1000 * TIMEOUT_S}")

    @contextmanager
    def copy(self) -> Iterator[sqlite3.Connection]:
        """Copy the database for checks that a read-only connection may not run.

        A large one into a file, which the next writer sweeps if this process is killed.
        """
        with ExitStack() as stack:
            address = "file::memory:"
            query = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
            (n_bytes,) = self.sql.execute(query).fetchone()
            if n_bytes > COPY_IN_MEMORY_BYTES:
                place = self._place_for(int(n_bytes))
                folder = TemporaryDirectory(  # another process may sweep it
                    prefix=f"{TEMPORARY}verify-", dir=place, ignore_cleanup_errors=True
                )
                address = Path(stack.enter_context(folder), "copy.db").absolute().as_uri()
            copy = stack.enter_context(closing(self._open(address)))
            with self._unchanged():
                self.sql.backup(copy)
            yield copy

    def _place_for(self, n_bytes: int) -> Path:
        """Return a folder with room for a copy; raises IndexFull."""
        places = [self.path.parent, Path(gettempdir())]
        for place in places:
            if os.access(place, os.W_OK) and shutil.disk_usage(place).free > 2 * n_bytes:
                return place
        raise IndexFull(
            f"{self.path}: no room for a copy to check its words: {n_bytes >> 19} MiB in "
            f"{' or '.join(map(str, places))}; make room and run the same command again"
        )

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn SQLite's complaints about the file or the disk into ours."""
        try:
            yield
        except (sqlite3.DatabaseError, zlib.error, UnicodeDecodeError) as error:
            name = getattr(error, "sqlite_errorname", "").removeprefix("SQLITE_")
            for names, kind, text in COMPLAINTS:
                if name.startswith(names):
                    raise kind(f"{self.path}: {text.format(error=error)}") from error
            raise IndexCorrupt(f"{self.path}: {error}; {VERIFY}") from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block, or nothing of it."""
        with self._lock, self.errors():
            self.sql.execute("BEGIN IMMEDIATE")
            try:
                yield self.sql
                self.sql.execute("COMMIT")
            except BaseException:
                if self.sql.in_transaction:
                    self.sql.execute("ROLLBACK")
                raise

    @contextmanager
    def view(self) -> Iterator[sqlite3.Connection]:
        """One state of the database for several queries."""
        with self._lock, self.errors():
            self._renew()
            self.sql.execute("BEGIN")
            try:
                with self._unchanged():
                    yield self.sql
            finally:
                if self.sql.in_transaction:
                    self.sql.execute("COMMIT")

    def checked(
        self, table: str, where: str = "TRUE", values: tuple[object, ...] = ()
    ) -> list[tuple[object, ...]]:
        """Read rows whose checksums hold; raises IndexCorrupt on the first that does not."""
        names = ", ".join(columns(table))
        query = f"SELECT {crc_holds(table)}, {names} FROM {table} WHERE {where}"
        rows = self.sql.execute(query, values).fetchall()
        if not all(row[0] for row in rows):
            raise IndexCorrupt(f"{self.path}: a row of {table} is damaged; {VERIFY}")
        return [row[1:] for row in rows]
