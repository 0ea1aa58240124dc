"""What the vision tower saw of pages, their pixels, and what their rows spell.

All views of a page land on one lattice of slots, 7×14 px of the page each: the tower has learnt to
name the character in each of a cell's 8 slots.
"""

import io
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open

import models
from models.engine import EngineOptions
from models.images import VisualInput, preprocess
from models.reading import COLUMNS, FRAMES, grey
from models.retriever import Retriever
from models.vision import Patches
from training.config import CELL_PX
from training.pages import DrawnPage, Glyphs
from training.samples import SLOTS, UNKNOWN, character_classes

SIGHT = Path(__file__).with_name("sight.safetensors")  # what the tower's slots mean
HIDDEN = 256  # features of a cell
NO_PIXELS = np.empty((0, 0), np.uint8)
FRAME_PX = 7 / FRAMES  # width
SLOT_PX = 14  # height: two rows of slots in a cell, four columns


class Alphabet:
    """The classes: 0 blank, 1 unknown, 2… the characters, the last one a space."""

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self.of_code = character_classes(characters)
        self.space = len(characters) + 2
        self.size = len(characters) + 3

    @classmethod
    def known(cls, file: Path = SIGHT) -> "Alphabet":
        """Return the alphabet of a file whose metadata holds its characters."""
        with safe_open(file, "pt") as saved:
            return cls(saved.metadata()["characters"])

    def text(self, classes: Iterable[int]) -> str:
        """Return classes as a string; what is unknown shows as U+FFFD."""
        return "".join(
            " " if c == self.space else "\ufffd" if c == UNKNOWN else self.characters[c - 2]
            for c in classes
        )


@dataclass(frozen=True)
class Cells:
    """What the tower saw of the inked cells of a page.

    features  (n, 256) float16; (n, 0): it did not look
    at        (n, 2) int16: row and column
    shift     1: the cells lie half a cell further down and to the right, else 0
    """

    features: NDArray[np.float16]
    at: NDArray[np.int16]
    shift: int = 0

    def slots(self) -> NDArray[np.int64]:
        """Return (n, 8, 2): row and column of every slot on the lattice of the page."""
        corner = self.at.astype(np.int64) * (2, 4) + np.array([1, 2]) * self.shift
        return corner[:, None] + np.stack(np.divmod(np.arange(SLOTS), 4), 1)

    @property
    def are_seen(self) -> bool:
        """Whether the tower saw them; of other cells only the pixels are known."""
        return self.features.shape[1] > 0

    def unseen(self) -> "Cells":
        """Return the same cells as if the tower had not seen them."""
        return replace(self, features=self.features[:, :0])

    def below(self, row: int) -> "Cells":
        """Return the cells as they lie on a page that begins at a row of cells of this one."""
        at = self.at - np.array([row, 0], np.int16)
        kept = at[:, 0] >= -self.shift  # half of a shifted cell of the row above is still seen
        return replace(self, features=self.features[kept], at=at[kept])


@dataclass(frozen=True)
class SeenPage:
    """A page as the tower saw it, with its pixels and its characters.

    cells     of its bands, and of the same bands shifted
    overview  cells of a smaller picture of the page; may be none
    grid      rows and columns of the page in cells
    small     the same of the overview; (0, 0): there is none
    pixels    of the page and of its overview, as models.reading.grey makes them
    glyphs    with boxes in pixels of the page at 28 px a cell
    """

    cells: tuple[Cells, Cells]
    overview: Cells
    grid: tuple[int, int]
    small: tuple[int, int]
    pixels: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    glyphs: Glyphs
    language: str

    def save(self, path: Path) -> None:
        """Write the page as .npz, only under its name when complete."""
        named = zip(("cells", "shifted", "overview"), (*self.cells, self.overview), strict=True)
        arrays = {f"{name}.{part}": getattr(c, part) for name, c in named for part in _KEPT}
        arrays |= {"grid": np.array(self.grid), "small": np.array(self.small)}
        arrays |= {f"glyphs.{name}": value for name, value in vars(self.glyphs).items()}
        for name, pixels in zip(_PIXELS, self.pixels, strict=True):
            arrays[name] = np.frombuffer(_png(pixels), np.uint8)
        partial = path.with_suffix(".part")
        with partial.open("wb") as file:
            np.savez(file, **arrays, language=np.array(self.language))
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> "SeenPage":
        """Read a page that `save` wrote."""
        with np.load(path) as saved:
            arrays = dict(saved)
        cells, further, overview = (
            Cells(*(arrays[f"{name}.{part}"] for part in _KEPT), shift)
            for name, shift in (("cells", 0), ("shifted", 1), ("overview", 0))
        )
        parts = ("codes", "boxes", "lines", "spaced")
        glyphs = Glyphs(*(arrays[f"glyphs.{part}"] for part in parts))
        grid, small = (tuple(arrays[name].tolist()) for name in ("grid", "small"))
        page, smaller = (_from_png(arrays[name].tobytes()) for name in _PIXELS)
        language = str(arrays["language"])
        return cls((cells, further), overview, grid, small, (page, smaller), glyphs, language)


