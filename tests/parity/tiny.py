"""Checkpoints as they come from the hub, only tiny and random: drawn with numpy, never with torch.

`write_qwen2vl`, `write_colqwen2` and `write_adapter` make folders in each of the layouts found on
the hub. Every tensor has its own generator, seeded by its name, so the layouts hold the same
numbers. The tests build and run them; `make_fixtures.py` loads the same folders in transformers.
"""

import json
import re
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import ml_dtypes
import numpy as np
import tokenizers
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers, trainers

Tensors = dict[str, NDArray[np.float32]]

# In the order of the hub's tokenizer, which gives them neighbouring ids.
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>",
    "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>",
    "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
# A large tensor repeats its numbers, or drawing the 2B width takes 9 s; a prime, so no row does.
MAX_DRAWN = 262_139
N_ORDINARY = 338  # byte alphabet 256 + merges; special tokens follow
FIRST_SPECIAL = N_ORDINARY
IDS = {token: FIRST_SPECIAL + n for n, token in enumerate(SPECIAL)}

SENTENCES = (
    "You are a helpful assistant. Describe the image. system user assistant Query: ",
    "What does the bar for March show? How many rows does the table on page 2 have?",
    "The total of the invoice is 1,204.50; the chart says 38 % in 2019 and 41 % in 2020.",
    "この表の合計はいくらですか。図の三番目の棒は何を示していますか。",
    "請求書の日付と金額を読んで、ページの見出しを答えてください。",
)
# The hub's pre-tokenizer.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Sizes:
    """Sizes of a checkpoint, and how its numbers are spread."""

    hidden: int = 64
    intermediate: int = 128
    n_layers: int = 3
    n_heads: int = 4
    n_kv_heads: int = 2
    mrope_section: tuple[int, int, int] = (2, 3, 3)
    vision_depth: int = 2
    vision_dim: int = 32
    vision_heads: int = 2
    vocab: int = 384  # more than the tokenizer has, as on the hub
    tied: bool = True
    projection_dim: int = 128
    rank: int = 4
    alpha: int = 8  # a scale of 2, so that a forgotten one shows
    matrix_std: float = 0.15
    seed: int = 18


# Seeds whose greedy text runs 80 tokens without a loop, a near tie or an end: see make_fixtures.
TINY = Sizes()
UNTIED = replace(TINY, tied=False, seed=1)
# One layer at the width of Qwen2-VL-2B: real block sizes, vision heads of 80.
WIDE = Sizes(
    hidden=1536, intermediate=8960, n_layers=1, n_heads=12, n_kv_heads=2,
    mrope_section=(16, 24, 24), vision_depth=1, vision_dim=1280, vision_heads=16,
    matrix_std=0.02,
)  # fmt: skip


def shapes(sizes: Sizes, projection: bool = False) -> dict[str, tuple[int, ...]]:
    """Name on the hub -> shape of every tensor."""
    s = sizes
    head_dim = s.hidden // s.n_heads
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (s.vocab, s.hidden)}
    for n in range(s.n_layers):
        for module, shape in linears(s).items():
            found[f"model.layers.{n}.{module}.weight"] = shape
        for module, width in (("q", s.hidden), ("k", s.n_kv_heads * head_dim)):
            found[f"model.layers.{n}.self_attn.{module}_proj.bias"] = (width,)
        found[f"model.layers.{n}.self_attn.v_proj.bias"] = (s.n_kv_heads * head_dim,)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            found[f"model.layers.{n}.{norm}.weight"] = (s.hidden,)
    found["model.norm.weight"] = (s.hidden,)
    if not s.tied:
        found["lm_head.weight"] = (s.vocab, s.hidden)
    d, merged = s.vision_dim, 4 * s.vision_dim
    found["visual.patch_embed.proj.weight"] = (d, 3, 2, 14, 14)
    maps = {"visual.merger.mlp.0": (merged, merged), "visual.merger.mlp.2": (s.hidden, merged)}
    norms = ["visual.merger.ln_q"]
    for n in range(s.vision_depth):
        block = f"visual.blocks.{n}."
        norms += [block + "norm1", block + "norm2"]
        maps |= {block + "attn.qkv": (3 * d, d), block + "attn.proj": (d, d)}
        maps |= {block + "mlp.fc1": (4 * d, d), block + "mlp.fc2": (d, 4 * d)}
    if projection:
        maps["custom_text_proj"] = (s.projection_dim, s.hidden)
    for module, shape in maps.items():
        found |= {f"{module}.weight": shape, f"{module}.bias": shape[:1]}
    for norm in norms:
        found |= {f"{norm}.weight": (d,), f"{norm}.bias": (d,)}
    return found


