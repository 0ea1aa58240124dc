"""Documents in and out of the index: resumed, replaced, shared, removed, failed."""

import contextlib
import dataclasses
import hashlib
import json
import shutil
import sqlite3
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from index import catalogue, database
from index.database import Database
from index.errors import DocumentUnknown, FilterError, IndexFull, IndexReadOnly, ShapeMismatch
from index.page_index import PageIndex
from index.records import Filters, PatchGrid, Tuning
from index.segment import SegmentInfo
from index.upkeep import Upkeep
from index.verify import Verifier
from index.writer import insert_segment
from tests.unit.index_data import SETTINGS, document, page, put, unit


@pytest.fixture
def page_index(tmp_path):
    with PageIndex.open(tmp_path / "index", SETTINGS, writable=True) as opened:
        yield opened


def names(page_index):
    return [record.name for record in page_index.documents()]


def best(page_index, seed, number=1):
    """The document whose page answers the vectors of a known page best."""
    hits = page_index.search(1, vectors=page(seed, number).vectors, mode="visual")
    return (hits[0].document, hits[0].page) if hits else None


def test_a_page_counts_only_after_commit(page_index):
    page_index.begin_document(document("a.pdf"))
    page_index.add_page("a.pdf", page(0, 1))
    assert page_index.n_uncommitted == 1
    assert page_index.search(5, vectors=page(0, 1).vectors, mode="visual") == ()
    with PageIndex.open(page_index.folder) as reader:
        assert reader.stats().pages == 0
        assert page_index.commit() == 1
        assert best(reader, 0) == ("a.pdf", 1)
    assert page_index.n_uncommitted == 0
    assert page_index.commit() == 0


def test_reading_goes_on_at_the_page_where_it_stopped(page_index):
    page_index.begin_document(document("a.pdf", n_pages=4))
    page_index.add_page("a.pdf", page(0, 2))
    page_index.commit()
    page_index.add_page("a.pdf", page(0, 3))  # never committed
    page_index.close()
    with PageIndex.open(page_index.folder, SETTINGS, writable=True) as again:
        resume = again.begin_document(document("a.pdf", n_pages=4))
        assert (resume.status, resume.done) == ("partial", {2})
        assert put(again, "a.pdf", n_pages=4) == "complete"
        again.commit()
        assert again.begin_document(document("a.pdf", n_pages=4)).unchanged
        assert again.stats().pages == 4


def test_an_exception_commits_nothing(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        PageIndex.open(tmp_path, SETTINGS, writable=True) as opened,
    ):
        put(opened, "a.pdf")
        1 / 0  # noqa: B018
    with PageIndex.open(tmp_path) as reader:
        assert reader.stats().pages == 0


def test_a_page_is_never_stored_twice(page_index):
    put(page_index, "a.pdf")
    page_index.add_page("a.pdf", page(0, 1))
    page_index.commit()
    page_index.add_page("a.pdf", page(0, 1))
    assert page_index.n_uncommitted == 0
    page_index.commit()
    assert page_index.stats().pages == 3


def test_the_same_bytes_are_stored_once_and_shown_under_each_name(page_index):
    put(page_index, "b.pdf", seed=1)
    page_index.commit()
    assert page_index.begin_document(document("a/copy.pdf", seed=1)).unchanged
    assert page_index.stats().pages == 3
    hit = page_index.search(1, vectors=page(1, 2).vectors, mode="visual")[0]
    assert (hit.document, hit.page, hit.same_as) == ("a/copy.pdf", 2, ("b.pdf",))
    assert [record.same_as for record in page_index.documents()] == [("b.pdf",), ("a/copy.pdf",)]
    page_index.remove("a/copy.pdf")
    assert best(page_index, 1) == ("b.pdf", 1)


def test_old_pages_stay_until_the_new_ones_are_whole(page_index):
    put(page_index, "a.pdf", seed=1)
    page_index.commit()
    assert page_index.begin_document(document("a.pdf", seed=2)).status == "new"
    page_index.add_page("a.pdf", page(2, 1))
    page_index.commit()
    with PageIndex.open(page_index.folder) as reader:
        assert page_index.documents()[0].status == "partial"
        assert [hit.page for hit in reader.search(9, text="content1", mode="text")] == [1, 2, 3]
        assert reader.search(9, text="content2", mode="text") == ()
        assert len(reader.search(9, vectors=page(2, 1).vectors, mode="visual")) == 3
        assert put(page_index, "a.pdf", seed=2) == "complete"
        page_index.commit()
        assert reader.search(9, text="content1", mode="text") == ()
        assert len(reader.search(9, vectors=page(1, 1).vectors, mode="visual")) == 3
        assert best(reader, 2) == ("a.pdf", 1)
    assert page_index.verify().clean


