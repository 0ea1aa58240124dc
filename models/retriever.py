"""ColQwen2 (ColPali, arXiv:2407.01449): pages and questions to multi-vectors.

A page is its visual tokens inside a fixed prompt, a question its tokens inside a template; the
decoder with LoRA turns each into hidden states, a projection into vectors of unit length.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file

from models.decoder import Decoder
from models.errors import ModelFilesError
from models.images import FACTOR_PX, VisualInput, preprocess
from models.session import Cancellation, ensure_finite
from models.text import Tokenizer
from models.vision import Patches, VisionFeatures, VisionTower

FloatArray = NDArray[np.float32]
PageImage = Image.Image | VisualInput | VisionFeatures

PROJECTION_WEIGHT, PROJECTION_BIAS = "custom_text_proj.weight", "custom_text_proj.bias"
# Questions are short: together they read the weights once. Sorted by length, little is padding.
QUERIES_PER_RUN = 16


@dataclass(frozen=True)
class PageVectors:
    """A page as one pass over it gives it, and the smaller view of it that goes with it.

    vectors       (n, dim) float32, rows of unit length: visual tokens and the prompt around them
    grid          (rows, columns) of the page in visual tokens
    kept          (rows·columns,) bool: the tokens that were encoded; the others were blank
    first_visual  row of `vectors` that holds the first visual token
    features      what the vision tower saw, for the generator
    overview      the whole page once more, in few tokens; None: the model takes one view, or the
                  page is hardly larger than its overview
    """

    vectors: FloatArray
    grid: tuple[int, int]
    kept: NDArray[np.bool_]
    first_visual: int
    features: VisionFeatures
    overview: "PageVectors | None" = None

    @property
    def visual_vectors(self) -> FloatArray:
        """(kept.sum(), dim): the vectors of visual tokens, in the order of `kept`."""
        return self.vectors[self.first_visual : self.first_visual + int(self.kept.sum())]

    @property
    def stored_vectors(self) -> FloatArray:
        """(m, dim): what a page is searched by: `vectors`, then the overview's visual tokens."""
        if self.overview is None:
            return self.vectors
        return np.concatenate([self.vectors, self.overview.visual_vectors])

    @property
    def cells(self) -> NDArray[np.int32]:
        """(m,) the cell of each stored vector: row · columns + column, -1 for the prompt.

        Cells of the overview are counted on behind the rows · columns of the page.
        """
        cells = np.full(len(self.vectors), -1, np.int32)
        kept = np.flatnonzero(self.kept)
        cells[self.first_visual : self.first_visual + len(kept)] = kept
        if self.overview is None:
            return cells
        behind = len(self.kept) + np.flatnonzero(self.overview.kept)
        return np.concatenate([cells, behind.astype(np.int32)])


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
    """What shapes the vectors, from model.json and preprocessor_config.json."""

    query_template: str
    min_pixels: int
    max_pixels: int
    skip_blank_blocks: bool
    overview_tokens: int = 0  # most visual tokens of the smaller view; 0: there is none


class Retriever:
    """Encodes pages and questions; the same input gives the same vectors in any batch."""

    def __init__(
        self,
        vision: VisionTower,
        decoder: Decoder,
        tokenizer: Tokenizer,
        weights: RetrieverWeights,
        options: RetrieverOptions,
    ) -> None:
        self._vision = vision
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._weights = weights
        self.options = options

    @property
    def dim(self) -> int:
        """Length of a vector (128 in ColQwen2)."""
        return len(self._weights.bias)

    def encode_pages(self, images: Sequence[Image.Image]) -> list[FloatArray]:
        """Return (n, dim) float32 unit vectors for each page image."""
        return [self.encode_page(image).stored_vectors for image in images]

    def encode_queries(self, queries: Sequence[str]) -> list[FloatArray]:
        """Return (m, dim) float32 unit vectors for each question. Raises PromptError if empty."""
        return [each.vectors for each in self.encode_query_batch(queries)]

    def encode_page(
        self,
        image: PageImage,
        skip_blank: bool | None = None,
        cancellation: Cancellation | None = None,
    ) -> PageVectors:
        """Return a page's vectors with what is needed to draw scores over it.

        One page fills the cores, so pages are encoded one by one. `skip_blank` None means as
        model.json says. An image is seen twice where the model asks for an overview (a small tower
        reads type of few sizes; InternVL's thumbnail, arXiv:2404.16821, is the same idea), what is
        preprocessed already once. Raises ImageError, ModelNumbersError, Cancelled.
        """
        skip = self.options.skip_blank_blocks if skip_blank is None else skip_blank
        if not isinstance(image, Image.Image):
            return self._encode_view(image, skip, cancellation)
        limits = self.options.min_pixels, self.options.max_pixels
        page = self._encode_view(preprocess(image, *limits), skip, cancellation)
        most = self.options.overview_tokens
        if not most or len(page.kept) < 2 * most:
            return page
        small = preprocess(image, min(limits[0], most * FACTOR_PX**2), most * FACTOR_PX**2)
        return replace(page, overview=self._encode_view(small, skip, cancellation))

    def _encode_view(
        self, image: VisualInput | VisionFeatures, skip: bool, cancellation: Cancellation | None
    ) -> PageVectors:
        if isinstance(image, VisualInput):
            image = self._vision.encode(Patches.choose(image, skip), cancellation)
        ids = self._tokenizer.page_prompt(len(image.features))
        embedded = self._decoder.embed(ids, image.features)
        positions, _ = self._decoder.positions(ids, [image])
        states = self._decoder.hidden([embedded], [positions], self._weights.lora, cancellation)
        rows, columns = (int(n) // 2 for n in image.grid_thw[1:])
        first = int(np.argmax(ids == self._tokenizer.id_of("<|image_pad|>")))
        return PageVectors(self._project(states[0]), (rows, columns), image.kept, first, image)

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
