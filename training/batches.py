"""Batches: windows of drawn pages with their labels, queries and questions, padded to tensors.

A row of tokens is one page and everything asked of it: the page prefix and its cells (segment 0),
then any number of continuations (segments 1…), each of which sees segment 0 and itself. That is
exactly as if each had been run alone, for the price of one pass over the cells.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from training import tokenizer as templates
from training.config import CELL_PX
from training.corpus import Corpus, is_japanese
from training.pages import DrawnPage, draw
from training.questions import Asked, ask, read_line, wording
from training.samples import (
    Line,
    Window,
    character_classes,
    contiguous,
    crop,
    fit,
    phrase,
    scattered,
    window,
)

IGNORED = -100
WINDOW_CELLS, BAND_CELLS = 70, 300  # about what a window has, and a band or an overview
SCATTERED = {"en": 0.4, "ja": 0.2}  # of queries: words of several lines, in any order
LEGIBLE_PX = 12  # height of a line: of smaller ones the tower reads little, so none is asked for


@dataclass(frozen=True)
class Recipe:
    """What a batch holds. Shares are the odds of each kind of batch."""

    cells: int = 1150  # inked cells a batch aims at: measured best on two cores
    rows: int = 6
    columns: int = 16
    stretch: tuple[float, ...] = (1,)  # a batch's windows are so many times taller, and narrower
    windows: float = 1.0  # share of batches made of windows
    lines: float = 0.0  # share of batches made of single lines
    pages: float = 0.0  # share of batches made of whole pages
    bands: float = 0.0  # share of batches made of bands of a page, as the runtime cuts them
    overviews: float = 0.0  # share of batches made of small pictures of whole pages
    queries: int = 2  # phrases looked for in each window, and in as much of anything larger
    questions: int = 0  # questions asked of each window
    max_cells: int = 2000  # of a whole page, as the runtime resizes it
    band_cells: int = 2600  # of the page that bands are cut from (`--max-visual-tokens`)
    band_rows: int = 16
    overview_cells: int = 400
    buffer: int = 64  # drawn pages kept to cut windows from
    degraded: float = 0.38  # share of pages that are inverted, compressed or scanned
    english: float = 0.5  # share of pages in English
    plain: float = 0.0  # share of pages in a common font and size
    varied: float = 0.6  # share of pages that are resized, made bolder or coloured
    fresh: float = 1.0  # pages drawn anew for each batch


@dataclass(frozen=True)
class Batch:
    """One training step's tensors (B rows, C cells, L tokens, Q queries, T query tokens)."""

    patches: Tensor  # (B, 4C, 588) uint8
    positions: Tensor  # (B, 4C, 2) patch row and column
    cells: Tensor  # (B, C) True for real cells
    slots: Tensor  # (B, C, 8) classes, IGNORED where padded
    ids: Tensor  # (B, L) token ids
    position_ids: Tensor  # (3, B, L)
    segments: Tensor  # (B, L) 0 page, 1 retrieval suffix, 2… questions, -1 padding
    targets: Tensor  # (B, L) id of the next token where an answer is learnt, else IGNORED
    queries: Tensor  # (Q, K) token ids
    query_mask: Tensor  # (Q, K) True for real tokens
    query_rows: Tensor  # (Q,) the row a query belongs to
    query_ignored: Tensor  # (Q, B) True where another row holds the query's text too
    token_places: Tensor  # (T, 2) query and place of each token that carries ink
    token_cells: Tensor  # (T, B, C) int8: 1 the cells it stands on, -1 cells with the same text
    points: Tensor | None = None  # (P, 3) row, place of a target, place of a cell that shows it
    named: Tensor | None = None  # (N, 2) number of a real cell, id of a token that ends in it
    text: str = ""  # all that the windows show, lower case, a line each
    text_cells: NDArray[np.int64] | None = None  # (len(text),) number of a real cell, -1: none
    query_parts: tuple[tuple[str, ...], ...] = ()  # (Q) all that a page must hold, lower case
    token_words: tuple[tuple[str, int], ...] = ()  # (T) word up to a token, letters of the token
    features: Tensor | None = None  # (n, hidden) visual tokens, where they are known already
    again: bool = False  # shown before

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory; the loader calls this where there is a GPU."""
        return replace(self, **{name: value.pin_memory() for name, value in self._tensors()})

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        moved = {name: value.to(device, non_blocking=True) for name, value in self._tensors()}
        return replace(self, **moved)

    def _tensors(self) -> list[tuple[str, Tensor]]:
        named = [(f.name, getattr(self, f.name)) for f in fields(self)]
        return [(name, value) for name, value in named if isinstance(value, Tensor)]


@dataclass
class Tools:
    """Everything a worker needs to make batches."""

    corpus: Corpus
    fonts: Path
    tokenizer: Tokenizer
    classes: NDArray[np.int32]

    @classmethod
    def load(cls, work: Path) -> "Tools":
        """Load the prepared text, fonts, tokenizer and characters of a work folder."""
        return cls(
            Corpus(work / "text"),
            work / "fonts",
            Tokenizer.from_file(str(work / "tokenizer.json")),
            character_classes((work / "characters.txt").read_text(encoding="utf-8")),
        )


class Stream(torch.utils.data.IterableDataset):
    """Endless batches from a seed; workers draw disjoint pages."""

    def __init__(self, work: Path, recipe: Recipe, seed: int) -> None:
        self.work, self.recipe, self.seed = work, recipe, seed

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches for ever."""
        info = torch.utils.data.get_worker_info()
        worker = info.id if info else 0
        torch.set_num_threads(1)
        sampler = Sampler(Tools.load(self.work), self.recipe, self.seed * 1009 + worker)
        while True:
            yield sampler.batch()


