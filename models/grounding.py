"""Places on the page that an answer names: `<|box_start|>(x1,y1),(x2,y2)<|box_end|>` and its label.

Qwen2-VL (arXiv:2409.12191) writes corners on a scale of 0 to 1000 over the width and height of
the image, whatever its size, and the label, if any, right before:
`<|object_ref_start|>the total<|object_ref_end|><|box_start|>(12,40),(260,72)<|box_end|>`.
A span that is not exactly of this form stays in the text as it is: nothing is guessed.
"""

import re
from dataclasses import dataclass

SCALE = 1000

_POINT = r"\(\s*\d{1,4}\s*,\s*\d{1,4}\s*\)"
_BOX = rf"<\|box_start\|>\s*{_POINT}\s*,\s*{_POINT}\s*<\|box_end\|>"
# A label holds no control token: an unclosed one must not swallow what follows.
_LABEL = r"<\|object_ref_start\|>(?P<{}>(?:(?!<\|).)*)<\|object_ref_end\|>"
# One label may be followed by several boxes: one for each such object.
_BOXES = rf"{_BOX}(?:\s*(?:,\s*)?{_BOX})*"
_SPAN = re.compile(
    rf"(?:{_LABEL.format('of_boxes')}\s*)?{_BOXES}|{_LABEL.format('alone')}", re.DOTALL
)
_ONE_BOX = re.compile(_BOX)


@dataclass(frozen=True)
class Box:
    """A named place: fractions of the page's height and width, from its upper left corner.

    label  what the answer calls it; empty if it gave no name
    start  where the label stands in `GroundedText.text` (its place, if the label is empty)
    """

    label: str
    top: float
    left: float
    bottom: float
    right: float
    start: int

    def pixels(self, height_px: int, width_px: int) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) in pixels of a page of this size."""
        rows = round(self.top * height_px), round(self.bottom * height_px)
        columns = round(self.left * width_px), round(self.right * width_px)
        return rows[0], columns[0], rows[1], columns[1]


@dataclass(frozen=True)
class GroundedText:
    """An answer as a person reads it, and the places it names."""

    text: str
    boxes: tuple[Box, ...]


def parse_boxes(answer: str) -> GroundedText:
    """Split an answer into readable text (labels stay, boxes go) and its boxes.

    A box whose corners are swapped is put in order; one with a corner beyond 1000, three numbers,
    or an open end is malformed and stays in the text.
    """
    boxes: list[Box] = []
    text, end = "", 0
    for span in _SPAN.finditer(answer):
        text += answer[end : span.start()]
        found = _read(span, len(text))
        if found is None:
            text += span.group()
        else:
            label, added = found
            text += label
            boxes += added
        end = span.end()
    return GroundedText(text + answer[end:], tuple(boxes))


def _read(span: re.Match[str], start: int) -> tuple[str, list[Box]] | None:
    """Label and boxes of a span, or None if a number is out of range."""
    label = (span["of_boxes"] or span["alone"] or "").strip()
    boxes = []
    for match in _ONE_BOX.finditer(span.group()):
        x1, y1, x2, y2 = (int(number) for number in re.findall(r"\d+", match.group()))
        if max(x1, y1, x2, y2) > SCALE:
            return None
        (left, right), (top, bottom) = sorted((x1, x2)), sorted((y1, y2))
        corners = (top / SCALE, left / SCALE, bottom / SCALE, right / SCALE)
        boxes.append(Box(label, *corners, start))
    return label, boxes
