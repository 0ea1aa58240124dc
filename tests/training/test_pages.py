"""Drawn pages: the same from the same seed, and labelled where the ink is."""

import html
import random
import re

import numpy as np
import pymupdf
import pytest

from training import charts, content
from training.corpus import Corpus
from training.pages import KINDS, draw
from training.questions import ask
from training.samples import (
    JOINTS,
    Line,
    character_classes,
    crop,
    fit,
    inked,
    patchify,
    rows,
    scattered,
    window,
)
from training.scans import skew


@pytest.fixture(scope="session")
def corpus(work):
    return Corpus(work / "text")


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_one_page(work, corpus, kind):
    one, again = (draw(corpus, work / "fonts", 5, kind) for _ in range(2))
    other = draw(corpus, work / "fonts", 6, kind)
    assert np.array_equal(one.image, again.image)
    assert np.array_equal(one.glyphs.boxes, again.glyphs.boxes)
    assert one.facts == again.facts
    assert one.image.shape != other.image.shape or (one.image != other.image).any()


@pytest.mark.parametrize("kind", KINDS)
def test_every_box_holds_ink(work, corpus, kind):
    page = draw(corpus, work / "fonts", 11, kind, degraded=1e-9)
    assert len(page.glyphs.codes) > 20
    empty = 0
    for x0, y0, x1, y1 in np.round(page.glyphs.boxes).astype(int):
        part = page.image[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1].astype(int)
        empty += part.size == 0 or np.ptp(part.sum(-1)) < 60
    assert empty <= 0.01 * len(page.glyphs.codes)


def test_text_ink_lies_inside_the_boxes(work, corpus):
    page = draw(corpus, work / "fonts", 3, "prose", degraded=1e-9)
    dark = page.image.min(-1) < 128
    total = dark.sum()
    for x0, y0, x1, y1 in np.round(page.glyphs.boxes).astype(int):
        dark[max(y0 - 1, 0) : y1 + 2, max(x0 - 1, 0) : x1 + 2] = False
    assert total > 1000
    assert dark.sum() < 0.01 * total


def test_boxes_are_right_to_the_pixel(work, corpus):
    """Ink starts and ends where its boxes do, also at the far side of the page."""
    page = draw(corpus, work / "fonts", 3, "prose", degraded=1e-9)
    glyphs, dark = page.glyphs, page.image.min(-1) < 128
    off = []
    for line in np.unique(glyphs.lines):
        x0, y0, x1, y1 = glyphs.boxes[np.flatnonzero(glyphs.lines == line)[-1]]
        columns = np.flatnonzero(dark[round(y0) : round(y1), round(x0) - 6 : round(x1) + 6].any(0))
        if x0 > 0.6 * page.image.shape[1] and len(columns):
            off.append(columns.max() + round(x0) - 6 + 0.5 - x1)
    assert len(off) >= 5
    assert -3 < np.median(off) < 1  # a box ends a side bearing after its ink


@pytest.mark.parametrize("seed", [3, 6])
def test_vertical_lines_go_down_and_from_right_to_left(work, corpus, seed):
    """They stood on their head until the fifteenth run, boxes and pixels alike."""
    page = draw(corpus, work / "fonts", seed, "vertical", degraded=1e-9)
    middles = (page.glyphs.boxes[:, :2] + page.glyphs.boxes[:, 2:]) / 2
    right, down = np.diff(middles, axis=0).T
    is_next_line = np.abs(down) > page.image.shape[0] / 3
    assert (down[~is_next_line] > 0).all() and (right[is_next_line] < 0).all()
    assert 0 < is_next_line.sum() < len(middles) / 5


def test_boxes_turn_with_a_skewed_page():
    image = np.full((400, 300, 3), 255, np.uint8)
    image[50:60, 200:210] = 0
    turned, boxes = skew(image, np.array([[200, 50, 210, 60]], np.float32), 3.0)
    rows, columns = np.nonzero(turned.min(-1) < 100)
    centre = (boxes[0, :2] + boxes[0, 2:]) / 2
    assert np.allclose(centre, [columns.mean(), rows.mean()], atol=1.0)


