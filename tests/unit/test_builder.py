"""What `yomu models build` refuses, each with one line, exit code 2 and nothing left behind."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import models
from models.build.builder import BuildOptions, Precisions, build
from models.build.inputs import Sources
from models.errors import ModelBuildError
from models.folder import ModelInfo
from rag.cli import main
from tests.parity import cases, tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture
def source(checkpoints, tmp_path) -> Path:
    """A plain Qwen2-VL that may be damaged."""
    return shutil.copytree(checkpoints / "qwen2vl", tmp_path / "source")


@pytest.fixture
def base(checkpoints, tmp_path) -> Path:
    return shutil.copytree(checkpoints / "base", tmp_path / "base")


@pytest.fixture
def adapter(checkpoints, tmp_path) -> Path:
    return shutil.copytree(checkpoints / "adapter", tmp_path / "adapter")


@pytest.fixture
def refusal(tmp_path, capsys):
    """Build into a folder of a new folder; return the one line that says why not."""

    def refuse(*arguments) -> str:
        before = sorted(tmp_path.rglob("*"))
        out = tmp_path / "new" / "model"
        with pytest.raises(SystemExit) as ended:
            main(["models", "build", *map(str, arguments[:1]), str(out), *map(str, arguments[1:])])
        said = capsys.readouterr()
        lines = [line for line in said.err.splitlines() if line.startswith("yomu: ")]
        assert ended.value.code == 2
        assert said.out == "" and said.err.rstrip().endswith(lines[0]) and len(lines) == 1
        assert sorted(tmp_path.rglob("*")) == before, "something was left behind"
        return lines[0]

    return refuse


def options(precision) -> BuildOptions:
    return BuildOptions(Precisions(precision, precision, precision))


def rewrite(folder, change, file="model.safetensors"):
    """Change the tensors of a safetensors file."""
    tensors = load_file(folder / file)
    change(tensors)
    save_file(tensors, folder / file, {"format": "pt"})


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# --- files ----------------------------------------------------------------------------------


def test_no_such_folder(refusal, tmp_path):
    assert "nowhere: no such folder" in refusal(tmp_path / "nowhere")


def test_a_folder_without_weights(refusal, source):
    (source / "model.safetensors").unlink()
    assert "has neither model.safetensors nor model.safetensors.index.json" in refusal(source)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights(refusal, source, part):
    file = source / "model.safetensors"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * part)])
    line = refusal(source)
    assert "model.safetensors: no readable safetensors file" in line and "copy it again" in line


def test_corrupt_weights(refusal, source):
    file = source / "model.safetensors"
    file.write_bytes(b"\xff" * 64 + file.read_bytes()[64:])
    assert "model.safetensors: no readable safetensors file" in refusal(source)


def test_a_missing_shard(refusal, tmp_path):
    source = tiny.write_qwen2vl(tmp_path / "shards", n_shards=3)
    (source / "model-00002-of-00003.safetensors").unlink()
    line = refusal(source)
    assert "model-00002-of-00003.safetensors: not there; the download is incomplete" in line


def test_an_index_without_a_weight_map(refusal, tmp_path):
    source = tiny.write_qwen2vl(tmp_path / "shards", n_shards=2)
    (source / "model.safetensors.index.json").write_text('{"metadata": {}}')
    assert "index.json: has no weight_map" in refusal(source)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_missing_file(refusal, source, name):
    (source / name).unlink()
    assert f"{name}: not there" in refusal(source)


def test_a_tokenizer_without_the_vision_tokens(refusal, source):
    file = source / "tokenizer.json"
    file.write_text(file.read_text().replace("<|image_pad|>", "<|picture|>"))
    assert "tokenizer.json has no token <|image_pad|>" in refusal(source)


def test_a_tokenizer_with_other_ids_than_the_config(refusal, source):
    edit(source / "config.json", video_token_id=8)
    assert "numbers <|video_pad|> 351, config.json says 8" in refusal(source)


def test_a_tokenizer_that_is_none(refusal, source):
    (source / "tokenizer.json").write_text("{}")
    assert "tokenizer.json is not a tokenizer" in refusal(source)


# --- tensors --------------------------------------------------------------------------------


def test_another_model(refusal, source):
    edit(source / "config.json", model_type="qwen2_5_vl")
    assert "model_type is 'qwen2_5_vl', wanted 'qwen2_vl'" in refusal(source)


def test_sizes_that_do_not_fit_the_tensors(refusal, source):
    edit(source / "config.json", intermediate_size=256)
    line = refusal(source)
    assert "mlp.gate_proj.weight has shape (128, 64), config.json wants (256, 64)" in line


def test_more_layers_than_there_are(refusal, source):
    edit(source / "config.json", num_hidden_layers=4)
    assert "tensor model.layers.3.input_layernorm.weight is missing (and 11 more)" in refusal(
        source
    )


def test_fewer_layers_than_there_are(refusal, source):
    edit(source / "config.json", num_hidden_layers=2)
    assert "is not part of this architecture (and 11 more)" in refusal(source)


def test_a_missing_tensor(refusal, source):
    rewrite(source, lambda tensors: tensors.pop("visual.blocks.1.attn.proj.bias"))
    assert "tensor visual.blocks.1.attn.proj.bias is missing" in refusal(source)


def test_a_missing_output_layer_of_a_model_that_answers(refusal, tmp_path):
    source = tiny.write_qwen2vl(tmp_path / "untied", tiny.UNTIED)
    rewrite(source, lambda tensors: tensors.pop("lm_head.weight"))
    assert "tensor lm_head.weight is missing" in refusal(source)


def test_an_unused_tensor(refusal, source):
    rewrite(source, lambda tensors: tensors.update(extra=np.ones(3, np.float32)))
    assert "tensor extra is not part of this architecture" in refusal(source)


def test_a_misshapen_tensor(refusal, source):
    rewrite(source, lambda t: t.update({"model.norm.weight": np.ones(65, np.float32)}))
    assert "model.norm.weight has shape (65,), config.json wants (64,)" in refusal(source)


def test_two_checkpoints_mixed(refusal, source):
    ones = np.ones(64, np.float32)
    rewrite(source, lambda t: t.update({"model.language_model.norm.weight": ones}))
    assert "the folder mixes two checkpoints" in refusal(source)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    "name", ["model.layers.2.mlp.up_proj.weight", "model.norm.weight", "model.embed_tokens.weight"]
)
@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_weights_that_are_no_numbers(refusal, source, name, bad, precision):
    def spoil(tensors):
        tensors[name].flat[5] = bad

    rewrite(source, spoil)
    line = refusal(source, "--precision", precision)
    assert f"model.safetensors: {name} holds NaN or infinity" in line


def test_weights_too_large_for_float16(refusal, source):
    rewrite(source, lambda t: t["model.layers.0.mlp.up_proj.weight"].fill(1e5))
    line = refusal(source, "--precision", "fp16")
    assert "model.layers.0.mlp.up_proj.weight holds 100000, more than float16 can" in line


# --- retrievers -----------------------------------------------------------------------------


def test_an_adapter_without_its_base(refusal, adapter):
    assert "is an adapter: give the checkpoint it belongs to with --base" in refusal(adapter)


def test_a_checkpoint_with_a_base(refusal, source, base):
    """The base was ignored."""
    line = refusal(base, "--base", source)
    assert "base is a checkpoint, --base is for adapters; did you mean --generator?" in line


def test_an_adapter_without_a_projection(refusal, adapter, source):
    """transformers would draw a random one without a word."""
    line = refusal(adapter, "--base", source)
    assert "has no custom_text_proj" in line and "--projection" in line


def test_a_projection_of_another_width(refusal, adapter, source, tmp_path):
    file = tmp_path / "projection.safetensors"
    shapes = {"custom_text_proj.weight": (128, 96), "custom_text_proj.bias": (128,)}
    save_file({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, file)
    line = refusal(adapter, "--base", source, "--projection", file)
    assert "custom_text_proj.weight has shape (128, 96), config.json wants (128, 64)" in line


def test_a_projection_that_does_not_show_if_the_adapter_is_in_it(
    refusal, adapter, source, tmp_path
):
    file = tmp_path / "projection.safetensors"
    shapes = {"custom_text_proj.weight": (128, 64), "custom_text_proj.bias": (128,)}
    save_file({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, file)
    line = refusal(adapter, "--base", source, "--projection", file)
    assert "does not show whether the adapter is already added" in line
    assert "give the whole checkpoint" in line


@pytest.mark.parametrize("finetuned", [False, True])
def test_an_adapter_of_other_weights_than_the_base_is_said(adapter, tmp_path, caplog, finetuned):
    """The hub has Qwen2-VL-2B and -Instruct: with the wrong one pages would be found badly."""
    base = tiny.write_qwen2vl(tmp_path / "base", dtype="bfloat16")
    merged = tiny.write_colqwen2(tmp_path / "merged", dtype="bfloat16")

    def finetune(tensors):
        for name in tensors:
            if ".layers." in name and tensors[name].ndim == 2:
                tensors[name] = (tensors[name].astype(np.float32) * 1.02).astype(np.float16)

    if finetuned:
        rewrite(base, finetune)
    build(Sources.find(adapter, base, projection=merged), tmp_path / "out")
    said = "the adapter seems to belong to other weights" in caplog.text
    assert said == finetuned
    assert not said or "differs by 2.0 %" in caplog.text or "differs by 1.9 %" in caplog.text


def test_a_projection_without_an_adapter(refusal, source, base):
    assert "a projection without its adapter" in refusal(source, "--projection", base)


A = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"
B = A.replace("lora_A", "lora_B")
ADAPTER = "adapter_model.safetensors"


def test_half_of_a_lora_pair(refusal, adapter, base):
    rewrite(adapter, lambda tensors: tensors.pop(B), ADAPTER)
    line = refusal(adapter, "--base", base)
    assert "LoRA on model.layers.1.mlp.up_proj lacks one of its two factors" in line


def test_a_missing_lora_pair(refusal, adapter, base):
    """It counted as no change of that map: a little worse, and nobody would know."""
    rewrite(adapter, lambda tensors: (tensors.pop(A), tensors.pop(B)), ADAPTER)
    line = refusal(adapter, "--base", base)
    assert "LoRA on model.layers.1.mlp.up_proj is missing, other layers have it" in line


def test_a_lora_with_no_place(refusal, adapter, base):
    def move(tensors):
        tensors[A.replace("layers.1", "layers.7")] = tensors.pop(A)
        tensors[B.replace("layers.1", "layers.7")] = tensors.pop(B)

    rewrite(adapter, move, ADAPTER)
    line = refusal(adapter, "--base", base)
    assert "LoRA on model.layers.7.mlp.up_proj has no place here" in line


def test_a_misshapen_lora(refusal, adapter, base):
    rewrite(adapter, lambda t: t.update({A: np.ones((4, 65), np.float32)}), ADAPTER)
    assert "LoRA on model.layers.1.mlp.up_proj has shapes (4, 65)" in refusal(
        adapter, "--base", base
    )


def test_a_tensor_in_the_adapter_that_is_no_lora(refusal, adapter, base):
    rewrite(adapter, lambda t: t.update(extra=np.ones(3, np.float32)), ADAPTER)
    assert "tensor extra is no LoRA factor" in refusal(adapter, "--base", base)


def test_an_empty_adapter(refusal, adapter, base):
    rewrite(adapter, lambda tensors: tensors.clear(), ADAPTER)
    assert "the adapter holds no LoRA factors" in refusal(adapter, "--base", base)


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_adapter_weights_gone_or_cut_short(refusal, adapter, base, damage):
    file = adapter / ADAPTER
    content = file.read_bytes()
    file.unlink() if damage == "gone" else file.write_bytes(content[: len(content) // 2])
    assert ADAPTER in refusal(adapter, "--base", base)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r": None}, "r is None"),
        ({"r": 0}, "r is 0"),
        ({"lora_alpha": "x"}, "lora_alpha 'x'"),
        ({"r": 8}, "wanted (8, 64)"),
        ({"use_dora": True}, "has use_dora, which is not supported"),
        ({"alpha_pattern": {"up_proj": 3}}, "has alpha_pattern, which is not supported"),
    ],
    ids=str,
)
def test_a_wrong_adapter_config(refusal, adapter, base, changes, message):
    edit(adapter / "adapter_config.json", **changes)
    assert message in refusal(adapter, "--base", base)


# --- a generator of its own -----------------------------------------------------------------


def test_a_generator_of_other_sizes(refusal, adapter, base, tmp_path):
    """Only vocabularies were compared: the folder was built, and could not be loaded."""
    wide = tiny.replace(tiny.TINY, intermediate=256)
    other = tiny.write_qwen2vl(tmp_path / "other", wide)
    line = refusal(adapter, "--base", base, "--generator", other)
    assert "differ in config.json" in line and "two folders" in line


def build_pair(checkpoints, generator, out) -> Path:
    sources = Sources.find(checkpoints / "adapter", checkpoints / "base", generator=generator)
    return build(sources, out, options("fp32"))


def test_a_generator_of_the_same_weights_shares_them(checkpoints, tmp_path):
    folder = build_pair(checkpoints, checkpoints / "qwen2vl", tmp_path / "shared")
    assert not [path for path in folder.iterdir() if path.name.startswith("generator-")]


def test_a_generator_with_an_output_layer_of_its_own_keeps_its_decoder(checkpoints, tmp_path):
    """Its layers are the same; the answer would have come out of the retriever's lm_head."""
    weights = tiny.tensors()
    weights["lm_head.weight"] = tiny.draw("lm_head.weight", (384, 64), tiny.TINY)
    config = tiny._flat_config(tiny.replace(tiny.TINY, tied=False), "float32")
    tiny._write(tmp_path / "untied", config, weights, "hub", "float32", 1)
    folder = build_pair(checkpoints, tmp_path / "untied", tmp_path / "pair")
    graphs = ModelInfo.load(folder).graphs
    assert (graphs.generator_vision, graphs.generator_decoder) == (None, "generator-decoder.onnx")
    alone = build(Sources.find(tmp_path / "untied"), tmp_path / "alone", options("fp32"))
    prompt = cases.PROMPTS["image"]
    found, wanted = (
        models.load(each, "cpu").generator.logits(prompt.pictures(), prompt.text)
        for each in (folder, alone)
    )
    np.testing.assert_array_equal(found, wanted)


