"""Sizes of the embedded model: one dataclass per part, and the named choices.

The architecture is Qwen2-VL's (arXiv:2409.12191); only the numbers differ. `hub_config` writes them
as the hub does, so that nothing downstream can tell this model from a large one.
"""

from dataclasses import asdict, dataclass, field

PATCH_PX = 14  # a patch; two by two of them make a cell, which becomes one visual token
CELL_PX = 28
PROJECTION = 128
MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the channels, as Qwen2-VL normalises them
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class VisionConfig:
    """The vision tower: `depth` blocks of `embed_dim`, heads of a multiple of 4."""

    depth: int = 4
    embed_dim: int = 160
    num_heads: int = 4
    mlp_ratio: int = 4


@dataclass(frozen=True)
class TextConfig:
    """The decoder; twice the sum of `mrope_section` is the head size, a multiple of 8."""

    vocab_size: int = 10240
    hidden_size: int = 256
    intermediate_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    # Columns need fast turns, to tell the neighbour to the left from any other cell: Qwen2-VL's
    # sections and theta give them none (less than 0.003 rad a cell). And slow ones, to look for a
    # word of a question anywhere on a page: theta 10, as in runs 1 to 8, gave none (0.1 rad a cell
    # and more). Columns get all the slow ones here: rows do not turn those.
    mrope_section: tuple[int, int, int] = (1, 3, 28)
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 4096

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class ModelConfig:
    """Both parts together."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig = field(default_factory=TextConfig)

    def __post_init__(self) -> None:
        text, vision = self.text, self.vision
        if 2 * sum(text.mrope_section) != text.head_dim or text.head_dim % 8:
            raise ValueError(f"mrope_section {text.mrope_section} must be half of the head size")
        if (vision.embed_dim // vision.num_heads) % 4:
            raise ValueError("vision head size must be a multiple of 4")
        if text.hidden_size % 32 or vision.embed_dim % 32:
            raise ValueError("hidden sizes must be multiples of 32, the quantisation block")


SIZES = {
    # 7.0 M parameters: about 38 MFLOP of training a cell before the decoder, right for two cores
    "small": ModelConfig(),
    # 11 M parameters: the same with a decoder that is twice as deep and half as wide again
    "deep": ModelConfig(text=TextConfig(num_hidden_layers=8, intermediate_size=768)),
    # 20 M parameters, about 20 MB at int8: for a GPU
    "base": ModelConfig(
        VisionConfig(depth=6, embed_dim=320, num_heads=8),
        TextConfig(
            hidden_size=320,
            intermediate_size=960,
            num_hidden_layers=6,
            num_attention_heads=5,
            num_key_value_heads=1,
        ),
    ),
    # for tests: seconds, not minutes
    "tiny": ModelConfig(
        VisionConfig(depth=2, embed_dim=64, num_heads=2),
        TextConfig(
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            mrope_section=(2, 7, 7),
        ),
    ),
}


def from_dict(data: dict) -> ModelConfig:
    """Rebuild a ModelConfig from `dataclasses.asdict` output."""
    text = data["text"] | {"mrope_section": tuple(data["text"]["mrope_section"])}
    return ModelConfig(VisionConfig(**data["vision"]), TextConfig(**text))


def to_dict(config: ModelConfig) -> dict:
    """Return the plain-data form of a ModelConfig."""
    return asdict(config)


def hub_config(config: ModelConfig, special_ids: dict[str, int]) -> dict:
    """Return config.json as the hub writes it for Qwen2-VL (flat text keys, nested vision)."""
    text, vision = config.text, config.vision
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "bos_token_id": special_ids["<|endoftext|>"],
        "eos_token_id": special_ids["<|im_end|>"],
        "pad_token_id": special_ids["<|endoftext|>"],
        "vision_start_token_id": special_ids["<|vision_start|>"],
        "vision_end_token_id": special_ids["<|vision_end|>"],
        "vision_token_id": special_ids["<|vision_pad|>"],
        "image_token_id": special_ids["<|image_pad|>"],
        "video_token_id": special_ids["<|video_pad|>"],
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "num_hidden_layers": text.num_hidden_layers,
        "num_attention_heads": text.num_attention_heads,
        "num_key_value_heads": text.num_key_value_heads,
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.max_position_embeddings,
        "max_window_layers": text.num_hidden_layers,
        "sliding_window": None,
        "use_sliding_window": False,
        "rms_norm_eps": text.rms_norm_eps,
        "rope_theta": text.rope_theta,
        "rope_scaling": {"type": "mrope", "mrope_section": list(text.mrope_section)},
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "vision_config": {
            "model_type": "qwen2_vl",
            "depth": vision.depth,
            "embed_dim": vision.embed_dim,
            "hidden_size": text.hidden_size,
            "num_heads": vision.num_heads,
            "mlp_ratio": vision.mlp_ratio,
            "hidden_act": "quick_gelu",
            "in_channels": 3,
            "in_chans": 3,
            "patch_size": PATCH_PX,
            "spatial_patch_size": PATCH_PX,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    }
