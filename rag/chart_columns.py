"""Figures and the labels that name them: over the labels of a chart's axis, or right under a row.

A text layer has the figures of a bar chart in the order they were drawn in, and the labels of the
axis somewhere else. A reader sees which stand over which label; so does this, from their places.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from rag.rows import (
    CELL_END,
    FIGURE,
    NO_VALUE,
    YEAR,
    PlacedLine,
    is_right_under,
    joined_lines,
)

LEAST_COLUMNS = 2
OFF_CENTRE = 0.125  # of the distance of two labels: how far the figures' middle may be from theirs
MOST_PAIRS = 5_000_000  # of figures and words looked at: a chart has few, a page of tables many
NUMBERED = re.compile(r"^[(（]?\d{1,2}[)）.．]$")  # begins an entry of a list
MOST_UNDER = 3  # figures under one name
TURNED = 1.5  # times as high as wide is no line of upright letters, but for one or two of them


def chart_columns(lines: Sequence[PlacedLine]) -> tuple[list[str], list[PlacedLine]]:
    """Return a row for each column of a chart, its label first, and the lines left over.

    So too for each name with figures of its own right under it: 渋谷 over 1033, 中野 over 1133.
    """
    lines = [part for line in lines for part in _figures_apart(line)]
    label_rows = _label_rows(lines)
    n_figures = sum(map(_is_value, lines))
    if len(label_rows) * n_figures * (len(lines) - n_figures) > MOST_PAIRS:
        return [], lines
    texts, left, taken = _named_above(label_rows, lines)
    for labels in label_rows:
        if not all(label in left for label in labels):
            continue
        figures = _over(labels, [line for line in left if line not in taken])
        if not _are_columns(labels, figures):
            continue
        for label, over in zip(labels, figures, strict=True):
            whole = _whole_label(label, left)
            text = whole[0].text
            for line in whole[1:]:
                text = joined_lines(text, line.text)
            over.sort(key=lambda line: line.left)
            texts.append(_row(text, over))
            left = [line for line in left if line not in (*whole, *over)]
    return texts, left


def _named_above(
    name_rows: Sequence[Sequence[PlacedLine]], lines: Sequence[PlacedLine]
) -> tuple[list[str], list[PlacedLine], set[PlacedLine]]:
    """Return a row for each name with figures under it, the lines left over, and some of these.

    They are the figures under names that are not theirs one by one: nor are they of what is below.
    """
    texts: list[str] = []
    left = list(lines)
    taken: set[PlacedLine] = set()
    for names in name_rows:
        free = [line for line in left if line not in taken]
        row = _right_under(names, free)
        n, rest = divmod(len(row), len(names))
        if not rest and _are_of(names, row, free):
            for at, name in enumerate(names):
                texts.append(_row(name.text, row[at * n : (at + 1) * n]))
            used = {*names, *row}
            left = [line for line in left if line not in used]
        elif n:
            taken.update(row)
    return texts, left, taken


def _figures_apart(line: PlacedLine) -> list[PlacedLine]:
    """Divide a line of several figures: neighbouring columns may be one line of the text layer."""
    parts = line.text.split()
    text = " ".join(parts)
    if len(parts) < 2 or not all(map(FIGURE.match, parts)):
        return [replace(line, text=text)] if parts else []
    a_char = (line.right - line.left) / len(text)
    found, at = [], 0
    for part in parts:
        left, at = line.left + at * a_char, at + len(part) + 1
        found.append(replace(line, left=left, right=left + len(part) * a_char, text=part))
    return found


def _label_rows(lines: Sequence[PlacedLine]) -> list[list[PlacedLine]]:
    """Return the rows of cells that may be the labels of an axis, from left to right."""
    rows: list[list[PlacedLine]] = []
    for line in sorted(lines, key=lambda line: line.top):
        if not (line.is_cell and _is_label(line)):
            continue
        height = line.bottom - line.top
        row = rows[-1] if rows else []
        if row and min(abs(row[0].top - line.top), abs(row[0].middle - line.middle)) < 0.1 * height:
            row.append(line)
        else:
            rows.append([line])
    rows = [sorted(row, key=lambda line: line.left) for row in rows if len(row) >= LEAST_COLUMNS]
    return [row for row in rows if all(a.right < b.left for a, b in pairwise(row))]


def _right_under(names: Sequence[PlacedLine], lines: Sequence[PlacedLine]) -> list[PlacedLine]:
    """Return the row of figures right under a row of names, from left to right."""
    row = [line for line in lines if _is_value(line) and _is_below(line, names[0])]
    level = 0.35 * (row[0].bottom - row[0].top) if row else 0
    row = [line for line in row if abs(line.middle - row[0].middle) < level]
    return sorted(row, key=lambda line: line.left)


def _is_below(lower: PlacedLine, upper: PlacedLine) -> bool:
    """Whether a line is no more than its height below another."""
    return -0.3 < (lower.top - upper.bottom) / (upper.bottom - upper.top) < 1


def _are_of(
    names: Sequence[PlacedLine], row: Sequence[PlacedLine], lines: Sequence[PlacedLine]
) -> bool:
    """Whether the figures of a row right under names are theirs alone, as many for each.

    Not where words stand beside them, or figures under them too, as in a table; nor where figures
    right over the names may be theirs.
    """
    n = len(row) // len(names)
    if not 0 < n <= MOST_UNDER or NUMBERED.match(row[0].text):
        return False
    gap = min(_middle(b) - _middle(a) for a, b in pairwise(names))
    for at, name in enumerate(names):
        middles = [_middle(figure) for figure in row[at * n : (at + 1) * n]]
        if abs(sum(middles) / n - _middle(name)) >= gap / 2:
            return False
    return not any(
        _is_below(line, row[0]) or _is_below(names[0], line)
        if _is_value(line)
        else _is_beside(line, row[0], names)
        for line in lines
    )


def _row(name: str, figures: Sequence[PlacedLine]) -> str:
    return CELL_END.join([name, *(figure.text for figure in figures)])


def _over(labels: Sequence[PlacedLine], lines: Sequence[PlacedLine]) -> list[list[PlacedLine]]:
    """Return for each label the figures of its column: those above it, with nothing in between.

    None at all where a figure stands beside words, as in a table: there its name is at the left.
    """
    middles = [_middle(label) for label in labels]
    gap = min(b - a for a, b in pairwise(middles))
    words = [line for line in lines if not _is_value(line) and line not in labels]
    found: list[list[PlacedLine]] = [[] for _ in labels]
    for figure in lines:
        if figure in labels or not _is_value(figure):
            continue
        at = min(range(len(labels)), key=lambda n: abs(middles[n] - _middle(figure)))
        label = labels[at]
        is_over = figure.bottom <= label.top + 1 and abs(middles[at] - _middle(figure)) < gap / 2
        if not is_over or any(_is_between(line, figure, label) for line in words):
            continue
        if any(_is_beside(line, figure, labels) for line in words):
            return [[] for _ in labels]
        found[at].append(figure)
    return found


def _are_columns(labels: Sequence[PlacedLine], figures: Sequence[Sequence[PlacedLine]]) -> bool:
    """Whether each label has figures, and stands under the middle of them.

    A label of every second column does not: it would be given its neighbour's figure.
    """
    gap = min(_middle(b) - _middle(a) for a, b in pairwise(labels))
    return all(
        over and abs(sum(map(_middle, over)) / len(over) - _middle(label)) < OFF_CENTRE * gap
        for label, over in zip(labels, figures, strict=True)
    )


def _is_value(line: PlacedLine) -> bool:
    text = line.text  # a comma ends a part of a date, a year heads a column
    is_figure = FIGURE.match(text) and not text.endswith(",") and not YEAR.match(text)
    return bool(is_figure or NO_VALUE.match(text))


def _is_label(line: PlacedLine) -> bool:
    """Whether a line may name a column: a year, or a few words."""
    has_letters = any(char.isalpha() for char in line.text)
    return not _is_turned(line) and bool(
        YEAR.match(line.text) or (has_letters and not _is_value(line))
    )


def _is_turned(line: PlacedLine) -> bool:
    return line.bottom - line.top >= TURNED * (line.right - line.left) and len(line.text) > 2


def _middle(line: PlacedLine) -> float:
    return (line.left + line.right) / 2


def _is_between(line: PlacedLine, figure: PlacedLine, label: PlacedLine) -> bool:
    """Whether words stand under a figure and over its label."""
    is_across = line.left <= _middle(figure) <= line.right
    return is_across and figure.top < line.top < label.top


def _is_beside(line: PlacedLine, figure: PlacedLine, labels: Sequence[PlacedLine]) -> bool:
    """Whether words stand at the height of a figure, within the chart or at its left."""
    middle = (line.top + line.bottom) / 2
    is_level = abs(middle - (figure.top + figure.bottom) / 2) < 0.5 * (line.bottom - line.top)
    return is_level and not _is_turned(line) and line.left < labels[-1].right


def _whole_label(label: PlacedLine, lines: Sequence[PlacedLine]) -> list[PlacedLine]:
    """Return a label with the lines right under it that go on with it."""
    whole = [label]
    while True:
        last = whole[-1]
        under = [
            line for line in lines
            if line not in whole and line.is_cell and not _is_value(line)
            and is_right_under(line, last)
        ]  # fmt: skip
        if not under:
            return whole
        whole.append(under[0])
