"""Searches: filters, candidates, hybrid, heatmaps, and a model of the whole index."""

import dataclasses
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from index.codec import Int8
from index.errors import FilterError, ShapeMismatch
from index.fusion import DEFAULT
from index.page_index import PageIndex, by_document
from index.records import Filters, PatchGrid, Tuning
from tests.unit.index_data import DIM, SETTINGS, document, page, put, unit

# Small enough that a handful of pages goes through centroids, postings, retraining and merges.
EAGER = Tuning(
    exact_pages=4,
    n_probe=4,
    n_candidates=6,
    train_pages=8,
    retrain_growth=3,
    merge_factor=3,
    merge_now_pages=30,
)


@pytest.fixture
def page_index(tmp_path):
    with PageIndex.open(tmp_path / "index", SETTINGS, writable=True) as opened:
        put(opened, "en/a.pdf", seed=1, language="en", date="2024-01-31")
        put(opened, "ja/b.pdf", seed=2, language="ja", date="2024-02-01")
        put(opened, "ja/old/c.pdf", seed=3, language="ja", date="2020-12-31")
        opened.commit()
        yield opened


def found(page_index, filters, mode="visual", k=99):
    query = page(1, 1).vectors
    hits = page_index.search(k, vectors=query, text="common", mode=mode, filters=filters)
    return {hit.document for hit in hits}


@pytest.mark.parametrize("mode", ["visual", "text", "hybrid"])
@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        (Filters(), "abc"),
        (Filters(document="*.pdf"), "abc"),
        (Filters(document="ja/*"), "bc"),
        (Filters(document="en/a.pdf"), "a"),
        (Filters(folder="ja/old"), "c"),
        (Filters(folder="ja/"), "bc"),
        (Filters(folder="j"), ""),
        (Filters(date_from="2024-02-01"), "b"),
        (Filters(date_to="2024-01-31"), "ac"),
        (Filters(date_from="2021-01-01", date_to="2024-01-31"), "a"),
        (Filters(date_from="20240131", date_to="2024-01-31"), "a"),
        (Filters(document="./ja/*"), "bc"),
        (Filters(folder="./ja/old"), "c"),
        (Filters(folder="./"), "abc"),
        (Filters(language="JA"), "bc"),
        (Filters(language="ja", document="*c.pdf"), "c"),
        (Filters(language="fr"), ""),
    ],
)
def test_filters_leave_only_what_they_name(page_index, filters, wanted, mode):
    assert {name[-5] for name in found(page_index, filters, mode)} == set(wanted)


def test_filters_are_applied_before_ranking(page_index):
    """The best page of the filtered document is found however far down it would rank."""
    assert found(page_index, Filters(folder="ja/old"), k=1) == {"ja/old/c.pdf"}


@pytest.mark.parametrize("day", ["31.01.2024", "2024-13-01", "yesterday"])
def test_a_date_that_is_none_is_refused(page_index, day):
    with pytest.raises(FilterError, match="YYYY-MM-DD"):
        found(page_index, Filters(date_from=day))


def test_days_the_wrong_way_round_are_refused(page_index):
    with pytest.raises(FilterError, match="2024-04-01 is after 2024-03-31"):
        found(page_index, Filters(date_from="2024-04-01", date_to="20240331"))
    with pytest.raises(FilterError, match="'' is no date"):
        found(page_index, Filters(date_from=""))


def test_the_date_of_a_document_is_that_of_its_last_change_where_it_is_read(
    page_index, monkeypatch
):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        put(page_index, "d.pdf", seed=4, modified=1711839600.0)  # 2024-03-31 08:00 in Tokyo
    finally:
        monkeypatch.undo()
        time.tzset()
    page_index.commit()
    assert found(page_index, Filters(date_from="2024-03-31", date_to="2024-03-31")) == {"d.pdf"}


