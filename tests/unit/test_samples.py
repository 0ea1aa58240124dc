"""The committed samples are what tests/samples/draw.py draws; the questions have those answers."""

import hashlib
import json
from pathlib import Path

import pymupdf
import pytest

from tests.samples import draw

SAMPLES, HERE = draw.SAMPLES_FOLDER, draw.HERE
MOST_BYTES = 300_000


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    draw.draw(folder)
    return folder


def pixels(path: Path) -> list[tuple[int, int, bytes]]:
    with pymupdf.open(path) as pdf:
        maps = [page.get_pixmap(dpi=72) for page in pdf]
        return [(each.width, each.height, each.samples) for each in maps]


def page_text(document: str, page: int) -> str:
    with pymupdf.open(SAMPLES / document) as pdf:
        return pdf[page - 1].get_text()


def questions() -> list[dict]:
    return [json.loads(line) for line in (HERE / "questions.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", draw.SAMPLES)
def test_the_script_draws_the_same_pixels(drawn, name):
    assert pixels(drawn / name) == pixels(SAMPLES / name)


def test_committed_files_have_the_committed_sums():
    sums = dict(
        reversed(line.split("  ")) for line in (HERE / "SHA256SUMS").read_text().splitlines()
    )
    # nothing else: it would be listed as left out by the first command of the README
    found = {path.name: path for path in SAMPLES.iterdir()}
    assert sums == {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()
    }
    assert set(found) == set(draw.SAMPLES)
    assert sum(path.stat().st_size for path in found.values()) < MOST_BYTES


def test_only_the_scan_has_no_text_layer():
    without = {name for name in draw.SAMPLES if not page_text(name, 1).strip()}
    assert without == {"invoice-scan.pdf"}


def test_tables_add_up():
    for table in (draw.SALES, draw.VISITORS):
        rows = [[int(cell.replace(",", "")) for cell in row[1:]] for row in table[1:]]
        assert [sum(column) for column in zip(*rows[:-1], strict=True)] == rows[-1]


@pytest.mark.parametrize("asked", questions(), ids=lambda each: each["id"])
def test_every_answer_stands_on_its_page(asked):
    assert set(asked) - {"needs_ocr"} == {"id", "question", "answer", "document", "page"}
    is_scan = asked["document"] == "invoice-scan.pdf"
    assert asked.get("needs_ocr", False) == is_scan
    text = "\n".join(draw.INVOICE) if is_scan else page_text(asked["document"], asked["page"])
    assert asked["answer"] in text.replace("\n", " ")
