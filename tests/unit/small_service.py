"""A service in memory: three documents of drawn pages, found by the words they share with a query.

Real for everything the page asks of a service, without model, index or disk, so that handlers are
tested in milliseconds. `fails` maps a method to the error it is to raise.
"""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
from PIL import Image

from index.errors import DocumentUnknown
from index.records import DocumentRecord, Failure, PageHit
from rag.answer import Answer, AnswerTimings, Question
from rag.page_choice import PageRef
from ui.requests import Finished, Found, Piece, Queued, Stage

PAGES = {
    "report.pdf": ["total sales in 2023", "people and shops"],
    "kettle.pdf": ["capacity of the kettle"],
    "<img src=x onerror=alert(1)>.pdf": ["[click](http://evil.example) sales"],
}


def record(name: str, **changed) -> DocumentRecord:
    n_pages = len(PAGES.get(name, [""]))
    known = DocumentRecord(
        name, "0" * 64, f"/srv/secret/{name}", 1234, 0.0, "2023-05-01", "en", n_pages, n_pages,
        "complete", None, (),
    )  # fmt: skip
    return replace(known, **changed)


@dataclass
class SmallService:
    """See the module."""

    answer: str = "1,420 in total"
    records: list[DocumentRecord] = field(default_factory=lambda: [record(name) for name in PAGES])
    failures: list[Failure] = field(default_factory=list)
    fails: dict[str, BaseException] = field(default_factory=dict)
    state: str = "ready"
    progress: object = None
    asked: list[object] = field(default_factory=list)
    done: list[tuple[object, ...]] = field(default_factory=list)

    @property
    def library(self) -> "SmallService":
        """Its own library."""
        return self

    def _do(self, name: str, *what: object) -> None:
        if name in self.fails:
            raise self.fails[name]
        self.done.append((name, *what))

    def search(self, request):
        self._do("search", request.mode)
        wanted = set(request.text.lower().split())
        found = [
            PageHit(name, n, float(len(wanted & set(text.lower().split()))), n)
            for name, pages in PAGES.items()
            for n, text in enumerate(pages, 1)
        ]
        found = [hit for hit in found if hit.score > 0]
        found.sort(key=lambda hit: -hit.score)
        return SimpleNamespace(hits=tuple(found[: request.top_k or 5]))

    def ask(self, request, cancellation=None):
        self.asked.append(request)
        self._do("ask")
        hits = self.search(SimpleNamespace(text=request.question, mode="hybrid", top_k=5)).hits
        pages = tuple(PageRef(hit.document, hit.page) for hit in hits[: request.pages or 1])
        yield Found(hits, pages, not hits, 0.25)
        yield Queued(2)
        yield Queued(0)
        if "writing" in self.fails:
            raise self.fails["writing"]
        if hits:
            yield Stage("reading", 0.25)
            yield Stage("writing", 1.25)
        text, stopped = "", None
        for word in self.answer.split(" ") if hits else ["Not found."]:
            if cancellation is not None and cancellation.cancelled:
                stopped = "cancelled"
                break
            text += ("" if not text else " ") + word
            yield Piece(text[-len(word) - 1 :] if len(text) > len(word) else text)
        yield Finished(
            Answer(
                Question(request.question), text, not hits, hits, pages,
                AnswerTimings(0.1, 0.15, 0.5, 0.5, 1.0, 3), stopped or "end", (),
            )
        )  # fmt: skip

    def documents(self):
        self._do("documents")
        return tuple(self.records), self.failures

    def page(self, document, page):
        if all(each.name != document for each in self.records):
            raise DocumentUnknown(f"no document {document!r} in the index")
        return SimpleNamespace(document=document, page=page)

    def page_image(self, document, page, max_side_px):
        self._do("page_image")
        return Image.new("RGB", (60, 80), "white")

    def thumbnail(self, document, page):
        return b"RIFF"

    def heatmap(self, query, document, page):
        self._do("heatmap")
        words = tuple(query.split())
        scores = np.arange(len(words) * 12, dtype=np.float32).reshape(-1, 4, 3)
        return SimpleNamespace(words=words, scores=scores, total=scores.max(0))

    def text_boxes(self, document, page, words):
        self._do("text_boxes", tuple(words))
        return ((0.1, 0.2, 0.3, 0.25),)
