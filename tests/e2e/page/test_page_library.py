"""Library, retrieval test and status through the page, in a browser."""

import pymupdf

from tests.e2e.conftest import SAMPLES
from tests.e2e.page.conftest import READ_MS, SALES
from tests.odd_files import encrypted_pdf, text_pdf

EVIL = "<img src=x onerror=window.hit=1>.pdf"


def test_what_was_dropped_is_listed_with_pages_and_space(english):
    here = english
    here.tab(1)
    rows = here.wait_for("#documents tbody tr")
    text = here.find("#documents").inner_text()
    assert "annual-report.pdf" in text and "ready" in text and rows.count() >= 5
    assert "kB" in here.find("#usage").inner_text()
    here.snap("library-en")


def test_reloading_in_mid_run_shows_the_run_and_a_removed_document_is_gone(english, tmp_path):
    pages = [f"quokkas and wombats, page {n}" for n in range(1, 9)]
    text_pdf(tmp_path / EVIL, pages)
    here = english
    here.tab(1)
    here.find("#upload input[type=file]").set_input_files(tmp_path / EVIL)
    here.wait_for("#said .yomu-note")
    here.reload()
    here.tab(1)
    here.wait_for("#job .yomu-job")  # running still, or just finished
    here.find("#job .yomu-job", has_text="Finished").wait_for()
    row = here.find("#documents tr", has_text="onerror")
    row.wait_for()
    name = row.get_attribute("data-document")
    here.tab(0)
    here.ask("quokkas wombats")
    here.wait_for("#evidence .yomu-card")
    assert here.find("#evidence .yomu-card").first.get_attribute("data-document") == name
    here.wait_for_answer()
    assert here.page.evaluate("window.hit") is None  # its name is text, not an element

    here.tab(1)
    remove = here.find("#documents tr", has_text="onerror").locator("[data-event=delete]")
    label = remove.get_attribute("aria-label")
    remove.dblclick()
    here.page.wait_for_timeout(READ_MS)
    assert row.count() == 1  # asks once more, and a double click is no answer
    assert remove.get_attribute("aria-label") == f"Remove for good?: {name}"
    remove.blur()
    assert remove.get_attribute("aria-label") == label
    here.remove(row)
    here.tab(0)
    here.ask("quokkas wombats")
    here.wait_for("#evidence .yomu-warn")
    here.wait_for_answer()


def test_a_protected_file_is_read_once_its_password_is_typed(english, tmp_path):
    encrypted_pdf(tmp_path / "locked.pdf", "secret")
    here = english
    here.tab(1)
    here.find("#upload input[type=file]").set_input_files(tmp_path / "locked.pdf")
    row = here.find("#documents tr", has_text="locked.pdf")
    row.filter(has_text="type its password and read it again").wait_for()
    here.find("#password input").fill("secret")
    row.locator("[data-event=select]").click()
    row.filter(has_text="ready").wait_for()
    here.find("#job .yomu-job", has_text="1 updated").wait_for()
    here.remove(row)


def test_a_folder_outside_the_allowed_ones_is_refused(english):
    here = english
    here.tab(1)
    here.find("#folder textarea, #folder input").first.fill("/etc")
    here.find("#read-folder").click()
    here.wait_for("#said .yomu-error")
    assert "may not be read by this server" in here.find("#said").inner_text()


def test_a_file_that_is_no_document_is_refused(japanese, tmp_path):
    fake = tmp_path / "fake.pdf"
    fake.write_text("no PDF at all")
    here = japanese
    here.tab(1)
    here.find("#upload input[type=file]").set_input_files(fake)
    here.wait_for("#said .yomu-error")
    assert "うまくいきませんでした" in here.find("#said").inner_text()


def test_three_ways_side_by_side(english):
    here = english
    here.tab(2)
    here.find("#test-question textarea, #test-question input").first.fill(SALES)
    here.find("#test-run").click()
    here.wait_for("#columns .yomu-column:nth-child(3) .yomu-card")
    here.wait_for("#columns .yomu-column", count=3)
    text = here.find("#columns .yomu-column").nth(2)
    assert "annual-report.pdf" in text.locator(".yomu-card").first.inner_text()
    text.locator(".yomu-card").first.click()
    here.wait_for("#test-viewer .yomu-heat")
    here.snap("test-en")


def test_pages_like_an_image_are_shown(japanese, tmp_path):
    """A picture of a page finds the page; one that cannot be read is refused in a line."""
    here = japanese
    here.tab(2)
    with pymupdf.open(SAMPLES / "electricity-chart.pdf") as document:
        document[0].get_pixmap(dpi=100).save(tmp_path / "photo.png")
    here.find("#test-image input[type=file]").set_input_files(tmp_path / "photo.png")
    here.wait_for("#columns .yomu-column .yomu-card")
    here.wait_for("#columns .yomu-column", count=1)
    first = here.find("#columns .yomu-card").first
    assert first.get_attribute("data-document") == "electricity-chart.pdf"
    first.click()
    here.wait_for("#test-viewer img")
    here.snap("test-image-ja")
    (tmp_path / "fake.png").write_text("no picture")
    here.find("#test-image input[type=file]").set_input_files(tmp_path / "fake.png")
    here.wait_for("#columns .yomu-warn")


def test_status_says_what_the_model_is_and_can(english):
    here = english
    here.tab(3)
    here.wait_for("#status .yomu-about")
    text = here.find("#status").inner_text()
    assert "embedded" in text and "int8" in text and "does not write answers of its own yet" in text
    assert "/" not in here.find("#status .yomu-facts").first.inner_text()  # no path of the disk
    here.snap("status-en")
