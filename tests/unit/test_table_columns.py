"""The figure of the column that a question names; nothing where there is a doubt."""

import pytest

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

TWO_PERIODS = [
    "Net sales by category",
    "13 Weeks Ended", "January 28, January 29,", "2023\t2022",
    "Cosmetics\t40%\t41%", "Skincare\t16%\t15%",
    "52 Weeks Ended", "January 28, January 29,", "2023\t2022",
    "Cosmetics\t42%\t43%", "Skincare\t17%\t17%", "Services\t3%\t4%",
]  # fmt: skip
TWO_PARTS = [
    "\t2022\t2021", "Revenue:", "Subscription\t16,388\t14,573", "Product\t532\t555",
    "Cost of revenue:", "Subscription\t1,646\t1,374", "Product\t35\t41",
]  # fmt: skip
SEASONS = ["季節\t来訪者(人)\t宿泊(泊)", "春\t12,400\t3,100", "夏\t28,900\t9,750"]
MODELS = ["モデル\t開発組織\t発表年\tパラメータ数", "GPT-3\tOpenAI社\t2020\t1,750億"]


@pytest.mark.parametrize(
    ("rows", "at", "question", "wanted"),
    [
        (PLAIN, 3, "What were the total sales in 2023?", "2023: 1,420"),
        (PLAIN, 2, "North in 2022", "2022: 600"),
        (PLAIN, 3, "What were the total sales in 2022 and 2023?", ""),
        (PLAIN, 3, "What were the total sales in 2021?", ""),
        (PLAIN, 0, "sales by region in 2023", ""),
        (["\tLoops\tTraces\tTraces/Loop", "cube\t25\t29\t1.2"], 1, "traces of cube", "Traces: 29"),
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
        # the unit over the labels is no column
        (["($ in Millions)\t2022\t2021\tReported\tOperational\tCurrency",
          "U.S.\t12,516\t12,163\t2.9%\t2.9\t-\t2.7"], 1, "U.S. sales in 2022", ""),
        (["($ in Millions)\t2022\t2021", "U.S.\t$12,516\t$12,163"], 1, "U.S. in 2022",
         "2022: $12,516"),
        (["百万円\t2022年度\t2023年度", "資産\t5\t6"], 1, "2023年度の資産", "2023年度: 6"),
        # heads that are dates, months, periods
        (["\t2023年3月期\t2024年3月期", "経常利益\t5\t7"], 1, "2024年3月期の経常利益",
         "2024年3月期: 7"),
        (["\t4月\t5月", "来場者数\t5,120\t6,300"], 1, "5月の来場者数は", "5月: 6,300"),
        (["Assets\t31.12.2022\t31.12.2023", "Cash\t5\t6"], 1, "cash 2023", "31.12.2023: 6"),
        (["\t1Q23\t2Q23", "Sales\t5\t6"], 1, "sales in the second quarter of 2023", "2Q23: 6"),
        (["\tFY2022\tFY2023", "Sales\t5\t6"], 1, "sales in 2023", "FY2023: 6"),
        (["\t2022年度\t2023年度", "輸出\t5\t6"], 1, "令和5年度の輸出", "2023年度: 6"),
        # what is not understood hides the heads of the table above it
        (["連結\t2021年度\t2022年度", "売上高\t100\t110", "個別",
          "百万円\t2023年3月期\t2024年3月期", "売上高\t55\t61", "経常利益\t5\t7"], 5,
         "2022年度の経常利益は？", ""),
        (["Year\t2021\t2022", "Tax\t1\t2", "Half year\t2022\t2023\tChange", "Tax\t5\t7"], 3,
         "tax in 2022", ""),
        (["Year\t2021\t2022", "Tax\t1\t2", "All of it was paid in the year.", "Fees\t5\t7"], 3,
         "fees in 2022", ""),
        # another time is not asked for, however many words it shares
        (["December 31, 2022\tJune 30, 2023", "Total assets\t500\t600"], 1,
         "total assets at December 31, 2023", ""),
        (["Q4 2022\tQ3 2023", "Revenue\t500\t600"], 1, "Q4 2024 revenue", ""),
        (["Q4 2022\tQ3 2023", "Revenue\t500\t600"], 1, "Q3 2023 revenue", "Q3 2023: 600"),
        # signs that stand apart
        (["\t2022年度\t2023年度", "営業利益\t1,200\t△ 350"], 1, "2023年度の営業利益",
         "2023年度: △350"),
        (["\t2022\t2023", "Loss\t- 2.7\t5"], 1, "loss in 2022", "2022: - 2.7"),
        (["\t2022\t2023\t2024", "Loss\t- 2.7\t5"], 1, "loss in 2022", ""),
        (["\tImports\tExports", "2019\t12\t13", "2020\t14\t15"], 2, "exports in 2020",
         "Exports: 15"),
        # the name over the labels, which may be of several columns, is none of a figure
        (SEASONS, 2, "夏の宿泊は何泊ですか", "宿泊(泊): 9,750"),
        (["Season\tVisitors\tNights", "Summer\t28,900\t9,750"], 1, "nights in summer",
         "Nights: 9,750"),
        (MODELS, 1, "GPT-3のパラメータ数", "パラメータ数: 1,750億"),
        (["Imports\tExports\tTotal", "Oil\t5\t5", "Coal\t2\t3\t5"], 1, "exports of oil", ""),
        (["\tComparable sales over\tRevenue over", "\tThree months ended July 2023"
          "\tThree months ended July 2023", "Games\t2.5%\t7%"], 2,
         "comparable sales of games", "Comparable sales over Three months ended July 2023: 2.5%"),
        # a label that is on the page twice is told by what stands over it
        (TWO_PERIODS, 5, "skincare, year to January 28, 2023", ""),
        (TWO_PERIODS, 5, "skincare, 13 weeks ended January 28, 2023", "January 28, 2023: 16%"),
        (TWO_PERIODS, 5, "skincare, 52 weeks ended January 28, 2023", ""),
        (TWO_PERIODS, 10, "skincare, 52 weeks ended January 28, 2023", "January 28, 2023: 17%"),
        (TWO_PERIODS, 11, "services, year to January 29, 2022", "January 29, 2022: 4%"),
        (TWO_PARTS, 2, "subscription revenue in 2022", "2022: 16,388"),
        (TWO_PARTS, 5, "subscription revenue in 2022", ""),
        (TWO_PARTS, 5, "cost of subscription revenue in 2022", "2022: 1,646"),
        ([*PLAIN, "Costs", "Total\t900\t950"], 3, "total in 2023", "2023: 1,420"),
        ([*PLAIN, "Total\t900\t950"], 3, "total in 2023", ""),
        ([*PLAIN, "Total\t1,300\t1,420"], 3, "total in 2023", "2023: 1,420"),
    ],
)  # fmt: skip
def test_the_column_that_is_asked_for(rows, at, question, wanted):
    assert named_figure(question, rows, at) == wanted


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
