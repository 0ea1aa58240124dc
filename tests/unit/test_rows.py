"""Lines in their places → rows: what is no cell though it stands at the height of some."""

import pytest

from rag.rows import PlacedLine, join_rows


def _line(left: float, top: float, text: str) -> PlacedLine:
    return PlacedLine(left, top, left + 10 * len(text), top + 10, text)


TABLE = [
    _line(100, 0, "The seasons of a year"),
    *(_line(100, 20 + 10 * n, season) for n, season in enumerate("春夏秋")),
    *(_line(200, 20 + 10 * n, text) for n, text in enumerate(("12,400", "28,900", "19,300"))),
]
ROWS = ["The seasons of a year", "春\t12,400", "夏\t28,900", "秋\t19,300"]


@pytest.mark.parametrize("left", [20, 500])
def test_letters_of_a_tab_in_the_margin_are_no_cells(left):
    tab = [_line(left, 20 + 10 * n, letter) for n, letter in enumerate("第３章")]
    assert join_rows([*TABLE, *tab]) == [*ROWS, "第", "３", "章"]


def test_letters_of_a_table_and_numbers_of_a_list_are_cells():
    assert join_rows(TABLE) == ROWS
    numbers = [_line(20, 20 + 10 * n, number) for n, number in enumerate("123")]
    in_list = [f"{number}\t{row}" for number, row in zip("123", ROWS[1:], strict=True)]
    assert join_rows([*numbers, *TABLE]) == [*in_list[:3], ROWS[0]]
    one = _line(500, 20, "章")
    assert join_rows([*TABLE, one])[1] == "春\t12,400\t章"