def test_names_are_matched_however_their_letters_are_composed(page_index):
    composed, decomposed = "caf\u00e9/\u30d7.pdf", "cafe\u0301/\u30d5\u309a.pdf"
    put(page_index, composed, seed=4)
    page_index.commit()
    assert found(page_index, Filters(document=decomposed)) == {composed}
    assert found(page_index, Filters(folder="cafe\u0301")) == {composed}
    assert [each.name for each in page_index.documents("*\u30d5\u309a*")] == [composed]
    assert page_index.remove("./cafe\u0301/*") == (composed,)
    put(page_index, decomposed, seed=5)  # no name that ingest gives
    page_index.commit()
    assert page_index.document(decomposed).name == decomposed


@pytest.mark.parametrize("name", ["document", "folder", "language"])
def test_a_filter_of_bytes_that_are_no_text_is_refused(page_index, name):
    with pytest.raises(FilterError, match=r"'\\udcff\*' is not valid Unicode"):
        found(page_index, Filters(**{name: "\udcff*"}))
    with pytest.raises(FilterError, match="not valid Unicode"):
        page_index.documents("\udcff*")
    with pytest.raises(FilterError, match="not valid Unicode"):
        page_index.remove("\udcff*")


def test_a_search_that_cannot_be_meant_is_refused(page_index):
    query = page(1, 1).vectors
    with pytest.raises(FilterError, match="0 hits"):
        page_index.search(0, vectors=query, mode="visual")
    with pytest.raises(FilterError, match="vectors"):
        page_index.search(1, text="x")
    with pytest.raises(FilterError, match="as text"):
        page_index.search(1, vectors=query)
    with pytest.raises(FilterError, match="not valid Unicode"):
        page_index.search(1, text="half \ud800", mode="text")
    with pytest.raises(FilterError, match="mode 'both'"):
        page_index.search(1, vectors=query, mode="both")
    for wrong in (np.zeros((2, 3), np.float32), query[:0], np.full((1, DIM), np.inf, np.float32)):
        with pytest.raises(ShapeMismatch):
            page_index.search(1, vectors=wrong, mode="visual")


@pytest.mark.parametrize("mode", ["visual", "text", "hybrid"])
def test_an_empty_index_has_no_hits(tmp_path, mode):
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as empty:
        assert empty.search(5, vectors=page(0, 1).vectors, text="anything", mode=mode) == ()


@pytest.mark.parametrize("text", ["", "   ", "?!…", '" OR NEAR( *', "unheard-of"])
def test_a_question_without_a_known_word_has_no_text_hits(page_index, text):
    assert page_index.search(5, text=text, mode="text") == ()
    hybrid = page_index.search(9, vectors=page(2, 1).vectors, text=text, mode="hybrid")
    visual = page_index.search(9, vectors=page(2, 1).vectors, mode="visual")
    assert [hit.page_id for hit in hybrid] == [hit.page_id for hit in visual]


def test_words_with_accents_are_found_however_they_are_written(tmp_path):
    with PageIndex.open(tmp_path / "index", SETTINGS, writable=True) as made:
        made.begin_document(document("a.pdf", 1, 1))
        made.add_page("a.pdf", page(1, 1, text="Das Büro in Zürich ist am See in kyūshū"))
        made.finish_document("a.pdf")
        made.commit()
        for asked in ("Zürich", "zurich", "Zu\u0308rich", "Büro", "kyushu", "kyūshū"):
            (hit,) = made.search(5, text=asked, mode="text")
            assert hit.page == 1, asked


def test_hybrid_finds_what_either_ranking_finds(page_index):
    """Words alone, pixels alone: both put their page first."""
    far = unit(np.random.default_rng(5), 4, DIM) * 0.01
    by_words = page_index.search(1, vectors=far, text="content3 page2")[0]
    assert (by_words.document, by_words.page) == ("ja/old/c.pdf", 2)
    by_pixels = page_index.search(1, vectors=page(2, 3).vectors, text="common")[0]
    assert (by_pixels.document, by_pixels.page) == ("ja/b.pdf", 3)
    assert 0 <= by_words.score <= 1 and by_words.text > 0 and by_pixels.visual > 0


