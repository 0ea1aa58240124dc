"""`yomu ingest` and `yomu search` as people run them: exit codes, JSON, one clear line."""

import io
import json
import os
import shutil
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from index.page_index import PageIndex
from rag.cli import main
from rag.errors import DocumentError
from rag.page_images import PageImages
from rag.reader import PageReader
from rag.sources import file_sha256
from tests import odd_files as odd
from tests.e2e.conftest import TOPICS


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        (line,) = self.out.splitlines()
        return json.loads(line)


class Yomu:
    """The command line on one index, in this process (tests/e2e/test_kill.py starts real ones)."""

    def __init__(self, index: Path) -> None:
        self.index = index

    def run(self, *arguments, code=0) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as exit_:
            main([str(each) for each in arguments])
        done = Done(int(exit_.value.code or 0), out.getvalue(), err.getvalue())
        assert done.code == code, done.out + done.err
        return done

    def json(self, *arguments, code=0):
        return self.run(*arguments, "--json", code=code).json

    def pages(self) -> dict[str, int]:
        return {each["name"]: each["pages"] for each in self.listed()}

    def listed(self):
        return [
            {"name": each["document"], "pages": each["n_pages_stored"], "status": each["status"]}
            for each in self.json("list")["documents"]
        ]


@pytest.fixture
def yomu(tmp_path, tiny_model, monkeypatch) -> Yomu:
    index = tmp_path / "index"
    for name, value in {
        "INDEX": index, "MODEL": tiny_model, "OCR": "off", "DEVICE": "cpu", "READERS": 1,
    }.items():  # fmt: skip
        monkeypatch.setenv(f"YOMU_{name}", str(value))
    return Yomu(index)


def counts(report, **expected):
    zero = {"added": 0, "updated": 0, "unchanged": 0, "removed": 0, "failed": 0}
    assert report["documents"] == zero | expected


def test_a_plan_refuses_what_the_run_would(yomu, corpus):
    yomu.json("ingest", corpus / "first.pdf")
    done = yomu.run("ingest", corpus, "--dpi", "100", "--dry-run", code=2)
    assert "--dpi 144" in done.err
    plan = yomu.json("ingest", corpus / "second.pdf", "--pages", "90-99", "--dry-run", code=1)
    assert "none of them in" in plan["failures"][0]["reason"]


def test_a_part_that_is_there_already_is_no_update(yomu, corpus):
    counts(yomu.json("ingest", corpus / "first.pdf", "--pages", "1"), added=1)
    counts(yomu.json("ingest", corpus / "first.pdf", "--pages", "1"), unchanged=1)
    counts(yomu.json("ingest", corpus / "first.pdf"), updated=1)


def test_ingest_search_and_again(yomu, corpus):
    first = yomu.json("ingest", corpus)
    counts(first, added=4)
    assert first["pages"] == {"added": 7, "failed": 0}
    assert first["failures"] == []
    assert first["skipped"] == {".txt": 1}
    assert first["index"] == str(yomu.index)
    assert first["seconds"] > 0

    found = yomu.json("search", "telescopes and comets", "--mode", "text")
    assert [(hit["document"], hit["page"]) for hit in found["hits"]] == [("second.pdf", 1)]
    assert found.keys() == {"id", "query", "mode", "hits", "seconds", "answered", "notes"}
    for mode in ("hybrid", "visual"):
        assert len(yomu.json("search", "telescopes", "--mode", mode, "-k", "3")["hits"]) == 3

    again = yomu.json("ingest", corpus)
    counts(again, unchanged=4)
    assert again["pages"]["added"] == 0
    assert yomu.pages() == {"first.pdf": 2, "photo.png": 1, "second.pdf": 2, "報告/third.pdf": 2}
    assert {each["status"] for each in yomu.listed()} == {"complete"}
    assert yomu.json("verify")["clean"]
    stats = yomu.json("stats")
    assert (stats["documents"], stats["pages"]) == (4, 7)
    assert {"total", "per_page"} <= stats["bytes"].keys()


def test_unchanged_folder_never_opens_the_model(yomu, corpus, monkeypatch):
    yomu.json("ingest", corpus)
    from models.engine import Engine

    monkeypatch.setattr(Engine, "retriever", property(lambda self: pytest.fail("model opened")))
    counts(yomu.json("ingest", corpus), unchanged=4)


