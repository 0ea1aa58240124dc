"""Words and bigrams for full-text search."""

import re

import pytest

from index.page_index import PageIndex
from index.text_layer import borrowed, fold, is_joint, match_any, names, proper_names, words, years
from tests.unit.index_data import SETTINGS, document, page, put


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Net income, 2023: 1,234.5", "net income 2023 1234 5"),
        ("1,234,567 in 2022,2023 or 12,34", "1234567 in 2022 2023 or 12 34"),
        ("東京都庁", "東京 京都 都庁"),
        ("ＡＢＣ１２３ ｶﾞｲﾄﾞ", "abc123 ガイ イド"),
        ("売上高はYen建て", "売上 上高 高は yen 建て 建"),
        ("語", "語"),
        ("don't Straße", "dont strasse"),
        ("コーヒー 人々", "コー ーヒ ヒー 人々"),
        ("한국어 中文 №5", "한국 국어 中文 no5"),
        ("snake_case x=1", "snake case x 1"),
        ("Rappahan-\nnock, pre- \r\n war", "rappahannock rappahan nock prewar pre war"),
        ("in\u00ad\ncluding docu\u00adments", "including document"),
        ("well-known 2019-\n2020 B-\ntree", "well known 2019 2020 b tree"),
        ("人口と観\n光客数", "人口 口と と観 観光 光客 客数"),
        ("売\n 上\r\n　高", "売上 上高"),
        ("ｺｰﾋ\nｰ", "コー ーヒ ヒー"),
        ("売 上 高 2023", "売上 上高 2023"),
        ("売\u3000上\u3000高", "売上 上高"),
        ("夏に泊まった人", "夏に に泊 泊ま まっ った た人 夏 泊 人"),
        ("Ulta’s users' expenses", "ulta user expense"),
        ("taxes and businesses of companies", "tax and business of company"),
        ("status, basis, does, gas, class, Q4s", "status basi does gas class q4s"),
        ("R&D, AT&T, J & J's cash & debt", "rd att jj cash debt"),
        ("3rd quarter Fourth-Quarter Q3", "q3 quarter q4 quarter q3"),
        ("4Q22 Q1FY2 第三四半期", "q4 2022 q1fy2 q3 四半 半期"),
        ("令和元年、平成25年度", "2019 年 2013 年度 令和 平成"),
        ("昭和五十年十二月", "1975 年 12 月 昭和"),
        ("二十代、二〇一三年、百五人", "20 代 2013 年 105 人"),
        ("統一日程 2百人", "統一 一日 日程 2 百人"),
        ("東京 の 人 口", "東京 の人 人口"),
        ("損 益 計算書", "損 益 計算 算書"),
        ("男 女", "男 女"),
        ("売  上  高", "売 上 高"),
        ("one\ntwo 年\nof", "one two 年 of"),
        ("葛󠄀飾区", "葛飾 飾区"),
        ("Zürich Tōkyō ế naïve", "zurich tokyo e naive"),
        ("がぎぐ й 각", "がぎ ぎぐ й 각"),
        ("", ""),
    ],
)
def test_fold(text, wanted):
    assert fold(text) == wanted


def test_full_and_half_width_forms_fold_to_the_same_words():
    assert words("ﾃﾞｰﾀ ２０２４年") == words("データ 2024年")


def test_a_question_becomes_each_of_its_words_once():
    assert match_any(words('the "cat" OR the AND')) == '"the" OR "cat" OR "or" OR "and"'


def test_words_of_other_letters_count_three_times_in_a_japanese_question():
    question = "GPT-3を発表"
    assert borrowed(question) == {"gpt"}
    assert match_any(["gpt", "発表"], borrowed(question)) == '"gpt" OR "発表" OR "gpt" OR "gpt"'
    assert not borrowed("GPT-3 was released")


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("How much did Best Buy spend in 2022?", {"best", "buy"}),
        ("What was the revenue of Tesla's shops?", {"tesla"}),
        ("Capital Expenditures of Ulta Beauty", set()),
        ("アドビの売上高は？", set()),
        ("ELIZAを開発したのはだれ？", {"eliza"}),
        ("", set()),
    ],
)
def test_names_are_capitals_inside_a_sentence(question, found):
    assert names(question) == found


def test_a_pair_over_the_end_of_a_word_is_told_from_a_word():
    found = words("宿泊の合計はトンネルと何泊")
    assert [word for word in found if is_joint(word)] == [
        "泊の",
        "の合",
        "計は",
        "はト",
        "ルと",
        "と何",
    ]
    assert not any(map(is_joint, ("宿泊", "です", "トン", "total", "泊")))


