"""`kill -9` at any moment: what was reported done is there, and the next run goes on from it."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from index.errors import IndexMissing
from index.page_index import PageIndex
from index.records import PageRecord
from tests import odd_files as odd

ROOT = Path(__file__).parents[2]
N_DOCUMENTS, N_PAGES = 4, 6
ALL_PAGES = N_DOCUMENTS * N_PAGES
# told of every page, not once a second: kills are to land between the first page and the last
EVERY_PAGE = "import rag.cli_ingest as c; c.PLAIN_SECONDS = 0; from rag.cli import main; main()"
PAGES_DONE = re.compile(r"([1-9]\d*)/\d+ pages done")
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

    def __init__(self, folder: Path, index: Path, model: Path, *arguments: str) -> None:
        command = [sys.executable, "-u", "-c", EVERY_PAGE, "ingest", str(folder), *arguments]
        environment = {
            **os.environ, "YOMU_INDEX": str(index), "YOMU_MODEL": str(model), "YOMU_OCR": "off",
            "YOMU_DEVICE": "cpu", "YOMU_READERS": "1", "YOMU_COMMIT_SECONDS": "0",
        }  # fmt: skip
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
            # a shell's background ignores it, and whatever is started there would, too
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def finish(self) -> int:
        self.process.communicate(timeout=300)
        return self.process.returncode

    def wait_for_pages(self, n: int) -> int:
        """Wait until it says that so many pages are done; return how many are."""
        for line in self.process.stderr:
            if (found := PAGES_DONE.search(line)) and int(found[1]) >= n:
                return int(found[1])
        raise AssertionError(f"it ended with exit code {self.process.wait()} before page {n}")

    def kill(self, *, after_pages: int = 0, seconds: float = 0.0) -> int:
        """Kill it so long after so many pages; return how many it had said were done."""
        done = self.wait_for_pages(after_pages) if after_pages else 0
        time.sleep(seconds)
        os.kill(self.process.pid, signal.SIGKILL)
        _, said = self.process.communicate()
        return max([done, *(int(n) for n in PAGES_DONE.findall(said))])


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
        said = Ingest(folder, index, model).kill(
            after_pages=rng.randint(1, 6), seconds=rng.uniform(0.0, 0.1)
        )
        now = n_pages(index)
        assert now >= before + said > reported
        assert now < ALL_PAGES, "it was killed after the end"
        reported = now
        with PageIndex.open(index) as page_index:
            assert page_index.verify().clean
    assert Ingest(folder, index, model).finish() == 1
    with PageIndex.open(index) as page_index:
        assert page_index.verify().clean
        assert [each.document for each in page_index.failures()] == ["broken.pdf"]
    assert n_pages(index) == ALL_PAGES
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
    ingest.kill()
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
    first.wait_for_pages(3)
    os.kill(first.process.pid, signal.SIGSTOP)  # wherever it is, for as long as we look
    try:
        n_done = n_pages(index)
        assert 3 <= n_done < ALL_PAGES
        found = answers(index, tiny_model)
        second = Ingest(folder, index, tiny_model)
        _, said = second.process.communicate(timeout=300)
    finally:
        os.kill(first.process.pid, signal.SIGCONT)
    assert second.process.returncode == 2
    assert len(said.strip().splitlines()) == 1
    assert "another process" in said or "writing" in said
    wanted = answers(whole, tiny_model)
    for part, all_of_it in list(zip(found, wanted, strict=True))[: len(QUESTIONS)]:  # visual
        assert len(part) == n_done
        expected = {(name, page): score for name, page, score in all_of_it}
        for name, page, score in part:
            assert score == pytest.approx(expected[name, page], abs=1e-5)
    assert [(hit[0], hit[1]) for hit in found[len(QUESTIONS)]][:1] == [("0.pdf", 1)]  # by text
    assert first.finish() == 1
    assert_same(answers(index, tiny_model), wanted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_json_line_is_whole_after_interrupt(folder, tiny_model, tmp_path, number):
    """Ctrl-C reaches the whole group; the summary still comes out, and its pages are there."""
    index = tmp_path / "index"
    ingest = Ingest(folder, index, tiny_model, "--json")
    ingest.wait_for_pages(2)
    send = os.killpg if number == signal.SIGINT else os.kill
    send(ingest.process.pid, number)
    out, said = ingest.process.communicate(timeout=120)
    assert ingest.process.returncode == 1, out + said
    report = json.loads(out)
    assert report["interrupted"].startswith("interrupted; the same command goes on")
    assert 2 <= report["pages"]["added"] < ALL_PAGES
    assert report["pages"]["added"] == n_pages(index)
