"""A reading head: what the vision tower saw of a page, and its pixels, to lines of text, by CTC.

    python -m training.reading draw WORK --pages 4000 --seed 1      pages as the tower sees them
    python -m training.reading draw WORK --pixels --seed 2          pages of which it sees nothing
    python -m training.reading look WORK --minutes 15               its convolutions by themselves
    python -m training.reading run WORK --minutes 60                goes on from WORK/reading.pt
    python -m training.reading evaluate WORK [DOCUMENTS]            character error rates
    python -m training.reading export WORK OUT.safetensors          averaged weights, fp16
    python -m training.reading ship OUT.safetensors MODEL           … as a part of a model folder

The tower stands still, so pages are drawn and seen once, by the shipped model in the views that it
makes of a page, and kept in WORK/reading; several `draw` with other seeds may run beside `run`.
Seeing takes most of the time, so other pages are drawn of which the pixels alone are read.

All views of a page land on one lattice of slots (training/slots.py). Convolutions on the pixels
add what the tower overlooks, depthwise ones (ConvNeXt, arXiv:2201.03545) look at the slots around,
every frame, a quarter of a slot, names a character or none, and CTC (Graves et al., ICML 2006)
makes a line of text of the frames of one row (training/head.py). Most frames name none, which `ink`
learns to say beforehand: scores of all classes cost the most.
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
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from benchmarks.text_scores import edit_distance
from models.build.builder import READING, add_reading
from models.reading import COLUMNS, ROWS
from training.corpus import Corpus
from training.evaluate import HELD_SEED, real_pages
from training.head import ReadingHead, load, write
from training.muon import Muon
from training.pages import draw
from training.parts import Part, cut, whole
from training.samples import BLANK, UNKNOWN
from training.slots import Alphabet, SeenPage, see, tower

DRAWN = {"degraded": 0.3, "english": 0.5, "plain": 0.2, "varied": 0.7}  # shares of drawn pages
FEWEST = 60  # characters of a page that is worth keeping
HELD_PAGES = 12
PIXELS_ALONE = "pixels-"  # how names of pages begin that the tower did not see
SEEN = 0.4  # share of the pages of steps that it saw, where there are both kinds
PARTS = 2  # of pages, a step
ALIKE, FREQUENT, ANY = 4, 60, 60  # classes beside a step's own: like each, by frequency, evenly
MIDDLE_WEIGHT, WORST_MIDDLE = 0.3, 15.0  # of naming characters in their middles; most of one
EMPTY_WEIGHT, WORST = 0.3, 400.0  # of rows without text; the most that a row may add to the loss
WARM, FALLING, LEAST_RATE = 100, 0.6, 0.02  # steps; share of the time; of the rate, at the end
MUON_RATE = 4.0  # of AdamW's: its updates have 0.2 of the rate
# What the tower knows of slots already moves at a share of the learning rate; `ink` begins at 0.
SHARES = {"slots": 0.5, "characters": 0.15, "shortcut": 0.15, "ink": 5.0}
INKED_WEIGHT, INK_WEIGHT = 10.0, 0.05  # of an inked frame beside a blank one; of that loss
MISSED = 0.002  # share of the inked frames that an exported `ink` may take for blank
SIGHT_OF_PIXELS = "pixels.safetensors"
NEAR, NONE_WEIGHT = 4, 0.1  # frames around a middle that may name it; of those that do not
EMA = 0.995  # of the weights: about the last 200 steps
LOG_STEPS, HELD_STEPS, SAVED_S = 50, 400, 180
app = typer.Typer(add_completion=False, help=__doc__)


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
        own = np.array([c for part in parts for row in part.rows.values() for c, _ in row], int)
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

    It is that of CTC, with some of naming each character in its middle, without which a network
    that has not learnt to see names nothing for long; and a little that of `ink`, which learns
    where it sees no blank.

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
    lines = [part.rows.get(row, []) for row in rows]
    own = np.searchsorted(classes, [c for line in lines for c, _ in line]).astype(np.int64)
    targets = torch.from_numpy(own)
    lengths = torch.tensor([len(line) for line in lines])
    of_row = np.repeat(np.arange(len(lines)), lengths.numpy())
    middle = np.array([frame for line in lines for _, frame in line], int)
    is_seen = (middle >= 0) & seen.numpy()[of_row, middle]
    named = scores[of_row[is_seen], middle[is_seen], own[is_seen]].clamp(min=-WORST_MIDDLE)
    n_frames = torch.full((len(rows),), seen.shape[1])
    loss = F.ctc_loss(
        scores.transpose(0, 1), targets, n_frames, lengths, reduction="none", zero_infinity=True
    )
    loss = torch.where(lengths > 0, loss, loss * EMPTY_WEIGHT).clamp(max=WORST)
    return loss.sum() - MIDDLE_WEIGHT * named.sum() + INK_WEIGHT * ink, int(lengths.sum())


def middles(
    head: ReadingHead, part: Part, classes: NDArray[np.int64], rng: random.Random
) -> tuple[Tensor, float] | None:
    """Return the loss of what pixels alone name in the middles of characters, and the share right.

    Some frames that no character is near are to name none. None: the part has no text.
    """
    standing = [(row, at, c) for row, line in part.rows.items() for c, at in line if at >= 0]
    if not standing:
        return None
    row, frame, own = np.array(standing).T
    states = head.pixels.states(head.pixels(part.pixels))
    is_near = np.zeros(states.shape[:2], bool)
    for way in range(-NEAR, NEAR + 1):
        is_near[row, np.clip(frame + way, 0, states.shape[1] - 1)] = True
    rows = np.unique(row)
    others = np.argwhere(~is_near[rows])
    others = others[rng.sample(range(len(others)), min(len(others), len(own)))]
    weight, bias = head.characters.weight[classes].detach(), head.characters.bias[classes].detach()
    wanted = torch.from_numpy(np.searchsorted(classes, own))
    scores = states[row, frame] @ weight.T + bias
    blank = F.log_softmax(states[rows[others[:, 0]], others[:, 1]] @ weight.T + bias, -1)[:, 0]
    loss = F.cross_entropy(scores, wanted) - NONE_WEIGHT * blank.sum() / len(own)
    return loss, float((scores.argmax(-1) == wanted).float().mean())


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
            wanted = alphabet.text(c for c, _ in classes)
            given = alphabet.text(found[row])
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
        part = Part(page.cells, page.pixels[0], (ROWS * rows, COLUMNS * columns), {})
        for states, seen in zip(*head(part), strict=True):
            inks.append(head.ink(states[seen])[:, 0])
            inked.append(head.characters(states[seen]).argmax(-1) != BLANK)
    ink, is_inked = torch.cat(inks).numpy(), torch.cat(inked).numpy()
    bound = float(np.quantile(ink[is_inked], MISSED)) if is_inked.any() else 0.0
    return bound, float((ink > bound).mean())


class Shelf:
    """Drawn pages of a folder; those that come while training count as well."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng = folder, rng
        self.refresh()

    def refresh(self) -> None:
        """List the pages anew. Raises BadParameter if there are none."""
        files = [p for p in sorted(self.folder.glob("*.npz")) if not p.name.startswith("held")]
        if not files:
            raise typer.BadParameter(f"{self.folder} holds no pages: run `draw` first")
        self.unseen = [p for p in files if p.name.startswith(PIXELS_ALONE)]
        self.seen = [p for p in files if not p.name.startswith(PIXELS_ALONE)]

    def __len__(self) -> int:
        return len(self.unseen) + len(self.seen)

    def page(self) -> SeenPage:
        """Return one of the pages, SEEN of the time one that the tower saw."""
        is_seen = bool(self.seen) and (not self.unseen or self.rng.random() < SEEN)
        return SeenPage.load(self.rng.choice(self.seen if is_seen else self.unseen))


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
        if not saved:
            self._begin(start)
        self.average = AveragedModel(self.head, multi_avg_fn=_average)
        self.optimisers = _optimisers(self.head)
        if saved:
            self.head.load_state_dict(saved["head"])
            self.average.load_state_dict(saved["average"])
            for each, state in zip(self.optimisers, saved["optimisers"], strict=True):
                each.load_state_dict(state)
        self.rivals = Rivals(self.alphabet, self.head.characters.weight, self.rng)
        self.rivals.counts = saved["counts"] if saved else self.rivals.counts
        self.started = time.monotonic()

    def _begin(self, start: Path | None) -> None:
        if start:
            load(self.head, self.alphabet, start)
            return
        self.head.begin()
        if (self.work / SIGHT_OF_PIXELS).exists():
            self.head.pixels.load_state_dict(load_file(self.work / SIGHT_OF_PIXELS))

    def save(self) -> None:
        """Write WORK/reading.pt, replacing the last one only when complete."""
        state = {
            "head": self.head.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [each.state_dict() for each in self.optimisers],
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
        _set_rate(self.optimisers, self.rate * _scale(warm, left))
        parts = [cut(page, self.alphabet, self.rng) for page in pages]
        classes = self.rivals.choose(parts)
        losses, counts = zip(*(ctc(self.head, p, classes, self.rng) for p in parts), strict=True)
        loss = torch.stack(losses).sum() / max(sum(counts), 1)
        if not loss.requires_grad or not _descend(loss, self.head, self.optimisers):
            return math.nan
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


def _optimisers(head: nn.Module) -> list[torch.optim.Optimizer]:
    """Return Muon for all matrices without a share of the rate, and AdamW for the rest.

    With AdamW alone the convolutions on pixels learn half as fast, or less.
    """
    matrices, rest = [], defaultdict(list)
    for name, parameter in head.named_parameters():
        part = name.split(".")[0]
        is_matrix = parameter.dim() > 1 and ".around." not in name  # depthwise: one row a kernel
        if is_matrix and part not in SHARES:
            matrices.append(parameter)
        else:
            rest[SHARES.get(part, 1.0)].append(parameter)
    muon = [{"params": matrices, "share": MUON_RATE}]
    adamw = [{"params": params, "share": share} for share, params in rest.items()]
    return [
        Muon(muon, lr=0.0),
        torch.optim.AdamW(adamw, lr=0.0, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def _scale(warm: int, left: float) -> float:
    """Return the share of the rate after `warm` steps, when a share `left` of the time is left."""
    return min(1.0, (warm + 1) / WARM, max(LEAST_RATE, left / FALLING))


def _set_rate(optimisers: Iterable[torch.optim.Optimizer], rate: float) -> None:
    for group in (group for each in optimisers for group in each.param_groups):
        group["lr"] = rate * group["share"]


def _descend(loss: Tensor, module: nn.Module, optimisers: list[torch.optim.Optimizer]) -> bool:
    """Take a step down; returns if it could be taken."""
    module.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    if not torch.isfinite(norm):
        return False
    for each in optimisers:
        each.step()
    return True


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


def averaged(work: Path) -> tuple[ReadingHead, Alphabet]:
    """Return the averaged weights of WORK/reading.pt."""
    alphabet = Alphabet.known()
    average = AveragedModel(ReadingHead(alphabet.size))
    average.load_state_dict(torch.load(work / "reading.pt", weights_only=False)["average"])
    return average.module.eval(), alphabet


def keep(
    work: Path, model: str, seed: int, names: Sequence[str], *, pixels_alone: bool = False
) -> list[Path]:
    """Draw pages, one for each name that WORK/reading lacks, and keep what is seen of them.

    pixels_alone  the tower does not look at them
    Pages with next to no text are left out. Returns the files that there are then.
    """
    folder = work / "reading"
    folder.mkdir(exist_ok=True)
    files = [folder / f"{name}.npz" for name in names]
    missing = [n for n, file in enumerate(files) if not file.exists()]
    if missing:
        corpus, retriever = Corpus(work / "text"), tower(model)
        for n in missing:
            page = draw(corpus, work / "fonts", seed + n, **DRAWN)
            if len(page.glyphs.codes) >= FEWEST:
                see(retriever, page, pixels_alone=pixels_alone).save(files[n])
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
    pixels: Annotated[
        bool, typer.Option("--pixels", help="keep their pixels alone, four times as quick")
    ] = False,
    model: Model = "embedded",
) -> None:
    """Draw pages and keep what the tower sees of them, and their pixels, in WORK/reading."""
    names = [f"{PIXELS_ALONE if pixels else ''}{seed}-{n:05d}" for n in range(pages)]
    first = (seed + 1) * 10_000_000_000  # far from the held-out pages' seeds, and other calls'
    kept = keep(work, model, first, names, pixels_alone=pixels)
    print(f"{len(kept)} pages of {pages} in {work / 'reading'}")


@app.command("look")
def look_at_pixels(
    work: Work,
    minutes: Annotated[
        float, typer.Option(min=0.01, help="stop after this long, the rate falling")
    ] = 15.0,
    steps: Annotated[int, typer.Option(help="stop after this many steps")] = sys.maxsize,
    rate: Annotated[float, typer.Option(min=0, help="learning rate")] = 2e-3,
    threads: Threads = 1,
    seed: Annotated[int, typer.Option(help="of what is shown, and of weights")] = 1,
) -> None:
    """Teach the convolutions on pixels alone, for `run` to begin with: WORK/pixels.safetensors."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    alphabet, rng = Alphabet.known(), random.Random(seed)
    head = ReadingHead(alphabet.size)
    head.begin()
    shelf, rivals = Shelf(work / "reading", rng), Rivals(alphabet, head.characters.weight, rng)
    optimisers = _optimisers(head.pixels)
    started = time.monotonic()
    right: list[float] = []
    with _signals() as stopping:
        while len(right) < steps and not stopping:
            left = 1 - (time.monotonic() - started) / (60 * minutes)
            if left <= 0:
                break
            _set_rate(optimisers, rate * _scale(len(right), left))
            part = cut(shelf.page(), alphabet, rng)
            found = middles(head, part, rivals.choose([part]), rng)
            if found is None or not _descend(found[0], head.pixels, optimisers):
                continue
            right.append(found[1])
            if len(right) % LOG_STEPS == 0:
                share = np.mean(right[-LOG_STEPS:])
                print(f"step {len(right)}: {share:.1%} right", flush=True)
    save_file(head.pixels.state_dict(), work / SIGHT_OF_PIXELS)


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
    try:
        trainer = Trainer(work, rate, seed, start)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
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
            rate = trainer.rate * _scale(done, left)
            means = {"loss": float(np.nanmean(losses)), "rate": rate}
            trainer.log("train", means | {"pages": len(shelf)})
            losses.clear()
            shelf.refresh()
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


if __name__ == "__main__":
    app()
