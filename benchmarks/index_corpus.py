"""Clustered synthetic pages from a seed, queries for them, the true ranking, an index of them."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.maxsim import maxsim_ragged
from index.page_index import PageIndex
from index.records import DocumentInput, PageInput, PatchGrid, Tuning, VectorSettings
from index.threads import workers

Floats = NDArray[np.float32]

N_VECTORS, DIM, N_TOPICS = 128, 128, 2000
BLOCK = 500  # pages made at once: 33 MB
SETTINGS = VectorSettings("0" * 64, "synthetic", dpi=0, max_visual_tokens=N_VECTORS)
DOCUMENT_PAGES = 100
COMMIT_PAGES = 1000
DEFAULT = Tuning()
GRID = PatchGrid.full(8, 16)


def unit(vectors: Floats) -> Floats:
    """Bring rows to unit length."""
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


class Corpus:
    """Pages of 128 vectors around Zipf topics, a twentieth of them near-copies of a neighbour.

    Mean cosine about 0.4 inside a page and 0.17 across pages. `noise` (norm of the part that
    belongs to one vector alone) decides how much a centroid can say: at 0.39 a page has some 20
    centroids; at 0.57 some 50, and ranks 2 to 10 are the luck of the noise.
    """

    def __init__(self, noise: float = 0.39, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.seed, self.noise = seed, noise
        self.topic = float(np.sqrt(1 - 0.41**2 - 0.39**2 - noise**2))
        self.common = unit(generator.standard_normal(DIM, np.float32))
        self.topics = unit(generator.standard_normal((N_TOPICS, DIM), np.float32))
        weights = 1 / np.arange(1, N_TOPICS + 1)
        self.odds = np.cumsum(weights / weights.sum())

    def block(self, first: int) -> Floats:
        """Pages first … first + BLOCK - 1: (BLOCK, 128, 128) float32 unit vectors."""
        g = np.random.default_rng([self.seed, 1, first])
        own = np.searchsorted(self.odds, g.random((BLOCK, 16)))  # topics of each page
        offset = unit(g.standard_normal((BLOCK, 1, DIM), np.float32))
        picks = np.take_along_axis(own, g.integers(0, 16, (BLOCK, N_VECTORS)), axis=1)
        noise = unit(g.standard_normal((BLOCK, N_VECTORS, DIM), np.float32))
        pages = 0.41 * self.common + 0.39 * offset + self.topic * self.topics[picks]
        pages += self.noise * noise
        for base in range(0, BLOCK, 100):  # template pages: five near-copies in a hundred
            pages[base + 1 : base + 5] = pages[base] + 0.25 * noise[base + 1 : base + 5]
        return unit(pages)

    def queries(self, n: int, n_pages: int) -> list[Floats]:
        """Noisy copies of 12 to 24 vectors of one page, and 4 that have nothing to do with it."""
        found = []
        for number in range(n):
            g = np.random.default_rng([self.seed, 2, number])
            target = int(g.integers(0, n_pages))
            page = self.block(target - target % BLOCK)[target % BLOCK]
            rows = g.choice(N_VECTORS, int(g.integers(12, 25)), replace=False)
            noise = unit(g.standard_normal((len(rows), DIM), np.float32))
            stray = 0.41 * self.common + unit(g.standard_normal((4, DIM), np.float32))
            found.append(unit(np.concatenate([page[rows] + 0.9 * noise, stray])))
        return found


def truth(corpus: Corpus, queries: list[Floats], n_pages: int) -> NDArray[np.float64]:
    """Exact fp32 scores of every page for every query: (queries, n_pages)."""
    scores = np.empty((len(queries), n_pages))
    stacked = np.concatenate(queries)
    bounds = np.cumsum([0, *map(len, queries)])[:-1]

    def score(first: int) -> None:
        pages = corpus.block(first).reshape(-1, DIM)
        for start in range(0, BLOCK, 50):
            part = pages[start * N_VECTORS : (start + 50) * N_VECTORS]
            best = (stacked @ part.T).reshape(len(stacked), 50, N_VECTORS).max(axis=2)
            scores[:, first + start : first + start + 50] = np.add.reduceat(best, bounds, axis=0)

    list(workers().map(score, range(0, n_pages, BLOCK)))
    return scores


def brute_force_cost(corpus: Corpus, queries: list[Floats]) -> float:
    """CPU-ms a page of exact fp32 search in numpy, one query at a time, over 2000 pages in RAM."""
    pages = np.concatenate([corpus.block(first) for first in range(0, 2000, BLOCK)])
    flat = pages.reshape(-1, DIM)
    starts = np.arange(0, len(flat), N_VECTORS)
    maxsim_ragged(queries[0] @ flat.T, starts)
    started = time.process_time()
    for query in queries[:5]:
        for at in range(0, len(flat), 256 * N_VECTORS):
            part = flat[at : at + 256 * N_VECTORS]
            maxsim_ragged(query @ part.T, starts[: len(part) // N_VECTORS])
    return (time.process_time() - started) / 5 / 2000 * 1000


def recall(found: list[list[int]], scores: NDArray[np.float64], k: int = 10) -> float:
    """Share of the exact best k that were found."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    pairs = zip(found, best.tolist(), strict=True)
    return float(np.mean([len(set(a[:k]) & set(b)) / len(b) for a, b in pairs]))


