"""A tiny random model folder and a small corpus, made once for all end-to-end tests."""

from pathlib import Path

import pytest

from models.build.builder import BuildOptions, Precisions, build
from models.build.inputs import Sources
from tests import odd_files as odd
from tests.parity import tiny

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
