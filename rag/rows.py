"""Lines of text with their places → rows as the eye reads them.

A text layer keeps each cell of a table as a line of its own, so "Total" and its figure stand lines
apart. Cells at one height are put side by side again; lines of neighbouring columns of running text
are not, since they do not belong together. A lone figure right below a label, as in the slices of a
pie, goes behind the label.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

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
    for line in _with_their_labels(lines):
        row = next((row for row in reversed(rows) if _is_beside(line, row)), None)
        if row is None:
            rows.append([line])
        else:
            row.append(line)
    return [" ".join(each.text for each in sorted(row, key=lambda cell: cell.left)) for row in rows]


def _with_their_labels(lines: Sequence[PlacedLine]) -> list[PlacedLine]:
    """Put each lone figure behind the label right above it, which may be of several lines."""
    found: list[PlacedLine] = []
    spaced = (replace(line, text=" ".join(line.text.split())) for line in lines)
    given = [line for line in spaced if line.text]
    for line, following in zip_longest(given, given[1:]):
        is_column = following and FIGURE.match(following.text) and _is_under(following, line)
        if FIGURE.match(line.text) and not is_column:
            while found and _is_label(found[-1]) and _is_under(line, found[-1]):
                line = _joined(found.pop(), line)
        found.append(line)
    return found


def _is_label(line: PlacedLine) -> bool:
    return line.is_cell and not any(char.isdigit() for char in line.text)


def _is_under(lower: PlacedLine, upper: PlacedLine) -> bool:
    """Whether a line stands centred right below another."""
    height = upper.bottom - upper.top
    is_centred = abs(upper.left + upper.right - lower.left - lower.right) < height
    return is_centred and -0.3 * height < lower.top - upper.bottom < 0.6 * height


def _joined(upper: PlacedLine, lower: PlacedLine) -> PlacedLine:
    left, right = min(upper.left, lower.left), max(upper.right, lower.right)
    return PlacedLine(left, upper.top, right, lower.bottom, f"{upper.text} {lower.text}")


def _is_beside(line: PlacedLine, row: Sequence[PlacedLine]) -> bool:
    """Whether a line is a cell at the height of a row of cells, beside them all."""
    if not (line.is_cell and all(each.is_cell for each in row)):
        return False
    first = row[0]
    middle, height = (line.top + line.bottom) / 2, first.bottom - first.top
    same_height = abs(middle - (first.top + first.bottom) / 2) < 0.35 * height
    apart = all(line.left >= each.right - 1 or line.right <= each.left + 1 for each in row)
    return same_height and apart
