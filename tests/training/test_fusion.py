"""Fusion weights are fitted from what the product itself sees of drawn pages."""

import random
from pathlib import Path

import numpy as np
import pymupdf

from benchmarks import fusion
from index.fusion import DEFAULT, Fusion, Signals
from training.corpus import Corpus
from training.pages import draw

MODEL = Path(__file__).parents[2] / "models" / "embedded"


def test_drawn_pages_are_searched_by_the_product(work, tmp_path):
    """Signals come page by page; the one that was asked for is the only one in its language."""
    corpus, rng = Corpus(work / "text"), random.Random(0)
    pages = [
        draw(corpus, work / "fonts", seed, "prose", degraded=1e-9, english=english)
        for seed, english in ((1, 1.0), (2, 1e-9), (3, 1e-9))
    ]
    folder = tmp_path / "pages"
    folder.mkdir()
    for number, page in enumerate(pages):
        fusion.write_pdf(page, folder / f"{number}.pdf", with_text=number < 2)
    with pymupdf.open(folder / "0.pdf") as first, pymupdf.open(folder / "2.pdf") as scan:
        assert "".join(fusion.page_text(pages[0])[0].split()) in "".join(
            first[0].get_text().split()
        )
        assert not scan[0].get_text().strip()
    asked = [(fusion.question(pages[0], rng), "0.pdf"), ("zyzzyva", "")]
    found, _ = fusion.ask_all(folder, tmp_path / "index", MODEL, asked)
    assert [len(each.relevant) for each in found] == [3, 3]
    assert found[0].relevant.sum() == 1 and not found[1].relevant.any()
    at = int(found[0].relevant.argmax())
    assert found[0].signals.text[at] == found[0].signals.text.max() > 0


def test_measures_of_a_ranking_and_of_abstaining():
    signals = Signals(np.array([1.0, 5.0]), np.array([0.9, 0.0]))
    nothing = Signals(np.array([0.5, 0.4]), np.zeros(2))
    questions = [
        fusion.Asked("a", "x.pdf", signals, np.array([True, False])),
        fusion.Asked("b", "", nothing, np.zeros(2, bool)),
    ]
    assert fusion.measure(questions, "text") == 1.0
    assert 0 < fusion.measure(questions, "visual") < 1
    assert fusion.measure(questions, DEFAULT) == 1.0
    assert fusion.abstaining(questions, DEFAULT) == (1.0, 1.0)
    assert fusion.abstaining(questions, Fusion(threshold=0.0)) == (1.0, 0.0)
