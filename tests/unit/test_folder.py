"""model.json, checksums, and where a model of some name is."""

import json
import shutil
from pathlib import Path

import pytest

from models.build.builder import build
from models.build.inputs import Sources
from models.errors import ModelFilesError
from models.folder import EMBEDDED, ModelInfo, find_folder, models_home, record, verify
from tests.parity import tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(model_folder, tmp_path):
    """A model folder that may be damaged."""
    return shutil.copytree(model_folder(), tmp_path / "model")


@pytest.mark.parametrize("name", ["models/embedded", "training/reader"])
def test_the_weights_of_the_repository_are_as_they_were_built(name):
    assert verify(ROOT / name) == []


def edit(folder, **changes):
    path = folder / "model.json"
    content = json.loads(path.read_text())
    for name, value in changes.items():
        content[name] = value
    path.write_text(json.dumps({name: each for name, each in content.items() if each != "drop"}))


def test_model_json_says_what_the_folder_is(folder):
    info = ModelInfo.load(folder)
    assert info.roles == ("retriever", "generator")
    assert info.precision == {"vision": "fp32", "decoder": "fp32", "lm_head": "fp32"}
    assert info.sources["adapter"]["folder"] == "adapter"
    assert set(info.sha256) == {path.name for path in folder.iterdir()} - {"model.json"}
    assert ModelInfo(**vars(info)).as_json() == info.as_json()


def test_every_file_is_checked(folder):
    assert verify(folder) == []
    (folder / "vision.onnx").unlink()
    with (folder / "embeddings.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    assert sorted(verify(folder)) == [
        "embeddings.npy: damaged (its sha256 differs from model.json)",
        "vision.onnx: missing",
    ]


def test_a_file_that_nobody_lists_is_a_fault_until_it_is_recorded(folder):
    """What says how a model is asked and fused could be changed, or come from elsewhere."""
    digest = ModelInfo.load(folder).digest
    (folder / "fusion.json").write_text("{}")
    (folder / "MODEL_CARD.md").write_text("for people")
    assert verify(folder) == ["fusion.json: not listed in model.json"]
    record(folder)
    assert verify(folder) == []
    assert ModelInfo.load(folder).digest == digest
    (folder / "fusion.json").write_text("[]")
    assert verify(folder) == ["fusion.json: damaged (its sha256 differs from model.json)"]


def test_recording_changes_nothing_that_is_as_it_was_built(folder):
    built = (folder / "model.json").read_text()
    record(folder)
    assert (folder / "model.json").read_text() == built
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_list_of_no_checksums_is_a_fault(folder):
    edit(folder, sha256={})
    assert verify(folder) == ["model.json: lists no checksums; build the folder again"]


def test_the_digest_names_the_content(folder):
    info = ModelInfo.load(folder)
    edit(folder, name="another name")
    assert ModelInfo.load(folder).digest == info.digest
    for name in info.sha256:
        edit(folder, sha256={**info.sha256, name: "0" * 64})
        shapes = name not in ("generation_config.json", "tokenizer_config.json")
        assert (ModelInfo.load(folder).digest != info.digest) == shapes, name


def test_a_generator_of_its_own_leaves_the_index_usable(checkpoints, tmp_path):
    """The digest was over every file: to answer as well, all pages had to be read again."""
    merged = tiny.write_colqwen2(tmp_path / "merged")
    alone = build(Sources.find(merged), tmp_path / "alone")
    other = tiny.write_qwen2vl(tmp_path / "other", tiny.replace(tiny.TINY, seed=5))
    both = build(Sources.find(merged, generator=other), tmp_path / "both")
    one, two = ModelInfo.load(alone), ModelInfo.load(both)
    assert {"generator-vision.onnx", "generator-embeddings.npy"} <= set(two.sha256)
    assert one.digest == two.digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2, this version reads 1"),
        ({"format": "drop"}, "format None"),
        ({"roles": "drop"}, "lacks roles"),
        ({"roles": "retriever"}, "roles is 'retriever'"),
        ({"precision": None}, "precision is None"),
        ({"sha256": []}, r"sha256 is \[\]"),
        ({"max_visual_tokens": "many"}, "max_visual_tokens is 'many'"),
        ({"overview_tokens": 0.5}, "overview_tokens is 0.5"),
        ({"overview_tokens": -4}, "overview_tokens is -4"),
        ({"band_rows": True}, "band_rows is True"),
        ({"shifted_views": 1}, "shifted_views is 1"),
        ({"graphs": {"eye": "vision.onnx"}}, "graphs: .*'eye'"),
    ],
    ids=str,
)
def test_a_wrong_model_json_is_refused_in_one_line(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(ModelFilesError, match=message) as caught:
        ModelInfo.load(folder)
    assert "build the folder again" in str(caught.value)


def test_a_folder_from_before_views_has_one(folder):
    digest = ModelInfo.load(folder).digest
    edit(folder, overview_tokens="drop", band_rows="drop", shifted_views="drop")
    info = ModelInfo.load(folder)
    assert (info.band_rows, info.overview_tokens, info.shifted_views) == (0, 0, False)
    assert info.digest == digest


def test_vectors_of_other_views_are_those_of_another_model(folder):
    digests = {ModelInfo.load(folder).digest}
    for bands, tokens in ((8, 0), (8, 4), (0, 4)):
        edit(folder, band_rows=bands, overview_tokens=tokens)
        digests.add(ModelInfo.load(folder).digest)
    edit(folder, shifted_views=True)
    digests.add(ModelInfo.load(folder).digest)
    assert len(digests) == 5


def test_vectors_without_blank_blocks_are_those_of_another_model(folder):
    """They went into one index with those of whole pages."""
    digest = ModelInfo.load(folder).digest
    edit(folder, skip_blank_blocks=True)
    assert ModelInfo.load(folder).digest != digest


def test_a_folder_without_model_json(tmp_path):
    with pytest.raises(ModelFilesError, match="no model folder .*`yomu models build"):
        ModelInfo.load(tmp_path)


def test_names_and_folders(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("YOMU_MODELS", str(tmp_path))
    assert models_home() == tmp_path
    assert find_folder("embedded") == EMBEDDED
    assert find_folder(folder) == folder
    assert find_folder("model") == folder, "pulled by that name"
    with pytest.raises(ModelFilesError, match="no model 'gone': .*yomu models pull"):
        find_folder("gone")
    monkeypatch.delenv("YOMU_MODELS")
    assert models_home().parts[-2:] == (".yomu", "models")


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch, tmp_path):
    """A container with `--user 1234` ended in a traceback."""

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("YOMU_MODELS", raising=False)
    assert find_folder("embedded") == EMBEDDED
    with pytest.raises(ModelFilesError, match="set YOMU_MODELS"):
        find_folder("colqwen2-v1.0")
    monkeypatch.setenv("YOMU_MODELS", str(tmp_path))
    (tmp_path / "colqwen2-v1.0").mkdir()
    assert find_folder("colqwen2-v1.0") == tmp_path / "colqwen2-v1.0"
