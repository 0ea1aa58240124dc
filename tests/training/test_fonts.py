"""Packed fonts draw the characters they are asked for."""

import pytest

from training import fonts

SAMPLE = "東京年台花咲かなカナ0123Ag"


def test_sound_fonts_are_alike_in_both_renderers(work):
    assert fonts.likeness(work / "fonts" / "helv.otf", fonts.SPECIMEN["en"]) > fonts.ALIKE
    assert fonts.likeness(work / "fonts" / "japan.otf", SAMPLE) > fonts.ALIKE


def test_subset_of_a_cid_keyed_font_keeps_its_glyphs(tmp_path):
    """Renumbered glyphs made PDF show other kanji, or none: 年 became ナ."""
    pytest.importorskip("fontTools", reason="packing needs the dependency group `training`")
    try:
        found = fonts._find("Noto Sans CJK JP", "Regular")
    except FileNotFoundError:
        found = None
    if found is None:
        pytest.skip("fonts-noto-cjk is not installed")
    target = tmp_path / "subset.otf"
    fonts.subset_font(*found, target, SAMPLE)
    assert fonts.likeness(target, SAMPLE) > fonts.ALIKE
    assert target.stat().st_size < 2_000_000


def test_a_family_is_drawn_by_language(work):
    import random

    rng = random.Random(0)
    names = {fonts.choose(work / "fonts", rng, "ja").name for _ in range(5)}
    assert names == {"japan"}
    assert {fonts.choose(work / "fonts", rng, "en").name for _ in range(30)} == {"helv", "tiro"}