def test_a_new_version_that_cannot_be_read_replaces_nothing(page_index):
    put(page_index, "a.pdf", seed=1)
    page_index.commit()
    page_index.begin_document(document("a.pdf", seed=2, n_pages=1))
    page_index.fail_page("a.pdf", 1, "renders blank")
    page_index.finish_document("a.pdf")
    page_index.commit()
    assert best(page_index, 1) == ("a.pdf", 1)
    assert page_index.failures()[0].reason == "renders blank"
    assert page_index.documents()[0].outdated == "renders blank"
    assert page_index.stats().failed_documents == 1


def test_size_and_date_are_of_the_version_that_is_shown(page_index):
    """They had been of the new one from its first page on, beside the bytes of the old one."""
    put(page_index, "a.pdf", seed=1)
    page_index.commit()
    newer = document("a.pdf", seed=2, n_pages=1, size_bytes=99, modified=1_800_000_000.0)
    before = page_index.document("a.pdf")
    page_index.begin_document(newer)
    now = page_index.document("a.pdf")
    assert now.outdated == catalogue.UNFINISHED
    assert dataclasses.replace(now, outdated=None, status="complete") == before
    page_index.add_page("a.pdf", page(2, 1))
    page_index.finish_document("a.pdf")
    page_index.commit()
    now = page_index.document("a.pdf")
    assert (now.size_bytes, now.date, now.outdated) == (99, "2027-01-15", None)


def test_a_document_of_which_no_page_could_be_read_says_why(page_index):
    page_index.begin_document(document("a.pdf", n_pages=1))
    page_index.fail_page("a.pdf", 1, "renders blank")
    page_index.finish_document("a.pdf")
    page_index.commit()
    record = page_index.document("a.pdf")
    assert (record.status, record.reason, record.outdated) == ("failed", "renders blank", None)
    assert page_index.stats().failed_documents == 1


def test_a_version_that_is_overtaken_while_it_is_read_leaves_nothing(page_index):
    put(page_index, "a.pdf", seed=1)
    page_index.commit()
    page_index.begin_document(document("a.pdf", seed=2))
    page_index.add_page("a.pdf", page(2, 1))
    put(page_index, "a.pdf", seed=3)
    page_index.commit()
    page_index.compact()
    stats = page_index.stats()
    assert (stats.pages, stats.dead_pages) == (3, 0)
    assert best(page_index, 3) == ("a.pdf", 1)


def test_a_file_that_goes_back_to_its_old_bytes_needs_no_reading(page_index):
    put(page_index, "a.pdf", seed=1)
    page_index.commit()
    page_index.begin_document(document("a.pdf", seed=2))
    assert page_index.begin_document(document("a.pdf", seed=1)).unchanged
    assert page_index.documents()[0].status == "complete"


@pytest.mark.parametrize("modified", [9e11, -9e11, 1e30])
def test_a_time_that_no_calendar_has_is_no_date(page_index, modified):
    """Archives and damaged clocks leave such; and the unchanged file costs no second writing."""
    put(page_index, "a.pdf", modified=modified)
    page_index.commit()
    assert page_index.document("a.pdf").date is None
    before = page_index._database.sql.total_changes
    assert put(page_index, "a.pdf", modified=modified) == "complete"
    assert page_index._database.sql.total_changes == before
    assert (
        page_index.search(9, text="common", mode="text", filters=Filters(date_from="1900-01-01"))
        == ()
    )


def test_a_touched_file_only_gets_its_new_date(page_index):
    put(page_index, "a.pdf")
    page_index.commit()
    assert page_index.begin_document(document("a.pdf", modified=1_800_000_000.0)).unchanged
    record = page_index.documents()[0]
    assert (record.date, record.modified) == ("2027-01-15", 1_800_000_000.0)


