"""Asking through the page, in a browser."""

import json

import pytest
from playwright.sync_api import expect

from tests.e2e.page.conftest import FIREWORKS, PATIENCE_MS, SALES, open_page, serving
from tests.odd_files import text_pdf
from ui.security import add_user


def test_before_anything_is_indexed_the_page_says_what_to_do(visit):
    here = visit()
    assert "Nothing is indexed yet" in here.find("#head").inner_text()
    here.ask(SALES)
    here.find("#progress .yomu-error").wait_for()
    assert "nothing is indexed yet" in here.find("#progress").inner_text()
    here.find("#ask:not([disabled])").wait_for()
    here.snap("empty-en")


@pytest.mark.parametrize(
    ("language", "question", "document", "words"),
    [
        ("english", SALES, "annual-report.pdf", ("Pages found", "p. 1", "score")),
        ("japanese", FIREWORKS, "tourism-ja.pdf", ("見つかったページ", "1ページ", "スコア")),
    ],
)
def test_pages_come_before_the_answer(request, language, question, document, words):
    here = request.getfixturevalue(language)
    here.page.evaluate(
        """() => {
            window.order = [];
            const seen = (name, selector) => {
                if (!window.order.includes(name) && document.querySelector(selector))
                    window.order.push(name);
            };
            const look = () => {
                seen('pages', '#evidence .yomu-card');
                const text = document.querySelector('#answer .yomu-text');
                if (text && text.textContent.trim()) seen('answer', '#answer .yomu-text');
            };
            new MutationObserver(look).observe(document.body,
                { subtree: true, childList: true, characterData: true });
        }"""
    )
    here.ask(question)
    answer = here.wait_for_answer()
    assert answer.inner_text().strip()
    assert here.page.evaluate("window.order") == ["pages", "answer"]
    first = here.find("#evidence .yomu-card").first
    assert document in first.inner_text()
    expect(first).to_have_attribute("aria-current", "true")
    assert all(word in here.find("#evidence").inner_text() for word in words)
    assert here.find("#evidence img").first.get_attribute("src").startswith("data:image/")
    assert here.page.evaluate("document.documentElement.lang") == language[:2]
    here.wait_for("#viewer .yomu-heat")
    here.snap(f"ask-{language[:2]}")


def test_a_citation_opens_its_page_and_the_heatmap_can_be_changed(english):
    here = english
    here.answered(SALES)
    here.find("#evidence .yomu-card").nth(1).click()
    here.wait_for("#viewer .yomu-place >> text=page 2 of 2")
    here.find("#answer .yomu-cite").first.click()
    here.wait_for("#viewer .yomu-place >> text=page 1 of 2")
    here.wait_for("#viewer .yomu-heat")

    shown = here.find("#viewer .yomu-heat:not(.is-off)")
    assert shown.get_attribute("data-layer") == "0"
    sales = here.find("#viewer [data-show]", has_text="sales")
    sales.click()
    assert shown.get_attribute("data-layer") == sales.get_attribute("data-show") != "0"
    here.find("#viewer [data-show=none]").click()
    assert shown.count() == 0

    before = here.find("#viewer .yomu-page").bounding_box()["width"]
    here.find("#viewer [data-zoom=in]").click()
    assert here.find("#viewer .yomu-page").bounding_box()["width"] > before
    link = here.find("#viewer a[target=_blank]").get_attribute("href")
    assert link == "/documents/annual-report.pdf#page=1"
    got = here.page.request.get(here.page.url.rstrip("/") + link.split("#")[0])
    assert got.ok and got.body().startswith(b"%PDF")


def test_of_pages_chosen_in_quick_succession_the_last_one_is_shown(english):
    here = english
    here.answered(SALES)
    cards = here.find("#evidence .yomu-card")
    names = here.page.evaluate(
        """() => {
            const cards = [...document.querySelectorAll('#evidence .yomu-card')].slice(0, 3);
            for (const each of cards) each.click();
            return [cards.at(-1).dataset.document, cards.at(-1).dataset.page];
        }"""
    )
    assert cards.count() > 2
    here.wait_for(f"#viewer .yomu-place >> text={names[0]}")
    here.wait_for(f"#viewer .yomu-place >> text=page {names[1]} of")
    here.wait_for("#viewer .yomu-heat")
    here.page.wait_for_timeout(1500)  # nothing older comes after it
    assert names[0] in here.find("#viewer .yomu-place").inner_text()
    here.find("#answer .yomu-cite").first.click()
    here.wait_for("#viewer .yomu-place >> text=page 1 of 2")
    here.wait_for("#viewer .yomu-heat")


