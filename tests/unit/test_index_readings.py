"""What a model itself reads on pages: found by it in mode visual, and kept as whole as the rest."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from index.database import pack_text
from index.fusion import READ_WEIGHT, Fusion, with_reading
from index.page_index import PageIndex
from tests.unit.index_data import DIM, SETTINGS, document, page, unit

SHARP = Fusion(sharpness=2.0)
READ = {1: "Amount due 973.00 EUR", 2: "Table of contents", 3: "花火大会のお知らせ"}


def add(page_index, name, read, seed=0):
    """Add pages that look alike, have no text layer, and of which a model has read something."""
    page_index.begin_document(document(name, seed, len(read)))
    for number, text in read.items():
        own = page(seed, number, text="")
        alike = 1 + 1e-3 * np.random.default_rng(number).standard_normal(own.vectors.shape)
        vectors = (alike / np.linalg.norm(alike, axis=1, keepdims=True)).astype(np.float32)
        found = replace(own, vectors=vectors, read=text)
        page_index.add_page(name, found)
    page_index.finish_document(name)
    page_index.commit()


@pytest.fixture
def page_index(tmp_path):
    with PageIndex.open(tmp_path / "index", SETTINGS, writable=True) as opened:
        add(opened, "scan.pdf", READ)
        yield opened


def best(page_index, question, **more):
    """The page that is found first by images, whose vectors say nothing of the question."""
    vectors = unit(np.random.default_rng(7), 3, DIM)
    hits = page_index.search(3, vectors=vectors, text=question, mode="visual", fusion=SHARP, **more)
    return hits[0].page


@pytest.mark.parametrize(
    ("question", "number"),
    [("What is the amount due?", 1), ("contents", 2), ("花火はいつ", 3)],
)
def test_a_page_is_found_by_what_the_model_read_on_it(page_index, question, number):
    assert best(page_index, question) == number


def test_plain_maxsim_is_left_alone(page_index):
    vectors = unit(np.random.default_rng(7), 3, DIM)
    found = [
        page_index.search(3, vectors=vectors, text=text, mode="visual")
        for text in ("contents", None)
    ]
    assert found[0] == found[1]


def test_what_was_read_goes_with_its_page(page_index):
    add(page_index, "other.pdf", {1: "Amount due 1.00"}, seed=1)
    page_index.remove("scan.pdf")
    sql = page_index._database.sql
    assert sql.execute("SELECT count(*) FROM readings").fetchone() == (1,)
    terms = {term for (term,) in sql.execute("SELECT term FROM reading_counts")}
    assert "amount" in terms and not {"contents", "花火"} & terms
    assert page_index.verify().clean


def test_damage_is_found_and_its_page_read_again(tmp_path):
    folder = tmp_path / "index"
    with PageIndex.open(folder, SETTINGS, writable=True) as opened:
        add(opened, "scan.pdf", READ)
    with closing(sqlite3.connect(folder / "index.db")) as sql:
        sql.create_function("row_crc", -1, lambda *_: 0, deterministic=True)
        sql.execute("UPDATE readings SET text = ? WHERE page = 2", (pack_text("something else"),))
        sql.commit()
    with PageIndex.open(folder, SETTINGS, writable=True) as opened:
        damage = {each.reason for each in opened.verify().damage}
        assert "a row of readings is damaged (page 2)" in damage
        assert opened.mend() == ("scan.pdf",)
        assert opened.verify().clean
        assert opened.begin_document(document("scan.pdf", 0, 3)).done == {1, 3}


def test_an_index_of_an_earlier_version_has_no_such_place(tmp_path):
    folder = tmp_path / "index"
    with PageIndex.open(folder, SETTINGS, writable=True) as opened:
        add(opened, "scan.pdf", {1: "", 2: ""})
        sql = opened._database.sql
        for what in ("TABLE reading_counts", "TABLE reading_index", "VIEW looks", "TABLE readings"):
            sql.execute(f"DROP {what}")
    with PageIndex.open(folder) as reader:
        assert best(reader, "contents") in (1, 2)
        assert reader.verify().clean
    with PageIndex.open(folder, SETTINGS, writable=True) as opened:
        assert opened.verify().clean
        add(opened, "new.pdf", READ, seed=1)
        assert best(opened, "contents") == 2
    with PageIndex.open(folder) as reader:
        assert best(reader, "contents") == 2


def test_readings_add_to_looks_without_leaving_their_scale():
    looks, read = np.array([0.4, 0.3, 0.0]), np.array([0.0, 0.9, 0.4])
    fused = with_reading(looks, read)
    assert fused.argmax() == 1 and 0 <= fused.min() and fused.max() <= 1
    np.testing.assert_allclose(fused[1], (0.3 + READ_WEIGHT * 0.9) / (1 + READ_WEIGHT))
    np.testing.assert_array_equal(with_reading(looks, 0 * read), looks)
