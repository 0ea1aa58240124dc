"""The reading head: its graph against the same in numpy, and letters put together to lines."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import ExifTags, Image
from safetensors.numpy import save_file
from scipy.special import erf, softmax

import models
from models.build.builder import BuildOptions, Precisions, add_reading, build
from models.build.inputs import Sources
from models.errors import ModelFilesError
from models.folder import ModelInfo, verify
from models.images import preprocess
from models.reading import ReadLine, SeenView, _lattice, _Piece, columns, combine, grey, join
from models.vision import Patches
from tests.parity import cases, tiny

CHARACTERS = "abc日本"
WIDTH, CHANNELS, N_CLASSES = 6, 10, len(CHARACTERS) + 3
HIDDEN = tiny.TINY.hidden


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights of a small head of two blocks."""
    rng = np.random.default_rng(seed)
    shapes = {
        "slots": (8 * WIDTH, HIDDEN),
        "widen": (CHANNELS, WIDTH),
        "frames": (4 * WIDTH, CHANNELS),
        "shortcut": (4 * WIDTH, WIDTH),
        "ink": (1, WIDTH),
        "characters": (N_CLASSES, WIDTH),
        "pixels.out": (CHANNELS, 2 * 5),
        "pixels.direct": (2 * WIDTH, 5),
    }
    for block in range(2):
        shapes |= {
            f"blocks.{block}.around": (CHANNELS, 1, 3, 5),
            f"blocks.{block}.norm": (CHANNELS,),
            f"blocks.{block}.up": (2 * CHANNELS, CHANNELS),
            f"blocks.{block}.down": (CHANNELS, 2 * CHANNELS),
        }
    found = {f"{name}.weight": rng.normal(0, 0.5, shape) for name, shape in shapes.items()}
    found |= {f"{name}.bias": rng.normal(0, 0.5, shape[0]) for name, shape in shapes.items()}
    for layer, (n_in, n_out) in enumerate(pairwise((1, 2, 3, 4, 5))):
        found[f"pixels.layers.{layer}.weight"] = rng.normal(0, 0.5, (n_out, n_in, 3, 3))
        for part in ("weight", "bias"):
            found[f"pixels.norms.{layer}.{part}"] = rng.normal(0, 0.5, n_out)
    return {name: each.astype(np.float32) for name, each in found.items()}


@pytest.fixture(scope="module")
def head_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("head") / "reading.safetensors"
    save_file(weights(), path, {"characters": CHARACTERS})
    return path


