"""Token embeddings that know how their tokens are spelled, while they are learnt.

Ten thousand rows that each learn alone from the few pages that show them need far more pages than
two cores can draw. Here a row is its own vector plus those of its letters (at their places) and
pairs of letters, so that every word teaches the letters of all others; fastText does the same with
n-grams (arXiv:1607.04606). `fold` adds them up into the plain table that the hub's format holds.
"""

from collections import Counter
from zlib import crc32

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

PLACES = 4  # from the front; two from the back
PAIRS = 4096  # rows that pairs of letters share by hash
COMMON = 4  # tokens that must hold a letter for its places to have rows of their own


def parts(text: str) -> list[tuple]:
    """Return what a token's spelling consists of: letters, letters by place, pairs, capitals."""
    letters = text.strip().lower()
    found: list[tuple] = [("letter", c) for c in letters]
    found += [("front", c, n) for n, c in enumerate(letters[:PLACES])]
    found += [("back", c, n) for n, c in enumerate(letters[:-3:-1])]
    found += [("pair", crc32(letters[n : n + 2].encode()) % PAIRS) for n in range(len(letters) - 1)]
    found += [("capital", min(n, PLACES)) for n, c in enumerate(text.strip()) if c.isupper()]
    return found


def spellings(tokenizer: Tokenizer) -> Tensor:
    """Return (V, K) rows of the letters' table for every token, 0 where there is none."""
    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    described = []
    for number in range(len(by_id)):
        text = tokenizer.decode([number])
        # a piece of a character has no letters; its bytes serve as such
        described.append(parts(by_id[number] if "\ufffd" in text else text))
    counts = Counter(part for each in described for part in set(each))
    kept = [p for p, n in counts.items() if n >= COMMON or p[0] in ("letter", "pair")]
    row = {part: number for number, part in enumerate(kept, start=1)}
    chosen = [[row[part] for part in each if part in row] for each in described]
    table = torch.zeros(len(chosen), max(map(len, chosen)), dtype=torch.int64)
    for number, rows in enumerate(chosen):
        table[number, : len(rows)] = torch.tensor(rows, dtype=torch.int64)
    return table


class SpelledEmbedding(nn.Embedding):
    """An embedding (V, E) whose rows have a part of their own and one from their letters."""

    spelled: Tensor

    def __init__(self, vocabulary: int, dim: int, spelled: Tensor) -> None:
        super().__init__(vocabulary, dim)
        self.register_buffer("spelled", spelled)
        self.letters = nn.Embedding(int(spelled.max()) + 1, dim, padding_idx=0)
        nn.init.normal_(self.weight, std=0.01)
        with torch.no_grad():
            nn.init.normal_(self.letters.weight, std=0.03)[0] = 0

    def forward(self, ids: Tensor) -> Tensor:
        """Return the embeddings (…, E) of ids; each is added up once however often it occurs."""
        unique, places = ids.unique(return_inverse=True)
        return self.rows(unique)[places]

    def rows(self, ids: Tensor) -> Tensor:
        """Return the embeddings (n, E) of ids (n,)."""
        spelled = self.spelled[ids]
        scale = (spelled > 0).sum(1, keepdim=True).clamp_min(1).rsqrt()
        summed = F.embedding_bag(spelled, self.letters.weight, mode="sum", padding_idx=0)
        return self.weight[ids] + scale * summed

    def table(self) -> Tensor:
        """Return the embeddings (V, E) of all tokens."""
        return self.rows(torch.arange(len(self.weight), device=self.weight.device))

    @torch.no_grad()
    def fold(self) -> nn.Embedding:
        """Return a plain embedding with the same rows."""
        plain = nn.Embedding(*self.weight.shape)
        plain.weight.copy_(self.table())
        return plain
