"""The engine in float32 against what transformers 5.23 recorded on the same tiny weights.

The reference itself is 2e-6 to 6e-6 away from float64 (make_fixtures prints it), so 1e-5 leaves
room for two roundings of that size and for nothing else.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import models
from models.build.builder import BuildOptions, Precisions, build
from models.build.inputs import Sources
from models.engine import Engine
from models.folder import ModelInfo
from models.images import VisualInput, preprocess
from models.positions import mrope_positions, token_types
from models.sampling import Sampling
from models.vision import Patches
from tests.parity import cases, tiny

FP32 = Precisions("fp32", "fp32", "fp32")
GREEDY = Sampling()
TOLERANCE = 1e-5


def built(source: Path, out: Path, **sources) -> Path:
    return build(Sources.find(source, **sources), out, BuildOptions(precisions=FP32))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("parity")


@pytest.fixture(scope="module")
def col_folder(model_folder) -> Path:
    """ColQwen2 as an adapter on its base: one set of weights for both roles."""
    return model_folder("fp32")


@pytest.fixture(scope="module")
def engine(col_folder) -> Engine:
    return models.load(col_folder, device="cpu")


def fresh(folder: Path) -> Engine:
    """An engine that has no conversation in its caches yet."""
    return models.load(folder, device="cpu")


def close(found, wanted, tolerance=TOLERANCE):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)


def visual(grid, kind="image") -> VisualInput:
    n = int(np.prod(grid))
    blank = np.zeros(n // 4, bool)
    return VisualInput(cases.patches(n), np.array(grid), blank, (0, 0), kind)


def encode(engine: Engine, grid, kept=None, kind="image"):
    kept = np.ones(int(np.prod(grid)) // 4, bool) if kept is None else kept
    return engine.generator._vision.encode(Patches(visual(grid, kind), kept))


def embedded(engine: Engine, name: str, fixture: str = "decoder"):
    """Embeddings (L, H), positions (3, L) and the next position of a recorded prompt."""
    ids = cases.load(fixture)[f"ids {name}"]
    seen = [
        engine.generator._vision.encode(Patches.choose(preprocess(image), skip_blank=False))
        for image in cases.PROMPTS[name].pictures()
    ]
    decoder = engine.generator._decoder
    features = np.concatenate([each.features for each in seen]) if seen else None
    return decoder.embed(ids, features), *decoder.positions(ids, seen)


# --- vision ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases.VISION_GRIDS)
def test_vision_features(engine, name):
    kind = "video" if name == "video" else "image"
    found = encode(engine, cases.VISION_GRIDS[name], kind=kind).features
    close(found, cases.load("vision")[name])


def test_vision_features_of_some_blocks_at_their_places_in_the_whole(engine):
    found = encode(engine, cases.VISION_GRIDS["wide"], cases.KEPT).features
    recorded = cases.load("vision")
    close(found, recorded["kept"])
    # Leaving blocks out does change the others a little: they no longer attend to them.
    assert np.abs(found - recorded["wide"][cases.KEPT]).max() > 1e-3


# --- decoder --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases.PROMPTS)
def test_hidden_states(engine, name):
    x, positions, _ = embedded(engine, name)
    found = engine.generator._decoder.hidden([x], [positions], {})[0]
    close(found, cases.load("decoder")[f"hidden {name}"])


@pytest.mark.parametrize("chunk", [1000, 7, 1], ids=["whole", "chunks of 7", "token by token"])
@pytest.mark.parametrize("name", cases.PROMPTS)
def test_logits_and_cache_of_a_prefill(engine, name, chunk):
    x, positions, _ = embedded(engine, name)
    decoder = engine.generator._decoder
    cache = decoder.new_cache()
    for at in range(0, len(x), chunk):
        logits = decoder.extend(cache, x[at : at + chunk], positions[:, at : at + chunk])
    recorded = cases.load("decoder")
    close(logits, recorded[f"last logits {name}"])
    keys, values = (each.numpy()[0, :, : len(x)] for each in cache.buffers[-2:])
    close(keys, recorded[f"keys {name}"])
    close(values, recorded[f"values {name}"])


@pytest.mark.parametrize("name", cases.PROMPTS)
def test_logits_of_every_greedy_step(engine, name):
    """The cache grows in place; each step is held to the reference, not only the winner.

    AVX-512 adds in another order than AVX2: one of 384 logits, up to 2.4, was off by 1.02e-5 there.
    """
    x, positions, following = embedded(engine, name)
    recorded = cases.load("decoder")
    decoder = engine.generator._decoder
    cache = decoder.new_cache()
    logits = decoder.extend(cache, x, positions)
    for step, token in enumerate(recorded[f"tokens {name}"]):
        wanted = recorded[f"logits {name}"][step]
        close(logits, wanted, wide_tolerance(wanted))
        assert logits.argmax() == token
        place = np.full((3, 1), following + step)
        logits = decoder.extend(cache, decoder.embed(np.array([token])), place)


def test_hidden_states_with_a_video(engine):
    ids, grids = cases.POSITIONS["video"]
    features = encode(engine, grids[0], kind="video").features
    decoder = engine.generator._decoder
    types = token_types(ids, cases.IMAGE, cases.VIDEO)
    positions, _ = mrope_positions(types, grids)
    x = decoder.embed(np.array(ids), features)
    close(decoder.hidden([x], [positions], {})[0], cases.load("video_prompt")["hidden"])
    close(decoder.extend(decoder.new_cache(), x, positions), cases.load("video_prompt")["logits"])


def test_an_output_layer_of_its_own(folders):
    """7B and 72B have one; the 2B shares the token embeddings."""
    source = tiny.write_qwen2vl(folders / "untied-source", tiny.UNTIED)
    engine = fresh(built(source, folders / "untied"))
    recorded = cases.load("decoder_untied")
    found = engine.generator.logits(cases.PROMPTS["image"].pictures(), cases.PROMPTS["image"].text)
    close(found, recorded["last logits image"])


# --- generator ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases.PROMPTS)
def test_generated_text_from_pictures_and_a_prompt(engine, name):
    prompt, tokens = cases.PROMPTS[name], cases.load("decoder")[f"tokens {name}"]
    answer = engine.generator.generate(prompt.pictures(), prompt.text, len(tokens), sampling=GREEDY)
    assert "".join(answer) == engine.tokenizer.decode(tokens)
    assert answer.stop_reason == "length"
    close(
        engine.generator.logits(prompt.pictures(), prompt.text),
        cases.load("decoder")[f"logits {name}"][0],
    )


def test_a_follow_up_over_a_reused_prefix_equals_one_from_scratch(col_folder):
    prompt = cases.PROMPTS["two images"]
    engine = fresh(col_folder)
    first = engine.generator.generate(prompt.pictures(), prompt.text, 8, sampling=GREEDY)
    said = "".join(first)
    asked = {"history": [(prompt.text, said)], "max_new_tokens": 24, "sampling": GREEDY}
    reused = engine.generator.generate(prompt.pictures(), "And why?", **asked)
    scratch = fresh(col_folder).generator.generate(prompt.pictures(), "And why?", **asked)
    assert "".join(reused) == "".join(scratch)
    assert scratch.timings.n_reused_tokens == 0
    n_visual = sum(preprocess(image).n_tokens for image in prompt.pictures())
    assert reused.timings.n_reused_tokens > n_visual


def test_logits_after_prefix_reuse(col_folder):
    prompt = cases.PROMPTS["image"]
    engine = fresh(col_folder)
    engine.generator.logits(prompt.pictures(), "Another question about it.")
    found = engine.generator.logits(prompt.pictures(), prompt.text)
    close(found, cases.load("decoder")["last logits image"])


# --- retriever ------------------------------------------------------------------------------


def pages() -> list:
    return [cases.picture(*size, seed=n) for n, size in enumerate(cases.PAGES)]


def test_page_vectors_equal_a_left_padded_batch_of_the_reference(engine):
    recorded = cases.load("colqwen2")
    for n, vectors in enumerate(engine.retriever.encode_pages(pages())):
        close(vectors, recorded[f"page {n}"])
        close(np.linalg.norm(vectors, axis=1), 1, 1e-6)


def test_page_vectors_need_m_rope(engine):
    """What transformers computes when it is not given position_ids is something else."""
    recorded = cases.load("colqwen2")
    for n, vectors in enumerate(engine.retriever.encode_pages(pages())):
        assert np.abs(vectors - recorded[f"page {n} without M-RoPE"]).max() > 1e-2


def test_page_vectors_with_blank_blocks_skipped(engine):
    page = cases.page_with_margins(*cases.MARGIN_PAGE)
    found = engine.retriever.encode_page(page, skip_blank=True)
    assert 0 < found.kept.sum() < len(found.kept)
    close(found.vectors, cases.load("colqwen2")["margin page"])


@pytest.mark.parametrize("template", cases.QUERY_WRITTEN)
def test_query_vectors_of_each_template(engine, template):
    retriever = engine.retriever
    options, recorded = retriever.options, cases.load("colqwen2")
    retriever.options = replace(options, query_template=template)
    try:
        together = retriever.encode_queries(cases.QUERIES)
        alone = [retriever.encode_queries([text])[0] for text in cases.QUERIES]
    finally:
        retriever.options = options
    for n in range(len(cases.QUERIES)):
        close(together[n], recorded[f"query {template} {n}"])
        close(alone[n], together[n])


def test_the_lora_on_and_off_and_on_leaves_the_base_untouched(col_folder):
    prompt = cases.PROMPTS["image"]

    def off():
        return fresh_caches(engine).logits(prompt.pictures(), prompt.text)

    def fresh_caches(engine):
        engine.generator._conversations._idle.clear()
        return engine.generator

    engine = fresh(col_folder)
    before = off()
    on = engine.retriever.encode_queries(cases.QUERIES)
    after = off()
    on_again = engine.retriever.encode_queries(cases.QUERIES)
    assert (before == after).all()
    assert all((one == two).all() for one, two in zip(on, on_again, strict=True))
    close(before, cases.load("decoder")["last logits image"])


# --- layouts --------------------------------------------------------------------------------


def checksums(folder: Path) -> dict[str, str]:
    same_content = ("config.json", "tokenizer_config.json")
    sums = ModelInfo.load(folder).sha256
    return {name: digest for name, digest in sums.items() if name not in same_content}


def test_plain_layouts_and_shards_build_to_the_same_bytes(folders):
    hub, modules, shards = (
        checksums(built(tiny.write_qwen2vl(folders / f"{name}-in", **how), folders / name))
        for name, how in {
            "hub": {},
            "modules": {"layout": "modules-4.52"},
            "shards": {"n_shards": 3},
        }.items()
    )
    assert {"vision.onnx.data", "decoder.onnx.data", "embeddings.npy"} <= set(hub)
    assert hub == modules == shards


def test_merged_layouts_build_to_the_same_bytes_and_the_reference_vectors(folders):
    sums = []
    recorded = cases.load("colqwen2")
    for layout in ("merged", "hf", "saved-5"):
        source = tiny.write_colqwen2(folders / f"{layout}-in", layout=layout)
        folder = built(source, folders / layout)
        sums.append(checksums(folder))
        assert ModelInfo.load(folder).roles == ("retriever",)
    assert sums[0] == sums[1] == sums[2]
    for n, vectors in enumerate(fresh(folder).retriever.encode_pages(pages())):
        close(vectors, recorded[f"page {n}"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("with_lora", [True, False], ids=["merged", "base"])
def test_a_projection_out_of_either_checkpoint_gets_the_adapter_once(
    checkpoints, col_folder, tmp_path, with_lora, dtype
):
    """Of a merged checkpoint it was added twice: the vectors were wrong without a word."""
    source = tiny.write_colqwen2(tmp_path / "from", with_lora=with_lora, dtype=dtype)
    folder = built(
        checkpoints / "adapter", tmp_path / "built", base=checkpoints / "qwen2vl", projection=source
    )
    found, wanted = (load_file(each / "retriever.safetensors") for each in (folder, col_folder))
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        rounded = dtype == "bfloat16" and name.startswith("custom_text_proj")
        close(found[name], values, 0.01 if rounded else 1e-6)
    if dtype == "float32":
        recorded = cases.load("colqwen2")
        for n, vectors in enumerate(fresh(folder).retriever.encode_pages(pages())):
            close(vectors, recorded[f"page {n}"])


def test_a_retriever_needs_no_output_layer(checkpoints, tmp_path):
    """One of a size whose embeddings are not tied was refused without `lm_head`."""
    whole = tiny.write_colqwen2(tmp_path / "whole", tiny.UNTIED)
    vectors = fresh(built(whole, tmp_path / "a")).retriever.encode_pages(pages())
    without_lm_head(whole)
    engine = fresh(built(whole, tmp_path / "b"))
    assert engine.info.roles == ("retriever",)
    for found, wanted in zip(engine.retriever.encode_pages(pages()), vectors, strict=True):
        assert (found == wanted).all()


def test_a_base_without_an_output_layer_answers_only_with_a_generator(tmp_path):
    base = tiny.write_colqwen2(tmp_path / "base", tiny.UNTIED, with_lora=False)
    without_lm_head(base)
    adapter = tiny.write_adapter(tmp_path / "adapter", tiny.UNTIED)
    alone = built(adapter, tmp_path / "alone", base=base)
    assert ModelInfo.load(alone).roles == ("retriever",)
    answering = tiny.write_qwen2vl(tmp_path / "qwen2vl", tiny.UNTIED)
    both = fresh(built(adapter, tmp_path / "both", base=base, generator=answering))
    prompt = cases.PROMPTS["image"]
    found = both.generator.logits(prompt.pictures(), prompt.text)
    wanted = fresh(built(answering, tmp_path / "answering")).generator
    assert (found == wanted.logits(prompt.pictures(), prompt.text)).all()


def without_lm_head(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    del weights["lm_head.weight"]
    save_file(weights, file, {"format": "pt"})


# --- width of the 2B ------------------------------------------------------------------------


def test_one_layer_at_the_width_of_the_2b(tmp_path):
    """Heads 12/2 of 128, vision heads of 80, feed-forward 8960: sizes that tiny ones hide."""
    source = tiny.write_qwen2vl(tmp_path / "wide-in", tiny.WIDE, dtype="bfloat16")
    engine = fresh(built(source, tmp_path / "wide"))
    recorded = cases.load("wide")
    features = encode(engine, (1, 4, 4)).features
    close(features, recorded["features"], wide_tolerance(recorded["features"]))
    ids = recorded["ids"]
    decoder = engine.generator._decoder
    types = token_types(ids, cases.IMAGE, cases.VIDEO)
    positions, _ = mrope_positions(types, [(1, 4, 4)])
    x = decoder.embed(ids, features)
    hidden = decoder.hidden([x], [positions], {})[0]
    close(hidden, recorded["hidden"], wide_tolerance(recorded["hidden"]))
    logits = decoder.extend(decoder.new_cache(), x, positions)
    close(logits, recorded["logits"], wide_tolerance(recorded["logits"]))


def wide_tolerance(wanted) -> float:
    """Long sums round more, in proportion to the largest value."""
    return TOLERANCE * max(1.0, float(np.abs(wanted).max()))
