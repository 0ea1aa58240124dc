"""Turns a drawn page, or a window of it, into what the losses need: cells, labels, words.

A cell is 28×28 px, four patches, one visual token. A cell whose pixels are all one colour is blank
and left out; the others keep the positions of the full grid.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.config import CELL_PX, PATCH_PX
from training.corpus import is_japanese
from training.pages import DrawnPage, Glyphs

SLOTS = 8  # a cell's slots of 7×14 px: 2 rows of 4
CELL_LETTERS = 28  # of a table's cell at most: longer lines side by side are columns of text
JOINTS = ("の", "は", "と", "、", " ")  # of Japanese words that stand apart
# what is looked for by itself: no short words and joints, which every page has
CONTENT = re.compile(r"[A-Za-zÀ-ɏ]{4,}|\d[\d,.]*\d|[一-鿿々]{2,}|[ァ-ヶー]{3,}")
LONGEST_RUN = 6  # characters of Japanese that are looked for as one word
BLANK, UNKNOWN = 0, 1  # classes of a slot; known characters follow


@dataclass(frozen=True)
class Line:
    """A line of text inside a window.

    cells  (n,) the cell of every character, -1 for none
    box    x0 y0 x1 y1 of what is inside, in pixels
    """

    text: str
    cells: NDArray[np.int64]
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Window:
    """The inked cells of a window.

    patches    (4C, 588) uint8, channels first, cell-major
    positions  (C, 2) row and column of each cell
    grid       rows and columns of the full window
    slots      (C, 8) class of the character whose centre lies in each slot
    """

    patches: NDArray[np.uint8]
    positions: NDArray[np.int64]
    grid: tuple[int, int]
    slots: NDArray[np.int64]
    lines: tuple[Line, ...]
    page: DrawnPage


def inked(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return (rows, columns) True where a cell of the image is not one uniform colour."""
    rows, columns = image.shape[0] // CELL_PX, image.shape[1] // CELL_PX
    cells = image.reshape(rows, CELL_PX, columns, CELL_PX, 3)
    differs = cells != cells[:, :1, :, :1]  # from the cell's first pixel
    return differs.reshape(rows, CELL_PX, columns, -1).any(-1).any(1)


