"""Fixtures shared by all tests: tiny random checkpoints and the folders built from them."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import models
from models.build.builder import BuildOptions, Precisions, build
from models.build.inputs import Sources
from models.engine import Engine
from tests.parity import tiny

# Render workers start anew in many tests: importing MuPDF takes them 0.7 s with bytecode kept on
# disk and 3.4 s without.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> Path:
    """`qwen2vl`, `base` (colqwen2-base: a projection, no LoRA) and `adapter`; not to be changed."""
    folder = tmp_path_factory.mktemp("checkpoints")
    tiny.write_qwen2vl(folder / "qwen2vl")
    tiny.write_colqwen2(folder / "base", with_lora=False)
    tiny.write_adapter(folder / "adapter")
    return folder


@pytest.fixture(scope="session")
def model_folder(checkpoints, tmp_path_factory) -> Callable[..., Path]:
    """Build ColQwen2 (both roles) at a precision for a target, once."""
    folder = tmp_path_factory.mktemp("models")

    @cache
    def make(precision: str, target: str) -> Path:
        options = BuildOptions(Precisions(precision, precision, precision), target)
        sources = Sources.find(checkpoints / "adapter", base=checkpoints / "base")
        return build(sources, folder / f"{precision}-{target}", options)

    return lambda precision="fp32", target="cpu": make(precision, target)


@pytest.fixture
def engine(model_folder) -> Engine:
    """A float32 engine that has answered nothing yet."""
    return models.load(model_folder(), device="cpu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the page's tests last: Playwright's event loop keeps later ones from running theirs."""
    items.sort(key=lambda item: "e2e/page" in item.path.as_posix())
