"""Lines of text with their places → rows as the eye reads them.

A text layer keeps each cell of a table as a line of its own, so "Total" and its figure stand lines
apart. Cells at one height are put side by side again; lines of neighbouring columns of running text
are not, since they do not belong together. Where the text layer goes through a table row by row,
wide cells and those of several lines are known by that. A lone figure right below a label, as in
the slices of a pie, goes behind the label; figures half way down a label of two lines go behind
both.
"""

import math
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import pairwise

CELL_END = "\t"
LEADERS = re.compile(  # between a title and its page, in a table of contents
    r"(?<![.·…‥・ ])\s?(?:[.·…‥・]\s?){4,}(?=[\divxlc]{1,5}$)"
)
CELL_CHARS = 32  # a longer line is running text; table cells rarely are
DIVIDED = re.compile(r"[a-z]-$")
LEVEL = 0.35  # of the height of a line: how far the middles of cells side by side may be apart
MOST_BANDS = 100  # of ordinary lines: no heading is higher
MOST_CELL_LINES = 5
MOST_TALLER = 1.3  # times; of lines side by side in a row
LEAST_WRAPPED = 5  # wide; 新宿 and 渋谷 under each other are two
FIRST_WORD = re.compile(r"[^\s\u3040-\u30ff\u3400-\u9fff]+|\S")
MOST_PLACES = 8  # of a word that tells where to look
SAME_LINE = 3.0  # points between the middles of neighbours on one line, at most
YEAR = re.compile(r"^(FY|CY|'|’)?\s?(19|20)\d\d\s?(年度?|E|F|\*)?$")
NO_VALUE = re.compile(r"^(n/?a|n\.m\.|[-–—―]|…)$", re.IGNORECASE)  # in the place of a figure
FIGURE = re.compile(  # no heading, "2. Rent", and no ages
    r"^(?!\W*\d{1,2}[.．)）]\s?[^\W\d])[\W_]*+\d[\W\d_]*+\w{0,8}$"
    r"(?<!\d代)(?<!歳以上)(?<!歳未満)"
)

Place = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class PlacedLine:
    """A line of text and its edges, in any unit that grows to the right and downwards."""

    left: float
    top: float
    right: float
    bottom: float
    text: str
    is_vertical: bool = False  # written from top to bottom

    @property
    def middle(self) -> float:
        """Half way down."""
        return (self.top + self.bottom) / 2

    @cached_property
    def is_figure(self) -> bool:
        """Whether it is a number, with its unit and signs at most."""
        return bool(FIGURE.match(self.text))

    @property
    def is_value(self) -> bool:
        """Whether it is a figure or stands in the place of one."""
        return self.is_figure or bool(NO_VALUE.match(self.text))

    @cached_property
    def is_cell(self) -> bool:
        """Whether it may be a cell of a table: short, or a figure."""
        return not self.is_vertical and (len(self.text) <= CELL_CHARS or self.is_figure)

    @cached_property
    def is_narrow(self) -> bool:
        """Whether it is as short on the page as a cell."""
        return self.is_cell and (self.is_figure or width(self.text) <= CELL_CHARS)

    @cached_property
    def is_label(self) -> bool:
        """Whether it may be the long name of a row of figures."""
        return not self.is_vertical and width(self.text) <= 2 * CELL_CHARS


def width(text: str) -> int:
    """Return how wide a text is, in Latin letters: one of Japanese is as wide as two."""
    return len(text) + sum(unicodedata.east_asian_width(each) in "WF" for each in text)