def written(page_index, name, seed, *texts):
    """Add a document of such pages; "" is a scan, "~" before a text says that it is thin."""
    page_index.begin_document(document(name, seed, len(texts)))
    for number, text in enumerate(texts, 1):
        added = page(seed, number, text=text.lstrip("~"))
        if text.startswith("~"):
            added = dataclasses.replace(added, text_class="thin")
        page_index.add_page(name, added)
    page_index.finish_document(name)


def best(page_index, text, seed=None, number=1, **more):
    """The best page of hybrid search; its image is that of page `number` of `seed`, or of none."""
    far = unit(np.random.default_rng(5), 4, DIM) * 0.01
    vectors = far if seed is None else page(seed, number).vectors
    return page_index.search(1, vectors=vectors, text=text, mode="hybrid", **more)[0]


@pytest.mark.parametrize("scan", ["", "~page 1"])
def test_a_scan_is_found_by_its_image_where_other_texts_share_a_word(page_index, scan):
    written(page_index, "scan.pdf", 7, scan)
    page_index.commit()
    assert best(page_index, "common page1", seed=7).document == "scan.pdf"
    assert best(page_index, "content3 page2").document == "ja/old/c.pdf"


def test_a_folder_of_scans_is_not_said_to_hold_nothing(tmp_path):
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as scans:
        written(scans, "scans.pdf", 7, "", "", "")
        scans.commit()
        hit = best(scans, "anything at all", seed=7, number=2)
        assert hit.page == 2 and DEFAULT.answers(hit.score)


def test_words_that_mean_nothing_are_no_evidence(tmp_path):
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as few:
        filler = ("what is the of this and that", "boats", "crew", "port", "sail")
        written(few, "a.pdf", 7, *filler, "the kettle holds two litres")
        few.commit()
        bare = best(few, "kettle litres").score
        assert best(few, "Could you please tell me: kettle litres?").score == pytest.approx(bare)
        assert DEFAULT.answers(bare)
        assert not DEFAULT.answers(best(few, "What is the capital of Mongolia?").score)
        assert (
            best(few, "Why is this?").page == 1
        )  # they rank all the same, where nothing else does


def test_of_two_subjects_the_one_with_a_name_may_stand_behind_the_other(tmp_path):
    offices = [f"{3 * 'the office for licences of a company, '}{n} in number" for n in range(6)]
    sea = [f"boats on the sea, {n} in number" for n in range(30)]
    long = f"Globex {'and the wind on the sea ' * 20}"  # ranked behind every office
    question = "What is the office for licences of a company, and what is {}?"
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as made:
        written(made, "offices.pdf", 7, *offices, *sea, long)
        made.commit()
        assert DEFAULT.answers(best(made, question.format("Globex")).score)
        assert not DEFAULT.answers(best(made, question.format("Acme")).score)


def test_figures_of_another_year_are_no_answer(tmp_path):
    question = "What was the revenue of {}?"
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as made:
        written(made, "a.pdf", 7, "annual report 2023", "revenue 900", "boats", "crew")
        written(made, "scan.pdf", 8, "", "~revenue of the year")
        made.commit()
        for year in ("2023", "FY23", "the year"):
            assert DEFAULT.answers(best(made, question.format(year)).score), year
        for year in ("2024", "FY24"):
            assert not DEFAULT.answers(best(made, question.format(year)).score), year
        hit = best(made, question.format("2024"), seed=8, number=1)
        assert hit.document == "scan.pdf" and DEFAULT.answers(hit.score), "it may be there"


def test_a_word_that_no_page_has_counts_against_a_question_but_not_alone(page_index):
    known = best(page_index, "content3 page2 old").score
    unknown = best(page_index, "content3 page2 old warranty").score
    assert DEFAULT.answers(unknown) and unknown < known
    with_many = best(page_index, "content3 warranty dishwasher repair spare parts").score
    assert not DEFAULT.answers(with_many)