# --- where it is written --------------------------------------------------------------------


def test_out_is_there_already(checkpoints, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    with pytest.raises(ModelBuildError, match="out: already exists"):
        build(Sources.find(checkpoints / "qwen2vl"), tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep me"
    (tmp_path / "file").write_text("keep me")
    with pytest.raises(ModelBuildError, match="file: already exists"):
        build(Sources.find(checkpoints / "qwen2vl"), tmp_path / "file")


def test_an_empty_folder_may_be_named_by_a_dot(checkpoints, tmp_path, monkeypatch):
    """`yomu models build SRC .` ended in a traceback: a dot has no name to write beside."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = build(Sources.find(checkpoints / "qwen2vl"), Path("."))
    assert folder == tmp_path / "here" and ModelInfo.load(folder).name == "qwen2vl"


def test_too_little_room_is_said_before_anything_is_written(refusal, source, monkeypatch):
    usage = shutil.disk_usage(source)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert "0.0 GB free, the model needs" in refusal(source)


@contextmanager
def files_limited_to(n_bytes):
    """Let no file grow beyond this: a write fails as it does on a full disk."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


FEW_LAYERS = tiny.replace(
    tiny.TINY, hidden=16, intermediate=16, n_layers=1, n_heads=1, n_kv_heads=1, vocab=3000,
    vision_depth=1, vision_dim=4, vision_heads=1,
)  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "precision", "limit", "file"),
    [
        (tiny.TINY, "int4", 100_000, "vision.onnx.data"),  # 183 kB, the decoder's 83
        (tiny.TINY, "fp32", 400_000, "decoder.onnx.data"),  # 540 kB, the tower's 350
        (FEW_LAYERS, "int4", 80_000, "embeddings.npy"),  # 96 kB, the graphs' 60
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_disk_that_fills_up_while_writing(refusal, tmp_path, sizes, precision, limit, file):
    """The embeddings were written through a memory map, where a full disk kills the process."""
    source = tiny.write_qwen2vl(tmp_path / "source", sizes)
    with files_limited_to(limit):
        assert "cannot be written" in refusal(source, "--precision", precision)
    folder = build(Sources.find(source), tmp_path / "out", options(precision))
    too_large = [path.name for path in folder.iterdir() if path.stat().st_size > limit]
    assert too_large == [file], "this one, and no other, did not fit"


KILLED = """
import os, signal, sys
from pathlib import Path
from models.build.builder import Sources, build

def progress(done, total, what):
    if done > total / 2:
        os.kill(os.getpid(), signal.SIGKILL)

build(Sources.find(Path(sys.argv[1])), Path(sys.argv[2]), None, progress)
"""


def test_a_kill_leaves_no_half_built_folder_and_the_next_build_cleans_up(checkpoints, tmp_path):
    source, out = checkpoints / "qwen2vl", tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", KILLED, source, out], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists() and sorted(os.listdir(tmp_path)) == [".out.lock", ".out.partial"]
    build(Sources.find(source), out)
    assert os.listdir(tmp_path) == ["out"]
    assert models.folder.verify(out) == []


def test_a_lock_that_cannot_be_removed_while_it_is_held_spoils_no_build(
    checkpoints, tmp_path, monkeypatch
):
    """On Windows a complete build ended with PermissionError."""
    real = Path.unlink

    def unlink(self, missing_ok=False):
        if self.name.endswith(".lock"):
            raise PermissionError(13, "used by another process", str(self))
        real(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    for name in ("one", "two"):
        assert (
            models.folder.verify(build(Sources.find(checkpoints / "qwen2vl"), tmp_path / name))
            == []
        )
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "one")
    build(Sources.find(checkpoints / "qwen2vl"), tmp_path / "one")  # the lock that was left is free


def test_two_builds_of_one_folder_do_not_share_what_is_half_built(checkpoints, tmp_path):
    """The second deleted the folder that the first was writing into."""
    sources, refused = Sources.find(checkpoints / "qwen2vl"), []

    def build_again(done, total, what):
        if not refused:
            with pytest.raises(ModelBuildError, match="another build is writing it"):
                build(sources, tmp_path / "out")
            refused.append(what)

    folder = build(sources, tmp_path / "out", progress=build_again)
    assert refused and models.folder.verify(folder) == []
    assert os.listdir(tmp_path) == ["out"]


def test_progress_goes_up_to_all_bytes(checkpoints, tmp_path):
    seen = []
    folder = build(
        Sources.find(checkpoints / "qwen2vl"),
        tmp_path / "out",
        progress=lambda done, total, what: seen.append((done, total, what)),
    )
    counts = [done for done, _, _ in seen]
    assert counts == sorted(counts) and counts[0] == 0
    total = seen[-1][1]
    assert seen[-1] == (total, total, "done") and len({each[1] for each in seen}) == 1
    stored = sum((folder / name).stat().st_size for name in ("vision.onnx.data", "embeddings.npy"))
    assert stored < total < stored + 4e5
