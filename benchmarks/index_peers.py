"""Other engines that keep many vectors a page and install with pip, given the same pages.

Each takes blocks of pages (n, 128, 128), queries and a folder, and returns
(found pages of each query, build seconds, median search ms, median search CPU-ms, bytes a page).
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.index_corpus import (
    BLOCK,
    DOCUMENT_PAGES,
    Corpus,
    Floats,
    grow,
    recall,
    truth,
)
from index.maxsim import maxsim_ragged
from index.page_index import PageIndex

Blocks = Iterator[Floats]
Result = tuple[list[list[int]], float, float, float, float]


def timed(
    search: Callable[[Floats], list[int]], queries: list[Floats]
) -> tuple[list[list[int]], float, float]:
    """Run every query once after one to warm up: pages, median wall ms, median CPU-ms."""
    search(queries[0])
    found, wall, cpu = [], [], []
    for query in queries:
        began, used = time.perf_counter(), time.process_time()
        found.append(search(query))
        cpu.append(time.process_time() - used)
        wall.append(time.perf_counter() - began)
    return found, float(np.median(wall)) * 1000, float(np.median(cpu)) * 1000


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def numpy_exact(blocks: Blocks, queries: list[Floats], work: Path) -> Result:
    """Exact fp32 MaxSim in numpy over an array in memory."""
    pages = np.concatenate(list(blocks))
    flat, n_vectors = pages.reshape(-1, pages.shape[2]), pages.shape[1]

    def search(query: Floats) -> list[int]:
        scores = []
        for at in range(0, len(flat), 64 * n_vectors):
            part = flat[at : at + 64 * n_vectors]
            scores.append(maxsim_ragged(query @ part.T, np.arange(0, len(part), n_vectors)))
        return [int(page) for page in np.argsort(-np.concatenate(scores), kind="stable")[:10]]

    found, wall, cpu = timed(search, queries)
    return found, 0.0, wall, cpu, 4.0 * n_vectors * pages.shape[2]


def qdrant_edge_exact(blocks: Blocks, queries: list[Floats], work: Path) -> Result:
    """Qdrant's in-process shard, multi-vectors in fp16, no graph: every page is scored."""
    import qdrant_edge as q

    folder = work / "qdrant-edge"
    folder.mkdir()
    vectors = q.EdgeVectorParams(
        size=128,
        distance=q.Distance.Dot,
        on_disk=True,
        multivector_config=q.MultiVectorConfig(q.MultiVectorComparator.MaxSim),
        datatype=q.VectorStorageDatatype.Float16,
        hnsw_config=q.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=10),
    )
    shard = q.EdgeShard.create(str(folder), q.EdgeConfig(vectors=vectors))
    began, number = time.perf_counter(), 0
    for block in blocks:
        for start in range(0, len(block), 50):
            points = [
                q.Point(number + i, page.tolist())
                for i, page in enumerate(block[start : start + 50])
            ]
            shard.update(q.UpdateOperation.upsert_points(points))
            number += len(points)
    shard.flush()
    built = time.perf_counter() - began

    def search(query: Floats) -> list[int]:
        request = q.SearchRequest(query=q.Query.Nearest(query.tolist()), limit=10)
        return [int(point.id) for point in shard.search(request)]

    found, wall, cpu = timed(search, queries)
    shard.close()
    return found, round(built, 1), wall, cpu, size_of(folder) / number


def lancedb_exact(blocks: Blocks, queries: list[Floats], work: Path) -> Result:
    """LanceDB multi-vectors in fp32 without an index: every page is scored."""
    import lancedb
    import pyarrow as pa

    database = lancedb.connect(work / "lancedb")
    kind = pa.list_(pa.list_(pa.float32(), 128))
    schema = pa.schema([pa.field("page", pa.int64()), pa.field("vector", kind)])
    table = database.create_table("pages", schema=schema)
    began, number = time.perf_counter(), 0
    for block in blocks:
        rows = [{"page": number + i, "vector": page.tolist()} for i, page in enumerate(block)]
        table.add(rows)
        number += len(rows)
    built = time.perf_counter() - began

    def search(query: Floats) -> list[int]:
        hits = table.search(query).distance_type("cosine").limit(10).to_list()
        return [hit["page"] for hit in hits]

    found, wall, cpu = timed(search, queries)
    return found, round(built, 1), wall, cpu, size_of(work / "lancedb") / number


