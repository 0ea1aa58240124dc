"""Trains the embedded model: from nothing, or on from a checkpoint.

    python -m training.train prepare CORPORA WORK                 text, fonts, tokenizer, characters
    python -m training.train run WORK --stage see                 from nothing
    python -m training.train run WORK --stage match               goes on from WORK/latest.pt

Losses and measurements go to WORK/log.jsonl, a line each; `training/plot.py` draws them.
"""

import json
import math
import random
import shutil
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from training import corpus, fonts, losses, spelling, start, tokenizer
from training.batches import Batch, Stream, Tools
from training.config import SIZES, ModelConfig, from_dict, to_dict
from training.evaluate import Held
from training.model import Yomu, is_adapted, normalise, whiten_patches
from training.muon import Muon
from training.stages import STAGES, Stage

app = typer.Typer(add_completion=False, help=__doc__)
MEMORY = 48  # batches that words and phrases are told apart from, besides their own
KEPT_BATCHES = 200  # whose visual tokens are remembered, 2 MB each
FALLING = 0.6  # of a run that is given its minutes, over which the learning rate falls to zero
ROWS_RATE = 0.1  # of the learning rate, for the rows of single tokens
SCALE_RATE = 10  # of the learning rate, for the scale of similarities, which begins anew each run
EMA = 0.998  # of the weights: about the last 500 steps, in place of a falling learning rate


class Trainer:
    """Model, optimisers and where they stand."""

    def __init__(
        self,
        work: Path,
        config: ModelConfig,  # of a run that starts; a checkpoint has its own
        stage: Stage,
        device: torch.device,
        seed: int = 1,
        sight: Path | None = None,
        decoder: Path | None = None,
    ) -> None:
        self.work, self.stage, self.device, self.seed = work, stage, device, seed
        tools = Tools.load(work)
        self.on_gpu = device.type == "cuda"
        self.image_token = tools.tokenizer.token_to_id("<|image_pad|>")
        self.classes = int(tools.classes.max()) + 1
        latest = work / "latest.pt"
        saved = torch.load(latest, map_location="cpu") if latest.exists() else None
        config = from_dict(saved["config"]) if saved else config
        spelled = spelling.spellings(tools.tokenizer)
        self.lessons = losses.Lessons(Yomu(config), self.classes, spelled).to(device)
        if not stage.see:  # what sees is done; the decoder learns from what it is shown
            for part in (self.lessons.yomu.visual, self.lessons.slots, self.lessons.characters):
                part.requires_grad_(False)
        if not (stage.see or stage.match):  # what finds pages becomes an adapter of the rest
            for name, value in self.lessons.named_parameters():
                value.requires_grad_(is_adapted(name))
        self.must_whiten = saved is None and sight is None
        if saved is None and sight is not None:
            known = (work / "characters.txt").read_text(encoding="utf-8")
            print(f"{sight}: {start.load(self.lessons, sight, known)} characters are known")
        if saved is None and decoder is not None:
            start.load_decoder(self.lessons.yomu, decoder)
        self.average = AveragedModel(self.lessons, multi_avg_fn=_average)
        self.memory = losses.Memory(MEMORY)
        self.step, self.seconds = 0, 0.0
        self.optimisers = optimisers(self.lessons, stage)
        if saved:
            self._restore(saved)
        self.started = time.monotonic()

    def _restore(self, saved: dict) -> None:
        self.lessons.load_state_dict(saved["lessons"])
        self.average.load_state_dict(saved["average"])
        self.step, self.seconds = saved["step"], saved["seconds"]
        for optimiser, state in zip(self.optimisers, saved["optimisers"], strict=True):
            rates = [group["lr"] for group in optimiser.param_groups]
            optimiser.load_state_dict(state)
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = group["initial_lr"] = rate

    def save(self) -> None:
        """Write WORK/latest.pt, replacing the last one only when complete."""
        state = {
            "config": to_dict(self.lessons.yomu.config),
            "lessons": self.lessons.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "step": self.step,
            "seconds": self.seconds + time.monotonic() - self.started,
            "stage": self.stage.name,
            "seed": self.seed,
        }
        partial = self.work / "latest.part"
        torch.save(state, partial)
        partial.replace(self.work / "latest.pt")

    def train_on(self, batch: Batch, warm: int, left: float = 1.0) -> dict[str, Tensor]:
        """Take one step and return its measurements.

        warm  steps of this call so far: the rate rises at first
        left  share of the time that is left: the rate falls over the last of it (arXiv:2405.18392)
        """
        scale = min(1.0, (warm + 1) / self.stage.warmup, left / FALLING)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["initial_lr"] * scale
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.on_gpu):
            loss, parts = total_loss(
                self.lessons, batch, self.stage, self.image_token, self.average.module, self.memory
            )
        if not loss.requires_grad:  # nothing of this batch is taught, such as words of a chart
            return {"skipped": torch.ones(())}
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.lessons.parameters(), 1.0)
        if not torch.isfinite(norm):
            return {"skipped": torch.ones(())}
        for optimiser in self.optimisers:
            optimiser.step()
        self.average.update_parameters(self.lessons)
        self.step += 1
        return parts


