"""The type of a question's answer, and the one span of a quotation that is of it."""

import pytest

from rag.answer_type import AnswerType, Kind, spans_of
from rag.quote import quotation

FILLER = ["A line about other things that is long enough to be a sentence of its own. " * 4]
OPENED = "The library was opened on 3 May 2021 by 40 guests."
REGIONS = ["Sales by region", "Region\t2022\t2023", "North\t410\t420", "South\t380\t362"]
MODELS = ["モデル名\t組織\t発表年\tパラメータ数", "GPT-3\tOpenAI社\t2020\t1,750億"]
PATIENTS = ["区市町村別の患者数", "新宿\t2858\t(2806)", "渋谷\t1033\t(922)"]
TERMS = ["NHN\tNational Hydro Network", "GML\tMarkup Language"]


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("When does it open?", Kind.DATE),
        ("モデルが発表されたのは何年ですか。", Kind.DATE),
        ("工事は何年間続きましたか。", Kind.NUMBER),
        ("What percentage of users agreed?", Kind.PERCENTAGE),
        ("回答した会社の割合は？", Kind.PERCENTAGE),
        ("How much did the building cost?", Kind.MONEY),
        ("入場料はいくらですか？", Kind.MONEY),
        ("How many people came?", Kind.NUMBER),
        ("従業員は何名いますか。", Kind.NUMBER),
        ("Did sales rise by 3 %?", None),
        ("冬と春では宿泊はどちらが多いですか。", None),
        ("Who wrote it?", None),
    ],
)
def test_a_question_says_what_type_of_answer_it_wants(question, kind):
    assert AnswerType(question).kind == kind


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "It opened on 3 May 2021 at $1.2 million",
            [("date", "3 May 2021"), ("money", "$1.2 million")],
        ),
        ("2024年（令和６年）３月に29の国", [("date", "2024年（令和６年）３月"), ("number", "29")]),
        ("６億6,500万ユーロと1,750億", [("money", "６億6,500万ユーロ"), ("number", "1,750億")]),
        (
            "GPT-3 on Flight 610, rule 401(k)",
            [("code", "GPT-3"), ("code", "Flight 610"), ("code", "401(k)")],
        ),
        ("AIを使う企業7社、GPT-3", [("number", "7"), ("code", "GPT-3")]),
        ("at 8:30 a.m. for 30 guests", [("code", "8:30"), ("number", "30")]),
        ("Figure 2 – 4 of 9 packages", [("code", "Figure 2"), ("number", "4"), ("number", "9")]),
        ("図2 全国の9社", [("code", "図2"), ("number", "9")]),
        ("第26条の2、※1", [("code", "第26条の2"), ("code", "※1")]),
        ("$400 million to $475 million", [("money", "$400 million to $475 million")]),
        ("fell 4.4% to 12", [("percentage", "4.4%"), ("number", "12")]),
        ("grew by 1,265％, not 80%", [("percentage", "1,265％"), ("percentage", "80%")]),
    ],
)
def test_numbers_are_told_apart(text, found):
    assert [(str(each.kind), text[each.start : each.end]) for each in spans_of(text)] == found


@pytest.mark.parametrize(
    ("question", "rows", "key"),
    [
        ("When was the library opened?", [OPENED], "3 May 2021"),
        ("How many guests opened the library?", [OPENED], "40"),
        ("GPT-3のパラメータ数はいくつですか。", MODELS, "1,750億"),
        ("GPT-3の発表年は何年ですか。", MODELS, "2020"),
        ("新宿の患者は何人ですか。", PATIENTS, "2858"),
        ("South sales 2023", REGIONS, "362"),
        ("What does NHN stand for?", TERMS, "National Hydro Network"),
        ("７月に参加を約束したのは何社ですか。", ["会議に参加を約束したのは7社である。"], "7"),
        ("貸与権は著作権法の何条ですか。", ["著作権法\t貸与権（第26条の3）"], "第26条の3"),
    ],
)
def test_the_one_span_of_the_type_is_the_key(question, rows, key):
    said = quotation(question, [*rows, *FILLER])
    assert said.key_text == key
    assert said.key and said.text[slice(*said.key)] == key


@pytest.mark.parametrize(
    ("question", "rows"),
    [
        (
            "When was the library opened?",
            ["The library was opened on 3 May 2021 and again on 5 June 2022."],
        ),
        ("Was the library opened in May?", ["The library was opened on 3 May 2021."]),
        ("When in 2021 was the library opened?", ["The library was opened in 2021 by 40 guests."]),
        ("How many ducks live at the library?", [OPENED]),
        ("What is the total of the North?", ["Net change\t120\t(45)", "North\t120\t(45)"]),
        (
            "How much is the prize of the challenge?",
            ["(1.6 million dollars) was the prize of the challenge that they began."],
        ),
        (
            "When does the facility run out under a new law about drains?",
            ["The facility was begun on 3 May 2021 by others."],
        ),
        ("How many shops are open in Leeds?", ["Shops open in Leeds for 14 months sold more."]),
        ("What does HTL stand for in the harbour line?", ["HTL plan", "Harbour line\t10"]),
        (
            "How many visitors had the castle?",
            ["The castle had 300 visitors.", "The castle had 400 visitors."],
        ),
    ],
)
def test_in_doubt_nothing_is_the_key(question, rows):
    assert quotation(question, [*rows, *FILLER]).key is None


def test_heads_of_columns_are_no_key():
    rows = [
        "\t13 Weeks Ended\t52 Weeks Ended",
        "(In millions)\tJune 3\tJune 4\tJune 3\tJune 4",
        "Comparable sales\t15.6%\t21.4%\t4.8%\t37.9%",
        "Net sales\t3,226\t2,729\t2,198\t1,090",
    ]
    said = quotation("What were comparable sales in the 52 weeks before Monday?", [*rows, *FILLER])
    assert "13 Weeks Ended" in said.text
    assert said.key is None


def test_what_is_cut_off_is_no_key():
    row = "Total\t" + "visitors of the castle " * 12 + "\t4,500"
    said = quotation("How many visitors of the castle in total?", [row, *FILLER])
    assert said.text.endswith(" …")
    assert said.key is None
