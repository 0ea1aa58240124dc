"""Rows of a page as the passages that are quoted, and what stands over them."""

import pytest

from rag.passages import is_noise, passages_of
from rag.scope import heads_of, is_value, scopes_of


def _texts(rows):
    return [passage.text for passage in passages_of(rows)]


def test_running_text_becomes_sentences_and_other_rows_stay():
    rows = [
        "Annual Report of the Harbour",
        "The quay was opened in the spring of the year by the mayor of the",
        "town. It has room for ten ships.",
        "Ships\t10",
    ]
    assert _texts(rows) == [
        rows[0],
        "The quay was opened in the spring of the year by the mayor of the town.",
        "It has room for ten ships.",
        rows[3],
    ]
    first, second = passages_of(rows)[1:3]
    assert not first.follows and second.follows and second.row is None


def test_lines_of_a_narrow_column_are_joined_by_what_they_end_and_begin_with():
    rows = ["The office must receive comments", "on the harbour by September 21,", "2020."]
    assert _texts(rows) == [" ".join(rows)]
    rows = ["に設置されている担当室が国の戦略の", "監督の責任を負っています。", "資料：市"]
    assert _texts(rows) == ["".join(rows[:2]), "資料：市"]


def test_a_heading_and_a_list_are_not_joined_to_what_is_below_them():
    rows = [
        "Change of Use",
        "A long line of text that goes on to the end of the column of the page.",
    ]
    assert _texts(rows) == rows
    rows = ["ある（全社に周知されており機能している） 33%", "ある（浸透していない） 3%"]
    assert _texts(rows) == rows


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("The U.S. Army came. It left.", 2),
        ("Harbour Tea Inc. The end of it was near for all.", 1),
        ("彼は「来た。」と言った。そして去った。", 2),
        ("It grew by 9.2 percent in all. (So they say.)", 2),
    ],
)
def test_sentences_end_where_they_end(text, n):
    assert len(passages_of([text])) == n


def test_marks_of_footnotes_stay_in_their_sentence_and_footnotes_out_of_it():
    rows = [
        "捜査局は、被害者には未成年の者も含まれると警告しており、法",
        "＊15",
        "に定めがある。",
    ]
    assert _texts(rows) == [rows[0] + rows[2]]
    rows = [
        "捜査局は、被害者には未成年の者も含まれると警告しており、法",
        "＊15に定めがある。",
    ]
    assert _texts(rows) == ["".join(rows)]
    rows = [
        "また、この規模の言語モデルについても開発が進められてい",
        "＊4 別の会社の値",
    ]
    assert _texts(rows) == rows


@pytest.mark.parametrize(
    ("text", "noise"),
    [
        ("Page 1 of 205", True), ("- 12 -", True), ("← 目次へ", True), ("＊8", True), ("x", True),
        ("春", False), ("410", False), ("Page one", False),
    ],
)  # fmt: skip
def test_noise_is_no_passage(text, noise):
    assert is_noise(text) == noise


def test_an_end_that_is_not_known_is_marked():
    rows = [
        "The road to the north was opened for carts of every kind and the",
        "town had asked for that since the first bridge of wood was built",
        "■ Harbour",
    ]
    passage = passages_of(rows)[0]
    assert passage.is_cut and not passage.is_begun_before
    assert passages_of([rows[1][5:], *rows[1:]])[0].is_begun_before


def test_rows_stand_under_their_heading_and_the_heads_of_their_table():
    rows = ["Sales", "2022\t2021", "OPAL", "US\t610\t587", "BERYL", "US\t667\t644", "Intl\t1\t2"]
    passages = passages_of(rows)
    scopes = scopes_of(passages)
    assert scopes[3].over == (0, 1, 2)
    assert scopes[5].heading == scopes[6].heading == (4,)
    assert scopes[6].over == (0, 1, 2, 4)


def test_heads_are_told_from_rows_of_a_table():
    rows = [
        "Name\tBy\tYear",
        "GPT\tOpen\t2020\t1,750",
        "Fiscal 2022\tthe quarter",
        "13 Weeks Ended",
    ]
    assert heads_of(passages_of(rows)) == [True, False, True, True]
    assert is_value("2019\t163,777") and is_value("PaLM\tGoogle\t2022\tnone")
    assert (
        not is_value("2022\t2021") and not is_value("100%\t60%") and not is_value("$9.3B – $9.5B")
    )


def test_wider_footnotes_and_lines_of_another_column_end_no_sentence():
    notes = ["第一部の注：研究所の設立に関する詳しい記録は町の図書館にある資料を参照。"] * 2
    column = [
        "その後の十年は工業が町の経済を支えたが、",
        "同じ年に設けられた研究所では、町が四年も",
        "医師を育てる事業を大学と共に続け、県内の",
        "病院からも人を迎えたうえで、データ・サイ",
        "エンスを学ぶ場とした。",
    ]
    assert [each.text for each in passages_of([*column, *notes])] == ["".join(column), *notes]


def test_a_line_goes_on_between_addresses_and_a_heading():
    address = "https://example.org/an-address-much-longer-than-any-line/of-the-column/is-no-measure"
    sentence = [
        "終わりの三月に受賞者が発表され、英米の",
        "両政府が用意した130万ポンド余りの小切手",
        "（160万ドル）が賞金として与えられました。",
    ]
    rows = [address, *sentence, "三　欧州", "連合では規則を設けた。"]
    assert "".join(sentence) in [each.text for each in passages_of(rows)]


def test_a_word_goes_on_in_a_line_far_narrower():
    line = "本作品は、Creative Commons Attribution 4.0 International（CC-BY 4.0）の下でライセンスさ"
    rows = [line, "れています。次の頁より:", "以下が許可されます。"]
    assert passages_of(rows)[0].text == f"{line}れています。"
