"""A loaded folder: roles over one set of weights, threads, stopping, damaged files."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import onnxruntime as ort
import pytest

import models
from models.build.builder import build
from models.build.inputs import Sources
from models.conversations import KEPT_CONVERSATIONS
from models.engine import EngineOptions
from models.errors import ModelFilesError
from models.sampling import Sampling
from models.session import Cancellation
from tests.parity import cases, tiny

GREEDY = Sampling()
PAGES = [cases.picture(84, 112, seed=n) for n in range(4)]


@pytest.fixture
def copied(model_folder, tmp_path):
    """A model folder that may be damaged."""
    return shutil.copytree(model_folder(), tmp_path / "model")


def test_both_roles_share_tower_and_decoder(engine):
    assert engine.retriever._decoder is engine.generator._decoder
    assert engine.retriever._vision is engine.generator._vision
    assert engine.shares_vision


def test_a_small_model_of_bands_encodes_them_side_by_side_on_a_core_each(copied, monkeypatch):
    content = json.loads((copied / "model.json").read_text())
    (copied / "model.json").write_text(json.dumps(content | {"band_rows": 2}))
    threads = []
    real = models.engine.open_session
    monkeypatch.setattr(
        models.engine, "open_session", lambda *given: threads.append(given[2]) or real(*given)
    )
    engine = models.load(copied, "cpu", EngineOptions(n_threads=3))
    assert engine.retriever._n_views == 3 and threads == [1, 1]
    assert engine.generator._decoder is not engine.retriever._decoder and threads == [1, 1, 3, 3]
    monkeypatch.setattr(models.engine, "SMALL_HIDDEN_SIZE", 0)
    large = models.load(copied, "cpu", EngineOptions(n_threads=3))
    assert large.retriever._n_views == 1 and threads[4:] == [3, 3]
    assert large.generator._decoder is large.retriever._decoder


def test_threads_that_ask_at_once_open_the_graphs_once(engine, monkeypatch):
    """From Python 3.12 on cached_property alone lets each of them open the decoder."""
    opened = []
    real = models.engine.open_session
    monkeypatch.setattr(
        models.engine, "open_session", lambda path, *rest: opened.append(path) or real(path, *rest)
    )
    with ThreadPoolExecutor(4) as pool:
        roles = list(pool.map(lambda n: (engine.retriever, engine.generator)[n % 2], range(8)))
    assert len({id(role) for role in roles}) == 2
    assert sorted(path.name for path in opened) == ["decoder.onnx", "vision.onnx"]


def test_answers_from_several_threads_equal_those_in_turn(engine, model_folder):
    def ask(engine, n):
        pictures = [PAGES[n % 4]]
        return "".join(engine.generator.generate(pictures, f"What? {n}", 24, sampling=GREEDY))

    def page(engine, n):
        return engine.retriever.encode_page(PAGES[n % 4]).vectors.tobytes()

    alone = models.load(model_folder(), device="cpu")
    wanted = [(ask(alone, n), page(alone, n)) for n in range(8)]
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda n: ask(engine, n), range(8))
        vectors = pool.map(lambda n: page(engine, n), range(8))
        assert list(zip(answers, vectors, strict=True)) == wanted
    kept = engine.generator._conversations._idle
    assert len(kept) == KEPT_CONVERSATIONS
    assert all(len(each.keys) == each.cache.past_length for each in kept)


def test_cancelling_from_another_thread_leaves_the_conversation_fit_for_use(engine, model_folder):
    prompt = cases.PROMPTS["image"]  # its greedy text runs 80 tokens without an end
    wanted = "".join(engine.generator.generate(prompt.pictures(), prompt.text, 80, sampling=GREEDY))
    other = models.load(model_folder(), device="cpu").generator
    cancellation, heard, went_on = Cancellation(), threading.Event(), threading.Event()
    pieces = []

    def stop():
        heard.wait(30)
        cancellation.cancel()
        went_on.set()

    thread = threading.Thread(target=stop)
    thread.start()
    answer = other.generate(
        prompt.pictures(), prompt.text, 80, sampling=GREEDY, cancellation=cancellation
    )
    for piece in answer:
        pieces.append(piece)
        if len(pieces) == 5:
            heard.set()
            went_on.wait(30)
    thread.join()
    # Half a character may be in the making when the answer is stopped.
    assert len(pieces) in (5, 6) and answer.stop_reason == "cancelled"
    assert wanted.startswith("".join(pieces[:5]))
    again = other.generate(prompt.pictures(), prompt.text, 80, sampling=GREEDY)
    assert "".join(again) == wanted
    assert again.timings.n_reused_tokens == again.timings.n_prompt_tokens - 1


def test_sampling_with_a_seed_is_repeated(engine):
    warm = Sampling(True, temperature=1.5, top_p=0.95, repetition_penalty=1.05, seed=3)
    first, second = (
        "".join(engine.generator.generate([PAGES[0]], "What?", 20, sampling=warm)) for _ in range(2)
    )
    assert first == second != ""


def test_the_device_that_was_got_is_reported(model_folder, monkeypatch, caplog):
    """`look --json` said cuda, whatever the graphs ran on."""
    monkeypatch.setattr(
        ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    engine = models.load(model_folder(), device="cuda")
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        assert engine.generator.logits([], "What?").shape == (384,)
    assert (engine.device.asked, engine.device.used) == ("cuda", "cpu")
    assert "cuda failed to start, running on the CPU" in caplog.text


def test_options_override_the_folder(model_folder):
    few = models.load(model_folder(), "cpu", EngineOptions(max_visual_tokens=4))
    page = cases.picture(280, 280)
    assert few.retriever.encode_page(page).kept.sum() == 4
    large = models.load(model_folder(), "cpu", EngineOptions(min_pixels=784 * 150))
    assert large.retriever.encode_page(page).kept.sum() >= 150
    margins = cases.page_with_margins(*cases.MARGIN_PAGE)
    inked = models.load(model_folder(), "cpu", EngineOptions(skip_blank_blocks=True)).retriever
    assert not inked.encode_page(margins).kept.all()


@pytest.mark.parametrize(
    ("file", "wrapped"),
    [("preprocessor_config.json", False), ("processor_config.json", True)],
)
def test_the_least_pixels_come_from_the_checkpoint(checkpoints, tmp_path, file, wrapped):
    """transformers 5 writes what preprocessor_config.json held into processor_config.json."""
    source = shutil.copytree(checkpoints / "qwen2vl", tmp_path / "source")
    (source / "preprocessor_config.json").unlink()
    config = {"size": {"shortest_edge": 784 * 150, "longest_edge": 12845056}}
    (source / file).write_text(json.dumps({"image_processor": config} if wrapped else config))
    folder = build(Sources.find(source), tmp_path / "built")
    assert models.load(folder, "cpu").generator.options.min_pixels == 784 * 150


def test_a_folder_of_one_role_says_so(checkpoints, tmp_path):
    folder = build(Sources.find(checkpoints / "qwen2vl"), tmp_path / "plain")
    engine = models.load(folder, device="cpu")
    with pytest.raises(ModelFilesError, match="is no retriever .it is a generator"):
        _ = engine.retriever


def test_a_generator_with_other_weights_keeps_its_own_graphs(checkpoints, tmp_path):
    """The projection is the same; vision tower and decoder of the generator are not."""
    other = tiny.write_qwen2vl(tmp_path / "other", tiny.replace(tiny.TINY, seed=5))
    sources = Sources.find(checkpoints / "adapter", base=checkpoints / "base", generator=other)
    engine = models.load(build(sources, tmp_path / "two"), device="cpu")
    assert not engine.shares_vision
    assert engine.generator._decoder is not engine.retriever._decoder
    alone = models.load(build(Sources.find(other), tmp_path / "alone"), device="cpu")
    prompt = cases.PROMPTS["image"]
    found, wanted = (
        each.generator.logits(prompt.pictures(), prompt.text) for each in (engine, alone)
    )
    assert (found == wanted).all()


# --- damaged folders ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vision.onnx", "decoder.onnx"])
@pytest.mark.parametrize("part", ["", ".data"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_graph_or_its_data_gone_or_cut_short(copied, name, part, damage):
    file = copied / (name + part)
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ModelFilesError, match=name):
        _ = models.load(copied, device="cpu").generator


@pytest.mark.parametrize("name", ["embeddings.npy", "retriever.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["gone", "cut", "empty"])
def test_another_file_gone_or_cut_short(copied, name, damage):
    file = copied / name
    if damage == "gone":
        file.unlink()
    else:
        size = file.stat().st_size // 2 if damage == "cut" else 0
        file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ModelFilesError, match=name):
        _ = models.load(copied, device="cpu").retriever


def test_files_of_two_models_mixed(copied, tmp_path):
    wide = tiny.replace(tiny.TINY, hidden=96, n_heads=4, mrope_section=(4, 4, 4))
    source = tiny.write_qwen2vl(tmp_path / "other", wide)
    other = build(Sources.find(source), tmp_path / "built")
    for name in ("vision.onnx", "vision.onnx.data"):
        shutil.copy(other / name, copied / name)
    models.load(copied, device="cpu")  # nothing is opened yet
    for name in ("decoder.onnx", "decoder.onnx.data"):
        shutil.copy(other / name, copied / name)
    with pytest.raises(ModelFilesError, match=r"decoder\.onnx: input inputs_embeds"):
        _ = models.load(copied, device="cpu").generator
    shutil.copy(other / "embeddings.npy", copied / "embeddings.npy")
    with pytest.raises(ModelFilesError, match=r"embeddings\.npy: has shape \(384, 96\)"):
        _ = models.load(copied, device="cpu").generator


def test_lora_of_another_model(copied, tmp_path):
    from safetensors.numpy import load_file, save_file

    weights = load_file(copied / "retriever.safetensors")
    moved = {name.replace("layers.2.", "layers.9."): each for name, each in weights.items()}
    save_file(moved, copied / "retriever.safetensors")
    with pytest.raises(ModelFilesError, match=r"layers\.9.* has no place in decoder\.onnx"):
        _ = models.load(copied, device="cpu").retriever


def test_stop_ids_may_be_absent_or_null_but_not_words(copied):
    for content in ("{}", '{"eos_token_id": null}', '{"eos_token_id": 3}'):
        (copied / "generation_config.json").write_text(content)
        stops = models.load(copied, device="cpu").generator.options.stop_ids
        assert {tiny.IDS["<|im_end|>"], tiny.IDS["<|endoftext|>"]} <= stops
    (copied / "generation_config.json").write_text('{"eos_token_id": "<|im_end|>"}')
    with pytest.raises(ModelFilesError, match="eos_token_id is '<|im_end|>'"):
        _ = models.load(copied, device="cpu").generator


def test_tokenizer_and_config_of_two_models(copied):
    config = (copied / "config.json").read_text()
    image = f'"image_token_id": {cases.IMAGE}'
    assert image in config
    (copied / "config.json").write_text(config.replace(image, '"image_token_id": 7'))
    with pytest.raises(ModelFilesError, match=r"numbers <\|image_pad\|> 350, config.json says 7"):
        _ = models.load(copied, device="cpu").generator
