"""A loaded model folder: retriever and generator over one set of weights."""

import threading
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import onnxruntime as ort

from models.config import Json, ModelConfig, read_json
from models.decoder import Decoder, open_embeddings
from models.errors import ModelFilesError
from models.folder import ModelInfo
from models.generator import Generator, GeneratorOptions
from models.images import FACTOR_PX
from models.images import MIN_PIXELS as DEFAULT_MIN_PIXELS
from models.reading import ReadingHead
from models.retriever import Retriever, RetrieverOptions, RetrieverWeights
from models.sampling import Sampling
from models.session import Device, n_cores, open_session
from models.text import END, END_OF_TEXT, Tokenizer
from models.vision import VisionTower

# A small model encodes the bands of a page side by side, each on a core: on two cores the embedded
# one takes 0.7 s for five views, where one view after the other on both takes as long as on one,
# 1.1 s. It is opened once more for answers, which are of one long prompt; larger models are shared.
SMALL_HIDDEN_SIZE = 512


@dataclass(frozen=True)
class EngineOptions:
    """What a caller may ask of a model folder; None means as the folder says."""

    n_threads: int = 0
    max_visual_tokens: int | None = None
    min_pixels: int | None = None
    skip_blank_blocks: bool | None = None


class Engine:
    """A model folder; graphs are opened when a role first needs them, and shared.

    `device.used` is what the graphs opened so far really run on. Safe to use from several threads.
    """

    def __init__(self, folder: Path, device: str, options: EngineOptions) -> None:
        self.folder = folder
        self.info = ModelInfo.load(folder)
        self.config = ModelConfig.from_file(folder / "config.json")
        self.device = Device.choose(device, self.info.target)
        self._options = options
        self._limits = _pixel_limits(folder, self.info, options)
        skip = options.skip_blank_blocks
        self._skip_blank = self.info.skip_blank_blocks if skip is None else skip
        # cached_property has no lock of its own since Python 3.12: two threads that ask for a
        # role at once would each open the decoder, gigabytes twice.
        self._lock = threading.RLock()
        self._towers: dict[tuple[str, int], VisionTower] = {}
        self._decoders: dict[tuple[str, int], Decoder] = {}

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The folder's tokenizer, checked against config.json."""
        return Tokenizer(self.folder / "tokenizer.json", self.config.tokens.by_name)

    @property
    def retriever(self) -> Retriever:
        """The role that turns pages and questions into vectors. Raises ModelFilesError."""
        with self._lock:
            return self._retriever

    @property
    def generator(self) -> Generator:
        """The role that answers. Raises ModelFilesError."""
        with self._lock:
            return self._generator

    @property
    def shares_vision(self) -> bool:
        """Whether the generator may be handed the `features` that the retriever saw."""
        return self.info.graphs.generator_vision is None

    @cached_property
    def _retriever(self) -> Retriever:
        self._require("retriever")
        graphs = self.info.graphs
        file = self.folder / "retriever.safetensors"
        weights = RetrieverWeights.load(file, self.config.text.hidden_size)
        n_threads, n_views = self._options.n_threads, 1
        if self.info.band_rows and self.config.text.hidden_size <= SMALL_HIDDEN_SIZE:
            n_threads, n_views = 1, n_threads or n_cores()
        decoder = self._decoder(graphs.decoder, graphs.embeddings, n_threads)
        decoder.check_lora(weights.lora, file)
        return Retriever(
            self._tower(graphs.vision, n_threads),
            decoder,
            self.tokenizer,
            weights,
            RetrieverOptions(
                self.info.query_template,
                *self._limits,
                self._skip_blank,
                self.info.band_rows,
                self.info.overview_tokens,
                self.info.shifted_views,
            ),
            n_views,
            self._reading_head(),
        )

    def _reading_head(self) -> ReadingHead | None:
        name = self.info.graphs.reading
        if name is None:
            return None
        path = self.folder / name
        session = self._open(path, self._options.n_threads)
        return ReadingHead(session, path, self.config.vision.out_features)

    @cached_property
    def _generator(self) -> Generator:
        self._require("generator")
        graphs = self.info.graphs
        file = self.folder / "generation_config.json"
        n_threads = self._options.n_threads
        return Generator(
            self._tower(graphs.generator_vision or graphs.vision, n_threads),
            self._decoder(
                graphs.generator_decoder or graphs.decoder,
                graphs.generator_embeddings or graphs.embeddings,
                n_threads,
            ),
            self.tokenizer,
            GeneratorOptions(
                *self._limits, self._skip_blank, self._stop_ids(file), Sampling.from_file(file)
            ),
        )

    def _require(self, role: str) -> None:
        if role not in self.info.roles:
            raise ModelFilesError(
                f"{self.folder}: is no {role} (it is a {', '.join(self.info.roles)}); "
                f"build a folder that has one, see `yomu models build --help`"
            )

    def _tower(self, name: str, n_threads: int) -> VisionTower:
        key = name, n_threads
        if key not in self._towers:
            path = self.folder / name
            session = self._open(path, n_threads)
            self._towers[key] = VisionTower(session, path, self.config.vision)
        return self._towers[key]

    def _decoder(self, name: str, embeddings: str, n_threads: int) -> Decoder:
        key = name, n_threads
        if key not in self._decoders:
            path, text = self.folder / name, self.config.text
            table = open_embeddings(self.folder / embeddings, text)
            session = self._open(path, n_threads)
            self._decoders[key] = Decoder(session, path, table, text, self.config.tokens)
        return self._decoders[key]

    def _open(self, path: Path, n_threads: int) -> ort.InferenceSession:
        session = open_session(path, self.device, n_threads)
        if session.get_providers()[0] != self.device.providers[0]:
            self.device = replace(self.device, used="cpu")
        return session

    def _stop_ids(self, file: Path) -> frozenset[int]:
        config: Json = read_json(file) if file.exists() else {}
        found = config.get("eos_token_id")
        ids = found if isinstance(found, list) else [found] if found is not None else []
        if not all(isinstance(each, int) for each in ids):
            raise ModelFilesError(f"{file}: eos_token_id is {found!r}, wanted token ids")
        return frozenset(ids) | {self.tokenizer.id_of(each) for each in (END, END_OF_TEXT)}


def _pixel_limits(folder: Path, info: ModelInfo, options: EngineOptions) -> tuple[int, int]:
    """(min, max) pixels of an image; the most come from visual tokens of 28 × 28 pixels each.

    The hub's preprocessor_config.json allows 16384 tokens an image; ColQwen2 was trained with
    768 and a page of more would take minutes on a CPU, so model.json decides.
    """
    path, config = _image_processor(folder)
    size = config.get("size")
    nested = size.get("shortest_edge") if isinstance(size, dict) else None
    least = options.min_pixels or config.get("min_pixels") or nested or DEFAULT_MIN_PIXELS
    if not isinstance(least, int) or least < 1:
        raise ModelFilesError(f"{path}: min_pixels is {least!r}, wanted a number")
    most = (options.max_visual_tokens or info.max_visual_tokens) * FACTOR_PX**2
    return min(least, most), most


def _image_processor(folder: Path) -> tuple[Path, Json]:
    """Return the file that says how images are prepared, and what it says; {} if there is none."""
    path = folder / "preprocessor_config.json"
    if path.exists():
        return path, read_json(path)
    path = folder / "processor_config.json"  # where transformers 5 writes it
    config = read_json(path).get("image_processor") if path.exists() else None
    return path, config if isinstance(config, dict) else {}
