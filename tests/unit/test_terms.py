"""What questions and rows speak of."""

from rag.terms import terms


def test_a_japanese_year_is_one_word_however_it_is_written():
    assert terms("令和元年") == terms("2019年") == {"2019", "年"}


def test_the_mark_of_a_footnote_and_the_ending_of_a_plural_are_no_part_of_a_word():
    assert terms("Sales1") & terms("sale") == {"sale"}
