"""Pulling models with the real huggingface_hub client from a small hub on loopback."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
from huggingface_hub.utils import close_session

import models
from models import hub as hub_module
from models.build.builder import BuildOptions, Precisions
from models.errors import ModelBuildError, ModelDownloadError
from models.folder import ModelInfo, verify
from models.hub import pull
from rag.cli import main
from tests.e2e import hub_server
from tests.e2e.hub_server import COMMIT, Hub, serve
from tests.parity import cases, tiny

ROOT = Path(__file__).parents[2]
FP32 = BuildOptions(precisions=Precisions("fp32", "fp32", "fp32"))
BASE, ADAPTER, MERGED = (
    "Qwen/Qwen2-VL-2B-Instruct",
    "vidore/colqwen2-v1.0",
    "vidore/colqwen2-v1.0-merged",
)


@pytest.fixture(scope="module")
def repositories(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    tiny.write_qwen2vl(root / BASE, n_shards=2)
    (root / BASE / "README.md").write_text("not wanted" * 1000)
    tiny.write_adapter(root / ADAPTER)
    tiny.write_colqwen2(root / MERGED)
    return root


@pytest.fixture
def hub(repositories, tmp_path, monkeypatch) -> Hub:
    monkeypatch.setenv("YOMU_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve(repositories) as server:
        point_at(monkeypatch, server.url)
        yield server
    close_session()


def point_at(monkeypatch, url: str) -> None:
    """What HF_ENDPOINT does when the client is imported."""
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    close_session()


@pytest.fixture
def small_chunks(monkeypatch):
    """The client writes 10 MB at a time; the tiny files are smaller."""
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)


def test_colqwen2_is_pulled_from_three_repositories_and_answers_as_the_reference(hub):
    folder = pull("colqwen2-v1.0", options=FP32)
    assert verify(folder) == []
    info = ModelInfo.load(folder)
    assert info.roles == ("retriever", "generator")
    assert {role: each["revision"] for role, each in info.sources.items()} == {
        "base": COMMIT,
        "adapter": COMMIT,
        "projection": COMMIT,
    }
    engine = models.load("colqwen2-v1.0", device="cpu")
    pages = [cases.picture(*size, seed=n) for n, size in enumerate(cases.PAGES)]
    recorded = cases.load("colqwen2")
    for n, vectors in enumerate(engine.retriever.encode_pages(pages)):
        np.testing.assert_allclose(vectors, recorded[f"page {n}"], rtol=0, atol=1e-5)
    prompt = cases.PROMPTS["image"]
    found = engine.generator.logits(prompt.pictures(), prompt.text)
    wanted = cases.load("decoder")["last logits image"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_of_the_merged_checkpoint_only_three_tensors_are_read(hub, repositories, caplog):
    with caplog.at_level("WARNING"):
        pull("colqwen2-v1.0", options=FP32)
    assert "belong to other weights" not in caplog.text
    whole = (repositories / MERGED / "model.safetensors").stat().st_size
    ranges = hub.of("model.safetensors")
    assert all(request.ranged for request in ranges)
    header = 8 + int.from_bytes(
        (repositories / MERGED / "model.safetensors").read_bytes()[:8], "little"
    )
    n_values = 128 * 64 + 128 + 32 * 64  # the projection and its bias, one layer's k_proj
    assert sum(request.n_sent for request in ranges) == header + 4 * n_values < whole / 8
    assert hub.of("README.md") == []


def test_a_second_pull_and_another_precision_work_offline(hub, monkeypatch, caplog):
    first = pull("colqwen2-v1.0", options=FP32)
    n_requests = len(hub.requests)
    point_at(monkeypatch, f"http://127.0.0.1:{free_port()}")
    assert pull("colqwen2-v1.0", options=FP32) == first
    assert "is there already" in caplog.text
    other = pull("colqwen2-v1.0", out=first.with_name("other"))
    assert set(ModelInfo.load(other).precision.values()) == {"int8"}
    plain = pull("qwen2-vl-2b-instruct", options=FP32)  # the same base, no second download
    assert ModelInfo.load(plain).roles == ("generator",)
    assert len(hub.requests) == n_requests


def test_a_build_for_a_gpu_is_another_folder_than_that_for_a_cpu(hub, tmp_path, capsys):
    """The CPU build was handed back for it."""
    names = [
        pulled(capsys, "qwen2-vl-2b", *options)
        for options in ((), ("--target", "gpu"), ("--target", "gpu", "--precision", "int4"))
    ]
    assert names == ["qwen2-vl-2b", "qwen2-vl-2b-gpu", "qwen2-vl-2b-gpu-int4"]
    infos = [ModelInfo.load(tmp_path / "models" / name) for name in names]
    assert [info.target for info in infos] == ["cpu", "gpu", "gpu"]
    assert [info.precision["decoder"] for info in infos] == ["int8", "fp16", "int4"]


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("colqwen2-v1.0", "yomu ingest FOLDER --index .yomu-colqwen2-v1.0 --model colqwen2-v1.0"),
        ("qwen2-vl-2b", "yomu look --input page.png --prompt QUESTION --model qwen2-vl-2b"),
    ],
)
def test_a_pull_ends_with_the_next_command(hub, capsys, name, command):
    with pytest.raises(SystemExit):
        main(["models", "pull", name])
    assert capsys.readouterr().out.endswith(f"Next: {command}\n")


@pytest.mark.parametrize("asked", [("--target", "gpu"), ("--precision", "int4")], ids=" ".join)
def test_a_folder_that_holds_another_build_is_not_handed_back(hub, tmp_path, capsys, asked):
    out = str(tmp_path / "out")
    assert pulled(capsys, "qwen2-vl-2b", "--out", out) == "out"
    with pytest.raises(SystemExit) as ended:
        main(["models", "pull", "qwen2-vl-2b", "--out", out, *asked])
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    assert "out is there already, built for a CPU at vision int8, decoder int8" in said.err
    assert "choose another folder with --out" in said.err


def pulled(capsys, *arguments) -> str:
    """Pull; return the name of the folder."""
    with pytest.raises(SystemExit) as ended:
        main(["models", "pull", *arguments, "--json"])
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    return Path(json.loads(said.out)["folder"]).name


@pytest.mark.parametrize(
    "torn", ["", '{"repos', "[]", '{"commit": "5"}', '{"commit": 5, "bytes": 1}']
)
def test_a_torn_marker_is_a_download_that_did_not_finish(hub, tmp_path, torn):
    """Every later pull ended in a traceback."""
    pull("qwen2-vl-2b", tmp_path / "one", FP32)
    (marker,) = (tmp_path / "models").rglob("download.json")
    marker.write_text(torn)
    n_requests = len(hub.requests)
    assert verify(pull("qwen2-vl-2b", tmp_path / "two", FP32)) == []
    assert json.loads(marker.read_text())["commit"] == COMMIT
    assert len(hub.requests) == n_requests, "the files are there and whole"
    assert not [path for path in marker.parent.iterdir() if path.name.endswith(".new")]


def test_a_connection_that_breaks_goes_on_where_it_broke(hub, small_chunks, repositories):
    file = "model-00001-of-00002.safetensors"
    hub.cut_after[file] = 200_000
    folder = pull("qwen2-vl-2b", options=FP32)
    first, second = hub.of(file)
    kept = 200_000 // (1 << 16) * (1 << 16)
    assert (first.start, first.n_sent) == (0, 200_000)
    assert (second.start, second.ranged) == (kept, True)
    size = (repositories / BASE / file).stat().st_size
    assert second.n_sent == size - kept
    assert verify(folder) == []


def test_a_pull_that_was_killed_goes_on_in_the_next_process(tmp_path, monkeypatch, capsys):
    """huggingface_hub alone would begin the file again."""
    root, home = tmp_path / "hub", tmp_path / "models"
    large = replace(tiny.TINY, vocab=100_000)  # 26 MB: the client writes 10 MB at a time
    tiny.write_qwen2vl(root / BASE, large)
    size = (root / BASE / "model.safetensors").stat().st_size
    monkeypatch.setenv("YOMU_MODELS", str(home))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    command = ["models", "pull", "qwen2-vl-2b", "--json"]
    with serve(root) as server:
        server.hang_after["model.safetensors"] = 12_000_000
        killed = subprocess.Popen(
            [sys.executable, "-c", "from rag.cli import main; main()", *command],
            env=os.environ | {"HF_ENDPOINT": server.url},
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: largest(home.rglob("*.part")) >= 10_000_000)
        killed.send_signal(signal.SIGKILL)
        assert killed.wait(10) == -signal.SIGKILL
        assert not (home / "qwen2-vl-2b").exists()
        point_at(monkeypatch, server.url)
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 0
        first, second = server.of("model.safetensors")
    assert (first.start, first.n_sent) == (0, 12_000_000)
    kept = 10 * 1024 * 1024
    assert (second.start, second.n_sent) == (kept, size - kept)
    assert len(server.of("config.json")) == 1
    assert json.loads(capsys.readouterr().out)["name"] == "qwen2-vl-2b"
    assert verify(home / "qwen2-vl-2b") == []
    assert list(home.rglob("*.part")) == []


def largest(files) -> int:
    return max((file.stat().st_size for file in files if file.exists()), default=0)


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def free_port() -> int:
    """A port on which nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_without_a_network_one_line_says_what_to_do(hub, monkeypatch, capsys):
    url = f"http://127.0.0.1:{free_port()}"
    point_at(monkeypatch, url)
    with pytest.raises(SystemExit) as ended:
        main(["models", "pull", "colqwen2-v1.0"])
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert f"{url} cannot be reached" in said[0]
    command = (
        "yomu models build colqwen2-v1.0 OUT --base Qwen2-VL-2B-Instruct "
        "--projection colqwen2-v1.0-merged"
    )
    assert f"`{command}`" in said[0]
    for repository in (BASE, ADAPTER, MERGED):
        assert repository in said[0]


