"""The torch model equals transformers', and a short run lowers each loss."""

import itertools
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the dependency group `training`")

from copy import deepcopy  # noqa: E402
from dataclasses import replace  # noqa: E402

from tokenizers import Tokenizer  # noqa: E402

from training import evaluate, losses, spelling, start, tokenizer  # noqa: E402
from training.batches import (  # noqa: E402
    Recipe,
    Sampler,
    Tools,
    _stand,
    _word_start,
    collate,
    patch_positions,
)
from training.config import SIZES, ModelConfig, hub_config  # noqa: E402
from training.model import Yomu, is_adapted  # noqa: E402
from training.samples import BLANK, Line, window  # noqa: E402
from training.stages import Stage  # noqa: E402
from training.train import Replay, Trainer, optimisers, total_loss  # noqa: E402


@pytest.fixture
def config(tools):
    tiny = SIZES["tiny"]
    return ModelConfig(tiny.vision, replace(tiny.text, vocab_size=tools.tokenizer.get_vocab_size()))


def _random(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def test_equals_transformers(tools: Tools, config):
    transformers = pytest.importorskip("transformers", reason="the reference implementation")
    torch.manual_seed(0)
    ours = _random(Yomu(config))
    ids = tokenizer.special_ids(tools.tokenizer)
    theirs = transformers.Qwen2VLForConditionalGeneration(
        transformers.Qwen2VLConfig(**hub_config(config, ids))
    ).eval()
    renamed = {
        name.replace("visual.", "model.visual.", 1)
        if name.startswith("visual.")
        else name.replace("model.", "model.language_model.", 1): value
        for name, value in ours.state_dict().items()
        if "custom_text_proj" not in name
    }
    missing = theirs.load_state_dict(renamed, strict=False)
    assert not missing.unexpected_keys
    assert set(missing.missing_keys) <= {"lm_head.weight"}  # tied
    rows, columns = 3, 4
    text = f"{tokenizer.PAGE_PREFIX}{'<|image_pad|>' * 12}{tokenizer.PAGE_SUFFIX}"
    sequence = torch.tensor([tools.tokenizer.encode(text).ids])
    patches = torch.randn(48, 588)
    full = patches.view(48, 3, 1, 196).expand(48, 3, 2, 196).reshape(48, 1176)
    is_image = (sequence == ids["<|image_pad|>"]).int()
    grid = torch.tensor([[1, 2 * rows, 2 * columns]])
    with torch.no_grad():
        wanted = theirs(
            input_ids=sequence,
            attention_mask=torch.ones_like(sequence),
            pixel_values=full,
            image_grid_thw=grid,
            mm_token_type_ids=is_image,
        ).logits
        cells = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).numpy()
        places = torch.from_numpy(patch_positions(cells))[None]
        features = ours.visual(patches[None], places, None)[0]
        embeds = ours.embed(sequence, features, ids["<|image_pad|>"])
        position_ids, _ = theirs.model.get_rope_index(
            sequence, is_image, image_grid_thw=grid, attention_mask=torch.ones_like(sequence)
        )
        got = ours.logits(ours.model(embeds, position_ids))
    assert (got - wanted).abs().max() < 1e-5 * wanted.abs().max().clamp_min(1)


def test_a_continuation_is_as_if_alone(tools: Tools, config):
    """Several questions in one row give the hidden states of one question in a row."""
    torch.manual_seed(0)
    model = _random(Yomu(config))
    recipe = Recipe(cells=60, rows=3, columns=6, queries=0, questions=3, buffer=2)
    sampler = Sampler(tools, recipe, 4)
    batch = next(b for b in iter(sampler.batch, None) if b.segments[0].max() >= 3)
    image = tools.tokenizer.token_to_id("<|image_pad|>")
    last = int(batch.segments[0].max())
    with torch.no_grad():
        together = losses.encode(model, batch, image, True).hidden[0]
        keep = (batch.segments[0] == 0) | (batch.segments[0] == last)
        alone = replace(
            batch,
            ids=batch.ids[:1, keep],
            position_ids=batch.position_ids[:, :1, keep],
            segments=batch.segments[:1, keep],
            patches=batch.patches[:1],
            positions=batch.positions[:1],
            cells=batch.cells[:1],
        )
        single = losses.encode(model, alone, image, True).hidden[0]
    assert (together[keep] - single).abs().max() < 1e-4


