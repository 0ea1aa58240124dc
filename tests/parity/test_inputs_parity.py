"""Images, positions and prompts against what transformers 5.23 recorded for them."""

import numpy as np
import pytest

from models.images import CLIP_STD, preprocess
from models.positions import IMAGE, mrope_positions, token_types
from models.text import Message, Tokenizer, Visual
from models.video import preprocess_frames, sample_frames
from tests.parity import cases, tiny


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "tokenizer.json"
    tiny.tokenizer().save(str(path))
    return Tokenizer(path, tiny.IDS)


@pytest.mark.parametrize("n", range(len(cases.PREPROCESS)), ids=lambda n: cases.PREPROCESS[n][0])
def test_pixels_equal_the_pillow_processor(n):
    (height, width), max_pixels = cases.PREPROCESS[n]
    recorded = cases.load("preprocessing")
    visual = preprocess(cases.picture(height, width), 3136, max_pixels)
    assert visual.grid_thw.tolist() == recorded[f"grid_{n}"].tolist()
    # The steps are the reference's, in float32, so nothing but 0 is expected; 1e-6 is the promise.
    found, wanted = cases.sample(visual.pixel_values), recorded[f"values_{n}"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_video_pixels_equal_the_video_processor():
    n_frames, size = cases.VIDEOS[0]
    recorded = cases.load("video_preprocessing")
    video = preprocess_frames(cases.video_frames(n_frames, size))
    assert video.grid_thw.tolist() == recorded["grid_0"].tolist() == [2, 20, 26]
    found = cases.sample(video.pixel_values)
    np.testing.assert_allclose(found, recorded["values_0"], rtol=0, atol=1e-6)


def test_resized_video_pixels_are_a_rounding_away_from_torchvision():
    """torchvision resizes with a kernel of its own: a level of 255 here and there."""
    n_frames, size = cases.VIDEOS[1]
    recorded = cases.load("video_preprocessing")
    video = preprocess_frames(cases.video_frames(n_frames, size))
    assert video.grid_thw.tolist() == recorded["grid_1"].tolist()
    off = np.abs(cases.sample(video.pixel_values) - recorded["values_1"])
    assert off.max() < 2.01 / 255 / min(CLIP_STD)
    assert (off > 1e-5).mean() < 0.02


@pytest.mark.parametrize("n", range(len(cases.SAMPLING)))
def test_sampled_frames_equal_those_of_the_video_processor(n):
    n_total, rate, fps, most = cases.SAMPLING[n]
    wanted = cases.load("video_preprocessing")[f"frames_{n}"].tolist()
    found = sample_frames(n_total, rate, fps, max_frames=most)
    assert found == [frame for frame in wanted if frame < n_total]


@pytest.mark.parametrize("name", cases.POSITIONS)
def test_positions_equal_get_rope_index_of_a_left_padded_row(name):
    ids, grids = cases.POSITIONS[name]
    recorded = cases.load("positions")
    found, following = mrope_positions(token_types(ids, cases.IMAGE, cases.VIDEO), grids)
    assert found.tolist() == recorded[f"ids {name}"].tolist()
    assert following == recorded[f"next {name}"]


@pytest.mark.parametrize("name", cases.PROMPTS)
def test_chat_ids_equal_those_of_the_written_template(name, tokenizer):
    prompt = cases.PROMPTS[name]
    visuals = [Visual(preprocess(image).n_tokens) for image in prompt.pictures()]
    found = tokenizer.chat([Message("user", (*visuals, prompt.text))])
    assert found.tolist() == cases.load("decoder")[f"ids {name}"].tolist()


def test_page_ids_have_one_vector_each(tokenizer):
    recorded = cases.load("colqwen2")
    for n, size in enumerate(cases.PAGES):
        visual = preprocess(cases.picture(*size, seed=n))
        ids = tokenizer.page_prompt(visual.n_tokens)
        assert len(ids) == len(recorded[f"page {n}"])
        types = token_types(ids, cases.IMAGE, cases.VIDEO)
        assert (types == IMAGE).sum() == visual.n_tokens


@pytest.mark.parametrize("template", cases.QUERY_WRITTEN)
def test_query_ids_equal_those_of_the_written_template(template, tokenizer):
    for text in cases.QUERIES:
        written = cases.QUERY_WRITTEN[template].format(text)
        assert tokenizer.query(text, template).tolist() == tiny.tokenizer().encode(written).ids


def test_the_recorded_greedy_text_does_not_loop():
    """Else equal tokens would prove little: most wrong models agree on a loop."""
    recorded = cases.load("decoder")
    for name in cases.PROMPTS:
        tokens = recorded[f"tokens {name}"].tolist()
        assert len(tokens) >= 64
        assert len({tuple(tokens[at : at + 6]) for at in range(len(tokens) - 5)}) > 64


def test_fixtures_say_where_they_come_from():
    for file in cases.FIXTURES.glob("*.npz"):
        meta = cases.meta(cases.load(file.stem))
        assert {"torch", "transformers", "numpy", "seed"} <= set(meta)
        assert meta["transformers"] == "5.23.0"
    assert sum(file.stat().st_size for file in cases.FIXTURES.iterdir()) < 2_000_000
