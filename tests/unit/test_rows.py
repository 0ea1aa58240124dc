"""Lines in their places → rows: what is no cell though it stands at the height of some."""

import time

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


WRAPPED = [
    _line(0, 0, "Society for Trust"),
    _line(0, 12, "(University)"),
    _line(300, 0, "Artificial"),
    _line(300, 12, "intelligence"),
    _line(500, 0, "NSF"),
    _line(0, 26, "Institute of Climate"),
    _line(300, 26, "Forests"),
    _line(500, 26, "USDA"),
]


def test_cells_of_several_lines_are_whole():
    assert join_rows(WRAPPED) == [
        "Society for Trust (University)\tArtificial intelligence\tNSF",
        "Institute of Climate\tForests\tUSDA",
    ]


def test_a_line_that_had_room_for_the_next_word_ends_its_cell():
    lines = [
        _line(0, 0, "Firms and names"),
        _line(300, 0, "Tokyo"),
        _line(300, 12, "Yokohama and others"),
        _line(0, 24, "Others"),
        _line(300, 24, "Osaka"),
    ]
    rows = ["Firms and names\tTokyo", "Yokohama and others", "Others\tOsaka"]
    assert join_rows(lines) == rows


def test_heads_of_several_lines_may_end_at_one_height():
    lines = [
        _line(100, 0, "Carrying"),
        _line(100, 12, "Amount"),
        _line(200, 0, "Accumulated"),
        _line(200, 12, "Amortization"),
        _line(350, 12, "Net"),
    ]
    assert join_rows(lines) == ["Carrying Amount\tAccumulated Amortization\tNet"]


def test_a_long_name_goes_with_what_follows_it_in_the_text_layer():
    name = "Consolidated Statements of Comprehensive Income"
    assert join_rows([_line(0, 0, name), _line(600, 0, "55")]) == [f"{name}\t55"]
    text = [f"Running text goes down column {n} whole" for n in "ABCDEF"]
    columns = [_line(left, 12 * n, line) for left in (0, 500) for n, line in enumerate(text)]
    assert join_rows(columns) == [*text, *text]


def test_a_column_of_thousands_of_lines_takes_no_time_for_each_pair_of_them():
    lines = [_line(0, 12 * n, "a word") for n in range(6000)]
    began = time.process_time()
    assert join_rows(lines) == ["a word"] * 6000
    assert time.process_time() - began < 5  # 20 s where each was compared with all above it


def test_dots_that_lead_to_a_page_end_a_cell():
    texts = ["2.1 Rules . . . . . 14", "序論・・・・・・3", "Preface.....xii", "Wait . . . . . ."]
    lines = [PlacedLine(0, 20 * n, 200, 20 * n + 10, text) for n, text in enumerate(texts)]
    wanted = ["2.1 Rules\t14", "序論\t3", "Preface\txii", "Wait . . . . . ."]
    assert join_rows(lines) == wanted
    apart = [PlacedLine(0, 0, 40, 10, "Notes"), PlacedLine(50, 0, 200, 10, ". . . . . 7")]
    assert join_rows(apart) == ["Notes\t7"]


def test_the_name_of_a_row_may_be_longer_than_a_line_of_text_in_a_column():
    name = "Earnings before income tax expense and equity in income (loss) of affiliates"
    rows = [("Revenue", "9,583", "10,329"), (name, "369", "367")]
    lines = [
        PlacedLine(left, 20 * n, left + 5 * len(text), 20 * n + 10, text)
        for n, row in enumerate(rows)
        for left, text in zip((0, 400, 460), row, strict=True)
    ]
    assert join_rows(lines) == ["\t".join(row) for row in rows]


def test_short_lines_of_two_columns_of_text_are_no_cells_of_a_row():
    left = [
        "The office has asked for more words",
        "from all who sail.",
        "It has them now, as it says here.",
    ]
    right = [
        "A ship that lies at the quay by night",
        "pays for the day.",
        "One that lies there by day does not.",
    ]
    columns = [
        _line(x, 12 * n, text)
        for x, texts in ((0, left), (500, right))
        for n, text in enumerate(texts)
    ]
    assert join_rows(columns) == [*left, *right]
    names = ["Sales of the shops and of the warehouse", "Fees", "Rent"]
    figures = ["1,300", "410", "12"]
    table = [
        _line(x, 12 * n, text)
        for x, texts in ((0, names), (500, figures))
        for n, text in enumerate(texts)
    ]
    assert {"Fees\t410", "Rent\t12"} <= set(join_rows(table))
