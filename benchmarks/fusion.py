"""Fits the weights that fuse the visual and the text ranking for a model, on drawn pages.

    python -m benchmarks.fusion WORK --model MODEL --write        leaves MODEL/fusion.json

WORK is a folder of `training.train prepare`. Pages are drawn, some of them scans without a text
layer, and indexed by the product itself; questions are phrases and facts of the pages, and half as
many of pages that are not there. Half of the questions fit the weights, the others measure them:
nDCG@5 of each ranking and of both fusions, and how often "not found" is right.
"""

import random
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import pymupdf
import typer
from numpy.typing import NDArray
from rich.console import Console

import models
from benchmarks.metrics import ndcg_at
from index.fusion import DEFAULT, Fusion, Numbers, Signals, fit
from index.page_index import PageIndex
from rag.cli_ingest import progress_for
from rag.intake import IngestRequest
from rag.pipeline import Pipeline
from rag.settings import Settings
from training.corpus import Corpus, is_japanese
from training.pages import DrawnPage, draw
from training.questions import AROUND

app = typer.Typer(add_completion=False, help=__doc__)
DPI = 144
UNREAD = 0.4  # share of pages without a text layer
NAMED = ("table", "chart", "text", "heading")  # facts whose questions name what they ask for
EVERY = 100_000  # hits: all pages


@dataclass(frozen=True)
class Asked:
    """A question, the document that answers it ("": none does), and what both rankings say."""

    text: str
    document: str
    signals: Signals
    relevant: NDArray[np.bool_]


@dataclass(frozen=True)
class _Recorder(Fusion):
    """Keeps the signals of one search, and ranks the pages in the order in which they came."""

    seen: list[Signals] = field(default_factory=list)

    def logits(self, signals: Signals) -> Numbers:
        """Return falling scores."""
        self.seen.append(signals)
        return -np.arange(len(signals.text), dtype=np.float64)


def page_text(page: DrawnPage) -> list[str]:
    """Return the lines of a drawn page."""
    lines = []
    for number in np.unique(page.glyphs.lines):
        members = np.flatnonzero(page.glyphs.lines == number)
        spaced = page.glyphs.spaced[members]
        lines.append(
            "".join(
                (" " if space else "") + chr(code)
                for space, code in zip(spaced, page.glyphs.codes[members], strict=True)
            ).strip()
        )
    return [line for line in lines if line]


def write_pdf(page: DrawnPage, path: Path, *, with_text: bool) -> None:
    """Write a drawn page as a PDF: its image, and its text laid invisibly over it."""
    height, width = (side * 72 / DPI for side in page.image.shape[:2])
    document = pymupdf.open()
    sheet = document.new_page(width=width, height=height)
    pixmap = pymupdf.Pixmap(
        pymupdf.csRGB, page.image.shape[1], page.image.shape[0], page.image.tobytes(), False
    )
    sheet.insert_image(sheet.rect, pixmap=pixmap)
    if with_text:
        font = "japan" if page.language == "ja" else "helv"
        for number, line in enumerate(page_text(page)):
            place = (10, 12 + number * 8 % (height - 20))
            sheet.insert_text(place, line, fontsize=7, fontname=font, render_mode=3)
    document.save(path)


def question(page: DrawnPage, rng: random.Random) -> str:
    """Return something to ask of a page: one of its facts, or a few of its words."""
    named = [fact for fact in page.facts if fact.kind in NAMED]
    if named and rng.random() < 0.4:
        return rng.choice(named).question
    line = rng.choice(_long_lines(page))
    if is_japanese(line):
        start = rng.randrange(max(1, len(line) - 10))
        phrase = line[start : start + rng.randint(4, 12)]
    else:
        words = line.split()
        start = rng.randrange(max(1, len(words) - 4))
        phrase = " ".join(words[start : start + rng.randint(2, 6)])
    lead, tail = rng.choice(AROUND["ja" if is_japanese(phrase) else "en"])
    return f"{lead}{phrase}{tail}" if rng.random() < 0.7 else phrase.strip() or line


def _long_lines(page: DrawnPage) -> list[str]:
    return [line for line in page_text(page) if len(line) > 5]


def draw_all(work: Path, count: int, seed: int) -> list[DrawnPage]:
    """Return `count` drawn pages that show at least a few lines."""
    corpus, found = Corpus(work / "text"), []
    while len(found) < count:
        page = draw(corpus, work / "fonts", seed + len(found), degraded=0.3, varied=0.7)
        seed += 1_000_003
        if len(_long_lines(page)) > 4:
            found.append(page)
    return found