def test_targets_point_at_the_cells_that_show_them(tools: Tools, config):
    """What is drawn in the cells that a target points at has its letters."""
    recipe = Recipe(cells=200, rows=4, columns=10, queries=0, questions=3, buffer=3, degraded=1e-9)
    sampler = Sampler(tools, recipe, 5)
    image = tools.tokenizer.token_to_id("<|image_pad|>")
    known = {int(each): chr(code) for code, each in enumerate(tools.classes) if each > 1}
    right = []
    for _ in range(6):
        batch = sampler.batch()
        for row, place, cell in batch.points.tolist():
            assert batch.ids[row, cell] == image
            assert batch.targets[row, place] == batch.ids[row, place + 1]
            number = int((batch.ids[row, :cell] == image).sum())
            shown = {known[c] for c in batch.slots[row, number].tolist() if c in known}
            letters = set(tools.tokenizer.decode([int(batch.targets[row, place])]).strip())
            if letters <= set(known.values()):
                right.append(bool(letters & shown))
    assert len(right) > 50
    assert np.mean(right) > 0.9  # where two letters share a slot, one of them is written there


def test_bands_and_overviews_are_what_the_runtime_encodes(tools: Tools):
    shapes = {}
    for kind in ("bands", "overviews"):
        recipe = Recipe(cells=600, windows=0, buffer=2, **{kind: 1.0})
        found, asked = getattr(Sampler(tools, recipe, 5), f"_{kind}")()
        assert not asked
        assert found.page.image.shape[:2] == tuple(28 * side for side in found.grid)
        shapes[kind] = found.grid
    rows, columns = shapes["bands"]
    page = Sampler(tools, Recipe(buffer=2), 5)._page()
    assert (rows, columns) == (16, round(page.image.shape[1] / 28))
    rows, columns = shapes["overviews"]
    assert 300 < rows * columns <= 400


def test_more_is_asked_of_more_and_nothing_of_type_too_small_to_read(tools: Tools):
    asked = {}
    for kind in ("windows", "bands"):
        recipe = Recipe(cells=600, buffer=2, plain=1.0, **({"windows": 0.0} | {kind: 1.0}))
        batch = Sampler(tools, recipe, 5).batch()
        asked[kind] = len(batch.query_rows) / len(batch.cells)
    assert asked["bands"] > 2 * asked["windows"]
    tiny = Recipe(cells=100, buffer=2, windows=0, overviews=1.0, overview_cells=12)
    batch = Sampler(tools, tiny, 5).batch()
    assert batch.text.strip() and not len(batch.token_places)


def test_a_window_that_holds_all_words_of_a_question_is_no_wrong_one(tools: Tools):
    recipe = Recipe(cells=600, buffer=1, rows=12, columns=30, plain=1.0, queries=20)
    sampler = Sampler(tools, recipe, 5)
    windows = [sampler._windows() for _ in range(4)]  # of one page: they share words
    batch = collate(windows, tools, sampler.ids, random.Random(0), 20)
    texts = ["\n".join(line.text for line in found.lines).lower() for found, _ in windows]
    several = 0
    for parts, own, ignored in zip(
        batch.query_parts, batch.query_rows.tolist(), batch.query_ignored.tolist(), strict=True
    ):
        assert all(part in texts[own] for part in parts) and not ignored[own]
        others = [row for row in range(len(texts)) if row != own]
        assert [ignored[row] for row in others] == [
            all(part in texts[row] for part in parts) for row in others
        ]
        several += len(parts) > 1 and any(ignored)
    assert several


