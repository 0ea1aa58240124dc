"""Which checkpoint gives which part of a model folder, and the retriever's small weights."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.build.source import (
    Adapter,
    Checkpoint,
    FloatArray,
    Shapes,
    TensorFiles,
    check_shapes,
    linear_shapes,
    weight_files,
)
from models.config import PROJECTION_BIAS, PROJECTION_WEIGHT
from models.errors import ModelBuildError, ModelFilesError

log = logging.getLogger(__name__)

# Of a weight, relative: bfloat16 has 8 bits, and merged weights were rounded to it once or twice
# (0.1 to 0.2 %); one finetuning apart they differ by more.
ROUNDING = 2.0**-7


@dataclass(frozen=True)
class Sources:
    """Where each part comes from.

    base        Qwen2-VL, colqwen2-base, or a ColQwen2 with the adapter merged into it
    adapter     PEFT adapter of a retriever on `base`, or None
    projection  file or checkpoint folder with `custom_text_proj`, if base has none
    generator   Qwen2-VL that answers, if it is not `base`
    reading     file with a reading head for the vision tower of `base`, or None
    """

    base: Path
    adapter: Path | None = None
    projection: Path | None = None
    generator: Path | None = None
    reading: Path | None = None

    @classmethod
    def find(
        cls,
        source: Path,
        base: Path | None = None,
        projection: Path | None = None,
        generator: Path | None = None,
    ) -> "Sources":
        """Resolve what a user gave: a checkpoint, an adapter, or a folder of base/ and adapter/."""
        if not source.is_dir():
            raise ModelFilesError(f"{source}: no such folder")
        if (source / "base" / "config.json").exists():
            adapter = source / "adapter"
            pulled, reading = source / "projection.safetensors", source / "reading.safetensors"
            return cls(
                base or source / "base",
                adapter if adapter.is_dir() else None,
                projection or (pulled if pulled.exists() else None),
                generator,
                reading if reading.exists() else None,
            )
        if (source / "adapter_config.json").exists():
            if base is None:
                raise ModelBuildError(
                    f"{source} is an adapter: give the checkpoint it belongs to with --base DIR"
                )
            return cls(base, source, projection, generator)
        if base is not None:
            raise ModelBuildError(
                f"{source} is a checkpoint, --base is for adapters; did you mean --generator?"
            )
        return cls(source, None, projection, generator)


def retriever_weights(base: Checkpoint, sources: Sources) -> dict[str, FloatArray]:
    """Projection (dim, H), bias (dim,) and LoRA factors; empty for a plain Qwen2-VL."""
    if sources.adapter is None and not base.has_projection:
        if sources.projection is not None:
            raise ModelBuildError(
                f"{sources.projection}: a projection without its adapter makes no retriever; "
                "give the adapter's folder as SRC and this checkpoint as --base"
            )
        return {}
    tensors = _projection_source(base, sources)
    dim, hidden = tensors.shape(PROJECTION_WEIGHT)[0], base.config.text.hidden_size
    weights = {
        PROJECTION_WEIGHT: tensors.read(PROJECTION_WEIGHT),
        PROJECTION_BIAS: tensors.read(PROJECTION_BIAS),
    }
    if sources.adapter is not None:
        adapter = Adapter.open(sources.adapter, _lora_places(base, (dim, hidden)))
        for module, (a, b) in adapter.factors.items():
            if module != "custom_text_proj":
                weights |= {f"{module}.lora_A": a, f"{module}.lora_B": b}
            elif not _includes_lora(tensors, base, adapter, sources):
                weights[PROJECTION_WEIGHT] = weights[PROJECTION_WEIGHT] + (a @ b).T
    return weights


def _lora_places(base: Checkpoint, projection: tuple[int, int]) -> Shapes:
    places: Shapes = {
        f"model.layers.{layer}.{linear}": shape
        for layer in range(base.config.text.n_layers)
        for linear, shape in linear_shapes(base.config).items()
    }
    return places | {"custom_text_proj": projection}


def _includes_lora(
    tensors: TensorFiles, base: Checkpoint, adapter: Adapter, sources: Sources
) -> bool:
    """Whether the adapter's part is already in the projection.

    The hub's merged checkpoints do not say so; another linear map of the same files shows it: it
    is nearer to the base's, or to the base's with the adapter added. If it is near neither, the
    adapter was trained on other weights than the base's, and a warning says so.
    """
    if tensors is base.tensors:
        return False
    for module, (a, b) in adapter.factors.items():
        name = f"{module}.weight"
        if name in tensors and name in base.tensors:
            wanted = {name: base.tensors.shape(name)}
            check_shapes(sources.projection or base.folder, tensors, wanted, others_allowed=True)
            weight, delta = base.tensors.read(name), (a @ b).T
            found = tensors.read(name) - weight
            plain, added = np.linalg.norm(found), np.linalg.norm(found - delta)
            apart = float(min(plain, added) / np.linalg.norm(weight))
            if apart > ROUNDING:
                log.warning(
                    "%s: the adapter seems to belong to other weights, %s differs by %.1f %%; "
                    "if pages are found badly, give the checkpoint that adapter_config.json "
                    "names as the base",
                    base.folder,
                    name,
                    100 * apart,
                )
            return bool(added < plain)
    if tensors.metadata.get("includes_lora") == "true":
        return True
    raise ModelBuildError(
        f"{sources.projection}: does not show whether the adapter is already added to its "
        "custom_text_proj; give the whole checkpoint it comes from (colqwen2-base, -merged) with "
        "--projection"
    )


def _projection_source(base: Checkpoint, sources: Sources) -> TensorFiles:
    """Return the files that hold the projection."""
    if sources.projection is not None:
        files = (
            weight_files(sources.projection)
            if sources.projection.is_dir()
            else [sources.projection]
        )
        tensors = TensorFiles(files)
    else:
        tensors = base.tensors
    if PROJECTION_WEIGHT not in tensors or PROJECTION_BIAS not in tensors:
        raise ModelFilesError(
            f"{sources.projection or base.folder}: has no custom_text_proj (the retriever's "
            "projection); give a checkpoint that has it (colqwen2-base, -merged) with --projection"
        )
    dim = tensors.shape(PROJECTION_WEIGHT)[0]
    hidden = base.config.text.hidden_size
    if sources.projection is not None:
        wanted = {PROJECTION_WEIGHT: (dim, hidden), PROJECTION_BIAS: (dim,)}
        check_shapes(sources.projection, tensors, wanted, others_allowed=True)
    return tensors
