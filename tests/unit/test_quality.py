"""The peer of retrieval reads as the product reads; pages are drawn as `ingest` draws them."""

import inspect

from benchmarks import quality, retrieval
from rag.ocr import OCR_DPI, OCR_MAX_PIXELS
from rag.settings import DEFAULT_DPI


def test_spaces_between_japanese_characters_are_not_held_against_tesseract(tmp_path):
    cached = tmp_path / "tesseract-300" / "report-1.txt"
    cached.parent.mkdir()
    cached.write_text("売 上 高 の 推移\n\nNet sales\n")
    text = quality.tesseract(tmp_path, ("report", 1), 300, tmp_path)
    assert text == "売上高の推移\nNet sales"
    queries = [quality.Query("q", "売上高", "ja", "table", (("report", 1),), "no")]
    pages = [("report", 2), ("report", 1)]
    assert quality.rank_by_text(pages, ["上と下", text], queries)["q"][0] == ("report", 1)


def test_tesseract_is_given_the_page_as_the_product_draws_it_for_ocr(tmp_path, monkeypatch):
    pdf = quality.pymupdf.open()
    pdf.new_page(width=36, height=72).insert_text((4, 20), "Hi")
    pdf.new_page(width=3600, height=1800).insert_text((4, 20), "Hi")  # too large
    pdf.save(tmp_path / "report.pdf")
    seen = []
    monkeypatch.setattr(quality, "read_by_tesseract", lambda image, *_: seen.append(image) or "Hi")
    for number in (1, 2):
        quality.tesseract(tmp_path, ("report", number), 300, tmp_path)
    assert seen[0].size == (150, 300)
    assert abs(seen[1].width * seen[1].height - OCR_MAX_PIXELS) < 10_000


def test_pages_are_drawn_as_ingest_and_ocr_draw_them():
    for command in (quality.retrieval, quality.answers, quality.reading, quality.speed):
        assert inspect.signature(command).parameters["dpi"].default == DEFAULT_DPI
    assert inspect.signature(quality.retrieval).parameters["tesseract_dpi"].default == OCR_DPI


def test_bm25_over_the_text_layer_is_measured_as_the_product_is(tmp_path):
    pdf = quality.pymupdf.open()
    for text in ("the boat", "the salt and the boat", "the wool"):
        pdf.new_page().insert_text((72, 72), text)
    pdf.save(tmp_path / "report.pdf")
    second = frozenset({("report.pdf", 2)})
    items = [
        retrieval.Item("salt", "salt", second, ("all",)),
        retrieval.Item("boat", "boat", second, ("all",)),  # the shorter page comes first
        retrieval.Item("none", "nowhere", frozenset({("other.pdf", 1)}), ("all",)),
    ]
    found = retrieval.measure_bm25(tmp_path, items)
    assert found["salt"] == (1, 1, 1)
    assert found["boat"][:2] == (0, 1) and 0 < found["boat"][2] < 1
    assert found["none"] == (0, 0, 0)
