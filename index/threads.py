"""Threads that do not wait for each other by spinning.

OpenBLAS and OpenMP split even small jobs over all cores and spin until the last part is done. While
something else is busy on the same cores (an ingest's encoder beside a search) that costs far more
than it saves: MaxSim over 1000 pages took 27 CPU-ms with one BLAS thread and 300 to 1400 with two,
looking up the centroids of 40 small pages 2 ms against 700. So libraries get one thread, and the
index gives whole blocks of pages to threads of its own.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import faiss
from threadpoolctl import ThreadpoolController

SMALL_VECTORS = 100_000


@cache
def workers() -> ThreadPoolExecutor:
    """Threads for blocks of pages; limits BLAS to one thread in this process from then on."""
    ThreadpoolController().limit(limits=1, user_api="blas")
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), "maxsim")


@contextmanager
def faiss_threads(n_vectors: int) -> Iterator[None]:
    """Run small FAISS jobs on one thread, large ones (training) on all."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1 if n_vectors < SMALL_VECTORS else before)
    workers()
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
