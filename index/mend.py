"""Give up what is damaged, so that the next ingest reads it again; keep everything else."""

import os
import shutil
from pathlib import Path

from index import catalogue
from index.database import REBUILD, Database
from index.errors import IndexCorrupt
from index.snapshot import codebook_path
from index.store import Thumbnails
from index.verify import Findings

READ_AGAIN = "its stored pages were damaged; the next ingest reads it again"


def forget_damaged(folder: Path, database: Database, found: Findings) -> tuple[str, ...]:
    """Take damaged contents, segments, codebooks and images out of the index.

    Returns the documents to be read again. Segments that are damaged in part stay recorded and are
    to be rewritten by the caller without the contents that are deleted here.
    """
    if found.hopeless:
        raise IndexCorrupt(f"{database.path}: damaged beyond mending: {REBUILD}")
    with database.transaction() as sql:
        names = found.documents | catalogue.names_of(sql, found.contents)
        images = catalogue.remove(sql, found.documents)
        images += catalogue.empty(sql, names - found.documents, READ_AGAIN)
        # Rows may have gone with the document; the vectors of it remain.
        gone = [(content,) for content in found.contents]
        sql.executemany("INSERT OR IGNORE INTO deletions(content) VALUES (?)", gone)
        sql.executemany("DELETE FROM segments WHERE id = ?", [(s,) for s in found.unreadable])
        sql.executemany("DELETE FROM codebooks WHERE version = ?", [(v,) for v in found.codebooks])
        # The vectors of such a page are good: it stays, and is drawn again if its file is there.
        blurred = catalogue.names_drawn(sql, found.thumbnails) - names
        of_name = "SELECT source FROM documents WHERE name = ?"
        for name in blurred:
            if os.path.exists(sql.execute(of_name, (name,)).fetchone()[0]):
                catalogue.read_again(sql, name)
        lost = [(image,) for image in found.thumbnails]
        sql.executemany("UPDATE pages SET thumbnail = NULL WHERE thumbnail = ?", lost)
        if found.words:
            sql.execute("INSERT INTO word_index(word_index) VALUES('rebuild')")
        catalogue.bump(sql)
    _delete_files(folder, found, images)
    return tuple(sorted(names | blurred))


def _delete_files(folder: Path, found: Findings, images: list[str]) -> None:
    thumbnails = Thumbnails(folder)
    for image in [*images, *found.thumbnails]:
        thumbnails.remove(image)
    for segment in found.unreadable:
        shutil.rmtree(folder / "segments" / segment, ignore_errors=True)
    for version in found.codebooks:
        codebook_path(folder, version).unlink(missing_ok=True)
