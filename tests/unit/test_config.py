"""Sizes and ids from config.json in its three shapes, and configs of something else."""

import copy
import json

import pytest

from models.config import ModelConfig, read_json
from models.errors import ModelFilesError, ModelShapeError
from tests.parity import tiny

FLAT = tiny._flat_config(tiny.TINY, "float32")
NESTED = tiny._nested_config(tiny.TINY, "float32")


def test_flat_nested_and_colqwen2_configs_say_the_same():
    flat = ModelConfig.from_json(FLAT, "config.json")
    assert flat == ModelConfig.from_json(NESTED, "config.json")
    wrapped = {"model_type": "colqwen2", "vlm_config": NESTED}
    assert flat == ModelConfig.from_json(wrapped, "config.json")


def test_sizes_and_ids():
    config = ModelConfig.from_json(FLAT, "config.json")
    text, vision = config.text, config.vision
    assert (text.hidden_size, text.n_layers, text.n_heads, text.n_kv_heads) == (64, 3, 4, 2)
    assert (text.head_dim, text.mrope_section, text.rope_theta) == (16, (2, 3, 3), 1e6)
    assert (text.vocab_size, text.tied_embeddings, text.max_positions) == (384, True, 1024)
    assert (vision.depth, vision.embed_dim, vision.head_dim) == (2, 32, 16)
    assert (vision.mlp_features, vision.patch_features, vision.out_features) == (128, 1176, 64)
    assert config.tokens.image == tiny.IDS["<|image_pad|>"]


def test_what_the_2b_leaves_out_of_its_vision_config_is_filled_in():
    """Its vision_config on the hub has no mlp_ratio and no temporal_patch_size."""
    config = {**FLAT, "hidden_size": 1536, "vocab_size": 151936, "num_attention_heads": 12}
    config["rope_scaling"] = {"type": "mrope", "mrope_section": [16, 24, 24]}
    config["vision_config"] = {
        "depth": 32, "embed_dim": 1280, "num_heads": 16, "in_chans": 3, "spatial_patch_size": 14,
        "hidden_size": 1536,
    }  # fmt: skip
    for name in (
        "image_token_id",
        "video_token_id",
        "vision_start_token_id",
        "vision_end_token_id",
    ):
        del config[name]
    found = ModelConfig.from_json(config, "config.json")
    assert (found.vision.mlp_features, found.vision.head_dim) == (5120, 80)
    assert (found.tokens.image, found.tokens.video) == (151655, 151656)


def test_null_says_nothing():
    """transformers 4.52 and later write `image_token_id: null` into text_config, and the like."""
    config = {**FLAT, "vision_start_token_id": None, "vocab_size": 151936, "head_dim": None}
    for name in ("image_token_id", "video_token_id", "vision_end_token_id"):
        del config[name]
    wanted = ModelConfig.from_json({**config, "vision_start_token_id": 151652}, "config.json")
    nested = {"hidden_size": None, "image_token_id": None, "rope_scaling": None}
    assert ModelConfig.from_json({**config, "text_config": nested}, "config.json") == wanted
    assert ModelConfig.from_json({**config, "text_config": None}, "config.json") == wanted
    vision = {**FLAT["vision_config"], "temporal_patch_size": None}
    config["vision_config"] = vision
    assert ModelConfig.from_json(config, "config.json") == wanted


WRONG = {
    "another model": ({"model_type": "llama"}, "model_type is 'llama', wanted 'qwen2_vl'"),
    "no model type": ({"model_type": None}, "model_type is None"),
    "no hidden size": ({"hidden_size": None}, "not a Qwen2-VL config"),
    "no heads": ({"num_attention_heads": 0}, "not a Qwen2-VL config"),
    "negative heads": ({"num_key_value_heads": -2}, "a size is not positive"),
    "no layers": ({"num_hidden_layers": 0}, "a size is not positive"),
    "a word": ({"num_hidden_layers": "three"}, "not a Qwen2-VL config"),
    "no feed-forward": ({"intermediate_size": 0}, "a size is not positive"),
    "no M-RoPE": ({"rope_scaling": {"type": "linear"}}, "mrope_section"),
    "short M-RoPE": ({"rope_scaling": {"mrope_section": [2, 3, 2]}}, "mrope_section is not three"),
    "two axes": ({"rope_scaling": {"mrope_section": [4, 4]}}, "mrope_section is not three"),
    "odd heads": ({"num_key_value_heads": 3}, "no multiple of the key/value heads"),
    "id outside": ({"image_token_id": 384}, "outside the vocabulary"),
    "negative id": ({"vision_end_token_id": -1}, "outside the vocabulary"),
    "other patches": ({"vision_config": {"patch_size": 16}}, "differ from 14, 2, 2, 3"),
    "one channel": ({"vision_config": {"in_channels": 1}}, "differ from 14, 2, 2, 3"),
    "no vision heads": ({"vision_config": {"num_heads": 0}}, "a size is not positive"),
    "odd vision heads": ({"vision_config": {"num_heads": 3}}, "no multiple of 4"),
    "vision a list": ({"vision_config": []}, "not a Qwen2-VL config"),
    "text a list": ({"text_config": [1]}, "not a Qwen2-VL config"),
    "wrapped a list": ({"vlm_config": [1]}, "model_type is None"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_config_is_refused_in_one_line(name):
    changes, message = WRONG[name]
    config = copy.deepcopy(FLAT)
    for key, value in changes.items():
        config[key] = {**config[key], **value} if key == "vision_config" and value else value
    with pytest.raises(ModelShapeError, match=message) as caught:
        ModelConfig.from_json(config, "some/config.json")
    assert str(caught.value).startswith("some/config.json: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "not there"), (b"{", "cannot be read as JSON"), (b"[]", "holds no JSON object"),
     (b"\xff\xfe{}", "cannot be read as JSON"), (json.dumps("x").encode(), "no JSON object")],
)  # fmt: skip
def test_a_file_that_is_no_json_object(tmp_path, content, message):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelFilesError, match=message):
        read_json(path)