def test_failed_pages_are_listed_and_tried_again(page_index):
    page_index.begin_document(document("a.pdf"))
    page_index.add_page("a.pdf", page(0, 1))
    page_index.fail_page("a.pdf", 2, "damaged stream")
    page_index.add_page("a.pdf", page(0, 3))
    assert page_index.finish_document("a.pdf") == "damaged"
    page_index.commit()
    assert page_index.documents()[0].status == "damaged"
    resume = page_index.begin_document(document("a.pdf"))
    assert (resume.done, resume.failed) == ({1, 3}, {2: "damaged stream"})
    page_index.add_page("a.pdf", page(0, 2))
    assert page_index.finish_document("a.pdf") == "complete"
    page_index.commit()
    assert page_index.failures() == ()


def test_a_document_that_cannot_be_opened_is_listed_until_it_can(page_index):
    page_index.fail_document("locked.pdf", "needs a password", source="/in/locked.pdf")
    record = page_index.documents()[0]
    assert (record.status, record.reason, record.n_pages) == ("failed", "needs a password", 0)
    assert page_index.failures()[0].page is None
    assert put(page_index, "locked.pdf") == "complete"
    page_index.commit()
    assert page_index.failures() == ()


def test_a_readable_document_that_fails_later_keeps_its_pages(page_index):
    put(page_index, "a.pdf")
    page_index.commit()
    page_index.fail_document("a.pdf", "disk error")
    assert best(page_index, 0) == ("a.pdf", 1)
    record = page_index.documents()[0]
    assert (record.status, record.outdated) == ("failed", "disk error")
    assert page_index.begin_document(document("a.pdf")).unchanged
    assert page_index.documents()[0].status == "complete"


def test_pages_left_out_make_a_document_partial(page_index):
    page_index.begin_document(document("a.pdf", n_pages=9))
    page_index.add_page("a.pdf", page(0, 4))
    assert page_index.finish_document("a.pdf", language="ja") == "partial"
    page_index.commit()
    record = page_index.documents()[0]
    assert (record.status, record.n_pages_stored, record.language) == ("partial", 1, "ja")


def test_remove_takes_vectors_words_and_images_along(page_index):
    for number in range(4):
        put(page_index, f"reports/{number}.pdf", seed=number)
    put(page_index, "odd [1].pdf", seed=9)
    page_index.commit()
    before = page_index.stats()
    assert page_index.remove("reports/[0-2].pdf") == tuple(f"reports/{n}.pdf" for n in range(3))
    assert page_index.remove("odd [1].pdf") == ("odd [1].pdf",)
    assert page_index.remove("nothing*") == ()
    after = page_index.compact()
    assert names(page_index) == ["reports/3.pdf"]
    assert page_index.search(9, text="content1 content9", mode="text") == ()
    assert (after.pages, after.dead_pages) == (3, 0)
    assert after.bytes["vectors"] == before.bytes["vectors"] * after.vectors // before.vectors
    assert len(list((page_index.folder / "images").rglob("*.webp"))) == 3
    assert b"content1" not in b"".join(p.read_bytes() for p in page_index.folder.rglob("*.*"))


@pytest.fixture
def gossip(page_index):
    """Two documents, each committed by itself, one of them with a word that no other has."""
    put(page_index, "kept.pdf", seed=1)
    page_index.commit()
    page_index.begin_document(document("secret.pdf", n_pages=1))
    page_index.add_page("secret.pdf", page(0, 1, text="the qwombatqq was sold"))
    page_index.finish_document("secret.pdf")
    page_index.commit()
    return page_index


def says_the_word(page_index):
    files = page_index.folder.glob("index.db*")  # the log too
    return any(b"wombatqq" in path.read_bytes() for path in files)


def test_no_word_of_a_removed_document_is_left_in_the_files(gossip):
    assert says_the_word(gossip)
    with PageIndex.open(gossip.folder) as reader:  # as `yomu serve` has one
        gossip.remove("secret.pdf")
        assert not says_the_word(gossip)
        assert best(reader, 1) == ("kept.pdf", 1)
        assert reader.search(9, text="content1", mode="text")
    assert gossip.verify().clean