@torch.no_grad()
def _average(averages: list[Tensor], currents: list[Tensor], taken: Tensor) -> None:
    """Move averages towards the weights: over all steps at first, over the last 500 later."""
    share = max(1 - EMA, 10 / (10 + float(taken)))
    torch._foreach_lerp_(averages, currents, share)


def optimisers(lessons: nn.Module, stage: Stage) -> list[torch.optim.Optimizer]:
    """Return Muon for the blocks' and layers' matrices and AdamW for everything else.

    The merger's 640×640 alone would take as long to orthogonalise as all blocks together.
    """
    hidden = [
        p for name, p in lessons.named_parameters()
        if (p.ndim == 2 and ".blocks." in name) or is_adapted(name)
    ]  # fmt: skip
    chosen = {id(p) for p in hidden}
    # AdamW moves a row as far for one showing as for many: whole batches are learnt by heart so
    rows = lessons.yomu.model.embed_tokens.weight
    alone = {id(rows), id(lessons.log_scale)}
    rest = [p for p in lessons.parameters() if id(p) not in chosen | alone]
    groups = [
        {"params": rest},
        {"params": [rows], "lr": stage.rate * ROWS_RATE},
        {"params": [lessons.log_scale], "lr": stage.rate * SCALE_RATE},
    ]
    both = [
        Muon(hidden, lr=stage.rate),
        torch.optim.AdamW(groups, lr=stage.rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    for optimiser in both:
        for group in optimiser.param_groups:
            group["initial_lr"] = group["lr"]
    return both


def total_loss(
    lessons: losses.Lessons,
    batch: Batch,
    stage: Stage,
    image_token: int,
    average: losses.Lessons,
    memory: losses.Memory,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum of the stage's losses and what was measured on the way.

    What earlier batches showed is in `memory`, encoded by the `average` of the weights.
    """
    encoded = losses.encode(lessons.yomu, batch, image_token, stage.match + stage.read > 0)
    loss, parts = encoded.features.new_zeros(()), {}
    if stage.see:
        loss, parts = losses.see(lessons, encoded.features, batch)
        loss = loss * stage.see
    if stage.match and len(batch.token_places):
        vectors = losses.vectors_of(lessons.yomu, encoded.hidden, batch, image_token)
        found, more = losses.match(lessons, vectors, batch)
        loss, parts = loss + stage.match * found, parts | more
        if stage.recall:
            found, more = losses.recall(lessons, average, vectors, batch, image_token, memory)
            loss, parts = loss + stage.recall * found, parts | more
    if stage.names and batch.named is not None and len(batch.named):
        cells = encoded.hidden[batch.ids == image_token]
        found, more = losses.name(lessons.yomu, cells, batch)
        loss, parts = loss + stage.names * found, parts | more
    if stage.read and bool((batch.targets >= 0).any()):
        found, more = losses.read(lessons.yomu, encoded.hidden, batch)
        loss, parts = loss + stage.read * found, parts | more
    if stage.read and encoded.looked:
        found, more = losses.point(encoded, batch)
        loss, parts = loss + stage.read * found, parts | more
    return loss, parts


@app.command("prepare")
def prepare_folder(
    corpora: Annotated[Path, typer.Argument(help="folder of text archives, see README.md")],
    work: Annotated[Path, typer.Argument(help="folder to make")],
    vocabulary: Annotated[int, typer.Option(help="tokens of the tokenizer")] = 10240,
) -> None:
    """Write what training draws from: text, tokenizer, characters and subset fonts."""
    corpus.prepare(corpora, work / "text")
    tokenizer.train(work / "text", vocabulary).save(str(work / "tokenizer.json"))
    known, drawn = corpus.characters(work / "text")
    (work / "characters.txt").write_text(known, encoding="utf-8")
    families = fonts.pack(work / "fonts", drawn)
    print(f"{len(families)} font families, {len(known)} characters")


@app.command()
def run(
    work: Annotated[Path, typer.Argument(help="folder made by `prepare`; checkpoints go here")],
    stage: Annotated[str, typer.Option(help=f"one of {', '.join(STAGES)}")] = "see",
    size: Annotated[str, typer.Option(help=f"one of {', '.join(SIZES)}, when starting")] = "small",
    minutes: Annotated[
        float, typer.Option(help="stop after this long, the rate falling")
    ] = math.inf,
    steps: Annotated[int, typer.Option(help="stop after this many more steps")] = sys.maxsize,
    workers: Annotated[int, typer.Option(help="processes that draw pages")] = 1,
    cells: Annotated[int, typer.Option(help="cells a step; 0: as the stage says")] = 0,
    rate: Annotated[float, typer.Option(min=0, help="learning rate; 0: as the stage says")] = 0,
    threads: Annotated[int, typer.Option(help="torch threads")] = 2,
    seed: Annotated[int, typer.Option(help="of pages and weights")] = 1,
    sight: Annotated[
        Path | None,
        typer.Option("--start", help="file of training.start: a vision tower to begin with"),
    ] = None,
    decoder: Annotated[
        Path | None,
        typer.Option(help="model folder whose decoder, and tokenizer, to begin with"),
    ] = None,
) -> None:
    """Train a stage, from nothing or from WORK/latest.pt, until told to stop."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = STAGES[stage]
    if not (chosen.see or sight or (work / "latest.pt").exists()):
        raise typer.BadParameter(f"{stage} teaches no seeing: add --start, or run see first")
    recipe = replace(chosen.recipe, cells=cells) if cells else chosen.recipe
    chosen = replace(chosen, rate=rate) if rate else chosen
    config = SIZES[size]
    if decoder and not (work / "latest.pt").exists():
        shutil.copy(decoder / "tokenizer.json", work)
        config = replace(config, text=start.turned_as(config.text, decoder))
    trainer = Trainer(work, config, chosen, device, seed, sight, decoder)
    stream = Stream(work, recipe, seed + trainer.step)
    loader = DataLoader(
        stream,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=device.type == "cuda",
    )
    _loop(trainer, loader, 60 * minutes, steps)


def _loop(trainer: Trainer, loader: DataLoader, seconds: float, steps: int) -> None:
    """Train until the time is over, the step count or a signal; always leave a checkpoint."""
    stopping, deadline = [], time.monotonic() + seconds
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.append(True))
    log = _Log(trainer)
    held = Held(trainer.work, trainer.device)
    batches = iter(loader)
    if not trainer.stage.see:
        batches = iter(Replay(trainer, batches, trainer.seed + trainer.step))
    saved = measured = time.monotonic()
    for done in range(steps):
        waiting = time.monotonic()
        batch = next(batches)
        waited = time.monotonic() - waiting
        if trainer.must_whiten:
            trainer.must_whiten = False
            sample = normalise(batch.patches[batch.cells.repeat_interleave(4, dim=1)])
            whiten_patches(trainer.lessons.yomu.visual.patch_embed, sample)
            trainer.average.module.load_state_dict(trainer.lessons.state_dict())
        left = 1.0 if seconds == math.inf else (deadline - time.monotonic()) / seconds
        parts = trainer.train_on(batch.to(trainer.device), done, max(left, 0.0))
        if not batch.again:  # what is shown again is known by heart in part
            log.add(parts | {"waited": torch.tensor(waited)})
        if time.monotonic() - saved > 180:
            trainer.save()
            saved = time.monotonic()
        if time.monotonic() - measured > 300:
            log.write("held", held.measure(trainer.average.module, trainer.stage))
            measured = time.monotonic()
        if stopping or time.monotonic() > deadline:
            break
    trainer.save()
    if not stopping:  # whoever asked to stop is not kept waiting
        log.write("held", held.measure(trainer.average.module, trainer.stage))


class Replay:
    """Shows batches again whose visual tokens are known: the tower and the drawing cost most.

    For a tower that stands still. A batch is seen `times` times on average, far apart.
    """

    def __init__(self, trainer: Trainer, fresh: Iterator[Batch], seed: int) -> None:
        self.trainer, self.fresh = trainer, fresh
        self.rng = random.Random(seed)
        self.kept: list[Batch] = []

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches for ever."""
        times = self.trainer.stage.times
        while True:
            if len(self.kept) < KEPT_BATCHES // 8 or self.rng.random() < 1 / times:
                yield self._new()
            else:
                yield replace(self.rng.choice(self.kept), again=True)

    @torch.no_grad()
    def _new(self) -> Batch:
        trainer = self.trainer
        batch = next(self.fresh).to(trainer.device)
        with torch.autocast(trainer.device.type, torch.bfloat16, enabled=trainer.on_gpu):
            features = losses.see_cells(trainer.lessons.yomu, batch)
        batch = replace(batch, features=features, patches=batch.patches[:, :0].clone())
        if len(self.kept) == KEPT_BATCHES:
            self.kept.pop(0)
        self.kept.append(batch)
        return batch


class _Log:
    """Running means, written every 25 steps."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.next = trainer, trainer.step + 25
        self.sums: dict[str, list[Tensor]] = defaultdict(list)

    def add(self, parts: dict[str, Tensor]) -> None:
        """Take one step's measurements."""
        for name, value in parts.items():
            self.sums[name].append(value)  # read later: reading waits for the GPU
        if self.trainer.step >= self.next:
            self.next = self.trainer.step + 25
            self.write("train", {n: sum(map(float, v)) / len(v) for n, v in self.sums.items()})
            self.sums.clear()

    def write(self, what: str, values: dict[str, float]) -> None:
        """Append a line to log.jsonl and show it."""
        now = self.trainer.seconds + time.monotonic() - self.trainer.started
        line = {"what": what, "stage": self.trainer.stage.name, "step": self.trainer.step}
        line |= {"minutes": round(now / 60, 2)}
        line |= {name: round(value, 4) for name, value in values.items()}
        with (self.trainer.work / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    app()