def test_each_loss_falls(tools: Tools, config):
    torch.manual_seed(0)
    stage = Stage("test", Recipe(), match=1.0, recall=1.0, names=1.0, read=1.0, rate=3e-3)
    recipe = Recipe(cells=120, rows=3, columns=8, windows=0.6, lines=0.4, questions=1, buffer=3)
    sampler = Sampler(tools, recipe, 0)
    batches = [sampler.batch() for _ in range(3)]
    spelled = spelling.spellings(tools.tokenizer)
    lessons = losses.Lessons(Yomu(config), int(tools.classes.max()) + 1, spelled)
    image = tools.tokenizer.token_to_id("<|image_pad|>")
    both = optimisers(lessons, stage)
    history: dict[str, list[float]] = {}
    memory = losses.Memory(2)
    for step in range(80):
        loss, parts = total_loss(lessons, batches[step % 3], stage, image, lessons, memory)
        for optimiser in both:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in both:
            optimiser.step()
        for name, value in parts.items():
            history.setdefault(name, []).append(float(value))
    shares = {
        "see": 0.8,
        "words": 0.8,
        "phrases": 0.8,
        "read": 0.8,
        "point": 0.9,
        "names": 0.9,
        "old_words": 0.9,
        "old_phrases": 0.9,
    }  # rows are slow
    for name, share in shares.items():
        assert sum(history[name][-3:]) < share * sum(history[name][:3]), name


def test_a_token_is_named_where_it_ends(tools: Tools):
    recipe = Recipe(cells=300, buffer=2, plain=1.0, varied=0.0, degraded=1e-9)
    batch = Sampler(tools, recipe, 3).batch()
    known = (tools.fonts.parent / "characters.txt").read_text(encoding="utf-8")
    slots = batch.slots[batch.cells]
    assert len(batch.named) > 50
    at_home = 0
    for cell, token in batch.named.tolist():
        last = tools.tokenizer.decode([token]).strip()[-1:]
        shown = {known[number - 2] for number in slots[cell].tolist() if number > 1}
        at_home += last in shown or last not in known  # a byte of a character is no character
    assert at_home > 0.95 * len(batch.named)  # narrow letters may share a slot


def test_the_end_of_a_word_is_its_own_after_another_beginning():
    """ "ing" of "packing" is not that of "cutting"; one that follows the same letters is."""
    lines = ("packing boxes", "cutting", "unpacking")
    windows = [
        SimpleNamespace(lines=(Line(text, np.arange(len(text), dtype=np.int64)),), positions=())
        for text in lines
    ]
    asked = [(0, np.arange(4, 7), "packing", 3)]
    table = _stand(windows, asked, 16)
    assert np.flatnonzero(table[0, 0] == 1).tolist() == [4, 5, 6]
    assert not table[0, 1].any()
    assert np.flatnonzero(table[0, 2] == -1).tolist() == [6, 7, 8]
    assert _word_start("cutting edge", 3) == 0
    assert _word_start("cutting edge", 7) == 7  # a space begins a word of its own
    assert _word_start("報告書", 2) == 2


def test_words_are_told_from_those_of_earlier_batches(tools: Tools, config):
    torch.manual_seed(0)
    sampler = Sampler(tools, Recipe(cells=200, buffer=3), 5)
    first, second = sampler.batch(), sampler.batch()
    lessons = losses.Lessons(Yomu(config), int(tools.classes.max()) + 1).eval()
    image = tools.tokenizer.token_to_id("<|image_pad|>")

    def lose(batch, memory):
        hidden = losses.encode(lessons.yomu, batch, image, True).hidden
        vectors = losses.vectors_of(lessons.yomu, hidden, batch, image)
        parts = losses.recall(lessons, lessons, vectors, batch, image, memory)[1]
        return parts["old_words"], parts["old_phrases"]

    alone = lose(second, losses.Memory(2))
    assert alone[1] == 0  # nothing to tell its phrases from
    memory = losses.Memory(2)
    lose(first, memory)
    beside = lose(second, memory)
    assert beside[0] > alone[0]
    assert beside[1] > 0
    assert len(memory.kept) == 2

    memory = losses.Memory(2)
    assert [lose(first, memory)[1] for _ in range(2)] == [0, 0]  # itself, shown again, is no other
    cells, same = memory.cells(first)
    table = first.token_cells[:, first.cells] != 0
    assert cells.shape == (2 * table.shape[1], 128)
    assert torch.equal(same, torch.cat([table, table], 1))