def kept_truth(corpus: Corpus, n_queries: int, n_pages: int, work: Path) -> NDArray[np.float64]:
    """truth(), kept in a file: at a million pages it takes longer than all searches."""
    path = work / f"truth-{corpus.noise}-{n_queries}-{n_pages}.npy"
    if not path.exists():
        np.save(path, truth(corpus, corpus.queries(n_queries, n_pages), n_pages))
    scores: NDArray[np.float64] = np.load(path)
    return scores


class Blocks:
    """Blocks of pages, each made in a thread while the one before is used."""

    def __init__(self, corpus: Corpus, start: int, end: int) -> None:
        self._corpus, self._range = corpus, range(start, end, BLOCK)
        self.cpu_s = 0.0  # what making them took

    def _make(self, first: int) -> Floats:
        began = time.thread_time()
        block = self._corpus.block(first)
        self.cpu_s += time.thread_time() - began
        return block

    def __iter__(self) -> Iterator[tuple[int, Floats]]:
        with ThreadPoolExecutor(1) as maker:
            if self._range:
                waiting = maker.submit(self._make, self._range[0])
            for first in self._range:
                block = waiting.result()
                if first + BLOCK in self._range:
                    waiting = maker.submit(self._make, first + BLOCK)
                yield first, block


def grow(
    folder: Path, corpus: Corpus, start: int, end: int, tuning: Tuning = DEFAULT
) -> dict[str, float]:
    """Add pages start … end - 1; returns wall and CPU seconds, making the pages not counted."""
    blocks, wall, began_cpu = Blocks(corpus, start, end), 0.0, time.process_time()
    with PageIndex.open(folder, SETTINGS, writable=True, tuning=tuning) as page_index:
        for first, pages in blocks:
            began = time.perf_counter()
            for row in range(BLOCK):
                add(page_index, first + row, pages[row])
            if (first + BLOCK) % COMMIT_PAGES == 0:
                page_index.commit()
            wall += time.perf_counter() - began
        began = time.perf_counter()
        page_index.maintain()
        wall += time.perf_counter() - began
    cpu = time.process_time() - began_cpu - blocks.cpu_s
    return {"build_s": round(wall, 1), "build_cpu_s": round(cpu, 1)}


def add(page_index: PageIndex, number: int, vectors: Floats) -> None:
    """Add one page under a document of DOCUMENT_PAGES."""
    name = f"{number // DOCUMENT_PAGES:06}.pdf"
    if number % DOCUMENT_PAGES == 0:
        page_index.begin_document(
            DocumentInput(name, f"{number:064x}", DOCUMENT_PAGES, "", 0, 0.0, "2024-01-01")
        )
    page_index.add_page(name, PageInput(number % DOCUMENT_PAGES + 1, vectors, GRID))
