"""A reading head: what the vision tower saw of a page to lines of text, by CTC.

    python -m training.reading draw WORK --pages 4000 --seed 1      pages as the tower sees them
    python -m training.reading run WORK --minutes 60                goes on from WORK/reading.pt
    python -m training.reading evaluate WORK [DOCUMENTS]            character error rates
    python -m training.reading export WORK OUT.safetensors          averaged weights, fp16

The tower stands still, so pages are drawn and seen once, by the shipped model in the views that it
makes of a page, and kept in WORK/reading; several `draw` with other seeds may run beside `run`.

All views of a page land on one lattice of slots, 7×14 px of the page each: the tower has learnt to
name the character in each of a cell's 8 slots. Blocks of depthwise convolutions (ConvNeXt,
arXiv:2201.03545) look at the slots around, every half of a slot names a character or none, and CTC
(Graves et al., ICML 2006) makes a line of text of the halves of one row of the lattice.
Measurements go to WORK/reading.jsonl, a line each.
"""

import json
import math
import random
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

import models
from benchmarks.text_scores import edit_distance
from models.engine import EngineOptions
from models.images import VisualInput, preprocess
from models.retriever import Retriever
from models.vision import Patches
from training.config import CELL_PX
from training.corpus import Corpus
from training.evaluate import HELD_SEED, real_pages
from training.pages import DrawnPage, Glyphs, draw
from training.samples import BLANK, SLOTS, UNKNOWN, character_classes

SIGHT = Path(__file__).with_name("sight.safetensors")  # what the tower's slots mean
HIDDEN, SLOT, WIDTH = 256, 64, 128  # features of a cell, of a slot, and of a slot in the blocks
BLOCKS, AROUND = 3, (3, 9)  # rows and columns of slots that a block looks at
SLOT_PX = 14  # height: two rows of slots in a cell, four columns
LOOK = {"degraded": 0.3, "english": 0.5, "plain": 0.2, "varied": 0.7}  # shares of drawn pages
FEWEST = 60  # characters of a page that is worth keeping
HELD_PAGES = 10
PARTS, PART_ROWS = 2, 48  # of pages, and half rows of each, a step
OVERVIEWS, ALONE = 0.2, 0.15  # shares of parts: of the overview, of the cells without shifted ones
ALIKE, FREQUENT, ANY = 4, 60, 60  # classes beside a step's own: like each, by frequency, evenly
EMPTY_WEIGHT, WORST = 0.3, 400.0  # of rows without text; the most that a row may add to the loss
WARM, FALLING, LEAST_RATE = 100, 0.6, 0.02  # steps; share of the time; of the rate, at the end
TAUGHT = ("slots.", "characters.", "shortcut.")  # what the tower knows of slots already,
TAUGHT_RATE = 0.15  # so it moves at this share of the learning rate
EMA = 0.995  # of the weights: about the last 200 steps
LOG_STEPS, HELD_STEPS, SAVED_S = 50, 400, 180
app = typer.Typer(add_completion=False, help=__doc__)


class Alphabet:
    """The classes: 0 blank, 1 unknown, 2… the characters, the last one a space."""

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self.of_code = character_classes(characters)
        self.space = len(characters) + 2
        self.size = len(characters) + 3

    @classmethod
    def known(cls, file: Path = SIGHT) -> "Alphabet":
        """Return the alphabet of a file whose metadata holds its characters."""
        with safe_open(file, "pt") as saved:
            return cls(saved.metadata()["characters"])

    def text(self, classes: Iterable[int]) -> str:
        """Return classes as a string; what is unknown shows as U+FFFD."""
        return "".join(
            " " if c == self.space else "\ufffd" if c == UNKNOWN else self.characters[c - 2]
            for c in classes
        )


@dataclass(frozen=True)
class Cells:
    """What the tower saw of the inked cells of a page.

    features  (n, 256) float16
    at        (n, 2) int16: row and column
    shift     1: the cells lie half a cell further down and to the right, else 0
    """

    features: NDArray[np.float16]
    at: NDArray[np.int16]
    shift: int = 0

    def slots(self) -> NDArray[np.int64]:
        """Return (n, 8, 2): row and column of every slot on the lattice of the page."""
        corner = self.at.astype(np.int64) * (2, 4) + np.array([1, 2]) * self.shift
        return corner[:, None] + np.stack(np.divmod(np.arange(SLOTS), 4), 1)

    def below(self, row: int) -> "Cells":
        """Return the cells as they lie on a page that begins at a row of cells of this one."""
        at = self.at - np.array([row, 0], np.int16)
        kept = at[:, 0] >= -self.shift  # half of a shifted cell of the row above is still seen
        return replace(self, features=self.features[kept], at=at[kept])


