"""What becomes of odd PDFs: one table by kind of oddity, times and memory; no file content.

    uv run python -m benchmarks.robustness ../shared/documents/robustness

FOLDER holds PDFs and manifest.json (file, tags, known passwords). Every page of every file goes
through the render worker as in an ingest; nothing is encoded.
"""

import argparse
import json
import re
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from rag.errors import DocumentError
from rag.reader import PageReader

MAX_PIXELS = 768 * 784
DPI = 144
IGNORED = {"warnings", "repaired", "no-eof", "bad-header"}


@dataclass
class Outcome:
    """How one file came out."""

    pages: int = 0
    failed_pages: int = 0
    blank_pages: int = 0
    reason: str = ""
    slowest_s: float = 0.0
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_stored(self) -> bool:
        """Say whether an ingest would hold at least one page of it."""
        return self.pages > self.failed_pages + self.blank_pages


def read(reader: PageReader, path: Path) -> Outcome:
    """Read every page of a file."""
    outcome = Outcome()
    try:
        outcome.pages = reader.page_count(path)
    except DocumentError as error:
        outcome.reason = str(error)
        return outcome
    for number in range(1, outcome.pages + 1):
        started = time.perf_counter()
        try:
            page = reader.read(path, number, dpi=DPI, max_pixels=MAX_PIXELS, thumbnail=True)
            outcome.blank_pages += page.blank
            outcome.notes += page.notes
        except DocumentError as error:
            outcome.failed_pages += 1
            outcome.reasons.append(str(error))
        outcome.slowest_s = max(outcome.slowest_s, time.perf_counter() - started)
    return outcome


def peak_megabytes(reader: PageReader) -> float:
    """Return the most memory the worker has held (Linux)."""
    assert reader._process is not None
    status = Path(f"/proc/{reader._process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1000 if found else 0.0


def kind(reason: str) -> str:
    """Return a reason without its details."""
    return re.sub(r"\d+ passwords opens", "the passwords opens", reason.split(":")[0])


def main() -> None:
    """Read a folder and print the tables of docs/robustness.md and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    manifest = json.loads((folder / "manifest.json").read_text())
    passwords = sorted({each["pymupdf"]["password"] for each in manifest} - {None})
    outcomes: dict[str, Outcome] = {}
    started = time.perf_counter()
    with PageReader(passwords) as reader:
        for entry in manifest:
            outcomes[entry["file"]] = read(reader, folder / entry["file"])
        seconds, megabytes, n_started = (
            time.perf_counter() - started, peak_megabytes(reader), reader.n_started
        )  # fmt: skip
    _print_tags(manifest, outcomes)
    _print_counts("reasons of files", [o.reason for o in outcomes.values() if o.reason])
    _print_counts("reasons of pages", [r for o in outcomes.values() for r in o.reasons])
    _print_counts("remarks", [n for o in outcomes.values() for n in o.notes])
    slowest = max(outcome.slowest_s for outcome in outcomes.values())
    print(
        json.dumps(
            {
                "files": len(outcomes),
                "stored": sum(o.is_stored for o in outcomes.values()),
                "pages": sum(o.pages for o in outcomes.values()),
                "seconds": round(seconds, 1),
                "slowest_page_s": round(slowest, 2),
                "peak_MB": round(megabytes),
                "workers_started": n_started,
            }
        )
    )


def _print_tags(manifest: list[dict], outcomes: dict[str, Outcome]) -> None:
    rows = defaultdict(lambda: [0] * 5)
    for entry in manifest:
        outcome = outcomes[entry["file"]]
        for tag in {*entry["tags"], "all"} - IGNORED:
            row = rows[tag]
            row[0] += 1
            row[1] += outcome.is_stored
            row[2] += not outcome.is_stored
            row[3] += outcome.pages - outcome.failed_pages
            row[4] += outcome.failed_pages
    print("| tag | files | stored | listed as failed | pages read | pages listed |")
    print("|---|---|---|---|---|---|")
    for tag, row in sorted(rows.items(), key=lambda item: -item[1][0]):
        print(f"| {tag} | " + " | ".join(map(str, row)) + " |")


def _print_counts(title: str, texts: list[str]) -> None:
    print(f"\n{title}:")
    for text, count in Counter(kind(each) for each in texts).most_common(30):
        print(f"  {count:4} {text}")


if __name__ == "__main__":
    main()