def linears(s: Sizes) -> dict[str, tuple[int, int]]:
    """(out, in) of the seven linear maps of a decoder layer: those that the LoRA touches."""
    kv = s.n_kv_heads * s.hidden // s.n_heads
    return {
        "self_attn.q_proj": (s.hidden, s.hidden),
        "self_attn.k_proj": (kv, s.hidden),
        "self_attn.v_proj": (kv, s.hidden),
        "self_attn.o_proj": (s.hidden, s.hidden),
        "mlp.gate_proj": (s.intermediate, s.hidden),
        "mlp.up_proj": (s.intermediate, s.hidden),
        "mlp.down_proj": (s.hidden, s.intermediate),
    }


def draw(name: str, shape: tuple[int, ...], sizes: Sizes) -> NDArray[np.float32]:
    """Numbers of one tensor: norms near 1, biases small, matrices wide enough to show errors."""
    rng = np.random.default_rng([sizes.seed, zlib.crc32(name.encode())])
    n = int(np.prod(shape))
    values = np.resize(rng.standard_normal(min(n, MAX_DRAWN), np.float32), shape)
    is_norm = "norm" in name or "ln_q" in name
    spread = np.float32(sizes.matrix_std if len(shape) > 1 else 0.05)
    return values * spread + np.float32(is_norm and name.endswith("weight"))


def tensors(sizes: Sizes = TINY, projection: bool = False) -> Tensors:
    """Every tensor of a checkpoint under its name on the hub, float32."""
    return {name: draw(name, shape, sizes) for name, shape in shapes(sizes, projection).items()}


def lora(sizes: Sizes = TINY) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Module -> (A (r, in), B (out, r)) of the adapter; on every linear map and the projection."""
    modules = {
        f"model.layers.{n}.{module}": shape
        for n in range(sizes.n_layers)
        for module, shape in linears(sizes).items()
    }
    modules["custom_text_proj"] = (sizes.projection_dim, sizes.hidden)
    return {
        module: (
            draw(f"{module}.lora_A", (sizes.rank, n_in), sizes),
            draw(f"{module}.lora_B", (n_out, sizes.rank), sizes),
        )
        for module, (n_out, n_in) in modules.items()
    }


def merged(sizes: Sizes = TINY) -> Tensors:
    """ColQwen2 with its LoRA added into the weights: W + (alpha / r) B A."""
    weights = tensors(sizes, projection=True)
    for module, (a, b) in lora(sizes).items():
        weights[f"{module}.weight"] += np.float32(sizes.alpha / sizes.rank) * (b @ a)
    return weights


# Layout -> rules from hub names, the rows of the table of state-dict names.
RENAME: dict[str, tuple[tuple[str, str], ...]] = {
    "hub": (),
    "modules-4.52": ((r"^model\.", "model.language_model."), (r"^visual\.", "model.visual.")),
    "merged": (),
    "hf": (
        (r"^model\.", "vlm.model.language_model."),
        (r"^visual\.", "vlm.model.visual."),
        (r"^custom_text_proj\.", "embedding_proj_layer."),
    ),
    "saved-5": (
        (r"^model\.", "vlm.language_model."),
        (r"^visual\.", "vlm.visual."),
        (r"^custom_text_proj\.", "embedding_proj_layer."),
    ),
}


def renamed(weights: Tensors, layout: str) -> Tensors:
    """The same tensors under the names of a layout."""

    def rename(name: str) -> str:
        for pattern, replacement in RENAME[layout]:
            name = re.sub(pattern, replacement, name)
        return name

    return {rename(name): values for name, values in weights.items()}


def write_qwen2vl(
    folder: Path,
    sizes: Sizes = TINY,
    layout: str = "hub",
    dtype: str = "float32",
    n_shards: int = 1,
) -> Path:
    """Write a plain Qwen2-VL; layouts `hub` and `modules-4.52`."""
    _write(folder, _flat_config(sizes, dtype), tensors(sizes), layout, dtype, n_shards)
    return folder


def write_colqwen2(
    folder: Path,
    sizes: Sizes = TINY,
    layout: str = "merged",
    dtype: str = "float32",
    n_shards: int = 1,
    with_lora: bool = True,
) -> Path:
    """Write a ColQwen2; layouts `merged` (engine naming), `hf` and `saved-5` (transformers).

    with_lora False gives `colqwen2-base`: the projection drawn, nothing trained.
    """
    weights = merged(sizes) if with_lora else tensors(sizes, projection=True)
    config = _flat_config(sizes, dtype) | {"architectures": ["ColQwen2"]}
    if layout != "merged":
        config = {
            "architectures": ["ColQwen2ForRetrieval"],
            "model_type": "colqwen2",
            "embedding_dim": sizes.projection_dim,
            "initializer_range": 0.02,
            "vlm_config": _nested_config(sizes, dtype),
        }
    _write(folder, config, weights, layout, dtype, n_shards)
    return folder


def write_adapter(folder: Path, sizes: Sizes = TINY, base: str = "vidore/colqwen2-base") -> Path:
    """Write the PEFT adapter of ColQwen2: LoRA factors only, no projection of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    factors: Tensors = {}
    for module, (a, b) in lora(sizes).items():
        factors[f"base_model.model.{module}.lora_A.weight"] = a
        factors[f"base_model.model.{module}.lora_B.weight"] = b
    save_file(factors, folder / "adapter_model.safetensors", {"format": "pt"})
    config = {
        "base_model_name_or_path": base,
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": "gaussian",
        "lora_alpha": sizes.alpha,
        "lora_dropout": 0.1,
        "peft_type": "LORA",
        "r": sizes.rank,
        "target_modules": r"(.*(model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj)"
        r".*$|.*(custom_text_proj).*$)",
        "task_type": "FEATURE_EXTRACTION",
        "use_rslora": False,
    }
    _json(folder / "adapter_config.json", config)
    _write_processor(folder)
    return folder