@pytest.mark.parametrize("seed", range(6))
def test_boxes_follow_a_varied_page(work, corpus, seed):
    """Resized, condensed, bolder or coloured: ink stays in the boxes, and paper beside them."""
    page = draw(corpus, work / "fonts", seed, "prose", degraded=1e-9, varied=1.0)
    paper = page.image[2, 2].astype(int)
    inked = np.abs(page.image.astype(int) - paper).sum(-1) > 90
    held, total = 0, inked.sum()
    for x0, y0, x1, y1 in np.round(page.glyphs.boxes).astype(int):
        part = inked[max(y0 - 1, 0) : y1 + 2, max(x0 - 1, 0) : x1 + 2]
        held += part.any()
        part[:] = False
    assert held > 0.98 * len(page.glyphs.codes) > 0
    assert inked.sum() < 0.02 * total


def test_varied_pages_differ_in_size_and_colour(work, corpus):
    pages = [
        draw(corpus, work / "fonts", seed, "prose", degraded=1e-9, varied=1.0) for seed in range(16)
    ]
    shapes = {page.image.shape for page in pages}
    papers = {tuple(map(int, page.image[2, 2])) for page in pages}
    assert len(shapes) > 5
    assert len(papers) > 1
    assert all(max(page.image.shape) <= 144 / 72 * 960 for page in pages)


def test_facts_stand_on_their_page(work, corpus):
    found = [draw(corpus, work / "fonts", seed, "form").facts for seed in range(4)]
    assert any(found)
    kinds = {fact.kind for facts in found for fact in facts}
    assert kinds & {"form", "date"}


def test_blank_cells_are_left_out_and_labels_follow(work, corpus):
    page = fit(draw(corpus, work / "fonts", 3, "prose", degraded=1e-9), 1500)
    classes = character_classes((work / "characters.txt").read_text(encoding="utf-8"))
    found = window(page, classes)
    mask = inked(page.image)
    assert found.grid == mask.shape
    assert len(found.positions) == mask.sum() < mask.size
    assert len(found.patches) == 4 * len(found.positions)
    shown = "".join(line.text for line in found.lines).replace(" ", "")
    assert len(shown) > 100
    assert (found.slots > 0).sum() > 0.6 * len(shown)  # small type may share a slot


def test_patches_are_those_of_the_runtime():
    torch = pytest.importorskip("torch", reason="normalising is torch's")
    from PIL import Image

    from models.images import preprocess
    from training.model import normalise

    pixels = np.random.default_rng(0).integers(0, 256, (84, 112, 3), np.uint8)
    wanted = preprocess(Image.fromarray(pixels), 28 * 28, 10**6).pixel_values
    positions = np.argwhere(np.ones((3, 4), bool))
    ours = (
        normalise(torch.from_numpy(patchify(pixels, positions)))
        .numpy()
        .reshape(-1, 3, 1, 14, 14)
        .repeat(2, axis=2)
    )
    assert np.abs(ours.reshape(len(wanted), -1) - wanted).max() < 1e-5


def test_a_crop_beyond_the_page_is_white(work, corpus):
    page = draw(corpus, work / "fonts", 3, "prose", degraded=1e-9)
    part = crop(page, -10_000, -10_000, 2, 3)
    assert part.image.shape == (56, 84, 3)
    assert (part.image == 255).all()


def test_answers_are_on_the_page_that_is_asked(work, corpus):
    page = fit(draw(corpus, work / "fonts", 4, "tables", degraded=1e-9), 1500)
    found = window(page, character_classes(""))
    asked = ask(found, random.Random(0), 12, True, corpus.asked)
    text = "".join(chr(c) for c in page.glyphs.codes)
    assert len(asked) == 12
    for item in asked:
        if item.kind not in ("absent", "row"):
            assert "".join(item.answer.split()) in text
        elif item.kind == "row":
            assert any("".join(line.text.split()) in "".join(item.answer.split())
                       or item.answer in line.text for line in found.lines)  # fmt: skip
            assert len(item.answer) == len(item.cells)


