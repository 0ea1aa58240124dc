"""A checkpoint folder as it comes from the hub: its config and its tensors, read one at a time.

Reads `model.safetensors` or the shards of `model.safetensors.index.json`, in any of the five
naming layouts, and PEFT adapters. Tensors come out as float32 and are checked to be finite.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from models.build.names import IGNORED, canonical, lora_parts
from models.config import (
    PROJECTION_BIAS,
    PROJECTION_WEIGHT,
    ModelConfig,
    VisionConfig,
    read_json,
)
from models.errors import ModelFilesError, ModelNumbersError, ModelShapeError

FloatArray = NDArray[np.float32]
Shapes = dict[str, tuple[int, ...]]
LINEARS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


class TensorFiles:
    """The tensors of some safetensors files under their canonical names, read on demand."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.metadata: dict[str, str] = {}
        self._places: dict[str, tuple[Path, Any, str]] = {}
        for path in paths:
            file = _open(path)
            self.metadata |= file.metadata() or {}
            for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                if not IGNORED.search(name):
                    self._add(canonical(name), path, file, name)

    def _add(self, name: str, path: Path, file: Any, original: str) -> None:  # noqa: ANN401
        if name in self._places:
            raise ModelShapeError(
                f"{path}: {original} and {self._places[name][2]} are both {name}; "
                "the folder mixes two checkpoints"
            )
        self._places[name] = (path, file, original)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor by its canonical name."""
        _, file, original = self._places[name]
        return tuple(file.get_slice(original).get_shape())

    def read(self, name: str, rows: slice | None = None) -> FloatArray:
        """Return a tensor (or some of its rows) as float32.

        Raises ModelNumbersError if it holds NaN or infinity, ModelFilesError if it is unreadable.
        """
        path, file, original = self._places[name]
        try:
            part = file.get_slice(original)
            values = np.asarray(part[rows] if rows is not None else part[:]).astype(np.float32)
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelFilesError(f"{path}: {original} cannot be read ({error})") from None
        if not np.isfinite(values).all():
            raise ModelNumbersError(
                f"{path}: {original} holds NaN or infinity; the file is damaged, copy it again"
            )
        return values

    def digest(self, prefix: str) -> str:
        """Return the sha256 over names and values (as float32) of all tensors below a prefix."""
        total = hashlib.sha256()
        for name in sorted(name for name in self._places if name.startswith(prefix)):
            total.update(name.encode())
            for rows in row_chunks(self.shape(name)):
                total.update(self.read(name, rows).tobytes())
        return total.hexdigest()


def row_chunks(shape: tuple[int, ...], max_bytes: int = 64 * 2**20) -> Iterator[slice]:
    """Yield slices of the first axis so that each holds at most `max_bytes` of float32."""
    row_bytes = 4 * int(np.prod(shape[1:], dtype=np.int64))
    step = max(1, max_bytes // max(row_bytes, 1))
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def _open(path: Path) -> Any:  # noqa: ANN401 - safetensors ships no types
    try:
        return safe_open(path, framework="numpy")
    except FileNotFoundError:
        raise ModelFilesError(f"{path}: not there; the download is incomplete") from None
    except (SafetensorError, OSError) as error:
        raise ModelFilesError(
            f"{path}: no readable safetensors file ({error}); it is truncated or damaged, "
            "copy it again"
        ) from None


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint folder. Raises ModelFilesError."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        weight_map = read_json(index).get("weight_map")
        files = {*map(str, weight_map.values())} if isinstance(weight_map, dict) else set()
        if not files:
            raise ModelFilesError(f"{index}: has no weight_map; copy it again")
        return [folder / name for name in sorted(files)]
    if not folder.is_dir():
        raise ModelFilesError(f"{folder}: no such folder")
    if not (folder / "model.safetensors").exists():
        raise ModelFilesError(
            f"{folder}: has neither model.safetensors nor model.safetensors.index.json; "
            "give the folder of a checkpoint as it comes from the hub"
        )
    return [folder / "model.safetensors"]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose every tensor is there, used and of the shape its config wants."""

    folder: Path
    config: ModelConfig
    tensors: TensorFiles

    @classmethod
    def open(cls, folder: Path) -> "Checkpoint":
        """Open a folder. Raises ModelFilesError or ModelShapeError naming the first fault."""
        tensors = TensorFiles(weight_files(folder))
        config = ModelConfig.from_file(folder / "config.json")
        wanted = expected_shapes(config)
        if config.text.tied_embeddings and "lm_head.weight" in tensors:
            wanted["lm_head.weight"] = wanted["model.embed_tokens.weight"]
        if PROJECTION_WEIGHT in tensors:
            # The dimension of the retriever is whatever the projection says.
            dim = tensors.shape(PROJECTION_WEIGHT)[0]
            wanted[PROJECTION_WEIGHT] = (dim, config.text.hidden_size)
            wanted[PROJECTION_BIAS] = (dim,)
            if "lm_head.weight" not in tensors:  # a retriever has no use for it
                wanted.pop("lm_head.weight", None)
        check_shapes(folder, tensors, wanted)
        return cls(folder, config, tensors)

    @property
    def has_projection(self) -> bool:
        """Whether this is a retriever's checkpoint (ColQwen2), not a plain Qwen2-VL."""
        return PROJECTION_WEIGHT in self.tensors

    @property
    def has_lm_head(self) -> bool:
        """Whether it can answer; some retrievers are saved without what that takes."""
        return self.config.text.tied_embeddings or "lm_head.weight" in self.tensors

    @property
    def lm_head_name(self) -> str:
        """Name of the tensor that turns hidden states into logits; any, if it cannot answer."""
        tied = self.config.text.tied_embeddings or not self.has_lm_head
        return "model.embed_tokens.weight" if tied else "lm_head.weight"


