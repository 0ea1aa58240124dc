"""The index on clustered synthetic pages: recall, CPU time, latency, disk, memory, growth.

    python -m benchmarks.index --sizes 1000,20000,100000 --work DIR
    python -m benchmarks.index --codecs                     what each codec and pooling keeps
    uv run --with qdrant-edge-py --with lancedb python -m benchmarks.index --peers 2000

Pages are made in blocks from a seed and never held at once; one index grows from size to size and
is measured at each in a fresh process. The truth is exact fp32 MaxSim over every page. Ends with
one JSON line.
"""

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.codec import FilterCodec, Fp16, Int8
from index.maxsim import maxsim_ragged
from index.page_index import PageIndex
from index.pooling import pool
from index.records import DocumentInput, PageInput, PatchGrid, Tuning, VectorSettings
from index.threads import workers

Floats = NDArray[np.float32]

N_VECTORS, DIM, N_TOPICS = 128, 128, 2000
SETTINGS = VectorSettings("0" * 64, "synthetic", dpi=0, max_visual_tokens=N_VECTORS)
BLOCK = 500  # pages made at once: 33 MB
DOCUMENT_PAGES = 100
COMMIT_PAGES = 1000


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


# -- building ----------------------------------------------------------------------------------


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
            waiting = maker.submit(self._make, self._range[0])
            for first in self._range:
                block = waiting.result()
                if first + BLOCK in self._range:
                    waiting = maker.submit(self._make, first + BLOCK)
                yield first, block


def grow(folder: Path, corpus: Corpus, start: int, end: int) -> dict[str, float]:
    """Add pages start … end - 1; returns wall and CPU seconds, making the pages not counted."""
    blocks, wall, began_cpu = Blocks(corpus, start, end), 0.0, time.process_time()
    with PageIndex.open(folder, SETTINGS, writable=True) as page_index:
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


GRID = PatchGrid.full(8, 16)


def add(page_index: PageIndex, number: int, vectors: Floats) -> None:
    """Add one page under a document of DOCUMENT_PAGES."""
    name = f"{number // DOCUMENT_PAGES:06}.pdf"
    if number % DOCUMENT_PAGES == 0:
        page_index.begin_document(
            DocumentInput(name, f"{number:064x}", DOCUMENT_PAGES, "", 0, 0.0, "2024-01-01")
        )
    page_index.add_page(name, PageInput(number % DOCUMENT_PAGES + 1, vectors, GRID))


def add_one_cost(folder: Path, corpus: Corpus) -> float:
    """Median wall ms of adding and committing one page; the pages are removed again."""
    times = []
    with PageIndex.open(folder, SETTINGS, writable=True) as page_index:
        vectors = corpus.block(0)
        page_index.begin_document(DocumentInput("one.pdf", "1" * 64, 9, "", 0, 0.0))
        for number in range(1, 10):
            began = time.perf_counter()
            page_index.add_page("one.pdf", PageInput(number, vectors[number], GRID))
            page_index.commit()
            times.append(time.perf_counter() - began)
        page_index.remove("one.pdf")
    return round(float(np.median(times)) * 1000, 1)


# -- measuring, in a process of its own --------------------------------------------------------


