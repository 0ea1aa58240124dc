"""Counts and sizes of an index."""

import os
from contextlib import suppress
from pathlib import Path

from index.database import Database
from index.records import IndexStats, VectorSettings

# As an ingest counts them: nothing could be read of the newest version of the file.
FAILED = """SELECT count(*) FROM documents d WHERE d.reason IS NOT NULL
 OR (EXISTS (SELECT 1 FROM failures f WHERE f.content = coalesce(d.pending, d.content))
 AND NOT EXISTS (SELECT 1 FROM pages p WHERE p.content = coalesce(d.pending, d.content)))"""


def measure(folder: Path, database: Database, settings: VectorSettings) -> IndexStats:
    """Count and weigh everything; reads names and sizes, not contents."""
    with database.view() as sql:

        def one(query: str) -> int:
            return int(sql.execute(query).fetchone()[0] or 0)

        pages = one("SELECT count(*) FROM pages")
        in_segments = one("SELECT sum(n_pages) FROM segments")
        sizes = _sizes(folder)
        return IndexStats(
            documents=one("SELECT count(*) FROM documents"),
            pages=pages,
            vectors=one("SELECT sum(n_vectors) FROM pages"),
            segments=one("SELECT count(*) FROM segments"),
            failed_pages=one("SELECT count(*) FROM failures"),
            failed_documents=one(FAILED),
            dead_pages=in_segments - pages,
            codebook=one("SELECT max(n_centroids) FROM codebooks") or None,
            bytes={
                **sizes,
                "total": sum(sizes.values()),
                "per_page": round(sum(sizes.values()) / pages) if pages else 0,
            },
            settings=settings,
        )


def _sizes(folder: Path) -> dict[str, int]:
    sizes = dict.fromkeys(("vectors", "codes", "images", "database"), 0)
    for where, _, names in os.walk(folder):  # which a writer may be changing
        for name in names:
            path = Path(where, name)
            with suppress(FileNotFoundError):
                sizes[_part(path.relative_to(folder))] += path.stat().st_size
    return sizes


def _part(path: Path) -> str:
    if path.parts[0] == "images":
        return "images"
    if path.name == "vectors.bin":
        return "vectors"
    if path.parts[0] == "segments" or path.suffix == ".faiss":
        return "codes"
    return "database"