@dataclass(frozen=True)
class SeenPage:
    """A page as the tower saw it, with its characters.

    cells     of its bands, and of the same bands shifted
    overview  cells of a smaller picture of the page; may be none
    grid      rows and columns of the page in cells
    small     the same of the overview; (0, 0): there is none
    glyphs    with boxes in pixels of the page at 28 px a cell
    """

    cells: tuple[Cells, Cells]
    overview: Cells
    grid: tuple[int, int]
    small: tuple[int, int]
    glyphs: Glyphs
    language: str

    def save(self, path: Path) -> None:
        """Write the page as .npz, only under its name when complete."""
        named = zip(("cells", "shifted", "overview"), (*self.cells, self.overview), strict=True)
        arrays = {f"{name}.{part}": getattr(c, part) for name, c in named for part in _KEPT}
        arrays |= {"grid": np.array(self.grid), "small": np.array(self.small)}
        arrays |= {f"glyphs.{name}": value for name, value in vars(self.glyphs).items()}
        partial = path.with_suffix(".part")
        with partial.open("wb") as file:
            np.savez(file, **arrays, language=np.array(self.language))
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> "SeenPage":
        """Read a page that `save` wrote."""
        with np.load(path) as saved:
            arrays = dict(saved)
        cells, further, overview = (
            Cells(*(arrays[f"{name}.{part}"] for part in _KEPT), shift)
            for name, shift in (("cells", 0), ("shifted", 1), ("overview", 0))
        )
        parts = ("codes", "boxes", "lines", "spaced")
        glyphs = Glyphs(*(arrays[f"glyphs.{part}"] for part in parts))
        grid, small = (tuple(arrays[name].tolist()) for name in ("grid", "small"))
        return cls((cells, further), overview, grid, small, glyphs, str(arrays["language"]))


_KEPT = ("features", "at")


@dataclass(frozen=True)
class Part:
    """Some rows of a page, to be read.

    cells  what is seen of it
    shape  (R, C) rows and columns of its lattice of slots
    rows   the classes that a row of the lattice spells; rows without text are left out
    """

    cells: tuple[Cells, ...]
    shape: tuple[int, int]
    rows: dict[int, list[int]]


def see(retriever: Retriever, page: DrawnPage) -> SeenPage:
    """Return a page as the runtime's tower sees it."""
    image, options = Image.fromarray(page.image), retriever.options
    visual = preprocess(image, options.min_pixels, options.max_pixels)
    seen: dict[str, list[tuple[NDArray[np.float16], NDArray[np.int16]]]] = defaultdict(list)
    small = (0, 0)
    for view in retriever.views(image, visual):
        found = retriever._vision.encode(Patches.choose(view.image, options.skip_blank_blocks))
        at = np.argwhere(found.kept.reshape(_grid(view.image))) + (view.row, 0)
        kind = "overview" if view.is_overview else "shifted" if view.is_shifted else "cells"
        seen[kind].append((found.features.astype(np.float16), at.astype(np.int16)))
        small = _grid(view.image) if view.is_overview else small
    grid = _grid(visual)
    scale = np.array(grid[::-1]) * CELL_PX / (image.width, image.height)
    boxes = (page.glyphs.boxes * np.tile(scale, 2)).astype(np.float32)
    glyphs = replace(page.glyphs, boxes=boxes)
    return SeenPage(
        (_joined(seen["cells"], 0), _joined(seen["shifted"], 1)),
        _joined(seen["overview"], 0),
        grid,
        small,
        glyphs,
        page.language or ("ja" if (glyphs.codes >= 0x3000).mean() > 0.1 else "en"),
    )


def _grid(image: VisualInput) -> tuple[int, int]:
    """Return the rows and columns of an image in cells, each 2×2 patches."""
    return int(image.grid_thw[1]) // 2, int(image.grid_thw[2]) // 2