def test_change_rename_touch_and_prune(yomu, corpus):
    yomu.json("ingest", corpus)
    odd.text_pdf(corpus / "first.pdf", ["walnut carpentry", "cedar shelves", "oak tables"])
    os.rename(corpus / "second.pdf", corpus / "renamed.pdf")
    os.utime(corpus / "photo.png", (0, 0))
    report = yomu.json("ingest", corpus)
    # renamed.pdf is a new name for stored bytes: no page is read for it, and the old name goes
    counts(report, added=1, updated=1, unchanged=2, removed=1)
    assert report["pages"]["added"] == 3
    assert report["moved"] == {"second.pdf": "renamed.pdf"}
    assert "second.pdf" not in yomu.pages()
    hits = yomu.json("search", "oak tables", "--mode", "text")["hits"]
    assert [(hit["document"], hit["page"]) for hit in hits] == [("first.pdf", 3)]
    assert not yomu.json("search", "orchard", "--mode", "text")["hits"]  # of the old first.pdf

    odd.text_pdf(corpus / "fourth.pdf", ["plum", "pear"])
    (corpus / "報告/third.pdf").unlink()
    stays = "Still in the index, though the files are gone: 報告/third.pdf; --prune"
    assert stays in yomu.run("ingest", corpus).out
    assert "complete, file gone" in yomu.run("list", "*third.pdf").out
    report = yomu.json("ingest", corpus, "--prune")
    counts(report, unchanged=4, removed=1)
    assert yomu.pages() == {
        "first.pdf": 3,
        "fourth.pdf": 2,
        "photo.png": 1,
        "renamed.pdf": 2,
    }


def test_documents_of_a_folder_that_was_renamed_are_named(yomu, corpus, monkeypatch):
    """They lie outside of the folder that is given, where --prune does not reach."""
    yomu.json("ingest", corpus)
    corpus.rename(corpus.with_name("old"))
    (corpus.parent / "new").mkdir()
    odd.text_pdf(corpus.parent / "new" / "fourth.pdf", ["plum"])
    done = yomu.run("ingest", corpus.parent / "new")
    assert "with their folder: first.pdf, photo.png, second.pdf and 1 more; `yomu rem" in done.out
    gone = {each["document"]: each["file_gone"] for each in yomu.json("list")["documents"]}
    assert gone == dict.fromkeys(gone, True) | {"fourth.pdf": False}
    monkeypatch.setattr("rag.sources.which_gone", lambda paths: dict.fromkeys(paths, None))
    assert yomu.run("list").out.count("complete, file not checked") == 5


def test_a_file_that_becomes_a_copy_of_another(yomu, corpus):
    yomu.json("ingest", corpus)
    shutil.copy(corpus / "second.pdf", corpus / "first.pdf")
    counts(yomu.json("ingest", corpus), updated=1, unchanged=3)
    assert {each["status"] for each in yomu.listed()} == {"complete"}
    assert not yomu.json("search", "orchard", "--mode", "text")["hits"]
    counts(yomu.json("ingest", corpus), unchanged=4)


def test_prune_does_not_empty_the_index(yomu, corpus):
    yomu.json("ingest", corpus)
    for path in corpus.rglob("*.p*"):
        path.unlink()
    assert "nothing to read" in yomu.run("ingest", corpus, "--prune", code=2).err
    assert len(yomu.pages()) == 4


def test_duplicates_are_stored_once_and_shown_under_each_name(yomu, corpus):
    shutil.copy(corpus / "first.pdf", corpus / "報告" / "copy.pdf")
    report = yomu.json("ingest", corpus)
    counts(report, added=5)
    assert report["pages"]["added"] == 7
    assert yomu.json("stats")["pages"] == 7
    found = yomu.run("search", "orchard", "--mode", "text").out
    assert "first.pdf = 報告/copy.pdf" in found


def test_an_index_in_the_folder_that_is_read(yomu, corpus):
    first = yomu.json("ingest", corpus, "--index", corpus)
    counts(first, added=4)
    again = yomu.json("ingest", corpus, "--index", corpus)
    counts(again, unchanged=4)
    assert again["skipped"] == first["skipped"] == {".txt": 1}


def test_a_document_whose_file_is_away_is_not_replaced(yomu, tmp_path):
    for folder in ("A", "B"):
        (tmp_path / folder).mkdir()
    odd.text_pdf(tmp_path / "A" / "report.pdf", ["telescopes and comets"])
    odd.text_pdf(tmp_path / "B" / "report.pdf", ["walnut carpentry"])
    yomu.json("ingest", tmp_path / "A")
    (tmp_path / "A").rename(tmp_path / "Aaway")
    counts(yomu.json("ingest", tmp_path / "B"), added=1)
    assert yomu.pages() == {"report.pdf": 1, "B/report.pdf": 1}
    # moved for good, it keeps its name
    counts(yomu.json("ingest", tmp_path / "Aaway"), unchanged=1)
    assert yomu.pages() == {"report.pdf": 1, "B/report.pdf": 1}
    assert yomu.run("search", "comets", "--mode", "text", "--json").json["hits"]


