"""A reading head: what the vision tower saw of a page to lines of text, by CTC.

    python -m training.reading draw WORK --pages 4000 --seed 1      pages as the tower sees them
    python -m training.reading run WORK --minutes 60                goes on from WORK/reading.pt
    python -m training.reading evaluate WORK [DOCUMENTS]            character error rates
    python -m training.reading export WORK OUT.safetensors          averaged weights, fp16
    python -m training.reading ship OUT.safetensors MODEL           … as a part of a model folder

The tower stands still, so pages are drawn and seen once, by the shipped model in the views that it
makes of a page, and kept in WORK/reading; several `draw` with other seeds may run beside `run`.

All views of a page land on one lattice of slots (training/slots.py). Blocks of depthwise
convolutions (ConvNeXt, arXiv:2201.03545) look at the slots around, every half of a slot names a
character or none, and CTC (Graves et al., ICML 2006) makes a line of text of the halves of one row.
Most halves name none, which `ink` learns to say beforehand: scores of all classes cost the most.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import torch
import typer
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from benchmarks.text_scores import edit_distance
from models.build.builder import READING, add_reading
from training.corpus import Corpus
from training.evaluate import HELD_SEED, real_pages
from training.pages import draw
from training.samples import BLANK, SLOTS, UNKNOWN
from training.slots import HIDDEN, SIGHT, Alphabet, Cells, SeenPage, see, spelled, tower

SLOT, WIDTH = 64, 128  # features of a slot, and of a slot in the blocks
BLOCKS, AROUND = 3, (3, 9)  # rows and columns of slots that a block looks at
LOOK = {"degraded": 0.3, "english": 0.5, "plain": 0.2, "varied": 0.7}  # shares of drawn pages
FEWEST = 60  # characters of a page that is worth keeping
HELD_PAGES = 12
PARTS, PART_ROWS = 2, 48  # of pages, and half rows of each, a step
OVERVIEWS, ALONE = 0.2, 0.15  # shares of parts: of the overview, of the cells without shifted ones
ALIKE, FREQUENT, ANY = 4, 60, 60  # classes beside a step's own: like each, by frequency, evenly
EMPTY_WEIGHT, WORST = 0.3, 400.0  # of rows without text; the most that a row may add to the loss
WARM, FALLING, LEAST_RATE = 100, 0.6, 0.02  # steps; share of the time; of the rate, at the end
# What the tower knows of slots already moves at a share of the learning rate; `ink` begins at 0.
SHARES = {"slots": 0.5, "characters": 0.15, "shortcut": 0.15, "ink": 5.0}
INKED_WEIGHT, INK_WEIGHT = 10.0, 0.05  # of an inked frame beside a blank one; of that loss
MISSED = 0.002  # share of the inked frames that an exported `ink` may take for blank
EMA = 0.995  # of the weights: about the last 200 steps
FP16 = ".fp16"  # of the names of matrices in a graph, which lie there transposed
LOG_STEPS, HELD_STEPS, SAVED_S = 50, 400, 180
app = typer.Typer(add_completion=False, help=__doc__)


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
        self.ink = nn.Linear(SLOT, 1)  # above 0: the frame may name a character
        nn.init.zeros_(self.ink.weight)
        nn.init.ones_(self.ink.bias)

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
    """Return the loss of a part, summed over its rows, and how many classes they spell.

    It is that of CTC, and a little that of `ink`, which learns where it sees no blank.

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
    is_inked = 1 - scores[seen][:, 0].detach().exp()
    ink = F.binary_cross_entropy_with_logits(
        head.ink(states[seen])[:, 0],
        is_inked,
        pos_weight=torch.tensor(INKED_WEIGHT),
        reduction="sum",
    )
    lines = [np.searchsorted(classes, part.rows.get(row, [])) for row in rows]
    targets = torch.from_numpy(np.concatenate(lines).astype(np.int64))
    lengths = torch.tensor([len(line) for line in lines])
    frames = torch.full((len(rows),), seen.shape[1])
    loss = F.ctc_loss(
        scores.transpose(0, 1), targets, frames, lengths, reduction="none", zero_infinity=True
    )
    loss = torch.where(lengths > 0, loss, loss * EMPTY_WEIGHT).clamp(max=WORST)
    return loss.sum() + INK_WEIGHT * ink, int(lengths.sum())


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


