"""Both languages say the same things."""

from string import Formatter

import pytest

from ui.texts import ENGLISH, JAPANESE, examples, language_of, sentences, size_text, time_text


def fields(text):
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_every_text_is_there_in_both_languages_with_the_same_values():
    assert ENGLISH.keys() == JAPANESE.keys()
    different = {key for key in ENGLISH if fields(ENGLISH[key]) != fields(JAPANESE[key])}
    assert not different


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("ja-JP,ja;q=0.9,en;q=0.8", "ja"), ("en-US,en;q=0.9,ja;q=0.8", "en"), ("JA", "ja"),
        ("fr-FR,ja;q=0.5,en;q=0.4", "en"), ("fr", "en"), (None, "en"), ("", "en"),
        ("en;q=0.2, ja;q=0.7", "ja"), ("x;q=nonsense,ja", "ja"),
    ],
)  # fmt: skip
def test_the_language_is_the_first_wanted_one(header, language):
    assert language_of(header) == language


def test_sentences_follow_each_other_as_the_language_wants():
    assert ". Add" in sentences("en", "empty_title", "empty_text")
    assert "。「" in sentences("ja", "empty_title", "empty_text")


def test_examples_are_about_what_is_indexed():
    both = frozenset({"old/tourism-ja.pdf", "annual-report.pdf"})
    assert [text[:2] for text in examples(both, "en")] == ["Wh", "花火"]
    assert [text[:2] for text in examples(both, "ja")] == ["花火", "Wh"]
    assert examples(frozenset({"own.pdf"}), "en") == ["What is the total amount?"]


def test_sizes_and_times_as_a_person_reads_them():
    assert [size_text(n) for n in (0, 999, 1000, 12_345_678, 123_456_789, 5e12)] == [
        "0 B", "999 B", "1.0 kB", "12.3 MB", "123 MB", "5000 GB",
    ]  # fmt: skip
    assert [time_text(s) for s in (0.4, 62, 3725)] == ["0:00", "1:02", "1:02:05"]
