"""Pages and questions to vectors: any batch, every precision, and what a page carries along."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import models
import models.engine
from models.errors import ModelFilesError, ModelNumbersError, PromptError
from models.images import preprocess
from models.retriever import QUERIES_PER_RUN, Retriever, RetrieverWeights
from models.sampling import Sampling
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


def overviewing(retriever, n_tokens):
    options = replace(retriever.options, overview_tokens=n_tokens)
    given = retriever._vision, retriever._decoder, retriever._tokenizer, retriever._weights
    return Retriever(*given, options)


def test_an_overview_is_the_page_encoded_once_more_in_fewer_tokens(retriever):
    image = cases.picture(168, 112)  # 6 x 4 tokens
    page = overviewing(retriever, 8).encode_page(image)
    alone = retriever.encode_page(image)
    small = retriever.encode_page(image.resize((56, 84), Image.Resampling.BICUBIC))
    assert page.overview is not None and page.overview.grid == small.grid == (3, 2)
    behind = len(page.vectors)
    assert (page.stored_vectors[:behind] == alone.vectors).all()
    assert (page.stored_vectors[behind:] == small.visual_vectors).all(), "not its prompt"
    assert (page.cells[:behind] == alone.cells).all()
    assert page.cells[behind:].tolist() == list(range(24, 30)), "counted on behind the page's"
    assert (page.features.features == alone.features.features).all(), "the generator's view"
    found = overviewing(retriever, 8).encode_pages([image])[0]
    assert (found == page.stored_vectors).all()


def test_a_page_less_than_twice_as_large_has_no_overview(retriever):
    image = cases.picture(168, 112)
    assert overviewing(retriever, 12).encode_page(image).overview is not None
    assert overviewing(retriever, 13).encode_page(image).overview is None
    assert overviewing(retriever, 0).encode_page(image).overview is None


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