def test_shown_finds_the_end_of_a_word_wherever_it_stands():
    places = np.array([0, 0, 0, 1, 1, 1, 1, -1, 2, 2, 2, 3, 3, 3, -1, -1])
    text = "packing\ncutting\n"
    pairs = losses.shown([("packing", 3), ("cutting", 3), ("t", 1), ("no", 2)], text, places)
    assert set(map(tuple, pairs.tolist())) == {(0, 1), (1, 3), (2, 2), (2, 3)}


def test_windows_are_stretched_by_batch(tools: Tools):
    sampler = Sampler(tools, Recipe(cells=100, rows=4, columns=12, stretch=(3,), buffer=2), 5)
    batch = sampler.batch()
    assert int(batch.positions[..., 0].max()) < 2 * 12
    assert int(batch.positions[..., 0].max()) >= 2 * 4
    assert int(batch.positions[..., 1].max()) < 2 * 4


def test_real_pages_are_measured(tools: Tools, config, work):
    """Characters of a PDF's text layer are found where the page shows them."""
    samples = Path(__file__).parents[2] / "samples"
    shown = dict(evaluate.real_pages(samples, 1, 1500))
    page = shown["annual-report.pdf"]
    assert page.image.shape[0] * page.image.shape[1] <= 1500 * 28 * 28
    found = window(page, tools.classes)
    wanted = np.array(found.slots)  # a reader that never errs
    sizes, right, japanese = evaluate.characters_right(page, found, wanted, tools)
    assert len(right) > 100
    assert right.mean() > 0.9  # small type may share a slot
    assert 8 < np.median(sizes) < 60
    assert not japanese.any()
    wanted[:] = BLANK
    assert not evaluate.characters_right(page, found, wanted, tools)[1].any()


def test_held_out_pages_are_made_once_and_measured(tools: Tools, config, work):
    torch.manual_seed(0)
    stage = Stage("test", Recipe(), match=1.0)
    lessons = losses.Lessons(Yomu(config), int(tools.classes.max()) + 1)
    first = evaluate.Held(work, torch.device("cpu"))
    again = evaluate.Held(work, torch.device("cpu"))
    assert len(first.batches) == len(again.batches) > 0
    for one, other in zip(first.batches, again.batches, strict=True):
        assert torch.equal(one.patches, other.patches) and one.text == other.text
    drawn = torch.get_rng_state()
    found = first.measure(lessons, stage)
    assert {"slot_accuracy", "word_recall", "phrases"} <= set(found)
    assert found == again.measure(lessons, stage)
    assert torch.equal(drawn, torch.get_rng_state()), "training goes on as if not measured"


def test_a_still_tower_is_shown_again(tools: Tools, config, work):
    """Batches come back with their visual tokens, and only the decoder learns from them."""
    stage = Stage("test", Recipe(), see=0.0, match=1.0, times=3)
    torch.manual_seed(0)
    trainer = Trainer(work, config, stage, torch.device("cpu"))
    recipe = Recipe(cells=60, rows=3, columns=6, buffer=2)
    sampler = Sampler(tools, recipe, 1)
    drawn = []
    fresh = iter(lambda: drawn.append(sampler.batch()) or drawn[-1], None)
    shown = list(itertools.islice(iter(Replay(trainer, fresh, 0)), 75))
    assert len(drawn) < 60
    assert len({id(batch.features) for batch in shown}) == len(drawn)
    assert sum(not batch.again for batch in shown) == len(drawn)
    sight = trainer.lessons.yomu.visual
    again = losses.see_cells(trainer.lessons.yomu, drawn[0])
    assert torch.allclose(shown[0].features, again, atol=1e-5)
    before = [p.clone() for p in sight.parameters()]
    layer = trainer.lessons.yomu.model.layers[0].mlp["up_proj"].weight
    old = layer.clone()
    trainer.train_on(shown[-1], 100)
    assert all(map(torch.equal, before, sight.parameters()))
    assert not torch.equal(old, layer)
    old = layer.clone()
    trainer.train_on(shown[-1], 100, left=0.0)  # the rate has fallen to nothing
    assert torch.equal(old, layer)


