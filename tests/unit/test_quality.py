"""The peer of retrieval reads as the product reads, pages are drawn as `ingest` draws them, and
answers are counted in what is quoted."""

import inspect
import json
from contextlib import nullcontext
from types import SimpleNamespace

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


def test_pages_that_are_quoted_are_counted_by_the_first_and_by_any(tmp_path, monkeypatch, capsys):
    quoted = {
        "first": ["1,420 in total", "of 2023"],
        "second": ["Visitors", "to 1,420 rooms"],
        "none": ["Visitors 12"],
        "silent": [""],  # of which is said that it has no such words
        "not found": [],
    }

    class Stream(list):
        """An answer of some quotations."""

        def __init__(self, texts) -> None:
            super().__init__(["no text that speaks of 1,420"])
            self.texts = texts

        def result(self) -> SimpleNamespace:
            """Return it whole."""
            quotations = [(None, text) for text in self.texts]
            return SimpleNamespace(quotations=quotations, abstained=self.texts == [])

    asking = SimpleNamespace(ask=lambda question, options: Stream(quoted[question.text]))
    monkeypatch.setattr(quality, "Pipeline", lambda settings: nullcontext(asking))
    about = {"doc": "report", "page": 1, "also_pages": [], "kind": "table", "lang": "en"}
    asked = [
        {"qid": text, "question": text, "answer": "1420", "answer_alternatives": [], **about}
        for text in quoted
    ]
    (tmp_path / "manifest.json").write_text('[{"doc": "report", "has_text_layer": "yes"}]')
    (tmp_path / "qa.jsonl").write_text("\n".join(map(json.dumps, asked)))
    quality.asked(tmp_path, tmp_path / "index")
    *_, line, last = capsys.readouterr().out.splitlines()
    assert line == "of 5 questions, on the first page quoted 0.200, on any 0.400"
    found = json.loads(last)
    assert (found["all"][0], found["first_page"], found["any_page"]) == (0.4, 0.2, 0.4)

    others = tmp_path / "others.jsonl"
    others.write_text(json.dumps(asked[0]))
    quality.asked(tmp_path, tmp_path / "index", questions=others)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["first_page"] == 1

    quoted["first"] = ()  # a model that writes quotes nothing
    quality.asked(tmp_path, tmp_path / "index", questions=others)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["all"][0] == 1 and "first_page" not in found
