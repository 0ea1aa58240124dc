"""`kill -9` at any moment: what was reported done is there, and the next run goes on from it."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from index.errors import IndexMissing
from index.page_index import PageIndex
from index.records import PageRecord
from tests import odd_files as odd

ROOT = Path(__file__).parents[2]
N_DOCUMENTS, N_PAGES = 4, 6
QUESTIONS = ("apples and cider", "steel bridges", "Which page is about pistons?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kill") / "corpus"
    folder.mkdir()
    words = "apples bridges comets dolphins engines forests glaciers harbours".split()
    for n in range(N_DOCUMENTS):
        pages = [f"{words[n]} and {words[k]}: page {k} of document {n}" for k in range(N_PAGES)]
        odd.text_pdf(folder / f"{n}.pdf", pages)
    odd.broken_image_pdf(folder / "broken.pdf")  # failures have to survive, too
    return folder


class Ingest:
    """An ingest as a process of its own, with what it reported as done."""

    def __init__(self, folder: Path, index: Path, model: Path) -> None:
        command = [sys.executable, "-u", "-m", "rag", "ingest", str(folder)]
        environment = {
            **os.environ, "YOMU_INDEX": str(index), "YOMU_MODEL": str(model), "YOMU_OCR": "off",
            "YOMU_DEVICE": "cpu", "YOMU_READERS": "1", "YOMU_COMMIT_SECONDS": "0",
        }  # fmt: skip
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def finish(self) -> int:
        self.process.communicate(timeout=300)
        return self.process.returncode

    def kill_after(self, seconds: float) -> int:
        """Kill it; return how many pages it had said were done."""
        time.sleep(seconds)
        os.kill(self.process.pid, signal.SIGKILL)
        _, said = self.process.communicate()
        return max((int(n) for n in re.findall(r"(\d+)/\d+ pages done", said)), default=0)


def stored(index: Path) -> dict[str, list[PageRecord]]:
    with PageIndex.open(index) as page_index:
        return {each.name: list(page_index.pages(each.name)) for each in page_index.documents()}


def answers(index: Path, model: Path) -> list:
    """Rankings and scores of every mode, exactly."""
    from rag.pipeline import Pipeline, Query
    from rag.settings import Settings

    found = []
    for mode in ("visual", "text", "hybrid"):
        settings = Settings(index=index, model=str(model), device="cpu", mode=mode, top_k=50)
        with Pipeline(settings) as pipeline:
            for result in pipeline.search([Query(question) for question in QUESTIONS]):
                found.append([(hit.document, hit.page, hit.score) for hit in result.hits])
    return found


def n_pages(index: Path) -> int:
    try:
        return sum(map(len, stored(index).values()))
    except IndexMissing:  # killed, or looked at, before there was one
        return 0


@pytest.fixture(scope="module")
def whole(folder, tiny_model, tmp_path_factory) -> Path:
    """The index of a run that nobody killed."""
    index = tmp_path_factory.mktemp("whole") / "index"
    assert Ingest(folder, index, tiny_model).finish() == 1  # broken.pdf is listed
    return index


def check_killed_and_resumed(folder, model, index, whole, rng):
    """Kill runs until one is let through; check what is there after each."""
    reported = 0
    for _ in range(rng.randint(1, 2)):
        before = n_pages(index)
        said = Ingest(folder, index, model).kill_after(rng.uniform(1.5, 9.0))
        now = n_pages(index)
        assert now >= before + said >= reported
        reported = now
        if now:
            with PageIndex.open(index) as page_index:
                assert page_index.verify().clean
    assert Ingest(folder, index, model).finish() == 1
    with PageIndex.open(index) as page_index:
        assert page_index.verify().clean
        assert [each.document for each in page_index.failures()] == ["broken.pdf"]
    assert n_pages(index) == N_DOCUMENTS * N_PAGES
    texts = {name: [page.text for page in pages] for name, pages in stored(index).items()}
    assert texts == {name: [page.text for page in pages] for name, pages in stored(whole).items()}
    assert_same(answers(index, model), answers(whole, model))


def assert_same(found: list, wanted: list) -> None:
    """The same pages with the same scores; ties rank by age, which differs after a restart.

    Vectors are equal to the bit. Sums of their products are not: BLAS adds in another order when
    the same pages lie in segments of other sizes.
    """
    for one, other in zip(found, wanted, strict=True):
        expected = {(name, page): score for name, page, score in other}
        assert {(name, page): score for name, page, score in one} == pytest.approx(
            expected, abs=1e-5
        )


@pytest.mark.parametrize("seed", range(2))
def test_killed_ingest_goes_on(folder, tiny_model, tmp_path, whole, seed):
    rng = random.Random(seed)
    check_killed_and_resumed(folder, tiny_model, tmp_path / "index", whole, rng)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 150))
def test_killed_ingest_goes_on_fifty_times(folder, tiny_model, tmp_path, whole, seed):
    rng = random.Random(seed)
    check_killed_and_resumed(folder, tiny_model, tmp_path / "index", whole, rng)


def test_killed_readers_end_with_their_parent(folder, tiny_model, tmp_path):
    ingest = Ingest(folder, tmp_path / "index", tiny_model)
    for _ in range(200):
        time.sleep(0.1)
        if workers := children(ingest.process.pid):
            break
    assert workers
    ingest.kill_after(0)
    for _ in range(200):
        if not any(Path(f"/proc/{pid}").exists() for pid in workers):
            break
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def children(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children")
    found = []
    for task in Path(f"/proc/{parent}/task").glob("*/children") if listed.exists() else []:
        found += [int(pid) for pid in task.read_text().split()]
    return found


def test_search_during_an_ingest_and_a_second_ingest(folder, tiny_model, tmp_path, whole):
    index = tmp_path / "index"
    first = Ingest(folder, index, tiny_model)
    while n_pages(index) == 0 and first.process.poll() is None:
        time.sleep(0.1)
    second = Ingest(folder, index, tiny_model)
    _, said = second.process.communicate(timeout=300)
    if first.process.poll() is None:
        answers(index, tiny_model)
    assert first.finish() == 1
    # the second was told that the first is writing, or came after it had finished
    assert second.process.returncode in (1, 2)
    if second.process.returncode == 2:
        assert len(said.strip().splitlines()) == 1
        assert "another process" in said or "writing" in said
    assert_same(answers(index, tiny_model), answers(whole, tiny_model))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_json_line_is_whole_after_interrupt(folder, tiny_model, tmp_path, number):
    """Ctrl-C reaches the whole group; the summary still comes out, and its pages are there."""
    index = tmp_path / "index"
    command = [sys.executable, "-m", "rag", "ingest", str(folder), "--json"]
    environment = {
        **os.environ, "YOMU_INDEX": str(index), "YOMU_MODEL": str(tiny_model), "YOMU_OCR": "off",
        "YOMU_DEVICE": "cpu", "YOMU_COMMIT_SECONDS": "0",
    }  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    for line in process.stderr:
        if "pages done" in line:
            break
    send = os.killpg if number == signal.SIGINT else os.kill
    send(process.pid, number)
    out, said = process.communicate(timeout=120)
    assert process.returncode == 1, out + said
    report = json.loads(out)
    assert report["pages"]["added"] == n_pages(index)
