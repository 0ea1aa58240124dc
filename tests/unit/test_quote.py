"""Rows of a page put together by place, and the rows that speak of a question."""

import pytest

from rag.quote import MOST_CHARS, MOST_SENTENCE, quote
from rag.rows import CELL_END, PlacedLine, columns_of, join_rows, joined_lines, most_together

FILLER = ["Nothing else on this page has to do with it at all."] * 5
TABLE = ["Sales by region", "Region 2022 2023", "North 410 455", "South 380 362", "Total 790 817"]
TABLE += FILLER


def _line(left: float, top: float, text: str, width: float = 40) -> PlacedLine:
    return PlacedLine(left, top, left + width, top + 10, text)


def test_cells_at_one_height_become_a_row():
    lines = [_line(0, 0, "Total"), _line(200, 1, "1,420"), _line(100, 0, "1,300")]
    assert join_rows(lines) == ["Total\t1,300\t1,420"]


def test_lines_of_neighbouring_columns_stay_apart():
    left = "A sentence that fills the left column of the page"
    right = "and another sentence that fills the right column"
    assert join_rows([_line(0, 0, left, 90), _line(100, 0, right, 90)]) == [left, right]


def test_what_lies_over_another_line_is_no_cell_beside_it():
    assert join_rows([_line(0, 0, "12"), _line(10, 1, "34")]) == ["12", "34"]


def test_rows_keep_their_order_and_empty_lines_go():
    lines = [_line(0, 0, "one"), _line(0, 20, "  "), _line(0, 40, "two")]
    assert join_rows(lines) == ["one", "two"]


def test_a_lone_figure_goes_behind_the_label_above_it():
    slices = [
        _line(0, 0, "Information and", 80), _line(10, 12, "communication", 60),
        _line(30, 24, "51%", 20), _line(200, 5, "Other", 40), _line(210, 17, "12%", 20),
    ]  # fmt: skip
    assert join_rows(slices) == ["Information and communication 51%", "Other 12%"]


