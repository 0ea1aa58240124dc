"""Questions that go on from earlier ones, and the times they name."""

import pytest

from rag.follow_up import in_full, is_follow_up
from rag.moments import moments

SALES = "What were the total sales in 2023?"


@pytest.mark.parametrize(
    ("question", "earlier", "wanted"),
    [
        ("And in 2022?", [SALES], "What were the total sales in ? And in 2022?"),
        ("では2022年は？", ["2023年の総売上高はいくらですか。"],
         "年の総売上高はいくらですか。 では2022年は？"),
        ("And in the south?", [SALES], f"{SALES} And in the south?"),
        ("And then?", [SALES, "And in 2022?"],
         "What were the total sales in ? And in 2022? And then?"),
        ("What is the capacity of the kettle?", [SALES], "What is the capacity of the kettle?"),
        ("花火大会はいつ開かれましたか。", [SALES], "花火大会はいつ開かれましたか。"),
        ("And in 2022?", [], "And in 2022?"),
    ],
)  # fmt: skip
def test_what_is_asked_in_full(question, earlier, wanted):
    assert in_full(question, earlier) == wanted


def test_follow_ups_are_short():
    assert is_follow_up("Why?")
    assert is_follow_up("What about 2021?")
    assert is_follow_up("その理由は？")
    assert not is_follow_up("And what were total assets and total liabilities?")
    assert not is_follow_up("Who is the chief executive officer?")


@pytest.mark.parametrize(
    ("text", "year", "month", "quarter"),
    [
        ("FY2023", {2023}, set(), set()),
        ("CY 23 and '21", {2021, 2023}, set(), set()),
        ("2022/23", {2022, 2023}, set(), set()),
        ("令和５年度、平成元年", {1989, 2023}, set(), set()),
        ("2024年3月期", {2024}, {3}, set()),
        ("first quarter, ended Mar. 31, 2023", {2023}, {3}, {1}),
        ("the Fourth-Quarter and 3rd quarter; two thirds", set(), set(), {3, 4}),
        ("1Q23 第４四半期 Q2", {2023}, set(), {1, 2, 4}),
        ("1,2023 items, 12023", {2023}, set(), set()),
        ("may I march in May or Sept?", set(), {5, 9}, set()),
        ("Margins of the Market, a Decision, Junior Separate", set(), set(), set()),
        ("2010-12-31 and 1999/00", {1999, 2000, 2010}, set(), set()),
        ("no time", set(), set(), set()),
    ],
)
def test_moments(text, year, month, quarter):
    assert moments(text) == {"year": year, "month": month, "quarter": quarter}
