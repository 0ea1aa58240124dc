"""A process that ingests a small corpus and says what is done; the kill tests end it anywhere.

Usage: python -m tests.e2e.index_worker FOLDER
Writes "start", then a line "NAME NUMBER" for every page that a commit has made durable.
"""

import sys
from pathlib import Path

from index.page_index import PageIndex
from index.records import Tuning
from tests.unit.index_data import SETTINGS, document, page

# Merges, codebooks and candidates all happen within a hundred pages.
TUNING = Tuning(
    exact_pages=10,
    n_probe=8,
    n_candidates=40,
    train_pages=20,
    retrain_growth=2,
    merge_factor=3,
    merge_now_pages=60,
)
# name -> contents it has one after the other; two names share a content
CORPUS = {f"{number:02}.pdf": (number,) for number in range(24)} | {
    "changed.pdf": (40, 41, 42),
    "copy of 3.pdf": (3,),
}


def n_pages(seed):
    return 3 + seed % 5


def ingest(folder, say, stop_after=None):
    """Bring every document to its last content, going on where an earlier run stopped."""
    with PageIndex.open(folder, SETTINGS, writable=True, wait_s=60, tuning=TUNING) as page_index:
        for name, seeds in CORPUS.items():
            for seed in seeds[passed(page_index, name, seeds) :]:
                add(page_index, name, seed, say)
        page_index.maintain()


def passed(page_index, name, seeds):
    """How many contents of a document are behind us: those before the one shown or begun."""
    records = page_index.documents(name)
    digests = [document(name, seed).sha256 for seed in seeds]
    return digests.index(records[0].sha256) if records else 0


def add(page_index, name, seed, say):
    made = document(name, seed, n_pages(seed))
    resume = page_index.begin_document(made)
    waiting = []
    for number in range(1, made.n_pages + 1):
        if number not in resume.done:
            page_index.add_page(name, page(seed, number))
            waiting.append(number)
        if number % 2 == 0:
            page_index.commit()
            say(name, seed, waiting)
            waiting = []
    page_index.finish_document(name)
    page_index.commit()
    say(name, seed, waiting)


def report(name, seed, numbers):
    for number in numbers:
        print(f"{name}\t{seed}\t{number}", flush=True)


if __name__ == "__main__":
    print("start", flush=True)
    ingest(Path(sys.argv[1]), report)
