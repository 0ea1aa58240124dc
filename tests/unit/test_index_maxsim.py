"""MaxSim, codecs, pooling and candidates against float64 brute force."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage

from index.candidates import PageCodes, Postings, invert, postings_file
from index.codebook import Codebook, suitable_centroids
from index.codec import FilterCodec, Fp16, Int8
from index.errors import ShapeMismatch
from index.maxsim import MOST_COMPARED, best_ragged, ends_of, maxsim, maxsim_pages, pair_up
from index.pooling import pool
from tests.unit.index_data import unit


def brute_force(query, page):
    return (query.astype(np.float64) @ page.astype(np.float64).T).max(axis=1).sum()


def lengths_of(pages):
    return np.array([len(page) for page in pages])


def test_maxsim_of_numbers_a_person_can_check():
    query = np.array([[1, 0], [0, 1]], np.float32)
    page = np.array([[0.5, 0], [-1, -0.25]], np.float32)
    assert maxsim(query, page) == 0.5 + 0.0
    assert maxsim(query, page[1:]) == -1 - 0.25


def test_of_a_long_question_the_first_and_last_vectors_are_compared():
    query = np.arange(4000.0, dtype=np.float32).reshape(2000, 2)
    half = MOST_COMPARED // 2
    assert np.array_equal(ends_of(query), [*query[:half], *query[-half:]])
    assert np.array_equal(ends_of(query[:MOST_COMPARED]), query[:MOST_COMPARED])


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=6),
    st.integers(1, 30),
    st.sampled_from([1, 3, 16, 128]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_one_page_or_many_ragged_ones_equal_float64(lengths, n_query, dim, negative, seed):
    generator = np.random.default_rng(seed)
    query = unit(generator, n_query, dim)
    pages = [unit(generator, n, dim) for n in lengths]
    if negative:  # every similarity below zero: a padding row of zeros would win
        query, pages = np.abs(query), [-np.abs(page) for page in pages]
    wanted = [brute_force(query, page) for page in pages]
    np.testing.assert_allclose([maxsim(query, page) for page in pages], wanted, atol=1e-5)
    np.testing.assert_allclose(maxsim_pages(query, pages), wanted, atol=1e-5)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.integers(2, 9),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_pairs_match_where_they_stand_together_and_never_over_the_end_of_a_page(
    lengths, n_query, seed
):
    generator = np.random.default_rng(seed)
    similarities = generator.uniform(-1, 1, (n_query, sum(lengths))).astype(np.float32)
    starts = np.concatenate([[0], np.cumsum(lengths[:-1])]).astype(np.int64)
    found = best_ragged(pair_up(similarities, starts), starts)
    for n, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        page = similarities[:, start : start + length]
        for q in range(n_query - 1):
            wanted = max((page[q, at] + max(page[q + 1, at : at + 2])) / 2 for at in range(length))
            assert found[q, n] == pytest.approx(wanted, abs=1e-6)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_padding_never_wins(n, n_padding, seed):
    generator = np.random.default_rng(seed)
    query, page = np.abs(unit(generator, 4, 8)), -np.abs(unit(generator, n, 8))
    padded = np.concatenate([page, np.zeros((n_padding, 8), np.float32), np.abs(page)])
    mask = np.arange(len(padded)) < n
    assert maxsim(query, padded, mask) == pytest.approx(brute_force(query, page), abs=1e-5)


@pytest.mark.parametrize("shape", [(0, 8), (3, 7)])
def test_a_page_without_vectors_or_of_another_width_is_refused(shape):
    query = np.ones((2, 8), np.float32)
    with pytest.raises(ShapeMismatch):
        maxsim(query, np.zeros(shape, np.float32))
    with pytest.raises(ShapeMismatch):
        maxsim_pages(query, [np.ones((1, 8), np.float32), np.zeros(shape, np.float32)])
    assert maxsim_pages(query, []).shape == (0,)


@given(st.integers(1, 50), st.floats(1e-6, 100), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_int8_keeps_its_error_bound(n, size, seed):
    vectors = (np.random.default_rng(seed).standard_normal((n, 128)) * size).astype(np.float32)
    codec = Int8(128)
    records = codec.encode(vectors)
    assert records.shape == (n, 130)
    scale = records[:, 128:].copy().view(np.float16).astype(np.float32)
    error = np.abs(codec.decode(records) - vectors)
    assert (error <= scale / 2 * 1.0001).all()
    largest = np.abs(vectors).max(axis=1, keepdims=True) / 127
    assert (scale >= largest).all() and (scale <= largest * 1.003 + 1.2e-7).all()


@pytest.mark.parametrize("codec", [Int8(16), Fp16(16)])
def test_similarities_are_those_of_the_decoded_vectors(codec):
    generator = np.random.default_rng(0)
    query, page = unit(generator, 5, 16), unit(generator, 40, 16)
    records = codec.encode(page)
    assert records.nbytes == 40 * codec.record_bytes
    wanted = query.astype(np.float64) @ codec.decode(records).astype(np.float64).T
    np.testing.assert_allclose(codec.similarities(query, records), wanted, atol=1e-6)
    np.testing.assert_allclose(codec.decode(records), page, atol=0.005)


def test_a_vector_of_zeros_survives_int8():
    assert not Int8(4).decode(Int8(4).encode(np.zeros((2, 4), np.float32))).any()


def test_the_filter_codec_keeps_the_direction():
    generator = np.random.default_rng(0)
    centres = unit(generator, 20, 128)
    noise = 0.3 * unit(generator, 2000, 128)
    vectors = centres[generator.integers(0, 20, 2000)] + noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    codec = FilterCodec("rabitq", 128)
    codec.train(vectors)
    decoded = codec.decode(codec.encode(vectors[:100]))
    assert codec.record_bytes == 24
    decoded /= np.linalg.norm(decoded, axis=1, keepdims=True)
    assert (decoded * vectors[:100]).sum(axis=1).mean() > 0.75


def test_pooling_merges_what_is_alike_and_remembers_where_it_went():
    a, b = np.eye(4, dtype=np.float32)[:2]
    near = np.array([0.999, 0.0447, 0, 0], np.float32)
    pooled = pool(np.stack([a, b, near, b]), 2)
    assert pooled.owners.tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(pooled.vectors[1], b)
    np.testing.assert_allclose(np.linalg.norm(pooled.vectors, axis=1), 1, atol=1e-6)


def test_pooling_clusters_as_ward_does_over_the_vectors():
    vectors = unit(np.random.default_rng(5), 300, 128)
    labels = fcluster(linkage(vectors, method="ward"), 100, criterion="maxclust")
    assert pairs_of(pool(vectors, 3).owners) == pairs_of(labels)


def pairs_of(groups):
    """Which of n members are in one group, as text."""
    return (groups[:, None] == groups).tobytes()


@given(st.integers(1, 60), st.integers(1, 5), st.integers(0, 10), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_pooling_keeps_fixed_vectors_and_the_promised_number(n, factor, n_fixed, seed):
    generator = np.random.default_rng(seed)
    vectors = unit(generator, n, 16)
    fixed = generator.permutation(n) < n_fixed
    pooled = pool(vectors, factor, fixed)
    free = int((~fixed).sum())
    assert len(pooled.vectors) == int(fixed.sum()) + (max(1, free // factor) if free else 0)
    assert len(pooled.owners) == n and set(pooled.owners) == set(range(len(pooled.vectors)))
    np.testing.assert_allclose(pooled.vectors[pooled.owners[fixed]], vectors[fixed])


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_postings_and_codes_give_the_same_centroid_scores(n_pages, n_probe, seed):
    generator = np.random.default_rng(seed)
    sample = unit(generator, 200, 16)
    codebook = Codebook.train(1, sample, 12)
    pages = [unit(generator, int(n), 16) for n in generator.integers(1, 9, n_pages)]
    codes = PageCodes.of(codebook.page_codes(np.concatenate(pages), lengths_of(pages))[0])
    query = unit(generator, 5, 16)
    probe = codebook.probe(query, n_probe)
    similarities = query @ codebook.centroids.T
    ordered = np.sort(similarities, axis=1)
    floor = ordered[:, -min(3 * n_probe, 12)]
    looked_up = similarities >= ordered[:, [-n_probe]]
    known = np.where(looked_up, similarities, floor[:, None])  # (Q, C)
    wanted = [known[:, codes.page(row)].max(axis=1).sum() for row in range(n_pages)]
    np.testing.assert_allclose(probe.score_by_codes(codes), wanted, atol=1e-5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "postings.faiss"
        path.write_bytes(postings_file(codes, 12))
        postings = Postings(path)
        by_postings = probe.score_by_postings(postings, n_pages)
        again = invert(postings, n_pages)
    np.testing.assert_array_equal(again.ids, codes.ids)
    np.testing.assert_array_equal(again.offsets, codes.offsets)
    np.testing.assert_allclose(by_postings, wanted, atol=1e-5)


def test_a_codebook_reads_back_as_it_was_written():
    sample = unit(np.random.default_rng(0), 500, 16)
    codebook = Codebook.train(3, sample, 20)
    again = Codebook.load(3, codebook.save())
    np.testing.assert_array_equal(again.centroids, codebook.centroids)
    np.testing.assert_array_equal(again.nearest(sample), codebook.nearest(sample))
    np.testing.assert_allclose(np.linalg.norm(codebook.centroids, axis=1), 1, atol=1e-3)


@given(st.integers(1, 60), st.integers(1, 400), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_page_codes_are_the_nearest_centroids_and_what_they_miss(n_centroids, n_vectors, seed):
    generator = np.random.default_rng(seed)
    sample = unit(generator, n_vectors, 16)
    codebook = Codebook.train(1, sample, n_centroids)
    similarities = sample @ codebook.centroids.T
    nearest = codebook.nearest(sample)
    # At most 7 groups are made of so few centroids and 6 of them tried: hardly ever is one missed.
    missed = similarities.max(axis=1) - similarities[np.arange(n_vectors), nearest] > 1e-6
    assert missed.mean() <= 0.05

    lengths = np.array([n_vectors - n_vectors // 2, n_vectors // 2])[: min(n_vectors, 2)]
    ids, residuals = codebook.page_codes(sample, lengths)
    for own, residual, end, length in zip(ids, residuals, np.cumsum(lengths), lengths, strict=True):
        page, near = sample[end - length : end], nearest[end - length : end]
        assert own.tolist() == sorted(set(near.tolist()))
        means = [page[near == number].mean(axis=0) - codebook.centroids[number] for number in own]
        np.testing.assert_allclose(residual, np.mean(means, axis=0), atol=1e-5)


@pytest.mark.parametrize(("pages", "centroids"), [(1, 32), (20_000, 4096), (1_000_000, 16384)])
def test_centroids_grow_with_the_root_of_the_vectors(pages, centroids):
    assert suitable_centroids(pages * 128) == centroids