def drop_cache(folder: Path) -> None:
    """Have the system forget the index's files, so that the next search reads the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def memory_mb() -> dict[str, float]:
    """Resident memory of this process, and the part that is not pages of files, in MB."""
    status = Path("/proc/self/status").read_text()
    values = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return {
        name: round(int(values[key].split()[0]) / 1000)
        for name, key in (("rss_mb", "VmRSS"), ("anonymous_mb", "RssAnon"))
    }


def measure(
    folder: Path, n_pages: int, n_queries: int, tuning: Tuning, noise: float
) -> dict[str, object]:
    """Search cold and warm; returns times, memory and the pages found."""
    queries = Corpus(noise).queries(n_queries, n_pages)
    base = memory_mb()
    drop_cache(folder)
    began = time.perf_counter()
    page_index = PageIndex.open(folder, SETTINGS, tuning=tuning)
    page_index.search(1, text="nothing", mode="text")
    opened = time.perf_counter() - began
    cold = []
    for query in queries[:10]:
        drop_cache(folder)
        began = time.perf_counter()
        page_index.search(10, vectors=query, mode="visual")
        cold.append(time.perf_counter() - began)
    for query in queries:  # warm: every page that these queries touch has been read
        page_index.search(10, vectors=query, mode="visual")
    warm, cpu, found = [], [], []
    for query in queries:
        began, used = time.perf_counter(), time.process_time()
        hits = page_index.search(10, vectors=query, mode="visual")
        cpu.append(time.process_time() - used)
        warm.append(time.perf_counter() - began)
        found.append([int(hit.document[:6]) * DOCUMENT_PAGES + hit.page - 1 for hit in hits])
    return {
        "open_ms": round(opened * 1000),
        "first_search_ms": round(cold[0] * 1000),
        "cold_ms": round(float(np.median(cold[1:])) * 1000),
        "warm_ms": round(float(np.median(warm)) * 1000, 1),
        "warm_p95_ms": round(float(np.quantile(warm, 0.95)) * 1000, 1),
        "cpu_ms": round(float(np.median(cpu)) * 1000, 1),
        **memory_mb(),
        "rss_at_start_mb": base["rss_mb"],
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
        "found": found,
    }


def in_child(
    folder: Path, n_pages: int, n_queries: int, tuning: Tuning, noise: float
) -> dict[str, object]:
    """Run measure() in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.index", "--child", str(folder)]
    command += [str(n_pages), str(n_queries), json.dumps(dataclasses.asdict(tuning)), str(noise)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def recall(found: list[list[int]], scores: NDArray[np.float64], k: int = 10) -> float:
    """Share of the exact best k that were found."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    pairs = zip(found, best.tolist(), strict=True)
    return float(np.mean([len(set(a[:k]) & set(b)) / len(b) for a, b in pairs]))


def at_sizes(
    sizes: list[int], work: Path, n_queries: int, tunings: list[Tuning], noise: float
) -> list[object]:
    """Grow one index through the sizes and measure it at each."""
    corpus, rows, start = Corpus(noise), [], 0
    cost = brute_force_cost(corpus, corpus.queries(5, 2000))
    folder = work / "index"
    for size in sizes:
        built = grow(folder, corpus, start, size)
        start = size
        n = n_queries if size <= 20_000 else max(20, n_queries // 4)
        scores = truth(corpus, corpus.queries(n, size), size)
        with PageIndex.open(folder) as page_index:
            stats = page_index.stats()
        common = {
            "pages": size,
            **built,
            "disk_per_130_bytes": round(stats.bytes["total"] / 130 / stats.vectors, 3),
            "bytes": stats.bytes,
            "segments": stats.segments,
            "centroids": stats.codebook,
            "codes_bytes_per_page": round(stats.bytes["codes"] / size),
            "add_one_page_ms": add_one_cost(folder, corpus),
            "brute_force_cpu_ms": round(cost * size),
        }
        for tuning in tunings:
            seen = in_child(folder, size, n, tuning, noise)
            found = seen.pop("found")
            row = {
                **common,
                "n_probe": tuning.n_probe,
                "n_candidates": tuning.n_candidates,
                "queries": n,
                "recall_at_10": round(recall(found, scores), 4),  # type: ignore[arg-type]
                "top_1": round(recall(found, scores, 1), 4),  # type: ignore[arg-type]
                **seen,
                "times_less_cpu": round(cost * size / float(str(seen["cpu_ms"])), 1),
            }
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


# -- codecs and peers --------------------------------------------------------------------------


def codecs(noise: float, n_pages: int = 1000, n_queries: int = 40) -> list[object]:
    """Recall@10 of ranking all pages by each codec's vectors, and of its top 50."""
    corpus = Corpus(noise)
    pages = np.concatenate([corpus.block(first) for first in range(0, n_pages, BLOCK)])
    queries = corpus.queries(n_queries, n_pages)
    exact = truth(corpus, queries, n_pages)
    flat = pages.reshape(-1, DIM)
    rows: list[object] = []

    def note(name: str, per_page: float, vectors: Floats, lengths: NDArray[np.int64]) -> None:
        starts = np.cumsum(lengths) - lengths
        scores = np.stack([maxsim_ragged(query @ vectors.T, starts) for query in queries])
        ranked = np.argsort(-scores, axis=1, kind="stable").tolist()
        best = np.argsort(-exact, axis=1, kind="stable")[:, :10].tolist()
        in_50 = np.mean([len(set(a[:50]) & set(b)) / 10 for a, b in zip(ranked, best, strict=True)])
        row = {"codec": name, "bytes_per_page": round(per_page)}
        row |= {"recall_at_10": round(recall(ranked, exact), 3), "in_top_50": round(in_50, 3)}
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)

    whole = np.full(n_pages, N_VECTORS)
    for name, codec in (("fp16", Fp16(DIM)), ("int8", Int8(DIM))):
        decoded = codec.decode(codec.encode(flat))
        note(name, N_VECTORS * codec.record_bytes, decoded, whole)
    for name in ("rabitq", "pq"):
        bits = FilterCodec(name, DIM)
        bits.train(flat[:: max(1, len(flat) // 20_000)])
        note(name, N_VECTORS * bits.record_bytes, bits.decode(bits.encode(flat)), whole)
    for factor in (2, 3, 4):
        pooled = [pool(page, factor).vectors for page in pages]
        stored = Int8(DIM).decode(Int8(DIM).encode(np.concatenate(pooled)))
        lengths = np.array([len(page) for page in pooled])
        note(f"int8, pool {factor}", float(lengths.mean()) * 130, stored, lengths)
    return rows


def peers(n_pages: int, work: Path, n_queries: int, noise: float) -> list[object]:
    """Other engines that install here, on the same pages; those that do not are said to be so."""
    from benchmarks import index_peers

    corpus = Corpus(noise)
    queries = corpus.queries(n_queries, n_pages)
    exact = truth(corpus, queries, n_pages)
    rows: list[object] = []
    for name, engine in index_peers.ENGINES.items():
        row: dict[str, object] = {"engine": name, "pages": n_pages}
        try:
            found, row["build_s"], row["p50_ms"], row["cpu_ms"], row["bytes_per_page"] = engine(
                (corpus.block(first) for first in range(0, n_pages, BLOCK)), queries, work
            )
            row["recall_at_10"] = round(recall(found, exact), 3)
        except ImportError as error:
            row["skipped"] = str(error)
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def sizes_of(text: str) -> list[int]:
    """Read '1000,20000'."""
    return [int(part) for part in text.split(",")]


def tunings_of(text: str) -> Iterator[Tuning]:
    """Read '32:300,16:200' as n_probe:n_candidates."""
    for part in text.split(","):
        n_probe, n_candidates = map(int, part.split(":"))
        yield Tuning(n_probe=n_probe, n_candidates=n_candidates)


def main() -> None:
    """Run what is asked and print one JSON line."""
    if sys.argv[1:2] == ["--child"]:
        folder, n_pages, n_queries, tuning, noise = sys.argv[2:]
        known = Tuning(**json.loads(tuning))
        seen = measure(Path(folder), int(n_pages), int(n_queries), known, float(noise))
        print(json.dumps(seen))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=sizes_of, help="pages, e.g. 1000,20000")
    parser.add_argument("--work", type=Path, default=Path("build/bench-index"))
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--tunings", default="128:300", help="n_probe:n_candidates,…")
    parser.add_argument("--noise", type=float, default=0.39, help="0.57: much harder pages")
    parser.add_argument("--codecs", action="store_true")
    parser.add_argument("--peers", type=int, help="pages to give to other engines")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    workers()  # one BLAS thread for the brute force as well: CPU time without spinning
    result: dict[str, object] = {}
    if options.codecs:
        result["codecs"] = codecs(options.noise)
    if options.peers:
        result["peers"] = peers(
            options.peers, options.work, min(options.queries, 20), options.noise
        )
    if options.sizes:
        tunings = list(tunings_of(options.tunings))
        result["sizes"] = at_sizes(
            options.sizes, options.work, options.queries, tunings, options.noise
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
