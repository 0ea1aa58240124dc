"""Flags beat variables beat defaults, and nonsense is named."""

import math
from pathlib import Path

import pytest

from rag.errors import UsageError
from rag.settings import Settings


def test_flags_beat_environment_beats_defaults(monkeypatch):
    monkeypatch.setenv("YOMU_DPI", "100")
    monkeypatch.setenv("YOMU_INDEX", "/elsewhere")
    monkeypatch.setenv("YOMU_MODE", "text")
    monkeypatch.setenv("YOMU_PAGE_SECONDS", "2.5")
    settings = Settings.resolve(dpi=200, model=None)
    assert settings.dpi == 200
    assert settings.index == Path("/elsewhere")
    assert settings.mode == "text"
    assert settings.page_seconds == 2.5
    assert settings.model is None
    assert settings.top_k == Settings().top_k


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"dpi": 3}, "--dpi is 3, it must be at least 10"),
        ({"top_k": 0}, "--top-k is 0"),
        ({"pool_factor": 0}, "--pool-factor is 0"),
        ({"page_seconds": math.nan}, "--page-seconds is nan, it must be at least 0.01"),
        ({"page_seconds": math.inf}, "--page-seconds is inf, it must be at most 1000000"),
        ({"commit_seconds": math.inf}, "--commit-seconds is inf, it must be at most 1000000"),
        ({"page_megabytes": 99999999999999}, "it must be at most 1000000000"),
        ({"top_k": 10**400}, "it must be at most 1000000000"),
        ({"mode": "magic"}, "choose hybrid, visual or text"),
    ],
)
def test_what_cannot_be_meant(flags, says):
    with pytest.raises(UsageError, match=says):
        Settings.resolve(**flags)


def test_variable_of_the_wrong_type_is_named(monkeypatch):
    monkeypatch.setenv("YOMU_DPI", "many")
    with pytest.raises(UsageError, match="YOMU_DPI is 'many', wanted a value of type int"):
        Settings.resolve()


def test_an_empty_variable_is_an_unset_one(monkeypatch):
    for name in Settings.__dataclass_fields__:
        monkeypatch.setenv(f"YOMU_{name.upper()}", "")
    assert Settings.resolve() == Settings()


def test_every_setting_has_a_help_text():
    assert all(len(Settings.help(name)) > 10 for name in Settings.__dataclass_fields__)
