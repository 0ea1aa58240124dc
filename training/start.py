"""Keeps what took longest to learn: a vision tower that tells characters apart.

    python -m training.start WORK training/sight.safetensors       averaged weights of a run
    python -m training.train run NEW_WORK --start training/sight.safetensors …

The file holds the tower and the heads of lesson `see` as fp16, and the characters that the classes
stand for, so that a run with another tokenizer or other characters can go on from it.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from training.losses import Lessons

FIRST_CLASS = 2  # blank and unknown come before the characters


def kept(name: str) -> bool:
    """Whether a parameter of Lessons belongs to seeing."""
    return name.startswith(("yomu.visual.", "slots.", "characters."))


@torch.no_grad()
def load(lessons: Lessons, file: Path, characters: str) -> int:
    """Set what seeing needs; return how many characters were known already.

    Raises ValueError if the sizes differ.
    """
    with safe_open(file, "pt") as saved:
        known = saved.metadata()["characters"]
        values = {name: saved.get_tensor(name).float() for name in saved.keys()}  # noqa: SIM118
    own = dict(lessons.named_parameters())
    place = {char: n + FIRST_CLASS for n, char in enumerate(known)}
    pairs = [(n + FIRST_CLASS, place[c]) for n, c in enumerate(characters) if c in place]
    pairs += [(n, n) for n in range(FIRST_CLASS)]
    here, there = torch.tensor(pairs).T
    for name, value in values.items():
        target: Tensor = own[name]
        if name.startswith("characters."):
            target[here] = value[there]
        elif target.shape != value.shape:
            raise ValueError(f"{file}: {name} is {tuple(value.shape)}, not {tuple(target.shape)}")
        else:
            target.copy_(value)
    return len(pairs) - FIRST_CLASS


def main(
    work: Annotated[Path, typer.Argument(help="work folder with latest.pt")],
    out: Annotated[Path, typer.Argument(help="file to write")],
) -> None:
    """Write the averaged vision tower of the last checkpoint, with the heads of lesson `see`."""
    average = torch.load(work / "latest.pt", map_location="cpu")["average"]
    names = {name.removeprefix("module."): value for name, value in average.items()}
    tensors = {name: value.half().contiguous() for name, value in names.items() if kept(name)}
    characters = (work / "characters.txt").read_text(encoding="utf-8")
    save_file(tensors, out, metadata={"characters": characters})
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    typer.run(main)