def check_shapes(
    where: Path,
    tensors: TensorFiles,
    wanted: Mapping[str, tuple[int, ...]],
    others_allowed: bool = False,
) -> None:
    """Raise ModelShapeError naming the first tensor that is missing, unused or misshapen."""
    missing = [name for name in wanted if name not in tensors]
    unused = [] if others_allowed else [name for name in tensors if name not in wanted]
    for what, names in (("is missing", missing), ("is not part of this architecture", unused)):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise ModelShapeError(f"{where}: tensor {names[0]} {what}{more}")
    for name, shape in wanted.items():
        if tensors.shape(name) != shape:
            raise ModelShapeError(
                f"{where}: tensor {name} has shape {tensors.shape(name)}, config.json wants {shape}"
            )


def expected_shapes(config: ModelConfig) -> Shapes:
    """Return canonical name -> shape of every tensor of a plain Qwen2-VL."""
    text = config.text
    shapes: Shapes = {
        "model.embed_tokens.weight": (text.vocab_size, text.hidden_size),
        "model.norm.weight": (text.hidden_size,),
    }
    if not text.tied_embeddings:
        shapes["lm_head.weight"] = (text.vocab_size, text.hidden_size)
    for layer in range(text.n_layers):
        prefix = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{prefix}{norm}.weight"] = (text.hidden_size,)
        for linear, shape in linear_shapes(config).items():
            shapes[f"{prefix}{linear}.weight"] = shape
            if linear[-6:] in ("q_proj", "k_proj", "v_proj"):
                shapes[f"{prefix}{linear}.bias"] = shape[:1]
    return shapes | _vision_shapes(config.vision)


def linear_shapes(config: ModelConfig) -> Shapes:
    """Return (out, in) of the seven linear maps of a decoder layer."""
    text = config.text
    q, kv = text.n_heads * text.head_dim, text.n_kv_heads * text.head_dim
    hidden, inner = text.hidden_size, text.intermediate_size
    attention = ((q, hidden), (kv, hidden), (kv, hidden), (hidden, q))
    mlp = ((inner, hidden), (inner, hidden), (hidden, inner))
    return dict(zip(LINEARS, attention + mlp, strict=True))


