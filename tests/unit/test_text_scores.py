"""BM25 and the comparison of answers, on numbers worked out by hand."""

import math

import pytest

from benchmarks.text_scores import BM25, anls, answered, edit_distance, terms


def test_terms_of_both_languages():
    assert terms("Ｓalt, 12 boats") == ["salt", "12", "boats"]
    assert terms("青い帳面 x") == ["青い", "い帳", "帳面", "x"]


def test_bm25_prefers_the_page_with_the_rare_word():
    index = BM25(["the boat the boat", "the salt", "the wool and the boat"])
    scores = index.scores("salt")
    assert scores[1] > 0 == scores[0] == scores[2]
    # one occurrence, 2 terms on a page, mean 11/3: idf = ln(1 + 2.5/1.5)
    norm = 1.2 * (0.25 + 0.75 * 2 / (11 / 3))
    assert scores[1] == pytest.approx(math.log(1 + 2.5 / 1.5) * 2.2 / (1 + norm))


def test_answers_are_compared_without_trimmings():
    assert answered("It is $6,043 million.", ["$6,043"])
    assert answered("５１％", ["51%"])
    assert not answered("6,034", ["6,043"])
    assert answered("Runs it as a back-\nground process", ["back-ground"])
    assert edit_distance("kitten", "sitting") == 3
    assert anls("51%", ["51%"]) == 1
    assert anls("nothing alike", ["51%"]) == 0


def test_numbers_of_an_answer_are_whole():
    assert answered("64 shops", ["64"])
    assert answered("In 2023, 64 shops", ["64"])  # what stands before it is another number
    assert answered("2023 64 1,001", ["64"])
    assert answered("$ 1,164 million", ["1164"])
    assert answered("1164", ["1,164"])
    assert answered("It rose to 64.", ["64"])
    assert answered("64%", ["64"])
    assert answered("平成３０年度は６４件", ["64件"])
    assert answered("on July 29,2023", ["29"])
    for other in ("1,164", "640", "64.5", "2.64", "64,000", "1,064"):
        assert not answered(other, ["64"])
    assert not answered("1 64", ["164"])
    assert not answered("anything", ["."])
