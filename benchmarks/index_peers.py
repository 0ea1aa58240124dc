"""Other engines that keep many vectors a page and install with pip, given the same pages.

Each takes blocks of pages (n, 128, 128), queries and a folder, and returns
(found pages of each query, build seconds, median search ms, median search CPU-ms, bytes a page).
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.maxsim import maxsim_ragged

Floats = NDArray[np.float32]
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


ENGINES: dict[str, Callable[[Blocks, list[Floats], Path], Result]] = {
    "numpy, exact fp32": numpy_exact,
    "qdrant-edge, exact fp16": qdrant_edge_exact,
    "lancedb, exact fp32": lancedb_exact,
}