def _joined(parts: list[tuple[NDArray[np.float16], NDArray[np.int16]]], shift: int) -> Cells:
    none = np.empty((0, HIDDEN), np.float16), np.empty((0, 2), np.int16)
    features, at = (np.concatenate(each) for each in zip(none, *parts, strict=True))
    return Cells(features, at, shift)


def spelled(page: SeenPage, grid: tuple[int, int], alphabet: Alphabet) -> dict[int, list[int]]:
    """Return what the half rows of a grid of cells spell, from left to right.

    A character belongs to the half row that its middle lies in.
    """
    glyphs = page.glyphs
    boxes = glyphs.boxes * np.tile(np.array(grid[::-1]) / page.grid[::-1], 2)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    of_row = np.floor(middle[:, 1] / SLOT_PX).astype(int)
    classes = alphabet.of_code[glyphs.codes]
    found: dict[int, list[int]] = {}
    last = -1
    for n in np.lexsort((middle[:, 0], of_row)):
        row = int(of_row[n])
        if not 0 <= row < 2 * grid[0]:
            continue
        if row not in found:
            found[row] = []
        elif _is_apart(glyphs, boxes, last, n):
            found[row].append(alphabet.space)
        found[row].append(int(classes[n]))
        last = n
    return found


def _is_apart(glyphs: Glyphs, boxes: NDArray[np.float64], left: int, right: int) -> bool:
    """Whether a space stands between neighbours: as drawn, of two lines, or far from each other."""
    gap = boxes[right, 0] - boxes[left, 2]
    if glyphs.lines[left] != glyphs.lines[right]:
        return True
    height = max(boxes[right, 3] - boxes[right, 1], 1)
    return bool((glyphs.spaced[right] and gap > -1) or gap > height)


def whole(page: SeenPage, alphabet: Alphabet) -> Part:
    """Return all of a page."""
    rows, columns = page.grid
    return Part(page.cells, (2 * rows, 4 * columns), spelled(page, page.grid, alphabet))


