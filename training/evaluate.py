"""Measures the model: on held-out drawn pages while it trains, and what its tower reads at all.

    python -m training.evaluate WORK               drawn windows and pages, by language
    python -m training.evaluate WORK DOCUMENTS     real pages beside them, by size of the characters

Both print slot accuracy: the share of characters that the averaged weights name in the right slot.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pymupdf
import torch
import typer
from numpy.typing import NDArray
from torch import nn

from training import losses
from training.batches import Batch, Recipe, Sampler, Tools, collate
from training.config import from_dict
from training.model import Yomu
from training.pages import DrawnPage, read_glyphs
from training.samples import BLANK, UNKNOWN, Window, fit, inked, slot_numbers, window
from training.stages import Stage

HELD_SEED = 987_654_321
BATCHES = 3
DPI = 144  # at which `ingest` draws
SIZES_PX = (0, 9, 12, 15, 18, 24, 36)  # lower bounds of the classes of character sizes
app = typer.Typer(add_completion=False, help=__doc__)


class Held:
    """Batches of pages that training never draws, made once and kept in the work folder."""

    def __init__(self, work: Path, device: torch.device) -> None:
        path = work / "held.pt"
        if not path.exists():
            sampler = Sampler(Tools.load(work), _RECIPE, HELD_SEED)
            found = [sampler.batch() for _ in range(BATCHES)]
            torch.save([vars(each) | {"text_cells": None} for each in found], path)
        self.batches = [Batch(**data).to(device) for data in torch.load(path)[:BATCHES]]
        self.image_token = Tools.load(work).tokenizer.token_to_id("<|image_pad|>")

    @torch.no_grad()
    def measure(self, lessons: nn.Module, stage: Stage) -> dict[str, float]:
        """Return the mean of every measurement over the held-out batches.

        What the losses draw by lot, such as heaps of windows, is the same every time.
        """
        with torch.random.fork_rng():
            torch.manual_seed(HELD_SEED)
            return self._measure(lessons, stage)

    def _measure(self, lessons: nn.Module, stage: Stage) -> dict[str, float]:
        lessons.eval()
        sums: dict[str, list[float]] = {}
        for batch in self.batches:
            decode = stage.match + stage.read > 0
            encoded = losses.encode(lessons.yomu, batch, self.image_token, decode)
            _, parts = losses.see(lessons, encoded.features, batch)
            if stage.match:
                vectors = losses.vectors_of(lessons.yomu, encoded.hidden, batch, self.image_token)
                parts |= losses.match(lessons, vectors, batch)[1]
            if stage.read and bool((batch.targets >= 0).any()):
                parts |= losses.read(lessons.yomu, encoded.hidden, batch)[1]
            if stage.read and encoded.looked:
                parts |= losses.point(encoded, batch)[1]
            for name, value in parts.items():
                sums.setdefault(name, []).append(float(value))
        lessons.train()
        return {name: sum(values) / len(values) for name, values in sums.items()}


_RECIPE = Recipe(queries=2, questions=2, windows=0.7, lines=0.3, fresh=8, buffer=16)


def load(work: Path) -> losses.Lessons:
    """Return the averaged weights of WORK/latest.pt."""
    saved = torch.load(work / "latest.pt", map_location="cpu")
    tools = Tools.load(work)
    spelled = saved["average"].get("module.yomu.model.embed_tokens.spelled")
    lessons = losses.Lessons(
        Yomu(from_dict(saved["config"])), int(tools.classes.max()) + 1, spelled
    )
    averaged = {name.removeprefix("module."): value for name, value in saved["average"].items()}
    averaged.pop("n_averaged")
    lessons.load_state_dict(averaged)
    return lessons.eval()


def real_page(page: pymupdf.Page, max_cells: int) -> DrawnPage:
    """Return a page of a PDF with the characters of its text layer, resized as the runtime does."""
    pixmap = page.get_pixmap(dpi=DPI, alpha=False)
    image = np.frombuffer(pixmap.samples, np.uint8).reshape(pixmap.height, pixmap.width, 3)
    glyphs = read_glyphs(page, DPI / 72)
    return fit(DrawnPage(image, glyphs, (), "", "real"), max_cells)


def real_pages(documents: Path, each: int, max_cells: int) -> Iterator[tuple[str, DrawnPage]]:
    """Yield (document, page) for a few pages of every PDF that have a text layer."""
    rng = random.Random(1)
    for path in sorted(documents.rglob("*.pdf")):
        with pymupdf.open(path) as document:
            usable = [p.number for p in document if not p.rotation and len(p.get_text()) > 100]
            for number in rng.sample(usable, min(each, len(usable))):
                yield path.name, real_page(document[number], max_cells)


@torch.no_grad()
def read_slots(
    lessons: losses.Lessons, shown: Window, tools: Tools, ids: dict[str, int]
) -> NDArray[np.int64]:
    """Return the classes (C, 8) that the tower sees in the slots of a window's cells."""
    batch = collate([(shown, [])], tools, ids, random.Random(0), 0)
    features = losses.see_cells(lessons.yomu, batch)
    return lessons.slot_logits(features).argmax(-1).numpy()