def test_officers_of_one_company_are_not_those_of_another(tmp_path):
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as made:
        others = (
            f"{word} on the sea" for word in ("boats", "crew", "port", "sail", "wind", "fish")
        )
        written(
            made, "acme.pdf", 7, "chief financial officer and president, elected yearly", *others
        )
        made.commit()
        question = "Who is the chief financial officer and president, elected yearly, of {}?"
        assert DEFAULT.answers(best(made, question.format("Acme")).score), "the file's name has it"
        assert not DEFAULT.answers(best(made, question.format("Globex")).score)
        written(made, "scan.pdf", 8, "")
        made.commit()
        assert DEFAULT.answers(best(made, question.format("Globex"), seed=8).score), "may show it"


def test_joints_of_japanese_words_do_not_count_against_a_question(tmp_path):
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as made:
        made.begin_document(document("a.pdf", n_pages=1))
        made.add_page("a.pdf", page(0, 1, text="宿泊(泊) 合計 69,200"))
        made.finish_document("a.pdf")
        made.commit()
        query = unit(np.random.default_rng(0), 4, DIM)
        plain, asked, other = (
            made.search(1, vectors=query, text=text)[0].score
            for text in ("宿泊 合計", "宿泊の合計は", "宿泊の収益は")
        )
    assert asked == pytest.approx(plain)
    assert other < asked, "a word that no page has does count"


def test_in_a_single_page_one_unknown_word_does_not_decide(tmp_path):
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as one:
        written(one, "invoice.pdf", 7, "Invoice 3187 Total 45.00 euro due on 1 May")
        one.commit()
        assert DEFAULT.answers(best(one, "What is the total amount of the invoice?").score)
        assert not DEFAULT.answers(best(one, "What is the capital of Australia?").score)


def test_documents_rank_by_their_best_page(page_index):
    hits = page_index.search(9, vectors=page(2, 3).vectors, mode="visual")
    documents = by_document(hits)
    assert documents[0].document == "ja/b.pdf" and documents[0].pages[0].page == 3
    assert [d.score for d in documents] == sorted((d.score for d in documents), reverse=True)
    assert sum(len(d.pages) for d in documents) == 9


def test_patch_scores_lie_where_the_vectors_came_from(tmp_path):
    for factor in (1, 2):
        settings = dataclasses.replace(SETTINGS, pool_factor=factor)
        with PageIndex.open(tmp_path / str(factor), settings, writable=True) as page_index:
            a, b = np.eye(DIM, dtype=np.float32)[:2]
            prompt = -np.ones(DIM, np.float32) / 4
            mask = np.array([[True, False, True], [False, True, True]])
            grid = PatchGrid.kept(mask)
            grid = dataclasses.replace(grid, cells=np.append(np.int32(-1), grid.cells))
            vectors = np.stack([prompt, a, b, a, b])
            made = dataclasses.replace(page(0, 1), vectors=vectors, grid=grid)
            page_index.begin_document(document("a.pdf", n_pages=1))
            page_index.add_page("a.pdf", made)
            page_index.commit()
            scores = page_index.patch_scores(np.stack([a, b]), "a.pdf", 1).scores
        nan = np.nan
        wanted = [[[1, nan, 0], [nan, 1, 0]], [[0, nan, 1], [nan, 0, 1]]]
        np.testing.assert_allclose(scores, wanted, atol=0.01)


def test_patch_scores_of_an_overview_cover_what_its_cells_cover(page_index):
    up, half, none = np.eye(DIM, dtype=np.float32)[:3]
    half = (up + half) / np.sqrt(np.float32(2))
    # 4 x 2 cells, of which two in the first row were encoded; an overview of 2 x 1 beside them
    grid = PatchGrid(4, 2, np.array([0, 1, 8, 9], np.int32), (2, 1))
    made = dataclasses.replace(page(0, 1), vectors=np.stack([up, none, half, half]), grid=grid)
    page_index.begin_document(document("a.pdf", seed=90, n_pages=1))
    page_index.add_page("a.pdf", made)
    page_index.commit()
    scores = page_index.patch_scores(up[None], "a.pdf", 1).scores
    share = np.sqrt(0.5)
    wanted = [[[1, share], [share, share], [share, share], [share, share]]]
    np.testing.assert_allclose(scores, wanted, atol=0.01)
    outside = dataclasses.replace(grid, cells=np.array([0, 1, 8, 10], np.int32))
    page_index.begin_document(document("b.pdf", seed=91, n_pages=1))
    with pytest.raises(ShapeMismatch, match="page 1"):
        page_index.add_page("b.pdf", dataclasses.replace(made, grid=outside))


