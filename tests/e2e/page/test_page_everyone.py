"""The page for everyone: axe, a phone, the dark."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.e2e.page.conftest import FIREWORKS, JAPANESE, SALES

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
    here.page.wait_for_timeout(500)  # colours fade from one state to the next
    assert grave(here) == []
    for number, selector in ((1, "#documents tbody tr"), (2, "#test-run"), (3, "#status dl")):
        here.tab(number)
        here.find(selector).first.wait_for()
        here.page.wait_for_timeout(500)
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
