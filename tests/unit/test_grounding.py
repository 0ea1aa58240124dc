"""Boxes in generated text, well-formed and not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.grounding import Box, GroundedText, parse_boxes

BOX = "<|box_start|>(100,200),(300,400)<|box_end|>"
NAMED = f"<|object_ref_start|>the total<|object_ref_end|>{BOX}"


def test_a_named_box_becomes_a_label_and_fractions():
    found = parse_boxes(f"It is {NAMED}.")
    wanted = Box("the total", top=0.2, left=0.1, bottom=0.4, right=0.3, start=6)
    assert found == GroundedText("It is the total.", (wanted,))
    assert found.text[6:].startswith(wanted.label)


def test_fractions_become_pixels_of_any_page():
    box = parse_boxes(NAMED).boxes[0]
    assert box.pixels(height_px=1000, width_px=500) == (200, 50, 400, 150)
    assert Box("", 0, 0, 1, 1, 0).pixels(7, 5) == (0, 0, 7, 5)


def test_a_box_without_a_name_leaves_no_trace_in_the_text():
    found = parse_boxes(f"here {BOX} it is")
    assert found.text == "here  it is"
    assert [(box.label, box.start) for box in found.boxes] == [("", 5)]


def test_one_label_may_have_several_boxes():
    found = parse_boxes(f"{NAMED},{BOX} {BOX}")
    assert found.text == "the total"
    assert [box.label for box in found.boxes] == ["the total"] * 3


def test_several_labels_keep_their_boxes_and_places():
    other = NAMED.replace("the total", "日付").replace("(100,200)", "(0,0)")
    found = parse_boxes(f"{NAMED} and {other}")
    assert found.text == "the total and 日付"
    assert [(box.label, box.left, box.start) for box in found.boxes] == [
        ("the total", 0.1, 0),
        ("日付", 0.0, 14),
    ]


def test_a_label_without_a_box_is_only_text():
    found = parse_boxes("<|object_ref_start|>the total<|object_ref_end|> is 7")
    assert found == GroundedText("the total is 7", ())


def test_swapped_corners_are_put_in_order():
    box = parse_boxes("<|box_start|>(300,400),(100,200)<|box_end|>").boxes[0]
    assert (box.top, box.left, box.bottom, box.right) == (0.2, 0.1, 0.4, 0.3)


def test_spaces_between_numbers_do_no_harm():
    assert len(parse_boxes("<|box_start|> ( 1, 2 ), (3 ,4) <|box_end|>").boxes) == 1


@pytest.mark.parametrize(
    "text",
    [
        "<|box_start|>(1,2),(3,1001)<|box_end|>",
        "<|box_start|>(1,2),(3)<|box_end|>",
        "<|box_start|>(1,2)<|box_end|>",
        "<|box_start|>(-1,2),(3,4)<|box_end|>",
        "<|box_start|>(1.5,2),(3,4)<|box_end|>",
        "<|box_start|>(1,2),(3,4)",
        "(1,2),(3,4)<|box_end|>",
        "<|object_ref_start|>the total",
        "<|box_start|><|box_end|>",
    ],
)
def test_what_is_malformed_stays_in_the_text(text):
    assert parse_boxes(f"a {text} b") == GroundedText(f"a {text} b", ())


def test_a_malformed_span_does_not_swallow_the_next():
    broken = "<|object_ref_start|>a <|box_start|>(1,2)"
    found = parse_boxes(broken + NAMED)
    assert found.text == broken + "the total"
    assert len(found.boxes) == 1


@given(st.lists(st.sampled_from([NAMED, BOX, "§", "<|box_start|>", "(1,2)", ",", "<|box_end|>"])))
def test_text_is_never_lost_and_boxes_point_into_it(pieces):
    answer = "".join(pieces)
    found = parse_boxes(answer)
    assert found.text.count("§") == answer.count("§")
    assert len(found.boxes) >= answer.count(BOX)
    for box in found.boxes:
        assert found.text[box.start :].startswith(box.label)
