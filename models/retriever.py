"""ColQwen2 (ColPali, arXiv:2407.01449): pages and questions to multi-vectors.

A page is its visual tokens inside a fixed prompt, a question its tokens inside a template; the
decoder with LoRA turns each into hidden states, a projection into vectors of unit length.

A small model may ask for several views of a page, as InternVL does (tiles and a thumbnail,
arXiv:2404.16821): bands of a few rows, because attention over a whole large page costs most and
blurs, each band once more with its cells half a cell further, because a small model reads a word
that is cut at the edges of cells less well, and an overview in few tokens, because a small tower
reads type of few sizes. MaxSim then takes the best match of all views.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file

from models.config import PROJECTION_BIAS, PROJECTION_WEIGHT
from models.decoder import Decoder
from models.errors import ModelFilesError
from models.images import FACTOR_PX, VisualInput, preprocess, shifted, upright_rgb
from models.reading import ReadingHead, ReadLine, SeenView, combine
from models.session import Cancellation, ensure_finite
from models.text import Tokenizer
from models.vision import Patches, VisionFeatures, VisionTower

FloatArray = NDArray[np.float32]
PageImage = Image.Image | VisualInput | VisionFeatures

# Questions are short: together they read the weights once. Sorted by length, little is padding.
QUERIES_PER_RUN = 16
# Of neighbouring bands: a line of text that one of them cuts is whole in the other.
SHARED_ROWS = 1


@dataclass(frozen=True)
class View:
    """Part of a page as it is encoded in one pass.

    cells       (n,) the cell of the page that each of its tokens stands for, see PageViews.cells
    row         row of cells of the page that its first row is; 0 for an overview
    is_shifted  its cells lie half a cell further down and to the right than those of the page
    """

    image: VisualInput
    cells: NDArray[np.int64]
    row: int = 0
    is_shifted: bool = False
    is_overview: bool = False


@dataclass(frozen=True)
class PageVectors:
    """A page as one pass over it gives it.

    vectors       (n, dim) float32, rows of unit length: visual tokens and the prompt around them
    grid          (rows, columns) of the page in visual tokens
    kept          (rows·columns,) bool: the tokens that were encoded; the others were blank
    first_visual  row of `vectors` that holds the first visual token
    features      what the vision tower saw, for the generator
    """

    vectors: FloatArray
    grid: tuple[int, int]
    kept: NDArray[np.bool_]
    first_visual: int
    features: VisionFeatures

    @property
    def visual_vectors(self) -> FloatArray:
        """(kept.sum(), dim): the vectors of visual tokens, in the order of `kept`."""
        return self.vectors[self.first_visual : self.first_visual + int(self.kept.sum())]


@dataclass(frozen=True)
class PageViews:
    """A page as the index stores it: the vectors of all its views.

    vectors   (n, dim) float32, rows of unit length: the first view's with its prompt, then the
              visual tokens of the others
    cells     (n,) int32: row · columns + column of a vector's cell on the page, -1 for the prompt.
              A shifted cell has the number of one of the four that it lies across; cells of the
              overview are counted on behind those of the page
    grid      (rows, columns) of the page in visual tokens
    overview  (rows, columns) of its overview; (0, 0): it has none
    lines     what a model with a reading head reads on the page, from top to bottom
    """

    vectors: FloatArray
    cells: NDArray[np.int32]
    grid: tuple[int, int]
    overview: tuple[int, int] = (0, 0)
    lines: tuple[ReadLine, ...] = ()


@dataclass(frozen=True)
class QueryVectors:
    """A question as it is searched for: vectors (m, dim) float32 and the token of each."""

    vectors: FloatArray
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class RetrieverWeights:
    """Projection (dim, H), bias (dim,) and LoRA factors by graph input name."""

    projection: FloatArray
    bias: FloatArray
    lora: Mapping[str, ort.OrtValue]

    @classmethod
    def load(cls, path: Path, hidden_size: int) -> "RetrieverWeights":
        """Read retriever.safetensors. Raises ModelFilesError."""
        try:
            weights = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ModelFilesError(f"{path}: unreadable ({error}); build the folder again") from None
        projection, bias = weights.pop(PROJECTION_WEIGHT, None), weights.pop(PROJECTION_BIAS, None)
        if projection is None or bias is None or projection.shape != (len(bias), hidden_size):
            raise ModelFilesError(
                f"{path}: lacks a projection to {hidden_size} features; build the folder again"
            )
        lora = {
            name: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(each, np.float32))
            for name, each in weights.items()
        }
        return cls(projection.astype(np.float32), bias.astype(np.float32), lora)


@dataclass(frozen=True)
class RetrieverOptions:
    """What shapes the vectors, from model.json and preprocessor_config.json.

    band_rows        about so many rows of tokens are one view; 0: the page is one
    shifted_views    each of these views is encoded once more, its cells half a cell further
    overview_tokens  most visual tokens of the overview; 0: there is none
    """

    query_template: str
    min_pixels: int
    max_pixels: int
    skip_blank_blocks: bool
    band_rows: int = 0
    overview_tokens: int = 0
    shifted_views: bool = False


class Retriever:
    """Encodes pages and questions; the same input gives the same vectors in any batch.

    n_views  how many views of a page are encoded at a time
    reading  what reads characters in what the vision tower sees; None: the model has no such part
    """

    def __init__(
        self,
        vision: VisionTower,
        decoder: Decoder,
        tokenizer: Tokenizer,
        weights: RetrieverWeights,
        options: RetrieverOptions,
        n_views: int = 1,
        reading: ReadingHead | None = None,
    ) -> None:
        self._reading = reading
        self._vision = vision
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._weights = weights
        self._n_views = n_views
        self.options = options

    @property
    def dim(self) -> int:
        """Length of a vector (128 in ColQwen2)."""
        return len(self._weights.bias)

    def encode_pages(self, images: Sequence[Image.Image]) -> list[FloatArray]:
        """Return (n, dim) float32 unit vectors for each page image, those of all its views."""
        return [self.encode_views(image).vectors for image in images]

    def encode_queries(self, queries: Sequence[str]) -> list[FloatArray]:
        """Return (m, dim) float32 unit vectors for each question. Raises PromptError if empty."""
        return [each.vectors for each in self.encode_query_batch(queries)]

    def encode_page(
        self,
        image: PageImage,
        skip_blank: bool | None = None,
        cancellation: Cancellation | None = None,
    ) -> PageVectors:
        """Return the vectors of one pass over a page, and what the vision tower saw.

        One page fills the cores, so pages are encoded one by one. `skip_blank` None means as
        model.json says. Raises ImageError, ModelNumbersError, Cancelled.
        """
        skip = self.options.skip_blank_blocks if skip_blank is None else skip_blank
        if isinstance(image, Image.Image):
            image = preprocess(image, self.options.min_pixels, self.options.max_pixels)
        if isinstance(image, VisualInput):
            image = self._vision.encode(Patches.choose(image, skip), cancellation)
        ids = self._tokenizer.page_prompt(len(image.features))
        embedded = self._decoder.embed(ids, image.features)
        positions, _ = self._decoder.positions(ids, [image])
        states = self._decoder.hidden([embedded], [positions], self._weights.lora, cancellation)
        first = int(np.argmax(ids == self._tokenizer.id_of("<|image_pad|>")))
        return PageVectors(self._project(states[0]), _size(image), image.kept, first, image)

    def encode_views(
        self, image: Image.Image, cancellation: Cancellation | None = None, *, read: bool = False
    ) -> PageViews:
        """Return a page as it is stored: in one pass, or in the views that the model asks for.

        read  also read its lines, if the model has a reading head
        Raises ImageError, ModelNumbersError, Cancelled.
        """
        page = preprocess(image, self.options.min_pixels, self.options.max_pixels)
        vectors: list[FloatArray] = []
        cells: list[NDArray[np.int64]] = []
        overview = (0, 0)
        encoded = self._encode_all(self.views(image, page), cancellation)
        for found, view in encoded:
            at = np.full(len(found.vectors), -1)
            kept = view.cells[found.kept]
            at[found.first_visual : found.first_visual + len(kept)] = kept
            chosen = at >= 0 if vectors else np.full(len(at), True)  # the prompt once
            vectors.append(found.vectors[chosen])
            cells.append(at[chosen])
            overview = found.grid if view.is_overview else overview
        placed = np.concatenate(cells).astype(np.int32)
        lines = self._read(encoded, _size(page), image, cancellation) if read else ()
        return PageViews(np.concatenate(vectors), placed, _size(page), overview, lines)

    def _read(
        self,
        encoded: list[tuple[PageVectors, View]],
        grid: tuple[int, int],
        image: Image.Image,
        cancellation: Cancellation | None,
    ) -> tuple[ReadLine, ...]:
        """Return what the views of a page say: bands together, large type from the overview."""
        if self._reading is None:
            return ()
        seen: dict[bool, list[SeenView]] = {False: [], True: []}
        for found, view in encoded:
            each = SeenView(found.features, view.row, view.is_shifted)
            seen[view.is_overview].append(each)
        image = upright_rgb(image).convert("L")
        lines = self._reading.read(seen[False], grid, image, cancellation)
        if not seen[True]:
            return tuple(lines)
        small = _size(seen[True][0].seen)
        large = self._reading.read(seen[True], small, image, cancellation)
        return tuple(combine(lines, large, grid, small))

    def _encode_all(
        self, views: Iterable[View], cancellation: Cancellation | None
    ) -> list[tuple[PageVectors, View]]:
        if self._n_views == 1:
            return [(self.encode_page(view.image, None, cancellation), view) for view in views]
        with ThreadPoolExecutor(self._n_views) as pool:  # the first run while others are cut
            runs = [
                (pool.submit(self.encode_page, view.image, None, cancellation), view)
                for view in views
            ]
            return [(run.result(), view) for run, view in runs]

    def views(self, image: Image.Image, page: VisualInput) -> Iterator[View]:
        """Yield the bands of a page, the same ones shifted by half a cell, and the overview.

        page  the image as `preprocess` makes it
        """
        numbers = np.arange(page.n_tokens).reshape(_size(page))
        bands = self._bands(page, len(numbers))
        for first, end in bands:
            yield View(_band(page, first, end), numbers[first:end].ravel(), first)
        skips_blank = self.options.skip_blank_blocks
        if self.options.shifted_views and numbers.shape[1] > 1:
            inked = _first_inked(page, numbers)
            for first, end in bands:
                band = shifted(_band(page, first, end)) if end - first > 1 else None
                if band is not None and not (skips_blank and band.blank.all()):
                    cells = inked[first : end - 1].ravel()
                    yield View(band, cells, first, is_shifted=True)
        least = 2 * self.options.overview_tokens
        if least and page.n_tokens >= least and not (skips_blank and page.blank.all()):
            most = self.options.overview_tokens * FACTOR_PX**2
            small = preprocess(image, min(self.options.min_pixels, most), most)
            cells = page.n_tokens + np.arange(small.n_tokens)
            yield View(small, cells, is_overview=True)

    def _bands(self, page: VisualInput, n_rows: int) -> list[tuple[int, int]]:
        """Return the bands that are encoded: those with ink where blank blocks are skipped."""
        bands = band_edges(n_rows, self.options.band_rows)
        if not self.options.skip_blank_blocks:
            return bands
        blank = page.blank.reshape(n_rows, -1)
        return [each for each in bands if not blank[slice(*each)].all()] or bands[:1]

    def encode_query_batch(self, queries: Sequence[str]) -> list[QueryVectors]:
        """Return vectors and tokens of each question. Raises PromptError if one is empty."""
        ids = [self._tokenizer.query(each, self.options.query_template) for each in queries]
        order = sorted(range(len(ids)), key=lambda at: len(ids[at]))
        results: dict[int, QueryVectors] = {}
        for start in range(0, len(order), QUERIES_PER_RUN):
            chosen = order[start : start + QUERIES_PER_RUN]
            states = self._decoder.hidden(
                [self._decoder.embed(ids[at]) for at in chosen],
                [self._decoder.positions(ids[at])[0] for at in chosen],
                self._weights.lora,
            )
            for at, state in zip(chosen, states, strict=True):
                tokens = tuple(self._tokenizer.piece(int(each)) for each in ids[at])
                results[at] = QueryVectors(self._project(state), tokens)
        return [results[at] for at in range(len(ids))]

    def query_spans(self, query: str) -> tuple[tuple[int, int] | None, ...]:
        """Return the characters of the question each of its vectors stands for; None: template."""
        return self._tokenizer.query_spans(query, self.options.query_template)

    def _project(self, states: FloatArray) -> FloatArray:
        """Turn hidden states (L, H) into unit vectors (L, dim)."""
        vectors = states @ self._weights.projection.T + self._weights.bias
        ensure_finite(vectors, "the vectors of a page or question")
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: FloatArray = vectors / np.maximum(length, 1e-12)
        return unit


def band_edges(n_rows: int, band_rows: int) -> list[tuple[int, int]]:
    """Return (first, end) rows of bands as high as one another, each with a row of the next."""
    if not band_rows or n_rows <= band_rows:
        return [(0, n_rows)]
    n_own = n_rows - SHARED_ROWS
    count = max(1, round(n_own / max(1, band_rows - SHARED_ROWS)))
    edges = [round(n * n_own / count) for n in range(count + 1)]
    return [(first, end + SHARED_ROWS) for first, end in pairwise(edges)]


def _size(image: VisualInput | VisionFeatures) -> tuple[int, int]:
    """Return the rows and columns of an image in visual tokens."""
    return int(image.grid_thw[1]) // 2, int(image.grid_thw[2]) // 2


def _first_inked(page: VisualInput, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for every shifted cell (rows - 1, columns - 1) one of the four it lies across.

    numbers  (rows, columns) of the cells; the first that is not blank is taken
    """
    blank = page.blank.reshape(numbers.shape)
    before, behind = slice(None, -1), slice(1, None)
    corners = [(rows, columns) for rows in (before, behind) for columns in (before, behind)]
    inked = [~blank[corner] for corner in corners]
    of_each: NDArray[np.int64] = np.select(inked, [numbers[c] for c in corners], numbers[:-1, :-1])
    return of_each


def _band(page: VisualInput, first: int, end: int) -> VisualInput:
    """Return the rows of tokens of a page from `first` up to `end`, as an image of their own."""
    n_columns = int(page.grid_thw[2])  # in patches
    tokens = slice(first * n_columns // 2, end * n_columns // 2)
    patches = slice(4 * tokens.start, 4 * tokens.stop)
    grid = np.array([1, 2 * (end - first), n_columns])
    return replace(
        page, pixel_values=page.pixel_values[patches], grid_thw=grid, blank=page.blank[tokens]
    )
