"""Parts of pages that a step of training reads."""

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.reading import COLUMNS, PIXELS_OF_SLOT, ROWS
from training.slots import Alphabet, Cells, SeenPage, spelled

PART_ROWS = 48  # half rows of a page
OVERVIEWS, ALONE = 0.2, 0.15  # shares of parts: of the overview, of the cells without shifted ones
LOW = 0.25  # share of other parts, of fewer rows: norms are to suit a cut-out line as well
UNSEEN = 0.2  # share of parts that are read without what the tower saw of them


@dataclass(frozen=True)
class Part:
    """Some rows of a page, to be read.

    cells  what is seen of it
    pixels (16·R, 8·C) uint8
    shape  (R, C) rows and columns of its lattice of slots
    rows   what a row of the lattice spells, as `spelled` has it; rows without text are left out
    """

    cells: tuple[Cells, ...]
    pixels: NDArray[np.uint8]
    shape: tuple[int, int]
    rows: dict[int, list[tuple[int, int]]]


def whole(page: SeenPage, alphabet: Alphabet) -> Part:
    """Return all of a page."""
    rows, columns = page.grid
    text = spelled(page, page.grid, alphabet)
    return Part(page.cells, page.pixels[0], (ROWS * rows, COLUMNS * columns), text)


def cut(page: SeenPage, alphabet: Alphabet, rng: random.Random) -> Part:
    """Return some rows of a page, or its overview, as a step of training reads them."""
    if page.small[0] and rng.random() < OVERVIEWS:
        rows, columns = page.small
        text = spelled(page, page.small, alphabet)
        overview = page.overview.unseen() if rng.random() < UNSEEN else page.overview
        return Part((overview,), page.pixels[1], (ROWS * rows, COLUMNS * columns), text)
    rows, columns = page.grid
    height = min(PART_ROWS // ROWS, rows)  # in cells
    if rng.random() < LOW:
        height = rng.randrange(height) + 1
    top = rng.randrange(rows - height + 1)
    kept = page.cells[:1] if rng.random() < ALONE else page.cells
    if rng.random() < UNSEEN:
        kept = tuple(each.unseen() for each in kept)
    first, n_rows = ROWS * top, ROWS * height
    pixels = page.pixels[0][PIXELS_OF_SLOT[0] * first :][: PIXELS_OF_SLOT[0] * n_rows]
    text = spelled(page, page.grid, alphabet).items()
    inside = {row - first: line for row, line in text if 0 <= row - first < n_rows}
    cells = tuple(each.below(top) for each in kept)
    return Part(cells, pixels, (n_rows, COLUMNS * columns), inside)