def test_the_page_that_is_quoted_first_is_opened(visit, indexed, tmp_path):
    here = visit()
    here.tab(1)
    found = (  # first, for it has the words more often, though no line has all of them
        "The budget of the wombat house.\n\nIn spring the wombat sleeps.\n\n"
        "A budget is made in autumn.\n\nThe wombat eats grass until spring.\n\n"
        "Every wombat has a name."
    )
    filler = 4 * "The house has a garden.\nGuests come by boat in May.\nThe road was mended.\n"
    said = f"{filler}\nThe wombat budget of spring was 512 euros.\n\n{filler}"
    path = text_pdf(tmp_path / "wombats.pdf", [found, said])
    here.find("#upload input[type=file]").set_input_files(path)
    here.find("#documents tr", has_text=path.name).wait_for()
    here.find("#job .yomu-job", has_text="Finished").wait_for()
    here.ask("What was the wombat budget of spring?")
    here.wait_for_answer()
    assert here.find("#evidence .yomu-card").first.get_attribute("data-page") == "1"
    assert here.find("#answer .yomu-cite").first.get_attribute("data-page") == "2"
    here.wait_for("#viewer .yomu-place >> text=page 2 of 2")
    here.wait_for("#viewer .yomu-box")
    assert here.find("#evidence .yomu-card[aria-current]").get_attribute("data-page") == "2"
    here.tab(1)
    here.remove(here.find("#documents tr", has_text=path.name))


def test_a_page_that_was_chosen_stays_open_when_the_answer_is_there(chromium, writing):
    here = open_page(chromium, writing)
    here.ask(SALES)
    here.wait_for("#answer .yomu-text[aria-busy=true]")
    here.wait_for("#viewer .yomu-heat")  # of the first page, which the answer is read from
    here.find("#evidence .yomu-card").nth(1).click()
    here.wait_for("#viewer .yomu-place >> text=page 2 of 2")
    here.wait_for("#viewer .yomu-heat")
    here.find("#stop:not([disabled])").click()
    here.wait_for_answer()
    here.page.wait_for_timeout(1500)  # nothing comes after it
    assert here.find("#answer .yomu-cite").first.get_attribute("data-page") == "1"
    assert "page 2 of 2" in here.find("#viewer .yomu-place").inner_text()
    assert here.close() == []


def test_the_pdf_opens_at_its_page_in_the_browsers_own_viewer(english):
    here = english
    here.answered(SALES)
    here.find("#answer .yomu-cite").first.click()
    here.wait_for("#viewer .yomu-place >> text=page 1 of 2")
    here.find("#viewer [aria-label='Next page']").click()
    here.wait_for("#viewer .yomu-place >> text=page 2 of 2")
    with here.context.expect_page() as opened:
        here.find("#viewer a[target=_blank]").click()
    tab = opened.value
    while not any("extension:" in frame.url for frame in tab.frames):
        tab.wait_for_event("framenavigated", timeout=PATIENCE_MS)
    (viewer,) = (frame for frame in tab.frames if "extension:" in frame.url)
    number = viewer.locator("viewer-page-selector input")
    expect(number).to_have_value("2", timeout=PATIENCE_MS)
    assert tab.url.endswith("/documents/annual-report.pdf#page=2")
    tab.close()


def test_pages_turn_by_button_and_by_key(english):
    here = english
    here.answered(SALES)
    here.find("#answer .yomu-cite").first.click()
    here.wait_for("#viewer .yomu-place >> text=page 1 of 2")
    here.find("#viewer [aria-label='Next page']").click()
    here.wait_for("#viewer .yomu-place >> text=page 2 of 2")
    here.wait_for("#viewer [aria-label='Previous page']:enabled")
    here.wait_for("#viewer .yomu-heat")  # written twice by now, and the focus was kept:
    here.wait_for("#viewer .yomu-scroll:focus")  # the button that had it is off on the last page
    for key, page in (("PageUp", 1), ("PageDown", 2)):
        here.page.keyboard.press(key)
        here.wait_for(f"#viewer .yomu-place >> text=page {page} of 2")
        here.wait_for("#viewer .yomu-heat")
        here.wait_for("#viewer .yomu-scroll:focus")


def test_an_answer_is_taken_away_as_markdown_and_json(english):
    here = english
    answer = here.answered(SALES).inner_text().strip()
    with here.page.expect_download() as got:
        here.find("#answer [data-name='answer.json']").click()
    found = json.loads(got.value.path().read_text("utf-8"))
    assert found["question"] == SALES
    assert found["citations"][0] == {"document": "annual-report.pdf", "page": 1}
    assert found["hits"][0]["document"] == "annual-report.pdf"
    with here.page.expect_download() as got:
        here.find("#answer [data-name='answer.md']").click()
    text = got.value.path().read_text("utf-8")
    assert SALES in text and "1. `annual-report.pdf`, p. 1" in text
    assert answer.splitlines()[0] in text


