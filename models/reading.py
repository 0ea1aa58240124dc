"""The reading head of a small model: what its vision tower saw of a page, as lines of text.

A tower that was taught which characters stand where (training/, stage `see`) has read the page
when it has seen it. The head looks at the features of all views of a page at once, on a lattice of
slots of 7×14 px, and at the pixels of each slot, because small type and signs of many strokes need
more than a tower that sees 14×14 px at once says of them. It names the characters of each row of
slots by CTC (Graves et al., ICML 2006).
It is a part of the model folder (`reading.onnx`) that real models do not have: they generate text.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

from models.errors import ModelFilesError
from models.session import Cancellation, check_inputs
from models.vision import VisionFeatures

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

BLANK, UNKNOWN = 0, 1  # classes; characters follow, the last class is a space
ROWS, COLUMNS = 2, 4  # of slots in a cell
SLOT_PX = (14, 7)  # height, width
FRAMES = 4  # of a slot, side by side: two narrow letters that are alike need one between them
PIXELS_OF_SLOT = (16, 8)  # height and width, as the head itself looks at a page
UNREADABLE = "\N{REPLACEMENT CHARACTER}"
FAR, LEAST_FAR_PX = 4.0, 24.0  # a gap of so many letters, and px, ends a line
MOST_HEIGHT_PX = 40.0  # of type that is read on a page as it is; larger type is read on an overview
FIRST_WIDE = 0x2E80  # from here on letters are as wide as high
LEAST_ALONE, MOSTLY = 4, 0.6  # letters alone, and their share, of what lies across vertical lines
LEAST_ACROSS = 4  # pieces that lie so: fewer are letters of something else
SAME_COLUMN = 0.35  # of the way from line to line: letters of one line are nearer to its middle
SAME_PLACE = 0.6  # of the pitch: letters of two rows that are nearer to one another cannot both be
LEGIBLE = 0.5  # confidence of a line; pictures and type that is too large or small have less
LEAST_SURE = 0.7  # of a line of an overview: type that is too small for it has 0.4 at most
SURER = 0.1  # how much more a line of an overview needs than the lines of the page in its place
OUTPUTS = ("frames", "classes", "confidence")
MOST_SHARED = 0.35  # of the letters of a piece: more, and it is a line of its own


@dataclass(frozen=True)
class SeenView:
    """What the tower saw of a part of a page.

    row         row of cells of the page that its first row is
    is_shifted  its cells lie half a cell further down and to the right
    """

    seen: VisionFeatures
    row: int = 0
    is_shifted: bool = False


@dataclass(frozen=True)
class ReadLine:
    """A line as it was read, with its edges in px of the page as it was encoded.

    confidence   mean probability of its characters
    is_vertical  it is written from top to bottom
    """

    text: str
    left: float
    top: float
    right: float
    bottom: float
    confidence: float
    is_vertical: bool = False


@dataclass(frozen=True, eq=False)
class _Piece:
    """Letters that stand side by side in a row of slots, or in a few such rows.

    text        (n,) characters, spaces among them
    middles     (n,) px from the left, never falling
    confidence  (n,) probability of each
    rows        first and last row of slots
    """

    text: tuple[str, ...]
    middles: Floats
    confidence: Floats
    rows: tuple[int, int]

    @cached_property
    def is_across(self) -> bool:
        """Whether it lies across lines that are written from top to bottom.

        Their letters stand side by side, each of another line, so there is a space between most.
        """
        words = "".join(self.text).split()
        n_alone = sum(len(word) == 1 and ord(word) >= FIRST_WIDE for word in words)
        return n_alone >= LEAST_ALONE and n_alone > MOSTLY * len(words)

    @cached_property
    def pitch(self) -> float:
        """Ordinary way from letter to letter, in px."""
        if len(self.text) < 2:
            return float(SLOT_PX[0])
        return max(float(np.median(np.diff(self.middles))), SLOT_PX[1] / 2)

    def at(self, chosen: Ints) -> "_Piece":
        """Return some of the letters."""
        text = tuple(self.text[each] for each in chosen)
        return replace(
            self, text=text, middles=self.middles[chosen], confidence=self.confidence[chosen]
        )

    @property
    def ink(self) -> Ints:
        """Which letters are no spaces."""
        return np.array([at for at, letter in enumerate(self.text) if letter != " "], np.int64)

    @property
    def at_ink(self) -> "_Piece":
        """Only the letters that are no spaces."""
        return self.at(self.ink)

    def parts(self) -> Iterator["_Piece"]:
        """Yield what stands together: there is no wide gap in it."""
        ink = self.ink
        if not len(ink):
            return
        far = max(FAR * self.at_ink.pitch, LEAST_FAR_PX)
        cuts = np.flatnonzero(np.diff(self.middles[ink]) > far) + 1
        for own in np.split(ink, cuts):
            yield self.at(np.arange(own[0], own[-1] + 1))

    def line(self) -> ReadLine:
        """Return the letters as a line."""
        is_wide = np.median([ord(letter) >= FIRST_WIDE for letter in self.text if letter != " "])
        height = min(max(self.pitch * (1 if is_wide else 2), SLOT_PX[0]), MOST_HEIGHT_PX)
        middle = SLOT_PX[0] * (self.rows[0] + self.rows[1] + 1) / 2
        return ReadLine(
            "".join(self.text),
            float(self.middles[0] - self.pitch / 2),
            middle - height / 2,
            float(self.middles[-1] + self.pitch / 2),
            middle + height / 2,
            float(self.confidence.mean()),
        )


class ReadingHead:
    """Runs reading.onnx."""

    def __init__(self, session: ort.InferenceSession, path: Path, hidden_size: int) -> None:
        check_inputs(session, path, {"features": (None, hidden_size), "pixels": (None, None)})
        characters = session.get_modelmeta().custom_metadata_map.get("characters", "")
        if not characters:
            raise ModelFilesError(f"{path}: says no characters; build the folder again")
        self._session = session
        self._characters = ["", UNREADABLE, *characters, " "]

    def read(
        self,
        views: Sequence[SeenView],
        grid: tuple[int, int],
        image: Image.Image,
        cancellation: Cancellation | None = None,
    ) -> list[ReadLine]:
        """Return the lines of a page, from top to bottom.

        views  of one page, all at one scale
        grid   (rows, columns) of the page in cells
        image  the page, upright and opaque (upright_rgb), at any scale
        """
        counts, inputs = _lattice(views, grid)
        inputs["pixels"] = grey(image, grid)
        classes = np.full((counts.size, FRAMES), BLANK)
        confidence = np.zeros(classes.shape, np.float32)
        options = ort.RunOptions()
        if len(inputs["features"]):
            with (cancellation or Cancellation()).watch(options):
                frames, found, sure = self._session.run(list(OUTPUTS), inputs, options)
            slot, frame = np.divmod(frames, FRAMES)
            at = inputs["seen"][slot, 0], frame
            classes[at], confidence[at] = found, sure
        classes, confidence = (each.reshape(len(counts), -1) for each in (classes, confidence))
        rows = enumerate(zip(classes, confidence, strict=True))
        pieces = [part for row, found in rows for part in self._letters(row, *found).parts()]
        level, across = _sorted_out(pieces)
        lines = [*(piece.line() for piece in join(level)), *columns(across)]
        return [line for line in lines if line.confidence >= LEGIBLE]

    def _letters(self, row: int, classes: Ints, confidence: Floats) -> _Piece:
        """Collapse the classes (n,) of the frames of a row: one letter for a run of one class."""
        starts = np.flatnonzero(np.diff(classes, prepend=-1))
        run = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(classes)))
        most = np.maximum.reduceat(confidence, starts)
        best = np.flatnonzero(confidence == most[run])
        surest = best[np.unique(run[best], return_index=True)[1]]
        surest = surest[classes[surest] != BLANK]
        return _Piece(
            tuple(self._characters[classes[at]] for at in surest),
            (np.array(surest, np.float32) + np.float32(0.5)) * np.float32(SLOT_PX[1] / FRAMES),
            confidence[surest],
            (row, row),
        )


def grey(image: Image.Image, grid: tuple[int, int]) -> Bytes:
    """Return a page of (rows, columns) cells as the head looks at it, (16·2·rows, 8·4·columns)."""
    height, width = PIXELS_OF_SLOT[0] * ROWS * grid[0], PIXELS_OF_SLOT[1] * COLUMNS * grid[1]
    return np.asarray(image.convert("L").resize((width, height), Image.Resampling.BICUBIC))


def combine(
    page: Sequence[ReadLine],
    overview: Sequence[ReadLine],
    grid: tuple[int, int],
    small: tuple[int, int],
) -> list[ReadLine]:
    """Return the lines of a page, from top to bottom, large type as its overview has it.

    grid, small  (rows, columns) of the page and of its overview in cells: both show all of it
    """
    down, right = grid[0] / small[0], grid[1] / small[1]
    lines = list(page)
    for line in overview:
        large = ReadLine(
            line.text, line.left * right, line.top * down, line.right * right, line.bottom * down,
            line.confidence,
        )  # fmt: skip
        within = [each for each in lines if _is_within(each, large)]
        letters = sum(len(each.text) for each in within)
        sure = sum(each.confidence * len(each.text) for each in within) / max(1, letters)
        if line.confidence > max(sure + SURER, LEAST_SURE):
            lines = [*(each for each in lines if each not in within), large]
    return sorted(lines, key=lambda each: (each.top + each.bottom, each.left))


def _is_within(line: ReadLine, other: ReadLine) -> bool:
    """Whether the middle of a line lies in another one."""
    x, y = (line.left + line.right) / 2, (line.top + line.bottom) / 2
    return other.left <= x <= other.right and other.top <= y <= other.bottom


def _lattice(
    views: Sequence[SeenView], grid: tuple[int, int]
) -> tuple[Ints, dict[str, NDArray[np.generic]]]:
    """Lay out all that views show of a page of (rows, columns) cells, slot by slot.

    Return how many views show each slot, (R, C), and the inputs of the graph.
    """
    counts = np.zeros((ROWS * grid[0], COLUMNS * grid[1]), np.int64)
    row, column = np.divmod(np.arange(ROWS * COLUMNS), COLUMNS)
    features, places = [], []
    for view in views:
        cells = np.argwhere(view.seen.kept.reshape(view.seen.grid_thw[1:] // 2))
        shift = np.array([ROWS // 2, COLUMNS // 2]) * int(view.is_shifted)
        rows = ROWS * (cells[:, :1] + view.row) + shift[0] + row
        columns = COLUMNS * cells[:, 1:] + shift[1] + column
        np.add.at(counts, (rows, columns), 1)
        features.append(view.seen.features)
        places.append((rows * counts.shape[1] + columns).ravel())
    inputs = {
        "features": np.concatenate(features),
        "places": np.concatenate(places)[:, None],
        "weights": np.where(counts > 0, 1 / np.maximum(counts, 1), 0).astype(np.float32),
        "seen": np.flatnonzero(counts)[:, None],
    }
    return counts, inputs


def join(pieces: Iterable[_Piece]) -> list[_Piece]:
    """Put the pieces (in order of rows) of lines together that lie between two rows of slots.

    Where the middle of a line is near the edge of a row, or the page is turned a little, some of
    its letters are read in one row and some in the next, a few in both.
    """
    done: list[_Piece] = []
    open_: list[_Piece] = []  # that end in the row before, or in this one
    for piece in pieces:
        row = piece.rows[0]
        done += [each for each in open_ if each.rows[1] < row - 1]
        open_ = [each for each in open_ if each.rows[1] >= row - 1]
        fitting = [each for each in open_ if each.rows[1] < row and _are_one(each, piece)]
        for each in fitting:
            open_.remove(each)
            piece = _merged(each, piece)
        open_.append(piece)
    return sorted([*done, *open_], key=lambda each: (sum(each.rows), each.middles[0]))


def _sorted_out(pieces: Sequence[_Piece]) -> tuple[list[_Piece], list[_Piece]]:
    """Divide pieces into those of level lines and those that lie across vertical ones.

    On a page of vertical lines all do: a few pieces have two lines' letters side by side.
    """
    level = [piece for piece in pieces if not piece.is_across]
    across = [piece for piece in pieces if piece.is_across]
    n_level, n_across = (sum(len(each.ink) for each in some) for some in (level, across))
    if len(across) < LEAST_ACROSS:
        return list(pieces), []
    return ([], list(pieces)) if n_across > MOSTLY * (n_level + n_across) else (level, across)


def columns(across: Sequence[_Piece]) -> list[ReadLine]:
    """Return the lines that are written from top to bottom, from right to left.

    across  the pieces that lie across them, from top to bottom
    """
    if not across:
        return []
    letters = [
        (float(x), SLOT_PX[0] * (sum(piece.rows) + 1) / 2, letter, float(sure))
        for piece in across
        for letter, x, sure in zip(piece.text, piece.middles, piece.confidence, strict=True)
        if letter != " "
    ]
    apart = float(np.median(np.concatenate([np.diff(piece.at_ink.middles) for piece in across])))
    letters.sort(key=lambda each: -each[0])
    cuts = [n for n, (a, b) in enumerate(pairwise(letters), 1) if a[0] - b[0] > SAME_COLUMN * apart]
    found = []
    for first, end in pairwise([0, *cuts, len(letters)]):
        found += list(_downwards(sorted(letters[first:end], key=lambda each: each[1])))
    return found


def _downwards(letters: Sequence[tuple[float, float, str, float]]) -> Iterator[ReadLine]:
    """Yield what stands together of letters (x, y, letter, confidence) under one another."""
    once = [letters[0]]  # a letter between two rows is read in both
    for letter in letters[1:]:
        if letter[2] == once[-1][2] and letter[1] - once[-1][1] <= SLOT_PX[0]:
            once[-1] = max(letter, once[-1], key=lambda each: each[3])
        else:
            once.append(letter)
    ways = [below[1] - above[1] for above, below in pairwise(once)]
    pitch = float(np.median(ways)) if ways else float(SLOT_PX[0])
    cuts = [n for n, way in enumerate(ways, 1) if way > max(FAR * pitch, LEAST_FAR_PX)]
    for first, end in pairwise([0, *cuts, len(once)]):
        own = once[first:end]
        x = float(np.median([each[0] for each in own]))
        yield ReadLine(
            "".join(each[2] for each in own),
            x - pitch / 2,
            own[0][1] - pitch / 2,
            x + pitch / 2,
            own[-1][1] + pitch / 2,
            float(np.mean([each[3] for each in own])),
            is_vertical=True,
        )


def _are_one(upper: _Piece, lower: _Piece) -> bool:
    """Whether pieces of neighbouring rows are of one line: hardly a letter over another one."""
    gap = max(lower.middles[0] - upper.middles[-1], upper.middles[0] - lower.middles[-1])
    if gap > FAR * max(upper.pitch, lower.pitch):
        return False
    fewer, more = sorted((upper, lower), key=lambda each: len(each.text))
    over = _over(fewer, more)
    if not len(fewer.text) or (over >= 0).mean() <= MOST_SHARED:
        return True
    same = [fewer.text[n] == more.text[at] for n, at in enumerate(over) if at >= 0]
    return bool(np.mean(same) > 0.5)  # read twice


def _over(piece: _Piece, other: _Piece) -> Ints:
    """Return for each letter of a piece the one of another in its place, -1 if there is none."""
    after = np.clip(np.searchsorted(other.middles, piece.middles), 1, len(other.middles) - 1)
    before = np.maximum(after - 1, 0)
    after = np.minimum(after, len(other.middles) - 1)
    ways = np.abs(other.middles[np.stack([before, after])] - piece.middles)
    nearest = np.where(ways[0] <= ways[1], before, after)
    return np.where(ways.min(0) < SAME_PLACE * min(piece.pitch, other.pitch), nearest, -1)


def _merged(upper: _Piece, lower: _Piece) -> _Piece:
    """Return the letters of both, of two in one place the surer one."""
    over = _over(upper, lower)
    is_surer = (over < 0) | (upper.confidence >= lower.confidence[over])
    others = np.setdiff1d(np.arange(len(lower.text)), over[is_surer])
    kept = [upper.at(np.flatnonzero(is_surer)), lower.at(others)]
    middles = np.concatenate([each.middles for each in kept])
    both = _Piece(
        kept[0].text + kept[1].text,
        middles,
        np.concatenate([each.confidence for each in kept]),
        (min(upper.rows[0], lower.rows[0]), max(upper.rows[1], lower.rows[1])),
    )
    return both.at(np.argsort(middles, kind="stable"))
