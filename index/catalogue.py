"""Documents, contents and pages as rows: what is stored, what is shown, what is left to do.

Functions over an open connection, called inside a transaction (changes) or a view (questions).
"""

import json
import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from index.database import TEXT_INDEX, WORD_INDEXES, Database, columns
from index.errors import DocumentUnknown, FilterError
from index.records import DocumentInput, DocumentRecord, Failure, Filters, Resume, Status, TextClass
from index.text_layer import fold, is_unicode

# A content that is to be read again keeps its pages, but no file has this sha256 any more.
AGAIN = "again "
RECORD_DAMAGED = "its record was damaged; the next ingest renews it, its pages are kept"
UNFINISHED = "an ingest is still to read it to its end"
HERE = re.compile(r"^(?:\./+)+")  # as a shell completes it
NAMED = "(d.name IN (?, ?) OR d.name GLOB ?)"  # values: those of named()
SUFFIX = re.compile(r"\.[A-Za-z]{2,5}$")
RECORDS = (  # columns as _record() takes them
    "SELECT d.name, c.sha256, d.source, d.size, d.modified, d.date, d.language,"
    " coalesce(c.n_pages, 0), (SELECT count(*) FROM pages p WHERE p.content = c.id),"
    " (SELECT count(*) FROM failures f WHERE f.content = c.id), d.reason,"
    " (SELECT min(f.reason) FROM failures f WHERE f.content = coalesce(d.pending, d.content)),"
    " (SELECT n.sha256 FROM contents n WHERE n.id = d.pending AND d.content IS NOT NULL),"
    " (SELECT json_group_array(o.name) FROM documents o"
    "  WHERE o.content = d.content AND o.name <> d.name), coalesce(d.pending = d.content, 0)"
    " FROM documents d LEFT JOIN contents c ON c.id = coalesce(d.content, d.pending)"
)
NOBODY = "NOT EXISTS (SELECT 1 FROM documents WHERE content = ?1 OR pending = ?1)"


def bump(sql: sqlite3.Connection) -> None:
    """Tell readers that something they may have in memory has changed."""
    sql.execute("UPDATE settings SET value = value + 1 WHERE key = 'generation'")