def test_a_second_question_keeps_the_first_in_view(english):
    here = english
    here.answered(SALES)
    here.ask("What is the capacity of the kettle?")
    here.wait_for("#earlier summary >> text=total sales")
    here.wait_for("#answer .yomu-asked >> text=kettle")
    here.wait_for_answer()
    assert "kettle-manual.pdf" in here.find("#evidence .yomu-card").first.inner_text()


def test_an_answer_can_be_stopped(chromium, writing):
    here = open_page(chromium, writing)
    for _ in range(2):  # the model is free again at once
        here.ask(SALES)
        here.wait_for("#evidence .yomu-card")
        here.wait_for("#answer .yomu-text[aria-busy=true]")
        here.find("#stop:not([disabled])").click()
        here.find("#ask:not([disabled])").wait_for()
        here.wait_for_answer()
        assert here.find("#stop").is_disabled()
        assert "Stopped" in here.find("#answer").inner_text()
    assert here.close() == []


def test_examples_ask_with_one_click_and_the_keyboard_is_enough(japanese):
    here = japanese
    here.tab(0)
    here.find("#ask:not([disabled])").wait_for()
    example = here.find("#examples .yomu-chip").first
    example.focus()
    with here.asking(example.inner_text()):
        here.page.keyboard.press("Enter")
    here.wait_for("#evidence .yomu-card")
    here.wait_for_answer()
    card = here.find("#evidence .yomu-card").last
    card.focus()
    here.page.keyboard.press("Enter")
    name = card.get_attribute("data-document")
    here.wait_for(f"#viewer .yomu-place >> text={name}")


def test_nothing_relevant_is_said(english):
    here = english
    here.ask("zyzzyva")
    here.wait_for("#evidence .yomu-warn")
    here.wait_for_answer()
    assert "No page of these documents matches" in here.find("#evidence").inner_text()


def test_a_filter_leaves_only_its_documents(english):
    here = english
    here.open_options()
    field = here.find("#options input[role=listbox], #options input[role=combobox]").first
    field.fill("kettle*")
    field.press("Enter")
    here.ask("total sales capacity kettle")
    here.wait_for("#evidence .yomu-card")
    names = {
        each.get_attribute("data-document") for each in here.find("#evidence .yomu-card").all()
    }
    assert names == {"kettle-manual.pdf"}
    here.wait_for_answer()
    here.open_options()
    field.fill("")
    field.press("Enter")


def test_two_browsers_at_once_get_their_own_answers(english, japanese):
    one, two = english, japanese
    one.ask(SALES)
    two.ask(FIREWORKS)
    for here, document in ((one, "annual-report.pdf"), (two, "tourism-ja.pdf")):
        here.wait_for_answer()
        assert here.find("#answer .yomu-cite").first.get_attribute("data-document") == document


def test_a_new_question_closes_the_page_of_the_one_before(english):
    here = english
    here.answered(SALES)
    field = here.find("#options input[role=listbox], #options input[role=combobox]").first
    here.open_options()
    field.fill("nothing-has-this-name*")
    field.press("Enter")
    here.ask("How many shops are there?")
    here.find("#progress .yomu-error").wait_for()
    here.wait_for("#viewer >> text=Choose a page")
    assert here.find("#viewer img").count() == 0
    field.fill("")
    field.press("Enter")
    for _ in range(2):  # the same one again opens its page again
        here.find("#ask:not([disabled])").wait_for()
        here.ask(SALES)
        here.wait_for_answer()
        here.wait_for("#viewer .yomu-place >> text=page 1 of 2")
        here.wait_for("#viewer .yomu-heat")


def test_a_question_that_ends_another_leaves_the_page_of_that_one_closed(chromium, writing):
    here = open_page(chromium, writing)
    here.ask(SALES)
    here.wait_for("#answer .yomu-text[aria-busy=true]")
    here.wait_for("#viewer .yomu-heat")
    field = here.find("#question textarea, #question input").first
    field.fill("nothing has this word: zyzzyva")
    here.find("#options input[role=listbox], #options input[role=combobox]").first.fill("none*")
    field.press("Enter")
    here.find("#progress .yomu-error").wait_for()
    here.find("#ask:not([disabled])").wait_for()
    here.page.wait_for_timeout(1500)  # nothing comes after it
    assert "Choose a page" in here.find("#viewer").inner_text()
    assert here.close() == []