def join_rows(lines: Sequence[PlacedLine]) -> list[str]:
    """Return the lines in their order, cells at one height from left to right, CELL_END between.

    Letters of a tab in the margin (第, ３ and 章 under each other) come last: they are no cells.
    Dots that lead to a page's number end a cell as well.
    """
    tab = _margin_tab(lines)
    in_tab = set(tab)
    lines = [line for line in lines if line not in in_tab]
    lines = _with_whole_labels(_with_their_labels(lines))
    heights = _Heights(lines)
    running = _running(lines)
    rows: list[list[PlacedLine]] = []
    near = _Near(lines)
    for cells in _in_order(lines):
        level = near.rows(cells[0])
        if running.issuperset(cells):  # short ones of two columns are no cells
            level = (row for row in level if not running.issuperset(row))
        row = next((r for r in level if all(_is_beside(c, r, heights) for c in cells)), None)
        if row is None:
            rows.append(cells)
            near.add(cells)
        else:
            row.extend(cells)
    in_order = (sorted(row, key=lambda cell: cell.left) for row in rows)
    texts = [CELL_END.join(each.text for each in row) for row in in_order]
    return [LEADERS.sub(CELL_END, text) for text in texts] + [line.text for line in tab]


def _in_order(lines: Sequence[PlacedLine]) -> list[list[PlacedLine]]:
    """Return the cells of each row of a table whose text layer goes through it row by row.

    There a line at the right of the one before is the next cell, however wide, while running text
    goes down its column first; and a line right under a cell goes on with it where the next word
    had no room. Lines in no such row are rows of their own. Cells have the height of the first
    line of the first one.
    """
    rows: list[list[list[PlacedLine]]] = []  # rows of cells of lines
    for line in lines:
        row = rows[-1] if rows else []
        cell = next((cell for cell in row[1:] or row if _is_under(line, cell)), None)
        if row and (at := _level_with(line, row)) is not None:
            if len(row) > 1:
                row.append([line])
            else:  # what stands above the cell in its column is of other rows
                rows[-1:] = [*([[each]] for each in row[0][:at]), [row[0][at:], [line]]]
        elif cell and len(row) > 1 and line.is_value:  # it goes by columns
            rows[-1:] = [[[each]] for cell in row for each in cell]
            rows.append([[line]])
        elif cell and (len(row) == 1 or _is_wrapped([*cell, line])):
            cell.append(line)
        else:
            rows.append([[line]])
    found: list[list[PlacedLine]] = []
    for row in rows:
        single = [line for cell in row for line in cell]
        if len(row) == 1 or (len(row) == len(single) and all(x.is_narrow for x in single)):
            found += [[line] for line in single]  # their places alone tell
        else:
            found.append([_one_cell(cell, row[0][0]) for cell in row])
    return found


def _level_with(line: PlacedLine, row: Sequence[Sequence[PlacedLine]]) -> int | None:
    """Return which line of the last cell is level with the next cell of the row, if one is that.

    Cells of a row begin or end at one height.
    """
    last = row[-1]
    if len(row) > 1:
        is_level = any(_is_level(line, edge) for cell in row for edge in (cell[0], cell[-1]))
        at = 0 if is_level else None
    else:
        first = max(0, len(last) - MOST_CELL_LINES)  # a page of figures has thousands of lines
        at = next((n for n in range(first, len(last)) if _is_level(line, last[n])), None)
    if at is None or not _is_wrapped(last[at:]):
        return None
    if not any(map(str.isalpha, row[0][0].text)):  # a bullet, or the mark of a footnote
        return None
    both = (line, *last[at:])
    gap = 0.0 if all(each.is_narrow for each in both) else 0.5 * (line.bottom - line.top)
    is_right = line.left - max(each.right for each in last[at:]) >= gap - 1
    may_be = line.is_cell or all(each.is_cell for each in last[at:])  # or columns of text
    return at if is_right and may_be else None


def _is_level(line: PlacedLine, other: PlacedLine) -> bool:
    """Whether two lines of about one height have their middles at one."""
    low, high = sorted((line.bottom - line.top, other.bottom - other.top))
    return abs(line.middle - other.middle) < LEVEL * low and high <= MOST_TALLER * low