def test_images_alone_are_ranked_by_sharpened_matches_where_the_model_says_so(tmp_path):
    """Full matches side by side before many faint ones, and before full ones far from another.

    Where vectors are pooled too: these are given as often as the factor says.
    """
    query, none = np.eye(DIM, dtype=np.float32)[:5], np.eye(DIM, dtype=np.float32)[7]
    a, b = query[:2]
    faint = query.sum(0) / np.sqrt(np.float32(5))
    shown = {"faint.pdf": [faint, none, none], "apart.pdf": [b, none, a]}
    shown |= {"beside.pdf": [a, b, none], "other.pdf": [none, none, none]}
    sharp = dataclasses.replace(DEFAULT, sharpness=2.0)
    for factor in (1, 2):
        settings = dataclasses.replace(SETTINGS, pool_factor=factor)
        with PageIndex.open(tmp_path / str(factor), settings, writable=True) as made:
            assert made.search(3, vectors=query, text="?", mode="visual", fusion=sharp) == ()
            for seed, (name, vectors) in enumerate(shown.items()):
                made.begin_document(document(name, seed, n_pages=1))
                grid = PatchGrid.full(1, factor * len(vectors))
                pooled = np.repeat(np.stack(vectors), factor, axis=0)
                given = dataclasses.replace(page(seed, 1), vectors=pooled, grid=grid)
                made.add_page(name, given)
                made.finish_document(name)
            made.commit()
            plain = made.search(4, vectors=query, text="?", mode="visual")
            found = made.search(4, vectors=query, text="?", mode="visual", fusion=sharp)
            image = made.search(4, vectors=query, mode="visual", fusion=sharp)
            alone = made.search(1, vectors=query[:1], text="?", mode="visual", fusion=sharp)
        assert image == plain, "an image has no words to weigh"
        assert alone[0].document in ("apart.pdf", "beside.pdf")
        assert [hit.document for hit in plain] == [*shown]
        assert [hit.document for hit in found][0] == "beside.pdf"
        assert found[0].score > 1.5 * found[1].score
        assert found[0].visual == plain[2].score


@pytest.mark.parametrize("mode", ["visual", "hybrid"])
def test_a_search_compares_each_page_once(page_index, monkeypatch, mode):
    """Ranking, what is ordinary, neighbouring words: all of it from one reading of a page."""
    compared, real = [], Int8.similarities
    monkeypatch.setattr(
        Int8, "similarities", lambda *given: compared.append(len(given[2])) or real(*given)
    )
    sharp = dataclasses.replace(DEFAULT, sharpness=2.0)
    given = {"vectors": page(1, 1).vectors, "text": "common", "fusion": sharp}
    hits = page_index.search(99, mode=mode, **given)
    assert len(hits) == 9 and sum(compared) == page_index.stats().vectors


def test_scores_of_very_many_pages_are_the_same_without_their_matches(page_index, monkeypatch):
    query = page(1, 1).vectors
    wanted = page_index.search(99, vectors=query, mode="visual")
    monkeypatch.setattr("index.ranking.MOST_REMEMBERED", 3)
    assert page_index.search(99, vectors=query, mode="visual") == wanted
    sharp = dataclasses.replace(DEFAULT, sharpness=2.0)
    hits = page_index.search(2, vectors=query, text="?", mode="visual", fusion=sharp)
    assert hits[0].page_id == wanted[0].page_id