def test_the_offline_switch_of_the_client_is_honoured(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    close_session()
    with pytest.raises(ModelDownloadError, match="HF_HUB_OFFLINE forbids it.*yomu models build"):
        pull("qwen2-vl-2b")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9"),  # needs a package
        ("ALL_PROXY", "foo:bar:baz"),
        ("HF_ENDPOINT", "http://127.0.0.1:port"),
    ],
)
def test_an_address_that_cannot_be_used_is_said_in_a_line(hub, monkeypatch, variable, value):
    """It ended in a traceback."""
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv(variable, value)
    point_at(monkeypatch, value if variable == "HF_ENDPOINT" else hub.url)
    with pytest.raises(ModelDownloadError, match="cannot be used .*check HF_ENDPOINT, HTTPS_PROXY"):
        pull("qwen2-vl-2b")
    assert hub.requests == []


def test_a_page_that_is_not_the_hubs_is_said_in_a_line(hub, monkeypatch):
    """What a hotel's network answers before one has logged in."""
    monkeypatch.setattr(hub_server._Handler, "_json", lambda self, _, __: self._page())
    with pytest.raises(ModelDownloadError, match="cannot be used .*check HF_ENDPOINT"):
        pull("qwen2-vl-2b")


def test_a_projection_in_another_file_is_not_taken_for_a_broken_connection(
    hub, repositories, monkeypatch, tmp_path
):
    root = tmp_path / "hub"
    shutil.copytree(repositories, root)
    (root / MERGED / "model.safetensors").rename(root / MERGED / "model-00001-of-1.safetensors")
    monkeypatch.setattr(hub, "root", root)
    with pytest.raises(ModelDownloadError, match=rf"{MERGED}: .*model.safetensors"):
        pull("colqwen2-v1.0", options=FP32)


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_refusing_hub_is_named_with_its_answer(hub, status):
    hub.refuse[ADAPTER] = status
    with pytest.raises(ModelDownloadError, match=rf"refuses {ADAPTER} \(HTTP {status}\)"):
        pull("colqwen2-v1.0", options=FP32)


