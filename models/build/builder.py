"""Builds a model folder from checkpoint folders: graphs, embeddings, projection, LoRA, checksums.

The folder appears under its name only when complete: it is written beside it and renamed.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file

from models.build.decoder_graph import decoder_graph
from models.build.graph import Precision, Recipe, Target, to_fp16
from models.build.inputs import Sources, retriever_weights
from models.build.reading_graph import reading_graph
from models.build.source import Checkpoint, FloatArray, TensorFiles, row_chunks
from models.build.vision_graph import vision_graph
from models.config import ModelConfig
from models.errors import ModelBuildError, ModelFilesError
from models.folder import FORMAT_VERSION, Graphs, ModelInfo, checksums
from models.text import Tokenizer

Progress = Callable[[int, int, str], None]  # bytes done, bytes in all, tensor

COPIED = ("config.json", "tokenizer.json")
COPIED_IF_THERE = (
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
)
READING = "reading.onnx"
DEFAULT_MAX_VISUAL_TOKENS = 768


@dataclass(frozen=True)
class Precisions:
    """Precision of each part; `auto` is decided by `for_target`."""

    vision: Precision
    decoder: Precision
    lm_head: Precision

    @classmethod
    def for_target(cls, target: Target) -> "Precisions":
        """Return what suits a CPU (int8 multiplies fastest) or a GPU (fp16)."""
        each: Precision = "int8" if target == "cpu" else "fp16"
        return cls(each, each, each)


@dataclass(frozen=True)
class BuildOptions:
    """What `build` makes of the checkpoints."""

    precisions: Precisions = field(default_factory=lambda: Precisions.for_target("cpu"))
    target: Target = "cpu"
    query_template: str = "colqwen2-v1.0"
    max_visual_tokens: int = DEFAULT_MAX_VISUAL_TOKENS
    skip_blank_blocks: bool = False
    band_rows: int = 0
    overview_tokens: int = 0
    shifted_views: bool = False
    name: str = ""
    revisions: Mapping[str, str] = field(default_factory=dict)


def build(
    sources: Sources,
    out: Path,
    options: BuildOptions | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the model folder `out` and return it.

    Raises ModelBuildError (out exists, disk full, options), ModelFilesError, ModelShapeError or
    ModelNumbersError, each naming the file or tensor; then nothing is left behind.
    """
    options = options or BuildOptions()
    out = out.resolve()
    check_free(out)
    made = [each for each in out.parents if not each.exists()]  # innermost first
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _partial_folder(out) as partial:
            plan = _Plan.make(sources, options, partial)
            _check_disk(out, plan.total_bytes)
            plan.write(progress or (lambda done, total, what: None))
            if out.exists():
                out.rmdir()
            partial.rename(out)
    except (OSError, SafetensorError) as error:
        raise ModelBuildError(f"{out}: cannot be written ({error})") from None
    finally:
        for folder in made if not out.exists() else ():
            with suppress(OSError):  # another build writes there
                folder.rmdir()
    return out


def add_reading(folder: Path, weights: Path, precision: Precision = "int8") -> None:
    """Give a model folder the reading head of a safetensors file, in place of any it had.

    Raises ModelFilesError, ModelNumbersError.
    """
    info = ModelInfo.load(folder)
    target: Target = "gpu" if info.target == "gpu" else "cpu"
    _save(_reading(weights, precision, target), folder / READING, lambda *_: None)
    graphs = replace(info.graphs, reading=READING)
    replace(info, graphs=graphs, sha256=checksums(folder)).save(folder)


