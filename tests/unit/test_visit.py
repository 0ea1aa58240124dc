"""What the browser kept of a visit is shown again, and nothing else it may send."""

import json
from dataclasses import replace

import pytest

from tests.unit.small_service import SmallService
from tests.unit.test_handlers import EVIL, Elements, last, shown
from ui import handlers, visit
from ui.look import script
from ui.markup_ask import Turn

TURN = Turn(
    "売上は？", "1,420", (("a.pdf", 2),), (("a.pdf", 2, 0.75),), seconds=1.5, notes=("Stopped.",),
    is_finished=True, quoted=((("a.pdf", 2), "Total 1,420"),), key=(("a.pdf", 2), 6, 11),
)  # fmt: skip


def test_a_turn_comes_back_as_it_was():
    sent = [visit.written(replace(TURN, question=f"{n}?")) for n in range(3)]
    turns, asked = visit.read({"turns": sent, "asked": "next?"})
    assert turns == tuple(replace(TURN, question=f"{n}?") for n in range(3))
    assert asked == "next?"


def test_an_answer_carries_its_turn_for_the_browser_to_keep():
    parts = shown(SmallService())
    (turn,) = last(parts, "turns")
    (kept,) = Elements(last(parts, "answer")).having("data-turn")
    assert visit.read({"turns": [kept]}) == ((turn,), "")
    growing = [part.answer for part in parts if part.answer and "is-writing" in part.answer]
    assert growing and not any("data-turn" in html for html in growing)
    assert all(Elements(html).having("data-asked") == [turn.question] for html in growing)


def _changed(**values: object) -> str:
    return json.dumps(json.loads(visit.written(TURN)) | values)


@pytest.mark.parametrize(
    "sent",
    [
        None, 3, "", "{", "[]", "null", {"question": "a dict"}, _changed(question=" "),
        _changed(question=3), _changed(pages=[["a.pdf", 0]]), _changed(pages=[["a.pdf", 2**40]]),
        _changed(pages="a.pdf"), _changed(hits=[["a.pdf", -1, 0.5]]), _changed(hits=[["a.pdf", 1]]),
        _changed(is_finished=False), _changed(seconds="long"),
        _changed(hits=[["a.pdf", 1, 0.5]] * 600), _changed(pages=[["a.pdf", 1]] * 600),
    ],
)  # fmt: skip
def test_what_is_no_turn_is_left_out(sent):
    assert visit.read({"turns": [sent, visit.written(TURN)]}) == ((TURN,), "")


@pytest.mark.parametrize("data", [None, [], "x", {}, {"turns": "x"}, {"turns": None, "asked": 3}])
def test_what_is_no_visit_is_none(data):
    assert visit.read(data) == ((), "")


def test_no_more_is_read_than_a_visit_has():
    turns, asked = visit.read({"turns": [visit.written(TURN)] * 90, "asked": "x" * 90_000})
    assert len(turns) == visit.MAX_TURNS and len(asked) == 8000


def test_a_visit_is_shown_again_with_its_last_question_open():
    turns = (
        Turn("first?", "yes", (("report.pdf", 2),), is_finished=True),
        Turn("sales?", "1,420", (("report.pdf", 1),), (("report.pdf", 1, 0.5),), is_finished=True),
    )
    again = handlers.again(SmallService(), turns, "", "en")
    assert again.turns == turns and again.progress is None
    assert Elements(again.evidence).having("data-first") == ["report.pdf\n1\nsales?"]
    assert "1,420" in again.answer and "sales?" in again.answer
    assert "first?" in again.earlier and "sales?" not in again.earlier


def test_a_question_that_a_reload_broke_off_is_said_to_be_unanswered():
    again = handlers.again(SmallService(), (), "sales?", "ja")
    assert "もう一度質問" in again.progress
    assert again == handlers.Shown(progress=again.progress)


def test_what_comes_back_is_text():
    turn = Turn("<b>q</b>", "<script>x</script>", ((EVIL, 1),), ((EVIL, 1, 0.5),), is_finished=True)
    turns, asked = visit.read({"turns": [visit.written(turn)] * 2, "asked": "<i>"})
    again = handlers.again(SmallService(), turns, asked, "en")
    for html in (again.answer, again.evidence, again.earlier, again.progress):
        names = {name for name, _ in Elements(html).tags}
        assert not names & {"b", "i", "script"}
        assert names & {"section", "p"}


def test_the_browser_is_told_whose_visit_it_is_and_how_much_of_it_to_keep():
    """What page.js compares with the user it kept a visit of; a name is text."""
    for user in ("", "hanako", "<b>"):
        empty, _ = handlers.welcome("en", user)
        assert Elements(empty).having("data-empty") == [user]
    assert f"const MOST_TURNS = {visit.MAX_TURNS};" in script()


@pytest.mark.parametrize("language", ["en", "ja"])
def test_clearing_leaves_nothing(language):
    shown, no_page = handlers.forgotten(language)
    assert shown.turns == () and None not in shown
    assert (shown.answer, no_page) == handlers.welcome(language)
