"""Small pages and settings for tests of the index: unit vectors from a seed."""

import hashlib

import numpy as np

from index.records import DocumentInput, PageInput, PatchGrid, VectorSettings

DIM = 16
SETTINGS = VectorSettings("ab" * 32, "tiny", dpi=100, max_visual_tokens=64, dim=DIM)


def unit(generator, *shape):
    vectors = generator.standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def document(name, seed=0, n_pages=3, **more):
    sha256 = hashlib.sha256(f"content {seed}".encode()).hexdigest()
    known = {"source": f"/in/{name}", "size_bytes": 10, "modified": 1_700_000_000.0}
    return DocumentInput(name, sha256, n_pages, **(known | more))


def page(seed, number, dim=DIM, text=None):
    """The page that a content has under this number: the same at every call."""
    generator = np.random.default_rng([seed, number])
    n = int(generator.integers(1, 12))
    text = f"content{seed} page{number} common" if text is None else text
    return PageInput(
        number,
        unit(generator, n, dim),
        PatchGrid(3, 4, np.sort(generator.permutation(12)[:n]).astype(np.int32)),
        text,
        "healthy" if text else "missing",
        f"thumbnail {seed} {number}".encode(),
    )


def put(page_index, name, seed=0, n_pages=3, **more):
    """Add a whole document; returns its status."""
    resume = page_index.begin_document(document(name, seed, n_pages, **more))
    for number in sorted(set(range(1, n_pages + 1)) - resume.done):
        page_index.add_page(name, page(seed, number))
    return page_index.finish_document(name)
