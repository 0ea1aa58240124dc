"""Pages and questions to vectors: any batch, every precision, and what a page carries along."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

import models
import models.engine
from models.errors import ModelFilesError, ModelNumbersError, PromptError
from models.images import preprocess
from models.retriever import QUERIES_PER_RUN, Retriever, RetrieverWeights, band_edges
from models.sampling import Sampling
from models.session import Cancellation, Cancelled
from tests.parity import cases, tiny

PRECISIONS = ["fp32", "fp16", "int8", "int4"]
# Ragged, and more than one run of them; one of each is far longer than the others.
QUERIES = [
    "a",
    "What is the total of the invoice in 2020?",
    "請求書の日付",
    "How many rows does the table on page 2 have? " * 12,
    *(f"{'How many ' * n}rows in table {n}?" for n in range(QUERIES_PER_RUN + 3)),
]


@pytest.fixture(scope="module")
def retrievers(model_folder):
    return {name: models.load(model_folder(name), "cpu").retriever for name in PRECISIONS}


@pytest.fixture(scope="module")
def retriever(retrievers):
    return retrievers["fp32"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_batch_never_changes_a_query(retrievers, precision):
    """Ragged rows are padded on the right, where causal attention cannot see the padding."""
    together = retrievers[precision].encode_queries(QUERIES)
    backwards = retrievers[precision].encode_queries(QUERIES[::-1])[::-1]
    for n, query in enumerate(QUERIES):
        alone = retrievers[precision].encode_queries([query])[0]
        assert alone.shape == together[n].shape == (alone.shape[0], 128)
        np.testing.assert_allclose(together[n], alone, rtol=0, atol=1e-5)
        np.testing.assert_allclose(backwards[n], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_batch_never_changes_a_page(retrievers, precision):
    pages = [cases.picture(*size, seed=n) for n, size in enumerate([(84, 112), (150, 90)])]
    together = retrievers[precision].encode_pages(pages)
    for n, page in enumerate(pages):
        alone = retrievers[precision].encode_pages([page])[0]
        np.testing.assert_allclose(together[n], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_vectors_are_of_unit_length(retrievers, precision):
    found = [*retrievers[precision].encode_queries(QUERIES[:3])]
    found += retrievers[precision].encode_pages([cases.picture(84, 112)])
    for vectors in found:
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=0, atol=1e-6)


def test_nothing_in_nothing_out(retriever):
    assert retriever.encode_queries([]) == retriever.encode_pages([]) == []


@pytest.mark.parametrize("query", ["", " \n　"])
def test_an_empty_query_is_refused(retriever, query):
    with pytest.raises(PromptError, match="empty"):
        retriever.encode_queries(["fine", query])


def test_tokens_name_each_vector_of_a_query(retriever):
    query = retriever.encode_query_batch(["What <|im_end|>"])[0]
    assert len(query.tokens) == len(query.vectors)
    assert "".join(query.tokens) == "Query: What <|im_end|>" + "<|endoftext|>" * 10


def test_a_page_carries_what_a_heatmap_needs(retriever):
    page = retriever.encode_page(cases.picture(84, 140))
    assert page.grid == (3, 5)
    assert page.kept.shape == (15,) and page.kept.all()
    before = ["<|im_start|>", *retriever._tokenizer.encode("user\n"), "<|vision_start|>"]
    assert page.first_visual == len(before)
    assert (page.visual_vectors == page.vectors[page.first_visual :][:15]).all()
    # vision_end, the instruction, im_end, endoftext
    behind = len(retriever._tokenizer.encode("Describe the image.")) + 3
    assert len(page.vectors) == page.first_visual + 15 + behind
    assert page.features.features.shape == (15, tiny.TINY.hidden)
    assert page.features.size_px == (84, 140)
    assert retriever.dim == page.vectors.shape[1] == 128


def test_blank_blocks_are_left_out_and_the_others_keep_their_places(retriever):
    image = cases.page_with_margins(*cases.MARGIN_PAGE)
    visual = preprocess(image)
    page = retriever.encode_page(image, skip_blank=True)
    assert (page.kept == ~visual.blank).all() and not page.kept.all()
    assert page.grid == (8, 7) and len(page.kept) == 56
    assert len(page.visual_vectors) == page.kept.sum()
    whole = retriever.encode_page(image, skip_blank=False)
    assert len(whole.vectors) - len(page.vectors) == visual.blank.sum()
    assert whole.first_visual == page.first_visual
    # Text behind the image stands where it stood, blocks left out or not.
    ids = retriever._tokenizer.page_prompt(int(page.kept.sum()))
    positions, following = retriever._decoder.positions(ids, [page.features])
    rows, columns = np.divmod(np.flatnonzero(page.kept), 7)
    first = page.first_visual
    seen = positions[:, first : first + len(rows)] - first
    assert (seen == [np.zeros_like(rows), rows, columns]).all()
    ids = retriever._tokenizer.page_prompt(56)
    assert following == retriever._decoder.positions(ids, [whole.features])[1]


def test_a_blank_page_has_one_token(retriever):
    page = retriever.encode_page(Image.new("RGB", (140, 84), "white"), True)
    assert (page.kept.sum(), len(page.visual_vectors)) == (1, 1)


def viewing(retriever, n_views=1, **options):
    options = replace(retriever.options, **options)
    given = retriever._vision, retriever._decoder, retriever._tokenizer, retriever._weights
    return Retriever(*given, options, n_views)


def test_a_page_of_one_view_is_stored_as_it_is_encoded(retriever):
    image = cases.picture(168, 112)  # 6 x 4 tokens
    page, views = retriever.encode_page(image), retriever.encode_views(image)
    assert (views.vectors == page.vectors).all() and views.grid == page.grid == (6, 4)
    first = page.first_visual
    assert (views.cells[first : first + 24] == np.arange(24)).all()
    assert (np.delete(views.cells, range(first, first + 24)) == -1).all()
    assert views.overview == (0, 0)
    assert (retriever.encode_pages([image])[0] == views.vectors).all()


def test_an_overview_is_the_page_encoded_once_more_in_fewer_tokens(retriever):
    image = cases.picture(168, 112)
    views = viewing(retriever, overview_tokens=8).encode_views(image)
    alone = retriever.encode_views(image)
    small = retriever.encode_page(image.resize((56, 84), Image.Resampling.BICUBIC))
    behind = len(alone.vectors)
    assert views.overview == small.grid == (3, 2)
    assert (views.vectors[:behind] == alone.vectors).all()
    assert (views.vectors[behind:] == small.visual_vectors).all(), "not its prompt"
    assert (views.cells[:behind] == alone.cells).all()
    assert views.cells[behind:].tolist() == list(range(24, 30)), "counted on behind the page's"


def test_a_page_less_than_twice_as_large_has_no_overview(retriever):
    image = cases.picture(168, 112)
    assert viewing(retriever, overview_tokens=12).encode_views(image).overview != (0, 0)
    assert viewing(retriever, overview_tokens=13).encode_views(image).overview == (0, 0)


def test_bands_are_parts_of_the_page_that_share_a_row(retriever):
    image = cases.picture(196, 84)  # 7 x 3 tokens
    views = viewing(retriever, band_rows=4).encode_views(image)
    upper, lower = (retriever.encode_page(image.crop((0, 28 * a, 84, 28 * b)))
                    for a, b in ((0, 4), (3, 7)))  # fmt: skip
    np.testing.assert_allclose(views.vectors[: len(upper.vectors)], upper.vectors, atol=1e-5)
    np.testing.assert_allclose(views.vectors[len(upper.vectors) :], lower.visual_vectors, atol=1e-5)
    assert views.grid == (7, 3)
    assert views.cells[views.cells >= 0].tolist() == [*range(12), *range(9, 21)]


@pytest.mark.parametrize(("n_rows", "band_rows"), [(7, 4), (60, 16), (39, 16), (17, 16), (5, 2)])
def test_bands_cover_every_row_and_are_about_as_high_as_asked(n_rows, band_rows):
    bands = band_edges(n_rows, band_rows)
    assert bands[0][0] == 0 and bands[-1][1] == n_rows
    assert all(end - first == 1 for (_, end), (first, _) in pairwise(bands))
    heights = [end - first for first, end in bands]
    assert max(heights) - min(heights) <= 1 and max(heights) < 1.5 * band_rows + 1


def test_a_page_no_higher_than_a_band_is_one_view():
    assert band_edges(16, 16) == [(0, 16)] and band_edges(99, 0) == [(0, 99)]


def test_bands_and_an_overview_go_together(retriever):
    image = cases.picture(196, 84)
    both = viewing(retriever, band_rows=4, overview_tokens=6).encode_views(image)
    bands = viewing(retriever, band_rows=4).encode_views(image)
    overview = viewing(retriever, overview_tokens=6).encode_views(image)
    behind = overview.cells >= 21
    assert both.overview == overview.overview and behind.any()
    np.testing.assert_array_equal(both.cells, [*bands.cells, *overview.cells[behind]])
    wanted = np.concatenate([bands.vectors, overview.vectors[behind]])
    np.testing.assert_allclose(both.vectors, wanted, atol=1e-5)


def test_blank_bands_are_left_out(retriever):
    image = Image.new("RGB", (84, 196), "white")
    image.paste(cases.picture(56, 84), (0, 140))
    views = viewing(retriever, band_rows=4, skip_blank_blocks=True).encode_views(image)
    assert views.cells[views.cells >= 0].tolist() == [*range(15, 21)]
    blank = Image.new("RGB", (84, 196), "white")
    skipping = viewing(retriever, band_rows=4, overview_tokens=6, skip_blank_blocks=True)
    views = skipping.encode_views(blank)
    assert views.cells[views.cells >= 0].tolist() == [0], "a blank page has one"


def test_shifted_views_are_the_bands_cut_half_a_cell_further(retriever):
    image = cases.picture(196, 84)  # 7 x 3 tokens
    views = viewing(retriever, band_rows=4, shifted_views=True).encode_views(image)
    bands = viewing(retriever, band_rows=4).encode_views(image)
    behind = len(bands.vectors)
    upper, lower = (retriever.encode_page(image.crop((14, 28 * a + 14, 70, 28 * b - 14)))
                    for a, b in ((0, 4), (3, 7)))  # fmt: skip
    np.testing.assert_allclose(views.vectors[:behind], bands.vectors, atol=1e-5)
    shifted = np.concatenate([upper.visual_vectors, lower.visual_vectors])
    np.testing.assert_allclose(views.vectors[behind:], shifted, atol=1e-5)
    first_of_four = [row * 3 + column for row in range(6) for column in range(2)]
    assert views.cells.tolist() == [*bands.cells, *first_of_four] and views.grid == (7, 3)


def test_a_shifted_cell_is_placed_where_ink_is(retriever):
    image = Image.new("RGB", (84, 84), "white")
    image.paste(cases.picture(20, 20), (60, 60))  # inside the last of 3 x 3 cells
    skipping = viewing(retriever, shifted_views=True, skip_blank_blocks=True)
    places = skipping.encode_views(image).cells
    assert places[places >= 0].tolist() == [8, 8]
    edge = Image.new("RGB", (84, 84), "white")
    edge.paste(cases.picture(84, 10), (0, 0))  # in the ring that shifted cells do not see
    places = skipping.encode_views(edge).cells
    assert places[places >= 0].tolist() == [0, 3, 6]


def test_what_is_too_small_to_shift_is_encoded_once(retriever):
    for size in ((28, 140), (140, 28)):
        image = cases.picture(*size)
        views = viewing(retriever, shifted_views=True).encode_views(image)
        assert (views.cells == retriever.encode_views(image).cells).all()


def test_views_encoded_side_by_side_are_those_encoded_in_turn(retriever):
    image = cases.picture(392, 140)
    options = {"band_rows": 4, "overview_tokens": 20, "shifted_views": True}
    in_turn, beside = (viewing(retriever, n, **options).encode_views(image) for n in (1, 3))
    np.testing.assert_array_equal(beside.vectors, in_turn.vectors)
    np.testing.assert_array_equal(beside.cells, in_turn.cells)


def test_a_page_of_several_views_can_be_cancelled(retriever):
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Cancelled):
        viewing(retriever, 2, band_rows=4).encode_views(cases.picture(392, 140), cancellation)


def test_features_may_stand_in_for_the_image(retriever):
    image = cases.picture(84, 112)
    page = retriever.encode_page(image)
    again = retriever.encode_page(page.features)
    assert (again.vectors == page.vectors).all() and again.grid == page.grid


@pytest.mark.parametrize("skip", [False, True])
def test_features_handed_to_the_generator_give_the_same_answer(model_folder, skip):
    engine = models.load(model_folder(), "cpu", models.engine.EngineOptions(skip_blank_blocks=skip))
    other = models.load(model_folder(), "cpu", models.engine.EngineOptions(skip_blank_blocks=skip))
    image = cases.page_with_margins(*cases.MARGIN_PAGE)
    features = engine.retriever.encode_page(image).features
    found = engine.generator.generate([features], "What?", 24, sampling=Sampling())
    wanted = other.generator.generate([image], "What?", 24, sampling=Sampling())
    assert "".join(found) == "".join(wanted)
    # They are known under the same name: the image itself finds the features' keys and values.
    follow = engine.generator.generate([image], "And?", 1)
    list(follow)
    assert follow.timings.n_reused_tokens > features.kept.sum()


def test_a_projection_of_another_width_is_refused(model_folder):
    with pytest.raises(ModelFilesError, match="lacks a projection to 96 features"):
        RetrieverWeights.load(model_folder() / "retriever.safetensors", 96)


def test_numbers_that_break_are_said_so(retriever):
    broken = np.full((2, tiny.TINY.hidden), np.nan, np.float32)
    with pytest.raises(ModelNumbersError, match="vectors of a page or question"):
        retriever._project(broken)
