"""kill -9 at random moments: nothing reported done is lost, nothing is half there."""

import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from index.page_index import PageIndex
from tests.e2e.index_worker import CORPUS, TUNING, ingest, n_pages, passed
from tests.unit.index_data import SETTINGS, document, page


def run_and_kill(folder, delay_s):
    """Start the worker, kill it after a while; returns what it had reported done, and if killed."""
    command = [sys.executable, "-m", "tests.e2e.index_worker", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout.readline() == "start\n"
        time.sleep(delay_s)
        worker.kill()
        lines = worker.stdout.read().splitlines()
    assert worker.returncode in (0, -signal.SIGKILL)
    # The last line may be cut by the kill: it was not yet reported then.
    done = [line.split("\t") for line in lines if line.count("\t") == 2 and line[-1].isdigit()]
    return [(name, int(seed), int(number)) for name, seed, number in done], worker.returncode != 0


def check_alive(folder, reported):
    """Open, verify clean, and find every page that was reported and not replaced since."""
    with PageIndex.open(folder, SETTINGS, writable=True, tuning=TUNING) as page_index:
        report = page_index.verify()
        assert report.clean, report.damage
        for name, seeds in CORPUS.items():
            shown = seeds[passed(page_index, name, seeds)]
            stored = page_index.begin_document(document(name, shown, n_pages(shown))).done
            wanted = {number for n, seed, number in reported if (n, seed) == (name, shown)}
            assert wanted <= stored, (name, shown)
            for number in sorted(wanted)[:1]:
                hits = page_index.search(9, vectors=page(shown, number).vectors, mode="visual")
                best = [(h.document, h.page) for h in hits if h.score > hits[0].score - 1e-4]
                assert (min(n for n, s in CORPUS.items() if shown in s), number) in best


def answers(folder):
    """Every search a person could do, by name and page (ids depend on the order of reading)."""
    found = []
    with PageIndex.open(folder, SETTINGS, tuning=TUNING) as reader:
        assert reader.verify().clean
        for seed in range(45):
            query = page(seed, 1).vectors
            for mode in ("visual", "text", "hybrid"):
                hits = reader.search(
                    200, vectors=query, text=f"content{seed} page2", mode=mode, exact=True
                )
                found.append(sorted((h.document, h.page, round(h.score, 4)) for h in hits))
        records = [(r.name, r.status, r.n_pages_stored, r.same_as) for r in reader.documents()]
        return found, records, reader.stats().pages, reader.failures()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    started = time.monotonic()
    ingest(folder, lambda *_: None)
    whole_s = time.monotonic() - started
    return answers(folder), whole_s


def kill_again_and_again(folder, uninterrupted, n_kills, seed):
    wanted, whole_s = uninterrupted
    generator = random.Random(seed)
    reported, kills = [], 0
    while kills < n_kills:
        # From before the first commit to about the end of what is left to do.
        done, killed = run_and_kill(folder, generator.uniform(0.0, whole_s))
        reported += done
        kills += killed
        check_alive(folder, reported)
        if not killed:
            break
    ingest(folder, lambda *_: None)
    assert answers(folder) == wanted
    return kills


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_ingest_goes_on_and_ends_like_a_whole_one(tmp_path, uninterrupted, seed):
    kills = 0
    while kills < 1:  # a worker may end before its kill
        kills += kill_again_and_again(tmp_path / str(seed), uninterrupted, 2, seed)
        seed += 2


@pytest.mark.slow
def test_fifty_kills(tmp_path, uninterrupted):
    kills, seed = 0, 100
    while kills < 50:  # a run may end before its five kills
        kills += kill_again_and_again(tmp_path / str(seed), uninterrupted, 5, seed)
        seed += 1


def test_unreported_leftovers_of_a_kill_are_swept(tmp_path):
    """A segment that was named but not recorded, as between rename and commit."""
    ingest(tmp_path, lambda *_: None)
    segments = tmp_path / "segments"
    for name in ("0123" * 6, ".tmp-4567"):
        (segments / name).mkdir()
        (segments / name / "vectors.bin").write_bytes(np.random.default_rng(0).bytes(99))
    (tmp_path / "codebook-99.faiss").write_bytes(b"half")
    with PageIndex.open(tmp_path, SETTINGS) as reader:
        assert reader.verify().clean
    with PageIndex.open(tmp_path, SETTINGS, writable=True, tuning=TUNING) as page_index:
        assert len(list(segments.iterdir())) == page_index.stats().segments
        assert not (tmp_path / "codebook-99.faiss").exists()