def qdrant_local_exact(blocks: Blocks, queries: list[Floats], work: Path) -> Result:
    """Qdrant's Python client in local mode: numpy in memory, SQLite on disk."""
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=str(work / "qdrant-local"))
    vectors = models.VectorParams(
        size=128,
        distance=models.Distance.DOT,
        multivector_config=models.MultiVectorConfig(
            comparator=models.MultiVectorComparator.MAX_SIM
        ),
    )
    client.create_collection("pages", vectors_config=vectors)
    began, number = time.perf_counter(), 0
    for block in blocks:
        for start in range(0, len(block), 50):
            part = block[start : start + 50]
            points = [
                models.PointStruct(id=number + i, vector=page.tolist())
                for i, page in enumerate(part)
            ]
            client.upsert("pages", points)
            number += len(part)
    built = time.perf_counter() - began

    def search(query: Floats) -> list[int]:
        found = client.query_points("pages", query=query.tolist(), limit=10)
        return [int(point.id) for point in found.points]

    found, wall, cpu = timed(search, queries)
    client.close()
    return found, round(built, 1), wall, cpu, size_of(work / "qdrant-local") / number


def fast_plaid(blocks: Blocks, queries: list[Floats], work: Path) -> Result:
    """PLAID (arXiv:2205.09707) in Rust, 4 bits a component, as it comes; built for GPUs."""
    import torch
    from fast_plaid.search import FastPlaid

    pages = [torch.from_numpy(page) for block in blocks for page in block]
    index = FastPlaid(index=str(work / "fast-plaid"), device="cpu")
    began = time.perf_counter()
    index.create(documents_embeddings=pages)
    built = time.perf_counter() - began

    def search(query: Floats) -> list[int]:
        asked = torch.from_numpy(query)[None]
        (hits,) = index.search(queries_embeddings=asked, top_k=10, show_progress=False)
        return [page for page, _ in hits]

    found, wall, cpu = timed(search, queries)
    return found, round(built, 1), wall, cpu, size_of(work / "fast-plaid") / len(pages)


def xtr_warp(blocks: Blocks, queries: list[Floats], work: Path) -> Result:
    """WARP (arXiv:2501.17788) in Rust, 4 bits a component, as it comes; meant for XTR's vectors."""
    import torch
    from xtr_warp import XTRWarp

    pages = [torch.from_numpy(page) for block in blocks for page in block]
    index = XTRWarp(index=str(work / "xtr-warp"), device="cpu")
    began = time.perf_counter()
    index.create(pages, device="cpu", show_progress=False)
    built = time.perf_counter() - began
    index.load(device="cpu")

    def search(query: Floats) -> list[int]:
        (hits,) = index.search(torch.from_numpy(query)[None], top_k=10, show_progress=False)
        return [page for page, _ in hits]

    found, wall, cpu = timed(search, queries)
    index.free()
    return found, round(built, 1), wall, cpu, size_of(work / "xtr-warp") / len(pages)


ENGINES: dict[str, Callable[[Blocks, list[Floats], Path], Result]] = {
    "numpy, exact fp32": numpy_exact,
    "qdrant-edge, exact fp16": qdrant_edge_exact,
    "qdrant-client in local mode, exact fp32": qdrant_local_exact,
    "lancedb, exact fp32": lancedb_exact,
    "fast-plaid, 4 bits": fast_plaid,
    "xtr-warp-rs, 4 bits": xtr_warp,
}


def this_index(corpus: Corpus, n_pages: int, queries: list[Floats], work: Path) -> Result:
    """Search the page index as it comes: exact up to 3000 pages, then by candidates."""
    folder = work / "index"
    built = grow(folder, corpus, 0, n_pages)["build_s"]
    with PageIndex.open(folder) as page_index:

        def search(query: Floats) -> list[int]:
            hits = page_index.search(10, vectors=query, mode="visual")
            return [int(hit.document[:6]) * DOCUMENT_PAGES + hit.page - 1 for hit in hits]

        for query in queries:  # every page these queries touch has been read and checked once
            search(query)
        found, wall, cpu = timed(search, queries)
    return found, built, wall, cpu, size_of(folder) / n_pages


def peers(n_pages: int, work: Path, n_queries: int, noise: float) -> list[object]:
    """All engines on the same pages; those that are not installed are said to be so."""
    corpus = Corpus(noise)
    queries = corpus.queries(n_queries, n_pages)
    exact = truth(corpus, queries, n_pages)
    work.mkdir(parents=True)
    engines: dict[str, Callable[[], Result]] = {
        name: partial(engine, (corpus.block(at) for at in range(0, n_pages, BLOCK)), queries, work)
        for name, engine in ENGINES.items()
    }
    engines["this index"] = partial(this_index, corpus, n_pages, queries, work)
    rows: list[object] = []
    for name, run in engines.items():
        row: dict[str, object] = {"engine": name, "pages": n_pages}
        try:
            found, row["build_s"], row["p50_ms"], row["cpu_ms"], row["bytes_per_page"] = run()
            row["recall_at_10"] = round(recall(found, exact), 3)
        except ImportError as error:
            row["skipped"] = str(error)
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return rows
