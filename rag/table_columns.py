"""A row of a table and a question → the one figure that stands in the column it asks for.

"Sales 1,300 1,420" below "2022 2023" says 1,420 of 2023. Cells come as `rag/rows.py` has them, from
left to right; a row's figures belong to the columns' names above them if there are as many, or if
each name spans as many of them. Where that leaves a doubt, nothing is said.
"""

import re
import unicodedata
from collections.abc import Sequence
from itertools import groupby, pairwise
from operator import itemgetter

from rag.moments import moments
from rag.rows import CELL_CHARS, CELL_END, FIGURE, NO_VALUE
from rag.terms import terms

SIGN = re.compile(r"^[^\w\s]$")  # $, %, ( that stand in a cell of their own
OPENING = "$€£¥￥(（+＋-−－△▲▵∆"
DASH = re.compile(r"^[-−–—―－]$")
PERIOD = re.compile(  # what FIGURE takes for a figure, and heads a column
    r"^\W*((FY|CY|'|’)?\s?(19|20)\d\d\s?(年?度?\s?(予想|予算|実績|計画|見込|見通し)?|[AEFP*]|[/–-]\s?\d{2,4})"
    r"|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|(19|20)\d\d[./-]\d{1,2}([./-]\d{1,2})?"
    r"|[1-4]Q\D?\d*|Q[1-4]\D*\d*|第[1-4１-４]四半期"
    r"|((19|20)\d\d年\s?)?(1[0-2]|[1-9])月(\d{1,2}日|期|末)?[^\W\d]{0,3}"
    r"|(令和|平成|昭和)\s?(元|\d{1,2})年.{0,6}|\d+\s?[^\W\d]?(以上|以下|未満))\W*$",
    re.IGNORECASE,
)
DATE = re.compile(  # "January 28, January 29," over "2023 2022"
    r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.? \d{1,2}(?:, \d{4}\b|,)?"
)
UNIT = re.compile(
    r"^[(（［\[]|単位|^(百万|十億|億|千)?[円人件台株]$|\b(in )?(millions|thousands)\b", re.I
)
MOST_NAME = 64  # letters of a column's name: longer ones are pieces of several
MOST_ABOVE = 60  # rows between a row and the names of its columns


def named_figure(question: str, rows: Sequence[str], at: int) -> str:
    """Return "name of the column: figure" for the row `at`, "" if no one column is asked for.

    rows   of the page, cells divided as `join_rows` does
    """
    figures = _figures(_cells(rows[at]))
    if len(figures) < 2 or not _is_meant(question, rows, at, figures):
        return ""
    columns = groupby(zip(_names(rows, at, len(figures)), figures, strict=False), itemgetter(0))
    spans = [(name, " ".join(figure for _, figure in column)) for name, column in columns]
    matches = _matches(question, [name for name, _ in spans])
    most = max(matches, default=0)
    best = [span for span, n in zip(spans, matches, strict=True) if n == most > 0]
    if len(best) != 1 or len(best[0][0]) > MOST_NAME:
        return ""
    return "{}: {}".format(*best[0])


def _is_meant(question: str, rows: Sequence[str], at: int, figures: Sequence[str]) -> bool:
    """Whether a question asks for this row, and for none of the same label with other figures.

    Such rows are told apart by what stands over them: "13 Weeks Ended" or "52 Weeks Ended".
    """
    label = _label(rows[at])
    others = [n for n, row in enumerate(rows) if n != at and _label(row) == label]
    others = [n for n in others if _figures(_cells(rows[n])) not in ([], figures)]
    asked = terms(question)
    own = _scope(rows, at) if others else frozenset()
    return all(_is_nearer(asked, own, _scope(rows, n)) for n in others)


def _is_nearer(asked: frozenset[str], own: frozenset[str], other: frozenset[str]) -> bool:
    """Whether what is asked has more of a scope than of another, or all that sets it apart.

    "Revenue" is nearer to a question of revenue than "Cost of revenue".
    """
    gain = len(asked & own) - len(asked & other)
    return gain > 0 or (not gain and own - other <= asked and not other - own <= asked)


def _label(row: str) -> str:
    """Return the first cell of a row, however it is written."""
    return unicodedata.normalize("NFKC", row.split(CELL_END)[0]).strip().casefold()


def _scope(rows: Sequence[str], at: int) -> frozenset[str]:
    """Return what the heads over a row speak of, up to the first lone heading."""
    found: list[str] = []
    for row in reversed(rows[max(0, at - MOST_ABOVE) : at]):
        cells = _cells(row)
        if _is_of_figures(cells):
            if found:
                break
            continue
        found.append(row)
        if len(cells) < 2:
            break
    return terms(" ".join(found))


def _is_of_figures(cells: Sequence[str]) -> bool:
    """Whether a row has figures, behind a label or none, and is no head of columns."""
    return bool(_figures(cells) or _figures(["label", *cells]))


