"""The reading head in torch: what the tower saw of a page, and its pixels, to scores of classes.

Its parameters have the names of those of the shipped graph (models/build/reading_graph.py).
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from models.build.builder import READING
from models.build.reading_graph import PIXEL_STRIDES
from models.reading import FRAMES
from training.parts import Part
from training.samples import BLANK, SLOTS
from training.slots import HIDDEN, SIGHT, Alphabet, Cells

SLOT, WIDTH = 64, 128  # features of a slot, and of a slot in the blocks
BLOCKS, AROUND = 4, (3, 9)  # rows and columns of slots that a block looks at
CHANNELS = (16, 32, 64, 96)  # of the convolutions on pixels
FP16 = ".fp16"  # of the names of matrices in a graph, which lie there transposed


class Block(nn.Module):
    """Looks at the slots around each slot; adds what it sees."""

    def __init__(self) -> None:
        super().__init__()
        padding = AROUND[0] // 2, AROUND[1] // 2
        self.around = nn.Conv2d(WIDTH, WIDTH, AROUND, padding=padding, groups=WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 2 * WIDTH)
        self.down = nn.Linear(2 * WIDTH, WIDTH)
        nn.init.zeros_(self.down.weight)  # a new block adds nothing
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return x (1, R, C, WIDTH); where the mask (1, R, C) is False nothing is added."""
        y = self.around(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)[mask]
        added = self.down(F.gelu(self.up(self.norm(y))))
        return x.index_put(mask.nonzero(as_tuple=True), added, accumulate=True)