_KEPT = ("features", "at")
_PIXELS = ("pixels", "overview.pixels")


def _png(pixels: NDArray[np.uint8]) -> bytes:
    if not pixels.size:
        return b""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _from_png(file: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(file))) if file else NO_PIXELS


def tower(model: str) -> Retriever:
    """Return the part of a model folder that sees pages."""
    return models.load(model, device="cpu", options=EngineOptions(n_threads=1)).retriever


def see(retriever: Retriever, page: DrawnPage, *, pixels_alone: bool = False) -> SeenPage:
    """Return a page as the runtime's tower sees it.

    pixels_alone  the tower does not look, which takes most of the time
    """
    image, options = Image.fromarray(page.image), retriever.options
    visual = preprocess(image, options.min_pixels, options.max_pixels)
    seen: dict[str, list[tuple[NDArray[np.float16], NDArray[np.int16]]]] = defaultdict(list)
    small = (0, 0)
    for view in retriever.views(image, visual):
        patches = Patches.choose(view.image, options.skip_blank_blocks)
        at = np.argwhere(patches.kept.reshape(_grid(view.image))) + (view.row, 0)
        features = (
            np.empty((len(at), 0)) if pixels_alone else retriever._vision.encode(patches).features
        )
        kind = "overview" if view.is_overview else "shifted" if view.is_shifted else "cells"
        seen[kind].append((features.astype(np.float16), at.astype(np.int16)))
        small = _grid(view.image) if view.is_overview else small
    grid = _grid(visual)
    scale = np.array(grid[::-1]) * CELL_PX / (image.width, image.height)
    boxes = (page.glyphs.boxes * np.tile(scale, 2)).astype(np.float32)
    glyphs = replace(page.glyphs, boxes=boxes)
    language = page.language or ("ja" if (glyphs.codes >= 0x3000).mean() > 0.1 else "en")
    pixels = grey(image, grid), grey(image, small) if small[0] else NO_PIXELS
    cells = _joined(seen["cells"], 0), _joined(seen["shifted"], 1)
    return SeenPage(cells, _joined(seen["overview"], 0), grid, small, pixels, glyphs, language)


def _grid(image: VisualInput) -> tuple[int, int]:
    """Return the rows and columns of an image in cells, each 2×2 patches."""
    return int(image.grid_thw[1]) // 2, int(image.grid_thw[2]) // 2


def _joined(parts: list[tuple[NDArray[np.float16], NDArray[np.int16]]], shift: int) -> Cells:
    if not parts:
        return Cells(np.empty((0, HIDDEN), np.float16), np.empty((0, 2), np.int16), shift)
    features, at = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Cells(features, at, shift)


def spelled(
    page: SeenPage, grid: tuple[int, int], alphabet: Alphabet
) -> dict[int, list[tuple[int, int]]]:
    """Return (class, frame) of all that the half rows of a grid of cells spell, from left to right.

    The frame is the one that the middle of the character lies in; -1: a space.
    A character belongs to the half row that its middle lies in.
    """
    glyphs = page.glyphs
    boxes = glyphs.boxes * np.tile(np.array(grid[::-1]) / page.grid[::-1], 2)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    of_row = np.floor(middle[:, 1] / SLOT_PX).astype(int)
    classes = alphabet.of_code[glyphs.codes]
    last_frame = COLUMNS * FRAMES * grid[1] - 1
    frames = np.clip(np.floor(middle[:, 0] / FRAME_PX).astype(int), 0, last_frame)
    found: dict[int, list[tuple[int, int]]] = {}
    last = -1
    for n in np.lexsort((middle[:, 0], of_row)):
        row = int(of_row[n])
        if not 0 <= row < 2 * grid[0]:
            continue
        if row not in found:
            found[row] = []
        elif _is_apart(glyphs, boxes, last, n):
            found[row].append((alphabet.space, -1))
        found[row].append((int(classes[n]), int(frames[n])))
        last = n
    return found


def _is_apart(glyphs: Glyphs, boxes: NDArray[np.float64], left: int, right: int) -> bool:
    """Whether a space stands between neighbours: as drawn, of two lines, or far from each other."""
    gap = boxes[right, 0] - boxes[left, 2]
    if glyphs.lines[left] != glyphs.lines[right]:
        return True
    height = max(boxes[right, 3] - boxes[right, 1], 1)
    return bool((glyphs.spaced[right] and gap > -1) or gap > height)
