"""Give up what is damaged, so that the next ingest reads it again; keep everything else."""

import logging
import os
import shutil
import sqlite3
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from index import catalogue
from index.codebook import Codebook
from index.codec import StoreCodec
from index.database import REBUILD, Database
from index.errors import IndexCorrupt
from index.salvage import Whole
from index.segment import Segment, SegmentInfo, SegmentWriter
from index.snapshot import codebook_path
from index.store import Thumbnails, disk_errors, reading
from index.text_layer import fold
from index.upkeep import READ_PAGES
from index.verify import Findings, contents_of
from index.writer import insert_segment

log = logging.getLogger(__name__)
ASIDE = "lost-"
PAGE_AGAIN = "what was stored of it was damaged; the next ingest reads it again"


def forget_damaged(
    folder: Path,
    database: Database,
    codec: StoreCodec,
    codebook: Codebook | None,
    found: Findings,
) -> tuple[str, ...]:
    """Take damaged pages, segments, codebooks and images out of the index, in one transaction.

    Every page that can be trusted stays, for its file may be gone; the others become failed pages
    of their documents. Returns the documents to be read again. Segments that are damaged in part
    are rewritten with what is whole, their centroid sets looked up in `codebook`. One with pages
    that no file has any more is put aside.
    """
    if found.hopeless:
        raise IndexCorrupt(f"{database.path}: damaged beyond mending: {REBUILD}")
    if codebook is not None and codebook.version in found.codebooks:
        codebook = None
    with disk_errors(folder):
        rewritten = _rewrite(folder, database, codec, codebook, found.segments)
        rewritten += _salvage(folder, codec, codebook, found.salvaged)
    dropped = found.unreadable | found.segments.keys()
    with ExitStack() as undo:
        with database.transaction() as sql:
            aside = _to_keep(sql, found)
            contents = contents_of(sql, found.pages) | found.contents | found.strays
            names = found.documents | catalogue.names_of(sql, contents)
            images = _fail_pages(sql, found)
            _renew_contents(sql, found.contents)
            _renew_documents(sql, found.documents)
            for segment in rewritten:
                insert_segment(database, segment)
            sql.executemany("DELETE FROM segments WHERE id = ?", [(s,) for s in dropped])
            sql.executemany(
                "DELETE FROM codebooks WHERE version = ?", [(v,) for v in found.codebooks]
            )
            names |= _forget_images(sql, found.thumbnails)
            if found.words:
                catalogue.rebuild_words(sql)
            catalogue.bump(sql)
            for name in aside:  # before the commit: a kill after it would have them swept
                _put_aside(folder / "segments" / name, undo)
        undo.pop_all()
    thumbnails = Thumbnails(folder)
    for image in images | found.thumbnails:
        thumbnails.remove(image)
    for name in dropped - aside:
        shutil.rmtree(folder / "segments" / name, ignore_errors=True)
    for version in found.codebooks:
        codebook_path(folder, version).unlink(missing_ok=True)
    return tuple(sorted(names))


def _rewrite(
    folder: Path,
    database: Database,
    codec: StoreCodec,
    codebook: Codebook | None,
    wanted: dict[str, set[int]],
) -> list[SegmentInfo]:
    """Write the wanted pages of segments into new ones, which count once they are recorded."""
    with database.view():
        rows = database.checked("segments")
    infos = [SegmentInfo(*row) for row in rows]  # type: ignore[arg-type]
    return [
        _copy(Segment(folder, info, codec), sorted(wanted[info.id]), folder, codec, codebook)
        for info in infos
        if wanted.get(info.id)
    ]


def _copy(
    segment: Segment,
    pages: list[int],
    folder: Path,
    codec: StoreCodec,
    codebook: Codebook | None,
) -> SegmentInfo:
    rows = np.searchsorted(segment.pages, pages)
    with SegmentWriter(folder, codec, codebook) as writer:
        for part in np.split(rows, range(READ_PAGES, len(rows), READ_PAGES)):
            records, starts = segment.records(part)
            ends = starts + segment.lengths(part)
            for row, start, end in zip(part.tolist(), starts, ends, strict=True):
                page, content = int(segment.pages[row]), int(segment.contents[row])
                writer.add(page, content, records[start:end])
        return writer.finish()


