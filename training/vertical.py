"""Vertical Japanese: columns from right to left, one character below the other."""

import random

import pymupdf

from training.corpus import Corpus

# upright forms for marks that lie down in vertical setting
FORMS = str.maketrans("ー―…「」『』（）()〈〉", "︱︱︙﹁﹂﹃﹄︵︶︵︶︿﹀")
RAISED = "、。，．"


def write(
    page: pymupdf.Page, area: pymupdf.Rect, corpus: Corpus, rng: random.Random, font: pymupdf.Font
) -> None:
    """Fill the area with vertical text."""
    page.wrap_contents()  # the layout leaves its axes behind: text after it stands on its head
    size = rng.uniform(9, 15)
    pitch, step = size * rng.uniform(1.4, 2.0), size * rng.uniform(1.0, 1.1)
    writer = pymupdf.TextWriter(page.rect)
    text = iter("".join(corpus.paragraph(rng, "ja") for _ in range(60)))
    x = area.x1 - size
    while x > area.x0:
        y = area.y0 + size
        while y < area.y1:
            char = next(text, "")
            if not char:
                break
            form = char.translate(FORMS)
            char = form if font.has_glyph(ord(form)) else char
            raised = size * 0.55 if char in RAISED else 0.0
            writer.append((x + raised, y - raised), char, font=font, fontsize=size)
            y += step
        x -= pitch
    writer.write_text(page)