def test_a_removal_does_not_wait_for_a_long_reading(gossip, monkeypatch):
    monkeypatch.setattr(database, "LOG_WAIT_MS", 1)
    with PageIndex.open(gossip.folder) as reader, reader._database.view() as sql:
        sql.execute("SELECT count(*) FROM pages").fetchone()
        assert gossip.remove("secret.pdf") == ("secret.pdf",)
    assert gossip.remove("kept.pdf") == ("kept.pdf",)
    assert not says_the_word(gossip)


def test_a_disk_that_is_full_after_a_removal_hides_nothing_of_it(gossip, monkeypatch, caplog):
    """What was removed is told, no word of it stays, and the merge is made up."""
    full = Mock(side_effect=IndexFull("disk full"))
    monkeypatch.setattr(Upkeep, "merge", full)
    assert gossip.remove("secret.pdf") == ("secret.pdf",)
    assert full.called
    assert not says_the_word(gossip)
    assert "put off: disk full" in caplog.text
    monkeypatch.undo()
    gossip.compact()
    assert gossip.stats().dead_pages == 0


def test_words_that_could_not_be_erased_are_erased_by_the_next_writer(gossip, monkeypatch):
    monkeypatch.setattr(Database, "erase_deleted", Mock(side_effect=IndexFull("disk full")))
    assert gossip.remove("secret.pdf") == ("secret.pdf",)
    assert says_the_word(gossip)
    gossip.close()
    monkeypatch.undo()
    with PageIndex.open(gossip.folder, SETTINGS, writable=True) as page_index:
        assert not says_the_word(page_index)
        again = Mock()
        monkeypatch.setattr(Database, "erase_deleted", again)
        assert page_index.verify().clean
    with PageIndex.open(gossip.folder, SETTINGS, writable=True):
        assert not again.called


def test_removing_and_replacing_never_changes_another_pages_id(page_index):
    for number in range(6):
        put(page_index, f"{number}.pdf", seed=number)
        page_index.commit()
    query = page(3, 2).vectors

    def ids():
        hits = page_index.search(99, vectors=query, mode="visual")
        return {(hit.document, hit.page): (hit.page_id, round(hit.score, 4)) for hit in hits}

    before = ids()
    page_index.remove("[15].pdf")
    put(page_index, "2.pdf", seed=22)
    page_index.commit()
    kept = {key: value for key, value in before.items() if key[0] in ("0.pdf", "3.pdf", "4.pdf")}
    for _ in range(2):
        now = ids()
        assert kept.items() <= now.items()
        new = {now[key][0] for key in now.keys() - kept.keys()}
        assert len(new) == 3 and new.isdisjoint(page_id for page_id, _ in before.values())
        page_index.compact()


def test_text_can_be_replaced_afterwards(page_index):
    page_index.begin_document(document("scan.pdf", n_pages=1))
    page_index.add_page("scan.pdf", page(0, 1, text=""))
    page_index.commit()
    assert page_index.pages_by_text_class("missing", "garbage") == (("scan.pdf", 1),)
    page_index.set_text("scan.pdf", 1, "領収書 receipt", "ocr")
    page_index.commit()
    assert page_index.pages_by_text_class("missing", "garbage") == ()
    assert page_index.search(1, text="領収", mode="text")[0].document == "scan.pdf"
    assert page_index.page("scan.pdf", 1).text == "領収書 receipt"
    assert page_index.verify().clean


def test_pages_are_found_by_the_name_and_the_title_of_their_document(page_index):
    """Also pages without text, and under each spelling of the path; never by the suffix."""
    begun = document("2024/sales-report_q3.pdf", 5, 2, title="Annual Review of the Orchard")
    page_index.begin_document(begun)
    page_index.add_page(begun.name, page(5, 1))
    page_index.add_page(begun.name, page(5, 2, text=""))
    page_index.finish_document(begun.name)
    page_index.commit()
    for words in ("sales report", "2024 Q3", "orchard"):
        found = page_index.search(9, text=words, mode="text")
        assert {(hit.document, hit.page) for hit in found} == {(begun.name, 1), (begun.name, 2)}
    assert page_index.search(9, text="pdf", mode="text") == ()
    page_index.set_text(begun.name, 2, "read later by OCR", "ocr")
    page_index.commit()
    assert len(page_index.search(9, text="orchard", mode="text")) == 2
    assert page_index.verify().clean
    page_index.remove(begun.name)
    assert page_index.search(9, text="orchard", mode="text") == ()
    assert page_index.verify().clean