def check_free(out: Path) -> None:
    """Raise ModelBuildError unless `out` is not there, or an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelBuildError(f"{out}: already exists; remove it or choose another folder")


@contextmanager
def _partial_folder(out: Path) -> Iterator[Path]:
    """Give a new folder beside `out`, gone afterwards unless renamed; one build at a time."""
    partial, path = out.with_name(f".{out.name}.partial"), out.with_name(f".{out.name}.lock")
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ModelBuildError(f"{out}: another build is writing it; wait for it") from None
    try:
        shutil.rmtree(partial, ignore_errors=True)  # left by a build that was killed
        partial.mkdir()
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        # While it is held: afterwards it may be another build's. Windows refuses that, and there
        # FileLock removes the file as it lets go.
        with suppress(OSError):
            path.unlink()
        lock.release()


def _check_disk(out: Path, needed: int) -> None:
    parent = next(each for each in out.absolute().parents if each.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise ModelBuildError(
            f"{parent}: {free / 1e9:.1f} GB free, the model needs {needed / 1e9:.1f} GB; "
            "choose a smaller precision or another disk"
        )


@dataclass(frozen=True)
class _Plan:
    """Everything checked and the graphs laid out, before the first byte is written."""

    folder: Path
    base: Checkpoint
    options: BuildOptions
    sources: Sources
    graphs: Graphs
    models: dict[str, ir.Model]
    retriever: dict[str, FloatArray]
    roles: tuple[str, ...]
    generator: Checkpoint | None

    @classmethod
    def make(cls, sources: Sources, options: BuildOptions, folder: Path) -> "_Plan":
        base = Checkpoint.open(sources.base)
        for name in COPIED:
            if not (sources.base / name).exists():
                raise ModelFilesError(f"{sources.base / name}: not there; copy it from the hub")
        Tokenizer(sources.base / "tokenizer.json", base.config.tokens.by_name)
        retriever = retriever_weights(base, sources)
        generator = Checkpoint.open(sources.generator) if sources.generator else None
        graphs = _share(base, generator, merged=bool(retriever) and not sources.adapter)
        models: dict[str, ir.Model] = {}
        for checkpoint, vision, decoder in (
            (base, graphs.vision, graphs.decoder),
            (generator, graphs.generator_vision, graphs.generator_decoder),
        ):
            if checkpoint is not None:
                _add_graphs(models, checkpoint, options, vision, decoder)
        if sources.reading is not None:
            graphs = replace(graphs, reading=READING)
            models[READING] = _reading(sources.reading, options.precisions.vision, options.target)
        answers = sources.adapter is not None and base.has_lm_head
        roles = (("retriever",) if retriever else ()) + (
            ("generator",) if not retriever or answers or generator else ()
        )
        return cls(folder, base, options, sources, graphs, models, retriever, roles, generator)

    @property
    def total_bytes(self) -> int:
        graph_bytes = sum(
            value.const_value.nbytes
            for model in self.models.values()
            for value in model.graph.initializers.values()
            if value.const_value is not None
        )
        return graph_bytes + self._embedding_bytes

    @property
    def _embedding_bytes(self) -> int:
        text = self.base.config.text
        n_tables = 1 + (self.graphs.generator_embeddings is not None)
        return n_tables * text.vocab_size * text.hidden_size * self._embedding_type.itemsize

    @property
    def _embedding_type(self) -> np.dtype[np.generic]:
        fp32 = self.options.precisions.decoder == "fp32"
        return np.dtype(np.float32) if fp32 else np.dtype(np.float16)

    def write(self, progress: Progress) -> None:
        total, done = self.total_bytes, 0

        def saved(tensor: ir.TensorProtocol, _: object) -> None:
            nonlocal done
            progress(done, total, tensor.name or "")
            done += tensor.nbytes

        for name, model in self.models.items():
            _save(model, self.folder / name, saved)
        self._write_embeddings(self.base, self.folder / self.graphs.embeddings)
        if self.generator is not None and self.graphs.generator_embeddings is not None:
            self._write_embeddings(self.generator, self.folder / self.graphs.generator_embeddings)
        if self.retriever:
            save_file(self._stored_retriever(), self.folder / "retriever.safetensors")
        self._copy_files()
        self._write_info()
        progress(total, total, "done")

    def _write_embeddings(self, checkpoint: Checkpoint, path: Path) -> None:
        name = "model.embed_tokens.weight"
        shape = checkpoint.tensors.shape(name)
        dtype = self._embedding_type
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        # Written, not mapped: a mapping of a file on a full disk ends the process (SIGBUS).
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for rows in row_chunks(shape):
                values = checkpoint.tensors.read(name, rows)
                file.write((values if dtype == np.float32 else to_fp16(values, name)).data)

    def _stored_retriever(self) -> dict[str, NDArray[np.generic]]:
        """Projection in float32; LoRA in float16 unless the decoder is float32."""
        if self.options.precisions.decoder == "fp32":
            return {**self.retriever}
        return {
            name: to_fp16(values, name) if ".lora_" in name else values
            for name, values in self.retriever.items()
        }

    def _copy_files(self) -> None:
        for name in (*COPIED, *COPIED_IF_THERE):
            if (self.sources.base / name).exists():
                shutil.copyfile(self.sources.base / name, self.folder / name)
        if self.sources.generator is not None:
            extra = self.sources.generator / "generation_config.json"
            if extra.exists():
                shutil.copyfile(extra, self.folder / extra.name)

    def _write_info(self) -> None:
        options = self.options
        sources = {
            role: {"folder": path.name, "revision": options.revisions.get(role)}
            for role, path in asdict(self.sources).items()
            if path is not None
        }
        info = ModelInfo(
            format=FORMAT_VERSION,
            name=options.name or self.sources.base.absolute().name,
            roles=self.roles,
            target=options.target,
            precision=asdict(options.precisions),
            query_template=options.query_template,
            max_visual_tokens=options.max_visual_tokens,
            skip_blank_blocks=options.skip_blank_blocks,
            band_rows=options.band_rows,
            overview_tokens=options.overview_tokens,
            shifted_views=options.shifted_views,
            graphs=self.graphs,
            sources=sources,
            sha256=checksums(self.folder),
        )
        info.save(self.folder)


def _save(model: ir.Model, path: Path, saved: Callable[[ir.TensorProtocol, object], None]) -> None:
    try:
        ir.save(model, path, external_data=f"{path.name}.data", callback=saved)
    except ir.serde.SerdeError as error:
        # What went wrong with a small weight (it is kept in the graph file) comes wrapped.
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise cause from None


def _add_graphs(
    models: dict[str, ir.Model],
    checkpoint: Checkpoint,
    options: BuildOptions,
    vision: str | None,
    decoder: str | None,
) -> None:
    each = options.precisions
    if vision is not None:
        recipe = Recipe(each.vision, options.target)
        models[vision] = vision_graph(checkpoint.tensors, checkpoint.config.vision, recipe)
    if decoder is not None:
        recipe, head = Recipe(each.decoder, options.target), Recipe(each.lm_head, options.target)
        models[decoder] = decoder_graph(checkpoint, recipe, head)


def _reading(weights: Path, precision: Precision, target: Target) -> ir.Model:
    tensors = TensorFiles([weights])
    characters = tensors.metadata.get("characters", "")
    if not characters:
        raise ModelFilesError(f"{weights}: says no characters (metadata); export it again")
    # int8 by int8 is no faster for so little, and each digit counts
    stored: Precision = "fp32" if precision == "fp32" else "fp16"
    return reading_graph(tensors, Recipe(stored, target), characters)


def _share(base: Checkpoint, generator: Checkpoint | None, merged: bool) -> Graphs:
    """Compare the generator's tensors with the retriever's by hash; keep apart what differs."""
    if generator is None:
        return Graphs()
    if _sizes(generator) != _sizes(base):
        raise ModelBuildError(
            f"{generator.folder} and {base.folder} differ in config.json, and a model folder has "
            "one; build them into two folders"
        )
    same_vision = _same(base, generator, "visual.")
    # With the adapter merged into the weights, the retriever's decoder is another one for sure.
    same_text = not merged and _same(base, generator, "model.") and _same_head(base, generator)
    return Graphs(
        generator_vision=None if same_vision else "generator-vision.onnx",
        generator_decoder=None if same_text else "generator-decoder.onnx",
        generator_embeddings=None if same_text else "generator-embeddings.npy",
    )


def _sizes(checkpoint: Checkpoint) -> ModelConfig:
    """Return what two checkpoints in one folder must have in common."""
    config = checkpoint.config
    return replace(config, text=replace(config.text, tied_embeddings=True, max_positions=0))


def _same_head(one: Checkpoint, other: Checkpoint) -> bool:
    tied = one.config.text.tied_embeddings
    if tied != other.config.text.tied_embeddings:
        return False
    return tied or _same(one, other, "lm_head.")


def _same(one: Checkpoint, other: Checkpoint, prefix: str) -> bool:
    return one.tensors.digest(prefix) == other.tensors.digest(prefix)