def _is_under(line: PlacedLine, cell: Sequence[PlacedLine]) -> bool:
    """Whether a line stands right under the last one of a cell, at its left edge or centred."""
    is_at_edge = abs(line.left - cell[0].left) < line.bottom - line.top
    return (is_at_edge and _is_next(line, cell[-1])) or is_right_under(line, cell[-1])


def _is_wrapped(lines: Sequence[PlacedLine]) -> bool:
    """Whether lines under each other are one text, broken where the next word had no room."""
    right = max(line.right for line in lines)
    if len(lines) > MOST_CELL_LINES or (len(lines) > 1 and any(each.is_figure for each in lines)):
        return False
    for upper, lower in pairwise(lines):
        word = FIRST_WORD.match(lower.text)
        letter = (lower.right - lower.left) / max(1, width(lower.text))
        room = letter * (width(word.group()) + 1) if word else 0
        if width(upper.text) < LEAST_WRAPPED or upper.right + room < right:
            return False
    return True


def _one_cell(lines: Sequence[PlacedLine], level: PlacedLine) -> PlacedLine:
    """Join the lines of a cell, at the height of another line."""
    return replace(reduce(_joined, lines), top=level.top, bottom=level.bottom)


def _margin_tab(lines: Sequence[PlacedLine]) -> list[PlacedLine]:
    """Return the single letters under each other that stand beside all longer lines of a page."""
    longer = [line for line in lines if len(line.text.strip()) > 1]
    left = min((line.left for line in longer), default=-math.inf)
    right = max((line.right for line in longer), default=math.inf)
    letters = [line for line in lines if len(line.text) == 1 and line.text.isalnum()]
    outside = [line for line in letters if line.left >= right or line.right <= left]
    return [
        line
        for line in outside
        if any(
            (_is_next(line, other) or _is_next(other, line))
            and (line.text.isalpha() or other.text.isalpha())  # numbers alone are those of a list
            for other in outside
        )
    ]


def _running(lines: Sequence[PlacedLine]) -> set[PlacedLine]:
    """Return the lines of running text: one of two under each other is too wide for a cell."""
    found: set[PlacedLine] = set()
    for upper, lower in pairwise(lines):
        is_at_edge = abs(upper.left - lower.left) < upper.bottom - upper.top
        is_wide = not (upper.is_narrow and lower.is_narrow)
        is_text = not (upper.is_value or lower.is_value)
        if is_at_edge and is_wide and is_text and _is_next(lower, upper):
            found |= {upper, lower}
    return found