def _salvage(
    folder: Path,
    codec: StoreCodec,
    codebook: Codebook | None,
    salvaged: dict[str, dict[int, Whole]],
) -> list[SegmentInfo]:
    """Write pages out of segments that cannot be opened into new ones."""
    written = []
    for name, pages in salvaged.items():
        if not pages:
            continue
        vectors = folder / "segments" / name / "vectors.bin"
        with reading(vectors):
            file = vectors.open("rb")
        with file, SegmentWriter(folder, codec, codebook) as writer:
            for page, place in sorted(pages.items(), key=lambda each: each[0]):
                with reading(vectors):
                    file.seek(place.first_byte)
                    data = file.read(place.n_bytes)
                records = np.frombuffer(data, np.uint8).reshape(-1, codec.record_bytes)
                writer.add(page, place.content, records)
            written.append(writer.finish())
    return written


def _to_keep(sql: sqlite3.Connection, found: Findings) -> set[str]:
    """Segments of which something was lost, where a file that has it is gone."""
    query = (
        "SELECT d.source FROM pages p JOIN documents d ON p.content IN (d.content, d.pending)"
        " WHERE p.id = ?"
    )
    sources = {row[0] for page in found.pages for row in sql.execute(query, (page,))}
    if all(map(os.path.exists, sources)):
        return set()
    kept = {name: len(pages) for name, pages in found.salvaged.items()}
    kept |= {name: len(pages) for name, pages in found.segments.items()}
    rows = sql.execute("SELECT id, n_pages FROM segments").fetchall()
    return {name for name, n_pages in rows if n_pages > kept.get(name, n_pages)}


def _put_aside(segment: Path, undo: ExitStack) -> None:
    """Keep a damaged segment, under a name that nothing reads: only a person may give it up."""
    aside = segment.with_name(f"{ASIDE}{segment.name}")
    with disk_errors(segment.parent):
        if not segment.exists():
            return
        segment.rename(aside)
    undo.callback(aside.rename, segment)
    log.warning(
        "%s: pages of it could not be recovered, and a file they were read from is gone; "
        "the damaged segment is kept there: delete it when nobody needs it",
        aside,
    )


def _fail_pages(sql: sqlite3.Connection, found: Findings) -> set[str]:
    """Turn damaged pages into failed ones; returns images that nobody refers to any more."""
    images = set()
    for page in found.pages:
        query = "SELECT content, number, thumbnail FROM pages WHERE id = ?"
        content, number, image = sql.execute(query, (page,)).fetchone()
        if not found.words:  # otherwise they may be others than those of the row
            catalogue.forget_words(sql, "id = ?", page)
        catalogue.delete_pages(sql, "id = ?", page)
        sql.execute("DELETE FROM failures WHERE content = ? AND page = ?", (content, number))
        catalogue.insert(sql, "failures", content, number, PAGE_AGAIN)
        images.add(image)
    used = "SELECT 1 FROM pages WHERE thumbnail = ?"
    return {image for image in images if image and not sql.execute(used, (image,)).fetchone()}


def _renew_contents(sql: sqlite3.Connection, contents: set[int]) -> None:
    """Replace damaged rows by what pages and names say, until their files are read again."""
    last = "SELECT max(number) FROM pages WHERE content = contents.id"
    for content in contents:
        names = sorted(catalogue.names_of(sql, [content]))
        heading = fold(" ".join(dict.fromkeys(map(catalogue.name_words, names))))
        sql.execute(
            f"UPDATE contents SET n_pages = coalesce(({last}), 1), title = '', heading = ?"
            " WHERE id = ?",
            (heading, content),
        )
        for name in names:
            catalogue.read_again(sql, name)


def _renew_documents(sql: sqlite3.Connection, names: set[str]) -> None:
    """Leave of damaged rows what the database's own indexes vouch for, and where the file was."""
    sql.executemany(
        "UPDATE documents SET size = 0, modified = 0, date = NULL, language = NULL, reason = ?"
        " WHERE name = ?",
        [(catalogue.RECORD_DAMAGED, name) for name in names],
    )


def _forget_images(sql: sqlite3.Connection, images: set[str]) -> set[str]:
    """Have pages drawn again whose files are there; the others stay without their image."""
    names = catalogue.names_drawn(sql, images)
    for name in names:
        of_name = "SELECT source FROM documents WHERE name = ?"
        if os.path.exists(sql.execute(of_name, (name,)).fetchone()[0]):
            catalogue.read_again(sql, name)
    lost = [(image,) for image in images]
    sql.executemany("UPDATE pages SET thumbnail = NULL WHERE thumbnail = ?", lost)
    return names
