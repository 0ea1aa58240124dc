"""Patch scores to an overlay on a page image, and the words of an answer to look for on it.

An overlay is one pixel for each cell of the page, coloured where the score is high; the browser
stretches it smoothly over the page, so that a page has an overlay for every word at a few hundred
bytes each. Over a whole query a cell counts by its best word (amax), which shows more than a mean.
"""

import base64
import io
import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rag.terms import terms

Floats = NDArray[np.float32]

FLOOR = 0.55  # share of the cells that stay clear: a page is mostly not the answer
STRONGEST = 200  # alpha of the best cell; the print below must stay readable
SHORT = 3  # letters of a word cut short that are enough to know it by: "Mar" in a chart is March
COLD, HOT = (255, 196, 61), (214, 40, 57)  # amber to red: told apart from print in both themes
# Words that stand in answers without being what was asked for.
COMMON = frozenset(
    "the and for was were are is of in on at to by it its this that with from as an a not no per "
    "page pages document documents there they has have had be been which".split()
)


def strength(scores: Floats) -> Floats:
    """Return scores (rows, cols) as 0 (clear) to 1 (strongest); NaN, a blank cell, is 0.

    Scores have no scale of their own, so the cells of the page are compared with one another: up to
    the FLOOR quantile they are clear. A page whose cells are all alike shows nothing.
    """
    seen = scores[np.isfinite(scores)]
    if not seen.size:
        return np.zeros_like(scores)
    low, high = float(np.quantile(seen, FLOOR)), float(seen.max())
    if high - low < 1e-6:
        return np.zeros_like(scores)
    share: Floats = np.clip((scores - low) / (high - low), 0.0, 1.0)
    return np.where(np.isfinite(share), share, np.float32(0))


def overlay(scores: Floats) -> Image.Image:
    """Return an RGBA image, one pixel for each cell: amber to red, clear where nothing matches."""
    share = strength(scores)[..., None]  # (rows, cols, 1)
    colour = np.array(COLD) + share * (np.array(HOT) - np.array(COLD))
    pixels = np.concatenate([colour, share**1.5 * STRONGEST], axis=-1)  # weak cells stay light
    return Image.fromarray(pixels.round().astype(np.uint8), "RGBA")


def data_uri(image: Image.Image, kind: str = "PNG") -> str:
    """Return an image as a data: URI; it reaches the browser as bytes, by no path."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 82} if kind in ("JPEG", "WEBP") else {}))
    return bytes_uri(buffer.getvalue(), f"image/{kind.lower()}")


def bytes_uri(content: bytes, media_type: str) -> str:
    """Return bytes as a data: URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


# A row of figures of which one is named behind it (rag/table_columns.py): the label and that one.
FIGURE_NAMED = re.compile(r"^(\D*)\d.* \((.+: .+)\)$")


def quoted_words(quotation: str, question: str) -> tuple[str, ...]:
    """Return the words worth framing of the lines of a quotation that speak most of a question.

    A quotation explains itself, by the head of a table for one; the frames are for what answers.
    """
    asked = terms(question)

    def speaks(line: str) -> float:
        own = terms(line)
        short = {a for a in asked - own for b in own if len(b) >= SHORT and a.startswith(b)}
        n_words = len(own & asked) + 0.9 * len(short)
        return n_words + (1 if any(map(str.isdigit, line)) else 0) if n_words else 0.0

    lines = quotation.splitlines()
    most = max(map(speaks, lines), default=0.0)
    best = [FIGURE_NAMED.sub(r"\1 \2", line) for line in lines if speaks(line) > 0.5 * most]
    return answer_words("\n".join(best or lines))


def answer_words(answer: str, most: int = 12) -> tuple[str, ...]:
    """Return the words of an answer worth framing on its page, in order, each once.

    Of more than `most`, the numbers first, which people look for, then the first of the others.
    Numbers with their unit, words of three letters or more that say something, and runs of kanji
    or katakana. A lone digit stands in too many places: it counts only where it is all there is.
    """
    found = re.findall(
        r"\d[\d.,:%/-]*[年月日人円泊件]?|[A-Za-zÀ-ɏ][\w'-]{2,}|[\u3400-\u9fff々]{2,}|[\u30a0-\u30ff]{2,}",
        answer,
    )
    bare = (each.rstrip(".,:-/'") for each in found)
    kept = tuple(dict.fromkeys(each for each in bare if each.lower() not in COMMON))
    kept = tuple(each for each in kept if len(each) > 1) or kept
    first = sorted(kept, key=lambda each: not each[0].isdigit())[:most]
    return tuple(each for each in kept if each in first)