def patchify(image: NDArray[np.uint8], positions: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the patches (4C, 588) of the cells at positions (C, 2), channels first."""
    rows, columns = image.shape[0] // CELL_PX, image.shape[1] // CELL_PX
    cells = image.reshape(rows, 2, PATCH_PX, columns, 2, PATCH_PX, 3)
    cells = cells.transpose(0, 3, 1, 4, 6, 2, 5)  # row, column, patch row, patch column, C, h, w
    return cells[positions[:, 0], positions[:, 1]].reshape(-1, 3 * PATCH_PX * PATCH_PX)


def fit(page: DrawnPage, max_cells: int) -> DrawnPage:
    """Return the page resized as the runtime does: to whole cells, at most `max_cells`."""
    from PIL import Image

    height, width = page.image.shape[:2]
    rows, columns = round(height / CELL_PX), round(width / CELL_PX)
    if rows * columns > max_cells:
        shrink = (height * width / (max_cells * CELL_PX**2)) ** 0.5
        rows = max(1, int(height / shrink / CELL_PX))
        columns = max(1, int(width / shrink / CELL_PX))
    size = (columns * CELL_PX, rows * CELL_PX)
    image = np.asarray(Image.fromarray(page.image).resize(size, Image.Resampling.BICUBIC))
    scale = np.array([size[0] / width, size[1] / height] * 2, np.float32)
    return _moved(page, image, page.glyphs.boxes * scale)


def _moved(page: DrawnPage, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> DrawnPage:
    from dataclasses import replace

    return replace(page, image=image, glyphs=replace(page.glyphs, boxes=boxes))


def crop(page: DrawnPage, x: int, y: int, rows: int, columns: int) -> DrawnPage:
    """Return a part of the page; what lies outside the page is white."""
    height, width = rows * CELL_PX, columns * CELL_PX
    part = page.image[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)]
    image = np.full((height, width, 3), 255, np.uint8)
    top, left = max(-y, 0), max(-x, 0)
    image[top : top + part.shape[0], left : left + part.shape[1]] = part
    return _moved(page, image, page.glyphs.boxes - np.array([x, y, x, y], np.float32))


def window(page: DrawnPage, classes: NDArray[np.int32]) -> Window:
    """Return the inked cells and labels of a page whose size is whole cells.

    classes  (0x110000,) slot class of every code point
    """
    mask = inked(page.image)
    positions = np.argwhere(mask).astype(np.int64)
    cells, slot = slot_numbers(page, mask)
    slots = np.full((len(positions), SLOTS), BLANK, np.int64)
    seen = cells >= 0
    slots[cells[seen], slot[seen]] = classes[page.glyphs.codes[seen]]
    return Window(
        patchify(page.image, positions),
        positions,
        mask.shape,
        slots,
        tuple(text_lines(page.glyphs, cells)),
        page,
    )


def slot_numbers(
    page: DrawnPage, mask: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for every character the number of its inked cell (-1: none) and its slot there.

    mask  (rows, columns) True for inked cells
    """
    number = np.full(mask.shape, -1, np.int64)
    number[mask] = np.arange(np.count_nonzero(mask))
    boxes = page.glyphs.boxes
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((middle >= 0) & (middle < (page.image.shape[1], page.image.shape[0]))).all(1)
    column, row = np.where(inside[:, None], middle, 0).astype(np.int64).T
    cells = np.where(inside, number[row // CELL_PX, column // CELL_PX], -1)
    return cells, (row // PATCH_PX % 2) * 4 + column // (PATCH_PX // 2) % 4


def text_lines(glyphs: Glyphs, cells: NDArray[np.int64]) -> list[Line]:
    """Return the lines of which at least two characters have a cell.

    cells  (n,) the cell of each character, -1 for none
    """
    found = []
    seen = cells >= 0
    for number in np.unique(glyphs.lines[seen]):
        members = np.flatnonzero((glyphs.lines == number) & seen)
        if len(members) < 2:
            continue
        text, where = [], []
        for position, index in enumerate(members):
            if glyphs.spaced[index] and position:
                text.append(" ")
                where.append(-1)
            text.append(chr(glyphs.codes[index]))
            where.append(cells[index])
        boxes = glyphs.boxes[members]
        box = (*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist())
        found.append(Line("".join(text), np.array(where, np.int64), box))
    return found


def rows(lines: Sequence[Line]) -> list[Line]:
    """Return lines with the short ones that stand side by side, as in a table, joined to one."""
    found: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: line.box[0]):
        beside = (row for row in found if _is_beside(row[-1], line))
        row = next(beside, None)
        if row is None:
            found.append([line])
        else:
            row.append(line)
    return [_joined(row) for row in found]


def _is_beside(left: Line, right: Line) -> bool:
    overlap = min(left.box[3], right.box[3]) - max(left.box[1], right.box[1])
    lower = min(left.box[3] - left.box[1], right.box[3] - right.box[1])
    is_short = max(len(left.text), len(right.text)) <= CELL_LETTERS
    return is_short and left.box[2] <= right.box[0] and overlap > 0.6 * lower


def _joined(row: Sequence[Line]) -> Line:
    space = np.array([-1])
    cells = np.concatenate([part for line in row for part in (space, line.cells)])[1:]
    boxes = np.array([line.box for line in row])
    box = (*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist())
    return Line(" ".join(line.text for line in row), cells, box)


def character_classes(characters: str) -> NDArray[np.int32]:
    """Return the slot class of every code point, given the known characters in order."""
    classes = np.full(0x110000, UNKNOWN, np.int32)
    for number, character in enumerate(characters):
        classes[ord(character)] = number + 2
    return classes


def phrase(line: Line, rng: random.Random, japanese: bool) -> tuple[str, int]:
    """Return a few words of the line and where they start in it."""
    if japanese:
        length = rng.randint(2, 16)
        start = rng.randrange(max(1, len(line.text) - length + 1))
        return line.text[start : start + length], start
    words = list(re.finditer(r"\S+", line.text))
    first = rng.randrange(len(words))
    last = min(first + rng.randint(0, 9), len(words) - 1)
    start, end = words[first].start(), words[last].end()
    return line.text[start:end], start


Sought = tuple[str, NDArray[np.int64], tuple[str, ...]]


def contiguous(line: Line, lines: Sequence[Line], rng: random.Random) -> Sought:
    """Return a few words of a line as they stand there.

    Of what is returned: the text, the cell of each letter (-1: none), and the parts that a page
    must hold to show it.
    """
    text, start = phrase(line, rng, is_japanese(line.text))
    return text, line.cells[start : start + len(text)], (text,)


def scattered(line: Line, lines: Sequence[Line], rng: random.Random) -> Sought:
    """Return words of the line and of others in any order, as `contiguous` does.

    Who asks a question seldom words it as the page does: each word has to be found by itself,
    not by the one that stands before it.
    """
    japanese = is_japanese(line.text)
    chosen = [line, *rng.choices(lines, k=rng.randint(0, 3))]
    rng.shuffle(chosen)
    text, cells, parts = "", [], []
    for each in chosen:
        words = list(CONTENT.finditer(each.text))
        if not words:
            continue
        found = rng.choice(words)
        start, end = found.span()
        if is_japanese(found[0]):
            start += rng.randrange(max(1, end - start - LONGEST_RUN + 1))
            end = min(end, start + LONGEST_RUN)
        joint = "" if not text else rng.choice(JOINTS) if japanese else " "
        text += joint + each.text[start:end]
        cells += [np.full(len(joint), -1), each.cells[start:end]]
        parts.append(each.text[start:end])
    if not parts:
        return contiguous(line, lines, rng)
    return text, np.concatenate(cells).astype(np.int64), tuple(parts)
