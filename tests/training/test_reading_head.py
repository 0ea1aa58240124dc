"""The reading head: what is seen of a page lies where its characters are, and is learnt to be read.

Pages are drawn and seen by the shipped tower; what a test trains is thrown away.
"""

import json
import os
import random
import shutil
import signal

import numpy as np
import onnxruntime as ort
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="training needs torch: uv sync --group training")

from safetensors.torch import save_file as torch_save  # noqa: E402

from models.folder import EMBEDDED  # noqa: E402
from training import head as heads  # noqa: E402
from training import parts, reading, slots  # noqa: E402
from training.corpus import Corpus  # noqa: E402
from training.head import ReadingHead  # noqa: E402
from training.pages import Glyphs, draw  # noqa: E402
from training.parts import Part  # noqa: E402
from training.samples import text_lines  # noqa: E402
from training.slots import Alphabet, Cells, SeenPage  # noqa: E402

CLEAN = {"degraded": 1e-9, "english": 1.0}


@pytest.fixture(scope="module")
def alphabet():
    return Alphabet.known()


@pytest.fixture(scope="module")
def retriever():
    return slots.tower("embedded")


@pytest.fixture(scope="module")
def drawn(work):
    return draw(Corpus(work / "text"), work / "fonts", 3, "prose", **CLEAN)


@pytest.fixture(scope="module")
def seen(retriever, drawn):
    return slots.see(retriever, drawn)


@pytest.fixture
def few_pages(monkeypatch):
    """Few pages, rows and classes, and a rate that rises at once: seconds show what is learnt."""
    small = {"HELD_PAGES": 1, "LOG_STEPS": 5, "WARM": 5, "ALIKE": 1, "ANY": 20}
    for name, value in small.items():
        monkeypatch.setattr(reading, name, value)
    monkeypatch.setattr(parts, "PART_ROWS", 24)
    torch.set_num_threads(1)


@pytest.fixture
def shelf(work, tmp_path, seen, few_pages):
    """A work folder of its own with pages to learn from."""
    for name in ("text", "fonts"):
        (tmp_path / name).symlink_to(work / name)
    (tmp_path / "reading").mkdir()
    seen.save(tmp_path / "reading" / "1-00000.npz")
    seen.save(tmp_path / "reading" / "held-00000.npz")
    return tmp_path


def begun(alphabet):
    """A head that reads each slot by itself, as the tower does."""
    torch.manual_seed(0)
    head = ReadingHead(alphabet.size)
    head.begin()
    head.frames.weight.data.zero_()
    head.frames.bias.data.zero_()
    head.pixels.direct.weight.data.zero_()
    head.pixels.direct.bias.data.zero_()
    return head


def text(alphabet, line):
    return alphabet.text(classes for classes, _ in line)