TEXTS = {
    1: "夏の花火大会と人口、観\n光客数",
    2: "税率の変更",
    3: "common",
    4: "率 2.5",
    5: "売 上 高",
}


def put_texts(page_index):
    page_index.begin_document(document("a.pdf", n_pages=len(TEXTS)))
    for number, text in TEXTS.items():
        page_index.add_page("a.pdf", page(0, number, text=text))
    page_index.finish_document("a.pdf")


def pages_with(page_index, text):
    return {hit.page for hit in page_index.search(9, text=text, mode="text")}


def test_a_single_letter_is_found_in_its_words(tmp_path):
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        put_texts(page_index)
        page_index.commit()
        assert pages_with(page_index, "花") == {1}
        assert pages_with(page_index, "率") == {2, 4}  # also where it stands alone
        assert pages_with(page_index, "売上高") == pages_with(page_index, "売 上 高") == {5}
        assert pages_with(page_index, "花 common") == {3}  # only where nothing else is found
        assert pages_with(page_index, "鯨") == set()


@pytest.mark.parametrize(("n_lines", "first"), [(12, 2), (8, 1)])
def test_what_stands_at_the_head_of_a_page_weighs_more(tmp_path, n_lines, first):
    lines = [f"line {n} of the page" for n in range(n_lines - 1)]
    texts = ["\n".join([*lines, "Turnover"]), "\n".join(["", "Turnover", *lines])]
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        page_index.begin_document(document("a.pdf", n_pages=6))
        for number, text in enumerate([*texts, *4 * ["other"]], 1):
            page_index.add_page("a.pdf", page(0, number, text=text))
        page_index.finish_document("a.pdf")
        page_index.commit()
        found = page_index.search(9, text="turnover", mode="text")
    assert [hit.page for hit in found] == [first, 3 - first]
    assert (found[0].score > 1.2 * found[1].score) == (n_lines == 12), "few lines have no head"


def test_words_of_an_earlier_version_are_made_anew_by_the_next_writer(tmp_path, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr("index.text_layer.BROKEN_LINE", re.compile("(?!)"))
        earlier.setattr("index.text_layer.PLURAL", re.compile("(?!)"))
        earlier.setattr("index.opening.WORDS_VERSION", 1)
        with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
            put_texts(page_index)
            put(page_index, "letters.pdf", 1, n_pages=1)
            page_index.commit()
    with PageIndex.open(tmp_path) as reader:
        assert pages_with(reader, "観光") == pages_with(reader, "letter") == set()
        assert pages_with(reader, "税率") == {2}
        assert reader.verify().clean
    PageIndex.open(tmp_path, SETTINGS, writable=True).close()
    with PageIndex.open(tmp_path) as reader:
        assert pages_with(reader, "観光") == pages_with(reader, "letter") == {1}
        assert reader.verify().clean


def test_a_damaged_text_does_not_keep_an_earlier_index_from_being_opened(tmp_path, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr("index.opening.WORDS_VERSION", 1)
        with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
            put_texts(page_index)
            page_index.commit()
            page_index._database.sql.execute("UPDATE pages SET text = x'00' WHERE number = 2")
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        assert pages_with(page_index, "人口") == {1}


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("Who was the new CEO of Netflix in late January?", {"netflix"}),
        ("How many PDFs did the Office keep?", {"office"}),
        ("Is it still in Feb, or the United States?", set()),
        ("Gopherの高さは何cmですか。", set()),
        ("what is the revenue?", set()),
    ],
)
def test_what_a_page_may_spell_out_is_no_proper_name(question, found):
    assert proper_names(question, names(question)) == found


def test_years_of_a_question_are_also_looked_for_as_ends_of_a_split_year():
    assert years(words("Profit of FY23 and 令和6年 over 2,400 shops")) == [
        *("2023", "2024"), *("2022 23", "2023 24"),
    ]  # fmt: skip
    assert years(["2401", "19", "x2019"]) == []


@pytest.mark.parametrize("text", ["平成17年の統計", "昭和五十三年三月", "令和元年度"])
def test_an_era_is_found_beside_the_year_it_becomes(text):
    assert text[:2] in fold(text).split()
    assert text[:2] not in words(text)


@pytest.mark.parametrize(
    ("text", "kept"),
    [("三重県四日市", "四日"), ("国民一人当たり", "一人"), ("AI & ML", "ai"), ("Vitamin C", "c")],
)
def test_what_is_no_numeral_and_no_abbreviation_is_kept(text, kept):
    assert kept in words(text)
