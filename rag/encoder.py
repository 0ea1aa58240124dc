"""What the pipeline needs of a model: multi-vectors of pages, questions and images.

The model is opened when the first page or question needs it, so that an ingest that finds nothing
new, a text search and `yomu list` never wait for it.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from PIL import Image

from index.fusion import DEFAULT, Fusion
from index.records import Floats, PatchGrid
from rag.rows import PlacedLine, columns_of, join_rows

if TYPE_CHECKING:
    from models.engine import Engine

PIXELS_PER_TOKEN = 28 * 28
Span = tuple[int, int]  # first and last character (exclusive)
FUSION_FILE = "fusion.json"


@dataclass(frozen=True)
class EncodedPage:
    """What a model makes of a page.

    vectors  (n, dim) float32
    grid     the cell of each vector, -1 for prompt tokens
    read     what the model itself reads on the page, a row a line; "": it cannot, or nothing
    """

    vectors: Floats
    grid: PatchGrid
    read: str = ""


class Encoder(Protocol):
    """Pages, questions and images to multi-vectors of unit length."""

    name: str

    @property
    def engine(self) -> "Engine":
        """The loaded model, whose generator answers."""

    @property
    def folder(self) -> Path:
        """The model's folder."""

    @property
    def digest(self) -> str:
        """sha256 over what shapes page vectors: those of two digests must not be mixed."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    @property
    def max_visual_tokens(self) -> int:
        """Most visual tokens of a page."""

    @property
    def fusion(self) -> Fusion:
        """How this model's scores are fused with those of the text, and what counts as found."""

    def page(self, image: Image.Image) -> EncodedPage:
        """Encode a page, and read it if the model can."""

    def questions(self, questions: Sequence[str]) -> list[Floats]:
        """Return the (m, dim) vectors of each question."""

    def question_spans(self, question: str) -> tuple[Span | None, ...]:
        """Return which characters of a question each of its vectors stands for; None: none."""

    def image_query(self, image: Image.Image) -> Floats:
        """Return the (m, dim) vectors of an image that is searched for."""


class ModelEncoder:
    """The retriever of a model folder."""

    def __init__(
        self, model: str, device: str, n_threads: int, max_visual_tokens: int | None
    ) -> None:
        self.name = model
        self._device = device
        self._n_threads = n_threads
        self._asked = max_visual_tokens
        self._lock = threading.RLock()  # two first questions must not open the model twice

    @property
    def engine(self) -> "Engine":
        """The loaded model folder, also for the generator. Raises ModelFilesError, DeviceError."""
        with self._lock:
            return self._engine

    @cached_property
    def _engine(self) -> "Engine":
        import models
        from models.engine import EngineOptions

        options = EngineOptions(n_threads=self._n_threads, max_visual_tokens=self._asked)
        return models.load(self.name, self._device, options)

    @property
    def folder(self) -> Path:
        """The model's folder; says so without loading anything. Raises ModelFilesError."""
        from models.folder import find_folder

        return find_folder(self.name)

    @cached_property
    def digest(self) -> str:
        """sha256 over what shapes page vectors: those of two digests must not be mixed."""
        return self.engine.info.digest

    @cached_property
    def max_visual_tokens(self) -> int:
        """Most visual tokens of a page: as asked for, or as the model folder says."""
        return self._asked or self.engine.info.max_visual_tokens

    @cached_property
    def dim(self) -> int:
        """Length of a vector."""
        return self.engine.retriever.dim

    @cached_property
    def fusion(self) -> Fusion:
        """Weights fitted for this model (`fusion.json` of its folder), or the general ones."""
        path = self.engine.folder / FUSION_FILE
        return Fusion.from_json(path.read_text("utf-8")) if path.exists() else DEFAULT

    def page(self, image: Image.Image) -> EncodedPage:
        """Encode a page, and read it if the model can."""
        encoded = self.engine.retriever.encode_views(image, read=True)
        grid = PatchGrid(*encoded.grid, encoded.cells, encoded.overview)
        lines = [
            PlacedLine(
                each.left, each.top, each.right, each.bottom, each.text, each.is_vertical
            )
            for each in encoded.lines
        ]  # fmt: skip
        level = [line for line in lines if not line.is_vertical]
        rows = join_rows([*level, *columns_of(lines)])
        return EncodedPage(encoded.vectors, grid, "\n".join(rows))

    def questions(self, questions: Sequence[str]) -> list[Floats]:
        """Return the (m, dim) vectors of each question. Raises PromptError if one is empty."""
        return self.engine.retriever.encode_queries(questions)

    def question_spans(self, question: str) -> tuple[Span | None, ...]:
        """Return the characters each vector stands for; None for template and padding."""
        return self.engine.retriever.query_spans(question)

    def image_query(self, image: Image.Image) -> Floats:
        """Return the vectors of the image's visual tokens; the prompt's would match any page."""
        encoded = self.engine.retriever.encode_views(image)
        return encoded.vectors[encoded.cells >= 0]