def _built(model, tools, folder, precision, retriever=None):
    """Export a model as the hub does, and build the model folder of it."""
    builder = pytest.importorskip("models.build.builder")
    from training import export

    export.write_base(model, Tokenizer.from_str(tools.tokenizer.to_str()), folder / "hub/base")
    finds = export.with_decoder_of(model, retriever) if retriever else model
    export.write_adapter(model, finds, folder / "hub/adapter")
    options = builder.BuildOptions(
        precisions=builder.Precisions(*3 * [precision]), skip_blank_blocks=True
    )
    return builder.build(builder.Sources.find(folder / "hub"), folder / "model", options)


def test_exported_checkpoint_builds(tools: Tools, config, tmp_path):
    """The exported folder becomes a model folder whose vectors and logits are torch's."""
    from PIL import Image

    import models
    from training import export

    torch.manual_seed(0)
    model = _random(Yomu(config))
    engine = models.load(_built(model, tools, tmp_path, "fp32"))
    image = np.full((112, 140, 3), 255, np.uint8)
    image[10:60, 30:90] = np.random.default_rng(0).integers(0, 256, (50, 60, 3))
    got = engine.retriever.encode_pages([Image.fromarray(image)])[0]
    assert np.abs(got - export.reference_vectors(model, tools.tokenizer, image)).max() < 1e-4


def test_an_adapter_keeps_another_retriever(tools: Tools, config, tmp_path):
    """What finds pages is the built folder's decoder, what answers is the run's."""
    from PIL import Image

    import models
    from training import export

    torch.manual_seed(0)
    finds = _random(Yomu(config))
    answers = deepcopy(finds)
    with torch.no_grad():
        for name, value in answers.named_parameters():
            if is_adapted(name):
                value.add_(0.05 * torch.randn_like(value))
    built = _built(finds, tools, tmp_path / "finds", "int8")
    both = _built(answers, tools, tmp_path / "both", "fp32", built)
    engine = models.load(both)
    image = np.full((112, 140, 3), 255, np.uint8)
    image[10:60, 30:90] = np.random.default_rng(0).integers(0, 256, (50, 60, 3))
    got = engine.retriever.encode_pages([Image.fromarray(image)])[0]
    wanted, other = (export.reference_vectors(m, tools.tokenizer, image) for m in (finds, answers))
    assert (got * wanted).sum(-1).min() > 0.99  # int8
    assert (got * other).sum(-1).min() < 0.9
    alone = models.load(_built(answers, tools, tmp_path / "alone", "fp32")).generator
    logits = [each.logits([Image.fromarray(image)], "What?") for each in (engine.generator, alone)]
    assert np.array_equal(*logits)
    other = replace(config.text, rope_theta=10.0)
    assert start.turned_as(other, built) == config.text
    with pytest.raises(ValueError, match="turn otherwise"):
        export.with_decoder_of(Yomu(replace(config, text=other)), built)
    with pytest.raises(ValueError, match="differs from the run"):
        export.with_decoder_of(_random(Yomu(config)), built)


def test_a_run_starts_from_the_decoder_of_a_built_folder(tools: Tools, config, tmp_path):
    torch.manual_seed(0)
    model = _random(Yomu(config))
    built = _built(model, tools, tmp_path, "int8")
    fresh = losses.Lessons(Yomu(config), 9, spelling.spellings(tools.tokenizer))
    start.load_decoder(fresh.yomu, built)
    ids = torch.tensor([tools.tokenizer.encode("Three bridges cross the river.").ids])
    places = torch.arange(ids.shape[1]).expand(3, 1, -1)
    before, after = (
        each.project(each.model(each.embedding(ids[0])[None], places))
        for each in (model, fresh.yomu)
    )
    assert (before * after).sum(-1).min() > 0.99  # cosines; int8 took the rest
    wider = replace(config.text, hidden_size=96, num_attention_heads=3)
    with pytest.raises(ValueError, match="not"):
        start.load_decoder(Yomu(replace(config, text=wider)), built)


