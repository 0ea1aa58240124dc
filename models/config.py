"""Sizes and token ids of a Qwen2-VL checkpoint, read from its config.json (never from its name).

Hub configs are flat (text sizes at the root); transformers 5 writes them nested below
`text_config`; ColQwen2's -hf form nests everything below `vlm_config`. All three are read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import ModelFilesError, ModelShapeError

Json = Mapping[str, Any]

# The retriever's tensors, under the names that the hub's checkpoints and model folders have.
PROJECTION_WEIGHT, PROJECTION_BIAS = "custom_text_proj.weight", "custom_text_proj.bias"

# transformers 5.23 configuration_qwen2_vl.py: what the hub's 2B vision_config leaves out.
VISION_DEFAULTS: Json = {
    "depth": 32,
    "embed_dim": 1280,
    "num_heads": 16,
    "mlp_ratio": 4,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
}
TOKEN_DEFAULTS: Json = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of the vision tower; `out_features` is the decoder's hidden size."""

    depth: int
    embed_dim: int
    num_heads: int
    mlp_features: int
    patch_px: int
    temporal_patch: int
    merge: int
    in_channels: int
    out_features: int

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.embed_dim // self.num_heads

    @property
    def patch_features(self) -> int:
        """Values of one patch row: channels × frames × height × width (1176)."""
        return self.in_channels * self.temporal_patch * self.patch_px**2


@dataclass(frozen=True)
class TextConfig:
    """Sizes of the decoder."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    mrope_section: tuple[int, ...]
    max_positions: int
    tied_embeddings: bool


@dataclass(frozen=True)
class TokenIds:
    """Ids of the tokens that stand for vision content."""

    image: int
    video: int
    vision_start: int
    vision_end: int

    @property
    def by_name(self) -> Mapping[str, int]:
        """Token -> id, as the tokenizer must have them."""
        return {
            "<|image_pad|>": self.image,
            "<|video_pad|>": self.video,
            "<|vision_start|>": self.vision_start,
            "<|vision_end|>": self.vision_end,
        }


@dataclass(frozen=True)
class ModelConfig:
    """Everything the graphs and the runtime need to know of a checkpoint."""

    vision: VisionConfig
    text: TextConfig
    tokens: TokenIds

    @classmethod
    def from_file(cls, path: Path) -> "ModelConfig":
        """Read config.json. Raises ModelFilesError (absent, not JSON) or ModelShapeError."""
        return cls.from_json(read_json(path), str(path))

    @classmethod
    def from_json(cls, config: Json, name: str) -> "ModelConfig":
        """Read a parsed config.json; `name` is how messages call it. Raises ModelShapeError."""
        config = config.get("vlm_config") or config
        found = config.get("model_type") if isinstance(config, Mapping) else None
        if found not in ("qwen2_vl", "colqwen2"):
            raise ModelShapeError(
                f"{name}: model_type is {found!r}, wanted 'qwen2_vl': "
                "give the folder of a Qwen2-VL or ColQwen2 checkpoint"
            )
        try:
            text = {**_given(config), **_given(config.get("text_config"))}
            parsed = cls(
                _vision(_given(config.get("vision_config")), text["hidden_size"]),
                _text(text),
                _tokens({**TOKEN_DEFAULTS, **_given(config)}),
            )
        except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise ModelShapeError(f"{name}: not a Qwen2-VL config: {error!r}") from None
        _check(parsed, name)
        return parsed


def read_json(path: Path) -> Json:
    """Return the object in a JSON file. Raises ModelFilesError naming the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFilesError(
            f"{path}: not there; is {path.parent} a complete model folder?"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelFilesError(f"{path}: cannot be read as JSON ({error}); copy it again") from None
    if not isinstance(content, dict):
        raise ModelFilesError(f"{path}: holds no JSON object; copy it again")
    return content


def _given(config: Json | None) -> Json:
    """Return what a config says: null, as transformers 4.52 and later write it, says nothing."""
    config = {} if config is None else config
    return {name: value for name, value in config.items() if value is not None}


def _vision(config: Json, out_features: int) -> VisionConfig:
    values = {**VISION_DEFAULTS, **config}
    return VisionConfig(
        depth=int(values["depth"]),
        embed_dim=int(values["embed_dim"]),
        num_heads=int(values["num_heads"]),
        mlp_features=int(values["embed_dim"] * values["mlp_ratio"]),
        patch_px=int(values["patch_size"]),
        temporal_patch=int(values["temporal_patch_size"]),
        merge=int(values["spatial_merge_size"]),
        in_channels=int(values.get("in_channels", values.get("in_chans", 3))),
        out_features=int(out_features),
    )


def _text(config: Json) -> TextConfig:
    heads = int(config["num_attention_heads"])
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    head_dim = int(config.get("head_dim") or config["hidden_size"] // heads)
    return TextConfig(
        vocab_size=int(config["vocab_size"]),
        hidden_size=int(config["hidden_size"]),
        intermediate_size=int(config["intermediate_size"]),
        n_layers=int(config["num_hidden_layers"]),
        n_heads=heads,
        n_kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=head_dim,
        rms_norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 1e6),
        mrope_section=tuple(int(n) for n in rope["mrope_section"]),
        max_positions=int(config.get("max_position_embeddings", 32768)),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
    )


def _tokens(config: Json) -> TokenIds:
    return TokenIds(
        image=int(config["image_token_id"]),
        video=int(config["video_token_id"]),
        vision_start=int(config["vision_start_token_id"]),
        vision_end=int(config["vision_end_token_id"]),
    )


def _check(config: ModelConfig, name: str) -> None:
    """Raise ModelShapeError for sizes that no Qwen2-VL can have."""
    vision, text, tokens = config.vision, config.text, config.tokens
    sizes = [value for part in (vision, text) for value in vars(part).values()]
    if min(value for value in sizes if type(value) is int) < 1:
        raise ModelShapeError(f"{name}: a size is not positive; this is no Qwen2-VL checkpoint")
    cut = (vision.patch_px, vision.temporal_patch, vision.merge, vision.in_channels)
    wrong = {
        "patch, frames, merge or channels differ from 14, 2, 2, 3": cut != (14, 2, 2, 3),
        "vision embed_dim / num_heads is no multiple of 4": vision.embed_dim
        % (4 * vision.num_heads)
        != 0,
        "mrope_section is not three numbers that sum to half of the head": (
            len(text.mrope_section) != 3
            or min(text.mrope_section) < 0
            or 2 * sum(text.mrope_section) != text.head_dim
        ),
        "heads are no multiple of the key/value heads": text.n_heads % text.n_kv_heads != 0,
        "a vision token lies outside the vocabulary": not all(
            0 <= token < text.vocab_size for token in vars(tokens).values()
        ),
    }
    for what, is_wrong in wrong.items():
        if is_wrong:
            raise ModelShapeError(f"{name}: {what}; this is no Qwen2-VL checkpoint")