def _matches(question: str, names: Sequence[str]) -> list[float]:
    """Say how much of a question each column's name has; nothing if it is of another time.

    "December 31, 2022" shares more words with "December 31, 2023" than "June 30, 2023" does, and is
    not asked for: of years, months and quarters, a column may only have those of the question.
    """
    asked, asked_at = terms(question), moments(question)
    named = [terms(name) for name in names]
    # "Traces" is nearer to a question of traces than "Traces/Loop"
    found = [len(asked & each) + 0.5 * bool(each and each <= asked) for each in named]
    is_other = [False] * len(names)
    for kind, wanted in asked_at.items():
        have = [moments(name)[kind] for name in names]
        if not wanted or not any(have):
            continue
        if not any(each and each <= wanted for each in have):
            return [0.0] * len(names)  # a time that the table does not have
        found = [n + len(each & wanted) for n, each in zip(found, have, strict=True)]
        is_other = [other or not each <= wanted for other, each in zip(is_other, have, strict=True)]
    return [0.0 if other else n for n, other in zip(found, is_other, strict=True)]


def _names(rows: Sequence[str], at: int, n: int) -> list[str]:
    """Return the names of n columns, from the rows above that are nothing but names; or none."""
    found: list[list[str]] = []
    n_labels = _n_labels(rows, at, n)
    for above in range(at - 1, max(-1, at - 1 - MOST_ABOVE), -1):
        cells = _cells(rows[above])
        heads = _heads(cells, n, n_labels)
        if heads:
            found.insert(0, heads)
        elif found or not _is_within(cells, n):
            break
    return [" ".join(dict.fromkeys(parts)) for parts in zip(*found, strict=True)]


def _n_labels(rows: Sequence[str], at: int, n: int) -> int:
    """Return how many cells stand before the n figures of a row; 0 where it may lack some figures.

    Those above it have as many; it does lack some if one below it, up to other heads, has more.
    """
    for row in rows[at + 1 :]:
        cells = _cells(row)
        n_figures = len(_figures(cells))
        if n_figures > n:
            return 0
        if not n_figures and len(cells) > 1:
            break
    cells = _cells(rows[at])
    return next(k for k, cell in enumerate(cells) if k and (_is_value(cell) or cell in OPENING))


def _is_within(cells: Sequence[str], n: int) -> bool:
    """Whether a row may stand between a row of n figures and the heads of their table.

    Another such row may, or a lone heading; a sentence ends the table, and what looks like heads
    that are not understood may be of the row's own table, those above it of another.
    """
    if len(cells) < 2:
        return not any(cell.endswith((".", "。")) for cell in cells)
    return n in (len(_figures(cells)), len(_figures(["label", *cells]))) and _is_short(cells)


def _heads(cells: Sequence[str], n: int, n_labels: int) -> list[str]:
    """Return the cells of a row as the names of n columns, each as often as it spans some.

    What stands over the labels is none: a unit, what alone has no digit, or the first names if all
    columns have one.
    """
    is_over = len(cells) > 1 and (
        UNIT.search(cells[0]) or _has_digit(cells[0]) != _has_digit(cells[1])
    )
    n_over = 1 if is_over else 0
    if len(cells) == n_labels + n and not any(map(_has_digit, cells[:n_labels])):
        n_over = n_labels
    heads = cells[n_over:]
    spans, rest = divmod(n, max(1, len(heads)))
    if len(heads) > 1 and spans and not rest and all(map(_is_name, heads)):
        return [head for head in heads for _ in range(spans)]
    return []


def _is_name(cell: str) -> bool:
    is_figure = FIGURE.match(cell)
    return bool(PERIOD.match(cell)) or (any(map(str.isalpha, cell)) and not is_figure)


def _is_value(cell: str) -> bool:
    return bool(FIGURE.match(cell) or NO_VALUE.match(cell))


def _has_digit(cell: str) -> bool:
    return any(map(str.isdigit, cell))


def _is_short(cells: Sequence[str]) -> bool:
    return all(len(cell) <= CELL_CHARS or FIGURE.match(cell) for cell in cells[1:])


def _cells(row: str) -> list[str]:
    """Return the cells of a row; figures, years or dates in one piece are cells of their own."""
    found: list[str] = []
    for cell in row.split(CELL_END):
        if len(dates := DATE.findall(cell)) > 1 and not DATE.sub("", cell).strip():
            found += dates
            continue
        parts = cell.split()
        are_apart = len(parts) > 1 and all(FIGURE.match(each) or SIGN.match(each) for each in parts)
        # a dash before a figure takes it away, or says that a column has none
        are_apart &= not any(DASH.match(a) and _has_digit(b) for a, b in pairwise(parts))
        found += parts if are_apart else [" ".join(parts)]
    return [cell for cell in found if cell]


def _figures(cells: Sequence[str]) -> list[str]:
    """Return the figures behind a row's label, with the signs before or behind them."""
    found: list[str] = []
    sign = ""
    for cell in cells[1:]:
        if _is_value(cell):
            found.append(sign + cell)
            sign = ""
        elif SIGN.match(cell) and cell in OPENING:
            sign += cell
        elif SIGN.match(cell) and found:
            found[-1] += cell
        elif found:  # words behind figures: no row of a table, or of two
            return []
    is_head = all(PERIOD.match(figure) for figure in found)
    return found if cells and _is_name(cells[0]) and not is_head else []
