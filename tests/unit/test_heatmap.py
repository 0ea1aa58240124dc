"""Overlays on numbers a person can check."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from ui.heatmap import STRONGEST, answer_words, bytes_uri, data_uri, overlay, quoted_words, strength


def scores(*rows):
    return np.array(rows, np.float32)


def test_the_best_cell_is_strongest_and_the_floor_is_clear():
    found = strength(scores([0.0, 0.1, 0.2], [0.3, 0.4, 1.0]))
    assert found.shape == (2, 3)
    assert found[1, 2] == 1.0
    assert (found[0] == 0).all() and 0 < found[1, 1] < 1


def test_blank_cells_are_clear_and_do_not_count():
    nan = float("nan")
    seen = scores([0.1, 0.2, 0.3, 0.9])
    mixed = scores([0.1, 0.2, 0.3, 0.9], [nan, nan, nan, nan])
    assert (strength(mixed)[1] == 0).all()
    assert np.array_equal(strength(mixed)[0], strength(seen)[0])


@pytest.mark.parametrize(
    "page",
    [scores([0.5, 0.5], [0.5, 0.5]), scores([float("nan")] * 3), scores([-0.4])],
    ids=["all alike", "all blank", "one cell"],
)
def test_a_page_without_a_difference_shows_nothing(page):
    assert strength(page).shape == page.shape
    assert not strength(page).any()


def test_negative_similarities_are_compared_like_others():
    page = scores([-0.9, -0.8, -0.7, -0.1])
    assert np.allclose(strength(page), strength(page + 1), atol=1e-5)


def test_an_overlay_has_a_pixel_for_each_cell():
    image = overlay(scores([0.0, 0.1, 1.0], [0.0, 0.0, float("nan")]))
    assert (image.mode, image.size) == ("RGBA", (3, 2))  # (columns, rows)
    assert image.getpixel((2, 0))[3] == STRONGEST
    assert image.getpixel((0, 0))[3] == image.getpixel((2, 1))[3] == 0


def test_an_image_travels_as_its_bytes():
    image = overlay(scores([0.0, 1.0]))
    head, _, body = data_uri(image).partition(",")
    assert head == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(body))).tobytes() == image.tobytes()
    assert bytes_uri(b"abc", "image/webp") == "data:image/webp;base64,YWJj"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("The total was 1,420.", ("total", "1,420")),
        ("8月12日に開かれました。", ("8月", "12日")),
        ("夏の来訪者は28,900人、花火大会です。", ("来訪者", "28,900人", "花火大会")),
        ("Clara Weiss, on page 2", ("Clara", "Weiss")),
        ("7.", ("7",)),
        ("total Total total", ("total", "Total")),
        ("", ()),
    ],
)
def test_words_of_an_answer_worth_framing(answer, words):
    assert answer_words(answer) == words


def test_of_a_quotation_the_lines_that_answer_are_framed():
    table = "Thousand euros, without tax.\nRegion 2022 2023 …\nTotal 1,300 1,420"
    found = quoted_words(table, "What were the total sales in 2023?")
    assert {"Total", "1,420"} <= set(found)
    assert "Thousand" not in found
    named = "Region 2022 2023 …\nTotal 1,300 $ 1,420 (2023: $1,420)"
    found = quoted_words(named, "What were the total sales in 2023?")
    assert {"Total", "1,420"} <= set(found)
    assert "1,300" not in found
    chart = "Electricity use\nNew windows were fitted.\nJan 64\nMar 47\nMay 28"
    found = quoted_words(chart, "How much electricity did the library use in March?")
    assert {"Mar", "47"} <= set(found)
    assert not {"28", "64", "windows"} & set(found)
    assert quoted_words("夏の花火大会は8月12日に開かれ、", "花火大会はいつですか") == (
        "花火大会",
        "8月",
        "12日",
    )
    assert quoted_words("Nothing in common", "kettle") == ("Nothing", "common")


def test_only_so_many_words_are_framed():
    assert len(answer_words(" ".join(f"word{n}" for n in range(100)), most=5)) == 5


def test_the_figure_at_the_end_of_a_long_sentence_is_framed():
    said = (
        "The company's total operating revenue for the fiscal year under review, including "
        "discontinued businesses abroad, came to 1,420 million"
    )
    found = answer_words(said)
    assert len(found) == 12
    assert found[-1] == "1,420"
