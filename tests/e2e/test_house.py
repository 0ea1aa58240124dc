"""`yomu verify --mend` as people run it: what is read again, how, and what is kept."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from index.page_index import PageIndex
from rag.house import runs_of
from rag.ingest import PageRange
from tests import odd_files as odd
from tests.e2e.conftest import TOPICS
from tests.e2e.test_ingest import yomu  # noqa: F401 - a fixture
from tests.e2e.test_pipeline import tesseract  # noqa: F401 - a fixture


@pytest.fixture
def report(tmp_path):
    """A document of four pages."""
    (tmp_path / "in").mkdir()
    return odd.text_pdf(tmp_path / "in" / "report.pdf", list(TOPICS[:4]))


def damage(yomu, *rows):  # noqa: F811
    """Flip a byte of the vectors of pages, by their place in the index."""
    yomu.json("compact")  # a slow machine commits a few pages at a time
    (segment,) = (yomu.index / "segments").iterdir()
    offsets = np.load(segment / "offsets.npy")
    path = segment / "vectors.bin"
    data = bytearray(path.read_bytes())
    for row in rows:
        data[int(offsets[row]) * len(data) // int(offsets[-1])] ^= 0xFF
    path.write_bytes(data)


def found(yomu):  # noqa: F811
    hits = yomu.json("search", "apples bridges comets dolphins", "--mode", "text", "-k", "9")
    return {hit["page"] for hit in hits["hits"]}


def test_what_is_whole_stays_where_the_file_has_moved(yomu, report, tmp_path):  # noqa: F811
    yomu.json("ingest", report)
    moved = report.rename(tmp_path / "moved.pdf")
    damage(yomu, 2)
    mended = yomu.run("verify", "--mend", code=1).out
    assert "read again: 0 pages" in mended
    assert "its file is gone: report.pdf (its other pages stay)" in mended
    assert yomu.listed() == [{"name": "report.pdf", "pages": 3, "status": "damaged"}]
    assert found(yomu) == {1, 2, 4}
    assert "report.pdf, page 3: what was stored of it was damaged" in yomu.run("list").out
    assert yomu.json("verify")["clean"]
    moved.rename(report)
    assert yomu.json("ingest", report)["pages"] == {"added": 1, "failed": 0}
    assert yomu.listed()[0]["status"] == "complete"
    assert found(yomu) == {1, 2, 3, 4}


def test_only_the_damaged_page_is_read_again(yomu, report):  # noqa: F811
    yomu.json("ingest", report)
    damage(yomu, 1)
    mended = yomu.json("verify", "--mend")["mended"]
    assert (mended["pages"]["added"], mended["documents"]["updated"]) == (1, 1)
    assert found(yomu) == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("arguments", "done"),
    [
        (("ingest", "in/other.pdf"), ["other.pdf", "report.pdf"]),
        (("remove", "report.pdf"), []),
        (("verify", "--mend"), ["report.pdf"]),
        (("compact",), ["report.pdf"]),
    ],
)
def test_who_writes_waits_for_another_only_if_told_to(
    yomu,  # noqa: F811
    report,
    tmp_path,
    monkeypatch,
    arguments,
    done,
):
    monkeypatch.chdir(tmp_path)
    odd.text_pdf(tmp_path / "in" / "other.pdf", ["more"])
    yomu.json("ingest", report)
    damage(yomu, 1)
    with ThreadPoolExecutor(1) as elsewhere:  # a lock knows who holds it by its thread
        other = elsewhere.submit(PageIndex.open, yomu.index, writable=True).result()
    try:
        assert "(--wait)" in yomu.run(*arguments, code=2).err
        threading.Timer(0.5, other.close).start()
        yomu.run(*arguments, "--wait")
    finally:
        other.close()
    assert sorted(yomu.pages()) == done


def test_pages_that_were_left_out_stay_out(yomu, report, tmp_path):  # noqa: F811
    other = odd.text_pdf(tmp_path / "in" / "other.pdf", list(TOPICS[:4]) + ["more"])
    yomu.json("ingest", report, "--pages", "2-3")
    yomu.json("ingest", other, "--pages", "1")
    damage(yomu, 0, 1, 2)
    assert yomu.json("verify", "--mend")["mended"]["pages"]["added"] == 3
    assert [each["pages"] for each in yomu.listed()] == [1, 2]
    assert [each["status"] for each in yomu.listed()] == ["partial", "partial"]


def test_an_encrypted_document_is_mended_with_its_password(yomu, tmp_path):  # noqa: F811
    (tmp_path / "passwords").write_text("other\nsecret\n")
    for given, code in (
        ([], 1),
        (["--password", "wrong"], 1),
        (["--password", "secret"], 0),
        (["--password-file", tmp_path / "passwords"], 0),
    ):
        path = odd.encrypted_pdf(tmp_path / "locked.pdf", "secret")
        yomu.json("ingest", path, "--password", "secret")
        assert yomu.listed()[0]["status"] == "complete"
        damage(yomu, 0)
        text = yomu.run("verify", "--mend", *given, code=code).out
        assert ("could not be read again: locked.pdf: " in text) == (code == 1)
        assert "password" in text or code == 0
        assert yomu.listed()[0]["pages"] == 1 - code


@pytest.mark.parametrize("ocr", ["off", "auto"])
def test_pages_are_read_by_ocr_only_where_they_were(yomu, tmp_path, tesseract, monkeypatch, ocr):  # noqa: F811
    odd.picture(200, 260).save(tmp_path / "photo.png")
    monkeypatch.setenv("YOMU_OCR", "auto")
    yomu.json("ingest", tmp_path / "photo.png", "--ocr", ocr)
    damage(yomu, 0)
    mended = yomu.json("verify", "--mend")["mended"]
    n_read = int(ocr == "auto")
    assert len(mended["ocr"]) == n_read
    assert len(yomu.json("search", "papyrus", "--mode", "text")["hits"]) == n_read


def test_page_numbers_are_written_as_few_ranges():
    assert runs_of([]) == ()
    assert runs_of({7, 1, 3, 2}) == (PageRange(1, 3), PageRange(7, 7))