@torch.no_grad()
def ink_bound(head: ReadingHead, pages: Iterable[SeenPage]) -> tuple[float, float]:
    """Return the value of `ink` that MISSED of the inked frames do not exceed, and who does.

    The latter is a share of all frames that are seen. Inked: the best class is not blank.
    """
    inks, inked = [torch.empty(0)], [torch.empty(0, dtype=torch.bool)]
    for page in pages:
        rows, columns = page.grid
        for states, seen in zip(*head(Part(page.cells, (2 * rows, 4 * columns), {})), strict=True):
            inks.append(head.ink(states[seen])[:, 0])
            inked.append(head.characters(states[seen]).argmax(-1) != BLANK)
    ink, is_inked = torch.cat(inks).numpy(), torch.cat(inked).numpy()
    bound = float(np.quantile(ink[is_inked], MISSED)) if is_inked.any() else 0.0
    return bound, float((ink > bound).mean())


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

    def measure(self, pages: Sequence[SeenPage]) -> dict[str, float]:
        """Return the error rates of the averaged weights, and the share of frames to be read."""
        head = self.average.module
        return error_rates(head, self.alphabet, pages) | {"read": ink_bound(head, pages)[1]}

    def log(self, what: str, values: dict[str, float]) -> None:
        """Append a line to reading.jsonl and show it."""
        now = self.seconds + time.monotonic() - self.started
        line = {"what": what, "step": self.step, "minutes": round(now / 60, 2)}
        line |= {name: float(f"{value:.5g}") for name, value in values.items()}
        with (self.work / "reading.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def _optimiser(head: ReadingHead) -> torch.optim.Optimizer:
    """Return AdamW, in which each part has its share of the rate."""
    parts: dict[float, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in head.named_parameters():
        parts[SHARES.get(name.split(".")[0], 1.0)].append(parameter)
    groups = [{"params": params, "share": share} for share, params in parts.items()]
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
    """Set the weights of a file that `export` wrote, or of a model folder.

    Without `ink` all frames are inked. Raises ValueError if it tells other characters apart.
    """
    if file.is_dir():
        saved, characters = shipped(file)
    else:
        saved, characters = load_file(file), Alphabet.known(file).characters
    if characters != alphabet.characters:
        raise ValueError(f"{file}: not the {len(alphabet.characters)} characters of {SIGHT.name}")
    all_inked = {"ink.weight": torch.zeros(1, SLOT), "ink.bias": torch.ones(1)}
    head.load_state_dict(all_inked | {name: value.float() for name, value in saved.items()})


def shipped(folder: Path) -> tuple[dict[str, Tensor], str]:
    """Return the weights of a model folder's head, and its characters."""
    graph = onnx.load(folder / READING)
    named = {each.name: onnx.numpy_helper.to_array(each) for each in graph.graph.initializer}
    weights = {
        name.removesuffix(FP16): torch.from_numpy(
            (value.T if name.endswith(FP16) else value).copy()
        )
        for name, value in named.items()
        if name.removesuffix(FP16).endswith((".weight", ".bias"))
    }
    return weights, {each.key: each.value for each in graph.metadata_props}["characters"]


def averaged(work: Path) -> tuple[ReadingHead, Alphabet]:
    """Return the averaged weights of WORK/reading.pt."""
    alphabet = Alphabet.known()
    average = AveragedModel(ReadingHead(alphabet.size))
    average.load_state_dict(torch.load(work / "reading.pt", weights_only=False)["average"])
    return average.module.eval(), alphabet


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
        Path | None,
        typer.Option(
            help="file of `export`, or a model folder, to begin with; not beside WORK/reading.pt"
        ),
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
            group = trainer.optimiser.param_groups[0]
            rate = group["lr"] / group["share"]
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
            trainer.log("held", trainer.measure(held))
    trainer.save()
    if not stopping:  # whoever asked to stop is not kept waiting
        trainer.log("held", trainer.measure(held))


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
    work: Work,
    out: Annotated[Path, typer.Argument(help="safetensors file to write")],
    model: Model = "embedded",
) -> None:
    """Write the averaged weights as fp16, with the characters that their classes stand for.

    `ink` is shifted so that on held-out pages it takes few inked frames for blank.
    """
    head, alphabet = averaged(work)
    bound, share = ink_bound(head, held_pages(work, model))
    head.ink.bias.data -= bound
    write(head, alphabet, out)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {share:.1%} of the frames are read")


@app.command()
def ship(
    weights: Annotated[Path, typer.Argument(help="file of `export`")],
    folder: Annotated[Path, typer.Argument(help="model folder whose tower the head was taught on")],
) -> None:
    """Make the head a part of a model folder, in place of any it had."""
    add_reading(folder, weights)
    print(f"{folder / READING}: written, and recorded in model.json")


def write(head: ReadingHead, alphabet: Alphabet, out: Path) -> None:
    """Write weights as `load` reads them."""
    tensors = {name: value.half().contiguous() for name, value in head.state_dict().items()}
    save_file(tensors, out, metadata={"characters": alphabet.characters})


if __name__ == "__main__":
    app()
