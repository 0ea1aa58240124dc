"""Pages that are chosen one upon the other."""

import weakref

from ui.opened import MOST_OPENED, Opened


def parts_of(page: int, meanwhile=lambda: None):
    """Yield the two parts of a page; something happens while each is made."""
    meanwhile()
    yield f"page {page}"
    meanwhile()
    yield f"heat {page}"


def test_a_page_gives_way_to_the_one_that_is_chosen_after_it():
    opened = Opened()
    assert opened.first("a", parts_of(1)) == "page 1"
    assert opened.first("b", parts_of(3)) == "page 3"
    assert opened.first("a", parts_of(2)) == "page 2"
    assert [opened.rest("a"), opened.rest("a")] == ["heat 2", None]
    assert opened.rest("b") == "heat 3"


def test_a_page_that_is_being_made_gives_way_too():
    opened = Opened()
    early = parts_of(1, lambda: opened.first("a", parts_of(2)))
    assert opened.first("a", early) is None
    assert opened.rest("a") == "heat 2"
    assert opened.first("a", parts_of(1, lambda: opened.close("a"))) is None
    assert opened.rest("a") is None


def test_of_pages_that_come_in_another_order_the_one_chosen_last_is_shown():
    opened = Opened()
    assert opened.first("a", parts_of(3), 3) == "page 3"
    assert opened.first("a", parts_of(2), 2) is None
    assert opened.rest("a") == "heat 3"
    assert opened.first("a", parts_of(1), 1) is None  # also when that one is there as a whole
    assert opened.first("b", parts_of(1), 1) == "page 1"
    assert opened.first("a", parts_of(4), 4) == "page 4"


def test_no_heatmap_is_shown_on_a_page_that_was_closed_meanwhile():
    opened = Opened()
    assert opened.first("a", parts_of(1)) == "page 1"
    opened.close("a")
    assert opened.rest("a") is None


def test_pages_of_browsers_that_have_gone_are_not_held():
    opened = Opened()
    chosen = {str(n): parts_of(n) for n in range(MOST_OPENED + 1)}
    for session, parts in chosen.items():
        opened.first(session, parts)
    first, last = weakref.ref(chosen["0"]), weakref.ref(chosen["1"])
    chosen.clear()
    del parts
    assert first() is None  # its image has gone with it
    assert last() is not None
    assert opened.rest("0") is None
    assert opened.rest("1") == "heat 1"


def test_a_page_that_was_closed_is_not_held():
    opened = Opened()
    parts = parts_of(1)
    opened.first("a", parts)
    held = weakref.ref(parts)
    del parts
    opened.close("a")
    assert held() is None