def ask_all(
    folder: Path, index: Path, model: Path, asked: list[tuple[str, str]]
) -> tuple[list[Asked], float]:
    """Search for (question, document that answers it); return what both rankings say.

    Beside it, the sharpness with which they say it: that of the model.
    """
    with Pipeline(Settings.resolve(index=index, model=str(model), ocr="off")) as pipeline:
        report = pipeline.ingest(IngestRequest((folder,)), progress_for(Console(stderr=True)))
        sharpness = pipeline.encoder.fusion.sharpness
    if report.documents["failed"]:
        raise RuntimeError(f"{report.documents['failed']} drawn documents could not be read")
    vectors = models.load(model).retriever.encode_queries([text for text, _ in asked])
    found = []
    with PageIndex.open(index) as pages:
        for (text, document), own in zip(asked, vectors, strict=True):
            recorder = _Recorder(sharpness=sharpness)
            hits = pages.search(
                EVERY, vectors=own, text=text, mode="hybrid", fusion=recorder, exact=True
            )
            relevant = np.array([hit.document == document for hit in hits])
            found.append(Asked(text, document, recorder.seen[-1], relevant))
    return found, sharpness


def measure(questions: list[Asked], fusion: Fusion | str) -> float:
    """Return nDCG@5 of a fusion, or of one ranking: "visual", "text"."""
    scores = []
    for each in questions:
        if not each.document:
            continue
        if isinstance(fusion, str):
            score = getattr(each.signals, fusion)
        else:
            score = fusion.logits(each.signals)
        ranked = np.argsort(-score, kind="stable").tolist()
        scores.append(ndcg_at(ranked, np.flatnonzero(each.relevant).tolist(), 5))
    return float(np.mean(scores))


def abstaining(questions: list[Asked], fusion: Fusion) -> tuple[float, float]:
    """Return the shares of answerable questions kept and of unanswerable ones turned away."""
    kept = {True: [], False: []}
    for each in questions:
        best = float(fusion.probabilities(fusion.logits(each.signals)).max())
        kept[bool(each.document)].append(fusion.answers(best))
    return float(np.mean(kept[True])), 1 - float(np.mean(kept[False]))


@app.command()
def main(
    work: Annotated[Path, typer.Argument(help="folder made by training.train prepare")],
    model: Annotated[Path, typer.Option(help="model folder")] = Path("models/embedded"),
    pages: Annotated[int, typer.Option(help="pages to draw and index")] = 120,
    seed: Annotated[int, typer.Option(help="of pages and questions")] = 20_000_000,
    write: Annotated[bool, typer.Option(help="leave MODEL/fusion.json")] = False,
) -> None:
    """Fit the fusion weights and say what they are worth."""
    rng = random.Random(seed)
    drawn = draw_all(work, pages + pages // 4, seed)
    shown, absent = drawn[:pages], drawn[pages:]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "pages"
        folder.mkdir()
        asked = []
        for number, page in enumerate(shown):
            name = f"{number:04}.pdf"
            write_pdf(page, folder / name, with_text=rng.random() >= UNREAD)
            asked += [(question(page, rng), name) for _ in range(2)]
        asked += [(question(page, rng), "") for page in absent for _ in range(4)]
        rng.shuffle(asked)
        found, sharpness = ask_all(folder, Path(place) / "index", model, asked)
    half = len(found) // 2
    train, test = found[:half], found[half:]
    fitted = fit([(each.signals, each.relevant) for each in train], sharpness=sharpness)
    print(f"{pages} pages, {len(train)} questions to fit, {len(test)} to measure\n")
    print("| ranking | nDCG@5 | answerable kept | unanswerable turned away |\n|---|---|---|---|")
    for name in ("visual", "text"):
        print(f"| {name} | {measure(test, name):.3f} | | |")
    for name, fusion in (("general weights", DEFAULT), ("fitted weights", fitted)):
        kept, away = abstaining(test, fusion)
        print(f"| hybrid, {name} | {measure(test, fusion):.3f} | {kept:.0%} | {away:.0%} |")
    print(fitted.to_json())
    if write:
        (model / "fusion.json").write_text(fitted.to_json() + "\n")


if __name__ == "__main__":
    app()
