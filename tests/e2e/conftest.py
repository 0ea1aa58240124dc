"""A tiny random model folder and a small corpus, made once for all end-to-end tests."""

import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from models.build.builder import BuildOptions, Precisions, build
from models.build.inputs import Sources
from rag.intake import IngestRequest
from rag.pipeline import Pipeline
from rag.settings import Settings
from tests import odd_files as odd
from tests.parity import tiny

ROOT = Path(__file__).parent.parent.parent
SAMPLES = ROOT / "samples"
SAMPLE_QUESTIONS = ROOT / "tests" / "samples" / "questions.jsonl"
TOPICS = (
    "apples orchard harvest cider", "bridges steel arches rivers", "comets telescopes orbits ice",
    "dolphins ocean sonar pods", "engines pistons fuel torque", "forests cedar moss rangers",
)  # fmt: skip


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """ColQwen2 with random weights, 64 wide: quick, and really run by onnxruntime."""
    folder = tmp_path_factory.mktemp("model")
    source = tiny.write_colqwen2(folder / "source")
    options = BuildOptions(precisions=Precisions("fp32", "fp32", "fp32"), max_visual_tokens=64)
    return build(Sources.find(source), folder / "tiny", options)


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Three PDFs of two pages, one of them below a folder with a Unicode name, and an image."""
    folder = tmp_path / "corpus"
    (folder / "報告").mkdir(parents=True)
    for n, name in enumerate(("first.pdf", "second.pdf", "報告/third.pdf")):
        pages = [f"{TOPICS[2 * n + k]} page {k + 1} of {name}" for k in range(2)]
        odd.text_pdf(folder / name, pages)
    odd.picture(200, 260).save(folder / "photo.png")
    (folder / "notes.txt").write_text("not a document")
    return folder


@pytest.fixture(scope="session")
def both_roles(checkpoints, tmp_path_factory) -> Path:
    """Random weights, retriever and generator, pages of at most 64 tokens."""
    options = BuildOptions(Precisions("fp32", "fp32", "fp32"), max_visual_tokens=64)
    sources = Sources.find(checkpoints / "adapter", base=checkpoints / "base")
    return build(sources, tmp_path_factory.mktemp("both") / "model", options)


class Silent:
    """Nobody watches."""

    def update(self, **state) -> None:
        self.last = state


@pytest.fixture(scope="session")
def samples_index(both_roles, tmp_path_factory) -> Path:
    """An index of samples/; copied before it is used."""
    folder = tmp_path_factory.mktemp("asked") / "index"
    settings = Settings(index=folder, model=str(both_roles), ocr="off", device="cpu")
    with Pipeline(settings) as pipeline:
        report = pipeline.ingest(IngestRequest((SAMPLES,)), Silent())
    assert (report.documents["added"], report.pages["added"]) == (5, 7)
    return folder


@dataclass
class Served:
    """A running `yomu serve`."""

    url: str
    index: Path
    process: subprocess.Popen
    log: Path


def start_server(index: Path, model: Path, folder: Path, *arguments: str) -> Served:
    """Run `yomu serve` on a free port and wait until it and its model are there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "server.log"
    command = ["serve", "--index", index, "--model", model, "--ocr", "off", "--device", "cpu"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "rag", *map(str, command), "--port", str(port), *arguments],
            cwd=ROOT, stdout=output, stderr=output, env=os.environ | {"YOMU_READERS": "1"},
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            state = httpx.get(f"{url}/api/status", timeout=30)
            if state.status_code == 401 or state.json()["state"] == "ready":
                return Served(url, index, process, log)
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"the server did not start: {log.read_text()}")


def stop_server(served: Served) -> None:
    """End it as a person does, with Ctrl-C's signal."""
    served.process.terminate()
    try:
        assert served.process.wait(30) == 0
    except subprocess.TimeoutExpired:
        served.process.kill()
        served.process.wait()


@pytest.fixture(scope="session")
def served(samples_index, both_roles, tmp_path_factory):
    """One server for all tests: `url`, and its `index` of samples/ on random weights."""
    from tests.e2e.test_ask import answer_from

    folder = tmp_path_factory.mktemp("served")
    model = Path(shutil.copytree(both_roles, folder / "model"))
    answer_from(model, 0.0)  # the text decides, and any page counts as an answer
    index = Path(shutil.copytree(samples_index, folder / "index"))
    server = start_server(index, model, folder)
    yield server
    stop_server(server)
