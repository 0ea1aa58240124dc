"""Lines of text with their places → rows as the eye reads them.

A text layer keeps each cell of a table as a line of its own, so "Total" and its figure stand lines
apart. Cells at one height are put side by side again; lines of neighbouring columns of running text
are not, since they do not belong together.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

CELL_CHARS = 32  # a longer line is running text; table cells rarely are
FIGURE = re.compile(r"^[\W\d_]*\d[\W\d_]*\w{0,8}$")


@dataclass(frozen=True)
class PlacedLine:
    """A line of text and its edges, in any unit that grows to the right and downwards."""

    left: float
    top: float
    right: float
    bottom: float
    text: str

    @property
    def is_cell(self) -> bool:
        """Whether it may be a cell of a table: short, or a figure."""
        return len(self.text) <= CELL_CHARS or bool(FIGURE.match(self.text))


def join_rows(lines: Sequence[PlacedLine]) -> list[str]:
    """Return the lines in their order, cells at one height joined from left to right."""
    rows: list[list[PlacedLine]] = []
    for line in lines:
        text = " ".join(line.text.split())
        if not text:
            continue
        placed = PlacedLine(line.left, line.top, line.right, line.bottom, text)
        row = next((row for row in reversed(rows) if _is_beside(placed, row)), None)
        if row is None:
            rows.append([placed])
        else:
            row.append(placed)
    return [" ".join(each.text for each in sorted(row, key=lambda cell: cell.left)) for row in rows]


def _is_beside(line: PlacedLine, row: Sequence[PlacedLine]) -> bool:
    """Whether a line is a cell at the height of a row of cells, beside them all."""
    if not (line.is_cell and all(each.is_cell for each in row)):
        return False
    first = row[0]
    middle, height = (line.top + line.bottom) / 2, first.bottom - first.top
    same_height = abs(middle - (first.top + first.bottom) / 2) < 0.35 * height
    apart = all(line.left >= each.right - 1 or line.right <= each.left + 1 for each in row)
    return same_height and apart