def test_a_blank_question_leaves_the_page_open(english):
    here = english
    here.answered(SALES)
    here.find("#question textarea, #question input").first.fill("  ")
    here.find("#ask:not([disabled])").click()
    here.find("#progress .yomu-error", has_text="empty").wait_for()
    here.find("#ask:not([disabled])").wait_for()
    assert here.find("#viewer .yomu-page").count() == 1


def test_two_clicks_on_copy_leave_its_name_as_it_was(english):
    here = english
    here.answered(SALES)
    here.page.evaluate(
        """() => {
            const button = document.querySelector('#answer [data-copy]');
            window.named = [button.textContent];
            new MutationObserver(() => window.named.push(button.textContent))
                .observe(button, { childList: true });
            button.click();
            button.click();
        }"""
    )
    here.page.wait_for_function("named.includes('Copied') && named.at(-1) === named[0]")
    here.page.wait_for_timeout(1500)  # and so the second click leaves it
    assert here.page.evaluate("named.at(-1)") == "Copy"


def test_a_reload_shows_the_visit_again_until_it_is_cleared(visit, indexed):
    here = visit()
    here.answered("What is the capacity of the kettle?")
    answer = here.answered(SALES).inner_text()
    here.reload()
    assert here.wait_for_answer().inner_text() == answer
    assert here.find("#answer .yomu-asked").inner_text() == SALES
    here.wait_for("#viewer .yomu-heat")
    here.wait_for("#earlier summary", 1)
    here.reload()  # kept once, however often it is shown
    here.wait_for("#earlier summary", 1)

    other = here.context.new_page()  # another tab is another visit
    other.goto(here.page.url)
    other.locator("#answer .yomu-hint").wait_for()
    assert other.locator("#answer .yomu-asked").count() == 0
    other.close()

    clear = here.find("#answer [data-forget]")
    clear.click()
    here.page.wait_for_timeout(700)  # the second click of a double one would be no answer
    clear.click()
    here.wait_for("#answer .yomu-hint")
    here.wait_for("#viewer >> text=Choose a page")
    expect(here.find("#evidence .yomu-card")).to_have_count(0)
    expect(here.find("#question :is(textarea, input)")).to_be_focused()
    here.reload()
    here.wait_for("#answer .yomu-hint")
    here.page.wait_for_timeout(1000)
    assert here.find(".yomu-asked, #earlier summary").count() == 0


def test_another_user_in_the_same_tab_sees_nothing_of_the_visit(
    chromium, indexed, served, tmp_path
):
    word, users = "correct horse battery", tmp_path / "users"
    for name in ("hanako", "taro"):
        add_user(users, name, word)
    log = tmp_path / "server.log"
    with serving(served / "index", log, "--auth-file", str(users)) as address:
        one, other = ({"authorization": f"Bearer {name}:{word}"} for name in ("hanako", "taro"))
        here = open_page(chromium, address, extra_http_headers=one)
        here.answered(SALES)
        here.reload()
        here.find("#answer .yomu-asked", has_text=SALES).wait_for()
        here.page.set_extra_http_headers(other)
        here.reload()
        here.wait_for("#answer .yomu-hint")
        here.page.wait_for_function("sessionStorage['yomu-user'] == '\"taro\"'")
        assert "yomu-visit" not in here.page.evaluate("Object.keys(sessionStorage)")
        here.page.wait_for_timeout(1000)
        assert here.find(".yomu-asked, #earlier summary").count() == 0
        assert here.close() == []


def test_a_follow_up_is_offered_once_something_was_asked(visit, indexed):
    here = visit()
    assert not here.find("#follow-up").is_visible()
    here.answered(SALES)
    here.find("#follow-up input").check()
    here.ask("And in 2022?", "hybrid")
    here.wait_for_answer()
    assert "1,300" in here.find("#answer .yomu-text").inner_text()


def test_a_question_that_a_reload_breaks_off_is_back_in_its_box(chromium, writing):
    here = open_page(chromium, writing)
    here.ask(SALES)
    here.wait_for("#answer .yomu-text[aria-busy=true]")
    here.reload()
    here.find("#progress .yomu-warn", has_text="ask again").wait_for()
    assert here.find("#question :is(textarea, input)").input_value() == SALES
    here.find("#ask:not([disabled])").click()
    here.wait_for("#answer .yomu-text[aria-busy=true]")
    here.find("#stop:not([disabled])").click()
    here.wait_for_answer()
    assert here.close() == []
