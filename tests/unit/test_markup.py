"""What the page offers to follow, to take away and to count."""

import json

import pytest

from ui.markup_ask import Sheet, Turn, as_json, as_markdown, viewer
from ui.markup_library import Row, documents, usage

QUOTED = "These are the words of the pages."


@pytest.mark.parametrize(
    ("name", "is_linked"),
    [("report.pdf", True), ("a/SCAN.PDF", True), ("photo.png", False), ("letter.docx", False)],
)
def test_only_a_pdf_is_offered_to_be_opened(name, is_linked):
    assert ("/documents/" in viewer("en", Sheet(name, 1, 1, "data:,"))) is is_linked
    assert ("/documents/" in documents("en", [Row(name, "complete", 1, 1, 9)])) is is_linked


def test_a_document_that_was_never_read_is_named_and_not_linked():
    table = documents("en", [Row("broken.pdf", "failed", 0, 0, 9)])
    assert "broken.pdf</td>" in table and "<a " not in table


def test_of_a_document_that_was_never_opened_no_pages_and_bytes_are_told():
    table = documents("en", [Row("broken.pdf", "failed", 0, 0, 0)])
    assert "0 B" not in table and ">0<" not in table
    assert "0 B" in documents("en", [Row("empty.pdf", "failed", 1, 0, 0)])


def test_an_exported_quotation_says_that_it_is_one():
    turn = Turn("total?", "Total 1,420", (("report.pdf", 1),), notes=(QUOTED,), is_finished=True)
    text = as_markdown("en", turn)
    assert f"\n# Notes\n\n    {QUOTED}\n" in text
    assert text.index("Total 1,420") < text.index(QUOTED) < text.index("# Read from")
    assert json.loads(as_json(turn))["notes"] == [QUOTED]


def test_an_exported_answer_without_remarks_has_no_notes():
    turn = Turn("total?", "1,420", (("report.pdf", 1),), is_finished=True)
    assert "# Notes" not in as_markdown("en", turn)
    assert json.loads(as_json(turn))["notes"] == []


@pytest.mark.parametrize(("language", "head"), [("en", "Read from"), ("ja", "根拠のページ")])
def test_an_exported_answer_that_abstains_was_read_from_nothing(language, head):
    turn = Turn("Mars?", "Not in these documents.", abstained=True, is_finished=True)
    text = as_markdown(language, turn)
    assert head not in text and text.endswith("\n    Not in these documents.\n")


def test_the_space_used_ends_with_its_sum():
    shown = usage("en", {"vectors": 5, "total": 12, "per_page": 4, "uploads": 7, "unheard": 1})
    places = [
        shown.index(f">{name}<") for name in ("per page", "vectors", "uploaded files", "total")
    ]
    assert places == sorted(places) and "unheard" not in shown
