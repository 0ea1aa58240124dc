"""The figure of the column that a question names; nothing where there is a doubt."""

import pytest

from index.text_layer import words
from rag.quote import quote
from rag.table_columns import named_figure

PLAIN = ["Sales by region (in millions)", "2022\t2023", "North\t600\t640", "Total\t1,300\t1,420"]
WITH_SIGNS = [
    "Three Months Ended\tSix Months Ended",
    "July 29, 2023\tJuly 30, 2022\tJuly 29, 2023\tJuly 30, 2022",
    "Revenue\t$\t9,583\t$\t10,329\t$\t19,050\t$\t20,976",
    "Net (loss) income",
    "Diluted earnings per share\t$\t1.25\t$\t(1.35)\t$ 2.36\t$\t2.85",
]
SHARES = [
    "(In thousands)\tJanuary 28, 2023\tJanuary 29, 2022",
    "Income before taxes\t1,643,544\t16.1\t%\t1,295,829\t15.0\t%",
]
JAPANESE = ["単位：億円", "区分\t2022年度\t2023年度", "売上高\t1,204\t1,310", "利益\t12.4\t–"]


@pytest.mark.parametrize(
    ("rows", "at", "question", "wanted"),
    [
        (PLAIN, 3, "What were the total sales in 2023?", "2023: 1,420"),
        (PLAIN, 2, "North in 2022", "2022: 600"),
        (PLAIN, 3, "What were the total sales in 2022 and 2023?", ""),
        (PLAIN, 3, "What were the total sales in 2021?", ""),
        (PLAIN, 0, "sales by region in 2023", ""),
        (PLAIN, 1, "2023", ""),
        (WITH_SIGNS, 4, "diluted earnings, six months ended July 29, 2023",
         "Six Months Ended July 29, 2023: $2.36"),
        (WITH_SIGNS, 4, "diluted earnings, three months ended July 30, 2022",
         "Three Months Ended July 30, 2022: $(1.35)"),
        (WITH_SIGNS, 2, "revenue, July 29, 2023", ""),
        (SHARES, 1, "income at January 28, 2023", "January 28, 2023: 1,643,544 16.1%"),
        (JAPANESE, 2, "2023年度の売上高はいくらですか", "2023年度: 1,310"),
        (JAPANESE, 3, "2023年度の利益", "2023年度: –"),
        (["2022\t2023", "a line of running text", "that goes on, about\t12 things, and then 13",
          "Total\t5\t6"], 3, "total in 2023", ""),
        (["2022\t2023\t2024", "Total\t5\t6"], 1, "total in 2023", ""),
    ],
)  # fmt: skip
def test_the_column_that_is_asked_for(rows, at, question, wanted):
    assert named_figure(frozenset(words(question)), rows, at) == wanted


def test_a_page_that_is_quoted_whole_says_it_too():
    said = quote("Total revenue of 2023", PLAIN)
    assert said.splitlines()[1:] == [
        "2022 2023",
        "North 600 640",
        "Total 1,300 1,420 (2023: 1,420)",
    ]


def test_a_quoted_row_says_which_of_its_figures_is_asked_for():
    said = quote("What were the total sales in 2023?", [*PLAIN, "A line of text. " * 20])
    assert said.splitlines()[-1] == "Total 1,300 1,420 (2023: 1,420)"
    said = quote("How much were the total sales?", [*PLAIN, "A line of text. " * 20])
    assert said.splitlines()[-1] == "Total 1,300 1,420"