def test_a_file_that_is_there_and_wrong_is_replaced(hub, tmp_path, monkeypatch):
    """On Windows the download ended with FileExistsError."""
    pull("qwen2-vl-2b", tmp_path / "one", FP32)
    (config,) = (tmp_path / "models").rglob("config.json")
    config.write_text("{}")
    real = Path.rename

    def rename(self, target):
        if Path(target).exists():
            raise FileExistsError(17, "already exists", str(target))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    assert verify(pull("qwen2-vl-2b", tmp_path / "two", FP32)) == []
    assert len(hub.of("config.json")) == 2


def test_a_file_damaged_on_its_way_is_thrown_away(hub, tmp_path):
    file = "model-00002-of-00002.safetensors"
    hub.spoil.add(file)
    with pytest.raises(ModelDownloadError, match=f"{file} was damaged"):
        pull("qwen2-vl-2b", options=FP32)
    assert not list((tmp_path / "models").rglob("*.part"))
    assert verify(pull("qwen2-vl-2b", options=FP32)) == []
    assert [request.start for request in hub.of(file)] == [0, 0]
    assert len(hub.of("model-00001-of-00002.safetensors")) == 1


def test_a_full_disk_is_said_before_the_download(hub, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(hub_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ModelDownloadError, match="GB free, the download and the model"):
        pull("qwen2-vl-2b", options=FP32)
    assert hub.requests == []


@pytest.mark.parametrize(("precision", "fits"), [("int8", True), ("fp32", False)])
def test_the_model_made_of_the_download_needs_room_as_well(
    hub, repositories, monkeypatch, precision, fits
):
    whole = sum(path.stat().st_size for path in (repositories / BASE).iterdir())
    usage = type("Usage", (), {"free": 2 * whole})
    monkeypatch.setattr(hub_module.shutil, "disk_usage", lambda path: usage)
    options = BuildOptions(precisions=Precisions(precision, precision, precision))
    if fits:
        assert verify(pull("qwen2-vl-2b", options=options)) == []
    else:
        with pytest.raises(ModelDownloadError, match="the model made of it need"):
            pull("qwen2-vl-2b", options=options)
        assert hub.requests == []


def test_a_folder_that_is_taken_is_said_before_the_download(hub, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    with pytest.raises(ModelBuildError, match="out: already exists"):
        pull("qwen2-vl-2b", out=tmp_path / "out", options=FP32)
    assert hub.requests == []


def test_an_unknown_name_lists_the_known_ones(hub):
    with pytest.raises(ModelDownloadError, match="no model 'gpt'.*colqwen2-v1.0, qwen2-vl-2b"):
        pull("gpt")
