"""Words told apart by looking: the measurement is right about what it is given."""

import random
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch: uv sync --group training")

import models  # noqa: E402
from training import words  # noqa: E402
from training.evaluate import real_pages  # noqa: E402
from training.pages import Glyphs  # noqa: E402

SAMPLES = Path(__file__).parents[2] / "samples"


def test_words_are_told_from_figures_short_words_and_joints():
    text = "The 2,023 totals,来訪者の数 ロケット12 a1bcd Total"
    shown = [n for n, c in enumerate(text) if c != " "]
    boxes = np.array([[10 * n, 0, 10 * n + 8, 30 if text[n] == "T" else 20] for n in shown])
    glyphs = Glyphs(
        np.array([ord(text[n]) for n in shown], np.uint32),
        boxes.astype(np.float32),
        np.zeros(len(shown), np.int32),
        np.array([n > 0 and text[n - 1] == " " for n in shown]),
    )
    assert words.words(glyphs) == {"totals": 20, "来訪者": 20, "ロケット": 20, "total": 30}


def test_a_word_matches_its_page_better_than_others(capsys):
    pages = [page for _, page in real_pages(SAMPLES, 2, 1500)][:3]
    retriever = models.load("embedded").retriever
    found = list(words.look(retriever, pages, 6, random.Random(0)))
    assert len(found) > 10 and all(len(each.others) in (1, 2) for each in found)
    assert np.mean([(each.others < each.own).all() for each in found]) > 0.7
    words.report("samples", found)
    first = capsys.readouterr().out.splitlines()[0].split("|")
    assert int(first[3]) == len(found) and float(first[4]) > float(first[5])