def test_a_decoder_grows_without_saying_anything_else(tools: Tools, config, tmp_path):
    torch.manual_seed(0)
    built = _built(_random(Yomu(config)), tools, tmp_path, "int8")
    grown = replace(config.text, num_hidden_layers=4, intermediate_size=160)
    small, large = Yomu(config), Yomu(replace(config, text=grown))
    ids = torch.tensor([tools.tokenizer.encode("Three bridges cross the river.").ids])
    places = torch.arange(ids.shape[1]).expand(3, 1, -1)
    found = []
    for model in (small, large):
        start.load_decoder(model, built)
        found.append(model.project(model.model(model.embedding(ids), places)))
    assert (found[0] - found[1]).abs().max() < 1e-5
    found[1][0, -1, 0].backward()
    new = (
        large.model.layers[-1].mlp["down_proj"].weight,
        large.model.layers[0].mlp["down_proj"].weight,
    )
    assert all(weight.grad[:, -1].abs().max() > 0 for weight in new)  # and learns
    with pytest.raises(ValueError, match="2 layers, not 1"):
        start.load_decoder(Yomu(replace(config, text=replace(grown, num_hidden_layers=1))), built)


def test_a_run_starts_from_a_kept_vision_tower(tools: Tools, config, work, tmp_path):
    torch.manual_seed(0)
    characters = (work / "characters.txt").read_text("utf-8")
    classes = len(characters) + start.FIRST_CLASS
    seen = losses.Lessons(Yomu(config), classes)
    average = {f"module.{name}": value for name, value in seen.state_dict().items()}
    torch.save({"average": average}, tmp_path / "latest.pt")
    (tmp_path / "characters.txt").write_text(characters, "utf-8")
    start.main(tmp_path, tmp_path / "sight.safetensors")
    fresh = losses.Lessons(Yomu(config), classes + 1)
    other = "\u2603" + characters[::-1]  # another order, and one more
    assert start.load(fresh, tmp_path / "sight.safetensors", other) == len(characters)
    patches, positions = torch.randn(1, 8, 588), torch.zeros(1, 8, 2)
    assert torch.allclose(
        fresh.yomu.visual(patches, positions, None),
        seen.yomu.visual(patches, positions, None),
        atol=0.02,  # fp16
    )
    for char in (characters[0], characters[-1]):
        here, there = (start.FIRST_CLASS + each.index(char) for each in (other, characters))
        assert torch.equal(
            fresh.characters.weight[here].half(), seen.characters.weight[there].half()
        )
    unknown = start.FIRST_CLASS + other.index("\u2603")  # is not seen in place of others
    assert fresh.characters.bias[unknown] <= fresh.characters.bias.min()
    with pytest.raises(ValueError, match="slots"):
        small = losses.Lessons(Yomu(SIZES["small"]), classes)
        start.load(small, tmp_path / "sight.safetensors", characters)


def test_a_heap_of_windows_is_searched_as_one_page():
    """A heap's matches are the best of its windows; one that holds the phrase too is left out."""
    torch.manual_seed(0)
    best = torch.rand(3, 5, 4)
    ignored = torch.zeros(3, 5, dtype=torch.bool)
    ignored[0, 3] = ignored[1, 1] = True
    truth, members = torch.tensor([0, 2, 4]), torch.tensor([0, 0, 1, 1, 2])
    piled, left_out = losses.pile(best, ignored, truth, members)
    for heap, windows in enumerate(([0, 1], [2, 3], [4])):
        assert torch.equal(piled[:, heap], best[:, windows].amax(1))
    assert left_out.tolist() == [[False, True, False], [True, False, False], [False] * 3]
    heaps = losses.heap_up(40, torch.device("cpu"))
    sizes = torch.bincount(heaps)
    assert sizes.sum() == 40 and sizes.max() <= 8 and len(sizes) > 5


def test_questions_are_written_as_the_built_model_will_write_them():
    from models.text import QUERY_TEMPLATES
    from training.tokenizer import query_text

    prefix, n_augmentation, suffix = QUERY_TEMPLATES["bare"]
    assert query_text("total?") == f"{prefix}total?{'<|endoftext|>' * n_augmentation}{suffix}"