def test_figures_of_a_column_and_far_ones_stay_where_they_are():
    column = [_line(0, 0, "410"), _line(0, 12, "380"), _line(0, 60, "Note"), _line(0, 90, "1")]
    assert join_rows(column) == ["410", "380", "Note", "1"]
    table = [_line(0, 0, "North"), _line(0, 12, "South"), _line(100, 12, "380")]
    assert join_rows(table) == ["North", "South\t380"]
    above = [_line(0, 0, "51%"), _line(0, 12, "Agree"), _line(0, 24, "30%"), _line(0, 36, "Deny")]
    assert join_rows(above) == ["51%", "Agree", "30%", "Deny"]
    texts = ("Region", "North", "Sales", "410", "Profit", "n/a")
    by_column = [_line(100 * (n // 2), 12 * (n % 2), text) for n, text in enumerate(texts)]
    assert join_rows(by_column) == ["Region\tSales\tProfit", "North\t410\tn/a"]
    ragged = [_line(0, 0, "Sales"), _line(0, 12, "410"), _line(100, 0, "Profit")]
    assert join_rows(ragged) == ["Sales\tProfit", "410"]


def test_figures_half_way_down_a_label_of_two_lines_go_behind_it():
    table = [
        _line(0, 0, "Depreciation and", 70), _line(0, 11, "amortization", 60),
        _line(200, 5.5, "245"), _line(300, 5.5, "230"), _line(0, 30, "Interest"),
        _line(200, 30, "12"), _line(200, 5.5, "245"),
    ]  # fmt: skip
    assert join_rows(table) == ["Depreciation and amortization\t245\t230", "Interest\t12"]
    far = [_line(0, 0, "North"), _line(0, 30, "South"), _line(200, 15, "380")]
    assert join_rows(far) == ["North", "South", "380"]
    bars = [_line(60, 0, "ソフトバンク", 60), _line(70, 11, "（開発予定）", 52)]
    assert join_rows([_line(375, 5, "3,500"), *bars]) == ["ソフトバンク（開発予定）\t3,500"]


def test_lines_join_as_their_script_wants():
    assert joined_lines("a sentence", "goes on") == "a sentence goes on"
    assert joined_lines("a commun-", "ication") == "a communication"
    assert joined_lines("人が訪れ、", "町は") == "人が訪れ、町は"
    assert joined_lines("情報通信業", "51%") == "情報通信業 51%"


def test_a_table_is_quoted_by_its_row_and_its_heading():
    found = quote("What were the sales of the South in 2023?", TABLE)
    assert found.splitlines()[-1] == "South 380 362"
    assert "Region 2022 2023" in found


def test_rows_left_out_are_marked():
    assert quote("South 2023", TABLE) == "Region 2022 2023 …\nSouth 380 362"


def test_japanese_is_found_by_pairs_and_single_kanji():
    rows = ["季節 来訪者(人)", "春 12,400", "夏 28,900", "来年も開きます。"]
    assert "夏 28,900" in quote("夏の来訪者は何人ですか。", rows)


def test_no_word_of_the_question_no_quote():
    assert quote("What is the capacity?", TABLE) == ""
    assert quote("ですか", TABLE) == ""
    assert quote("anything", []) == ""


def test_words_that_mean_nothing_choose_nothing():
    rows = ["what is the", "height 3 m", *FILLER]
    assert quote("What is the height?", rows) == "height 3 m"


def test_a_sentence_goes_on_in_the_next_row():
    rows = ["The festival of the old harbour town is held", "on 12 August.", "Bring a chair."]
    found = quote("When is the festival?", [*rows, *FILLER])
    assert found == "The festival of the old harbour town is held on 12 August."


def test_japanese_lines_of_a_sentence_join_without_a_space_and_rows_of_a_table_do_not():
    line = "この町の花火大会は毎年八月に開かれ、全国から多くの人が訪れることで知られて"
    rows = [line, "います。", *["関係のない文がここに続きます。"] * 20]
    assert quote("花火大会は？", rows) == f"{line}います。"
    table = ["Research and development costs 2,987 2,540", "Sales and marketing 4,968", *FILLER]
    assert quote("research costs", table) == table[0]


def test_a_question_of_the_page_is_quoted_with_its_answer():
    rows = ["(問12) 有効成分は登録申請ができるか。", "(答) できる。", "(問13) 次の問い", *FILLER]
    assert "(答) できる。" in quote("有効成分は登録申請ができますか？", rows)


def test_a_page_of_few_words_is_quoted_whole():
    rows = ["Do you have a budget of your own?", "No 63%", "Yes 37%", "n=57"]
    assert quote("How many have a budget?", rows) == "\n".join(rows)
    assert quote("kettle", rows) == ""


def test_a_page_of_few_words_is_quoted_by_the_row_of_a_table_that_says_it():
    rows = ["Sales by region", "Region 2022 2023", "North 410 455", "Total 1,300 1,420"]
    said = quote("What were the total sales in 2023?", rows)
    assert said == "Sales by region\nRegion 2022 2023 …\nTotal 1,300 1,420"
    assert quote("What were the sales in 2023?", rows) == "\n".join(rows), "years say nothing"


def test_ticks_of_an_axis_are_not_quoted():
    rows = ["Electricity use", "0", "10", "20", "Mar 47", "Apr 35", "12", "New windows in March."]
    said = quote("How much electricity was used in March?", rows)
    assert said == "Electricity use …\nMar 47\nApr 35\n12\nNew windows in March."


def test_a_page_of_few_words_is_quoted_by_the_sentence_that_says_it():
    rows = ["Harbour Tea", "North 410 455", "Sales grew by 9.2 percent.", "Prices fell."]
    assert quote("By how many percent did sales grow?", rows) == rows[2]
    assert quote("Sales of the west?", rows) == "\n".join(rows), "half a match says little"
    rows = [
        "湖畔町 観光報告",
        "夏 28,900 9,750",
        "夏の花火大会は8月12日に開かれ、",
        "4,500人が来た。",
    ]
    assert quote("花火大会はいつ開かれましたか。", rows) == rows[2] + rows[3]


@pytest.mark.parametrize(
    ("question", "rows"),
    [
        ("規程はありますか？", ["規程はありますか？", "ある 33%", "ない 47%"]),
        ("What are the sales by region?", ["Sales by region:", "North 410", "South 380"]),
        ("What is the total revenue?", ["Total revenue (USD m.)", "2022 310", "2023 410"]),
        ("地域別の売上高はいくらですか。", ["地域別売上高：", "北部 410", "南部 380"]),
        ("What was the operating profit?", ["Fig. 3. Operating profit.", "2022 310", "2023 410"]),
        (
            "Which region drinks most tea?",
            ["Tea sales 2023", "North 410", "Source: survey of tea."],
        ),
        ("Which region drinks most tea?", ["Tea sales 2023", "North 410", "We like tea."]),
    ],
)
def test_labels_and_captions_are_quoted_with_the_figures_around_them(question, rows):
    assert quote(question, rows) == "\n".join(rows)


def test_a_very_long_row_is_cut():
    found = quote("festival", ["festival " + "x" * 1000])
    assert len(found) <= MOST_CHARS and found.endswith("…")


def test_a_question_over_two_lines_is_quoted_with_its_answer():
    rows = [
        "(問14) 優先的に登録を受ける手続きはあるか。また、登録証発行までのタイムク",
        "ロックを設けているか。",
        "(答)",
        "1. 優先的な登録手続きはありません。",
        *["関係のない文がここに続きます。"] * 20,
    ]
    assert quote("優先的な登録の手続きはありますか", rows).endswith("手続きはありません。")


def test_a_sentence_is_quoted_from_its_beginning_to_its_end():
    lines = [
        "The orchard was planted in 1912 by the harbour company and",
        "was extended four times before the second bridge was built and",
        "the road to the north was opened for carts of every kind in",
        "spring, which the town had asked for since the great flood.",
    ]
    quoted = quote("When was the orchard planted?", [*lines, *FILLER])
    assert quoted == " ".join(lines)
    assert quote("great flood", [*lines, *FILLER]) == " ".join(lines)
    assert quote("great flood", [*lines[2:], *FILLER]) == "… " + " ".join(lines[2:])
    long = [*lines[:1], *lines[1:3] * 4, "every spring it was extended again for the"]
    cut = quote("When was the orchard planted?", [*long, "■ Harbour", *FILLER])
    assert cut.startswith(lines[0]) and cut.endswith(" …") and len(cut) <= MOST_SENTENCE
    cut = quote("When was the orchard planted?", [*lines[:2], "■ Harbour", *FILLER])
    assert cut == " ".join(lines[:2]) + " …"
    heading = "Annual Report of the Example Company for the Fiscal Year"
    assert quote("the company report", [*FILLER, heading]) == heading  # the page ends here


def test_words_are_framed_where_they_stand_together():
    line = {"A4": (0.0, 100.0, 9.0, 110.0), "210": (20.0, 101.0, 29.0, 109.0)}
    elsewhere = (20.0, 130.0, 29.0, 140.0)  # "210" in the line of A5
    places = [*line.items(), ("210", elsewhere)]
    assert most_together(places) == list(line.values())
    beside = {"A4": (0.0, 100.0, 9.0, 103.8), "210": (20.0, 100.0, 29.0, 104.2)}  # 101.9, 102.1
    assert most_together([*beside.items(), ("210", elsewhere)]) == list(beside.values())
    assert most_together([("210", elsewhere)]) == [elsewhere]


@pytest.mark.parametrize(
    ("rows", "question", "wanted"),
    [
        (["Step 1\t3.5", "Step 2\t8", "Step 3\t10"], "How long is step 3?", "Step 3 10"),
        (["1月\t3,200", "2月\t2,900", "3月\t2,750"], "3月の電気使用量は？", "3月 2,750"),
        (["4月\t5,120", "5月\t6,300"], "5月の来場者数は", "5月 6,300"),
        (["りんご\t737,100", "みかん\t682,200", "いちご\t160,000"],
         "みかんの収穫量はいくらですか。", "みかん 682,200"),
        (["Net sales1\t500\t520", "Other income\t1\t2"], "net sales", "Net sales1 500 520"),
        (["がん\t385,797", "心疾患\t232,964"], "がんの死亡者数", "がん 385,797"),
    ],
)  # fmt: skip
def test_the_row_of_the_thing_itself(rows, question, wanted):
    said = quote(question, [*rows, "これは表の下にある長い文章です。" * 30])
    assert said.splitlines()[0] == wanted


def test_figures_of_a_page_that_are_no_ticks_are_said():
    rows = ["Harbour Tea 2023", "Sales", "Costs", "Profit", "410", "380", "30"]
    assert "410\n380\n30" in quote("What was the profit?", rows)
    rows = ["売上高", "営業利益", "利益率", "1,204億円", "310億円", "12.4%"]
    assert "12.4%" in quote("利益率は？", rows)
    axis = ["Profit by year", "0", "10%", "20%", "30%", "2021", "2022", "2023", "25%"]
    assert quote("What was the profit?", axis) == "Profit by year …\n25%"


def test_neighbouring_columns_of_japanese_text_are_not_interleaved():
    left = [
        "今月号では港の歴史と、これから始まる工事の",
        "予定をお伝えします。新しい桟橋は来年の春に",
    ]
    right = [
        "市民の皆さまからお寄せいただいたご意見のうち",
        "多かったものを、担当する課の回答とともに載せ",
    ]
    lines = [
        PlacedLine(x, 100 + 20 * n, x + 200, 112 + 20 * n, text)
        for x, texts in ((50, left), (300, right))
        for n, text in enumerate(texts)
    ]
    assert join_rows(lines) == [*left, *right]
    label = PlacedLine(50, 300, 250, 312, "親会社株主に帰属する当期純利益（損失）の金額")
    figure = PlacedLine(300, 300, 340, 312, "1,204")
    assert join_rows([*lines, label, figure])[-1] == f"{label.text}\t1,204"


def test_what_is_written_downwards_is_read_downwards():
    columns = ["冬の湖畔に", "小屋が立つ"]
    letters = [
        PlacedLine(x, 100 + 12 * n, x + 12, 112 + 12 * n, letter, is_vertical=True)
        for x, text in ((300, columns[0]), (280, columns[1]))
        for n, letter in enumerate(text)
    ]
    below = PlacedLine(300, 400, 312, 500, "次の段", is_vertical=True)
    found = columns_of([below, *reversed(letters)])
    assert [each.text for each in found] == [*columns, "次の段"]
    assert join_rows(found) == [*columns, "次の段"]


def test_thousands_of_cells_are_joined_in_order():
    lines = [
        PlacedLine(100 * x, 14 * y, 100 * x + 60, 14 * y + 10, f"{x + y}.0" if x else f"Row {y}")
        for y in range(300)
        for x in range(10)
    ]
    rows = join_rows(lines)
    assert len(rows) == 300
    assert rows[7].split("\t") == ["Row 7", *(f"{x + 7}.0" for x in range(1, 10))]
    text = "0123456789 " * 12 + "abcdefghijk"
    hard = [PlacedLine(0, 14 * y, 400, 14 * y + 10, text) for y in range(400)]
    assert len(join_rows(hard)) == 400  # once a minute of backtracking


def test_a_sentence_of_japanese_lines_is_quoted_from_its_beginning():
    lines = [
        "■第１-１図／国際会議の開催地と参加国の推移",
        "この枠組みの設立は、二〇一九年八月に南部の港",
        "町で開かれた第四十五回の首脳会議において、そ",
        "の必要性がはじめて提唱されたことに始まります。",
        "●会議は毎年開かれ、議長国が持ち回りで務めて",
        "います。",
    ]
    filler = ["別の段落です。" * 4] * 9
    assert quote("必要性が提唱されたのはいつ？", [*lines, *filler]) == "".join(lines[1:4])
    assert quote("議長国", [*lines, *filler]) == "".join(lines[4:])


def test_the_long_name_of_figures_stands_in_their_row():
    name = "Equity in income (loss) of affiliates, net"
    cells = [(50, name), (300, "12"), (350, "-"), (400, "(3)")]
    lines = [PlacedLine(x, 100, x + 5 * len(text), 110, text) for x, text in cells]
    assert join_rows(lines) == [f"{name}\t12\t-\t(3)"]
    note = PlacedLine(450, 100, 480, 110, "restated")  # beside text it is running text
    assert join_rows([*lines[1:], note, lines[0]])[-1] == name


def test_what_a_heading_stands_over_is_quoted_with_it():
    rows = [
        "Data model of the harbour",
        "2\tLRS",
        "The Linear Reference System (LRS) is the most usual way of storing",
        "what stands along the quays.",
        "Adjusted earnings a share / Mid-point of the range",
        "Change on the prior year",
        "$10.45 – $10.65 / $10.55",
    ]
    assert "Linear Reference System" in quote("What is LRS short for?", [*rows, *FILLER])
    said = quote("adjusted earnings a share", [*rows, *FILLER])
    assert said == f"{rows[4]} {rows[5]}\n{rows[6]}"


def test_a_footer_is_no_answer():
    rows = ["7 The harbour project work group / CC BY 4.0", "Surveyed 2022/3/31-4/30"]
    question = (
        "What percentage of harbour towns had no strategy for open boats in that year's survey?"
    )
    assert quote(question, rows) == ""
    assert "2022/3/31" in quote("When was it surveyed?", rows)


def test_a_short_japanese_line_that_ends_with_a_comma_goes_on():
    rows = ["観光案内", "夏の花火大会は8月12日に開かれ、", "約2万人が訪れます。", "宿泊は旅館へ"]
    said = quote("夏の花火大会はいつですか", rows)
    assert said == "夏の花火大会は8月12日に開かれ、約2万人が訪れます。"


STATEMENT = [
    "Harbour Tea, Inc.",
    "Consolidated Statements of Income",
    "(In thousands, except per share data)",
    "13 Weeks Ended",
    "January 28,\tJanuary 29,",
    "2023\t2022",
    "Net sales\t3,226,773\t2,729,388",
    "Net income per common share:",
    "Basic\t6.73\t5.44",
    "Diluted\t6.68\t5.41",
    "52 Weeks Ended",
    "January 28,\tJanuary 29,",
    "2023\t2022",
    "Net sales\t10,208,580\t8,630,889",
    "Net income per common share:",
    "Basic\t24.17\t18.09",
    "Diluted\t24.01\t17.98",
]


def test_heads_do_not_take_the_place_of_the_row_they_stand_over():
    asked = (
        "What were the sales of Harbour Tea, Inc. in the 13 weeks ended January 28, 2023? Basic?"
    )
    said = quote(asked, STATEMENT)
    assert "Basic 6.73 5.44" in said
    assert "13 Weeks Ended" in said


def test_rows_of_one_name_are_quoted_each_with_what_tells_it_from_the_other():
    said = quote("What were the basic earnings?", STATEMENT)
    assert "Basic 6.73 5.44" in said and "Basic 24.17 18.09" in said
    said = quote("What were net sales in 2023?", STATEMENT).splitlines()
    lines = [line.removesuffix(" …") for line in said]
    short, long = lines.index("13 Weeks Ended"), lines.index("52 Weeks Ended")
    assert short < lines.index("Net sales 3,226,773 2,729,388") < long
    assert long < lines.index("Net sales 10,208,580 8,630,889")


GROUPS = ["REPORTED SALES", "2022\t2021", "OPAL", "US\t610\t587", "Intl\t261\t264", "BERYL"]
GROUPS += ["US\t667\t644", "Intl\t30\t31", "GARNET", "US\t29\t59", "Intl\t62\t60", *FILLER]


def test_a_heading_without_figures_says_what_the_rows_under_it_are_about():
    said = quote("What were the Intl sales of BERYL in 2021?", GROUPS)
    assert "BERYL …\nIntl 30 31 (2021: 31)" in said and "261" not in said and "62" not in said
    assert "BERYL\nUS 667 644 (2021: 644)\nIntl 30 31" in quote("BERYL in 2021?", GROUPS)


def test_another_row_of_the_table_is_quoted_only_if_it_is_asked_for():
    rows = ["State\tPermit\tTotals", "Ohio\t9,338\t81,616", "Oklahoma\t0\t35,457", *FILLER]
    assert "Oklahoma" not in quote("How many permits were there in Ohio?", rows)
    both = quote("Are there more permits in Ohio or in Oklahoma?", rows)
    assert "Ohio 9,338 81,616" in both and "Oklahoma 0 35,457" in both


def test_a_sentence_with_the_date_or_number_that_is_asked_for_is_quoted_to_it():
    rows = [
        "The harbour savings plan is a plan for all people who work on the quays of the town.",
        "Under the plan they may contribute up to 65% of what they earn. Nobody has to.",
        *FILLER,
    ]
    said = quote("How much of their pay can people put into the harbour savings plan?", rows)
    assert said.endswith("up to 65% of what they earn.")
    rows = [
        "Before acting on this proposal the office will read all comments on the harbour.",
        "DATES: The office must receive comments on the harbour by September 21,",
        "2020.",
        *FILLER,
    ]
    said = quote("By what date must the office get comments on the harbour proposal?", rows)
    assert "by September 21, 2020." in said


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("What is a quay?", "A quay is where ships lie."),
        (
            "What does HTL stand for in the plan of the harbour?",
            "The Harbour Tea Line (HTL) sails.",
        ),
        ("潮位とは何ですか。", "「潮位」とは海面の高さのことです。"),
        ("What does NHN mean?", "NHN\nNational Hydro Network"),
    ],
)
def test_what_is_to_be_explained_is_quoted_where_it_is_explained(question, wanted):
    rows = [
        "The plan of the harbour has one quay for HTL and 12 for others, and every quay is new.",
        "A quay is where ships lie.",
        "The Harbour Tea Line (HTL) sails.",
        "潮位の観測では潮位の値を毎日記録しています。",
        "「潮位」とは海面の高さのことです。",
        "NHN",
        "National Hydro Network",
        *FILLER,
    ]
    assert quote(question, rows) == wanted


@pytest.mark.parametrize(
    ("question", "rows"),
    [
        (
            "What is a berth?",
            ["The berth of a ship is paid for by the day.", "Where it lies we call a berth."],
        ),
        (
            "What is a berth in Port Wool?",
            ["The berth in Port Wool is new.", "A place on a quay is called a berth."],
        ),
        ("What is demurrage?", ["Pay demurrage here.", "The fee for it is known as demurrage."]),
        (
            "係留場とは何ですか。",
            ["係留場は係留場の窓口で。", "泊める所を係留場(岸)と呼ぶ。"],
        ),
        ("岸壁とは？", ["岸壁の料金は岸壁ごと。", "船の着く壁（以下「岸壁」という。）を使う。"]),
    ],
)
def test_what_is_given_its_name_is_quoted_and_not_what_only_has_it(question, rows):
    said = quote(question, [*rows, *FILLER])
    assert rows[1] in said and (said == rows[1] or "Port Wool" in question)


def test_we_call_this_is_quoted_with_what_this_is():
    rows = ["A ship lies at a place on the quay, and pays.", "We call such a place a berth."]
    assert quote("What is a berth?", [*rows, *FILLER]) == "\n".join(rows)


def test_what_is_of_other_years_is_not_preferred():
    rows = [
        "2021年2月\t日本",
        "地震の際に、改ざんされた偽画像が日本で出回った。",
        "2022年9月\t日本",
        "台風の際に、偽画像が拡散した。",
        *["これは別の話をする長い文章です。"] * 20,
    ]
    said = quote("2022年9月に日本で出回った偽画像は？", rows)
    assert said.splitlines()[:2] == ["2022年9月 日本", rows[3]]


@pytest.mark.parametrize(
    ("question", "rows"),
    [
        (
            "How many ships came to the harbour?",
            ["On May 3, 2021, ships came to the harbour.", "To the harbour came 40 such ships."],
        ),
        ("船はいくつ入港しましたか。", ["船は令和3年に入港した。", "入港した船は40である。"]),
    ],
)
def test_a_date_is_no_number_that_is_asked_for(question, rows):
    assert quote(question, [*rows, *FILLER]).startswith(rows[1])


@pytest.mark.parametrize(
    ("question", "rows"),
    [
        (
            "What was the toll in 2022?",
            ["There is a toll here.", "The toll rose to 40 coins compared to 30 in spring 2021."],
        ),
        (
            "2022年の入港料は？",
            ["入港料は別に示す。", "入港料は2021年に比べて高い300円である。"],
        ),
    ],
)
def test_what_compares_with_another_year_is_not_of_that_year(question, rows):
    assert quote(question, [*rows, *FILLER]).startswith(rows[1])


def test_headings_that_are_alike_are_both_quoted_with_their_figures():
    rows = ["Adjusted Operational Earnings", "$10.40 – $10.60", "Adjusted Earnings", "$10.45"]
    said = quote("What are the adjusted earnings?", [*rows, *FILLER])
    assert said == "\n".join(rows)


def test_all_answers_of_a_chart_are_quoted_with_its_question():
    rows = ["Do you use tea at work?", "(one answer)", "Yes 38%", "No 43%", "At times 19%"]
    said = quote("What share did not use tea at work?", [*rows, *FILLER])
    assert said == "\n".join(rows)


@pytest.mark.parametrize(
    ("question", "rows", "said"),
    [
        (
            "How much is the rent?",
            ["1. Term", "It runs for two years.", "2. Rent", "It is $1,450 a month, due early."],
            "2. Rent\nIt is $1,450 a month, due early.",
        ),
        (
            "次回の理事会はいつですか。",
            [
                "理事会議事録", "開催日：5月14日", "出席者：鈴木一郎", "欠席者：高橋次郎",
                "会計報告が承認された。", "次回の理事会：7月9日",
            ],
            "次回の理事会：7月9日",
        ),
        (
            "支払い方法は？",
            [
                "よくある質問と回答をまとめました。", "Q1. 送料はいくらですか。",
                "A1. 全国一律五百円です。", "Q2. 支払い方法を教えてください。",
                "A2. カードか振込をお選びいただけます。", "Q3. 返品はできますか。",
                "A3. 七日以内ならできます。",
            ],
            "A2. カードか振込をお選びいただけます。",
        ),
    ],
)  # fmt: skip
def test_what_answers_is_quoted_and_not_only_its_heading(question, rows, said):
    padding = ["This line is about something else altogether, and long enough to fill a page."] * 4
    assert said in quote(question, [*rows, *padding])


def test_bullets_that_are_rows_of_their_own_keep_items_apart():
    rows = [
        "Members get",
        "•",
        "Free entry to museums of the region",
        "•",
        "A discount of 10% in the shop",
    ]
    said = quote(
        "What discount do members get in the shop?", [*rows, *["Another line of text."] * 20]
    )
    assert "region A discount" not in said
    assert "A discount of 10% in the shop" in said


def test_rows_named_by_a_period_or_a_rank_have_values():
    rows = [
        f"決算期{CELL_END}売上高{CELL_END}営業利益",
        f"2024年3月期{CELL_END}52,300{CELL_END}4,100",
        f"2023年3月期{CELL_END}48,900{CELL_END}3,700",
        *["この資料の数字は監査を受けていません。"] * 12,
    ]
    assert "4,100" in quote("2024年3月期の営業利益はいくらですか。", rows)
    rows = [f"1{CELL_END}Tokyo{CELL_END}37,400,000", f"2{CELL_END}Delhi{CELL_END}31,200,000"]
    rows += ["Figures are estimates of the year 2020 and include the suburbs of each city."] * 6
    assert "31,200,000" in quote("How many people live in Delhi?", rows)


def test_a_small_table_is_quoted_by_its_row_where_the_one_figure_is_known():
    rows = [
        "Annual Report", "Harbour Tea Company", "Sales by region",
        f"Region{CELL_END}2022{CELL_END}2023",
        f"North{CELL_END}410{CELL_END}455", f"Total{CELL_END}1,300{CELL_END}1,420",
    ]  # fmt: skip
    said = quote("What were the total sales of Harbour Tea in 2023?", rows)
    assert said.splitlines() == [
        "Harbour Tea Company",
        "Sales by region",
        "Region 2022 2023 …",
        "Total 1,300 1,420 (2023: 1,420)",
    ]


def test_an_abbreviation_may_be_spelt_out_on_the_page():
    rows = [
        "Example Shops sold more last year than in any year before, in all of its shops.",
        "“Example Shops is strong,” said Ann Smith, chief executive officer.",
        "Example Shops opened five more shops in the north of the country.",
        "None of what is said here is a promise to anybody, and it may change at any time.",
    ]
    assert quote("Who is the CEO of Example Shops?", rows) == rows[1]
    assert rows[1] not in quote("Who is the CFO of Example Shops?", rows)


def test_under_a_heading_stands_the_number_that_is_asked_for():
    rows = [
        "ABOUT EXAMPLE:",
        "We believe that good health is the foundation of vibrant lives.",
        "For more than 135 years we have aimed to keep people well.",
        "HISTORY OF ANOTHER FIRM:",
        "It was founded 40 years ago in a town at the sea.",
        "None of what is said here is a promise to anybody, and it may change at any time.",
    ]
    assert quote("How old is Example?", rows) == f"{rows[0]} …\n{rows[2]}"


def test_who_is_asked_for_stands_over_or_under_the_title():
    rows = [*FILLER, "Jane Field", "Chief Information Officer", "MANUAL", *FILLER]
    wanted = "Jane Field\nChief Information Officer\nMANUAL"
    assert quote("Who is the Chief Information Officer?", rows) == wanted
    assert "Jane" not in quote("the Chief Information Officer", rows)


def test_a_short_line_that_names_a_term_is_followed_by_what_it_means():
    rows = [*FILLER, "E31 - REQUEST NOT ACCEPTED.", "The account is in merge status.", *FILLER]
    wanted = "E31 - REQUEST NOT ACCEPTED.\nThe account is in merge status."
    assert quote("What does error E31 mean?", rows) == wanted


def test_a_row_of_figures_does_not_say_why():
    rows = [
        "Sales of the shops changed as follows:",
        "\t2022\t2023",
        "Appliances\t6.8 %\t(6.1)%",
        "Games\t2.5 %\t3.5 %",
        "Appliances fell since fewer large ones were bought than in the year before.",
        "The weather was fine in all regions where the shops are, and so were the roads. " * 3,
    ]
    asked = "{} did sales of appliances in the shops change?"
    said = quote(asked.format("Why"), rows)
    assert said.endswith("fell since fewer large ones were bought than in the year before.")
    assert "6.8 %" not in said
    assert "Appliances 6.8 % (6.1)%" in quote(asked.format("How much"), rows)