def test_pages_are_found_by_the_names_a_document_has_now(page_index):
    """Another copy adds its name; a name that is removed is found no longer."""
    put(page_index, "quarterly/orchid.pdf", seed=5)
    page_index.commit()
    put(page_index, "moved/walrus.pdf", seed=5)
    page_index.commit()

    def n_found(words):
        return len(page_index.search(9, text=words, mode="text"))

    assert n_found("orchid") == n_found("walrus") == 3
    page_index.remove("quarterly/orchid.pdf")
    assert (n_found("orchid"), n_found("walrus")) == (0, 3)
    assert page_index.verify().clean
    put(page_index, "moved/walrus.pdf", seed=6)  # other bytes under the name
    page_index.commit()
    assert n_found("walrus") == 3
    assert page_index.verify().clean


def test_a_database_that_may_not_be_read_is_not_called_damaged(page_index):
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorname = "SQLITE_CANTOPEN"
    with pytest.raises(IndexReadOnly, match="see who may read"), page_index._database.errors():
        raise error


def test_text_that_is_garbage_is_kept_but_not_searched(page_index):
    page_index.begin_document(document("a.pdf", n_pages=1))
    broken = dataclasses.replace(page(0, 1, text="qx zk"), text_class="garbage")
    page_index.add_page("a.pdf", broken)
    page_index.commit()
    assert page_index.search(1, text="qx", mode="text") == ()
    assert page_index.page("a.pdf", 1).text == "qx zk"


def test_a_page_record_shows_what_was_stored(page_index):
    put(page_index, "a.pdf")
    page_index.commit()
    record = page_index.pages("a.pdf")[1]
    assert (record.number, record.rows, record.cols, record.text_class) == (2, 3, 4, "healthy")
    assert record.n_vectors == len(page(0, 2).vectors)
    with open(record.thumbnail, "rb") as file:
        assert file.read() == b"thumbnail 0 2"


@pytest.mark.parametrize(
    ("vectors", "cells"),
    [
        (np.zeros((0, 16), np.float32), []),
        (np.zeros((2, 8), np.float32), [0, 1]),
        (np.full((1, 16), np.nan, np.float32), [0]),
        (np.ones((2, 16), np.float32), [0]),
        (np.ones((1, 16), np.float32), [12]),
        (np.ones((2**16 + 1, 16), np.float32), [0] * (2**16 + 1)),
    ],
)
def test_misshapen_vectors_are_refused(page_index, vectors, cells):
    page_index.begin_document(document("a.pdf"))
    grid = PatchGrid(3, 4, np.array(cells, np.int32))
    wrong = dataclasses.replace(page(0, 1), vectors=vectors, grid=grid)
    with pytest.raises(ShapeMismatch, match="page 1"):
        page_index.add_page("a.pdf", wrong)


def test_unknown_documents_and_pages_are_named(page_index):
    put(page_index, "a.pdf")
    page_index.commit()
    with pytest.raises(DocumentUnknown, match="nope.pdf"):
        page_index.pages("nope.pdf")
    with pytest.raises(DocumentUnknown, match="page 9"):
        page_index.page("a.pdf", 9)
    with pytest.raises(DocumentUnknown, match="begin_document"):
        page_index.add_page("nope.pdf", page(0, 1))
    with pytest.raises(DocumentUnknown, match="page 7 of a document of 3"):
        page_index.add_page("a.pdf", page(0, 7))
    with pytest.raises(DocumentUnknown, match="commit it first"):
        page_index.begin_document(document("b.pdf", seed=5))
        page_index.set_text("b.pdf", 1, "x", "ocr")


def test_a_name_that_is_not_unicode_is_refused(page_index):
    with pytest.raises(FilterError, match="not Unicode"):
        page_index.begin_document(document("caf\udce9.pdf"))
    with pytest.raises(FilterError, match="not Unicode"):
        page_index.fail_document("caf\udce9.pdf", "x")
    page_index.begin_document(document("cafe.pdf", source="/in/caf\udce9.pdf"))
    assert page_index.documents()[0].source == "/in/caf\\udce9.pdf"


def test_a_reader_changes_nothing(page_index):
    put(page_index, "a.pdf")
    page_index.commit()
    with PageIndex.open(page_index.folder) as reader, pytest.raises(IndexReadOnly):
        reader.remove("a.pdf")