def test_short_lines_side_by_side_are_one_row():
    def line(text, *box):
        return Line(text, np.arange(len(text)), tuple(map(float, box)))

    cells = [
        line("12", 100, 11, 120, 21),
        line("Sales", 10, 10, 60, 22),
        line("Cost", 10, 30, 50, 42),
    ]
    long = [line(30 * "a", 200, 30, 400, 42), line("next", 200, 50, 240, 62)]
    found = {row.text: row for row in rows([*cells, *long])}
    assert set(found) == {"Sales 12", "Cost", 30 * "a", "next"}
    assert found["Sales 12"].cells.tolist() == [0, 1, 2, 3, 4, -1, 0, 1]
    assert found["Sales 12"].box == (10, 10, 120, 22)


def test_words_are_asked_for_out_of_their_order_with_their_cells():
    lines = [
        Line("Total sales of 2,023 kettles", np.arange(28)),
        Line("in the north", np.arange(100, 112)),
        Line("花火大会の開催について", np.arange(200, 211)),
    ]
    rng, seen = random.Random(0), set()
    for _ in range(300):
        text, cells, parts = scattered(rng.choice(lines), lines, rng)
        assert len(text) == len(cells)
        at = 0
        for part in parts:
            at = text.index(part, at)
            line = next(line for line in lines if part in line.text)
            start = line.text.index(part)
            assert cells[at : at + len(part)].tolist() == [*line.cells[start : start + len(part)]]
            at += len(part)
        joints = [char for char, cell in zip(text, cells, strict=True) if cell == -1]
        assert len(joints) == len(parts) - 1 and set(joints) <= set(JOINTS)
        seen.add(parts)
    words = {part for parts in seen for part in parts}
    assert words == {"Total", "sales", "2,023", "kettles", "north", "花火大会", "開催"}
    assert ("kettles", "Total") in seen and ("north", "sales") in seen
    text, cells, parts = scattered(Line("of it", np.arange(5)), [Line("of it", np.arange(5))], rng)
    assert parts == (text,) and len(cells) == len(text)  # nothing that has content: as it stands


def test_a_twin_differs_in_few_places(work, corpus):
    page, twin = (
        draw(corpus, work / "fonts", 5, "tables", degraded=1e-9, twin=mark) for mark in (0, 7)
    )
    assert page.image.shape == twin.image.shape
    changed = (page.image != twin.image).any(-1).mean()
    assert 0 < changed < 0.02
    assert len(page.glyphs.codes) == len(twin.glyphs.codes)
    different = page.glyphs.codes != twin.glyphs.codes
    assert different.any()
    assert all(chr(code).isdigit() for code in page.glyphs.codes[different])


def test_axes_meet_in_one_corner_only():
    page = pymupdf.open().new_page(width=200, height=200)
    pen = charts._Pen(page, pymupdf.Font("helv"), 8)
    charts._axes(pen, pymupdf.Rect(60, 40, 180, 160), 10)
    pen.finish()
    pixmap = page.get_pixmap(colorspace="gray", alpha=False)
    pixels = np.frombuffer(pixmap.samples, np.uint8).reshape(200, 200)
    assert pixels[60:150, 60].max() < 255 and pixels[160, 70:170].max() < 255
    assert (pixels[45:155, 65:178] == 255).all()


def test_emphasis_changes_the_type_and_not_the_words():
    rng = random.Random(0)
    text = "one & two three four five"
    made = {content.emphasised(text, rng) for _ in range(200)}
    assert {html.unescape(re.sub("<[^>]*>", "", each)) for each in made} == {text}
    assert any("<i>" in each for each in made) and any("<b>" in each for each in made)
    assert content.emphasised("塩と銅", rng) == "塩と銅"


def test_references_and_programs_are_drawn(work, corpus):
    rng = random.Random(1)
    entries = content.reference(corpus, rng, "en").markup
    assert re.search(r"\((19|20)\d\d\)", entries) and "<i>" in entries
    addresses = " ".join(content.address(corpus, rng) for _ in range(40))
    assert "https://doi.org/10." in addresses and "@" in addresses and "www." in addresses
    lines = content.code(corpus, rng, "en").markup
    assert lines.count('class="code"') >= 3
    page = draw(corpus, work / "fonts", 8, "program", degraded=1e-9)
    assert len(page.glyphs.codes) > 50
