"""What a page says: lines that OCR adds to its text layer."""

import pytest

from rag.page_images import _is_in


@pytest.mark.parametrize(
    ("line", "is_in"),
    [
        ("Market share", False),
        ("20", False),  # is in 2023, which does not say it
        ("12", True),
        ("© 2023 Example Co.", True),
        ("Example Co.", True),
        ("2023 12", True),
        ("23 12", False),
    ],
)
def test_a_figure_is_shown_only_as_such(line, is_in):
    rows = ["© 2023 Example Co.\t12"]
    shown = "".join("".join(row.split()) for row in rows)
    assert _is_in(line, shown, {piece for row in rows for piece in row.split()}) == is_in
