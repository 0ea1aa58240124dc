"""Keys and values of all layers in buffers that the decoder writes in place."""

import numpy as np
import onnxruntime as ort

GROWTH = 512  # tokens; a buffer is grown by at least this, and by half of itself


class KVCache:
    """One sequence's keys and values, (1, KV, capacity, head_dim) for each layer.

    `past_length` tokens at the front are valid; what lies behind them is never read. Cutting
    back to a shorter prefix is therefore free.
    """

    def __init__(
        self, n_layers: int, n_kv_heads: int, head_dim: int, dtype: type[np.generic]
    ) -> None:
        self._n_buffers = 2 * n_layers
        self._shape = (n_kv_heads, head_dim)
        self._dtype = dtype
        self.buffers: list[ort.OrtValue] = []
        self.capacity = 0
        self.past_length = 0

    def reserve(self, n_tokens: int) -> None:
        """Make room for `n_tokens` in all, keeping what is there."""
        if n_tokens <= self.capacity:
            return
        self._grow(max(n_tokens, self.capacity + max(GROWTH, self.capacity // 2)))

    def _grow(self, capacity: int) -> None:
        """Move what is valid to new buffers of this capacity."""
        n_heads, head_dim = self._shape
        grown = []
        for at in range(self._n_buffers):
            array = np.zeros((1, n_heads, capacity, head_dim), self._dtype)
            if self.buffers:
                array[:, :, : self.past_length] = self.buffers[at].numpy()[:, :, : self.past_length]
            # On the CPU the OrtValue shares the array's memory.
            grown.append(ort.OrtValue.ortvalue_from_numpy(array))
        self.buffers, self.capacity = grown, capacity

    def truncate(self, n_tokens: int) -> None:
        """Forget all but the first `n_tokens`."""
        assert n_tokens <= self.past_length
        self.past_length = n_tokens

    def copy(self, n_tokens: int) -> "KVCache":
        """Return a cache of its own that holds the first `n_tokens`."""
        assert n_tokens <= self.past_length
        n_heads, head_dim = self._shape
        twin = KVCache(self._n_buffers // 2, n_heads, head_dim, self._dtype)
        twin.buffers, twin.capacity, twin.past_length = self.buffers, self.capacity, n_tokens
        twin._grow(max(n_tokens, GROWTH))
        return twin

    @property
    def n_bytes(self) -> int:
        """Memory the buffers take."""
        n_heads, head_dim = self._shape
        item = np.dtype(self._dtype).itemsize
        return self._n_buffers * n_heads * head_dim * self.capacity * item