class _Near:
    """Rows by the height they stand at: a page of figures has thousands."""

    def __init__(self, lines: Sequence[PlacedLine]) -> None:
        heights = sorted(line.bottom - line.top for line in lines)
        self._band = max(heights[len(heights) // 2], 1e-3) if heights else 1.0
        self._rows: dict[int, list[list[PlacedLine]]] = defaultdict(list)

    def add(self, row: list[PlacedLine]) -> None:
        """Take a new row; its first cell says at which height."""
        reach = LEVEL * (row[0].bottom - row[0].top)
        first, last = self._number(row[0].middle - reach), self._number(row[0].middle + reach)
        for number in range(first, min(last, first + MOST_BANDS) + 1):
            self._rows[number].append(row)

    def rows(self, line: PlacedLine) -> Iterator[list[PlacedLine]]:
        """Yield the rows that may be at the height of a line, the last one first."""
        return reversed(self._rows.get(self._number(line.middle), []))

    def _number(self, height: float) -> int:
        return math.floor(height / self._band)


def _with_their_labels(lines: Sequence[PlacedLine]) -> list[PlacedLine]:
    """Put each lone figure behind the label right above it, which may be of several lines.

    Not where anything stands beside them as in a table, nor where the label is right below another
    figure: it may belong to that one.
    """
    spaced = (replace(line, text=" ".join(line.text.split())) for line in lines)
    given = list(dict.fromkeys(line for line in spaced if line.text))  # bold by printing twice
    tops = sorted(line.top for line in given)
    found: list[PlacedLine] = []
    for line in given:
        labels = 0
        if line.is_figure and _is_alone(line, tops):
            labels = _n_labels(line, found, tops)
        for _ in range(labels):
            line = _joined(found.pop(), line)
        found.append(line)
    return found


def _n_labels(figure: PlacedLine, before: Sequence[PlacedLine], tops: Sequence[float]) -> int:
    """How many of the lines before a figure, the last ones, are its label."""
    below, n = figure, 0
    for line in reversed(before):
        if not (line.is_cell and is_right_under(below, line)):
            break
        if any(char.isdigit() for char in line.text):
            return 0
        below, n = line, n + 1
    return n if all(_is_alone(line, tops) for line in before[len(before) - n :]) else 0


def _is_alone(line: PlacedLine, tops: Sequence[float]) -> bool:
    """Whether no other line begins at the same height, as the cells of a table's row do.

    tops  of all lines, sorted
    """
    near = 0.1 * (line.bottom - line.top)
    return bisect_left(tops, line.top + near) - bisect_right(tops, line.top - near) <= 1


def is_right_under(lower: PlacedLine, upper: PlacedLine) -> bool:
    """Whether a line stands centred right below another."""
    is_centred = abs(upper.left + upper.right - lower.left - lower.right) < upper.bottom - upper.top
    return is_centred and _is_next(lower, upper)


def _is_next(lower: PlacedLine, upper: PlacedLine) -> bool:
    """Whether a line begins where another ends, from top to bottom."""
    height = upper.bottom - upper.top
    return -0.3 * height < lower.top - upper.bottom < 0.6 * height


def _joined(upper: PlacedLine, lower: PlacedLine) -> PlacedLine:
    left, right = min(upper.left, lower.left), max(upper.right, lower.right)
    text = joined_lines(upper.text, lower.text)
    return PlacedLine(left, upper.top, right, lower.bottom, text)


def joined_lines(before: str, after: str) -> str:
    """Put two lines of a text in one: Japanese without a space, a divided word without its hyphen.

    A figure keeps its distance from any letters, but not from a Japanese comma.
    """
    is_wide = before[-1] in "、。" or all(
        unicodedata.east_asian_width(each) in "WF" for each in (before[-1], after[0])
    )
    if is_wide:
        return before + after
    if DIVIDED.search(before) and after[0].islower():
        return before[:-1] + after
    return f"{before} {after}"


def _is_beside(line: PlacedLine, row: Sequence[PlacedLine], heights: "_Heights") -> bool:
    """Whether a line is a cell at the height of a row of cells, beside them all.

    Where no figure is at that height, what stands side by side is columns of running text unless it
    is short; the name of several figures may be long, with nothing else beside it.
    """
    first = row[0]
    reach = LEVEL * (first.bottom - first.top)
    if abs(line.middle - first.middle) >= reach:
        return False
    n_figures, n_others = heights.count(first.middle - reach, first.middle + reach)
    cells = (*row, line)
    if n_figures > 1 and n_others == 1:
        may_be = all(each.is_figure or each.is_label for each in cells)
    else:
        may_be = all(each.is_cell if n_figures else each.is_narrow for each in cells)
    apart = all(line.left >= each.right - 1 or line.right <= each.left + 1 for each in row)
    return may_be and apart


class _Heights:
    """How many figures, and other lines, have their middles between two heights."""

    def __init__(self, lines: Sequence[PlacedLine]) -> None:
        figures: list[float] = []
        others: list[float] = []
        for line in lines:
            (figures if line.is_value else others).append(line.middle)
        self._figures, self._others = sorted(figures), sorted(others)

    def count(self, low: float, high: float) -> tuple[int, int]:
        """Return the numbers of figures and of others, both ends left out."""
        figures, others = (
            bisect_left(middles, high) - bisect_right(middles, low)
            for middles in (self._figures, self._others)
        )
        return figures, others


def _with_whole_labels(lines: Sequence[PlacedLine]) -> list[PlacedLine]:
    """Join the two lines of a label that figures at its right stand half way down of."""
    figures = [line for line in lines if line.is_figure]
    found: list[PlacedLine] = []
    for line in lines:
        if found and _is_one_label(found[-1], line, figures):
            line = _joined(found.pop(), line)
        found.append(line)
    return found


def _is_one_label(upper: PlacedLine, lower: PlacedLine, figures: Sequence[PlacedLine]) -> bool:
    height = upper.bottom - upper.top
    edges = (upper.left - lower.left, upper.right - lower.right)
    is_words = all(each.is_cell and not each.is_figure for each in (upper, lower))
    if not (is_words and _is_next(lower, upper) and min(map(abs, edges)) < height):
        return False
    right = max(upper.right, lower.right) - height
    beside = [each.middle for each in figures if each.left >= right]

    def is_level(top: float, bottom: float) -> bool:
        return any(abs((top + bottom) / 2 - middle) < 0.2 * height for middle in beside)

    return is_level(upper.top, lower.bottom)


def columns_of(lines: Sequence[PlacedLine]) -> list[PlacedLine]:
    """Return the columns of what is written from top to bottom, in the order they are read.

    A text layer has such a column whole or a letter at a time. Columns are read from right to left,
    and those at the top of the page before those below them.
    """
    columns: list[PlacedLine] = []
    pieces = (line for line in lines if line.is_vertical and line.text)
    for line in sorted(pieces, key=lambda line: (-round(line.left + line.right), line.top)):
        last = columns[-1] if columns else None
        if last and _goes_down(last, line):
            line = replace(columns.pop(), bottom=line.bottom, text=f"{last.text}{line.text}")
        columns.append(line)
    tiers: list[list[PlacedLine]] = []
    for column in sorted(columns, key=lambda column: column.top):
        if not tiers or column.top > max(each.bottom for each in tiers[-1]):
            tiers.append([])
        tiers[-1].append(column)
    return [column for tier in tiers for column in sorted(tier, key=lambda each: -each.right)]


def _goes_down(upper: PlacedLine, lower: PlacedLine) -> bool:
    """Whether a piece of a column goes on in another, no more than a letter below."""
    width = upper.right - upper.left
    is_under = abs(upper.left + upper.right - lower.left - lower.right) < width
    return is_under and -0.5 * width < lower.top - upper.bottom < width


def most_together(words: Sequence[tuple[str, Place]]) -> list[Place]:
    """Leave of each word's places those on the lines that have most of the other words.

    "210" of "A4: 210 x 297" stands in the line of A5 as well, but alone. A word in more places than
    MOST_PLACES even so, as a date in each row, tells of none: it has one only where all are so.
    """
    lines = _line_numbers([(place[1] + place[3]) / 2 for _, place in words])
    on_line: dict[int, set[str]] = defaultdict(set)
    for (word, _), line in zip(words, lines, strict=True):
        on_line[line].add(word)
    most: Counter[str] = Counter()
    for (word, _), line in zip(words, lines, strict=True):
        most[word] = max(most[word], len(on_line[line]))
    kept = [
        (word, place)
        for (word, place), line in zip(words, lines, strict=True)
        if len(on_line[line]) == most[word]
    ]
    n_places = Counter(word for word, _ in kept)
    told = [place for word, place in kept if n_places[word] <= MOST_PLACES]
    return told or [place for _, place in kept]


def _line_numbers(middles: Sequence[float]) -> list[int]:
    """Give each place the number of its line, from its height; a gap begins a new line."""
    numbers = [0] * len(middles)
    order = sorted(range(len(middles)), key=middles.__getitem__)
    for before, at in pairwise(order):
        gap = middles[at] - middles[before]
        numbers[at] = numbers[before] + (gap > SAME_LINE)
    return numbers
