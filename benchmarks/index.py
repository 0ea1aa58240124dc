r"""The index on clustered synthetic pages: recall, CPU time, latency, disk, memory, growth.

    python -m benchmarks.index --sizes 1000,20000,100000 --work DIR
    python -m benchmarks.index --codecs                     what each codec and pooling keeps
    uv run --with qdrant-edge-py --with qdrant-client --with lancedb --with fast-plaid \
        --with xtr-warp-rs python -m benchmarks.index --peers 1000,5000

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
from pathlib import Path

import numpy as np

from benchmarks.index_codecs import codecs
from benchmarks.index_corpus import (
    DOCUMENT_PAGES,
    GRID,
    SETTINGS,
    Corpus,
    brute_force_cost,
    grow,
    kept_truth,
    recall,
)
from benchmarks.index_peers import peers
from index.page_index import PageIndex
from index.records import DocumentInput, PageInput, Tuning
from index.threads import workers


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


def n_stored(folder: Path) -> int:
    """Pages of an index that an earlier run made (with the same noise), or 0."""
    if not (folder / "index.db").exists():
        return 0
    with PageIndex.open(folder) as page_index:
        return page_index.stats().pages


def at_sizes(
    sizes: list[int],
    work: Path,
    n_queries: int,
    tunings: list[Tuning],
    noise: float,
    growing: Tuning,
) -> list[object]:
    """Grow one index through the sizes and measure it at each; goes on with one that is there."""
    corpus, rows = Corpus(noise), []
    cost = brute_force_cost(corpus, corpus.queries(5, 2000))
    folder = work / "index"
    for size in sizes:
        built = grow(folder, corpus, n_stored(folder), size, growing)
        n = n_queries if size <= 20_000 else max(20, n_queries // 4)
        scores = kept_truth(corpus, n, size, work)
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


def sizes_of(text: str) -> list[int]:
    """Read '1000,20000'."""
    return [int(part) for part in text.split(",")]


def tunings_of(text: str) -> Iterator[Tuning]:
    """Read '32:300,16:200' as n_probe:n_candidates."""
    for part in text.split(","):
        n_probe, n_candidates = map(int, part.split(":"))
        yield Tuning(n_probe=n_probe or None, n_candidates=n_candidates or None)


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
    parser.add_argument("--tunings", default="0:0", help="n_probe:n_candidates,… (0: as it comes)")
    parser.add_argument(
        "--retrain-growth", type=int, default=Tuning.retrain_growth, help="1000: as for a bulk load"
    )
    parser.add_argument("--noise", type=float, default=0.39, help="0.57: much harder pages")
    parser.add_argument("--codecs", action="store_true")
    parser.add_argument("--peers", type=sizes_of, help="pages to give to other engines")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    workers()  # one BLAS thread for the brute force as well: CPU time without spinning
    result: dict[str, object] = {}
    if options.codecs:
        result["codecs"] = codecs(options.noise)
    if options.peers:
        n_queries = min(options.queries, 20)
        result["peers"] = [
            row
            for n_pages in options.peers
            for row in peers(n_pages, options.work / f"peers-{n_pages}", n_queries, options.noise)
        ]
    if options.sizes:
        tunings = list(tunings_of(options.tunings))
        growing = Tuning(retrain_growth=options.retrain_growth)
        result["sizes"] = at_sizes(
            options.sizes, options.work, options.queries, tunings, options.noise, growing
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