def test_many_commits_leave_few_segments_and_the_same_answers(tmp_path):
    tuning = Tuning(merge_factor=3)
    with PageIndex.open(tmp_path, SETTINGS, writable=True, tuning=tuning) as page_index:
        for seed in range(40):
            put(page_index, f"{seed}.pdf", seed=seed, n_pages=1)
            page_index.commit()
        assert page_index.stats().segments <= 8
        before = page_index.search(40, vectors=page(7, 1).vectors, mode="visual")
        page_index.compact()
        assert page_index.stats().segments == 1
        after = page_index.search(40, vectors=page(7, 1).vectors, mode="visual")
        assert [hit.page_id for hit in after] == [hit.page_id for hit in before]
        assert [hit.score for hit in after] == pytest.approx([hit.score for hit in before])
        assert page_index.verify().clean


def test_a_long_ingest_joins_what_fits_though_ten_would_be_too_many(tmp_path):
    """Otherwise there are hundreds of segments at its end, three open files each."""
    tuning = Tuning(merge_factor=4, merge_now_pages=6)
    with PageIndex.open(tmp_path, SETTINGS, writable=True, tuning=tuning) as page_index:
        for seed in range(24):
            put(page_index, f"{seed}.pdf", seed=seed, n_pages=2)
            page_index.commit()
        sizes = [s.info.n_pages for s in page_index._finder.snapshot().segments]
        assert max(sizes) <= 6
        assert len(sizes) <= 48 / 6 + 4
        assert page_index.verify().clean


def test_what_is_merged_while_it_is_verified_is_no_damage(tmp_path, monkeypatch):
    check, writers = Verifier._check_segment, []

    def after_a_merge(self, info):
        if writers:
            writers.pop().compact()
        return check(self, info)

    monkeypatch.setattr(Verifier, "_check_segment", after_a_merge)
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as writer:
        for seed in range(3):
            put(writer, f"{seed}.pdf", seed=seed, n_pages=2)
            writer.commit()
        writer.remove("1.pdf")
        with PageIndex.open(tmp_path) as reader:
            writers.append(writer)
            found = reader.verify()
            assert found.clean, found.damage
            assert not writers
            shutil.rmtree(next((tmp_path / "segments").iterdir()))
            assert not reader.verify().clean


def test_segments_too_large_to_become_one_are_joined_as_far_as_they_fit(tmp_path):
    tuning = Tuning(merge_factor=4, merge_now_pages=1, max_segment_pages=5)
    with PageIndex.open(tmp_path, SETTINGS, writable=True, tuning=tuning) as page_index:
        for seed in range(4):
            put(page_index, f"{seed}.pdf", seed=seed, n_pages=2)
            page_index.commit()
        assert page_index.stats().segments == 4
        before = page_index.search(8, vectors=page(2, 1).vectors, mode="visual")
        page_index.maintain()
        assert page_index.stats().segments == 2
        after = page_index.search(8, vectors=page(2, 1).vectors, mode="visual")
        assert [hit.page_id for hit in after] == [hit.page_id for hit in before]
        page_index.maintain()
        assert page_index.stats().segments == 2


def test_vectors_take_at_most_a_tenth_more_than_130_bytes(tmp_path):
    settings = dataclasses.replace(SETTINGS, dim=128)
    tuning = Tuning(train_pages=100)
    with PageIndex.open(tmp_path, settings, writable=True, tuning=tuning) as page_index:
        page_index.begin_document(document("a.pdf", n_pages=300))
        generator = np.random.default_rng(0)
        for number in range(1, 301):
            vectors = unit(generator, 16, 128)[generator.integers(0, 16, 128)]
            grid = PatchGrid.full(8, 16)
            made = dataclasses.replace(page(0, number, text="x"), vectors=vectors, grid=grid)
            page_index.add_page("a.pdf", dataclasses.replace(made, thumbnail=None))
        page_index.commit()
        page_index.maintain()
        stats = page_index.compact()
    assert stats.codebook is not None
    assert stats.bytes["total"] <= 1.1 * 130 * stats.vectors


