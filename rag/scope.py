"""Passages of a page → what stands over each of them: its own heading, the heads of its table.

"XARELTO" over the rows "US", "Intl" and "WW" says what they are about; so do the title and the
columns' names of their table, which may stand far above.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rag.moments import moments
from rag.passages import TITLED, Passage
from rag.rows import CELL_END, FIGURE, width
from rag.table_columns import PERIOD

MOST_HEADING = 60  # wide
MOST_OVER = 8  # passages in one run of headings
YEARS = re.compile(r"\W*(19|20)\d\d(\s?[-–/]\s?\d{2,4})?\s?年?\W*$")
NAME = re.compile(r"[^\W\d_]{2}|[\u3400-\u9fff]")  # letters that are not just a unit
MARKS = re.compile(r"\(\d(,\s?\d)*\)")  # of footnotes
RANK = re.compile(r"\d{1,3}\W?")  # before a name
LEAST_LABELS = 3  # cells; as many without a figure over a row with some are names of columns
OF_HEADS = re.compile(  # what heads of columns are made of, beside names
    r"\b(weeks?|months?|quarters?|years?|fiscal|ended|ending|in|the|except|per|shares?|data|amounts?"
    r"|thousands|millions|billions|dollars|usd|audited|unaudited|as|of|and|change"
    r"|first|second|third|fourth|three|six|nine|twelve|full"
    r"|jan\w*|feb\w*|mar(ch)?|apr\w*|may|june?|july?|aug\w*|sep\w*|oct\w*|nov\w*|dec\w*)\b"
    r"|\b(q[1-4]|[1-4]q|h[12]|[12]h)(?![a-z])|単位|百万|令和|平成|昭和|通期|四半期|[年月日期度末億万千円人件台前当第]|[\W\d_]",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Scope:
    """Passages, by their number, that one stands under.

    heading   the run of headings next above it
    title     the run with the heads of its table; the same one where no other is between
    """

    heading: tuple[int, ...] = ()
    title: tuple[int, ...] = ()

    @property
    def over(self) -> tuple[int, ...]:
        """All of them, each once, in the page's order."""
        return tuple(sorted({*self.title, *self.heading}))


def scopes_of(passages: Sequence[Passage]) -> list[Scope]:
    """Return what each passage stands under; headings and heads stand under nothing."""
    found: list[Scope] = []
    run: list[int] = []
    scope = Scope()
    heads = heads_of(passages)
    for at, passage in enumerate(passages):
        if heads[at] or is_over(passage):
            run.append(at)
        if heads[at] or is_over(passage) or is_bare(passage.text):
            found.append(Scope())
            continue
        title = () if passage.is_sentence else scope.title
        if run:
            run = run[-MOST_OVER:]
            are_heads = [heads[each] for each in run]
            if all(are_heads):  # of a table that goes on with other columns
                run = [n for n in title if not heads[n]] + run
            is_title = any(are_heads) or any(TITLED.match(passages[n].text) for n in run)
            title = tuple(run) if is_title and not passage.is_sentence else title
            scope = Scope(tuple(run), title)
            run = []
        found.append(scope)
    return found


def is_over(passage: Passage) -> bool:
    """Whether a passage is a heading, or heads of columns: no sentence and no row of a table."""
    if passage.is_sentence:
        return passage.text.endswith((":", "："))
    is_short = width(passage.text) <= MOST_HEADING or TITLED.match(passage.text)
    text = passage.text
    return bool(is_short) and not is_value(text) and (not is_bare(text) or _is_of_periods(text))


def is_bare(text: str) -> bool:
    """Whether a row is figures without a name, as those along an axis are."""
    return not is_value(text) and not NAME.search(text)


def is_value(text: str) -> bool:
    """Whether a row has a name and what a table says of it."""
    if CELL_END not in text:
        name = text.split()[0]
        return _ends_in_value(text) and bool(NAME.search(text) or YEARS.match(name))
    name, *others = text.split(CELL_END)
    is_period = PERIOD.match(name) and _figures(CELL_END.join(others))
    is_rank = RANK.fullmatch(name) and NAME.search(others[0]) and not FIGURE.match(others[0])
    is_name = not FIGURE.match(name) or YEARS.match(name) or is_period or is_rank
    return bool(is_name) and not _is_of_periods(text)


def has_value(text: str) -> bool:
    """Whether a row has a name and a figure."""
    return is_value(text) and (_ends_in_value(text) or bool(_figures(text)))


def _ends_in_value(text: str) -> bool:
    last = text.split()[-1]
    return ends_in_figure(text) and not YEARS.match(last) and not MARKS.match(last)


def heads_of(passages: Sequence[Passage]) -> list[bool]:
    """Return for each passage whether it is names of columns, or years, periods and units."""
    found = [not each.is_sentence and _is_of_periods(each.text) for each in passages]
    for at, passage in enumerate(passages):
        n_cells = passage.text.count(CELL_END) + 1
        if n_cells < LEAST_LABELS or passage.is_sentence or any(map(str.isdigit, passage.text)):
            continue
        below = next((each for each in passages[at + 1 : at + 4] if not is_over(each)), passage)
        is_row = CELL_END in below.text and not below.is_sentence
        found[at] |= is_row and has_value(below.text)
    return found


def _is_of_periods(text: str) -> bool:
    if _figures(text):
        return False
    if not OF_HEADS.sub("", text):
        return True
    cells = text.split(CELL_END)
    if len(cells) == 1:
        return False
    named = [any(moments(cell).values()) for cell in cells]
    return named[0] or 2 * sum(named) >= len(cells)


def _figures(text: str) -> list[str]:
    """Return the cells of a row that are figures, but no years."""
    cells = text.split(CELL_END)
    return [cell for cell in cells if FIGURE.match(cell) and not YEARS.match(cell)]


def ends_in_figure(text: str) -> bool:
    """Whether the last word is a number, with its unit and signs at most."""
    return bool(FIGURE.match(text.split()[-1]))
