"""The page for everyone: axe, a phone, the dark."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.e2e.page.conftest import FIREWORKS, JAPANESE, SALES, open_page, serving
from tests.odd_files import text_pdf

GRAVE = ("serious", "critical")


def grave(here) -> list[str]:
    found = Axe().run(here.page).response["violations"]
    return [
        f"{each['id']}: {node['html'][:160]} {node['failureSummary'][:300]}"
        for each in found
        if each["impact"] in GRAVE
        for node in each["nodes"]
    ]


@pytest.mark.parametrize(("language", "question"), [("english", SALES), ("japanese", FIREWORKS)])
def test_axe_finds_nothing_serious_on_any_tab(request, language, question):
    here = request.getfixturevalue(language)
    here.answered(question)
    here.wait_for_colours()
    assert grave(here) == []
    for number, selector in ((1, "#documents tbody tr"), (2, "#test-run"), (3, "#status dl")):
        here.tab(number)
        here.find(selector).first.wait_for()
        here.wait_for_colours()
        assert grave(here) == []
    here.snap(f"status-{language}")


def test_on_a_phone_nothing_is_wider_than_the_screen(visit, indexed):
    here = visit(JAPANESE, 390, 844, has_touch=True, is_mobile=True)
    here.answered(FIREWORKS)
    here.snap("phone-ja")
    for number in range(4):
        here.tab(number)
        here.page.wait_for_timeout(300)
        assert here.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_on_a_phone_a_chosen_page_comes_into_view(visit, indexed):
    here = visit(JAPANESE, 390, 844, has_touch=True, is_mobile=True, reduced_motion="reduce")
    here.answered(FIREWORKS)
    assert here.page.evaluate("scrollY") == 0  # nobody chose the page that opened by itself
    for chosen in ("#evidence .yomu-card", "#answer .yomu-cite"):
        here.page.evaluate("window.scrollTo(0, 0)")
        here.find(chosen).first.tap()
        expect(here.find("#viewer .yomu-page")).to_be_in_viewport(ratio=0.4)
    here.tab(2)
    here.find("#test-question textarea, #test-question input").first.fill(FIREWORKS)
    here.find("#test-run").tap()
    here.wait_for("#columns .yomu-column:nth-child(3) .yomu-card")
    here.find("#columns .yomu-card").first.tap()
    expect(here.find("#test-viewer .yomu-page")).to_be_in_viewport(ratio=0.4)
    here.find("#test-run").tap()
    here.wait_for("#test-viewer >> text=ページを選ぶと")


def test_on_a_phone_the_options_have_room(visit, indexed):
    here = visit(JAPANESE, 390, 844, has_touch=True, is_mobile=True)
    here.open_options()
    whole = here.find("#options .form").last.bounding_box()["width"]
    for each in here.find("#options .form > .block:has([type=range])").all():
        assert each.bounding_box()["width"] > 0.9 * whole
    here.tab(2)
    label = here.find("#test-image label").first.bounding_box()
    icon = here.find("#test-image [data-testid=upload-icon]").bounding_box()
    assert label["y"] + label["height"] <= icon["y"]


def test_rings_of_fields_lie_where_nothing_cuts_them_off(visit, indexed):
    here = visit()
    ring = "getComputedStyle(document.activeElement)"
    for place in ("#question textarea, #question input", "[role=tab] >> nth=1"):
        here.find(place).first.focus()
        here.page.keyboard.press("Shift")  # as by keyboard: a ring is shown
        shown = here.page.evaluate(f"[{ring}.outlineStyle, {ring}.outlineOffset]")
        assert shown == ["solid", "-2px"]


def test_a_server_that_ends_under_an_open_page_says_nothing_of_it(chromium, tmp_path):
    log = tmp_path / "server.log"
    with serving(tmp_path / "index", log) as address:
        here = open_page(chromium, address)
    lines = log.read_text().splitlines()
    assert lines[-1].endswith("Ctrl-C ends it."), lines
    here.context.close()


def test_a_long_name_makes_no_card_wider(visit, indexed, tmp_path):
    name = "annual-report-of-the-year-before-the-last-one-as-it-was-sent-to-everybody.pdf"
    here = visit()
    here.tab(1)
    path = text_pdf(tmp_path / name, ["The wombat budget was 512 euros."])
    here.find("#upload input[type=file]").set_input_files(path)
    here.find("#documents tr", has_text=name).wait_for()
    here.find("#job .yomu-job", has_text="Finished").wait_for()
    here.ask("wombat budget, and the capacity of the kettle")  # of two documents
    here.wait_for_answer()
    cards = here.find("#evidence .yomu-card")
    assert name in {each.get_attribute("data-document") for each in cards.all()}
    widths = {round(each.bounding_box()["width"]) for each in cards.all()}
    assert cards.count() > 1 and len(widths) == 1
    here.tab(1)
    here.remove(here.find("#documents tr", has_text=name))