def test_an_index_is_found_by_a_relative_path(tmp_path, monkeypatch):
    # The default, `.yomu`, is relative: SQLite's URI needs the whole path.
    monkeypatch.chdir(tmp_path)
    with PageIndex.open(Path(".yomu"), SETTINGS, writable=True) as page_index:
        put(page_index, "a.pdf")
        page_index.commit()
    with PageIndex.open(Path(".yomu")) as reader:
        assert best(reader, 0) == ("a.pdf", 1)


def without_residuals(folder):
    """Make every segment one of the first format, which knew only sets of centroids."""
    with contextlib.closing(Database(folder / "index.db", writable=True)) as database:
        with database.transaction() as sql:
            infos = [SegmentInfo(*row) for row in database.checked("segments")]
            sql.execute("DELETE FROM segments")
            for info in infos:
                path = folder / "segments" / info.id
                (path / "residuals.npy").unlink()
                manifest = json.loads((path / "manifest.json").read_text())
                del manifest["files"]["residuals.npy"]
                data = json.dumps(manifest).encode()
                (path / "manifest.json").write_bytes(data)
                sha256 = hashlib.sha256(data).hexdigest()
                insert_segment(database, dataclasses.replace(info, manifest_sha256=sha256))


def test_an_index_from_before_residuals_is_searched_and_brought_up_to_date(tmp_path):
    tuning = Tuning(exact_pages=4, n_probe=4, n_candidates=12, train_pages=8)
    with PageIndex.open(tmp_path, SETTINGS, writable=True, tuning=tuning) as page_index:
        for seed in range(6):
            put(page_index, f"{seed}.pdf", seed, n_pages=5)
        page_index.compact()
    assert len(list(tmp_path.glob("segments/*/residuals.npy"))) == 1
    without_residuals(tmp_path)
    with PageIndex.open(tmp_path, SETTINGS, writable=True, tuning=tuning) as page_index:
        for step in range(2):
            assert len(list(tmp_path.glob("segments/*/residuals.npy"))) == step
            for seed in range(6):
                hits = page_index.search(1, vectors=page(seed, 3).vectors, mode="visual")
                assert (hits[0].document, hits[0].page) == (f"{seed}.pdf", 3)
            page_index.maintain()
        assert page_index.verify().clean


def begin_again(page_index, name="a.pdf"):
    page_index.read_again(name)
    return page_index.begin_document(document(name))


def test_reading_again_keeps_the_old_pages_until_all_are_there(page_index):
    put(page_index, "a.pdf")
    put(page_index, "copy.pdf")
    page_index.commit()
    sha256 = page_index.documents()[0].sha256
    resume = begin_again(page_index)
    assert (resume.status, resume.done) == ("new", frozenset())
    page_index.add_page("a.pdf", page(0, 1))
    page_index.fail_page("a.pdf", 2, "unreadable")
    page_index.finish_document("a.pdf")
    page_index.commit()
    assert [len(page_index.pages(name)) for name in ("a.pdf", "copy.pdf")] == [3, 3]
    assert best(page_index, 0, 3)
    record, other = page_index.documents()
    assert (record.status, record.sha256, other.sha256) == ("partial", sha256, sha256)

    assert begin_again(page_index).done == {1}  # goes on with what is missing
    assert put(page_index, "a.pdf") == "complete"
    page_index.commit()
    assert [each.status for each in page_index.documents()] == ["complete"] * 2
    assert page_index.documents()[0].same_as == ("copy.pdf",)
    assert page_index.stats().pages == 3
    assert page_index.failures() == ()
    assert page_index.begin_document(document("copy.pdf")).unchanged
    assert page_index.verify().clean


def test_other_names_of_a_document_that_was_read_again_still_find_it(page_index):
    put(page_index, "a.pdf")
    put(page_index, "walnut.pdf")
    page_index.commit()
    begin_again(page_index)
    assert put(page_index, "a.pdf") == "complete"
    page_index.begin_document(document("walnut.pdf"))
    page_index.commit()
    assert len(page_index.search(9, text="walnut", mode="text")) == 3
    assert page_index.verify().clean


def test_only_a_known_document_is_read_again(page_index):
    with pytest.raises(DocumentUnknown):
        page_index.read_again("a.pdf")


def test_reading_a_failed_document_again_changes_nothing(page_index):
    page_index.fail_document("a.pdf", "encrypted")
    page_index.read_again("a.pdf")
    assert [(each.name, each.status) for each in page_index.documents()] == [("a.pdf", "failed")]