def call(*arguments):
    result = CliRunner().invoke(reading.app, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def log(work):
    return [json.loads(line) for line in (work / "reading.jsonl").read_text().splitlines()]


def test_classes_are_those_of_the_tower_and_a_space(alphabet):
    a, z = (alphabet.of_code[ord(c)] for c in "az")
    assert alphabet.size == len(alphabet.characters) + 3
    assert alphabet.text([a, alphabet.space, 1, z]) == "a \ufffdz"


def test_rows_spell_the_lines_of_the_page_in_order(drawn, seen, alphabet):
    rows = parts.whole(seen, alphabet).rows
    spelled = {row: text(alphabet, line) for row, line in rows.items()}
    lines = text_lines(drawn.glyphs, np.zeros(len(drawn.glyphs.codes), np.int64))
    wanted = [line.text for line in lines]
    found = [spelled[row] for row in sorted(spelled)]
    assert len(wanted) > 3
    assert [line for line in found if line in wanted] == wanted


def test_spaces_stand_between_words_cells_of_a_table_and_lines_side_by_side(alphabet):
    boxes = [[0, 2, 6, 12], [7, 2, 13, 12], [16, 2, 22, 12], [60, 2, 66, 12], [67, 2, 73, 12]]
    glyphs = Glyphs(
        np.array([ord(c) for c in "abcde"], np.uint32),
        np.array(boxes, np.float32),
        np.array([0, 0, 0, 0, 1], np.int32),
        np.array([False, False, True, False, False]),
    )
    none = Cells(np.empty((0, 256), np.float16), np.empty((0, 2), np.int16))
    no_pixels = slots.NO_PIXELS, slots.NO_PIXELS
    page = SeenPage((none, none), none, (2, 4), (1, 2), no_pixels, glyphs, "en")
    row = slots.spelled(page, (2, 4), alphabet)[0]
    assert text(alphabet, row) == "ab c d e"
    assert [frame for _, frame in row] == [1, 5, -1, 10, -1, 36, -1, 40]
    assert list(slots.spelled(page, (4, 8), alphabet)) == [1]  # twice as large: 7 px is 14 px


def test_both_grids_of_a_page_land_on_the_slots_that_characters_lie_in(seen, alphabet):
    boxes = seen.glyphs.boxes
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    wanted = np.stack([middle[:, 1] // 14, middle[:, 0] // 7], 1)
    for cells in seen.cells:
        inside = middle - 14 * cells.shift
        number = {tuple(at): n for n, at in enumerate(cells.at.tolist())}
        own = [number.get((int(y // 28), int(x // 28)), -1) for x, y in inside]
        slot = (inside[:, 1] // 14 % 2 * 4 + inside[:, 0] // 7 % 4).astype(int)
        found = np.array(own) >= 0
        assert found.mean() > 0.99
        assert np.array_equal(cells.slots()[np.array(own)[found], slot[found]], wanted[found])


@pytest.mark.parametrize("shift", [0, 1])
def test_each_grid_alone_shows_the_characters_where_they_are(seen, alphabet, shift):
    """Were a band laid a row too low, hardly a slot would show what lies there."""
    head = begun(alphabet)
    whole = parts.whole(seen, alphabet)
    with torch.no_grad():
        states, _ = head(Part((seen.cells[shift],), whole.pixels, whole.shape, {}))
        classes = head.characters(states).argmax(-1).numpy()
    boxes = seen.glyphs.boxes
    middle = ((boxes[:, :2] + boxes[:, 2:]) / 2).astype(int)
    shown = classes[middle[:, 1] // 14, 4 * (middle[:, 0] // 7)]
    assert (shown == alphabet.of_code[seen.glyphs.codes]).mean() > 0.8


def test_a_seed_gives_one_page_and_a_file_holds_it(work, tmp_path, few_pages):
    pages = []
    for name in ("one", "again"):
        folder = tmp_path / name
        folder.mkdir()
        for each in ("text", "fonts"):
            (folder / each).symlink_to(work / each)
        call("draw", folder, "--pages", 2, "--seed", 5)
        pages.append(sorted((folder / "reading").iterdir()))
    assert [p.name for p in pages[0]] == [p.name for p in pages[1]]
    assert pages[0]
    for one, other in zip(*pages, strict=True):
        a, b = SeenPage.load(one), SeenPage.load(other)
        assert (a.grid, a.small, a.language) == (b.grid, b.small, b.language)
        for mine, others in zip((*a.cells, a.overview), (*b.cells, b.overview), strict=True):
            assert np.array_equal(mine.features, others.features)
            assert np.array_equal(mine.at, others.at)
        assert np.array_equal(a.glyphs.boxes, b.glyphs.boxes)
        assert all(map(np.array_equal, a.pixels, b.pixels))


def test_a_page_of_pixels_alone_is_cut_as_the_tower_sees_it(retriever, drawn, seen, alphabet):
    unseen = slots.see(retriever, drawn, pixels_alone=True)
    assert (unseen.grid, unseen.small) == (seen.grid, seen.small)
    assert all(map(np.array_equal, unseen.pixels, seen.pixels))
    for one, other in zip(
        (*unseen.cells, unseen.overview), (*seen.cells, seen.overview), strict=True
    ):
        assert not one.are_seen and other.are_seen
        assert np.array_equal(one.at, other.at)
    assert parts.whole(unseen, alphabet).rows == parts.whole(seen, alphabet).rows


def test_parts_hold_the_rows_they_show(seen, alphabet):
    whole = parts.whole(seen, alphabet)
    below = seen.cells[1].below(4)
    assert below.at[:, 0].min() >= -1
    full = {tuple(at) for at in seen.cells[1].slots().reshape(-1, 2).tolist() if at[0] >= 8}
    moved = {(r + 8, c) for r, c in below.slots().reshape(-1, 2).tolist() if r >= 0}
    assert moved == full
    part = parts.cut(seen, alphabet, FixedRandom())
    assert part.shape == (parts.PART_ROWS, 4 * seen.grid[1])
    assert np.array_equal(part.pixels, whole.pixels[64 : 64 + 16 * parts.PART_ROWS])
    assert part.rows == {r - 4: s for r, s in whole.rows.items() if 0 <= r - 4 < part.shape[0]}


def test_some_parts_are_low(seen, alphabet, monkeypatch):
    monkeypatch.setattr(parts, "OVERVIEWS", 0)
    drawn = [parts.cut(seen, alphabet, random.Random(seed)) for seed in range(40)]
    rows = [part.shape[0] for part in drawn]
    assert 2 <= min(rows) < parts.PART_ROWS == max(rows)
    for part in drawn:
        assert len(part.pixels) == 16 * part.shape[0]
        assert all(0 <= row < part.shape[0] for row in part.rows)


class FixedRandom:
    """No overview, both grids, from the third row of cells on."""

    def random(self):
        return 0.9

    def randrange(self, _end):
        return 2


def test_reading_joins_the_frames_of_a_character_but_not_across_what_is_unseen(alphabet):
    """Unseen slots are blank: two equal characters on either side of them are two."""
    head = begun(alphabet)
    features = torch.zeros(2, 256)
    head.slots.weight.data.zero_()
    head.slots.bias.data.fill_(1.0)
    a = int(alphabet.of_code[ord("a")])
    head.characters.bias.data[a] = 1e4
    cells = Cells(features.numpy().astype(np.float16), np.array([[0, 0], [0, 2]], np.int16))
    pixels = np.zeros((64, 96), np.uint8)
    assert head.read(Part((cells,), pixels, (4, 12), {})) == [[a, a], [a, a], [], []]


def test_training_lowers_the_loss_and_goes_on_from_its_checkpoint(shelf, seen, alphabet):
    def loss(head):
        part = parts.whole(seen, alphabet)
        with torch.no_grad():
            return float(reading.ctc(head, part, np.arange(alphabet.size), random.Random(1))[0])

    before = ReadingHead(alphabet.size)
    before.begin()
    call("run", shelf, "--steps", 30, "--seed", 2)
    after, _ = reading.averaged(shelf)
    assert loss(after) < 0.7 * loss(before)
    lines = log(shelf)
    assert {line["what"] for line in lines} == {"train", "held"}
    assert 0 <= lines[-1]["en"] < 0.5
    call("run", shelf, "--steps", 5, "--seed", 2)
    assert log(shelf)[-1]["step"] > lines[-1]["step"]
    assert "drawn, en: " in call("evaluate", shelf)


def test_convolutions_learn_to_see_by_themselves_and_a_run_begins_with_them(shelf, seen, alphabet):
    def right(head):
        part, rng = parts.whole(seen, alphabet), random.Random(1)
        with torch.no_grad():
            return reading.middles(head, part, np.arange(alphabet.size), rng)[1]

    output = call("look", shelf, "--steps", 60, "--seed", 3, "--rate", 4e-3)
    assert output.startswith("step 5: ") and "% right" in output
    trainer = reading.Trainer(shelf, 2e-3, 1)
    assert right(begun(alphabet)) < 0.1
    assert right(trainer.head) > 0.3


def test_both_pages_of_pixels_alone_and_others_are_shown(shelf, retriever, drawn):
    unseen = slots.see(retriever, drawn, pixels_alone=True)
    unseen.save(shelf / "reading" / f"{reading.PIXELS_ALONE}1-00000.npz")
    pages = reading.Shelf(shelf / "reading", random.Random(1))
    shown = [pages.page().cells[0].are_seen for _ in range(20)]
    assert len(pages) == 2
    assert 0 < sum(shown) < 20


def test_a_signal_ends_the_run_with_a_checkpoint(shelf, monkeypatch):
    train_on = reading.Trainer.train_on

    def told_to_stop(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return train_on(*arguments)

    monkeypatch.setattr(reading.Trainer, "train_on", told_to_stop)
    before = signal.getsignal(signal.SIGTERM)
    call("run", shelf)
    assert signal.getsignal(signal.SIGTERM) == before
    assert torch.load(shelf / "reading.pt", weights_only=False)["step"] == 1
    assert not (shelf / "reading.jsonl").exists()


def test_an_exported_head_reads_the_same_and_is_gone_on_from(shelf, seen, alphabet, tmp_path):
    call("run", shelf, "--steps", 2)
    out, again = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    assert "of the frames are read" in call("export", shelf, out)
    first, _ = reading.averaged(shelf)
    (shelf / "reading.pt").unlink()
    trainer = reading.Trainer(shelf, 2e-3, 1, out)
    part = parts.whole(seen, alphabet)
    with torch.no_grad():
        for one, other in zip(first(part), trainer.head(part), strict=True):
            assert torch.allclose(one.float(), other.float(), atol=0.02)  # fp16: 11 bits
    trainer.save()
    call("export", shelf, again)
    before, after = load_file(out), load_file(again)
    assert before.pop("ink.bias") == pytest.approx(after.pop("ink.bias"), abs=0.01)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_head_that_is_shipped_is_gone_on_from_and_reads_as_taught(seen, alphabet, tmp_path):
    """The graph that the product runs says what the taught head says of the same slots."""
    folder, file = tmp_path / "model", tmp_path / "head.safetensors"
    shutil.copytree(EMBEDDED, folder)
    head = ReadingHead(alphabet.size).eval()
    with torch.no_grad():
        head.ink.bias.fill_(100)
    heads.write(head, alphabet, file)
    call("ship", file, folder)
    again = ReadingHead(alphabet.size).eval()
    heads.load(again, alphabet, folder)
    for name, value in head.half().float().state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    page = parts.whole(seen, alphabet)
    with torch.no_grad():
        states, shown = again(page)
        wanted = again.characters(states[shown]).argmax(-1).numpy()
    graph = ort.InferenceSession(folder / "reading.onnx")
    found = graph.run(["classes"], lattice_of(page))[0]
    assert (found == wanted).mean() > 0.999  # sums in another order may turn a near tie


def lattice_of(part):
    """The inputs of the graph for a part of a page, as models.reading lays them out."""
    rows, columns = part.shape
    at = [(each.slots() @ (columns, 1)).ravel() for each in part.cells]
    features = [each.features.astype(np.float32) for each in part.cells]
    places = np.concatenate(at)
    counts = np.bincount(places, minlength=rows * columns)
    weights = np.where(counts > 0, 1 / np.maximum(counts, 1), 0).astype(np.float32)
    return {
        "features": np.concatenate(features),
        "places": places[:, None],
        "weights": weights.reshape(rows, columns),
        "seen": np.flatnonzero(counts)[:, None],
        "pixels": part.pixels,
    }


def test_a_head_that_lacks_a_part_is_refused(alphabet, tmp_path):
    whole, bare = tmp_path / "whole.safetensors", tmp_path / "bare.safetensors"
    heads.write(ReadingHead(alphabet.size), alphabet, whole)
    kept = {name: value for name, value in load_file(whole).items() if "ink" not in name}
    save_file(kept, bare, metadata={"characters": alphabet.characters})
    with pytest.raises(ValueError, match=r"bare\.safetensors: .*ink\.weight"):
        heads.load(ReadingHead(alphabet.size), alphabet, bare)
    result = CliRunner().invoke(reading.app, ["run", str(tmp_path), "--start", str(bare)])
    assert result.exit_code == 2 and "ink.weight" in result.output


def test_an_exported_head_keeps_its_convolutions_beside_those_of_look(shelf, alphabet, tmp_path):
    out = tmp_path / "head.safetensors"
    head = ReadingHead(alphabet.size)
    heads.write(head, alphabet, out)
    other = ReadingHead(alphabet.size).pixels.state_dict()
    torch_save(other, shelf / reading.SIGHT_OF_PIXELS)
    begun = reading.Trainer(shelf, 2e-3, 1).head.pixels.direct.weight
    assert torch.equal(begun, other["direct.weight"])
    gone_on = reading.Trainer(shelf, 2e-3, 1, out).head.pixels.direct.weight
    assert torch.equal(gone_on, head.pixels.direct.weight.half().float())


def test_ink_learns_which_frames_are_blank_and_export_has_it_miss_few(shelf, seen, alphabet):
    call("run", shelf, "--steps", 30, "--seed", 2)
    head, _ = reading.averaged(shelf)
    is_inked, ink = frames(head, seen, alphabet)
    assert (ink[~is_inked] <= 0).mean() > 0.2 + (ink[is_inked] <= 0).mean()
    assert (ink[is_inked] <= 0).mean() < 0.1
    call("export", shelf, shelf / "out.safetensors")
    heads.load(head, alphabet, shelf / "out.safetensors")
    is_inked, ink = frames(head, seen, alphabet)
    assert 0 < (ink[is_inked] <= 0).mean() < 0.004


def frames(head, page, alphabet):
    """Which of the seen frames of a page name a character, and what `ink` says of each."""
    with torch.no_grad():
        states, seen = head(parts.whole(page, alphabet))
        is_inked = head.characters(states[seen]).argmax(-1) != 0
        return is_inked.numpy(), head.ink(states[seen])[:, 0].numpy()


def test_a_head_of_other_characters_is_refused(alphabet, tmp_path):
    out = tmp_path / "other.safetensors"
    heads.write(ReadingHead(6), Alphabet("abc"), out)
    with pytest.raises(ValueError, match="not the 3594 characters"):
        heads.load(ReadingHead(alphabet.size), alphabet, out)


def test_without_pages_the_command_says_what_to_do(work, tmp_path):
    result = CliRunner().invoke(reading.app, ["run", str(tmp_path)])
    assert result.exit_code == 2
    assert "draw" in result.output