class Sampler:
    """Cuts batches from a buffer of drawn pages that is renewed all the time."""

    def __init__(self, tools: Tools, recipe: Recipe, seed: int) -> None:
        self.tools, self.recipe, self.rng = tools, recipe, random.Random(seed)
        self.pages: list[DrawnPage] = []
        self.twin: int | None = None  # seed of the page whose near-copy comes next
        self.ids = templates.special_ids(tools.tokenizer)
        self.shape = (recipe.rows, recipe.columns)  # of the windows of a batch

    def batch(self) -> Batch:
        """Return the next batch."""
        r = self.recipe
        kinds = ["windows", "lines", "pages", "bands", "overviews"]
        kind = self.rng.choices(kinds, [getattr(r, each) for each in kinds])[0]
        taller = self.rng.choice(r.stretch)
        self.shape = (max(2, round(r.rows * taller)), max(3, round(r.columns / taller)))
        rows: list[tuple[Window, list[Asked]]] = []
        total = 0
        while total < r.cells and len(rows) < 64:
            found, asked = getattr(self, f"_{kind}")()
            if len(found.positions) >= 3:
                rows.append((found, asked))
                total += len(found.positions)
        return collate(rows, self.tools, self.ids, self.rng, r.queries)

    def _page(self, cells: int = WINDOW_CELLS) -> DrawnPage:
        """Return a page of the buffer to cut about so many cells from."""
        wanted = min(self.recipe.buffer, max(2, len(self.pages) + 1))
        share = self.recipe.fresh * cells / self.recipe.cells
        if len(self.pages) < wanted or self.rng.random() < share:
            page = self._draw(self.rng.getrandbits(48))
            if len(page.glyphs.codes) > 20:
                self.pages.append(page)
            if len(self.pages) > self.recipe.buffer:
                self.pages.pop(self.rng.randrange(len(self.pages) - 1))
        return self.rng.choice(self.pages)

    def _draw(self, seed: int, twin: int = 0) -> DrawnPage:
        r, tools = self.recipe, self.tools
        return draw(
            tools.corpus,
            tools.fonts,
            seed,
            degraded=r.degraded,
            english=r.english,
            plain=r.plain,
            varied=r.varied,
            twin=twin,
        )

    def _windows(self) -> tuple[Window, list[Asked]]:
        r, rng = self.recipe, self.rng
        page = self._page()
        rows, columns = self.shape
        best = None
        for _ in range(4):  # a window that shows something
            box = page.glyphs.boxes[rng.randrange(len(page.glyphs.boxes))]
            x = int(box[0]) - rng.randrange(columns * CELL_PX)
            y = int(box[1]) - rng.randrange(rows * CELL_PX)
            found = window(crop(page, x, y, rows, columns), self.tools.classes)
            if best is None or len(found.positions) > len(best.positions):
                best = found
            if len(found.positions) > 0.6 * rows * columns:
                break
        assert best is not None
        return best, ask(best, rng, r.questions, False, self.tools.corpus.asked)

    def _lines(self) -> tuple[Window, list[Asked]]:
        rng, page = self.rng, self._page()
        member = page.glyphs.lines == page.glyphs.lines[rng.randrange(len(page.glyphs.lines))]
        boxes = page.glyphs.boxes[member]
        (x0, y0), (x1, y1) = boxes[:, :2].min(0), boxes[:, 2:].max(0)
        margin = rng.randint(0, 8)
        part = crop(
            page,
            int(x0) - margin,
            int(y0) - margin,
            max(1, round((y1 - y0 + 2 * margin) / CELL_PX + 0.3)),
            min(48, max(1, int((x1 - x0 + 2 * margin) / CELL_PX) + 1)),
        )
        found = window(part, self.tools.classes)
        return found, read_line(found.lines[0], rng) if len(found.lines) == 1 else []

    def _pages(self) -> tuple[Window, list[Asked]]:
        r, tools = self.recipe, self.tools
        if self.twin is None:  # every other page is a near-copy of the one before it
            self.twin = self.rng.getrandbits(48)
            page = self._draw(self.twin)
        else:
            page = self._draw(self.twin, self.rng.randrange(1, 1 << 30))
            self.twin = None
        found = window(fit(page, r.max_cells), tools.classes)
        return found, ask(found, self.rng, 2 * max(r.questions, 1), True, tools.corpus.asked)

    def _bands(self) -> tuple[Window, list[Asked]]:
        """Return rows of a page in all its width, as `models.retriever` encodes pages."""
        r = self.recipe
        page = fit(self._page(BAND_CELLS), r.band_cells)
        height, width = (side // CELL_PX for side in page.image.shape[:2])
        first = self.rng.randrange(max(1, height - r.band_rows + 1))
        part = crop(page, 0, first * CELL_PX, min(r.band_rows, height), width)
        return window(part, self.tools.classes), []

    def _overviews(self) -> tuple[Window, list[Asked]]:
        page = fit(self._page(BAND_CELLS), self.recipe.overview_cells)
        return window(page, self.tools.classes), []


def collate(
    rows: list[tuple[Window, list[Asked]]],
    tools: Tools,
    ids: dict[str, int],
    rng: random.Random,
    queries: int,
) -> Batch:
    """Return one padded batch of windows and what is asked of them."""
    windows = [found for found, _ in rows]
    count, width = len(windows), max(len(w.positions) for w in windows)
    patches = np.zeros((count, 4 * width, windows[0].patches.shape[1]), np.uint8)
    positions = np.zeros((count, 4 * width, 2), np.int64)
    cells = np.zeros((count, width), np.bool_)
    slots = np.full((count, width, 8), IGNORED, np.int64)
    for row, found in enumerate(windows):
        n = len(found.positions)
        patches[row, : 4 * n] = found.patches
        positions[row, : 4 * n] = patch_positions(found.positions)
        cells[row, :n] = True
        slots[row, :n] = found.slots
    tensors = {
        "patches": torch.from_numpy(patches),
        "positions": torch.from_numpy(positions),
        "cells": torch.from_numpy(cells),
        "slots": torch.from_numpy(slots),
    }
    tensors["named"] = torch.from_numpy(_names(windows, tools.tokenizer))
    text, text_cells = _shown(windows)
    written = [sequence(found, asked, tools.tokenizer, ids, rng) for found, asked in rows]
    tensors |= _pad_sequences([each for each, _ in written], ids["<|endoftext|>"])
    points = [(row, *pair) for row, (_, pairs) in enumerate(written) for pair in pairs]
    tensors["points"] = torch.tensor(points, dtype=torch.int64).view(-1, 3)
    asked_for, parts, words = _queries(windows, width, tools, ids, rng, queries)
    return Batch(
        **tensors,
        **asked_for,
        text=text,
        text_cells=text_cells,
        query_parts=parts,
        token_words=words,
    )


def _shown(windows: list[Window]) -> tuple[str, NDArray[np.int64]]:
    """Return the text of windows, a line each, and the number of the cell of every letter."""
    text, cells, before = [], [], 0
    for found in windows:
        for line in found.lines:
            lowered = line.text.lower()
            if len(lowered) != len(line.cells):  # a letter that grows, such as a dotted capital I
                continue
            text.append(lowered)
            cells += [np.where(line.cells >= 0, line.cells + before, -1), [-1]]
        before += len(found.positions)
    joined = np.concatenate(cells) if cells else np.empty(0)
    return "".join(f"{line}\n" for line in text), joined.astype(np.int64)


def _names(windows: list[Window], tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Return (N, 2): every cell in which a token of a line ends, and the token's id."""
    found, before = [], 0
    for shown in windows:
        for line in filter(_is_legible, shown.lines):
            encoded = tokenizer.encode(f" {line.text}")  # as in a query, where a space comes first
            for token, (start, end) in zip(encoded.ids, encoded.offsets, strict=True):
                cell = line.cells[end - 2]
                if cell >= 0 and any(c.isalnum() for c in line.text[max(start - 1, 0) : end - 1]):
                    found.append((before + cell, token))
        before += len(shown.positions)
    return np.array(found, np.int64).reshape(-1, 2)


def patch_positions(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the (4C, 2) positions of the patches of cells (C, 2)."""
    offsets = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    return (2 * cells[:, None] + offsets).reshape(-1, 2)


def sequence(
    found: Window,
    asked: list[Asked],
    tokenizer: Tokenizer,
    ids: dict[str, int],
    rng: random.Random,
) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
    """Return a row (6, L): id, three positions, segment, target; and where targets are shown.

    The latter are pairs of places in the row: of a target, and of a cell that shows it.
    """

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text).ids

    system = templates.SYSTEM if asked and rng.random() < 0.5 else ""
    prefix = encode(system + templates.PAGE_PREFIX)
    start, cells = len(prefix), len(found.positions)
    page = np.zeros((6, start + cells), np.int64)
    page[0] = [*prefix, *[ids["<|image_pad|>"]] * cells]
    page[1:4, :start] = np.arange(start)
    page[1, start:] = start
    page[2:4, start:] = start + found.positions.T
    page[5] = IGNORED
    after = start + max(found.grid)
    parts = [page, _continuation(encode(templates.PAGE_SUFFIX), [], after, 1)]
    points: list[tuple[int, int]] = []
    for number, item in enumerate(asked):
        head = encode(f"<|vision_end|>{item.question}<|im_end|>\n<|im_start|>assistant\n")
        answer = tokenizer.encode(f"{item.answer}<|im_end|>")
        place = sum(part.shape[1] for part in parts) + len(head) - 1  # of the first target
        if item.cells is not None:
            for token, (begin, end) in enumerate(answer.offsets[:-1]):
                where = item.cells[begin:end]
                points += [(place + token, start + cell) for cell in np.unique(where[where >= 0])]
        parts.append(_continuation(head, answer.ids, after, number + 2))
    return np.concatenate(parts, axis=1), points


def _continuation(
    head: list[int], answer: list[int], start: int, segment: int
) -> NDArray[np.int64]:
    part = np.empty((6, len(head) + len(answer)), np.int64)
    part[0] = head + answer
    part[1:4] = start + np.arange(part.shape[1])
    part[4] = segment
    part[5] = IGNORED
    if answer:
        part[5, len(head) - 1 : -1] = answer
    return part


def _pad_sequences(sequences: list[NDArray[np.int64]], pad: int) -> dict[str, Tensor]:
    length = max(s.shape[1] for s in sequences)
    table = np.zeros((6, len(sequences), length), np.int64)
    table[0], table[4], table[5] = pad, -1, IGNORED
    for row, values in enumerate(sequences):
        table[:, row, : values.shape[1]] = values
    tensor = torch.from_numpy(table)
    return {
        "ids": tensor[0], "position_ids": tensor[1:4], "segments": tensor[4], "targets": tensor[5],
    }  # fmt: skip


def _is_legible(line: Line) -> bool:
    x0, y0, x1, y1 = line.box
    return min(x1 - x0, y1 - y0) >= LEGIBLE_PX


def _queries(
    windows: list[Window],
    width: int,
    tools: Tools,
    ids: dict[str, int],
    rng: random.Random,
    count: int,
) -> tuple[dict[str, Tensor], tuple[tuple[str, ...], ...], tuple[tuple[str, int], ...]]:
    """Return phrases from the windows as queries, and where each of their tokens stands.

    Beside the tensors: what a page must hold to be right, and of each token its word so far and
    its letters.
    """
    texts, owners, places, stands = [], [], [], []
    joined = [" ".join(line.text for line in w.lines).lower() for w in windows]
    for row, found in enumerate(windows):
        lines = [line for line in found.lines if len(line.text) > 2 and _is_legible(line)]
        wanted = count * max(1, round(len(found.positions) / WINDOW_CELLS))
        for line in _some_lines(lines, rng, wanted):
            language = "ja" if is_japanese(line.text) else "en"
            sought = scattered if rng.random() < SCATTERED[language] else contiguous
            text, cells, parts = sought(line, lines, rng)
            shown = text.lower() if rng.random() < 0.3 else text
            other = rng.choice(lines)
            second, _ = phrase(other, rng, is_japanese(other.text))
            language = "ja" if is_japanese(text) else "en"
            lead, tail = wording(language, tools.corpus.asked[language], second, rng)
            encoded = tools.tokenizer.encode(templates.query_text(f"{lead}{shown}{tail}"))
            first = len(lead)
            for place, (a, b) in enumerate(encoded.offsets):
                begin, end = max(a - first, 0), max(b - first, 0)
                piece = text[begin:end]
                if any(c.isalnum() for c in piece):
                    where = cells[begin:end]
                    word = text[_word_start(text, begin) : end].strip().lower()
                    places.append((len(texts), place))
                    stands.append((row, where[where >= 0], word, len(piece.strip())))
            texts.append((encoded.ids, tuple(part.lower() for part in parts)))
            owners.append(row)
    length = max((len(e) for e, _ in texts), default=1)
    table = np.full((max(len(texts), 1), length), ids["<|endoftext|>"], np.int64)
    mask = np.zeros(table.shape, np.bool_)
    for number, (encoded_ids, _) in enumerate(texts):
        table[number, : len(encoded_ids)] = encoded_ids
        mask[number, : len(encoded_ids)] = True
    ignored = np.array(
        [[row != own and all(part in other for part in parts) for row, other in enumerate(joined)]
         for (_, parts), own in zip(texts, owners, strict=True)]
    ).reshape(-1, len(windows))  # fmt: skip
    tensors = {
        "queries": torch.from_numpy(table),
        "query_mask": torch.from_numpy(mask),
        "query_rows": torch.tensor(owners, dtype=torch.int64),
        "query_ignored": torch.from_numpy(ignored.astype(np.bool_)),
        "token_places": torch.tensor(places, dtype=torch.int64).view(-1, 2),
        "token_cells": torch.from_numpy(_stand(windows, stands, width)),
    }
    words = tuple((word, size) for _, _, word, size in stands)
    return tensors, tuple(parts for _, parts in texts), words


def _word_start(text: str, at: int) -> int:
    """Return where the word begins whose letters go on at `at`; Japanese has no such words."""
    if is_japanese(text) or not text[at].isalnum():
        return at
    while at and text[at - 1].isalnum():
        at -= 1
    return at


def _some_lines(lines: list[Line], rng: random.Random, count: int) -> list[Line]:
    """Return up to `count` lines; those with figures twice as likely, as twins differ in them."""
    weights = [2 if any(c.isdigit() for c in line.text) else 1 for line in lines]
    chosen = dict.fromkeys(rng.choices(range(len(lines)), weights, k=count)) if lines else {}
    return [lines[i] for i in chosen]


def _stand(
    windows: list[Window], stands: list[tuple[int, NDArray[np.int64], str, int]], width: int
) -> NDArray[np.int8]:
    """Return (T, B, C): 1 on the cells of a token, -1 on other cells that show the same text.

    The end of a word is the same only after the same beginning: "ing" of "packing" is to be told
    from that of "cutting", or most tokens would be found on every page.
    """
    table = np.zeros((len(stands), len(windows), width), np.int8)
    lowered = [[(line.text.lower(), line.cells) for line in w.lines] for w in windows]
    for number, (row, where, word, size) in enumerate(stands):
        for other, lines in enumerate(lowered):
            for text, cells in lines:
                at = text.find(word)
                while at >= 0:
                    same = cells[at + len(word) - size : at + len(word)]
                    table[number, other, same[same >= 0]] = -1
                    at = text.find(word, at + 1)
        table[number, row, where] = 1
    return table
