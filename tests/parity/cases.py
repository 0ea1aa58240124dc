"""The inputs of the parity checks: drawn from seeds, so that fixtures hold only the answers."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.parity.tiny import IDS

FIXTURES = Path(__file__).parent / "fixtures"
START, END, PAD = IDS["<|im_start|>"], IDS["<|im_end|>"], IDS["<|endoftext|>"]
VISION_START, VISION_END = IDS["<|vision_start|>"], IDS["<|vision_end|>"]
IMAGE, VIDEO = IDS["<|image_pad|>"], IDS["<|video_pad|>"]


def load(name: str) -> dict[str, NDArray]:
    """The arrays of a fixture, and its `meta`: versions and seed."""
    with np.load(FIXTURES / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def meta(fixture: dict[str, NDArray]) -> dict:
    return json.loads(str(fixture["meta"]))


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """A picture with edges, slopes and noise in it."""
    rng = np.random.default_rng([seed, height, width])
    rows, columns = np.mgrid[:height, :width]
    slope = np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], -1)
    pixels = np.where(rng.random((height, width, 1)) < 0.2, rng.integers(0, 256, 3), slope)
    pixels[height // 4 : height // 2, width // 3 : width // 2] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels.astype(np.uint8))


def page_with_margins(height: int, width: int, seed: int = 0) -> Image.Image:
    """A picture in the middle of white paper, so that blocks around it are blank."""
    page = Image.new("RGB", (width, height), "white")
    page.paste(picture(height - 70, width - 70, seed), (31, 33))
    return page


# (height, width), max_pixels: tiny, thin, halves that round to even, multiples, large, the limit.
PREPROCESS = (
    ((42, 70), 602112),
    ((98, 98), 602112),
    ((13, 300), 602112),
    ((20, 20), 602112),
    ((5, 900), 602112),
    ((56, 84), 12845056),
    ((842, 595), 602112),
    ((1169, 827), 602112),
    ((700, 500), 50176),
)
N_SAMPLED = 2000


def sample(values: NDArray) -> NDArray:
    """Some of the values, always the same ones: all of them would fill megabytes."""
    places = np.random.default_rng(values.size).integers(0, values.size, N_SAMPLED)
    return values.ravel()[places]


def patches(n: int, seed: int = 0) -> NDArray[np.float32]:
    """(n, 1176) float32 of noise, for checks that begin at the vision tower."""
    return np.random.default_rng([seed, n]).standard_normal((n, 1176), np.float32)


# Videos: frames, (height, width). The first needs no resizing, so its pixels must be equal; the
# reference resizes the second with torchvision, a rounding away from Pillow. Both odd in number.
VIDEOS = ((3, (280, 364)), (5, (300, 400)))
# Sampling: frames in all, frames a second, wanted frames a second, at most.
SAMPLING = (
    (100, 25.0, 2.0, 30), (10, 25.0, 2.0, 30), (3, 25.0, 2.0, 30), (90_000, 29.97, 2.0, 30),
    (751, 23.976, 1.0, 768), (333, 12.5, 4.0, 31), (2, 30.0, 2.0, 30), (4999, 60.0, 0.5, 768),
)  # fmt: skip


def video_frames(n: int, size: tuple[int, int]) -> list[Image.Image]:
    return [picture(*size, seed=frame) for frame in range(n)]


# Grids of the vision checks: two images of different sizes, a video of three temporal patches.
VISION_GRIDS = {"wide": (1, 4, 8), "tall": (1, 6, 4), "video": (3, 4, 4)}
# Merge blocks of the wide grid (2 × 4) that stay when the others are skipped as blank.
KEPT = np.array([True, False, True, True, False, False, True, False])

# Token ids and grids of the position checks.
POSITIONS: dict[str, tuple[list[int], list[tuple[int, int, int]]]] = {
    "text": ([5, 6, 7, 8], []),
    "image first": ([VISION_START, *[IMAGE] * 8, VISION_END, 7], [(1, 4, 8)]),
    "two images": (
        [5, VISION_START, *[IMAGE] * 8, VISION_END, 7, VISION_START, *[IMAGE] * 6, VISION_END],
        [(1, 4, 8), (1, 6, 4)],
    ),
    "video": ([5, VISION_START, *[VIDEO] * 12, VISION_END, 7, 8], [(3, 4, 4)]),
    "long video": ([5, VISION_START, *[VIDEO] * 20, VISION_END, 7, 8], [(5, 4, 4)]),
    "image and video": (
        [VISION_START, *[IMAGE] * 4, VISION_END, VISION_START, *[VIDEO] * 6, VISION_END, 9],
        [(1, 4, 4), (1, 4, 6)],
    ),
}


@dataclass(frozen=True)
class Prompt:
    """What a user asks, and the string the chat template makes of it (pads not yet repeated)."""

    images: tuple[tuple[int, int], ...]  # (height, width) of pictures
    text: str

    @property
    def written(self) -> str:
        vision = "<|vision_start|><|image_pad|><|vision_end|>" * len(self.images)
        return (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            f"<|im_start|>user\n{vision}{self.text}<|im_end|>\n<|im_start|>assistant\n"
        )

    def pictures(self) -> list[Image.Image]:
        return [picture(*size, seed=n) for n, size in enumerate(self.images)]


PROMPTS = {
    "text": Prompt((), "How many rows does the table have?"),
    "image": Prompt(((84, 112),), "What does the bar for March show?"),
    "two images": Prompt(((112, 84), (60, 170)), "この表の合計はいくらですか。"),
}
N_GREEDY = 80
GRID_PIXELS = {"min_pixels": 3136, "max_pixels": 602112}

PAGES = ((84, 112), (150, 90))  # (height, width) of the pages given to the retriever
MARGIN_PAGE = (224, 196)
QUERIES = ("What is the total?", "請求書の日付", "a")
PAGE_WRITTEN = (
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image."
    "<|im_end|><|endoftext|>"
)
QUERY_WRITTEN = {
    "colqwen2-v1.0": "Query: {}" + "<|endoftext|>" * 10,
    "transformers": "Query: {}" + "<|endoftext|>" * 10 + "\n",
    "colpali-engine-0.3.13": "{}" + "<|endoftext|>" * 10,
}
