"""Odd, broken, encrypted, huge and empty PDFs of other projects: each is right or listed.

Reads ../shared/documents/robustness where it exists; the files belong to others and are not here.
"""

import json
from pathlib import Path

import pytest

from rag.errors import DocumentError
from rag.reader import PageReader

SHARED = next(
    (
        parent / "shared" / "documents" / "robustness"
        for parent in Path(__file__).parents
        if (parent / "shared" / "documents" / "robustness").is_dir()
    ),
    None,
)
pytestmark = pytest.mark.skipif(SHARED is None, reason="../shared/documents is not here")
LISTED_ALTHOUGH_OPENED = {"render-error", "renders-blank"}
LISTED = {"zero-pages", "zero-bytes", "open-error", "password-needed"}


def manifest() -> list[dict]:
    return json.loads((SHARED / "manifest.json").read_text()) if SHARED else []


def sample() -> list[dict]:
    """The first file of every combination of tags."""
    seen = set()
    chosen = []
    for each in manifest():
        key = tuple(sorted(set(each["tags"]) - {"warnings", "repaired", "no-eof", "bad-header"}))
        if key not in seen:
            seen.add(key)
            chosen.append(each)
    return chosen


def read(reader: PageReader, entry: dict, most_pages: int) -> list[str]:
    """Read a file; returns what was listed: reasons of failures, and "blank" for blank pages."""
    listed = []
    path = SHARED / entry["file"]
    try:
        n_pages = reader.page_count(path)
    except DocumentError as error:
        return [str(error)]
    for number in range(1, min(n_pages, most_pages) + 1):
        try:
            page = reader.read(path, number, dpi=100, max_pixels=200_000, thumbnail=True)
            assert 0 < page.image.width * page.image.height <= 210_000
            listed += ["blank"] if page.blank else []
        except DocumentError as error:
            listed.append(str(error))
    return listed


def check(entry: dict, listed: list[str]) -> str:
    """Return what is wrong with how a file came out, "" when nothing is."""
    tags = set(entry["tags"])
    if tags & LISTED:
        return "" if listed and listed != ["blank"] else "not listed"
    if tags & LISTED_ALTHOUGH_OPENED:
        return "" if listed else "not listed"
    blank_ones = entry["pymupdf"]["blank_pages_in_first_6"] or 0
    if len(listed) > blank_ones:
        return f"listed: {listed}"
    return ""


def wrong(entries: list[dict], most_pages: int) -> dict[str, str]:
    known = {each["pymupdf"]["password"] for each in manifest()} - {None}
    found = {}
    with PageReader(sorted(known)) as reader:
        for entry in entries:
            if problem := check(entry, read(reader, entry, most_pages)):
                found[entry["file"]] = problem
    return found


def test_a_sample_is_right_or_listed():
    entries = sample()
    assert len(entries) > 40
    assert wrong(entries, most_pages=2) == {}


@pytest.mark.slow
def test_every_file_is_right_or_listed():
    assert len(manifest()) == 269
    assert wrong(manifest(), most_pages=6) == {}
