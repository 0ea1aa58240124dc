"""How many threads FAISS may use for a job."""

from collections.abc import Iterator
from contextlib import contextmanager

import faiss

SMALL_VECTORS = 100_000


@contextmanager
def faiss_threads(n_vectors: int) -> Iterator[None]:
    """Run small jobs on one thread.

    OpenMP threads wait for each other by spinning: on two busy cores, looking up the centroids of
    40 small pages took 0.7 s with two threads and 0.002 s with one, and training a small product
    quantizer 231 s.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1 if n_vectors < SMALL_VECTORS else before)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