def _write(
    folder: Path, config: dict, weights: Tensors, layout: str, dtype: str, n_shards: int
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _json(folder / "config.json", config)
    _json(
        folder / "generation_config.json",
        {
            "bos_token_id": IDS["<|endoftext|>"],
            "pad_token_id": IDS["<|endoftext|>"],
            "do_sample": True,
            "eos_token_id": [IDS["<|im_end|>"], IDS["<|endoftext|>"]],
            "repetition_penalty": 1.0,
            "temperature": 0.01,
            "top_p": 0.001,
            "top_k": 1,
        },
    )
    _write_processor(folder)
    kind = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[dtype]
    named = {name: values.astype(kind) for name, values in renamed(weights, layout).items()}
    if n_shards == 1:
        save_file(named, folder / "model.safetensors", {"format": "pt"})
        return
    names = sorted(named)
    weight_map = {}
    for n in range(n_shards):
        file = f"model-{n + 1:05d}-of-{n_shards:05d}.safetensors"
        shard = {name: named[name] for name in names[n::n_shards]}
        save_file(shard, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    total = sum(values.nbytes for values in named.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    _json(folder / "model.safetensors.index.json", index)


def _text_config(s: Sizes) -> dict:
    return {
        "bos_token_id": IDS["<|endoftext|>"],
        "eos_token_id": IDS["<|im_end|>"],
        "hidden_act": "silu",
        "hidden_size": s.hidden,
        "intermediate_size": s.intermediate,
        "max_position_embeddings": 1024,
        "max_window_layers": s.n_layers,
        "num_attention_heads": s.n_heads,
        "num_hidden_layers": s.n_layers,
        "num_key_value_heads": s.n_kv_heads,
        "rms_norm_eps": 1e-6,
        "sliding_window": 1024,
        "use_sliding_window": False,
        "use_cache": True,
        "vocab_size": s.vocab,
    }


def _vision_config(s: Sizes) -> dict:
    return {
        "depth": s.vision_depth,
        "embed_dim": s.vision_dim,
        "hidden_size": s.hidden,
        "in_chans": 3,
        "in_channels": 3,
        "mlp_ratio": 4,
        "num_heads": s.vision_heads,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
    }


def _root_config(s: Sizes, dtype: str) -> dict:
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "vision_start_token_id": IDS["<|vision_start|>"],
        "vision_end_token_id": IDS["<|vision_end|>"],
        "vision_token_id": IDS["<|vision_pad|>"],
        "image_token_id": IDS["<|image_pad|>"],
        "video_token_id": IDS["<|video_pad|>"],
        "tie_word_embeddings": s.tied,
        "torch_dtype": dtype,
    }


def _flat_config(s: Sizes, dtype: str) -> dict:
    """As on the hub: the text's keys at the root, `rope_scaling` of type mrope."""
    rope = {"type": "mrope", "mrope_section": list(s.mrope_section)}
    text = _text_config(s) | {"rope_theta": 1000000.0, "rope_scaling": rope}
    return _root_config(s, dtype) | text | {"vision_config": _vision_config(s)}


def _nested_config(s: Sizes, dtype: str) -> dict:
    """As transformers 5 writes it: `text_config.rope_parameters`."""
    rope = {
        "rope_type": "default",
        "rope_theta": 1000000.0,
        "mrope_section": list(s.mrope_section),
    }
    text = _text_config(s) | {"rope_parameters": rope, "model_type": "qwen2_vl_text"}
    vision = _vision_config(s) | {"model_type": "qwen2_vl_vision"}
    return _root_config(s, dtype) | {"text_config": text, "vision_config": vision}


def _write_processor(folder: Path) -> None:
    """Preprocessor and tokenizer: they come with checkpoints and with adapters."""
    config = {
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
    }
    _json(folder / "preprocessor_config.json", config)
    tokenizer().save(str(folder / "tokenizer.json"))
    _json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "pad_token": "<|endoftext|>",
            "eos_token": "<|im_end|>",
            "padding_side": "left",
        },
    )


def tokenizer() -> tokenizers.Tokenizer:
    """A byte-level BPE of the hub's kind, trained on a few sentences; always the same."""
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_ORDINARY,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(SENTENCES, trainer)
    bpe.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return bpe


def _json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
