"""Which pages the model is given: best hits, neighbours inside the document, within a budget."""

import pytest

from index.records import PageHit
from rag.page_choice import PageRef, choose_pages, fitting, in_reading_order

PAGES = {"a.pdf": 3, "b.pdf": 9}


def hit(document: str, page: int, score: float = 0.5) -> PageHit:
    return PageHit(document, page, score, page_id=page)


def is_stored(document: str, page: int) -> bool:
    return 1 <= page <= PAGES[document]


def keys(pages) -> list[tuple[str, int]]:
    return [page.key for page in pages]


HITS = (hit("b.pdf", 5), hit("a.pdf", 1), hit("b.pdf", 6), hit("a.pdf", 3))


def test_the_best_hits():
    chosen = choose_pages(HITS, 2, 0, is_stored)
    assert keys(chosen) == [("b.pdf", 5), ("a.pdf", 1)]
    assert all(page.found for page in chosen)
    assert keys(choose_pages(HITS, 9, 0, is_stored)) == keys(
        PageRef(h.document, h.page) for h in HITS
    )
    assert choose_pages((), 3, 2, is_stored) == ()


def test_neighbours_stop_at_the_ends_of_a_document():
    chosen = choose_pages((hit("a.pdf", 1),), 1, 5, is_stored)
    assert keys(chosen) == [("a.pdf", 1), ("a.pdf", 2), ("a.pdf", 3)]
    assert [page.found for page in chosen] == [True, False, False]
    last = choose_pages((hit("a.pdf", 3),), 1, 1, is_stored)
    assert keys(last) == [("a.pdf", 3), ("a.pdf", 2)]


def test_nearer_neighbours_and_better_hits_come_first():
    chosen = choose_pages(HITS[:2], 2, 2, is_stored)
    assert keys(chosen) == [
        ("b.pdf", 5), ("a.pdf", 1),
        ("b.pdf", 6), ("b.pdf", 4), ("a.pdf", 2),
        ("b.pdf", 7), ("b.pdf", 3), ("a.pdf", 3),
    ]  # fmt: skip


def test_a_page_is_given_once_and_counts_as_found_if_it_was():
    chosen = choose_pages(HITS[:3], 3, 1, is_stored)
    assert len(set(keys(chosen))) == len(chosen)
    assert {page.key: page.found for page in chosen}[("b.pdf", 6)] is True
    twice = choose_pages((hit("a.pdf", 1), hit("a.pdf", 1)), 2, 0, is_stored)
    assert keys(twice) == [("a.pdf", 1)]


def test_pages_not_stored_are_no_neighbours():
    only_even = choose_pages((hit("b.pdf", 4),), 1, 2, lambda document, page: page in (2, 4, 6))
    assert keys(only_even) == [("b.pdf", 4), ("b.pdf", 6), ("b.pdf", 2)]


def test_documents_by_importance_and_pages_by_number():
    chosen = choose_pages(HITS, 4, 1, is_stored)
    assert keys(in_reading_order(chosen)) == [
        ("b.pdf", 4), ("b.pdf", 5), ("b.pdf", 6), ("b.pdf", 7),
        ("a.pdf", 1), ("a.pdf", 2), ("a.pdf", 3),
    ]  # fmt: skip


def test_pages_of_the_conversation_stay_in_front():
    kept = (PageRef("b.pdf", 9), PageRef("a.pdf", 3))
    chosen = choose_pages(HITS, 2, 0, is_stored, kept)
    assert keys(in_reading_order(chosen, kept)) == [
        ("b.pdf", 9), ("a.pdf", 3), ("b.pdf", 5), ("a.pdf", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("costs", "budget", "fits"),
    [
        ([10, 10, 10], 30, [True, True, True]),
        ([10, 10, 10], 29, [True, True, False]),
        ([10, 25, 5], 16, [True, False, True]),  # the smaller one still fits
        ([50, 1], 10, [True, False]),  # the first counts in any case
        ([50], -5, [True]),
        ([], 5, []),
    ],
)
def test_as_many_as_fit(costs, budget, fits):
    assert fitting(costs, budget) == fits
