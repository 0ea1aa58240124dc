"""The pipeline as the page and `ask` use it: OCR, page images, heatmap scores, many queries."""

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pymupdf
import pytest

import rag.intake
from index.errors import IndexFull
from index.fusion import DEFAULT
from index.page_index import PageIndex
from index.records import DocumentInput, Filters
from rag.encoder import ModelEncoder
from rag.errors import UsageError
from rag.ingest import IngestReport, StopIngest
from rag.intake import IngestRequest
from rag.ocr_pass import OcrPass
from rag.pipeline import Pipeline, Query
from rag.settings import Settings
from tests import odd_files as odd


class Silent:
    """Nobody watches."""

    def update(self, **state) -> None:
        self.last = state


@pytest.fixture
def make(tmp_path, tiny_model):
    """Pipelines on one index, closed at the end."""
    made = []

    def pipeline(**settings) -> Pipeline:
        settings = {"ocr": "off", "model": str(tiny_model), "device": "cpu"} | settings
        made.append(Pipeline(Settings(index=tmp_path / "index", **settings)))
        return made[-1]

    yield pipeline
    for each in made:
        each.close()


def ingest(pipeline: Pipeline, *paths: Path) -> IngestReport:
    return pipeline.ingest(IngestRequest(paths), Silent())


def test_a_changed_file_that_is_being_read_is_not_quoted_for_the_old_one(make, tmp_path):
    path = odd.text_pdf(tmp_path / "a.pdf", ["walnut", "cedar"])
    pipeline = make(commit_seconds=0)
    ingest(pipeline, path)
    odd.text_pdf(path, ["an introduction", "walnut", "cedar"])

    class Stop(Silent):
        def update(self, **state) -> None:
            if state["pages"] == (1, 3) and state["what"]:
                raise StopIngest

    report = pipeline.ingest(IngestRequest((path,)), Stop())
    assert report.interrupted
    with PageIndex.open(pipeline.settings.index) as page_index:
        assert page_index.document("a.pdf").status == "partial"
        assert pipeline.images.rows(page_index, "a.pdf", 1) == ["walnut"]


def test_two_folders_that_are_read_at_once_keep_both_their_reports(make, tmp_path, monkeypatch):
    """The one that waits for the other chooses names again when its turn comes."""
    paths = []
    for name in "ab":
        (tmp_path / name).mkdir()
        paths.append(odd.text_pdf(tmp_path / name / "report.pdf", [name]))
    first, second = make(), make()
    ingest(first, odd.text_pdf(tmp_path / "other.pdf", ["other"]))
    has_discovered = threading.Event()
    discovering = rag.intake.discover

    def discover(*given):
        found = discovering(*given)
        has_discovered.set()
        return found

    with ThreadPoolExecutor(1) as pool:
        with PageIndex.open(first.settings.index, writable=True) as held:
            monkeypatch.setattr("rag.intake.discover", discover)
            waiting = pool.submit(second.ingest, IngestRequest((paths[1],), wait_s=60), Silent())
            assert has_discovered.wait(60)
            monkeypatch.undo()
            given = DocumentInput("report.pdf", "0" * 64, 1, str(paths[0]), 1, 1.0)
            held.begin_document(given)
            held.fail_page("report.pdf", 1, "not read here")
            held.finish_document("report.pdf")
            held.commit()
        assert waiting.result().documents["added"] == 1
    names = {each.name: each.source for each in first.house.documents()[0]}
    assert names["report.pdf"] == str(paths[0])
    assert str(paths[1]) in names.values()