def test_pages_that_sharpening_does_not_tell_apart_stand_as_maxsim_has_them(tmp_path):
    a, b, c, d = np.eye(DIM, dtype=np.float32)[:4]
    sharp = dataclasses.replace(DEFAULT, sharpness=2.0)
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as made:
        for seed, vectors in enumerate([[c, d], [a, d], [a, b], [b, a]]):
            name = f"{seed}.pdf"
            made.begin_document(document(name, seed, n_pages=1))
            grid = PatchGrid.full(1, len(vectors))
            made.add_page(
                name, dataclasses.replace(page(seed, 1), vectors=np.stack(vectors), grid=grid)
            )
            made.finish_document(name)
        made.commit()
        query = np.stack([a, b])
        plain = made.search(9, vectors=query, text="?", mode="visual")
        found = made.search(9, vectors=query, text="?", mode="visual", fusion=sharp)
    assert [hit.document for hit in found] == [hit.document for hit in plain]
    assert [hit.document for hit in found][-1] == "0.pdf"


def test_scores_of_a_batch_and_of_one_page_alone_agree(page_index):
    query = unit(np.random.default_rng(0), 7, DIM)
    for hit in page_index.search(9, vectors=query, mode="visual"):
        scores = page_index.patch_scores(query, hit.document, hit.page).scores
        assert np.nanmax(scores, axis=(1, 2)).sum() == pytest.approx(hit.score, abs=1e-5)


def test_candidates_and_a_full_scan_agree_where_every_page_is_a_candidate(tmp_path):
    tuning = dataclasses.replace(EAGER, n_candidates=500, n_probe=64)
    with PageIndex.open(tmp_path, SETTINGS, writable=True, tuning=tuning) as page_index:
        put(page_index, "big.pdf", seed=1, n_pages=300)
        page_index.commit()
        put(page_index, "small.pdf", seed=2, n_pages=30)
        page_index.maintain()
        query = unit(np.random.default_rng(3), 6, DIM)
        exact = page_index.search(330, vectors=query, mode="visual", exact=True)
        assert page_index.search(330, vectors=query, mode="visual") == exact
        assert len(exact) == 330
        ranked = sorted(exact, key=lambda hit: (-round(hit.score, 5), hit.page_id))
        assert list(exact) == ranked


@pytest.mark.parametrize("n_probe", [4, None])
def test_few_candidates_still_find_the_page_that_matches(tmp_path, n_probe):
    tuning = dataclasses.replace(EAGER, n_candidates=30, n_probe=n_probe)
    with PageIndex.open(tmp_path, SETTINGS, writable=True, tuning=tuning) as page_index:
        put(page_index, "big.pdf", seed=1, n_pages=300)
        page_index.maintain()
        assert page_index.stats().codebook
        for number in range(1, 300, 7):
            hits = page_index.search(1, vectors=page(1, number).vectors, mode="visual")
            assert hits[0].page == number


def test_ties_are_broken_by_age_before_and_after_a_merge(tmp_path):
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        same = page(0, 1)
        for number in (3, 1, 2):
            page_index.begin_document(document(f"{number}.pdf", seed=number, n_pages=1))
            page_index.add_page(f"{number}.pdf", same)
            page_index.commit()
        for _ in range(2):
            hits = page_index.search(3, vectors=same.vectors, mode="visual")
            assert [hit.document for hit in hits] == ["3.pdf", "1.pdf", "2.pdf"]
            page_index.compact()


def test_a_search_while_another_thread_writes_sees_whole_states(tmp_path):
    """Documents are replaced and merged all the time; a reader always finds all of its pages."""
    query = page(0, 1).vectors
    with PageIndex.open(tmp_path, SETTINGS, writable=True, tuning=EAGER) as writer:
        put(writer, "a.pdf", seed=0, n_pages=5)
        writer.commit()
        seen, stop = [], threading.Event()

        def read():
            with PageIndex.open(tmp_path, tuning=EAGER) as reader:
                while not stop.is_set():
                    hits = reader.search(99, vectors=query, mode="visual", exact=True)
                    seen.append(sorted(hit.page for hit in hits if hit.document == "a.pdf"))

        thread = threading.Thread(target=read)
        thread.start()
        for seed in range(1, 25):
            put(writer, "a.pdf", seed=seed, n_pages=5)
            put(writer, f"other{seed}.pdf", seed=100 + seed)
            writer.commit()
        stop.set()
        thread.join()
    assert len(seen) > 1
    assert [pages for pages in seen if pages != [1, 2, 3, 4, 5]] == []