def cut(page: SeenPage, alphabet: Alphabet, rng: random.Random) -> Part:
    """Return some rows of a page, or its overview, as a step of training reads them."""
    if page.small[0] and rng.random() < OVERVIEWS:
        rows, columns = page.small
        text = spelled(page, page.small, alphabet)
        return Part((page.overview,), (2 * rows, 4 * columns), text)
    rows, columns = page.grid
    height = min(PART_ROWS // 2, rows)  # in cells
    top = rng.randrange(rows - height + 1)
    kept = page.cells[:1] if rng.random() < ALONE else page.cells
    text = spelled(page, page.grid, alphabet).items()
    inside = {row - 2 * top: line for row, line in text if 0 <= row - 2 * top < 2 * height}
    return Part(tuple(each.below(top) for each in kept), (2 * height, 4 * columns), inside)


class Block(nn.Module):
    """Looks at the slots around each slot; adds what it sees."""

    def __init__(self) -> None:
        super().__init__()
        padding = AROUND[0] // 2, AROUND[1] // 2
        self.around = nn.Conv2d(WIDTH, WIDTH, AROUND, padding=padding, groups=WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 2 * WIDTH)
        self.down = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return x (1, R, C, WIDTH); where the mask (1, R, C, 1) is 0 nothing is added."""
        y = self.around(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.down(F.gelu(self.up(self.norm(y)))) * mask


class ReadingHead(nn.Module):
    """Features of cells to scores of classes; the shipped graph has the names of its parameters."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.slots = nn.Linear(HIDDEN, SLOTS * SLOT)
        self.widen = nn.Linear(SLOT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.frames = nn.Linear(WIDTH, 2 * SLOT)  # the halves of a slot
        self.shortcut = nn.Linear(SLOT, 2 * SLOT)
        self.characters = nn.Linear(SLOT, n_classes)

    @torch.no_grad()
    def begin(self, file: Path = SIGHT) -> None:
        """Read each slot by itself at first, both halves alike, as lesson `see` taught it."""
        known = {name: value.float() for name, value in load_file(file).items()}
        for part in ("weight", "bias"):
            value = known[f"characters.{part}"]
            getattr(self.slots, part).copy_(known[f"slots.{part}"])
            getattr(self.characters, part)[: len(value)] = value
            getattr(self.characters, part)[len(value)] = value[BLANK]  # a space looks like nothing
        self.characters.bias[-1] = -2
        eye = torch.eye(SLOT)
        self.shortcut.weight.copy_(torch.cat([eye, eye]))
        self.shortcut.bias.zero_()
        self.frames.weight.mul_(0.1)

    def lattice(self, cells: Sequence[Cells], shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the mean (R, C, SLOT) of all cells that show a slot, and (R, C) if any does."""
        size = torch.tensor(shape)
        total, count = torch.zeros(shape[0] * shape[1], SLOT), torch.zeros(shape[0] * shape[1], 1)
        for each in cells:
            at = torch.from_numpy(each.slots()).reshape(-1, 2)
            inside = ((at >= 0) & (at < size)).all(1)
            places = (at[:, 0] * shape[1] + at[:, 1])[inside]
            features = torch.from_numpy(each.features.astype(np.float32))
            slots = F.gelu(self.slots(features)).view(-1, SLOT)[inside]
            total = total.index_add(0, places, slots)
            count = count.index_add(0, places, torch.ones(len(places), 1))
        return (total / count.clamp(min=1)).view(*shape, SLOT), count.view(shape) > 0

    def forward(self, part: Part) -> tuple[Tensor, Tensor]:
        """Return states (R, 2C, SLOT) of the frames of a part, and (R, 2C) which of them are seen.

        A frame is half a slot; `characters` turns its state into scores.
        """
        slots, seen = self.lattice(part.cells, part.shape)
        mask = seen[None, :, :, None].float()
        x = self.widen(slots)[None] * mask  # (1, R, C, WIDTH)
        for block in self.blocks:
            x = block(x, mask)
        states = self.frames(x[0]) + self.shortcut(slots)  # (R, C, 2·SLOT)
        return states.view(part.shape[0], -1, SLOT), seen.repeat_interleave(2, 1)

    @torch.no_grad()
    def read(self, part: Part) -> list[list[int]]:
        """Return the classes that every row of the lattice spells, the likeliest of each frame."""
        found = []
        for states, seen in zip(*self(part), strict=True):
            best = torch.zeros(len(seen), dtype=torch.long)  # what is not seen is blank
            best[seen] = self.characters(states[seen]).argmax(-1)
            found.append(torch.unique_consecutive(best).tolist())
        return [[c for c in row if c != BLANK] for row in found]


class Rivals:
    """Chooses the classes that a step tells apart: with all of them scores would cost the most.

    Characters that look like those of the page are always among them, or they would be confused.
    """

    def __init__(self, alphabet: Alphabet, weight: Tensor, rng: random.Random) -> None:
        self.alphabet, self.rng = alphabet, rng
        self.counts = np.ones(len(alphabet.characters))  # how often each was to be read
        rows = F.normalize(weight.detach(), dim=1)  # (classes, SLOT)
        self.alike = (rows @ rows.T).topk(ALIKE + 1, dim=1).indices[:, 1:].numpy()  # 0: itself

    def choose(self, parts: Sequence[Part]) -> NDArray[np.int64]:
        """Return the classes of the parts, those alike and drawn ones, rising from blank."""
        lines = [row for part in parts for row in part.rows.values()]
        own = np.concatenate([np.empty(0), *lines]).astype(np.int64)
        known = own[(own > UNKNOWN) & (own < self.alphabet.space)]
        np.add.at(self.counts, known - 2, 1)
        alike = self.alike[np.unique(own)].ravel()
        every = range(2, self.alphabet.space)
        drawn = self.rng.choices(every, self.counts.tolist(), k=FREQUENT)
        drawn += self.rng.choices(every, k=ANY)
        return np.unique([BLANK, UNKNOWN, self.alphabet.space, *own, *alike, *drawn])


def ctc(
    head: ReadingHead, part: Part, classes: NDArray[np.int64], rng: random.Random
) -> tuple[Tensor, int]:
    """Return the CTC loss of a part, summed over its rows, and how many classes they spell.

    classes  the ones to tell apart, rising, blank first; others are as if they did not exist
    """
    states, seen = head(part)
    rows = _taught(part, seen.any(1).tolist(), rng)
    if not rows:
        return states.new_zeros(()), 0
    states, seen = states[rows], seen[rows]
    weight, bias = head.characters.weight[classes], head.characters.bias[classes]
    scores = torch.full((*seen.shape, len(classes)), -20.0)  # what is not seen is blank
    scores[:, :, 0] = 0
    scores[seen] = F.log_softmax(states[seen] @ weight.T + bias, -1)
    lines = [np.searchsorted(classes, part.rows.get(row, [])) for row in rows]
    targets = torch.from_numpy(np.concatenate(lines).astype(np.int64))
    lengths = torch.tensor([len(line) for line in lines])
    frames = torch.full((len(rows),), seen.shape[1])
    loss = F.ctc_loss(
        scores.transpose(0, 1), targets, frames, lengths, reduction="none", zero_infinity=True
    )
    loss = torch.where(lengths > 0, loss, loss * EMPTY_WEIGHT).clamp(max=WORST)
    return loss.sum(), int(lengths.sum())


def _taught(part: Part, seen: list[bool], rng: random.Random) -> list[int]:
    """Return the rows with text and some that are seen and have none."""
    lines = [row for row in part.rows if seen[row]]
    empty = [row for row, is_seen in enumerate(seen) if is_seen and row not in part.rows]
    rng.shuffle(empty)
    return lines + empty[: max(2, len(lines) // 4)]


def error_rates(
    head: ReadingHead, alphabet: Alphabet, pages: Iterable[SeenPage]
) -> dict[str, float]:
    """Return the character error rate by language, without spaces and with them.

    Of rows with three characters or more; text that is read in another row counts as wrong.
    """
    wrong: dict[str, int] = defaultdict(int)
    total: dict[str, int] = defaultdict(int)
    for page in pages:
        part = whole(page, alphabet)
        found = head.read(part)
        for row, classes in part.rows.items():
            wanted, given = alphabet.text(classes), alphabet.text(found[row])
            letters = wanted.replace(" ", "")
            if len(letters) < 3:
                continue
            pairs = {"": (letters, given.replace(" ", "")), " with spaces": (wanted, given)}
            for name, (one, other) in pairs.items():
                wrong[page.language + name] += edit_distance(one, other)
                total[page.language + name] += len(one)
    return {name: wrong[name] / total[name] for name in sorted(total)}


class Shelf:
    """Drawn pages of a folder; those that come while training count as well."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng = folder, rng
        self.look()

    def look(self) -> None:
        """List the pages anew. Raises BadParameter if there are none."""
        self.files = [p for p in sorted(self.folder.glob("*.npz")) if not p.name.startswith("held")]
        if not self.files:
            raise typer.BadParameter(f"{self.folder} holds no pages: run `draw` first")

    def page(self) -> SeenPage:
        """Return one of the pages."""
        return SeenPage.load(self.rng.choice(self.files))


class Trainer:
    """Head, its average, optimiser and where they stand."""

    def __init__(self, work: Path, rate: float, seed: int, start: Path | None = None) -> None:
        self.work, self.rate = work, rate
        path = work / "reading.pt"
        saved = torch.load(path, weights_only=False) if path.exists() else None
        self.step, self.seconds = (saved["step"], saved["seconds"]) if saved else (0, 0.0)
        self.rng = random.Random(seed * 1_000_003 + self.step)
        self.alphabet = Alphabet.known()
        self.head = ReadingHead(self.alphabet.size)
        if start and not saved:
            load(self.head, self.alphabet, start)
        elif not saved:
            self.head.begin()
        self.average = AveragedModel(self.head, multi_avg_fn=_average)
        self.optimiser = _optimiser(self.head)
        if saved:
            self.head.load_state_dict(saved["head"])
            self.average.load_state_dict(saved["average"])
            self.optimiser.load_state_dict(saved["optimiser"])
        self.rivals = Rivals(self.alphabet, self.head.characters.weight, self.rng)
        self.rivals.counts = saved["counts"] if saved else self.rivals.counts
        self.started = time.monotonic()

    def save(self) -> None:
        """Write WORK/reading.pt, replacing the last one only when complete."""
        state = {
            "head": self.head.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "counts": self.rivals.counts,
            "step": self.step,
            "seconds": self.seconds + time.monotonic() - self.started,
        }
        partial = self.work / "reading.part"
        torch.save(state, partial)
        partial.replace(self.work / "reading.pt")

    def train_on(self, pages: Sequence[SeenPage], warm: int, left: float = 1.0) -> float:
        """Take one step and return its loss a character; NaN: nothing was taught.

        warm  steps of this call so far: the rate rises at first
        left  share of the time that is left: the rate falls over the last of it (arXiv:2405.18392)
        """
        scale = min(1.0, (warm + 1) / WARM, max(LEAST_RATE, left / FALLING))
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * scale * group["share"]
        parts = [cut(page, self.alphabet, self.rng) for page in pages]
        classes = self.rivals.choose(parts)
        losses, counts = zip(*(ctc(self.head, p, classes, self.rng) for p in parts), strict=True)
        loss = torch.stack(losses).sum() / max(sum(counts), 1)
        if not loss.requires_grad:
            return math.nan
        self.optimiser.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.head.parameters(), 1.0)
        if not torch.isfinite(norm):
            return math.nan
        self.optimiser.step()
        self.average.update_parameters(self.head)
        self.step += 1
        return loss.item()

    def log(self, what: str, values: dict[str, float]) -> None:
        """Append a line to reading.jsonl and show it."""
        now = self.seconds + time.monotonic() - self.started
        line = {"what": what, "step": self.step, "minutes": round(now / 60, 2)}
        line |= {name: float(f"{value:.5g}") for name, value in values.items()}
        with (self.work / "reading.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def _optimiser(head: ReadingHead) -> torch.optim.Optimizer:
    """Return AdamW; what the tower has taught already comes last, at a share of the rate."""
    new = [p for name, p in head.named_parameters() if not name.startswith(TAUGHT)]
    taught = [p for name, p in head.named_parameters() if name.startswith(TAUGHT)]
    groups = [{"params": new, "share": 1.0}, {"params": taught, "share": TAUGHT_RATE}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01)


@torch.no_grad()
def _average(averages: list[Tensor], currents: list[Tensor], taken: Tensor) -> None:
    """Move averages towards the weights: over all steps at first, over the last ones later."""
    torch._foreach_lerp_(averages, currents, max(1 - EMA, 10 / (10 + float(taken))))


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect signals that ask to stop instead of dying of them."""
    caught: list[int] = []
    numbers = signal.SIGTERM, signal.SIGINT
    before = [signal.signal(each, lambda number, _: caught.append(number)) for each in numbers]
    try:
        yield caught
    finally:
        for each, handler in zip(numbers, before, strict=True):
            signal.signal(each, handler)


def load(head: ReadingHead, alphabet: Alphabet, file: Path) -> None:
    """Set the weights of a file that `export` wrote.

    Raises ValueError if it tells other characters apart.
    """
    if Alphabet.known(file).characters != alphabet.characters:
        raise ValueError(f"{file}: not the {len(alphabet.characters)} characters of {SIGHT.name}")
    head.load_state_dict({name: value.float() for name, value in load_file(file).items()})


def averaged(work: Path) -> tuple[ReadingHead, Alphabet]:
    """Return the averaged weights of WORK/reading.pt."""
    alphabet = Alphabet.known()
    average = AveragedModel(ReadingHead(alphabet.size))
    average.load_state_dict(torch.load(work / "reading.pt", weights_only=False)["average"])
    return average.module.eval(), alphabet


def tower(model: str) -> Retriever:
    """Return the part of a model folder that sees pages."""
    return models.load(model, device="cpu", options=EngineOptions(n_threads=1)).retriever


def keep(work: Path, model: str, seed: int, names: Sequence[str]) -> list[Path]:
    """Draw pages, one for each name that WORK/reading lacks, and keep what is seen of them.

    Pages with next to no text are left out. Returns the files that there are then.
    """
    folder = work / "reading"
    folder.mkdir(exist_ok=True)
    files = [folder / f"{name}.npz" for name in names]
    missing = [n for n, file in enumerate(files) if not file.exists()]
    if missing:
        corpus, retriever = Corpus(work / "text"), tower(model)
        for n in missing:
            page = draw(corpus, work / "fonts", seed + n, **LOOK)
            if len(page.glyphs.codes) >= FEWEST:
                see(retriever, page).save(files[n])
    return [file for file in files if file.exists()]


def held_pages(work: Path, model: str) -> list[SeenPage]:
    """Return pages that training never draws, made once and kept."""
    names = [f"held-{n:05d}" for n in range(HELD_PAGES)]
    return [SeenPage.load(file) for file in keep(work, model, HELD_SEED, names)]


Work = Annotated[Path, typer.Argument(help="folder made by `training.train prepare`")]
Model = Annotated[str, typer.Option(help="model folder whose tower sees the pages")]
Threads = Annotated[int, typer.Option(help="torch threads")]


@app.command("draw")
def draw_pages(
    work: Work,
    pages: Annotated[int, typer.Option(help="how many")] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="other pages than with another seed")] = 1,
    model: Model = "embedded",
) -> None:
    """Draw pages and keep what the tower sees of them in WORK/reading."""
    names = [f"{seed}-{n:05d}" for n in range(pages)]
    first = (seed + 1) * 10_000_000_000  # far from the held-out pages' seeds, and other calls'
    print(f"{len(keep(work, model, first, names))} pages of {pages} in {work / 'reading'}")


@app.command()
def run(
    work: Work,
    minutes: Annotated[
        float, typer.Option(help="stop after this long, the rate falling")
    ] = math.inf,
    steps: Annotated[int, typer.Option(help="stop after this many more steps")] = sys.maxsize,
    rate: Annotated[float, typer.Option(min=0, help="learning rate")] = 2e-3,
    threads: Threads = 1,
    seed: Annotated[int, typer.Option(help="of what is shown, and of weights")] = 1,
    start: Annotated[
        Path | None, typer.Option(help="file of `export` to begin with, without a checkpoint")
    ] = None,
    model: Model = "embedded",
) -> None:
    """Train the head from WORK/reading.pt or the tower's slots, until told to stop."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    trainer = Trainer(work, rate, seed, start)
    shelf = Shelf(work / "reading", trainer.rng)
    held = held_pages(work, model)
    with _signals() as stopping:
        _loop(trainer, shelf, held, 60 * minutes, steps, stopping)


def _loop(
    trainer: Trainer,
    shelf: Shelf,
    held: list[SeenPage],
    seconds: float,
    steps: int,
    stopping: list[int],
) -> None:
    """Train until the time is over, the step count or a signal; always leave a checkpoint."""
    saved, deadline = time.monotonic(), time.monotonic() + seconds
    losses: list[float] = []
    for done in range(steps):
        left = 1.0 if seconds == math.inf else (deadline - time.monotonic()) / seconds
        losses.append(trainer.train_on([shelf.page() for _ in range(PARTS)], done, left))
        if len(losses) == LOG_STEPS:
            rate = trainer.optimiser.param_groups[0]["lr"]
            means = {"loss": float(np.nanmean(losses)), "rate": rate}
            trainer.log("train", means | {"pages": len(shelf.files)})
            losses.clear()
            shelf.look()
        if time.monotonic() - saved > SAVED_S:
            trainer.save()
            saved = time.monotonic()
        if stopping or time.monotonic() > deadline:
            break
        if (done + 1) % HELD_STEPS == 0:
            trainer.log("held", error_rates(trainer.average.module, trainer.alphabet, held))
    trainer.save()
    if not stopping:  # whoever asked to stop is not kept waiting
        trainer.log("held", error_rates(trainer.average.module, trainer.alphabet, held))


@app.command()
def evaluate(
    work: Work,
    documents: Annotated[Path | None, typer.Argument(help="folder of PDFs")] = None,
    each: Annotated[int, typer.Option(help="pages of each document")] = 2,
    max_cells: Annotated[int, typer.Option(help="visual tokens of a page")] = 2600,
    threads: Threads = 2,
    model: Model = "embedded",
) -> None:
    """Print character error rates on held-out drawn pages, and on real ones with a text layer."""
    torch.set_num_threads(threads)
    head, alphabet = averaged(work)
    measured = {"drawn": error_rates(head, alphabet, held_pages(work, model))}
    if documents is not None:
        retriever = tower(model)
        pages = (see(retriever, page) for _, page in real_pages(documents, each, max_cells))
        measured["real"] = error_rates(head, alphabet, pages)
    for what, rates in measured.items():
        for name, rate in rates.items():
            print(f"{what}, {name}: {rate:.1%}")


@app.command()
def export(
    work: Work, out: Annotated[Path, typer.Argument(help="safetensors file to write")]
) -> None:
    """Write the averaged weights as fp16, with the characters that their classes stand for."""
    head, alphabet = averaged(work)
    write(head, alphabet, out)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


def write(head: ReadingHead, alphabet: Alphabet, out: Path) -> None:
    """Write weights as `load` reads them."""
    tensors = {name: value.half().contiguous() for name, value in head.state_dict().items()}
    save_file(tensors, out, metadata={"characters": alphabet.characters})


if __name__ == "__main__":
    app()