def insert(sql: sqlite3.Connection, table: str, *values: object) -> None:
    """Add a row; an id of None is chosen by the database."""
    names = columns(table)
    marks = ", ".join("?" * len(names))
    sql.execute(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", values)


# -- one document ------------------------------------------------------------------------------


def content_of(sql: sqlite3.Connection, name: str) -> int:
    """Content shown under a name; raises DocumentUnknown."""
    row = sql.execute("SELECT content FROM documents WHERE name = ?", (name,)).fetchone()
    if row is None or row[0] is None:
        raise DocumentUnknown(f"no document {name!r} in the index; `yomu list` shows all names")
    return int(row[0])


def resume(sql: sqlite3.Connection, content: int) -> Resume:
    """Return what is stored of a content."""
    (n_pages,) = sql.execute("SELECT n_pages FROM contents WHERE id = ?", (content,)).fetchone()
    rows = sql.execute("SELECT number FROM pages WHERE content = ?", (content,))
    done = frozenset(number for (number,) in rows)
    rows = sql.execute("SELECT page, reason FROM failures WHERE content = ?", (content,))
    failed = dict(rows.fetchall())
    status = status_of(n_pages, len(done), len(failed))
    return Resume("new" if not done and not failed else status, done, failed)


def status_of(n_pages: int, n_stored: int, n_failed: int) -> Status:
    """Status of a content from its counts."""
    if n_stored >= n_pages:
        return "complete"
    return "damaged" if n_failed else "partial"


def begin(sql: sqlite3.Connection, document: DocumentInput) -> tuple[int, list[int]]:
    """Point the document's name at its content, new or known.

    Returns the content to be filled and the contents that may be left without a name. Writes only
    what differs, so that an unchanged folder costs no transaction: see is_current. Size and date
    stay those of what is shown until finish() shows the new content.
    """
    row = sql.execute("SELECT id FROM contents WHERE sha256 = ?", (document.sha256,)).fetchone()
    if row is None:
        title = document.title.encode("utf-8", "replace").decode()
        insert(sql, "contents", None, document.sha256, document.n_pages, title, "")
        row = sql.execute("SELECT last_insert_rowid()").fetchone()
    content = int(row[0])
    # Another version of the reader may count the pages of the same bytes differently.
    sql.execute("UPDATE contents SET n_pages = ? WHERE id = ?", (document.n_pages, content))
    old = sql.execute(
        "SELECT content, pending, language, size, modified, date FROM documents WHERE name = ?",
        (document.name,),
    ).fetchone()
    shown, pending, language, *state = old or (None, None, None)
    if shown is None:
        shown = content
    is_new = old is None or pending == shown == content  # pending until finish(), shown at once
    replace = None if shown == content and not is_new else content
    if shown == content:
        state = _state_of(document)
    sql.execute("DELETE FROM documents WHERE name = ?", (document.name,))
    twin = sql.execute("SELECT max(language) FROM documents WHERE content = ?", (content,))
    known = language if shown == content else None
    language = document.language or known or twin.fetchone()[0]  # of the same bytes
    insert(
        sql,
        "documents",
        *(document.name, shown, replace, source_of(document), *state, language, None),
    )
    _renew_heading(sql, content)
    return content, [] if pending in (None, content) else [pending]


def _state_of(document: DocumentInput) -> list[object]:
    """Size, time of the last change and date, in the order of their columns."""
    return [document.size_bytes, document.modified, date_of(document)]


def name_words(name: str) -> str:
    """Return what the path of a document says: folders and name, without what joins them."""
    return re.sub(r"[-_./]+", " ", SUFFIX.sub("", name))


def _renew_heading(sql: sqlite3.Connection, content: int) -> None:
    """Have the pages of a content found by the names it has now, and by its title."""
    row = sql.execute("SELECT title, heading FROM contents WHERE id = ?", (content,)).fetchone()
    if row is None:
        return
    title, before = row
    names = sorted(names_of(sql, [content]))
    heading = fold(" ".join(dict.fromkeys([*map(name_words, names), title])))
    if heading != before:
        forget_words(sql, "content = ?", content, indexes=TEXT_INDEX)
        sql.execute("UPDATE contents SET heading = ? WHERE id = ?", (heading, content))
        learn_words(sql, "content = ?", content, indexes=TEXT_INDEX)


def source_of(document: DocumentInput) -> str:
    """Path a document came from; bytes that are not Unicode as escapes."""
    return document.source.encode("utf-8", "backslashreplace").decode()


def date_of(document: DocumentInput) -> str | None:
    """ISO date of a document: its own, or that of its last change, as it was here then.

    None where a damaged clock or archive left a time that no calendar has.
    """
    if document.date is not None:
        return checked_date(document.date)
    try:
        return date.fromtimestamp(document.modified).isoformat()
    except (ValueError, OverflowError, OSError):
        return None


def is_current(sql: sqlite3.Connection, document: DocumentInput) -> int | None:
    """Content of a document that is recorded exactly as given, or None."""
    row = sql.execute(
        "SELECT d.content FROM documents d JOIN contents c ON c.id = d.content"
        " WHERE d.name = ? AND c.sha256 = ? AND d.pending IS NULL AND d.reason IS NULL"
        " AND d.source = ? AND d.size = ? AND d.modified = ? AND d.date IS ?"
        " AND (?7 IS NULL OR d.language = ?7)",
        (
            *(document.name, document.sha256, source_of(document), document.size_bytes),
            *(document.modified, date_of(document), document.language),
        ),
    ).fetchone()
    return int(row[0]) if row else None


def finish(sql: sqlite3.Connection, document: DocumentInput, language: str | None) -> list[int]:
    """Show the new content of a document; returns the contents that may be left without a name.

    A new content of which no page could be read replaces nothing, nor does one that was read again
    with fewer pages than before.
    """
    name = document.name
    row = sql.execute("SELECT content, pending FROM documents WHERE name = ?", (name,)).fetchone()
    if row is None:
        return []
    if language is not None:
        sql.execute("UPDATE documents SET language = ? WHERE name = ?", (language, name))
    sql.execute(  # another name of the same bytes was read, this one was not
        "UPDATE documents SET language = (SELECT max(d.language) FROM documents d"
        " WHERE d.content = documents.content) WHERE name = ? AND language IS NULL",
        (name,),
    )
    old, new = row
    if new == old:  # its first reading has ended; what begin() recorded of it stands
        sql.execute("UPDATE documents SET pending = NULL WHERE name = ?", (name,))
        return []
    n_stored, is_again = _n_pages(sql, new), _is_again(sql, old, new)
    if not n_stored or (is_again and n_stored < _n_pages(sql, old)):
        return []
    sql.execute(
        "UPDATE documents SET content = pending, pending = NULL, size = ?, modified = ?, date = ?"
        " WHERE name = ?",
        (*_state_of(document), name),
    )
    if is_again:  # other names of the same bytes go with it
        change = "UPDATE documents SET content = ?2, pending = nullif(pending, ?2)"
        sql.execute(f"{change} WHERE content = ?1", (old, new))
        _renew_heading(sql, new)
    return [] if old is None else [old]


def _n_pages(sql: sqlite3.Connection, content: int | None) -> int:
    (n_pages,) = sql.execute("SELECT count(*) FROM pages WHERE content = ?", (content,)).fetchone()
    return int(n_pages)


def _is_again(sql: sqlite3.Connection, old: int | None, new: int | None) -> bool:
    """Say whether the new content is the bytes of the old one, read again."""
    query = "SELECT 1 FROM contents o, contents n WHERE o.id = ? AND n.id = ?"
    marked = f" AND o.sha256 = '{AGAIN}' || o.id || ' ' || n.sha256"
    return sql.execute(query + marked, (old, new)).fetchone() is not None


def read_again(sql: sqlite3.Connection, name: str) -> None:
    """Have the next reading of a document read all of its pages; raises DocumentUnknown.

    What is stored stays visible until then. Where a reading has begun already, that one goes on.
    """
    row = sql.execute("SELECT content, pending FROM documents WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise DocumentUnknown(f"no document {name!r} in the index; `yomu list` shows all names")
    if row[1] is None:
        mark = f"UPDATE contents SET sha256 = '{AGAIN}' || id || ' ' || sha256 WHERE id = ?"
        sql.execute(f"{mark} AND sha256 NOT LIKE '{AGAIN}%'", (row[0],))


def fail(sql: sqlite3.Connection, name: str, reason: str, source: str) -> None:
    """Record that a document cannot be read; what is stored of it stays."""
    row = sql.execute("SELECT 1 FROM documents WHERE name = ?", (name,)).fetchone()
    if row is None:
        insert(sql, "documents", name, None, None, source, 0, 0.0, None, None, reason)
    else:
        sql.execute("UPDATE documents SET reason = ? WHERE name = ?", (reason, name))


def collect(sql: sqlite3.Connection, contents: Iterable[int]) -> list[str]:
    """Forget contents that no name holds; returns thumbnails that nobody refers to any more."""
    gone: list[str] = []
    for content in contents:
        if not sql.execute(f"SELECT {NOBODY}", (content,)).fetchone()[0]:
            _renew_heading(sql, content)  # one of its names may be gone
            continue
        forget_words(sql, "content = ?", content)
        images = sql.execute(
            "SELECT DISTINCT thumbnail FROM pages WHERE content = ? AND thumbnail IS NOT NULL",
            (content,),
        ).fetchall()
        had_pages = delete_pages(sql, "content = ?", content)
        sql.execute("DELETE FROM failures WHERE content = ?", (content,))
        sql.execute("DELETE FROM contents WHERE id = ?", (content,))
        if had_pages:
            insert(sql, "deletions", content)
        gone += [image for (image,) in images]
    used = "SELECT 1 FROM pages WHERE thumbnail = ?"
    return [image for image in gone if sql.execute(used, (image,)).fetchone() is None]


def remove(sql: sqlite3.Connection, names: Iterable[str]) -> list[str]:
    """Remove documents by exact name; returns thumbnails to delete."""
    held = []
    for name in names:
        held += _held(sql, name)
        sql.execute("DELETE FROM documents WHERE name = ?", (name,))
    return collect(sql, held)


def _held(sql: sqlite3.Connection, name: str) -> list[int]:
    row = sql.execute("SELECT content, pending FROM documents WHERE name = ?", (name,)).fetchone()
    return [content for content in row or () if content is not None]


@dataclass(frozen=True)
class PageRow:
    """A row of pages, columns in their order."""

    id: int
    content: int
    number: int
    n_vectors: int
    rows: int
    cols: int
    overview_rows: int
    overview_cols: int
    cells: bytes
    thumbnail: str | None
    text_class: TextClass
    text: bytes


def page_rows(database: Database, content: int, number: int | None = None) -> list[PageRow]:
    """Read checked rows of the pages of a content, or of one of them, by number."""
    condition = "content = ?1 AND (?2 IS NULL OR number = ?2) ORDER BY number"
    rows = database.checked("pages", condition, (content, number))
    return [PageRow(*row) for row in rows]  # type: ignore[arg-type]


# -- full-text rows ----------------------------------------------------------------------------


def forget_words(
    sql: sqlite3.Connection,
    where: str,
    *values: object,
    indexes: Mapping[str, str] = WORD_INDEXES,
) -> None:
    """Take pages out of the word indexes; before their row changes or goes.

    indexes  those whose texts do, with the view that holds them
    """
    for index, view in indexes.items():
        sql.execute(
            f"INSERT INTO {index}({index}, rowid, body) SELECT 'delete', id, body FROM {view}"
            f" WHERE id IN (SELECT id FROM pages WHERE {where})",
            values,
        )


def learn_words(
    sql: sqlite3.Connection,
    where: str,
    *values: object,
    indexes: Mapping[str, str] = WORD_INDEXES,
) -> None:
    """Put pages into the word indexes; after their row was written."""
    for index, view in indexes.items():
        sql.execute(
            f"INSERT INTO {index}(rowid, body) SELECT id, body FROM {view}"
            f" WHERE id IN (SELECT id FROM pages WHERE {where})",
            values,
        )


def rebuild_words(sql: sqlite3.Connection) -> None:
    """Make the word indexes anew from the stored texts."""
    for index in WORD_INDEXES:
        sql.execute(f"INSERT INTO {index}({index}) VALUES('rebuild')")


def delete_pages(sql: sqlite3.Connection, where: str, *values: object) -> int:
    """Delete rows of pages, and what was read on them; returns how many pages there were."""
    pages = f"SELECT id FROM pages WHERE {where}"
    sql.execute(f"DELETE FROM readings WHERE page IN ({pages})", values)
    return sql.execute(f"DELETE FROM pages WHERE {where}", values).rowcount


# -- many documents ----------------------------------------------------------------------------


def as_named(typed: str) -> str:
    """Spell a name, pattern or folder as names are: composed (macOS does not), without ./ before.

    Raises FilterError for one that no name can be.
    """
    if not is_unicode(typed):
        message = f"{typed!r} is not valid Unicode; `yomu list` shows how names are written"
        raise FilterError(message)
    return unicodedata.normalize("NFC", HERE.sub("", typed))


def named(pattern: str) -> list[object]:
    """Values for documents that have exactly this name, or match it as a glob."""
    spelled = as_named(pattern)
    return [pattern, spelled, spelled]


def names_like(sql: sqlite3.Connection, pattern: str) -> list[str]:
    """Names that are the pattern or match it as a glob, sorted."""
    rows = sql.execute(
        f"SELECT d.name FROM documents d WHERE {NAMED} ORDER BY d.name", named(pattern)
    )
    return [name for (name,) in rows]


def names_of(sql: sqlite3.Connection, contents: Iterable[int]) -> set[str]:
    """Collect the names that show contents or are being read to them."""
    query = "SELECT name FROM documents WHERE content = ?1 OR pending = ?1"
    return {row[0] for content in contents for row in sql.execute(query, (content,))}


def names_drawn(sql: sqlite3.Connection, thumbnails: Iterable[str]) -> set[str]:
    """Collect the names of the documents that have pages with these thumbnails."""
    query = "SELECT DISTINCT content FROM pages WHERE thumbnail = ?"
    contents = [row[0] for image in thumbnails for row in sql.execute(query, (image,))]
    return names_of(sql, contents)


def records(sql: sqlite3.Connection, pattern: str) -> tuple[DocumentRecord, ...]:
    """Documents as `list` shows them, by name."""
    rows = sql.execute(f"{RECORDS} WHERE {NAMED} ORDER BY d.name", named(pattern))
    return tuple(_record(row) for row in rows)


def record(sql: sqlite3.Connection, name: str) -> DocumentRecord | None:
    """Return the document of exactly this name, if there is one."""
    row = sql.execute(f"{RECORDS} WHERE d.name = ?", (name,)).fetchone()
    return None if row is None else _record(row)


def _record(row: tuple[Any, ...]) -> DocumentRecord:
    *known, n_pages, n_stored, n_failed, reason, of_page, pending, others, unfinished = row
    name, stored, source, size_bytes, modified, day, language = known
    sha256 = stored and stored.rpartition(" ")[2]
    status = status_of(n_pages, n_stored, n_failed)
    outdated = None
    if not n_stored:
        reason = reason or of_page
    elif pending not in (None, sha256):
        outdated = reason or of_page or UNFINISHED
    elif reason != RECORD_DAMAGED:
        outdated = reason
    if reason is not None:
        status = "failed"
    elif pending is not None or stored != sha256:
        status = "partial"
    return DocumentRecord(
        name=name,
        sha256=sha256,
        source=source,
        size_bytes=size_bytes,
        modified=modified,
        date=day,
        language=language,
        n_pages=n_pages,
        n_pages_stored=n_stored,
        status=status,
        reason=reason,
        same_as=tuple(sorted(json.loads(others))),
        outdated=outdated,
        unfinished=bool(unfinished),
    )


def failures(sql: sqlite3.Connection) -> tuple[Failure, ...]:
    """Documents and pages that could not be read, under every name."""
    rows = sql.execute(
        "SELECT name, NULL, reason FROM documents WHERE reason IS NOT NULL UNION ALL"
        " SELECT d.name, f.page, f.reason FROM failures f"
        " JOIN documents d ON d.content = f.content OR d.pending = f.content ORDER BY 1, 2"
    )
    return tuple(Failure(*row) for row in rows)


# -- filters -----------------------------------------------------------------------------------


def checked_date(text: str) -> str:
    """ISO date in its one spelling; raises FilterError."""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise FilterError(f"{text!r} is no date; write YYYY-MM-DD, as in 2024-03-31") from error


def where(filters: Filters) -> tuple[str, list[object]]:
    """Write an SQL condition over documents (as `d`) and its values."""
    parts: list[tuple[str, list[object]]] = [("d.content IS NOT NULL", [])]
    if filters.document is not None:
        parts.append((NAMED, named(filters.document)))
    if filters.folder is not None:
        folder = as_named(filters.folder).strip("/")
        if folder not in ("", "."):  # all that there is
            parts.append(("substr(d.name, 1, ?) = ?", [len(folder) + 1, f"{folder}/"]))
    first, last = (
        None if day is None else checked_date(day) for day in (filters.date_from, filters.date_to)
    )
    if first is not None and last is not None and first > last:
        raise FilterError(f"{first} is after {last}: no day is in between")
    if first is not None:
        parts.append(("d.date >= ?", [first]))
    if last is not None:
        parts.append(("d.date <= ?", [last]))
    if filters.language is not None:
        language = as_named(filters.language).lower()
        parts.append(("(d.language = ? OR d.language IS NULL)", [language]))
    if filters.names is not None:
        parts.append(("d.name IN (SELECT value FROM json_each(?))", [json.dumps(filters.names)]))
    condition = " AND ".join(part for part, _ in parts)
    return condition, [value for _, values in parts for value in values]