def test_names_that_are_no_utf8_are_read_kept_and_mended(yomu, tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    for word in ("会議", "資料", "東京"):
        plain = odd.text_pdf(tmp_path / "plain.pdf", [f"{odd.TEXT} {word}"])
        plain.rename(folder / os.fsdecode(f"{word}.pdf".encode("euc_jp")))
    odd.text_pdf(folder / "good.pdf", [odd.TEXT])
    (folder / os.fsdecode("表.xls".encode("cp932"))).write_bytes(b"a table")
    report = yomu.json("ingest", folder, code=1)
    counts(report, added=4, failed=1)
    (failure,) = report["failures"]
    assert failure["document"] == "表.xls"
    assert "path that is not UTF-8, which LibreOffice cannot open" in failure["reason"]
    counts(yomu.json("ingest", folder, code=1), unchanged=4, failed=1)
    assert "gone" not in yomu.run("ingest", folder, "--prune", code=1).out

    with PageIndex.open(yomu.index) as page_index, PageReader() as reader:
        images = PageImages(reader)
        drawn = images.read(page_index, "会議.pdf", 1, dpi=72, max_pixels=500_000)
        images.close()
    assert drawn.note == ""

    for vectors in (yomu.index / "segments").glob("*/vectors.bin"):
        vectors.write_bytes(b"")
    assert yomu.json("verify", "--mend")["mended"]["missing"] == []
    assert yomu.pages() == {"good.pdf": 1, "会議.pdf": 1, "東京.pdf": 1, "表.xls": 0, "資料.pdf": 1}


def test_two_folders_with_the_same_names(yomu, tmp_path):
    for folder, text in (("a", "alpha particles"), ("b", "beta decay")):
        (tmp_path / folder).mkdir()
        odd.text_pdf(tmp_path / folder / "report.pdf", [text])
    yomu.json("ingest", tmp_path / "a")
    counts(yomu.json("ingest", tmp_path / "b"), added=1)
    assert yomu.pages() == {"report.pdf": 1, "b/report.pdf": 1}
    counts(yomu.json("ingest", tmp_path / "a", tmp_path / "b"), unchanged=2)


def test_some_pages_then_the_rest(yomu, tmp_path):
    path = odd.text_pdf(tmp_path / "a.pdf", [f"word{n}" for n in range(1, 7)])
    assert yomu.json("ingest", path, "--pages", "2-3")["pages"]["added"] == 2
    assert yomu.listed() == [{"name": "a.pdf", "pages": 2, "status": "partial"}]
    rest = yomu.json("ingest", path)
    assert rest["pages"]["added"] == 4
    counts(rest, updated=1)
    assert yomu.listed() == [{"name": "a.pdf", "pages": 6, "status": "complete"}]


def test_pages_that_no_document_has_are_a_failure_with_a_reason(yomu, tmp_path):
    path = odd.text_pdf(tmp_path / "a.pdf", ["one", "two"])
    report = yomu.json("ingest", path, "--pages", "9-", code=1)
    counts(report, failed=1)
    assert report["failures"][0]["reason"] == "has 2 pages, none of them in --pages 9-"
    assert yomu.listed() == []
    yomu.json("ingest", path)
    yomu.json("ingest", path, "--pages", "3-4", code=1)
    assert yomu.listed() == [{"name": "a.pdf", "pages": 2, "status": "complete"}]


def test_a_copy_has_the_language_of_what_it_is_a_copy_of(yomu, tmp_path):
    text = "The report and the figures that are in it were read with care and for this purpose."
    first = odd.text_pdf(tmp_path / "a.pdf", [text])
    shutil.copy(first, tmp_path / "b.pdf")
    yomu.json("ingest", tmp_path)
    shutil.copy(first, tmp_path / "later.pdf")
    yomu.json("ingest", tmp_path)
    hits = yomu.json("search", "figures", "--mode", "text", "--language", "en")["hits"]
    assert len(hits) == 1
    for name in ("b.pdf", "later.pdf"):
        only = ("--document", name, "--language", "en", "--mode", "text")
        assert yomu.json("search", "figures", *only)["hits"][0]["document"] == name
    days = ("--date-from", "2025-02-01", "--date-to", "2025-01-01")
    done = yomu.run("search", "figures", "--mode", "text", *days, code=2)
    assert "2025-02-01 is after 2025-01-01" in done.err
    missed = yomu.run("search", "figures", "--mode", "text", "--language", "fr")
    assert missed.out.startswith("Nothing found with --language fr;")


def test_dry_run_writes_nothing(yomu, corpus):
    plan = yomu.json("ingest", corpus, "--dry-run")
    counts(plan, added=4)
    assert plan["pages"]["added"] == 7
    assert not yomu.index.exists()
    yomu.json("ingest", corpus)
    odd.text_pdf(corpus / "first.pdf", ["new"])
    (corpus / "broken.pdf").write_bytes(b"nothing")
    (corpus / "second.pdf").unlink()
    plan = yomu.json("ingest", corpus, "--dry-run", "--prune", code=1)
    counts(plan, updated=1, unchanged=2, failed=1, removed=1)
    assert plan["pages"]["added"] == 1
    assert len(yomu.pages()) == 4


@pytest.mark.parametrize("wanted", ["2-3", "4-6", "2-5", "7-"])
def test_a_plan_counts_the_pages_that_the_run_reads(yomu, tmp_path, wanted):
    """It had subtracted how many pages are stored, whichever they were."""
    folder = tmp_path / "more"
    folder.mkdir()
    odd.text_pdf(folder / "six.pdf", [f"{TOPICS[n]} page {n + 1}" for n in range(6)])
    yomu.json("ingest", folder, "--pages", "1-3")
    shutil.copy(folder / "six.pdf", folder / "twin.pdf")
    code = int(wanted == "7-")
    plan = yomu.json("ingest", folder, "--pages", wanted, "--dry-run", code=code)
    report = yomu.json("ingest", folder, "--pages", wanted, code=code)
    assert {name: plan[name] for name in ("documents", "pages", "failures")} == {
        name: report[name] for name in ("documents", "pages", "failures")
    }


def test_a_plan_says_what_the_run_says(yomu, corpus, monkeypatch):
    """Office files without LibreOffice, what is left out, files that failed before, moved ones."""
    monkeypatch.setattr("rag.office.COMMANDS", ("no-such-office",))
    (corpus / "deck.pptx").write_bytes(b"slides")
    (corpus / "link").symlink_to(corpus.parent)
    odd.picture(1, 1).save(corpus / "dot.png")
    odd.text_pdf(corpus / "blank.pdf", [""])
    yomu.json("ingest", corpus, code=1)
    odd.broken_image_pdf(corpus / "second.pdf")
    yomu.json("ingest", corpus, code=1)
    (corpus / "first.pdf").rename(corpus / "moved.pdf")
    plan = yomu.json("ingest", corpus, "--dry-run", code=1)
    said = yomu.run("ingest", corpus, "--dry-run", code=1).out
    report = yomu.json("ingest", corpus, code=1)
    for name in ("documents", "pages", "notes", "skipped"):
        wanted = report[name] if name != "pages" else {"added": 0, "failed": 0}
        assert plan[name] == wanted, name
    tell = [(each["document"], each["page"]) for each in plan["failures"]]
    assert sorted(tell, key=str) == sorted(
        ((each["document"], each["page"]) for each in report["failures"]), key=str
    )
    assert "1 .txt" in said
    assert "corpus/link/" in said


def test_bad_files_and_pages_are_listed_and_tried_again(yomu, corpus):
    (corpus / "empty.pdf").write_bytes(b"")
    (corpus / "broken.pdf").write_bytes(b"%PDF-1.4 and no more")
    odd.encrypted_pdf(corpus / "locked.pdf", "secret")
    odd.raw_pdf(corpus / "nothing.pdf", b"", kids=False)
    odd.broken_image_pdf(corpus / "lost.pdf")
    odd.raw_pdf(corpus / "blank.pdf", b"")
    report = yomu.json("ingest", corpus, code=1)
    counts(report, added=4, failed=6)
    reasons = {each["document"]: each["reason"] for each in report["failures"]}
    assert "0 bytes" in reasons["empty.pdf"]
    assert reasons["broken.pdf"]
    assert "--password" in reasons["locked.pdf"]
    assert "has no pages" in reasons["nothing.pdf"]
    assert "renders blank" in reasons["lost.pdf"]
    assert "blank, like all of this document" in reasons["blank.pdf"]
    pages = {each["document"]: each["page"] for each in report["failures"]}
    assert (pages["lost.pdf"], pages["empty.pdf"]) == (1, None)

    listed = {each["name"]: each["status"] for each in yomu.listed()}
    assert listed["locked.pdf"] == "failed"
    failures = yomu.json("list")["failures"]
    assert {each["document"] for each in failures} == set(reasons)
    assert listed["blank.pdf"] == "failed"
    assert report["notes"] == []
    assert yomu.json("stats")["failed_documents"] == 6
    assert "0 B" not in yomu.run("list").out

    # tried again, this time with the password; what is mended is no longer listed
    odd.text_pdf(corpus / "broken.pdf", ["mended"])
    report = yomu.json("ingest", corpus, "--password", "secret", code=1)
    counts(report, updated=2, unchanged=4, failed=4)
    assert {each["document"] for each in report["failures"]} == (
        set(reasons) - {"locked.pdf", "broken.pdf"}
    )
    counts(yomu.json("ingest", corpus, code=1), unchanged=6, failed=4)


def test_a_new_version_that_cannot_be_read_is_told_wherever_the_old_one_answers(yomu, corpus):
    yomu.json("ingest", corpus)
    before = {each["document"]: each for each in yomu.json("list")["documents"]}
    odd.encrypted_pdf(corpus / "first.pdf", "secret")
    odd.broken_image_pdf(corpus / "second.pdf")
    report = yomu.json("ingest", corpus, code=1)
    assert report["older"] == ["first.pdf", "second.pdf"]
    summary = yomu.run("ingest", corpus, code=1).out
    assert "the new one could not be read: first.pdf, second.pdf." in summary
    now = {each["document"]: each for each in yomu.json("list")["documents"]}
    for name, why in {"first.pdf": "is encrypted", "second.pdf": "has content but"}.items():
        assert why in now[name]["outdated"]
        for key in ("sha256", "size_bytes", "modified", "date"):
            assert now[name][key] == before[name][key], (name, key)
        note = f"{name}: an older version is shown: the new one could not be read ({why}"
        assert note in yomu.run("list").out
        found = yomu.json("search", "page", "--mode", "text", "--document", name)
        assert note in found["notes"][0]
        assert note in yomu.run("search", "page", "--mode", "text", "--document", name).out
    assert yomu.json("search", "engines", "--mode", "text")["notes"] == []
    odd.text_pdf(corpus / "first.pdf", ["walnut"])
    odd.text_pdf(corpus / "second.pdf", ["oak"])
    assert yomu.json("ingest", corpus)["older"] == []
    assert not any(each["outdated"] for each in yomu.json("list")["documents"])


def test_a_file_that_cannot_be_read_just_now_is_no_newer_version(yomu, corpus, monkeypatch):
    yomu.json("ingest", corpus)

    def unreadable(path):
        if path.name == "first.pdf":
            raise DocumentError("cannot be read: Input/output error")
        return file_sha256(path)

    monkeypatch.setattr("rag.ingest.file_sha256", unreadable)
    report = yomu.json("ingest", corpus, code=1)
    counts(report, unchanged=3, failed=1)
    assert (report["kept"], report["older"]) == (["first.pdf"], [])
    done = yomu.run("ingest", corpus, code=1)
    assert "shown as they were read before: first.pdf." in done.out
    assert {each["status"] for each in yomu.listed()} == {"complete"}
    odd.text_pdf(corpus / "first.pdf", ["something newer"])
    report = yomu.json("ingest", corpus, code=1)
    assert (report["kept"], report["older"]) == ([], ["first.pdf"])


def test_words_of_an_earlier_version_are_told_until_they_are_made_anew(yomu, corpus, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr("index.opening.WORDS_VERSION", 1)
        yomu.json("ingest", corpus)
    asked = ("search", "apples", "--mode", "text")
    (note,) = yomu.json(*asked)["notes"]
    assert "from an earlier version" in note and "`yomu compact`" in note
    assert note in yomu.run(*asked).out
    nothing = yomu.run("search", "鯨", *asked[2:]).out
    assert "Nothing found" in nothing and "以前の版" in nothing
    yomu.run("compact")
    assert yomu.json(*asked)["notes"] == []


def test_one_blank_page_among_others_is_a_remark(yomu, tmp_path):
    path = odd.text_pdf(tmp_path / "a.pdf", ["first", "", "third"])
    report = yomu.json("ingest", path)
    assert report["pages"] == {"added": 3, "failed": 0}
    assert report["notes"] == [{"document": "a.pdf", "page": 2, "note": "page is blank"}]


def test_password_file(yomu, tmp_path):
    path = odd.encrypted_pdf(tmp_path / "a.pdf", "secret")
    (tmp_path / "words.txt").write_text("wrong\nsecret\n")
    counts(yomu.json("ingest", path, "--password-file", tmp_path / "words.txt"), added=1)


def test_endless_page_is_stopped_and_the_rest_goes_on(yomu, corpus):
    odd.endless_pdf(corpus / "endless.pdf")
    report = yomu.json("ingest", corpus, "--page-seconds", "5", code=1)
    counts(report, added=4, failed=1)
    (failure,) = report["failures"]
    assert failure["document"] == "endless.pdf"
    assert "was stopped" in failure["reason"]


def test_other_settings_are_refused_with_the_way_out(yomu, corpus):
    yomu.json("ingest", corpus, "--dpi", "100")
    done = yomu.run("ingest", corpus, "--dpi", "200", code=2)
    assert done.out == ""
    assert "dpi" in done.err
    assert "100" in done.err
    # not said: as the index has it
    counts(yomu.json("ingest", corpus), unchanged=4)
    assert yomu.json("stats")["dpi"] == 100


def test_interrupt_keeps_what_was_read(yomu, corpus, monkeypatch):
    from rag.encoder import ModelEncoder

    encode, n_calls = ModelEncoder.page, iter(range(100))

    def interrupted(self, image):
        if next(n_calls) == 4:
            raise KeyboardInterrupt
        return encode(self, image)

    monkeypatch.setattr(ModelEncoder, "page", interrupted)
    report = yomu.json("ingest", corpus, code=1)
    assert report["pages"]["added"] == 4
    assert "goes on where this one stopped" in report["interrupted"]
    assert sum(yomu.pages().values()) == 4
    # second.pdf is half in the index, and counts when it is whole
    counts(report, added=2)
    counts(yomu.json("ingest", corpus, "--dry-run"), added=2, unchanged=2)
    rest = yomu.json("ingest", corpus)
    counts(rest, added=2, unchanged=2)
    assert rest["pages"]["added"] == 3
    assert not any(each["unfinished"] for each in yomu.json("list")["documents"])


def test_interrupt_after_the_pages_still_reports_them(yomu, corpus, monkeypatch):
    from index.page_index import PageIndex

    def interrupted(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PageIndex, "maintain", interrupted)
        report = yomu.json("ingest", corpus, code=1)
    assert report["pages"]["added"] == 7
    assert "goes on where this one stopped" in report["interrupted"]
    counts(yomu.json("ingest", corpus), unchanged=4)


def test_search_options(yomu, corpus, tmp_path):
    yomu.json("ingest", corpus)
    hits = yomu.json("search", "page", "--mode", "text", "--document", "報告/*")["hits"]
    assert {hit["document"] for hit in hits} == {"報告/third.pdf"}
    hits = yomu.json("search", "page", "--mode", "text", "-k", "100")["hits"]
    assert len(hits) == 6
    lines = [{"id": "q1", "query": "cider"}, {"id": 2, "query": "sonar pods"}, {"query": "moss"}]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = yomu.run("search", "--queries", tmp_path / "q.jsonl", "--mode", "text")
    results = [json.loads(line) for line in done.out.splitlines()]
    assert [each["id"] for each in results] == ["q1", "2", None]
    assert [each["hits"][0]["page"] for each in results] == [1, 2, 2]

    found = yomu.json("search", "--image", corpus / "photo.png")
    assert found["mode"] == "visual"
    assert found["hits"][0]["document"] == "photo.png"
    lines = yomu.run(
        "search", "page", "--mode", "text", "-k", "9", "--by-document"
    ).out.splitlines()
    assert sum("first.pdf" in line for line in lines) == 1
    both = yomu.json("search", "page", "--mode", "text", "-k", "2", "--by-document")
    assert len(both["hits"]) == 2
    two = both["documents"]
    assert len(two) == 2
    assert two[0]["score"] >= two[1]["score"]
    assert sum(len(each["pages"]) for each in two) > 2
    assert "telescopes" not in yomu.run("search", "telescopes", "--mode", "text").out
    assert yomu.run("search", "xyzzy", "--mode", "text").out.strip() == "Nothing found."


def test_documents_are_meant_by_whatever_people_call_them(yomu, corpus, monkeypatch):
    """Name, last part of it, folder, path that was given, part of a name: the first that fits."""
    monkeypatch.chdir(corpus.parent)
    shutil.copy(corpus / "first.pdf", corpus / "報告" / "UPPER.PDF")
    yomu.json("ingest", "corpus")
    below = ["報告/UPPER.PDF", "報告/third.pdf"]
    for typed, meant in {
        "first.pdf": ["first.pdf"],
        "*r*.pdf": ["first.pdf", "報告/third.pdf"],
        "third.pdf": ["報告/third.pdf"],
        "報告": below,
        "報告/": below,
        corpus / "報告": below,
        "corpus/photo.png": ["photo.png"],
        "upper.pdf": ["報告/UPPER.PDF"],
        "FIR": ["first.pdf"],
        "告/th": ["報告/third.pdf"],
    }.items():
        assert [each["document"] for each in yomu.json("list", typed)["documents"]] == meant, typed
        hits = yomu.json("search", "page", "--mode", "visual", "-k", "99", "--document", typed)
        assert {hit["document"] for hit in hits["hits"]} == set(meant), typed
    hits = yomu.json("search", "page", "--mode", "text", "--folder", corpus / "報告")["hits"]
    assert {hit["document"] for hit in hits} == set(below)
    for verb in (["list"], ["search", "x", "--document"], ["ask", "x", "--document"], ["remove"]):
        assert (
            "no document matches 'frst.pdf'; near it: first.pdf\n"
            in yomu.run(*verb, "frst.pdf", code=2).err
        )
    assert "no document is in 'no'" in yomu.run("search", "x", "--folder", "no", code=2).err


def test_only_what_is_named_in_full_is_removed(yomu, corpus):
    shutil.copy(corpus / "second.pdf", corpus / "報告" / "first.pdf")
    (corpus / "more").mkdir()
    shutil.copy(corpus / "second.pdf", corpus / "more" / "third.pdf")
    yomu.json("ingest", corpus)
    for typed in ("irst", "FIRST.PDF", corpus):
        assert "no document matches" in yomu.run("remove", typed, code=2).err
    assert "near it: first.pdf, 報告/first.pdf" in yomu.run("remove", "fir", code=2).err
    done = yomu.run("remove", "third.pdf", code=2)
    assert "no document is named 'third.pdf'; near it: more/third.pdf, 報告/third.pdf" in done.err
    assert yomu.json("remove", "first.pdf")["removed"] == ["first.pdf"]
    assert "報告/first.pdf" in yomu.run("remove", "first.pdf", code=2).err, "not this one instead"
    assert yomu.json("remove", "*/first.pdf")["removed"] == ["報告/first.pdf"]
    assert yomu.json("remove", "more")["removed"] == ["more/third.pdf"]


def test_documents_of_unknown_language_stay_in(yomu, tmp_path):
    (tmp_path / "docs").mkdir()
    odd.text_pdf(tmp_path / "docs" / "receipt.pdf", ["Total 12.50"])
    odd.text_pdf(tmp_path / "docs" / "letter.pdf", ["the total of the year and of all that is"] * 3)
    odd.text_pdf(
        tmp_path / "docs" / "brief.pdf", ["der total und die Rechnung nicht mit der Post"] * 3
    )
    yomu.json("ingest", tmp_path / "docs")
    for code in ("en", "EN", "English"):
        hits = yomu.json("search", "total", "--mode", "text", "--language", code)["hits"]
        assert {hit["document"] for hit in hits} == {"receipt.pdf", "letter.pdf"}
    hits = yomu.json("search", "total", "--mode", "text", "--language", "japanese")["hits"]
    assert {hit["document"] for hit in hits} == {"receipt.pdf"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ingest", "notes.txt"], "nothing to read in notes.txt: no PDF, image or Office file"),
        (["ingest", "a.pdf", "--index", "/proc"], "/proc: could not write (Permission denied)"),
        (["search", "x", "--language", "klingon"], "choose one of en, ja"),
        (["search", "x" * 8001], "QUESTION: the question has 8001 characters, 8000 are the most"),
        (["ask", "x" * 8001], "QUESTION: the question has 8001 characters, 8000 are the most"),
        (["search", "x", "--mode", "magic"], "(env var: 'YOMU_MODE'): 'magic' is not one of"),
        (["ingest", "missing-folder"], "missing-folder: no such file or folder"),
        (["ingest"], "Missing argument"),
        (["ingest", ".", "--pages", "4-2"], "write 3, 1-4 or 5-"),
        (["ingest", ".", "--pages", "0"], "the first page is 1"),
        (["ingest", ".", "--dpi", "1"], "--dpi is 1, it must be at least 10"),
        (["ingest", ".", "--password-file", "missing.txt"], "missing.txt: cannot be read"),
        (["ingest", ".", "--model", "no-such-model"], "no-such-model"),
        (["search", "x"], "no index in"),
        (["search"], "nothing to look for"),
        (["search", " "], "the question is empty"),
        (["search", "x", "--queries", "q.jsonl"], "leave out QUESTION"),
        (["search", "--queries", "missing.jsonl"], "missing.jsonl: cannot be read"),
        (["list"], "no index in"),
        (["remove", "*"], "no index in"),
        (["verify"], "no index in"),
        (["verify", "--password-file", "missing.txt"], "missing.txt: cannot be read"),
        (["models", "build"], "Missing argument 'SRC'. (see yomu models build --help)"),
        (["stats"], "no index in"),
        (["compact"], "no index in"),
        (["frobnicate"], "No such command 'frobnicate'. (see yomu --help)"),
        (["search", "x", "--colour", "red"], "No such option"),
    ],
)
def test_every_failure_has_one_clear_line(yomu, monkeypatch, tmp_path, arguments, says):
    monkeypatch.chdir(tmp_path)
    odd.text_pdf(tmp_path / "a.pdf", ["a"])
    (tmp_path / "notes.txt").write_text("no document")
    done = yomu.run(*arguments, code=2)
    assert not yomu.index.exists()
    assert done.out == ""
    (line,) = done.err.strip().splitlines()
    assert line.startswith("yomu: ")
    assert says in line


def test_folder_without_documents(yomu, tmp_path):
    (tmp_path / "empty").mkdir()
    done = yomu.run("ingest", tmp_path / "empty", code=2)
    assert "nothing to read" in done.err and "remove" not in done.err


def test_bad_queries_file_names_the_line(yomu, corpus, tmp_path):
    yomu.json("ingest", corpus)
    (tmp_path / "q.jsonl").write_text('{"query": "fine"}\n{"question": "wrong key"}\n')
    assert "q.jsonl:2: wanted" in yomu.run("search", "--queries", tmp_path / "q.jsonl", code=2).err


def test_bad_environment_names_its_variable(yomu, monkeypatch, tmp_path):
    monkeypatch.setenv("YOMU_DPI", "many")
    assert "dpi" in yomu.run("ingest", tmp_path, code=2).err.lower()


def test_remove_and_compact(yomu, corpus):
    yomu.json("ingest", corpus)
    assert yomu.json("remove", "報告/*")["removed"] == ["報告/third.pdf"]
    assert yomu.json("stats")["pages"] == 5
    assert not yomu.json("search", "cedar moss", "--mode", "text")["hits"]
    sizes = yomu.json("compact")
    assert sizes["after"]["dead_pages"] == 0
    assert "no document matches" in yomu.run("remove", "報告/*", code=2).err
    counts(yomu.json("ingest", corpus), added=1, unchanged=3)


def test_an_index_without_a_page_says_so(yomu, tmp_path):
    (tmp_path / "broken.pdf").write_bytes(b"")
    yomu.run("ingest", tmp_path / "broken.pdf", code=1)
    asked = ("search", "walnut", "--mode", "text")
    assert "holds no page to find; `yomu list` shows" in yomu.run(*asked, code=2).err
    yomu.run("remove", "*")
    assert yomu.run("list").out == "The index holds no document; `yomu ingest FOLDER` adds some.\n"
    assert "holds no page to find" in yomu.run(*asked, "--json", code=2).err
    assert "1 file, " in yomu.run("verify").out


def test_verify_finds_damage_and_mends_it_from_the_files(yomu, corpus):
    yomu.json("ingest", corpus)
    before = yomu.json("search", "orchard", "--mode", "visual", "-k", "9")["hits"]
    vectors = max((yomu.index / "segments").rglob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(vectors.read_bytes())
    data[len(data) // 2] ^= 0xFF
    vectors.write_bytes(data)
    report = yomu.json("verify", code=1)
    assert not report["clean"]
    assert len(report["damage"]) == 1
    yomu.json("verify", "--mend")
    assert yomu.json("verify")["clean"]
    after = yomu.json("search", "orchard", "--mode", "visual", "-k", "9")["hits"]
    key = {(hit["document"], hit["page"]): hit["score"] for hit in before}
    assert {(hit["document"], hit["page"]): hit["score"] for hit in after} == key


def test_a_damaged_database_has_one_advice(yomu, corpus):
    yomu.json("ingest", corpus)
    database = yomu.index / "index.db"
    whole = database.read_bytes()
    database.write_bytes(
        whole[: len(whole) // 2] + b"\xff" * 3000 + whole[len(whole) // 2 + 3000 :]
    )
    for arguments in (["verify"], ["verify", "--mend"]):
        done = yomu.run(*arguments, code=1)
        assert "delete the index folder and ingest again" in done.out
        assert "--mend" not in done.out
    database.unlink()
    for arguments in (["search", "x"], ["ingest", corpus], ["verify"]):
        assert "index.db is missing" in yomu.run(*arguments, code=2).err


def test_a_damaged_page_image_is_drawn_again_and_its_page_stays(yomu, corpus):
    yomu.json("ingest", corpus)
    images = sorted((yomu.index / "images").rglob("*.webp"))
    before = {path.name: path.read_bytes() for path in images}
    for image in images:
        image.write_bytes(b"torn")
    gone = corpus / "first.pdf"
    gone.unlink()
    report = yomu.json("verify", "--mend", code=1)
    assert report["mended"]["missing"] == ["first.pdf"]
    assert report["mended"]["documents"]["updated"] == 3
    assert yomu.json("verify")["clean"]
    after = {path.name: path.read_bytes() for path in (yomu.index / "images").rglob("*.webp")}
    assert after.items() < before.items()
    (stays,) = [each for each in yomu.json("list")["documents"] if each["document"] == gone.name]
    assert stays["status"] == "complete"


def test_tables_for_people(yomu, corpus):
    (corpus / "empty.pdf").write_bytes(b"")
    long = f"{'long ' * 40}name.pdf"
    odd.text_pdf(corpus / long, ["a"])
    summary = yomu.run("ingest", corpus, code=1).out
    assert "Documents: 5 added, 0 updated, 0 unchanged, 0 removed, 1 failed." in summary
    assert "Pages: 8 added, 0 failed" in summary
    assert "empty.pdf" in summary
    assert "1 .txt" in summary
    listed = yomu.run("list").out
    assert "報告/third.pdf" in listed
    assert long in listed  # on one line: nobody's terminal is there to be too narrow
    found = yomu.run("search", "telescopes", "and", "comets", "--mode", "TEXT").out
    assert "second.pdf" in found
    assert "1 page in" in found
    assert "Nothing is damaged." in yomu.run("verify").out
    assert "tiny" in yomu.run("stats").out


@pytest.mark.parametrize(
    "verb", ["ingest", "search", "list", "remove", "verify", "stats", "compact"]
)
def test_help_names_every_option_and_its_variable(yomu, verb):
    text = yomu.run(verb, "--help").out
    assert "--index" in text
    assert "YOMU_INDEX" in text
    assert "--json" in text


def test_version_and_bare_command(yomu):
    assert yomu.run("--version").out.startswith("yomu 0.")
    bare = yomu.run(code=2)
    assert "ingest" in bare.out + bare.err
    assert "(see" not in bare.err
