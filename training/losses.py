"""What the model is taught, one function a lesson. All of them share one pass over the cells.

see     which character stands in each slot of a cell (dense, moves first)
match   which cells show this word (dense, both ways), then which window holds this phrase (MaxSim,
        ColPali arXiv:2407.01449)
recall  the same against all that the last batches showed, as the averaged weights encoded it (MoCo,
        He et al., arXiv:1911.05722): vectors of other weights would be told apart by their age
name    which tokens end in this cell, among all that the batch shows (dense)
read    the next token of an answer, and where to look for it (attention that is told where to look:
        Liu et al., arXiv:1609.04186)
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from training.batches import IGNORED, Batch
from training.model import Yomu, normalise
from training.samples import BLANK, SLOTS
from training.spelling import SpelledEmbedding

SLOT_DIM = 64
GROUP = 32  # rows whose phrases are looked for in one another
BLANK_KEPT = 0.05  # of the blank slots: the classifier over 3,700 characters is not free
POINTERS = 2  # layers, the last ones, whose first head looks where the next token stands
BLANK_SHARE = 0.15  # of the seeing loss: blank slots are many and easy


class Lessons(nn.Module):
    """The model with the heads that only training needs."""

    def __init__(self, model: Yomu, classes: int, spelled: Tensor | None = None) -> None:
        super().__init__()
        if spelled is not None:
            plain = model.model.embed_tokens
            model.model.embed_tokens = SpelledEmbedding(*plain.weight.shape, spelled)
        hidden = model.config.text.hidden_size
        self.yomu = model
        self.slots = nn.Linear(hidden, SLOTS * SLOT_DIM)
        self.characters = nn.Linear(SLOT_DIM, classes)
        self.log_scale = nn.Parameter(torch.tensor(3.0))  # of cosine similarities: exp(3) = 20

    def slot_logits(self, features: Tensor) -> Tensor:
        """Return class scores (n, 8, classes) of visual tokens (n, hidden)."""
        return self.characters(F.gelu(self.slots(features)).unflatten(-1, (SLOTS, SLOT_DIM)))


@dataclass(frozen=True)
class Encoded:
    """A batch after one pass.

    features  (n, hidden) visual tokens
    hidden    (B, L, hidden) hidden states; None: the decoder was not run
    mask      (B, L, L) True where a place sees another
    looked    (B, L, L) each: scores of the first heads of the last layers
    """

    features: Tensor
    hidden: Tensor | None
    mask: Tensor | None = None
    looked: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Remembered:
    """What a batch showed and asked for, as the averaged weights encode it.

    cells   (n, 128) vectors of its cells
    text    what they show, and `places` (len(text),) the cell of each letter, -1: none
    words   (t, 128) vectors of the words asked for, and their `spelling`
    known   cells of words that were looked for in the text
    """

    cells: Tensor
    text: str
    places: NDArray[np.int64]
    words: Tensor
    spelling: tuple[tuple[str, int], ...]
    known: dict[tuple[str, int], NDArray[np.int64]] = field(default_factory=dict)


class Memory:
    """The last batches: a word is told from those of a few windows more easily than of a folder."""

    def __init__(self, batches: int) -> None:
        self.kept: deque[Remembered] = deque(maxlen=batches)

    def cells(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return all cells kept (N, 128), and which of them (T, N) show words of a batch."""
        cells = torch.cat([each.cells for each in self.kept])
        same = [shown(batch.token_words, each.text, each.places, each.known) for each in self.kept]
        starts = np.cumsum([0, *(len(each.cells) for each in self.kept)])
        pairs = [np.add(s, [0, at]) for s, at in zip(same, starts[:-1], strict=True)]
        return cells, _table(np.concatenate(pairs), (len(batch.token_words), len(cells)), cells)

    def words(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return all words kept (N, 128), and which of them (n, N) cells of a batch show."""
        assert batch.text_cells is not None
        words = torch.cat([each.words for each in self.kept])
        spelled = [pair for each in self.kept for pair in each.spelling]
        pairs = shown(spelled, batch.text, batch.text_cells)[:, ::-1].copy()
        return words, _table(pairs, (int(batch.cells.sum()), len(words)), words)


def shown(
    words: Sequence[tuple[str, int]],
    text: str,
    places: NDArray[np.int64],
    known: dict[tuple[str, int], NDArray[np.int64]] | None = None,
) -> NDArray[np.int64]:
    """Return (n, 2): number of a word, and a cell that shows it, wherever it stands in a text.

    words   with the count of their last letters, those whose cells are meant
    places  (len(text),) cell of each letter, -1: none
    known   cells of words that were looked for in this text before; others are added
    """
    known = {} if known is None else known
    for word, size in words:
        if (word, size) not in known:
            known[word, size] = _places_of(word, size, text, places)
    cells = [known[each] for each in words]
    numbers = np.repeat(np.arange(len(words)), [len(each) for each in cells])
    return np.stack([numbers, np.concatenate([*cells, np.empty(0, np.int64)])], 1)


def _places_of(word: str, size: int, text: str, places: NDArray[np.int64]) -> NDArray[np.int64]:
    ends, at = [], text.find(word)
    while at >= 0:
        ends.append(at + len(word))
        at = text.find(word, at + 1)
    cells = places[np.array(ends, np.int64)[:, None] - np.arange(size, 0, -1)].ravel()
    return cells[cells >= 0]


def _table(pairs: NDArray[np.int64], shape: tuple[int, int], like: Tensor) -> Tensor:
    table = torch.zeros(shape, dtype=torch.bool, device=like.device)
    rows, columns = torch.from_numpy(pairs).to(like.device).T
    table[rows, columns] = True
    return table


def encode(model: Yomu, batch: Batch, image_token: int, decode: bool) -> Encoded:
    """Run the vision tower, and the decoder where a loss needs it."""
    features = see_cells(model, batch) if batch.features is None else batch.features
    if not decode:
        return Encoded(features, None)
    embeds = model.embed(batch.ids, features, image_token)
    pointers = model.model.layers[-POINTERS:]
    for layer in pointers:
        layer.watched = batch.points is not None and len(batch.points) > 0
    mask = segment_mask(batch.segments)
    hidden = model.model(embeds, batch.position_ids, mask)
    looked = tuple(layer.looked for layer in pointers if layer.watched)
    for layer in pointers:
        layer.watched, layer.looked = False, None
    return Encoded(features, hidden, mask[:, 0], looked)


def see_cells(model: Yomu, batch: Batch) -> Tensor:
    """Return the visual tokens (n, hidden) of a batch's cells, row-major."""
    patch_mask = batch.cells.repeat_interleave(4, dim=1)
    full = bool(batch.cells.all())
    features = model.visual(normalise(batch.patches), batch.positions, None if full else patch_mask)
    return features[batch.cells]


def segment_mask(segments: Tensor) -> Tensor:
    """Return (B, 1, L, L): causal, every continuation seeing the page and itself only."""
    length = segments.shape[1]
    keys, asks = segments[:, None, :], segments[:, :, None]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    own = torch.eye(length, dtype=torch.bool, device=segments.device)
    return (((keys == asks) | (keys == 0)) & causal | own)[:, None]


def see(lessons: Lessons, features: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the slot loss, and the accuracy on slots that hold a character."""
    labels = batch.slots[batch.cells]  # (n, 8)
    inked = labels != BLANK
    empty = ~inked & (torch.rand_like(labels, dtype=torch.float32) < BLANK_KEPT)
    chosen = inked | empty
    hidden = F.gelu(lessons.slots(features)).unflatten(-1, (SLOTS, SLOT_DIM))[chosen]
    logits = lessons.characters(hidden).float()
    truth = labels[chosen]
    losses = F.cross_entropy(logits, truth, reduction="none")
    ink = truth != BLANK
    loss = (1 - BLANK_SHARE) * losses[ink].mean() + BLANK_SHARE * losses[~ink].mean()
    right = (logits.argmax(-1) == truth)[ink].float().mean()
    return loss, {"see": loss.detach(), "slot_accuracy": right}


def query_vectors(model: Yomu, batch: Batch) -> Tensor:
    """Return unit vectors (Q, K, 128) of the batch's queries; right padding is never seen."""
    embeds = model.embed(batch.queries, None, -1)
    length = batch.queries.shape[1]
    places = torch.arange(length, device=embeds.device).expand(3, len(batch.queries), length)
    return model.project(model.model(embeds, places))


@dataclass(frozen=True)
class Vectors:
    """Unit vectors of what a batch shows and asks for.

    queries  (Q, K, 128)
    places   (B, L, 128) of the rows, is_cell (B, L) those of visual tokens
    """

    queries: Tensor
    places: Tensor
    is_cell: Tensor

    @property
    def cells(self) -> Tensor:
        """Of the visual tokens, (n, 128), row-major like batch.cells."""
        return self.places[self.is_cell]

    def words(self, batch: Batch) -> Tensor:
        """Of the tokens that carry ink, (T, 128)."""
        return self.queries[batch.token_places[:, 0], batch.token_places[:, 1]]


def vectors_of(model: Yomu, hidden: Tensor, batch: Batch, image_token: int) -> Vectors:
    """Project hidden states (B, L, hidden) of a batch, and encode its queries."""
    return Vectors(query_vectors(model, batch), model.project(hidden), batch.ids == image_token)


def match(lessons: Lessons, vectors: Vectors, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the word-to-cell and phrase-to-window losses with their accuracies."""
    retrieval = batch.segments.clamp_max(2) < 2
    retrieval &= batch.segments >= 0
    scale = lessons.log_scale.exp().clamp_max(100)
    near, near_right = _words_to_cells(vectors.words(batch), vectors.cells, batch, scale)
    far, far_right = _phrases_to_windows(vectors.queries, vectors.places, retrieval, batch, scale)
    parts = {"words": near.detach(), "phrases": far.detach()}
    return near + 0.5 * far, parts | {"word_recall": near_right, "phrase_recall": far_right}


def recall(
    lessons: Lessons,
    average: Lessons,
    vectors: Vectors,
    batch: Batch,
    image_token: int,
    memory: Memory,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the losses of `match` against the batches in memory, to which this one is added."""
    assert batch.text_cells is not None
    with torch.no_grad():
        hidden = encode(average.yomu, batch, image_token, True).hidden
        kept = vectors_of(average.yomu, hidden, batch, image_token)
    memory.kept.append(
        Remembered(kept.cells, batch.text, batch.text_cells, kept.words(batch), batch.token_words)
    )
    scale = lessons.log_scale.exp().clamp_max(100)
    on = batch.token_cells[:, batch.cells] == 1  # (T, n)
    forward = _told_apart(scale * vectors.words(batch), *memory.cells(batch), on)
    back = _told_apart(scale * vectors.cells, *memory.words(batch), on.T)
    near = (forward.mean() + back.mean()) / 2
    far, right = _phrases_to_memory(vectors.queries, kept, batch, scale, memory)
    parts = {"old_words": near.detach(), "old_phrases": far.detach(), "old_recall": right}
    return near + 0.5 * far, parts


def _phrases_to_memory(
    queries: Tensor, kept: Vectors, batch: Batch, scale: Tensor, memory: Memory
) -> tuple[Tensor, Tensor]:
    """Rank the window of each phrase among the batches in memory that do not hold it."""
    mask = batch.query_mask
    own = torch.einsum("qkd,qld->qkl", queries, kept.places[batch.query_rows])
    own = own.masked_fill(~kept.is_cell[batch.query_rows, None], -1e4).amax(-1)
    tokens = queries[mask]  # (n, 128); of what is kept only the best cell of each batch has a part
    with torch.no_grad():
        best = [each.cells[(tokens @ each.cells.T).argmax(1)] for each in memory.kept]
    scores = torch.stack([own[mask], *((tokens * each).sum(1) for each in best)], 1)
    sums = scores.new_zeros(len(queries), scores.shape[1])
    sums = sums.index_add(0, mask.nonzero()[:, 0], scores)
    logits = scale * sums / mask.sum(1)[:, None]
    holds = [
        [False, *(all(part in each.text for part in parts) for each in memory.kept)]
        for parts in batch.query_parts
    ]
    logits = logits.masked_fill(torch.tensor(holds, device=logits.device), -1e4)
    truth = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    return F.cross_entropy(logits, truth), (logits.argmax(1) == 0).float().mean()


@torch.autocast("cuda", enabled=False)
def _told_apart(asked: Tensor, kept: Tensor, same: Tensor, on: Tensor) -> Tensor:
    """Return the loss (r,) of each row that has something to find.

    asked  (R, 128) times the scale; kept (N, 128), the last of it is this batch's own
    same   (R, N) what is no other
    on     (R, n) what is to be found in the batch's own
    """
    has = on.any(1)
    scores = asked[has] @ kept.T
    own = scores[:, -on.shape[1] :].masked_fill(~on[has], -1e4).logsumexp(1)
    others = scores.masked_fill_(same[has], -1e4).logsumexp(1)  # in place: it is large
    return torch.logaddexp(others, own) - own


@torch.autocast("cuda", enabled=False)  # cosines times 20 need more digits than bf16 has
def _words_to_cells(
    words: Tensor, cells: Tensor, batch: Batch, scale: Tensor
) -> tuple[Tensor, Tensor]:
    stand = batch.token_cells[:, batch.cells]  # (T, n)
    scores = scale * (words @ cells.T)
    scores = scores.masked_fill(stand == -1, -1e4)
    on = stand == 1
    held = on.any(1)
    off_score = scores.masked_fill(~on, -1e4)
    forward = scores.logsumexp(1) - off_score.logsumexp(1)
    shown = on.any(0)
    back = (scores.logsumexp(0) - off_score.logsumexp(0))[shown]
    best = scores.argmax(1, keepdim=True)
    right = on.gather(1, best)[held].float().mean()
    return (forward[held].mean() + back.mean()) / 2, right


@torch.autocast("cuda", enabled=False)
def _phrases_to_windows(
    queries: Tensor, vectors: Tensor, retrieval: Tensor, batch: Batch, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Rank the windows of each group of rows: all pairs of a large batch would not fit.

    Half of the loss ranks windows, half ranks heaps of 1 to 8 of them: pages are long and short,
    and a long one finds something like every word by chance, which windows never teach.
    """
    found, right = [], []
    for start in range(0, len(vectors), GROUP):
        rows = slice(start, start + GROUP)
        asked = (batch.query_rows >= start) & (batch.query_rows < start + GROUP)
        mask = batch.query_mask[asked]
        best = best_matches(queries[asked], vectors[rows], retrieval[rows])  # (q, b, K)
        ignored = batch.query_ignored[asked, rows]
        truth = batch.query_rows[asked] - start
        heaps = heap_up(best.shape[1], best.device)
        for number, members in enumerate((torch.arange(best.shape[1], device=best.device), heaps)):
            scores, left_out = pile(best, ignored, truth, members)
            logits = scale * (scores * mask[:, None]).sum(-1) / mask.sum(1, keepdim=True)
            logits = logits.masked_fill(left_out, -1e4)
            found.append(F.cross_entropy(logits, members[truth], reduction="none"))
            if number == 0:
                right.append(logits.argmax(1) == truth)
    return torch.cat(found).mean(), torch.cat(right).float().mean()


def heap_up(count: int, device: torch.device) -> Tensor:
    """Return for each of `count` windows the number of its heap; heaps hold 1 to 8 windows."""
    heap = torch.empty(count, dtype=torch.int64)
    order, number, at = torch.randperm(count), 0, 0
    while at < count:
        size = 2 ** int(torch.randint(4, ()))
        heap[order[at : at + size]] = number
        number, at = number + 1, at + size
    return heap.to(device)


def pile(best: Tensor, ignored: Tensor, truth: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best match (q, heaps, K) of every token in each heap, and heaps to leave out.

    best     (q, b, K) of every token in each window
    ignored  (q, b) windows that hold the phrase as well; their heaps are left out, but for the one
             that truth (q,) lies in
    """
    count = int(members.max()) + 1
    where = members[None, :, None].expand_as(best)
    piled = best.new_full((len(best), count, best.shape[2]), -1e4)
    piled = piled.scatter_reduce(1, where, best, "amax")
    left_out = torch.zeros(len(best), count, device=best.device)
    left_out = left_out.scatter_reduce(1, where[..., 0], ignored.float(), "amax") > 0
    left_out[torch.arange(len(best), device=best.device), members[truth]] = False
    return piled, left_out


def name(model: Yomu, cells: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of naming the tokens that end in cells (n, hidden), and the share named.

    Queries ask for a few words of a window; this teaches all of them, through the same rows.
    """
    assert batch.named is not None
    tokens, which = batch.named[:, 1].unique(return_inverse=True)
    places, row = batch.named[:, 0].unique(return_inverse=True)
    scores = (cells[places] @ model.embedding(tokens).T).float()
    ends = torch.zeros_like(scores, dtype=torch.bool)
    ends[row, which] = True
    others = scores.masked_fill(ends, -1e4).logsumexp(1)
    loss = F.softplus(others[row] - scores[row, which]).mean()
    right = ends.gather(1, scores.argmax(1, keepdim=True)).float().mean()
    return loss, {"names": loss.detach(), "name_recall": right}


def best_matches(queries: Tensor, pages: Tensor, page_mask: Tensor) -> Tensor:
    """Return (Q, B, K): how well each vector of queries (Q, K, D) matches pages (B, L, D) at best.

    Summed over K it is MaxSim, the late-interaction score.
    """
    similar = torch.einsum("qkd,bld->qbkl", queries, pages)
    return similar.masked_fill(~page_mask[None, :, None], -1e4).amax(-1)


def read(model: Yomu, hidden: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the next-token loss on answers, and the share of tokens that come first."""
    asked = batch.targets != IGNORED
    logits = model.logits(hidden[asked]).float()
    truth = batch.targets[asked]
    loss = F.cross_entropy(logits, truth)
    right = (logits.argmax(-1) == truth).float().mean()
    return loss, {"read": loss.detach(), "read_tokens": right}


def point(encoded: Encoded, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of looking at the cells that show the next token, and how often that is so.

    A decoder of few layers finds out by itself where to look only after very many pages; the boxes
    of all characters are known, so it is told.
    """
    assert batch.points is not None and encoded.mask is not None
    places, which = batch.points[:, :2].unique(dim=0, return_inverse=True)
    row, place = places.T
    shown = torch.zeros_like(encoded.mask[row, place])
    shown[which, batch.points[:, 2]] = True
    seen = encoded.mask[row, place]
    found, right = [], []
    for looked in encoded.looked:
        scores = looked[row, place].float().masked_fill(~seen, -1e4)
        found.append((scores.logsumexp(1) - scores.masked_fill(~shown, -1e4).logsumexp(1)).mean())
        right.append(shown.gather(1, scores.argmax(1, keepdim=True)).float().mean())
    loss = torch.stack(found).mean()
    return loss, {"point": loss.detach(), "pointed": torch.stack(right).amax()}
