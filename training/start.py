"""Keeps what took longest to learn: a vision tower that tells characters apart.

    python -m training.start WORK training/sight.safetensors       averaged weights of a run
    python -m training.train run NEW_WORK --start training/sight.safetensors …

The file holds the tower and the heads of lesson `see` as fp16, and the characters that the classes
stand for, so that a run with another tokenizer or other characters can go on from it. The decoder
that goes with it is in the shipped model folder; a run can begin with that, too.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import torch
import typer
from onnx.numpy_helper import to_array
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.config import TextConfig
from training.losses import Lessons
from training.model import Yomu
from training.spelling import SpelledEmbedding

FIRST_CLASS = 2  # blank and unknown come before the characters
ADDING = ("o_proj.weight", "down_proj.weight")  # matrices that write to the residual stream


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
            if name.endswith("bias"):  # 0 would be far above all that were learnt
                target.fill_(float(value.min()))
            target[here] = value[there]
        elif target.shape != value.shape:
            raise ValueError(f"{file}: {name} is {tuple(value.shape)}, not {tuple(target.shape)}")
        else:
            target.copy_(value)
    return len(pairs) - FIRST_CLASS


def turned_as(config: TextConfig, folder: Path) -> TextConfig:
    """Return the sizes with the turns of positions (RoPE) of a model folder's decoder.

    Raises ValueError if the size of a head differs.
    """
    known = json.loads((folder / "config.json").read_text())
    sections = tuple(known["rope_scaling"]["mrope_section"])
    if sum(sections) != sum(config.mrope_section):
        raise ValueError(f"{folder}: heads of {2 * sum(sections)}, not {config.head_dim}, channels")
    return replace(config, mrope_section=sections, rope_theta=known["rope_theta"])


@torch.no_grad()
def load_decoder(yomu: Yomu, folder: Path) -> None:
    """Set decoder, token embeddings and projection to those of a built model folder.

    Its matrices come back from int8, a scale a column; embeddings are fp16. Letters start at
    nothing, since the rows hold them already. A decoder with more layers or wider MLPs says the
    same at first: what is new adds nothing yet (Net2Net, arXiv:1511.05641). Raises ValueError if
    names or other sizes differ.
    """
    own = dict(yomu.named_parameters())
    values = _layers(folder, own, yomu.config.text.num_hidden_layers)
    values |= {f"custom_text_proj.{n}": t for n, t in _projection(folder).items()}
    rows = torch.from_numpy(np.load(folder / "embeddings.npy").astype(np.float32))
    table = yomu.model.embed_tokens
    if isinstance(table, SpelledEmbedding):
        table.letters.weight.zero_()
    values["model.embed_tokens.weight"] = rows
    for name, value in values.items():
        if own[name].shape != value.shape:
            wanted = tuple(own[name].shape)
            raise ValueError(f"{folder}: {name} is {tuple(value.shape)}, not {wanted}")
        own[name].copy_(value)


def _layers(folder: Path, own: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return a folder's decoder grown to the shapes of `own`, which has `count` layers."""
    graph = onnx.load(str(folder / "decoder.onnx")).graph
    saved = {tensor.name: tensor for tensor in graph.initializer}

    def decoded(name: str) -> Tensor:
        if name in saved:
            return torch.from_numpy(to_array(saved[name], str(folder)).copy())
        scale = to_array(saved[f"{name}.scale"], str(folder))
        whole = to_array(saved[f"{name}.int8"], str(folder))
        return torch.from_numpy(whole.T * scale[:, None])

    known = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    if known > count:
        raise ValueError(f"{folder}: {known} layers, not {count}")
    values = {}
    for name, like in own.items():
        if not name.startswith(("model.layers.", "model.norm.")):
            continue
        parts = name.split(".")
        if parts[1] == "layers" and int(parts[2]) >= known:
            values[name] = torch.zeros_like(like) if name.endswith(ADDING) else like
            continue
        try:
            values[name] = _widened(name, decoded(name), like)
        except KeyError as error:
            raise ValueError(f"{folder}: decoder.onnx has no {error}, or not at int8") from None
    return values


def _widened(name: str, value: Tensor, like: Tensor) -> Tensor:
    """Return a matrix of an MLP with as many inner units as `like` has, the new ones unread."""
    if ".mlp." not in name or any(a > b for a, b in zip(value.shape, like.shape, strict=True)):
        return value
    wide = torch.zeros_like(like) if name.endswith(ADDING) else like.clone()
    wide[: value.shape[0], : value.shape[1]] = value
    return wide


def _projection(folder: Path) -> dict[str, Tensor]:
    tensors = load_file(folder / "retriever.safetensors")
    prefix = "custom_text_proj."
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


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
