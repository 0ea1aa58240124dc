"""Names of the five layouts, and tensors read one at a time."""

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from models.build.names import canonical, lora_parts
from models.build.source import Checkpoint, TensorFiles, row_chunks, weight_files
from models.errors import ModelFilesError, ModelNumbersError, ModelShapeError
from tests.parity import tiny


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("model.language_model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("model.visual.merger.ln_q.weight", "visual.merger.ln_q.weight"),
        ("visual.merger.ln_q.weight", "visual.merger.ln_q.weight"),
        ("vlm.model.language_model.norm.weight", "model.norm.weight"),
        ("vlm.language_model.norm.weight", "model.norm.weight"),
        ("vlm.model.visual.patch_embed.proj.weight", "visual.patch_embed.proj.weight"),
        ("vlm.visual.patch_embed.proj.weight", "visual.patch_embed.proj.weight"),
        ("vlm.lm_head.weight", "lm_head.weight"),
        ("lm_head.weight", "lm_head.weight"),
        ("embedding_proj_layer.bias", "custom_text_proj.bias"),
        ("custom_text_proj.bias", "custom_text_proj.bias"),
    ],
)
def test_every_layout_gives_the_hubs_names(name, wanted):
    assert canonical(name) == wanted


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight", ("q_proj", "A")),
        ("base_model.model.model.layers.3.self_attn.q_proj.lora_B.default.weight", ("q_proj", "B")),
        ("base_model.model.vlm.language_model.layers.3.self_attn.q_proj.lora_A.weight",
         ("q_proj", "A")),
    ],
)  # fmt: skip
def test_both_sides_of_a_lora_are_found(name, wanted):
    module, side = lora_parts(name)
    assert (module, side) == (f"model.layers.3.self_attn.{wanted[0]}", wanted[1])


def test_other_tensors_are_no_lora():
    assert lora_parts("base_model.model.custom_text_proj.weight") is None


@pytest.mark.parametrize(
    ("dtype", "exact"), [(np.float32, True), (np.float16, False), (ml_dtypes.bfloat16, False)]
)
def test_tensors_are_read_as_float32_whole_or_in_part(tmp_path, dtype, exact):
    values = np.random.default_rng(0).standard_normal((7, 5), np.float32)
    stored = values.astype(dtype)
    save_file({"model.norm.weight": stored}, tmp_path / "a.safetensors")
    tensors = TensorFiles([tmp_path / "a.safetensors"])
    found = tensors.read("model.norm.weight")
    assert found.dtype == np.float32 and (found == stored.astype(np.float32)).all()
    assert (found == values).all() == exact
    assert (tensors.read("model.norm.weight", slice(2, 4)) == found[2:4]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_named(tmp_path, bad):
    save_file({"a": np.array([[0, bad]], np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(ModelNumbersError, match=r"a\.safetensors: a holds NaN or infinity"):
        TensorFiles([tmp_path / "a.safetensors"]).read("a")


def test_digests_compare_values_not_files(tmp_path):
    """The vision tower of two checkpoints is the same, whatever type and layout they are in."""
    one = tiny.write_qwen2vl(tmp_path / "one", dtype="bfloat16")
    two = tiny.write_qwen2vl(tmp_path / "two", layout="modules-4.52", dtype="bfloat16", n_shards=2)
    other = tiny.write_qwen2vl(tmp_path / "other", tiny.replace(tiny.TINY, seed=3))
    first, second, third = (TensorFiles(weight_files(each)) for each in (one, two, other))
    assert first.digest("visual.") == second.digest("visual.") != third.digest("visual.")


def test_rows_are_read_in_chunks_that_cover_all():
    chunks = list(row_chunks((10, 3, 2), max_bytes=4 * 6 * 4))
    assert [(each.start, each.stop) for each in chunks] == [(0, 4), (4, 8), (8, 10)]
    assert list(row_chunks((2, 1000), max_bytes=1)) == [slice(0, 1), slice(1, 2)]


def test_a_tensor_under_two_names_is_two_checkpoints(tmp_path):
    folder = tiny.write_qwen2vl(tmp_path / "mixed")
    extra = {"model.visual.merger.ln_q.weight": np.ones(32, np.float32)}
    save_file({**tiny.tensors(), **extra}, folder / "model.safetensors")
    with pytest.raises(ModelShapeError, match="mixes two checkpoints"):
        Checkpoint.open(folder)


def test_buffers_of_old_transformers_are_ignored(tmp_path):
    folder = tiny.write_qwen2vl(tmp_path / "old")
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32)}
    save_file({**tiny.tensors(), **buffer}, folder / "model.safetensors")
    assert Checkpoint.open(folder).config.text.n_layers == 3


def test_a_tied_checkpoint_may_repeat_its_output_layer(tmp_path):
    folder = tiny.write_qwen2vl(tmp_path / "tied")
    weights = tiny.tensors()
    save_file(
        {**weights, "lm_head.weight": weights["model.embed_tokens.weight"]},
        folder / "model.safetensors",
    )
    assert Checkpoint.open(folder).lm_head_name == "model.embed_tokens.weight"


@pytest.mark.parametrize("content", ["{}", '{"weight_map": {}}', '{"weight_map": ["a"]}', "[]"])
def test_an_index_without_a_weight_map(tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ModelFilesError, match=r"model\.safetensors\.index\.json"):
        weight_files(tmp_path)
