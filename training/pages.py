"""Draws a page from a seed: HTML laid out and rasterized by PyMuPDF, with every character's box.

`draw` is a pure function of (seed, corpus, fonts): the same page each time, in any process.
Boxes come from the same layout that made the pixels, so labels are exact and free.
"""

import io
import random
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pymupdf
from numpy.typing import NDArray

from training import charts, content, scans, vertical
from training.content import Block, Fact
from training.corpus import Corpus
from training.fonts import Family, choose, choose_typewriter, font_bytes

A4 = (595.0, 842.0)
LETTER = (612.0, 792.0)
KINDS = {
    "prose": 5, "report": 6, "tables": 4, "columns": 3, "form": 2, "slide": 3, "chart": 4,
    "vertical": 1, "program": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Glyphs:
    """Visible characters of a page, in reading order.

    codes   (n,) code points
    boxes   (n, 4) x0 y0 x1 y1 in pixels
    lines   (n,) line numbers, never falling
    spaced  (n,) True where a space stands before the character
    """

    codes: NDArray[np.uint32]
    boxes: NDArray[np.float32]
    lines: NDArray[np.int32]
    spaced: NDArray[np.bool_]

    def text(self, where: NDArray[np.bool_] | NDArray[np.intp]) -> str:
        """Return the chosen characters as a string."""
        return "".join(map(chr, self.codes[where]))


@dataclass(frozen=True)
class DrawnPage:
    """A page image (H, W, 3) uint8 with its characters and the questions it answers."""

    image: NDArray[np.uint8]
    glyphs: Glyphs
    facts: tuple[Fact, ...]
    language: str
    kind: str


def draw(
    corpus: Corpus,
    fonts: Path,
    seed: int,
    kind: str | None = None,
    degraded: float = 0.38,
    english: float = 0.5,
    twin: int = 0,
    plain: float = 0.0,
    varied: float = 0.0,
) -> DrawnPage:
    """Return the page of a seed.

    kind      what it shows; None: the seed decides
    degraded  share of pages that look inverted, compressed or scanned
    english   share of pages in English, the others being Japanese
    plain     share of pages in one of the commonest fonts, at a common size
    varied    share of pages that are resized, condensed, made bolder or coloured (`scans.vary`)
    twin      not 0: the same page but for two digits that change places in one of its blocks
    """
    rng = random.Random(seed)
    language = "en" if rng.random() < english else "ja"
    kind = kind or rng.choices(list(KINDS), list(KINDS.values()))[0]
    if kind == "vertical":
        language = "ja"
    size = (rng.choice([720.0, 960.0]), 540.0) if kind == "slide" else rng.choice([A4, A4, LETTER])
    dpi = rng.uniform(72, 110) if kind == "slide" else rng.uniform(100, 140)
    is_plain = rng.random() < plain
    if is_plain:
        dpi = rng.uniform(80, 95) if kind == "slide" else rng.uniform(104, 118)
    families = (
        *(choose(fonts, rng, language, is_plain) for _ in range(2)),
        choose_typewriter(fonts, rng),
    )
    document, facts, areas = _compose(
        corpus, fonts, rng, language, kind, size, families, twin, is_plain
    )
    page = document[0]
    is_varied = rng.random() < varied
    if is_varied:  # as `ingest` draws
        dpi = 144
    dpi = round(dpi)  # a fraction that only one of the two saw would shift boxes by pixels
    glyphs = within(read_glyphs(page, dpi / 72), areas, dpi / 72)
    pixmap = page.get_pixmap(dpi=dpi, alpha=False)
    image = np.frombuffer(pixmap.samples, np.uint8).reshape(pixmap.height, pixmap.width, 3)
    image, boxes = scans.vary(image, glyphs.boxes, rng) if is_varied else (image, glyphs.boxes)
    image, boxes = scans.degrade(image, boxes, rng, degraded)
    glyphs = replace(glyphs, boxes=boxes)
    return DrawnPage(image, glyphs, _visible(facts, glyphs), language, kind)


def _visible(facts: list[Fact], glyphs: Glyphs) -> tuple[Fact, ...]:
    """Keep the facts whose answers did not fall off the page."""
    text = glyphs.text(np.arange(len(glyphs.codes)))
    squeezed = "".join(text.split())
    return tuple(f for f in facts if f.answer and "".join(f.answer.split()) in squeezed)


def read_glyphs(page: pymupdf.Page, scale: float) -> Glyphs:
    """Return the visible characters of a PyMuPDF page, boxes in pixels at `scale` px a point."""
    codes, boxes, lines, spaced, number = [], [], [], [], 0
    for block in page.get_text("rawdict", flags=0)["blocks"]:
        for line in block.get("lines", ()):
            space = False
            for char in (char for span in line["spans"] for char in span["chars"]):
                if char["c"].isspace():
                    space = True
                    continue
                codes.append(ord(char["c"][0]))
                boxes.append(char["bbox"])
                lines.append(number)
                spaced.append(space)
                space = False
            number += 1
    places = _share_ligatures(np.array(boxes, np.float32).reshape(-1, 4))
    # text that did not fit is left above the page by the layout
    middle = (places[:, :2] + places[:, 2:]) / 2
    shown = ((middle >= 0) & (middle < (page.rect.width, page.rect.height))).all(1)
    return Glyphs(
        np.array(codes, np.uint32)[shown],
        places[shown] * np.float32(scale),
        np.array(lines, np.int32)[shown],
        np.array(spaced, np.bool_)[shown],
    )


def within(glyphs: Glyphs, areas: list[pymupdf.Rect], scale: float) -> Glyphs:
    """Keep the characters in one of the areas (points): what a story overflows is not painted."""
    middle = (glyphs.boxes[:, :2] + glyphs.boxes[:, 2:]) / (2 * scale)
    kept = np.zeros(len(middle), np.bool_)
    for area in areas:
        kept |= ((middle >= (area.x0, area.y0)) & (middle <= (area.x1, area.y1))).all(1)
    return Glyphs(*(getattr(glyphs, f.name)[kept] for f in fields(Glyphs)))


def _share_ligatures(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide a ligature's box (n, 4) among its characters; MuPDF gives the first all of it."""
    shared = boxes.copy()
    has_width = boxes[:, 2] - boxes[:, 0] > 0.01
    starts = np.flatnonzero(has_width)
    for start, end in zip(starts, [*starts[1:], len(boxes)], strict=True):
        if end - start > 1:
            edges = np.linspace(boxes[start, 0], boxes[start, 2], end - start + 1)
            shared[start:end, 0], shared[start:end, 2] = edges[:-1], edges[1:]
    return shared


def _compose(
    corpus: Corpus,
    fonts: Path,
    rng: random.Random,
    language: str,
    kind: str,
    size: tuple[float, float],
    families: tuple[Family, ...],
    twin: int,
    is_plain: bool,
) -> tuple[pymupdf.Document, list[Fact], list[pymupdf.Rect]]:
    """Lay the page out; return it as a document, the facts of its blocks, the areas painted on."""
    margin = rng.uniform(24, 70)
    body = pymupdf.Rect(
        margin, rng.uniform(36, 70), size[0] - margin, size[1] - rng.uniform(36, 70)
    )
    chart_area = None
    if kind == "chart":
        body, chart_area = _split(body, rng)
    blocks = [] if kind == "vertical" else _blocks(corpus, rng, language, kind)
    if twin:
        blocks = content.with_digits_swapped(blocks, random.Random(twin))
    css = _style(rng, kind, families, is_plain)
    buffer = io.BytesIO()
    writer = pymupdf.DocumentWriter(buffer)
    device = writer.begin_page(pymupdf.Rect(0, 0, *size))
    archive = _archive(fonts, families)
    areas = [body] if kind == "vertical" else []
    for rect, markup in _regions(corpus, rng, language, body, blocks, kind, size):
        story = pymupdf.Story(markup, user_css=css, archive=archive)
        for column in rect:
            more, _ = story.place(column)
            story.draw(device)
            areas.append(column)
            if not more:
                break
    writer.end_page()
    writer.close()
    document = pymupdf.open("pdf", buffer.getvalue())
    facts = [fact for block in blocks for fact in block.facts]
    font = pymupdf.Font(fontbuffer=font_bytes(fonts / families[0].files["regular"]))
    if chart_area is not None:
        facts += charts.draw(document[0], chart_area, corpus, rng, language, font)
        areas.append(chart_area + (-60, -20, 60, 20))  # labels stand around it
    if kind == "vertical":
        vertical.write(document[0], body, corpus, rng, font)
    return document, facts, areas


def _split(body: pymupdf.Rect, rng: random.Random) -> tuple[pymupdf.Rect, pymupdf.Rect]:
    """Divide the page into a text part and a chart part, one above the other."""
    cut = body.y0 + body.height * rng.uniform(0.35, 0.65)
    top = pymupdf.Rect(body.x0, body.y0, body.x1, cut - 8)
    bottom = pymupdf.Rect(body.x0, cut + 8, body.x1, body.y1)
    return (top, bottom) if rng.random() < 0.5 else (bottom, top)


def _blocks(corpus: Corpus, rng: random.Random, language: str, kind: str) -> list[Block]:
    makers = {
        "prose": [content.paragraph],
        "columns": [content.paragraph, content.paragraph, content.section, content.reference],
        "report": [
            content.section,
            content.paragraph,
            content.bullets,
            content.table,
            content.reference,
        ],
        "program": [content.code, content.paragraph, content.code],
        "tables": [content.table, content.paragraph, content.table],
        "form": [content.form, content.paragraph],
        "slide": [content.bullets, content.bullets, content.table],
        "chart": [content.section, content.paragraph],
    }[kind]
    count = 3 if kind == "slide" else 14
    head = [content.title(corpus, rng, language)] if rng.random() < 0.8 else []
    if kind == "form":
        head.append(content.form(corpus, rng, language))
    return head + [rng.choice(makers)(corpus, rng, language) for _ in range(count)]


def _regions(
    corpus: Corpus,
    rng: random.Random,
    language: str,
    body: pymupdf.Rect,
    blocks: list[Block],
    kind: str,
    size: tuple[float, float],
) -> list[tuple[list[pymupdf.Rect], str]]:
    """Return (rectangles to fill in order, HTML) for the body, the header and the footer."""
    count = rng.choice([2, 2, 3]) if kind == "columns" else 1
    gap = 16.0
    width = (body.width - gap * (count - 1)) / count
    columns = [
        pymupdf.Rect(
            body.x0 + i * (width + gap), body.y0, body.x0 + i * (width + gap) + width, body.y1
        )
        for i in range(count)
    ]
    regions = [(columns, "".join(block.markup for block in blocks))]
    if rng.random() < 0.5:
        line = pymupdf.Rect(body.x0, 14, body.x1, 32)
        regions.append(([line], f'<p class="small">{corpus.phrase(rng, language, 4)}</p>'))
    if rng.random() < 0.6:
        foot = pymupdf.Rect(body.x0, size[1] - 30, body.x1, size[1] - 8)
        label = rng.choice(["{}", "- {} -", "Page {}", "{}"]).format(rng.randint(1, 400))
        regions.append(([foot], f'<p class="small" style="text-align:center">{label}</p>'))
    return regions


def _archive(fonts: Path, families: tuple[Family, ...]) -> pymupdf.Archive:
    archive = pymupdf.Archive()
    for family in families:
        for name in family.files.values():
            archive.add(font_bytes(fonts / name), name)
    return archive


def _faces(families: tuple[Family, ...]) -> str:
    described = {"regular": "", "bold": "font-weight:bold;", "italic": "font-style:italic;"}
    return "".join(
        f"@font-face{{font-family:f{number};{described[style]}src:url({name});}}"
        for number, family in enumerate(families)
        for style, name in family.files.items()
    )


def _type_size(rng: random.Random, kind: str) -> float:
    """Return the size of body text in points: mostly ordinary, some footnotes, some posters."""
    if kind == "slide":
        return rng.uniform(12, 40)
    low, high, usual = rng.choices([(7.5, 14, 10), (5, 8, 7), (14, 30, 16)], [60, 28, 12])[0]
    return rng.triangular(low, high, usual)


def _style(rng: random.Random, kind: str, families: tuple[Family, ...], is_plain: bool) -> str:
    """Return the page's style sheet."""
    size = _type_size(rng, kind)
    if is_plain and kind != "slide":
        size = rng.uniform(9.5, 12)
    ink = rng.choice(["#000", "#000", "#000", "#111", "#222", "#333", "#1a1a60", "#555"])
    accent = rng.choice(["#000", "#000", "#003366", "#8b0000", "#00695c", "#4a148c", "#e65100"])
    shade = rng.choice(["#eeeeee", "#dde6f0", "#fff3cd", "#e0f2f1", "#333366"])
    on_shade = "#fff" if shade == "#333366" else "#000"
    rule = rng.choice(["#000", "#000", "#888", "#ccc"])
    align = rng.choice(["left", "justify", "justify"])
    cells = rng.choice(["left", "right", "center"])
    head = rng.choice(["f0", "f1"])
    return (
        _faces(families)
        + f"""
body{{font-family:f0;font-size:{size:.2f}pt;color:{ink};line-height:{rng.uniform(1.05, 1.7):.2f};
 text-align:{align}}}
p{{margin:0 0 {rng.uniform(0, 0.9):.2f}em 0;text-indent:{rng.choice([0, 0, 1, 2])}em}}
h1{{font-family:{head};font-size:{rng.uniform(1.3, 2.2):.2f}em;color:{accent};
 text-align:{rng.choice(["left", "center"])};line-height:1.2;margin:0 0 .6em 0}}
h2,h3{{font-family:{head};font-size:{rng.uniform(1.05, 1.5):.2f}em;color:{accent};line-height:1.2;
 margin:.6em 0 .3em 0}}
.code{{font-family:f2;text-align:left;text-indent:0;margin:0;line-height:1.2;
 font-size:{rng.uniform(0.75, 1):.2f}em}}
.small{{font-size:{min(size * 0.8, 9):.1f}pt;text-indent:0;margin:0}}
table{{font-size:{rng.uniform(0.8, 1):.2f}em;margin:.5em 0;line-height:1.2;
 {rng.choice(["", "width:100%;"])}}}
td,th{{padding:{rng.uniform(1, 5):.1f}pt {rng.uniform(3, 9):.1f}pt;text-align:{cells};
 text-indent:0}}
.ruled td,.ruled th{{border:{rng.choice([0.5, 0.75, 1])}pt solid {rule}}}
.lines td,.lines th{{border-bottom:.5pt solid {rule}}}
.shaded th{{background-color:{shade};color:{on_shade}}}
.shaded td{{border-bottom:.5pt solid {rule}}}
"""
    )
