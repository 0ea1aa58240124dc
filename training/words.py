"""How well a model tells words apart by looking: on drawn pages and on real ones, by size of type.

    python -m training.words MODEL WORK DOCUMENTS

A word that is looked for alone should match the page that shows it better than pages that do not.
If drawn pages do as well as real ones, more lifelike drawing has nothing to give; if words whose
letters the tower reads are confused as often as others, it is the decoder that has to learn more.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

import models
from models.retriever import Retriever
from training.batches import Tools
from training.evaluate import SIZES_PX, real_pages
from training.pages import DrawnPage, Glyphs, draw
from training.samples import fit, text_lines

WORD = re.compile(r"(?<![^\W_])[A-Za-z]{4,14}(?![^\W_])|[一-鿿]{2,6}|[ァ-ヶー]{3,10}")
KINDS = ("prose", "report", "tables", "columns", "form", "chart")
MAX_CELLS = 2600  # as the shipped model is built
app = typer.Typer(add_completion=False, help=__doc__)


@dataclass(frozen=True)
class Looked:
    """A word that was looked for: its height in px, its match at home, (n,) matches elsewhere."""

    height: float
    own: float
    others: NDArray[np.float32]


def words(glyphs: Glyphs) -> dict[str, float]:
    """Return the words of a page in lower case, with the height in px of the largest showing."""
    found: dict[str, float] = {}
    members = np.arange(len(glyphs.codes))  # each character in the place of its cell
    for line in text_lines(glyphs, members):
        for word in WORD.finditer(line.text):
            boxes = glyphs.boxes[line.cells[word.start() : word.end()]]
            height = float(boxes[:, 3].max() - boxes[:, 1].min())
            found[word[0].lower()] = max(height, found.get(word[0].lower(), 0.0))
    return found


def look(
    retriever: Retriever, pages: Sequence[DrawnPage], each: int, rng: random.Random
) -> Iterator[Looked]:
    """Yield `each` words of every page, looked for on all of them, but for those all hold."""
    encoded = [retriever.encode_views(Image.fromarray(page.image)).vectors for page in pages]
    texts = ["".join(map(chr, page.glyphs.codes)).lower() for page in pages]
    for home, page in enumerate(pages):
        heights = words(page.glyphs)
        for word in rng.sample(sorted(heights), min(each, len(heights))):
            without = [at for at, text in enumerate(texts) if word not in text]
            if not without:
                continue
            query = retriever.encode_query_batch([word])[0].vectors
            ends = [
                span is not None and span[1] == len(word) for span in retriever.query_spans(word)
            ]
            last = query[np.flatnonzero(ends)[-1]]  # the decoder is causal: it knows all the word
            best = [float((encoded[at] @ last).max()) for at in (home, *without)]
            yield Looked(heights[word], best[0], np.array(best[1:], np.float32))


def report(name: str, found: Sequence[Looked]) -> None:
    """Print a row for each size of type: matches, and how often the right page has the best."""
    classes = np.searchsorted(SIZES_PX, [each.height for each in found], side="right") - 1
    for number in (None, *np.unique(classes)):
        of = [e for e, c in zip(found, classes, strict=True) if number in (None, c)]
        own = np.mean([each.own for each in of])
        others = np.mean([each.others.mean() for each in of])
        beaten = np.mean([(each.others < each.own).mean() for each in of])
        first = np.mean([(each.others < each.own).all() for each in of])
        size = "all" if number is None else f"from {SIZES_PX[number]} px"
        figures = " | ".join(f"{share:.3f}" for share in (own, others, beaten, first))
        print(f"| {name} | {size} | {len(of)} | {figures} |")


def drawn_pages(tools: Tools, english: bool, seed: int) -> Iterator[DrawnPage]:
    """Yield clean drawn pages in one language, resized as the runtime does."""
    while True:
        seed += 1
        kind = KINDS[seed % len(KINDS)]
        page = draw(
            tools.corpus, tools.fonts, seed, kind, degraded=1e-9, english=float(english), plain=0.5,
            varied=1.0,
        )  # fmt: skip
        if len(page.glyphs.codes) > 300:
            yield fit(page, MAX_CELLS)


def is_english(page: DrawnPage) -> bool:
    """Whether nine in ten characters of a page are neither kana nor kanji."""
    return bool((page.glyphs.codes < 0x3000).mean() > 0.9)


@app.command()
def main(
    model: Annotated[Path, typer.Argument(help="model folder")],
    work: Annotated[Path, typer.Argument(help="folder of a run, for text and fonts")],
    documents: Annotated[Path, typer.Argument(help="folder of PDFs")],
    pages: Annotated[int, typer.Option(help="of each kind and language")] = 40,
    each: Annotated[int, typer.Option(help="words of a page")] = 20,
) -> None:
    """Print a table of drawn and of real pages, in English and in Japanese."""
    retriever, tools = models.load(model).retriever, Tools.load(work)
    real = [page for _, page in real_pages(documents, 4, MAX_CELLS)]
    random.Random(0).shuffle(real)
    print("| pages | type | words | match | elsewhere | pages beaten | all beaten |")
    print("|---|---|---|---|---|---|---|")
    for language in ("English", "Japanese"):
        shown = [page for page in real if is_english(page) == (language == "English")][:pages]
        drawn = list(islice(drawn_pages(tools, language == "English", 0), pages))
        for name, members in (("real", shown), ("drawn", drawn)):
            found = list(look(retriever, members, each, random.Random(0)))
            report(f"{language}, {name}", found)


if __name__ == "__main__":
    app()
