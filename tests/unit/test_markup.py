"""What the page offers to follow, to take away and to count."""

import json
import re
from dataclasses import replace

import pytest

from tests.unit.test_handlers import EVIL, Elements
from ui.markup_ask import Sheet, Turn, answer, as_json, as_markdown, earlier, viewer
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


def chips_and_text(html):
    found = Elements(html)
    chips = [attrs for _, attrs in found.tags if "yomu-cite" in (attrs.get("class") or "").split()]
    return [(each["data-document"], int(each["data-page"])) for each in chips], found.text


@pytest.mark.parametrize("draw", [answer, lambda language, turn: earlier(language, [turn])])
def test_what_is_quoted_from_several_pages_stands_below_the_page_it_is_from(draw):
    pages = (("a.pdf", 3), ("b.pdf", 1))
    quoted = ((pages[0], "Total 1,420"), (("a.pdf", 4), "of next door"), (pages[1], ""))
    turn = Turn("total?", "all of it", pages, is_finished=True, quoted=quoted)
    chips, text = chips_and_text(draw("en", turn))
    assert chips == list(pages)  # each once, and the neighbour that was not found has none
    order = ("1a.pdf, p. 3", "Total 1,420", "a.pdf, p. 4", "next door", "2b.pdf, p. 1", "See the")
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "Read from" not in text and "all of it" not in text


@pytest.mark.parametrize(
    "quoted", [(), ((("a.pdf", 3), "x"),), ((("c.pdf", 3), "x"), (("d.pdf", 4), "y"))]
)
def test_an_answer_that_is_not_in_parts_names_its_pages_below(quoted):
    pages = (("a.pdf", 3), ("b.pdf", 1))
    chips, text = chips_and_text(
        answer("en", Turn("total?", "all of it", pages, is_finished=True, quoted=quoted))
    )
    assert chips == list(pages)
    assert text.index("all of it") < text.index("Read from") < text.index("a.pdf")


def marked(html):
    return re.findall("<mark>(.*?)</mark>", html)


@pytest.mark.parametrize("draw", [answer, lambda language, turn: earlier(language, [turn])])
def test_what_is_asked_for_is_marked_where_it_was_quoted(draw):
    pages = (("a.pdf", 3), ("b.pdf", 1))
    quoted = ((pages[0], "Total 1,420"), (pages[1], "Total <1,420>"))
    turn = Turn("total?", "all of it", pages, is_finished=True, quoted=quoted)
    assert marked(draw("en", turn)) == []
    shown = draw("en", replace(turn, key=(pages[1], 6, 13)))
    assert marked(shown) == ["&lt;1,420&gt;"] and "Total 1,420" in Elements(shown).text
    alone = replace(turn, answer="Total 1,420", pages=pages[:1], quoted=quoted[:1])
    assert marked(draw("en", replace(alone, key=(pages[0], 6, 11)))) == ["1,420"]
    assert marked(draw("en", replace(alone, key=(pages[1], 6, 11)))) == []


def test_what_is_asked_for_is_exported_as_ask_prints_it():
    page = ("a.pdf", 3)
    turn = Turn("total?", "Total 1,420", (page,), quoted=((page, "Total 1,420"),))
    assert "key" not in json.loads(as_json(turn))
    found = json.loads(as_json(replace(turn, key=(page, 6, 11))))
    assert found["key"] == {"text": "1,420", "document": "a.pdf", "page": 3}
    assert "key" not in json.loads(as_json(replace(turn, key=(("b.pdf", 1), 6, 11))))


def test_parts_of_an_answer_are_text():
    pages = ((EVIL, 1), ("b.pdf", 1))
    quoted = tuple((page, "<script>x</script>") for page in pages)
    shown = Elements(answer("ja", Turn("q", "a", pages, is_finished=True, quoted=quoted)))
    assert not {name for name, _ in shown.tags} & {"script", "img"}
    assert shown.text.count("<script>x</script>") == 2 and EVIL in shown.text


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
