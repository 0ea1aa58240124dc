"""Keys and values in buffers that grow, are cut and copied."""

import numpy as np
import pytest

from models.kv_cache import GROWTH, KVCache


def filled(n_tokens: int) -> KVCache:
    """Two layers, two heads of 4; the number in each place is that of its token, from 1."""
    cache = KVCache(2, 2, 4, np.float32)
    cache.reserve(n_tokens)
    for at, buffer in enumerate(cache.buffers):
        tokens = np.zeros(buffer.shape(), np.float32)
        tokens[:, :, :n_tokens] = np.arange(1, n_tokens + 1)[:, None] + 1000 * at
        buffer.update_inplace(tokens)
    cache.past_length = n_tokens
    return cache


def tokens(cache: KVCache, buffer: int = 0) -> list[int]:
    values = cache.buffers[buffer].numpy()[0, :, : cache.past_length]
    assert (values == values[:1, :, :1]).all(), "heads and their parts moved together"
    return values[0, :, 0].astype(int).tolist()


def test_nothing_is_allocated_before_it_is_needed():
    cache = KVCache(2, 2, 4, np.float32)
    assert (cache.n_bytes, cache.buffers) == (0, [])


def test_growing_keeps_what_is_there():
    cache = filled(5)
    capacity = cache.capacity
    cache.reserve(capacity)
    assert cache.capacity == capacity == GROWTH
    cache.reserve(capacity + 1)
    assert cache.capacity == 2 * GROWTH
    assert tokens(cache) == [1, 2, 3, 4, 5]
    assert tokens(cache, 3) == [3001, 3002, 3003, 3004, 3005]


def test_growth_is_by_half_at_least_so_that_long_answers_copy_rarely():
    cache = filled(10_000)
    cache.reserve(10_001)
    assert cache.capacity == 15_000


def test_bytes_are_those_of_the_buffers():
    cache = KVCache(3, 2, 8, np.float16)
    cache.reserve(1)
    assert cache.n_bytes == sum(each.numpy().nbytes for each in cache.buffers)
    assert cache.n_bytes == 2 * 3 * 2 * 8 * GROWTH * 2  # k and v, layers, heads, width, tokens, B


def test_cutting_back_forgets_the_end():
    cache = filled(5)
    cache.truncate(2)
    assert tokens(cache) == [1, 2]
    with pytest.raises(AssertionError):
        cache.truncate(3)


def test_a_copy_holds_the_first_tokens_and_is_on_its_own():
    cache = filled(700)
    twin = cache.copy(3)
    assert (tokens(twin), twin.capacity) == ([1, 2, 3], GROWTH)
    for buffer in cache.buffers:
        buffer.update_inplace(np.zeros(buffer.shape(), np.float32))
    assert tokens(twin, 1) == [1001, 1002, 1003]
    assert cache.past_length == 700