class Pixels(nn.Module):
    """Looks at the pixels of the halves of a slot, and around them, as CRNN does.

    Shi et al., arXiv:1507.05717. Each channel is normalised over the page that is looked at
    (Ulyanov et al., arXiv:1607.08022): without norms the layers learn far more slowly, and with
    running statistics of all pages they read worse.
    """

    def __init__(self) -> None:
        super().__init__()
        sizes = pairwise((1, *CHANNELS))
        self.layers = nn.ModuleList(
            nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
            for (n_in, n_out), stride in zip(sizes, PIXEL_STRIDES, strict=True)
        )
        self.norms = nn.ModuleList(nn.InstanceNorm2d(n, affine=True) for n in CHANNELS)
        self.out = nn.Linear(2 * CHANNELS[-1], WIDTH)
        self.direct = nn.Linear(CHANNELS[-1], FRAMES // 2 * SLOT)
        nn.init.zeros_(self.out.weight)  # what is not learnt yet disturbs no block
        nn.init.zeros_(self.out.bias)
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Return (R, 2·C, channels), a half of a slot each, of pixels (16·R, 8·C) uint8."""
        x = torch.from_numpy((255 - pixels.astype(np.float32)) / 127.5)[None, None]  # white: 0
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.relu(norm(layer(x)))
        return x[0].permute(1, 2, 0)

    def states(self, halves: Tensor) -> Tensor:
        """Return (R, 4·C, SLOT), what the halves say by themselves of their frames."""
        return self.direct(halves).view(len(halves), -1, SLOT)


class ReadingHead(nn.Module):
    """Features of cells, and pixels, to states of frames, which `characters` makes scores of."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.slots = nn.Linear(HIDDEN, SLOTS * SLOT)
        self.widen = nn.Linear(SLOT, WIDTH)
        self.pixels = Pixels()
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.frames = nn.Linear(WIDTH, FRAMES * SLOT)
        self.shortcut = nn.Linear(SLOT, FRAMES * SLOT)
        self.characters = nn.Linear(SLOT, n_classes)
        self.ink = nn.Linear(SLOT, 1)  # above 0: the frame may name a character
        nn.init.zeros_(self.ink.weight)
        nn.init.ones_(self.ink.bias)

    @torch.no_grad()
    def begin(self, file: Path = SIGHT) -> None:
        """Read each slot by itself at first, as lesson `see` taught it; pixels say nothing yet."""
        known = {name: value.float() for name, value in load_file(file).items()}
        for part in ("weight", "bias"):
            value = known[f"characters.{part}"]
            getattr(self.slots, part).copy_(known[f"slots.{part}"])
            getattr(self.characters, part)[: len(value)] = value
            getattr(self.characters, part)[len(value)] = value[BLANK]  # a space looks like nothing
        self.characters.bias[-1] = -2
        self.shortcut.weight.copy_(torch.eye(SLOT).repeat(FRAMES, 1))
        self.shortcut.bias.zero_()
        self.frames.weight.mul_(0.1)

    def lattice(self, cells: Sequence[Cells], shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the mean (R, C, SLOT) of all cells that show a slot, and (R, C) if any does.

        Those that the tower did not see count as 0.
        """
        size = torch.tensor(shape)
        total, count = torch.zeros(shape[0] * shape[1], SLOT), torch.zeros(shape[0] * shape[1], 1)
        for each in cells:
            at = torch.from_numpy(each.slots()).reshape(-1, 2)
            inside = ((at >= 0) & (at < size)).all(1)
            places = (at[:, 0] * shape[1] + at[:, 1])[inside]
            if each.are_seen:
                features = torch.from_numpy(each.features.astype(np.float32))
                slots = F.gelu(self.slots(features)).view(-1, SLOT)[inside]
                total = total.index_add(0, places, slots)
            count = count.index_add(0, places, torch.ones(len(places), 1))
        return (total / count.clamp(min=1)).view(*shape, SLOT), count.view(shape) > 0

    def forward(self, part: Part) -> tuple[Tensor, Tensor]:
        """Return states (R, 4C, SLOT) of the frames of a part, and (R, 4C) which of them are seen.

        A frame is a quarter of a slot; `characters` turns its state into scores.
        """
        slots, seen = self.lattice(part.cells, part.shape)
        mask = seen[None]
        halves = self.pixels(part.pixels)
        x = self.widen(slots) + self.pixels.out(halves.reshape(*part.shape, -1))
        x = (x * seen[..., None])[None]  # (1, R, C, WIDTH)
        for block in self.blocks:
            x = block(x, mask)
        states = self.frames(x[0]) + self.shortcut(slots)  # (R, C, 4·SLOT)
        states = states.view(part.shape[0], -1, SLOT) + self.pixels.states(halves)
        return states, seen.repeat_interleave(FRAMES, 1)

    @torch.no_grad()
    def read(self, part: Part) -> list[list[int]]:
        """Return the classes that every row of the lattice spells, the likeliest of each frame."""
        found = []
        for states, seen in zip(*self(part), strict=True):
            best = torch.zeros(len(seen), dtype=torch.long)  # what is not seen is blank
            best[seen] = self.characters(states[seen]).argmax(-1)
            found.append(torch.unique_consecutive(best).tolist())
        return [[c for c in row if c != BLANK] for row in found]


def load(head: ReadingHead, alphabet: Alphabet, file: Path) -> None:
    """Set the weights of a file that `export` wrote, or of a model folder.

    Raises ValueError if it tells other characters apart, or lacks a weight or has one of another
    shape, as heads of before there were convolutions do.
    """
    if file.is_dir():
        saved, characters = shipped(file)
    else:
        saved, characters = load_file(file), Alphabet.known(file).characters
    if characters != alphabet.characters:
        raise ValueError(f"{file}: not the {len(alphabet.characters)} characters of {SIGHT.name}")
    try:
        head.load_state_dict({name: value.float() for name, value in saved.items()})
    except RuntimeError as error:
        raise ValueError(f"{file}: {' '.join(str(error).split())}") from None


def shipped(folder: Path) -> tuple[dict[str, Tensor], str]:
    """Return the weights of a model folder's head, and its characters."""
    graph = onnx.load(folder / READING)
    named = {each.name: onnx.numpy_helper.to_array(each) for each in graph.graph.initializer}
    weights = {
        name.removesuffix(FP16): torch.from_numpy(
            (value.T if name.endswith(FP16) else value).copy()
        )
        for name, value in named.items()
        if name.removesuffix(FP16).endswith((".weight", ".bias"))
    }
    return weights, {each.key: each.value for each in graph.metadata_props}["characters"]


def write(head: ReadingHead, alphabet: Alphabet, out: Path) -> None:
    """Write weights as `load` reads them."""
    tensors = {name: value.half().contiguous() for name, value in head.state_dict().items()}
    save_file(tensors, out, metadata={"characters": alphabet.characters})
