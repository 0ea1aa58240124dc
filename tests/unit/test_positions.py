"""M-RoPE positions on numbers a person can check by hand."""

import numpy as np
import pytest

from models.positions import (
    mrope_positions,
    patch_positions,
    token_types,
)


def types(text: str) -> np.ndarray:
    """`t` text, `i` image, `v` video."""
    return np.array(["tiv".index(letter) for letter in text])


def test_text_counts_on_all_axes():
    ids, following = mrope_positions(types("tttt"))
    assert ids.tolist() == [[0, 1, 2, 3]] * 3
    assert following == 4


def test_an_image_has_rows_and_columns_and_the_text_goes_on_behind_its_longer_side():
    ids, following = mrope_positions(types("tt" + "i" * 6 + "tt"), [(1, 4, 6)])
    assert ids.tolist() == [
        [0, 1, 2, 2, 2, 2, 2, 2, 5, 6],
        [0, 1, 2, 2, 2, 3, 3, 3, 5, 6],
        [0, 1, 2, 3, 4, 2, 3, 4, 5, 6],
    ]
    assert following == 7


def test_two_images_then_nothing():
    ids, following = mrope_positions(types("i" * 2 + "t" + "i" * 4), [(1, 2, 4), (1, 4, 4)])
    assert ids[:, -4:].tolist() == [[3, 3, 3, 3], [3, 3, 4, 4], [3, 4, 3, 4]]
    assert following == 5


def test_a_long_video_lets_the_text_repeat_its_times_but_decoding_goes_on_behind_it():
    ids, following = mrope_positions(types("t" + "v" * 20 + "t"), [(5, 4, 4)])
    assert ids[0, 1:21].tolist() == np.repeat([1, 2, 3, 4, 5], 4).tolist()
    assert ids[:, 21].tolist() == [3, 3, 3]
    assert following == 6


def test_skipped_blocks_leave_the_others_and_the_text_where_they_were():
    kept = np.array([True, False, False, False, True, False])
    whole, whole_next = mrope_positions(types("t" + "i" * 6 + "tt"), [(1, 4, 6)])
    some, some_next = mrope_positions(types("t" + "i" * 2 + "tt"), [(1, 4, 6)], [kept])
    assert (some == whole[:, [0, 1, 5, 7, 8]]).all()
    assert some_next == whole_next


def test_the_next_position_is_the_same_when_the_last_blocks_of_a_sequence_are_skipped():
    kept = np.array([True, False, False, False])
    assert mrope_positions(types("ti"), [(1, 4, 4)], [kept])[1] == 3


@pytest.mark.parametrize(
    ("text", "grids"),
    [("tii", [(1, 4, 4)]), ("ti", []), ("tt", [(1, 2, 2)]), ("iit", [(1, 2, 2)])],
    ids=["too few tokens", "no grid", "no tokens", "too many tokens"],
)
def test_tokens_and_grids_must_belong_together(text, grids):
    with pytest.raises(ValueError, match="grid"):
        mrope_positions(types(text), grids)


def test_token_types_come_from_the_pad_ids():
    assert token_types([5, 301, 301, 9, 302], 301, 302).tolist() == [0, 1, 1, 0, 2]


def test_patches_come_block_by_block():
    assert patch_positions((1, 2, 4)).tolist() == [
        [0, 0], [0, 1], [1, 0], [1, 1],
        [0, 2], [0, 3], [1, 2], [1, 3],
    ]  # fmt: skip
    assert patch_positions((1, 4, 4), np.array([False, False, True, False])).tolist() == [
        [2, 0], [2, 1], [3, 0], [3, 1],
    ]  # fmt: skip
    frames = patch_positions((3, 2, 4))
    assert (frames.reshape(3, 8, 2) == frames[:8]).all()