class Model(RuleBasedStateMachine):
    """The index against a dictionary: adds, replacements, removals and merges in any order."""

    seeds = st.integers(0, 6)
    names = st.sampled_from(["a.pdf", "b/a.pdf", "b/c.pdf", "d.pdf"])

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.page_index = PageIndex.open(self.folder, SETTINGS, writable=True, tuning=EAGER)
        self.wanted = {}

    def teardown(self):
        self.page_index.close()
        shutil.rmtree(self.folder)

    @rule(name=names, seed=seeds)
    def put(self, name, seed):
        assert put(self.page_index, name, seed=seed, n_pages=seed + 1) == "complete"
        self.page_index.commit()
        self.wanted[name] = seed

    @rule(name=names)
    def remove(self, name):
        removed = self.page_index.remove(name)
        assert removed == ((name,) if self.wanted.pop(name, None) is not None else ())

    @rule(name=names, seed=seeds)
    def begin_only(self, name, seed):
        """An ingest that stops at once: a known document keeps what it shows."""
        if name in self.wanted:
            self.page_index.begin_document(document(name, seed, seed + 1))

    @rule()
    def compact(self):
        self.page_index.compact()

    @rule()
    def maintain(self):
        self.page_index.maintain()

    @rule()
    def reopen(self):
        self.page_index.close()
        self.page_index = PageIndex.open(self.folder, SETTINGS, writable=True, tuning=EAGER)

    @rule(seed=st.integers(0, 99), negative=st.booleans(), k=st.integers(1, 50))
    def search(self, seed, negative, k):
        query = unit(np.random.default_rng(seed), 3, DIM)
        query = -np.abs(query) if negative else query
        hits = self.page_index.search(k, vectors=query, mode="visual", exact=True)
        truth = self.brute_force(query)
        assert len(hits) == min(k, len(truth))
        got = [(hit.score, truth[min([hit.document, *hit.same_as]), hit.page]) for hit in hits]
        assert [a for a, _ in got] == pytest.approx([b for _, b in got], abs=1e-5)
        best = sorted(truth.values(), reverse=True)[: len(hits)]
        assert [score for score, _ in got] == pytest.approx(best, abs=1e-5)

    def brute_force(self, query):
        """float64 MaxSim over what int8 keeps, each content once under its first name."""
        first = {}
        for name, seed in sorted(self.wanted.items()):
            first.setdefault(seed, name)
        codec, scores = Int8(DIM), {}
        for seed, name in first.items():
            for number in range(1, seed + 2):
                stored = codec.decode(codec.encode(page(seed, number).vectors))
                similarities = query.astype(np.float64) @ stored.astype(np.float64).T
                scores[name, number] = similarities.max(axis=1).sum()
        return scores

    @invariant()
    def words_show_the_same_pages(self):
        hits = self.page_index.search(99, text="common", mode="text")
        pages = sum(seed + 1 for seed in set(self.wanted.values()))
        assert len(hits) == pages


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=12, stateful_step_count=12, deadline=None)


def test_centroids_can_be_read_after_pymupdf_was_imported():
    """Both bind std::vector<float> by SWIG; the one imported first owns its Python type."""
    code = (
        "import pymupdf, numpy as np\n"
        "from index.codebook import Codebook\n"
        "points = np.random.default_rng(0).standard_normal((200, 16), np.float32)\n"
        "points /= np.linalg.norm(points, axis=1, keepdims=True)\n"
        "centroids = Codebook.train(1, points, 8).centroids\n"
        "assert centroids.shape == (8, 16)\n"
        "assert np.allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-3)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
