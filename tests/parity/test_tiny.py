"""The checkpoints that parity is proven on are what they claim to be."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from models.build.names import canonical
from tests.parity import tiny


def test_layouts_hold_the_same_numbers_under_their_own_names(tmp_path):
    plain = {"hub": tiny.write_qwen2vl, "modules-4.52": tiny.write_qwen2vl}
    hub, modules = (
        load_file(write(tmp_path / layout, layout=layout) / "model.safetensors")
        for layout, write in plain.items()
    )
    assert "model.layers.0.mlp.up_proj.weight" in hub
    assert "model.language_model.layers.0.mlp.up_proj.weight" in modules
    assert set(hub) != set(modules)
    assert len(hub) == len(modules) == 69
    for name, values in modules.items():
        assert (values == hub[canonical(name)]).all()


@pytest.mark.parametrize("layout", ["merged", "hf", "saved-5"])
def test_merged_checkpoints_hold_the_lora_in_their_weights(tmp_path, layout):
    weights = load_file(tiny.write_colqwen2(tmp_path, layout=layout) / "model.safetensors")
    weights = {canonical(name): values for name, values in weights.items()}
    base = tiny.tensors(projection=True)
    a, b = tiny.lora()["custom_text_proj"]
    wanted = base["custom_text_proj.weight"] + 2 * b @ a
    np.testing.assert_allclose(weights["custom_text_proj.weight"], wanted, atol=1e-6)
    same = [name for name in base if (weights[name] == base[name]).all()]
    assert len(base) - len(same) == len(tiny.lora()) == 3 * 7 + 1


def test_shards_add_up_to_the_single_file(tmp_path):
    one = load_file(tiny.write_qwen2vl(tmp_path / "one") / "model.safetensors")
    folder = tiny.write_qwen2vl(tmp_path / "two", n_shards=2)
    files = sorted(folder.glob("*.safetensors"))
    shards = [load_file(file) for file in files]
    assert [file.name for file in files] == [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    assert set(shards[0]).isdisjoint(shards[1])
    assert {**shards[0], **shards[1]}.keys() == one.keys()