@pytest.fixture
def tesseract(tmp_path, monkeypatch) -> Path:
    """A stand-in that reads the same words off every page, and counts its calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    calls = tmp_path / "calls"
    (folder / "tesseract").write_text(
        '#!/bin/sh\nif [ "$1" = --list-langs ]; then printf "List\\neng\\n"; exit; fi\n'
        f"cat > /dev/null; echo x >> {calls}\n"
        'printf "hieroglyphs on papyrus and the words that were read with it\\n"\n'
    )
    (folder / "tesseract").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return calls


def test_scans_are_read_once(make, corpus, tesseract):
    """Only the page without text is read, only once, and is found by what it says."""
    pipeline = make(ocr="auto", mode="text")
    report = ingest(pipeline, corpus)
    assert report.read_by_ocr == [("photo.png", 1)]
    assert report.unread_pages == 0
    (photo,), _ = pipeline.house.documents("photo.png")
    assert photo.language == "en"  # told from what was read
    (found,) = pipeline.search([Query("papyrus")])
    assert [(hit.document, hit.page) for hit in found.hits] == [("photo.png", 1)]
    assert ingest(make(ocr="auto"), corpus).read_by_ocr == []
    assert tesseract.read_text() == "x\n"


def test_a_copy_of_a_scan_is_read_under_the_name_at_hand(make, tmp_path, tesseract):
    """Only the copy is in this run; the pages go by the first of their names."""
    for name in ("a/a.png", "b/z.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(odd.png_bytes(odd.picture(200, 260)))
    ingest(make(ocr="off"), tmp_path / "a")
    report = ingest(make(ocr="eng"), tmp_path / "b")
    assert report.read_by_ocr == [("a.png", 1)]
    assert not report.failures
    (copy,), _ = make().house.documents("z.png")
    assert copy.language == "en"


def test_an_ingest_that_is_stopped_while_it_reads_by_ocr_still_reports(make, tmp_path, tesseract):
    class Stopping(Silent):
        def update(self, *, what, **_):
            if what.startswith("OCR"):
                raise StopIngest

    for n in range(2):
        (tmp_path / f"{n}.png").write_bytes(odd.png_bytes(odd.picture(200, 260 + n)))
    (tmp_path / "bad.pdf").write_bytes(b"no PDF")
    pipeline = make(ocr="eng", commit_seconds=0)
    report = pipeline.ingest(IngestRequest((tmp_path,)), Stopping())
    assert report.interrupted
    assert [each.document for each in report.failures] == ["bad.pdf"]


def test_pages_to_come_are_counted_before_their_turn(make, tmp_path):
    """Or the time that is left would be that of the documents begun so far."""
    for n in range(6):
        odd.text_pdf(tmp_path / f"{n}.pdf", [f"page {n} {m}" for m in range(8)])
    odd.text_pdf(tmp_path / "0.pdf", ["all that is new"])
    seen = []

    class Watching(Silent):
        def update(self, *, documents, pages, **_):
            seen.append((documents[0], pages))

    pipeline = make(commit_seconds=0)
    pipeline.ingest(IngestRequest((tmp_path,)), Watching())
    assert seen[-1] == (6, (41, 41))
    assert max(total for _, (_, total) in seen) == 41
    assert any(total == 41 for n_done, (_, total) in seen if n_done < 4)


def test_a_file_that_was_replaced_is_drawn_and_quoted_anew(make, tmp_path):
    """By a server that had it open: the page that was found, and not the one before."""
    file = tmp_path / "a.pdf"
    odd.text_pdf(file, ["old apples"])
    serving = make(mode="text")
    ingest(serving, file)
    before = serving.page_image("a.pdf", 1, dpi=72, max_pixels=10**6)
    odd.text_pdf(tmp_path / "new", ["new bananas"]).replace(file)
    ingest(make(mode="text"), file)
    (found,) = serving.search([Query("bananas")])
    assert [hit.document for hit in found.hits] == ["a.pdf"]
    drawn = serving.page_image("a.pdf", 1, dpi=72, max_pixels=10**6)
    assert drawn.tobytes() != before.tobytes()
    with PageIndex.open(tmp_path / "index") as page_index:
        assert serving.images.rows(page_index, "a.pdf", 1) == ["new bananas"]


def test_rows_of_a_read_page_are_its_text_layer_and_what_else_was_read(make, tmp_path, tesseract):
    """Figures stay with their labels, which OCR loses; nothing is said twice."""
    pdf = pymupdf.open()
    page = pdf.new_page()
    page.insert_image((50, 50, 550, 700), stream=odd.png_bytes(odd.picture(200, 260)))
    page.insert_text((74, 780), "Agree", fontsize=12)
    page.insert_text((78, 796), "51%", fontsize=12)
    pdf.save(tmp_path / "slide.pdf")
    by_ocr = ["hieroglyphs on papyrus and the words that were read with it"]
    for ocr, more in (("off", []), ("eng", by_ocr)):
        pipeline = make(ocr=ocr)
        ingest(pipeline, tmp_path / "slide.pdf")
        with PageIndex.open(tmp_path / "index") as page_index:
            assert pipeline.images.rows(page_index, "slide.pdf", 1) == ["Agree 51%", *more]


def test_pages_stored_without_ocr_are_read_later(make, corpus, tesseract):
    assert ingest(make(ocr="off"), corpus).unread_pages == 1
    report = ingest(make(ocr="eng"), corpus)
    assert report.documents["unchanged"] == 4
    assert report.read_by_ocr == [("photo.png", 1)]


def test_what_the_model_reads_off_a_scan_stands_until_ocr_replaces_it(
    make, corpus, tesseract, monkeypatch
):
    encode = ModelEncoder.page

    def read(self, image):
        return replace(encode(self, image), read="hieroglyfs on papyrvs")

    monkeypatch.setattr(ModelEncoder, "page", read)
    report = ingest(make(ocr="off"), corpus)
    assert (report.unread_pages, report.pages_read_by_model) == (0, 1)
    (found,) = make(mode="text").search([Query("hieroglyfs")])
    assert [(hit.document, hit.page) for hit in found.hits] == [("photo.png", 1)]
    report = ingest(make(ocr="eng"), corpus)
    assert report.read_by_ocr == [("photo.png", 1)]
    assert (report.unread_pages, report.pages_read_by_model) == (0, 0)
    with PageIndex.open(make().settings.index) as page_index:
        page = page_index.page("photo.png", 1)
    assert (page.text_class, "papyrvs" in page.text, "papyrus" in page.text) == ("ocr", False, True)


def test_a_moved_scan_is_read_under_its_new_name(make, corpus, tesseract):
    """Its pages are stored already, under the name that is gone."""
    ingest(make(ocr="off"), corpus)
    (corpus / "new").mkdir()
    (corpus / "photo.png").rename(corpus / "new" / "photo.png")
    report = ingest(make(ocr="eng"), corpus)
    assert len(report.read_by_ocr) == 1
    assert (report.moved, report.gone) == ({"photo.png": "new/photo.png"}, ())
    (moved,), _ = make().house.documents("*photo.png")
    assert (moved.name, moved.same_as) == ("new/photo.png", ())


def test_another_name_of_known_bytes_has_their_language(make, corpus):
    odd.text_pdf(corpus / "first.pdf", ["the orchard and the harbour are not for sale"] * 5)
    ingest(make(), corpus)
    for name in ("bad?.pdf", "bad1.pdf", "second.pdf"):  # new names, and one that had other bytes
        (corpus / name).write_bytes((corpus / "first.pdf").read_bytes())
    ingest(make(), corpus)
    languages = {each.name: each.language for each in make().house.documents("*.pdf")[0]}
    assert [languages[n] for n in ("first.pdf", "bad?.pdf", "bad1.pdf", "second.pdf")] == ["en"] * 4


def test_page_image_from_the_file_and_from_the_thumbnail(make, corpus):
    pipeline = make()
    ingest(pipeline, corpus)
    drawn = pipeline.page_image("first.pdf", 2, dpi=72, max_pixels=10**6)
    assert drawn.size == (595, 842)
    (corpus / "first.pdf").unlink()
    kept = pipeline.page_image("first.pdf", 2, dpi=72, max_pixels=10**6)
    assert kept.mode == "RGB"
    assert abs(kept.width / kept.height - 595 / 842) < 0.01
    small = drawn.convert("L").resize((60, 84))
    again = kept.convert("L").resize((60, 84))
    assert np.abs(np.asarray(small, int) - np.asarray(again, int)).mean() < 5


def test_patch_scores_lie_on_the_page(make, corpus):
    pipeline = make(mode="visual", top_k=1)
    ingest(pipeline, corpus)
    (found,) = pipeline.search([Query("orchard")])
    hit = found.hits[0]
    scores = pipeline.patch_scores(found.vectors, hit.document, hit.page).scores
    assert scores.shape[0] == len(found.vectors)
    assert np.nanmax(np.abs(scores)) <= 1.01
    # MaxSim counts the prompt's vectors, too: cells alone give at most as much
    assert np.nanmax(scores, axis=(1, 2)).sum() <= hit.score + 1e-3


def test_many_queries_answer_as_one_by_one(make, corpus):
    pipeline = make(top_k=7)
    ingest(pipeline, corpus)
    queries = [Query("cider"), Query("steel bridges over rivers"), Query("moss")]
    together = pipeline.search(queries)
    for query, result in zip(queries, together, strict=True):
        (alone,) = pipeline.search([query])
        assert [(hit.document, hit.page) for hit in alone.hits] == [
            (hit.document, hit.page) for hit in result.hits
        ]
        assert [hit.score for hit in alone.hits] == pytest.approx(
            [hit.score for hit in result.hits], abs=1e-4
        )


def test_a_pasted_text_is_looked_for_by_its_ends_and_its_heatmap_is_whole(
    make, corpus, monkeypatch
):
    monkeypatch.setattr("index.maxsim.MOST_COMPARED", 8)
    pipeline = make(mode="visual")
    ingest(pipeline, corpus)
    (found,) = pipeline.search([Query("which orchard has the most cider and moss of all these?")])
    assert len(found.vectors) > 8
    assert 0 < found.hits[0].visual <= 8
    with PageIndex.open(pipeline.settings.index) as page_index:
        ends = np.concatenate([found.vectors[:4], found.vectors[-4:]])
        own = page_index.search(5, vectors=ends, text="x", mode="visual")
    assert [hit.visual for hit in found.hits] == [hit.visual for hit in own]


def test_text_first_then_looks_on_one_pipeline(make, corpus, tmp_path):
    """The model is checked before vectors are compared, also when the index was open already."""
    ingest(make(), corpus)
    pipeline = make()
    pipeline.house.documents()
    assert pipeline.page_image("first.pdf", 1, dpi=72, max_pixels=10**5)
    (found,) = pipeline.search([Query("cider")], Filters(document="second*"))
    assert {hit.document for hit in found.hits} == {"second.pdf"}


def test_image_queries_need_a_readable_image(make, corpus, tmp_path):
    pipeline = make(mode="visual")
    ingest(pipeline, corpus)
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"bad\.png: is not a PDF or an image"):
        pipeline.search([Query(image=tmp_path / "bad.png")])
    (by_looks,) = pipeline.search([Query(image=corpus / "photo.png")])
    pipeline.encoder.fusion = replace(DEFAULT, sharpness=2.0)
    for words in ("", " ", "kettle"):  # which only the question of an image's vectors may have
        (found,) = pipeline.search([Query(words, image=corpus / "photo.png")])
        assert found.hits == by_looks.hits and found.hits[0].document == "photo.png"
    with pytest.raises(UsageError, match="--mode text cannot"):
        make(mode="text").search([Query(image=corpus / "photo.png")])


@pytest.mark.skipif(shutil.which("soffice") is None, reason="LibreOffice is not installed")
def test_office_file_through_libreoffice(make, tmp_path):
    folder = tmp_path / "office"
    folder.mkdir()
    (folder / "letter.rtf").write_text(r"{\rtf1\ansi Walnut exports to Kyoto}")
    pipeline = make(mode="text")
    assert ingest(pipeline, folder).documents["added"] == 1
    (found,) = pipeline.search([Query("walnut")])
    assert [(hit.document, hit.page) for hit in found.hits] == [("letter.rtf", 1)]


def test_office_file_without_libreoffice(make, corpus, monkeypatch):
    (corpus / "deck.pptx").write_bytes(b"PK")
    monkeypatch.setattr("rag.office.COMMANDS", ("no-such-office",))
    report = ingest(make(), corpus)
    assert [(each.document, each.page) for each in report.failures] == [("deck.pptx", None)]
    assert "install LibreOffice" in report.failures[0].reason
    assert report.documents["added"] == 4


def test_failing_page_keeps_the_others(make, tmp_path):
    path = tmp_path / "mixed.pdf"
    import pymupdf

    with (
        pymupdf.open(odd.text_pdf(tmp_path / "a.pdf", ["one", "two"])) as pdf,
        pymupdf.open(odd.broken_image_pdf(tmp_path / "b.pdf")) as broken,
    ):
        pdf.insert_pdf(broken, start_at=1)
        pdf.save(path)
    report = ingest(make(), path)
    assert report.pages == {"added": 2, "failed": 1}
    assert [(each.page, each.reason) for each in report.failures] == [
        (2, report.failures[0].reason)
    ]
    assert "renders blank" in report.failures[0].reason
    records, failures = make().house.documents()
    assert records[0].status == "damaged"
    assert failures[0].page == 2


@pytest.mark.parametrize("n_good", [0, 2])
def test_full_disk_keeps_what_was_committed(make, corpus, monkeypatch, n_good):
    """The run ends with the reason; nothing committed is lost, the next one goes on."""
    commit, left = PageIndex.commit, iter(range(n_good))

    def full(self):
        if self.n_uncommitted and next(left, None) is None:
            raise IndexFull("no space left on the disk; free some and run again")
        return commit(self)

    with monkeypatch.context() as patch:
        patch.setattr(PageIndex, "commit", full)
        if n_good:
            report = ingest(make(commit_seconds=0), corpus)
            assert "no space left" in report.interrupted
            assert report.pages["added"] == n_good
        else:
            with pytest.raises(IndexFull):
                ingest(make(commit_seconds=0), corpus)
    records, _ = make().house.documents()
    assert sum(each.n_pages_stored for each in records) == n_good
    assert ingest(make(), corpus).pages["added"] == 7 - n_good


def test_a_document_counts_as_added_once_its_pages_are_on_the_disk(make, corpus, monkeypatch):
    commit = PageIndex.commit

    def full(self):
        if self.n_uncommitted and self.stats().pages:
            raise IndexFull("no space left on the disk; free some and run again")
        return commit(self)

    with monkeypatch.context() as patch:
        patch.setattr(PageIndex, "commit", full)
        patch.setattr("rag.ingest.COMMIT_PAGES", 3)  # first.pdf and photo.png, then two more
        report = ingest(make(commit_seconds=999), corpus)
        assert (report.documents["added"], report.pages["added"]) == (1, 3)
    assert {each.status for each in make().house.documents()[0]} == {"complete", "partial"}
    report = ingest(make(), corpus)
    assert (report.documents["added"], report.documents["unchanged"]) == (3, 1)


def test_interrupted_ocr_keeps_what_was_read(make, corpus, tesseract, monkeypatch):
    odd.picture(210, 260, seed=1).save(corpus / "second.png")
    keep, n_kept = OcrPass._keep, iter(range(9))

    def interrupted(self, done, report):
        if next(n_kept) == 1:
            raise KeyboardInterrupt
        keep(self, done, report)

    with monkeypatch.context() as patch:
        patch.setattr(OcrPass, "_keep", interrupted)
        report = ingest(make(ocr="auto"), corpus)
    assert "goes on" in report.interrupted
    assert (len(report.read_by_ocr), report.unread_pages) == (1, 1)
    assert len(ingest(make(ocr="auto"), corpus).read_by_ocr) == 1
