"""Make an index, or refuse one that was made otherwise than the caller means."""

import json
import logging
import re
import sqlite3
from dataclasses import asdict, fields
from pathlib import Path

from index import catalogue
from index.database import REBUILD, Database, crc_holds, schema
from index.errors import IndexCorrupt, IndexMismatch, IndexMissing
from index.records import FORMAT_VERSION, VectorSettings
from index.text_layer import WORDS_VERSION, fold

log = logging.getLogger(__name__)

# How a person would say the difference on the command line.
OPTIONS = {"dpi": "--dpi", "max_visual_tokens": "--max-visual-tokens"}
OPTIONS["pool_factor"] = "--pool-factor"
READINGS = re.compile(r"^CREATE \w+ (TABLE )?(readings|looks|reading_\w+) ")


def is_empty(database: Database) -> bool:
    """Tell whether the file is new, or was left by a process killed before the first commit."""
    query = "SELECT count(*) FROM sqlite_schema"
    with database.errors():
        return int(database.sql.execute(query).fetchone()[0]) == 0


def refuse_lost_database(folder: Path, database: Database | None = None) -> None:
    """Raise IndexCorrupt where vectors lie without their database: they are no leftovers.

    Nor where it is empty, as a placeholder of a file that lies elsewhere, or a torn copy, is.
    """
    if database is None:
        what = None if (folder / "index.db").exists() else "missing"
    else:
        what = "empty" if is_empty(database) else None
    if what and any((folder / "segments").glob("[0-9a-f]*")):
        raise IndexCorrupt(
            f"{folder}: index.db is {what} but segments/ is not empty; bring it back, or {REBUILD}"
        )


def create(database: Database, settings: VectorSettings) -> None:
    """Make all tables and store the settings, in one transaction."""
    with database.transaction() as sql:
        for statement in schema():
            sql.execute(statement)
        more = {"generation": 0, "words_version": WORDS_VERSION}
        for key, value in {**asdict(settings), **more}.items():
            catalogue.insert(sql, "settings", key, json.dumps(value))


def add_readings(database: Database) -> None:
    """Give an index of an earlier version a place for what models read on pages."""
    with database.view() as sql:
        if has_readings(sql):
            return
    with database.transaction() as sql:
        for statement in schema():
            if READINGS.search(statement):
                sql.execute(statement)


def has_readings(sql: sqlite3.Connection) -> bool:
    """Tell whether the index has a place for what models read on pages."""
    query = "SELECT 1 FROM sqlite_schema WHERE name = 'reading_index'"
    return sql.execute(query).fetchone() is not None


def has_present_words(database: Database) -> bool:
    """Tell whether the word index was made by the present `text_layer.words`."""
    query = "SELECT value FROM settings WHERE key = 'words_version'"
    with database.view() as sql:
        row = sql.execute(query).fetchone()
    return row is not None and json.loads(str(row[0])) == WORDS_VERSION


def renew_words(database: Database) -> None:
    """Make the word index of an earlier version anew from the stored texts: seconds, once.

    A damaged text puts it off until `verify --mend` has dropped its page.
    """
    if has_present_words(database):
        return
    try:
        with database.transaction() as sql:
            _fold_headings(sql)
            catalogue.rebuild_words(sql)
            sql.execute("DELETE FROM settings WHERE key = 'words_version'")
            catalogue.insert(sql, "settings", "words_version", json.dumps(WORDS_VERSION))
    except IndexCorrupt as error:
        log.warning("the word index stays as it was: %s", error)


def _fold_headings(sql: sqlite3.Connection) -> None:
    """Fold the names and titles of all documents anew, as catalogue.begin does.

    Damaged rows stay as they are: written anew, their checksum would hold.
    """
    query = f"SELECT id, title FROM contents WHERE {crc_holds('contents')}"
    for content, title in sql.execute(query).fetchall():
        names = map(catalogue.name_words, sorted(catalogue.names_of(sql, [content])))
        heading = fold(" ".join(dict.fromkeys([*names, title])))
        sql.execute(
            "UPDATE contents SET heading = ?1 WHERE id = ?2 AND heading IS NOT ?1",
            (heading, content),
        )


def load_settings(database: Database) -> VectorSettings:
    """Read the settings; raises IndexMissing, IndexCorrupt, and IndexMismatch for the format."""
    folder = database.path.parent
    if is_empty(database):
        raise IndexMissing(f"no index in {folder}; make one with `yomu ingest FOLDER`")
    with database.view():
        stored = {str(key): json.loads(str(value)) for key, value in database.checked("settings")}
    version = stored.get("format_version")
    if version != FORMAT_VERSION:
        raise IndexMismatch(
            f"{folder}: index format {version}, this program reads format {FORMAT_VERSION}; "
            "ingest again into a new folder with `yomu ingest PATH --index NEW`"
        )
    names = [field.name for field in fields(VectorSettings)]
    if missing := [name for name in names if name not in stored]:
        raise IndexCorrupt(f"{database.path}: settings {missing} are missing; ingest again")
    return VectorSettings(**{name: stored[name] for name in names})


def compare(folder: Path, stored: VectorSettings, wanted: VectorSettings) -> None:
    """Raise IndexMismatch unless vectors made with both settings may lie side by side."""
    differences = [
        (field.name, getattr(stored, field.name), getattr(wanted, field.name))
        for field in fields(VectorSettings)
        if field.name != "model_name" and getattr(stored, field.name) != getattr(wanted, field.name)
    ]
    if not differences:
        return
    what = ", ".join(f"{name} {_short(old)} (now {_short(new)})" for name, old, new in differences)
    keep = [f"{OPTIONS[name]} {old}" for name, old, _ in differences if name in OPTIONS]
    is_other_model = stored.model_name != wanted.model_name  # or the same one, with new weights
    if is_other_model and any(name == "model" for name, _, _ in differences):
        keep.append(f"--model {stored.model_name}")
    use = f"use {' '.join(keep)}, or " if keep else ""
    raise IndexMismatch(
        f"{folder}: this index was made with {what}; {use}ingest again into a new folder with "
        "`yomu ingest PATH --index NEW`"
    )


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) > 16 else text
