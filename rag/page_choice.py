"""Which pages the model is given: the best hits, their neighbours, as many as fit its context."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from index.records import PageHit


@dataclass(frozen=True)
class PageRef:
    """A page by its document and 1-based number.

    found  whether retrieval found it; False for a neighbour of such a page
    """

    document: str
    page: int
    found: bool = True

    @property
    def key(self) -> tuple[str, int]:
        """What tells two pages apart."""
        return self.document, self.page


def choose_pages(
    hits: Sequence[PageHit],
    n_pages: int,
    neighbours: int,
    is_stored: Callable[[str, int], bool],
    kept: Sequence[PageRef] = (),
) -> tuple[PageRef, ...]:
    """Pages worth giving, most important first, each once.

    kept        pages of the conversation so far; they stay, before anything else
    n_pages     how many hits; neighbours come on top of them
    neighbours  pages before and after each hit, where the index holds them: nearer ones first,
                and those of a better hit first
    """
    best = [PageRef(hit.document, hit.page) for hit in hits[:n_pages]]
    around = [
        PageRef(hit.document, number, found=False)
        for distance in range(1, neighbours + 1)
        for hit in best
        for number in (hit.page + distance, hit.page - distance)
    ]
    chosen: dict[tuple[str, int], PageRef] = {}
    for page in (*kept, *best, *around):
        if page.key not in chosen and (page.found or is_stored(*page.key)):
            chosen[page.key] = page
    return tuple(chosen.values())


def in_reading_order(pages: Iterable[PageRef], kept: Sequence[PageRef] = ()) -> tuple[PageRef, ...]:
    """Pages as the model is to see them: documents by importance, in each of them by number.

    What runs over a page break is read on from there. `kept` pages stay in front as they were,
    so that a follow-up question finds the same beginning in the KV cache.
    """
    pages = list(pages)
    before = [page for page in kept if page in pages]
    new = [page for page in pages if page not in before]
    rank = {name: n for n, name in enumerate(dict.fromkeys(page.document for page in new))}
    return (*before, *sorted(new, key=lambda page: (rank[page.document], page.page)))


def fitting(costs: Sequence[int], budget: int) -> list[bool]:
    """Say which of the pages, in order of importance, fit into `budget` tokens together.

    The first always counts as fitting: without any page there is no answer, and the generator
    says by how much it is too long. A smaller page may still fit where a larger one did not.
    """
    fits, left = [], budget
    for n, cost in enumerate(costs):
        fits.append(n == 0 or cost <= left)
        left -= cost if fits[-1] else 0
    return fits