def _vision_shapes(vision: VisionConfig) -> Shapes:
    width, merged = vision.embed_dim, vision.embed_dim * vision.merge**2
    patch = (vision.in_channels, vision.temporal_patch, vision.patch_px, vision.patch_px)
    shapes: Shapes = {"visual.patch_embed.proj.weight": (width, *patch)}
    for block in range(vision.depth):
        prefix = f"visual.blocks.{block}."
        for norm in ("norm1", "norm2"):
            shapes |= {f"{prefix}{norm}.weight": (width,), f"{prefix}{norm}.bias": (width,)}
        shapes |= _with_bias(f"{prefix}attn.qkv", 3 * width, width)
        shapes |= _with_bias(f"{prefix}attn.proj", width, width)
        shapes |= _with_bias(f"{prefix}mlp.fc1", vision.mlp_features, width)
        shapes |= _with_bias(f"{prefix}mlp.fc2", width, vision.mlp_features)
    shapes |= {"visual.merger.ln_q.weight": (width,), "visual.merger.ln_q.bias": (width,)}
    shapes |= _with_bias("visual.merger.mlp.0", merged, merged)
    shapes |= _with_bias("visual.merger.mlp.2", vision.out_features, merged)
    return shapes


def _with_bias(name: str, n_out: int, n_in: int) -> Shapes:
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}


@dataclass(frozen=True)
class Adapter:
    """A PEFT LoRA adapter: for each module the transposed A (in, r) and scaled B (r, out)."""

    folder: Path
    factors: Mapping[str, tuple[FloatArray, FloatArray]]

    @classmethod
    def open(cls, folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> "Adapter":
        """Open an adapter folder; `shapes` maps each module it may touch to (out, in).

        Raises ModelFilesError or ModelShapeError naming the fault.
        """
        rank, scale = _rank_and_scale(folder / "adapter_config.json")
        sides = _adapter_sides(folder / "adapter_model.safetensors")
        factors = {}
        for module, pair in sides.items():
            if module not in shapes or set(pair) != {"A", "B"}:
                raise ModelShapeError(
                    f"{folder}: LoRA on {module} "
                    + ("lacks one of its two factors" if module in shapes else "has no place here")
                )
            n_out, n_in = shapes[module]
            if pair["A"].shape != (rank, n_in) or pair["B"].shape != (n_out, rank):
                raise ModelShapeError(
                    f"{folder}: LoRA on {module} has shapes {pair['A'].shape}, {pair['B'].shape}; "
                    f"wanted {(rank, n_in)}, {(n_out, rank)}"
                )
            factors[module] = (
                np.ascontiguousarray(pair["A"].T),
                np.ascontiguousarray(pair["B"].T) * np.float32(scale),
            )
        _check_complete(folder, set(factors), shapes)
        return cls(folder, factors)


def _rank_and_scale(path: Path) -> tuple[int, float]:
    """Return r and alpha / r. Raises ModelFilesError or ModelShapeError."""
    config = read_json(path)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise ModelFilesError(f"{path}: r is {rank!r}, lora_alpha {alpha!r}; wanted numbers")
    for option in ("use_dora", "rank_pattern", "alpha_pattern", "layers_to_transform"):
        if config.get(option):
            raise ModelShapeError(f"{path}: has {option}, which is not supported")
    return rank, alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _check_complete(folder: Path, modules: set[str], places: Iterable[str]) -> None:
    """Raise ModelShapeError if one layer lacks a LoRA that another has, or there is none."""
    if not modules:
        raise ModelShapeError(f"{folder}: the adapter holds no LoRA factors")
    linears = {_linear(name) for name in modules}
    for place in places:
        if _linear(place) in linears and place not in modules:
            raise ModelShapeError(
                f"{folder}: LoRA on {place} is missing, other layers have it; "
                "the file is incomplete, copy it again"
            )


def _linear(module: str) -> str:
    """Return `mlp.up_proj` of `model.layers.3.mlp.up_proj`."""
    return re.sub(r"^model\.layers\.\d+\.", "", module)


def _adapter_sides(path: Path) -> dict[str, dict[str, FloatArray]]:
    tensors = TensorFiles([path])
    sides: dict[str, dict[str, FloatArray]] = {}
    for name in tensors:
        parts = lora_parts(name)
        if parts is None:
            raise ModelShapeError(f"{path}: tensor {name} is no LoRA factor; not supported")
        module, side = parts
        sides.setdefault(module, {})[side] = tensors.read(name)
    return sides
