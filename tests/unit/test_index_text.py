"""Words and bigrams for full-text search."""

import pytest

from index.text_layer import fold, is_joint, match_any, names, words


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Net income, 2023: 1,234.5", "net income 2023 1 234 5"),
        ("東京都庁", "東京 京都 都庁"),
        ("ＡＢＣ１２３ ｶﾞｲﾄﾞ", "abc123 ガイ イド"),
        ("売上高はYen建て", "売上 上高 高は yen 建て"),
        ("語", "語"),
        ("don't Straße", "dont strasse"),
        ("コーヒー 人々", "コー ーヒ ヒー 人々"),
        ("한국어 中文 №5", "한국 국어 中文 no5"),
        ("snake_case x=1", "snake case x 1"),
        ("", ""),
    ],
)
def test_fold(text, wanted):
    assert fold(text) == wanted


def test_full_and_half_width_forms_fold_to_the_same_words():
    assert words("ﾃﾞｰﾀ ２０２４年") == words("データ 2024年")


def test_a_question_becomes_each_of_its_words_once():
    assert match_any(words('the "cat" OR the AND')) == '"the" OR "cat" OR "or" OR "and"'


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("How much did Best Buy spend in 2022?", {"best", "buy"}),
        ("What was the revenue of Tesla's shops?", {"teslas"}),
        ("Capital Expenditures of Ulta Beauty", set()),
        ("アドビの売上高は？", set()),
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