@pytest.fixture(scope="module")
def reader(checkpoints, head_file, tmp_path_factory):
    """A tiny retriever that has a reading head, in float32; a page has many blocks of frames."""
    sources = Sources(checkpoints / "base", checkpoints / "adapter", reading=head_file)
    options = BuildOptions(Precisions("fp32", "fp32", "fp32"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("models.build.reading_graph.FRAMES_AT_ONCE", 16)
        folder = build(sources, tmp_path_factory.mktemp("model") / "out", options)
    return models.load(folder, "cpu")


def reference(inputs: dict[str, np.ndarray], w: dict[str, np.ndarray]) -> np.ndarray:
    """Probabilities (4S, classes) of the frames of the seen slots, written down plainly."""

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def gelu(x: np.ndarray) -> np.ndarray:
        return x * (1 + erf(x / np.sqrt(2))) / 2

    rows, columns = inputs["weights"].shape
    slots = gelu(linear(inputs["features"], "slots")).reshape(-1, WIDTH)
    lattice = np.zeros((rows * columns, WIDTH))
    np.add.at(lattice, inputs["places"][:, 0], slots)
    lattice *= inputs["weights"].reshape(-1, 1)
    seen = inputs["seen"][:, 0]
    x = lattice[seen]
    shown = looked_at(inputs["pixels"], w)[seen]
    h = linear(x, "widen") + linear(shown, "pixels.out")
    for block in (f"blocks.{n}" for n in range(2)):
        padded = np.zeros((rows + 2, columns + 4, CHANNELS))
        inner = padded[1:-1, 2:-2].reshape(-1, CHANNELS)
        inner[seen] = h
        padded[1:-1, 2:-2] = inner.reshape(rows, columns, CHANNELS)
        around = sum(
            padded[y : y + rows, left : left + columns] * w[f"{block}.around.weight"][:, 0, y, left]
            for y in range(3)
            for left in range(5)
        )
        y = (around + w[f"{block}.around.bias"]).reshape(-1, CHANNELS)[seen]
        y = (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-5)
        y = y * w[f"{block}.norm.weight"] + w[f"{block}.norm.bias"]
        h = h + linear(gelu(linear(y, f"{block}.up")), f"{block}.down")
    frames = (linear(h, "frames") + linear(x, "shortcut")).reshape(-1, WIDTH)
    frames += linear(shown.reshape(2 * len(x), -1), "pixels.direct").reshape(-1, WIDTH)
    scores = softmax(linear(frames, "characters"), axis=1)
    scores[linear(frames, "ink")[:, 0] <= 0] = 0
    return scores


def looked_at(pixels: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    """What the convolutions see of both halves of every slot, (R·C, 2·channels)."""
    x = (255 - pixels[..., None].astype(float)) / 127.5
    for layer, (down, right) in enumerate(((2, 2), (2, 2), (2, 1), (2, 1))):
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
        kernel = w[f"pixels.layers.{layer}.weight"]
        x = np.einsum("yxchw,ochw->yxo", windows[::down, ::right], kernel)
        x = (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + 1e-5)
        weight, bias = (w[f"pixels.norms.{layer}.{part}"] for part in ("weight", "bias"))
        x = np.maximum(x * weight + bias, 0)
    return x.reshape(-1, 2 * x.shape[2])


def seen_views(engine, image) -> tuple[list[SeenView], tuple[int, int]]:
    """A page as a band and, in place of a shifted one, as the same cells half a cell further."""
    page = preprocess(image, 28 * 28, 40 * 28 * 28)
    features = engine.retriever._vision.encode(Patches.choose(page, False))
    grid = int(page.grid_thw[1]) // 2, int(page.grid_thw[2]) // 2
    cut = engine.retriever._vision.encode(
        Patches.choose(
            preprocess(image.crop((0, 0, 28 * (grid[1] - 1), 28 * (grid[0] - 1))), 784, 31360),
            False,
        )
    )
    return [SeenView(features), SeenView(cut, 0, is_shifted=True)], grid


def random_picture():
    return cases.picture(140, 112, seed=3)


@pytest.mark.parametrize("image", [random_picture(), Image.new("RGB", (140, 112), "white")])
@pytest.mark.parametrize("n_views", [1, 2])
def test_the_graph_reads_as_written_down(reader, image, n_views):
    views, grid = seen_views(reader, random_picture())
    counts, inputs = _lattice(views[-n_views:], grid)
    inputs["pixels"] = grey(image, grid)
    assert (counts.min(), counts.max()) == (n_views - 1, n_views)  # the last leaves the edge out
    session = reader.retriever._reading._session
    frames, classes, confidence = session.run(["frames", "classes", "confidence"], inputs)
    wanted = reference(inputs, weights())
    assert 16 < len(frames) < len(wanted)
    np.testing.assert_array_equal(frames, np.flatnonzero(wanted.sum(1)))
    np.testing.assert_allclose(confidence, wanted[frames].max(1), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(classes, wanted[frames].argmax(1))


def test_frames_of_one_class_side_by_side_are_one_letter(reader):
    classes = np.array([2, 2, 0, 2, 3, 3, 3, 0])
    sure = np.array([0.5, 0.9, 1.0, 0.6, 0.4, 0.8, 0.8, 1.0], np.float32)
    found = reader.retriever._reading._letters(7, classes, sure)
    assert found.text == ("a", "a", "b") and found.rows == (7, 7)
    np.testing.assert_allclose(found.confidence, [0.9, 0.6, 0.8])
    np.testing.assert_allclose(found.middles, 1.75 * (np.array([1, 3, 5]) + 0.5))
    assert reader.retriever._reading._letters(0, 0 * classes, sure).text == ()


def test_a_page_is_read_only_when_asked(reader, monkeypatch):
    monkeypatch.setattr("models.reading.LEGIBLE", 0)  # random weights are sure of nothing
    image = random_picture()
    plain, read = (reader.retriever.encode_views(image, read=each) for each in (False, True))
    np.testing.assert_array_equal(plain.vectors, read.vectors)
    assert plain.lines == ()
    assert set("".join(line.text for line in read.lines)) & set(CHARACTERS)


def test_a_page_is_read_upright_and_on_white(reader, monkeypatch):
    monkeypatch.setattr("models.reading.LEGIBLE", 0)
    upright = random_picture()
    clear = upright.convert("RGBA")
    clear.paste((0, 0, 0, 0), (28, 28, 84, 84))
    white = upright.copy()
    white.paste("white", (28, 28, 84, 84))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[ExifTags.Base.Orientation] = 6  # to be turned by 90° clockwise
    for one, other in ((turned, upright), (clear, white)):
        found, wanted = (
            reader.retriever.encode_views(each, read=True).lines for each in (one, other)
        )
        assert wanted
        assert found == wanted


def test_the_smallest_page_is_read(reader):
    image = Image.new("RGB", (28, 28), "white")
    assert reader.retriever.encode_views(image, read=True).grid == (2, 2)  # as min_pixels asks


def test_a_model_without_the_part_reads_nothing(engine):
    assert engine.retriever.encode_views(cases.picture(84, 112, seed=1), read=True).lines == ()


def test_the_part_can_be_given_to_a_folder(model_folder, head_file, tmp_path):
    """Vectors stay what they are, so indexes do as well."""
    import shutil

    folder = shutil.copytree(model_folder(), tmp_path / "model")
    digest = ModelInfo.load(folder).digest
    add_reading(folder, head_file)
    assert verify(folder) == []
    assert ModelInfo.load(folder).digest == digest
    assert ModelInfo.load(folder).graphs.reading == "reading.onnx"


def test_a_part_without_its_characters_is_refused(model_folder, tmp_path):
    save_file(weights(), tmp_path / "bare.safetensors")
    with pytest.raises(ModelFilesError, match="says no characters"):
        add_reading(model_folder(), tmp_path / "bare.safetensors")


# --- letters to lines ------------------------------------------------------------------------


def piece(text: str, row: int, left: float = 0.0, pitch: float = 8.0, sure: float = 0.9) -> _Piece:
    middles = (left + pitch * np.arange(len(text))).astype(np.float32)
    return _Piece(tuple(text), middles, np.full(len(text), sure, np.float32), (row, row))


def texts(pieces) -> list[str]:
    return ["".join(each.text) for each in join(pieces)]


def test_a_line_between_two_rows_is_put_together():
    assert texts([piece("The quick", 4), piece("brown fox", 5, left=80)]) == ["The quickbrown fox"]


def test_letters_read_in_both_rows_stay_once():
    upper, lower = piece("revenue of", 4, sure=0.8), piece("revenve", 5, sure=0.6)
    assert texts([upper, lower]) == ["revenue of"]
    assert texts([piece("revenve", 4, sure=0.6), piece("revenue of", 5, sure=0.8)]) == [
        "revenue of"
    ]


def test_lines_right_under_each_other_stay_two():
    assert texts([piece("one line of text", 4), piece("and the next one", 5)]) == [
        "one line of text",
        "and the next one",
    ]


def test_a_sloping_line_is_followed_over_many_rows():
    parts = [piece("abcd", row, left=32 * row) for row in range(5)]
    assert texts(parts) == ["abcd" * 5]


def test_far_cells_of_neighbouring_rows_stay_apart():
    assert texts([piece("Total", 4), piece("1,420", 5, left=300)]) == ["Total", "1,420"]


def test_a_wide_gap_ends_a_line():
    row = piece("Total", 4)
    far = piece("1,420", 4, left=300)
    both = _Piece(
        row.text + far.text,
        np.concatenate([row.middles, far.middles]),
        np.concatenate([row.confidence, far.confidence]),
        (4, 4),
    )
    assert ["".join(each.text) for each in both.parts()] == ["Total", "1,420"]


def line(text: str, sure: float, top: float = 0.0, left: float = 0.0) -> ReadLine:
    return ReadLine(text, left, top, left + 8 * len(text), top + 14, sure)


def test_large_type_is_taken_from_the_overview():
    page = [line("AuBx", 0.55, top=10), line("small type", 0.9, top=200)]
    overview = [line("Annual Report", 0.95), line("eeaoal", 0.3, top=98)]
    found = combine(page, overview, (60, 42), (30, 21))
    assert [each.text for each in found] == ["Annual Report", "small type"]
    assert found[0].right == 2 * 8 * len("Annual Report")


def test_an_overview_that_is_no_surer_changes_nothing():
    page = [line("Annual Report", 0.9, top=5)]
    assert combine(page, [line("Annval Reporl", 0.92)], (60, 42), (30, 21)) == page


def test_lines_from_top_to_bottom_are_read_so():
    """Rows of slots lie across them: a letter of each, spaces between."""
    texts = ["縦書きの文は上から下へ", "右から左へ読まれます。"]
    rows = list(zip(*texts, strict=True))
    across = []
    for number, letters in enumerate(rows):
        # four lines, so that a row has as many letters; the right one is first
        spread = [letter for each in (*letters[::-1], *letters[::-1]) for letter in (each, " ")]
        middles = np.float32(10 + 17 * np.arange(len(spread)))
        sure = np.full(len(spread), 0.9, np.float32)
        across.append(_Piece(tuple(spread), middles, sure, (2 * number, 2 * number)))
    assert all(each.is_across for each in across)
    found = columns(across)
    assert [each.text for each in found] == [*texts, *texts]
    assert all(each.is_vertical for each in found)
    assert found[0].left > found[1].right and found[0].bottom - found[0].top > 11 * 14


def test_words_and_figures_lie_across_nothing():
    assert not piece("Total 1 2 3 4 5", 0).is_across
    assert not piece("合 計", 0).is_across
    assert not piece("組織の考え方を 導入する", 0).is_across
