"""A row of a table and a question → the one figure that stands in the column it asks for.

"Sales 1,300 1,420" below "2022 2023" says 1,420 of 2023. Cells come as `rag/rows.py` has them, from
left to right; a row's figures belong to the columns' names above them if there are as many, or if
each name spans as many of them. Where that leaves a doubt, nothing is said.
"""

import re
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from index.text_layer import words
from rag.rows import CELL_CHARS, CELL_END, FIGURE, NO_VALUE, YEAR

SIGN = re.compile(r"^[^\w\s]$")  # $, %, ( that stand in a cell of their own
OPENING = "$€£¥(+-−"
MOST_NAME = 48  # letters of a column's name: longer ones are pieces of several
MOST_ABOVE = 60  # rows between a row and the names of its columns


def named_figure(asked: frozenset[str], rows: Sequence[str], at: int) -> str:
    """Return "name of the column: figure" for the row `at`, "" if no one column is asked for.

    asked  folded words of the question
    rows   of the page, cells divided as `join_rows` does
    """
    figures = _figures(_cells(rows[at]))
    if len(figures) < 2:
        return ""
    columns = groupby(zip(_names(rows, at, len(figures)), figures, strict=False), itemgetter(0))
    matches = [
        (len(asked.intersection(words(name))), name, " ".join(figure for _, figure in column))
        for name, column in columns
    ]
    most = max((n for n, _, _ in matches), default=0)
    best = [(name, figure) for n, name, figure in matches if n == most > 0]
    if len(best) != 1 or len(best[0][0]) > MOST_NAME:
        return ""
    return "{}: {}".format(*best[0])


def _names(rows: Sequence[str], at: int, n: int) -> list[str]:
    """Return the names of n columns, from the rows above that are nothing but names; or none."""
    found: list[list[str]] = []
    for above in range(at - 1, max(-1, at - 1 - MOST_ABOVE), -1):
        cells = _cells(rows[above])
        heads = _heads(cells, n)
        if heads:
            found.insert(0, heads)
        elif found or not (len(_figures(cells)) in (0, n) and _is_short(cells)):
            break
    return [" ".join(dict.fromkeys(parts)) for parts in zip(*found, strict=True)]


def _heads(cells: Sequence[str], n: int) -> list[str]:
    """Return the cells of a row as the names of n columns, each as often as it spans some."""
    is_labelled = len(cells) > 1 and (
        cells[0].startswith(("(", "（")) or _has_digit(cells[0]) != _has_digit(cells[1])
    )
    for heads in (cells, cells[1:] if is_labelled else ()):  # what stands over the labels is none
        spans, rest = divmod(n, max(1, len(heads)))
        if len(heads) > 1 and spans and not rest and all(map(_is_name, heads)):
            return [head for head in heads for _ in range(spans)]
    return []


def _is_name(cell: str) -> bool:
    return bool(YEAR.match(cell)) or (any(map(str.isalpha, cell)) and not FIGURE.match(cell))


def _has_digit(cell: str) -> bool:
    return any(map(str.isdigit, cell))


def _is_short(cells: Sequence[str]) -> bool:
    return all(len(cell) <= CELL_CHARS or FIGURE.match(cell) for cell in cells[1:])


def _cells(row: str) -> list[str]:
    """Return the cells of a row; figures or years in one piece of text are cells of their own."""
    found: list[str] = []
    for cell in row.split(CELL_END):
        parts = cell.split()
        are_apart = len(parts) > 1 and all(FIGURE.match(each) or SIGN.match(each) for each in parts)
        found += parts if are_apart else [" ".join(parts)]
    return [cell for cell in found if cell]


def _figures(cells: Sequence[str]) -> list[str]:
    """Return the figures behind a row's label, with the signs before or behind them."""
    found: list[str] = []
    sign = ""
    for cell in cells:
        if FIGURE.match(cell) or NO_VALUE.match(cell):
            found.append(sign + cell)
            sign = ""
        elif SIGN.match(cell) and cell in OPENING:
            sign += cell
        elif SIGN.match(cell) and found:
            found[-1] += cell
        elif found:  # words behind figures: no row of a table, or of two
            return []
    return found if cells and _is_name(cells[0]) and not YEAR.match(cells[0]) else []