def characters_right(
    page: DrawnPage, shown: Window, seen: NDArray[np.int64], tools: Tools
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return for the known characters of a page: size in px, read right, Japanese; (n,) each."""
    cells, slots = slot_numbers(page, inked(page.image))
    wanted = tools.classes[page.glyphs.codes]
    chosen = (cells >= 0) & (wanted != UNKNOWN) & (wanted != BLANK)
    boxes = page.glyphs.boxes[chosen]
    right = seen[cells[chosen], slots[chosen]] == wanted[chosen]
    return boxes[:, 3] - boxes[:, 1], right, page.glyphs.codes[chosen] >= 0x3000


@app.command()
def main(
    work: Annotated[Path, typer.Argument(help="folder of a run")],
    documents: Annotated[Path | None, typer.Argument(help="folder of PDFs")] = None,
    each: Annotated[int, typer.Option(help="pages of each document")] = 2,
    max_cells: Annotated[int, typer.Option(help="visual tokens of a page")] = 2000,
    threads: Annotated[int, typer.Option(help="torch threads")] = 2,
) -> None:
    """Print slot accuracy on drawn pages, and on real ones."""
    torch.set_num_threads(threads)
    lessons, tools = load(work), Tools.load(work)
    for english in (1.0, 0.0):
        for plain in (1.0, 0.0):
            shares = {"english": english, "plain": plain, "degraded": 1e-9, "varied": 0.0}
            windows = Recipe(queries=0, fresh=8, buffer=8, cells=800, **shares)
            pages = Recipe(queries=0, windows=0.0, pages=1.0, cells=1000, **shares)
            found = [_drawn(lessons, Sampler(tools, r, HELD_SEED)) for r in (windows, pages)]
            print(
                f"drawn, {'English' if english else 'Japanese'}, "
                f"{'three fonts' if plain else 'all fonts'}: "
                f"windows {found[0]:.1%}, pages {found[1]:.1%}",
                flush=True,
            )
    if documents is not None:
        _real(lessons, tools, real_pages(documents, each, max_cells))


@torch.no_grad()
def _drawn(lessons: losses.Lessons, sampler: Sampler) -> float:
    shares = []
    for _ in range(BATCHES):
        batch = sampler.batch()
        features = losses.see_cells(lessons.yomu, batch)
        shares.append(float(losses.see(lessons, features, batch)[1]["slot_accuracy"]))
    return sum(shares) / len(shares)


def _real(lessons: losses.Lessons, tools: Tools, pages: Iterator[tuple[str, DrawnPage]]) -> None:
    ids = Sampler(tools, Recipe(), 0).ids
    by_name: dict[str, list[NDArray[np.bool_]]] = defaultdict(list)
    by_size: dict[tuple[str, int], list[NDArray[np.bool_]]] = defaultdict(list)
    for name, page in pages:
        shown = window(page, tools.classes)
        seen = read_slots(lessons, shown, tools, ids)
        sizes, right, japanese = characters_right(page, shown, seen, tools)
        by_name[name].append(right)
        classes = np.searchsorted(SIZES_PX, sizes, side="right") - 1
        for language, members in (("English", ~japanese), ("Japanese", japanese)):
            by_name[f"all, {language}"].append(right[members])
            for number in np.unique(classes[members]):
                by_size[language, number].append(right[members & (classes == number)])
    for name, found in sorted(by_name.items()):
        joined = np.concatenate(found)
        print(f"real, {name}: {joined.mean():.1%} of {len(joined)}")
    for (language, number), found in sorted(by_size.items()):
        joined = np.concatenate(found)
        print(f"real, {language}, from {SIZES_PX[number]} px: {joined.mean():.1%} of {len(joined)}")


if __name__ == "__main__":
    app()
