"""What is stored of a page beside its vectors, and where on it they sit."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from index import catalogue
from index.buffer import unpack_cells
from index.catalogue import PageRow
from index.database import Database, unpack_text
from index.errors import DocumentUnknown
from index.records import Floats, PageRecord, TextClass
from index.store import Thumbnails


def row_of(database: Database, document: str, number: int) -> PageRow:
    """Read one page inside a view; raises DocumentUnknown."""
    content = catalogue.content_of(database.sql, document)
    rows = catalogue.page_rows(database, content, number)
    if not rows:
        raise DocumentUnknown(f"page {number} of {document!r} is not in the index")
    return rows[0]


def record_of(folder: Path, document: str, row: PageRow) -> PageRecord:
    """Return a row as callers see it."""
    image = str(Thumbnails(folder).path(row.thumbnail)) if row.thumbnail else None
    return PageRecord(
        document=document,
        number=row.number,
        n_vectors=row.n_vectors,
        text=unpack_text(row.text),
        text_class=row.text_class,
        thumbnail=image,
        rows=row.rows,
        cols=row.cols,
    )


def with_text_class(
    sql: sqlite3.Connection, classes: Sequence[TextClass]
) -> tuple[tuple[str, int], ...]:
    """List (document, page) of the pages whose text is of these classes, in order."""
    marks = ", ".join("?" * len(classes))
    query = (
        "SELECT min(d.name), p.number FROM pages p JOIN documents d ON d.content = p.content"
        f" WHERE p.text_class IN ({marks}) GROUP BY p.id ORDER BY 1, 2"
    )
    return tuple(sql.execute(query, classes).fetchall())


def over_cells(similarities: Floats, row: PageRow) -> Floats:
    """Spread what stored vectors score (Q, P) over the page's cells: (Q, rows, cols).

    A cell has the best score of the vectors that its own were pooled into, and of the cell of the
    overview that its middle lies in; NaN where all were skipped.
    """
    cells, owners = unpack_cells(row.cells)
    n_page = row.rows * row.cols
    n_all = n_page + row.overview_rows * row.overview_cols
    scores = np.full((len(similarities), n_all), np.nan, np.float32)
    shown = cells >= 0
    np.fmax.at(scores.T, cells[shown], similarities.T[owners[shown]])
    page = scores[:, :n_page].reshape(-1, row.rows, row.cols)
    if n_all == n_page:
        return page
    overview = scores[:, n_page:].reshape(-1, row.overview_rows, row.overview_cols)
    down = (2 * np.arange(row.rows) + 1) * row.overview_rows // (2 * row.rows)
    across = (2 * np.arange(row.cols) + 1) * row.overview_cols // (2 * row.cols)
    return np.fmax(page, overview[:, down[:, None], across])
