"""Every setting in one place: flags beat YOMU_* variables beat defaults."""

import os
import types
import typing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

from rag.errors import UsageError

Mode = Literal["hybrid", "visual", "text"]
ENVIRONMENT_PREFIX = "YOMU_"
DEFAULT_DPI = 144
DEFAULT_MODEL = "embedded"
LARGEST = 1_000_000_000  # of any number: as bytes or rows, the system can still count to it
MOST_SECONDS = 1_000_000  # 11 days; the system waits for at most 2**31 milliseconds


def _setting(default: Any, help_text: str) -> Any:  # noqa: ANN401 - as dataclasses.field is typed
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True)
class Settings:
    """What a run is made with. None: what the index was built with, or else the model's own.

    Each field may be given as a flag (`--max-visual-tokens`) or as a variable of the environment
    (`YOMU_MAX_VISUAL_TOKENS`); its help text is that of the flag.
    """

    index: Path = _setting(Path(".yomu"), "Folder of the index.")
    model: str | None = _setting(
        None, "Name or folder of the model; by default the one the index was built with, or "
        f"'{DEFAULT_MODEL}' for a new index.",
    )  # fmt: skip
    device: str = _setting("auto", "auto, cpu, cuda, coreml, directml or openvino.")
    threads: int = _setting(0, "Threads of the model; 0: all cores.")
    dpi: int | None = _setting(
        None, f"Resolution pages are drawn at, {DEFAULT_DPI} in a new index; "
        "--max-visual-tokens may lower it.",
    )  # fmt: skip
    max_visual_tokens: int | None = _setting(
        None, "Most visual tokens of a page (28 x 28 pixels each); by default what the model says."
    )
    pool_factor: int | None = _setting(
        None, "Merge similar vectors of a page until 1/N of them are left; 1 (none) in a new index."
    )
    ocr: str = _setting(
        "auto",
        "Pages without a usable text layer are also read by Tesseract: auto (where it is "
        "installed), off, or its languages, such as eng+deu.",
    )
    readers: int = _setting(0, "Processes that draw pages ahead of the model; 0: as cores allow.")
    page_seconds: float = _setting(60.0, "A page that takes longer to read is stopped and listed.")
    page_megabytes: int = _setting(1500, "A page that takes more memory is stopped and listed.")
    commit_seconds: float = _setting(
        2.0, "Pages are made durable this often: a crash or a power cut loses no more work."
    )
    top_k: int = _setting(5, "How many pages to show.")
    mode: Mode = _setting(
        "hybrid", "Rank by page image and text (hybrid), by image (visual) or by text alone."
    )

    @classmethod
    def resolve(cls, **flags: Any) -> Self:  # noqa: ANN401 - each field has its own type
        """Return settings from the flags that are not None, the environment and the defaults.

        Raises UsageError for a value that cannot be meant, naming its variable.
        """
        hints = typing.get_type_hints(cls)
        values: dict[str, Any] = {
            each.name: _from_environment(each.name, hints[each.name])
            for each in fields(cls)
            # "" is unset, as in most programs; as a path it would be the folder we are in
            if os.environ.get(ENVIRONMENT_PREFIX + each.name.upper())
        }
        values |= {name: value for name, value in flags.items() if value is not None}
        settings = cls(**values)
        settings.check()
        return settings

    @classmethod
    def help(cls, name: str) -> str:
        """Return the help text of a setting."""
        return next(str(each.metadata["help"]) for each in fields(cls) if each.name == name)

    def check(self) -> None:
        """Raise UsageError for a number that cannot be meant."""
        least: dict[str, float] = {
            "dpi": 10, "max_visual_tokens": 4, "pool_factor": 1, "top_k": 1, "threads": 0,
            "readers": 0, "page_seconds": 0.01, "commit_seconds": 0, "page_megabytes": 300,
        }  # fmt: skip
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is None:
                continue
            shown = f"--{name.replace('_', '-')} is {value}"
            if not value >= smallest:  # as nan is not, either
                raise UsageError(f"{shown}, it must be at least {smallest:g}")
            most = MOST_SECONDS if name.endswith("_seconds") else LARGEST
            if value > most:
                raise UsageError(f"{shown}, it must be at most {most}")
        if self.mode not in typing.get_args(Mode):
            raise UsageError(f"--mode is {self.mode!r}; choose hybrid, visual or text")


def _from_environment(name: str, hint: object) -> object:
    variable = ENVIRONMENT_PREFIX + name.upper()
    text = os.environ[variable]
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kind: Any = next(each for each in kinds if each is not type(None))
    if typing.get_origin(kind) is Literal:
        return text
    try:
        return kind(text)
    except ValueError:
        wanted = getattr(kind, "__name__", str(kind))
        raise UsageError(f"{variable} is {text!r}, wanted a value of type {wanted}") from None
