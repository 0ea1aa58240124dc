"""Bar, line and pie charts with their labels, and the values to ask for."""

import math
import random

import pymupdf

from training.content import UNITS, Fact
from training.corpus import Corpus

COLOURS = [
    (0.12, 0.47, 0.71), (1, 0.5, 0.05), (0.17, 0.63, 0.17), (0.84, 0.15, 0.16), (0.58, 0.4, 0.74),
    (0.3, 0.3, 0.3), (0.6, 0.6, 0.6), (0, 0, 0), (0.09, 0.75, 0.81),
]  # fmt: skip


def draw(
    page: pymupdf.Page,
    area: pymupdf.Rect,
    corpus: Corpus,
    rng: random.Random,
    language: str,
    font: pymupdf.Font,
) -> list[Fact]:
    """Draw one chart into the area of the page and return questions about its values."""
    pen = _Pen(page, font, rng.uniform(7, 11))
    caption = corpus.phrase(rng, language, 4)[:32]
    pen.write(area.x0, area.y0 + pen.size, caption)
    plot = pymupdf.Rect(
        area.x0 + 40, area.y0 + 2.2 * pen.size, area.x1 - 10, area.y1 - 2 * pen.size
    )
    names = _names(corpus, rng, language)
    unit = rng.choice(UNITS[language])
    values = [round(rng.uniform(2, 100), rng.choice([0, 1])) for _ in names]
    texts = [f"{value:g}{unit}" for value in values]
    rng.choice([_bars, _bars, _lines, _pie])(pen, plot, names, values, texts, rng)
    pen.finish()
    ask = "What is the value of {} in the chart?" if language == "en" else "グラフの{}の値は?"
    facts = [Fact("chart", ask.format(n), t) for n, t in zip(names, texts, strict=True)]
    caption_ask = (
        "What is the caption of the chart?" if language == "en" else "グラフの題は何ですか。"
    )
    return [Fact("caption", caption_ask, caption), *rng.sample(facts, min(3, len(facts)))]


class _Pen:
    """Shapes and text of one chart."""

    def __init__(self, page: pymupdf.Page, font: pymupdf.Font, size: float) -> None:
        self.page, self.font, self.size = page, font, size
        self.shape = page.new_shape()
        self.text = pymupdf.TextWriter(page.rect)

    def write(self, x: float, y: float, text: str) -> None:
        self.text.append((x, y), text, font=self.font, fontsize=self.size)

    def centred(self, x: float, y: float, text: str) -> None:
        self.write(x - self.font.text_length(text, self.size) / 2, y, text)

    def finish(self) -> None:
        self.shape.commit()
        self.text.write_text(self.page)


def _names(corpus: Corpus, rng: random.Random, language: str) -> list[str]:
    count = rng.randint(3, 7)
    if rng.random() < 0.4:
        first = rng.randint(1980, 2020)
        return [f"{first + i}{'年' if language == 'ja' else ''}" for i in range(count)]
    return [corpus.phrase(rng, language, 1)[:9] for _ in range(count)]


def _axes(pen: _Pen, plot: pymupdf.Rect, top: float) -> None:
    pen.shape.draw_line(plot.tl, plot.bl)
    pen.shape.draw_line(plot.bl, plot.br)
    pen.shape.finish(width=0.7, closePath=False)  # else a line from corner to corner
    for mark in range(5):
        y = plot.y1 - plot.height * mark / 4
        pen.write(plot.x0 - 34, y + pen.size / 3, f"{top * mark / 4:g}")


def _bars(pen, plot, names, values, texts, rng) -> None:  # noqa: ANN001
    top = math.ceil(max(values) / 20) * 20
    _axes(pen, plot, top)
    step, colour = plot.width / len(names), rng.choice(COLOURS)
    for i, (name, value, text) in enumerate(zip(names, values, texts, strict=True)):
        x, y = plot.x0 + step * (i + 0.5), plot.y1 - plot.height * value / top
        pen.shape.draw_rect(pymupdf.Rect(x - step * 0.3, y, x + step * 0.3, plot.y1))
        pen.shape.finish(fill=colour, color=colour)
        pen.centred(x, y - 2, text)
        pen.centred(x, plot.y1 + pen.size * 1.2, name)


def _lines(pen, plot, names, values, texts, rng) -> None:  # noqa: ANN001
    top = math.ceil(max(values) / 20) * 20
    _axes(pen, plot, top)
    step = plot.width / len(names)
    points = [
        pymupdf.Point(plot.x0 + step * (i + 0.5), plot.y1 - plot.height * value / top)
        for i, value in enumerate(values)
    ]
    pen.shape.draw_polyline(points)
    pen.shape.finish(color=rng.choice(COLOURS), width=rng.uniform(0.8, 2), closePath=False)
    for name, text, point in zip(names, texts, points, strict=True):
        pen.centred(point.x, point.y - 4, text)
        pen.centred(point.x, plot.y1 + pen.size * 1.2, name)


def _pie(pen, plot, names, values, texts, rng) -> None:  # noqa: ANN001
    radius = min(plot.width, plot.height) / 2 - 6
    centre = pymupdf.Point(plot.x0 + radius, plot.y0 + plot.height / 2)
    start = centre + pymupdf.Point(0, -radius)
    for i, (name, value, text) in enumerate(zip(names, values, texts, strict=True)):
        angle = 360 * value / sum(values)
        colour = COLOURS[i % len(COLOURS)]
        start = pen.shape.draw_sector(centre, start, -angle)
        pen.shape.finish(fill=colour, color=(1, 1, 1))
        y = plot.y0 + pen.size * 1.5 * (i + 1)
        left = centre.x + radius + 14
        pen.shape.draw_rect(pymupdf.Rect(left, y - pen.size * 0.7, left + pen.size * 0.7, y))
        pen.shape.finish(fill=colour, color=colour)
        pen.write(left + pen.size * 1.2, y, f"{name}  {text}")
