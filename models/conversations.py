"""The KV caches of the last conversations, lent to the answer that can go on from one of them.

A token is known by its id and position, a visual token by a 64-bit key that only the same image
gives.
"""

import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.decoder import Decoder
from models.kv_cache import KVCache

IntArray = NDArray[np.int64]

# Conversations whose keys and values are kept: at 2B a page of 768 tokens is 44 MB.
KEPT_CONVERSATIONS = 2
# Keys of text: an id of up to 24 bits and its position. Those of visual tokens use all 64 bits
# and hardly ever fall into it.
_ID_BITS = 24
_TEXT_KEYS = range(2 ** (_ID_BITS + 20))


def text_keys(ids: IntArray, positions: IntArray) -> IntArray:
    """Return (L,) numbers that tokens (L,) share only at the same M-RoPE positions (3, L).

    A generated token stands behind everything seen; the same token in a conversation's history
    may stand elsewhere (after a video of more frames than it is wide), and its keys with it.
    """
    keys: IntArray = ids | (positions[0] << _ID_BITS)
    return keys


@dataclass
class Conversation:
    """A KV cache and the keys of the tokens in it."""

    cache: KVCache
    keys: list[int] = field(default_factory=list)

    def common_prefix(self, keys: IntArray) -> int:
        """Count of the tokens at the front that keys (L,) begin with too."""
        n = min(len(self.keys), len(keys))
        same = np.array(self.keys[:n], np.int64) == keys[:n]
        return n if same.all() else int(np.argmin(same))

    def truncate(self, n_tokens: int) -> None:
        """Forget all but the first `n_tokens`."""
        self.cache.truncate(n_tokens)
        del self.keys[n_tokens:]

    def has_visuals(self, start: int) -> bool:
        """Whether an image or video lies behind the first `start` tokens."""
        return any(key not in _TEXT_KEYS for key in self.keys[start:])

    def begins(self, other: "Conversation") -> bool:
        """Whether the other one holds all of this one, and perhaps more."""
        return self.keys == other.keys[: len(self.keys)]


class Conversations:
    """The conversations not in use; each is lent to one answer at a time."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        # Reentrant: the garbage collector may end a dropped answer, which then gives its
        # conversation back, in the middle of `take` on the same thread.
        self._lock = threading.RLock()
        self._idle: list[Conversation] = []

    def take(self, keys: IntArray) -> Conversation:
        """Return a conversation that holds the longest prefix any idle one has in common.

        The idle one is cut to the prefix and lent. But if it would lose a page by that (a
        question about other pages shares the system prompt), the prefix is copied and the
        idle one stays as it is.
        """
        with self._lock:
            best = max(self._idle, key=lambda each: each.common_prefix(keys), default=None)
            if best is None:
                return Conversation(self._decoder.new_cache())
            # One token at least is run, since logits come from running it.
            n_shared = min(best.common_prefix(keys), len(keys) - 1)
            if best.has_visuals(n_shared):
                return Conversation(best.cache.copy(n_shared), best.keys[:n_shared])
            self._idle = [each for each in self._idle if each is not best]
        best.truncate(n_shared)
        return best

    def give_back(self, conversation: Conversation) -> None:
        """Keep a conversation; it takes the place of any that it continues."""
        with self._lock:
            if any(conversation.begins(each) for each in self._idle):
                return
            self._idle = [each for each in self._idle if not each.begins(conversation)]
            self._idle.append(conversation)
            del self._idle[:-KEPT_CONVERSATIONS]
