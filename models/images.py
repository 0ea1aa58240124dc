"""From an image to the numbers the vision tower reads: load, resize, normalise, cut into patches.

Equal to the Pillow image processor of transformers (`Qwen2VLImageProcessorPil`), Python's rounding
of halves to even included; Qwen2-VL, arXiv:2409.12191. Loading does what a person expects of
transparent, rotated, 16-bit, CMYK and animated files, which the reference leaves to the caller.

Letters: N patches, B merge blocks (= visual tokens), C = 3 channels, T = 2 frames of one patch.
"""

import io
import logging
import math
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from models.errors import ImageError

log = logging.getLogger(__name__)

PATCH_PX = 14
MERGE = 2
FACTOR_PX = PATCH_PX * MERGE  # one merge block, one visual token
TEMPORAL_PATCH = 2
PATCH_DIM = 3 * TEMPORAL_PATCH * PATCH_PX**2  # 1176
MIN_PIXELS = 56 * 56
MAX_PIXELS = 768 * FACTOR_PX**2  # 768 visual tokens, the budget ColQwen2 was trained with
MAX_ASPECT = 200
# Pillow refuses files of twice its warning size as decompression bombs: an A0 sheet at 300 dpi
# (139 megapixels, 0.4 GB decoded) still opens, a PNG of a few KB that unfolds to gigabytes not.
MAX_FILE_PIXELS = 178_956_970

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# What Pillow's decoders raise on a damaged file; SyntaxError is their word for a bad header.
_DAMAGED = (OSError, EOFError, ValueError, SyntaxError, LookupError, TypeError, OverflowError,
            struct.error, zlib.error, MemoryError)  # fmt: skip

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class VisualInput:
    """An image or a video, ready for the vision tower.

    pixel_values  (N, 1176) float32, normalised; rows block by block, each (C, T, 14, 14)
    grid_thw      (3,) int64: frames, rows, columns in patches, N = t·h·w; t = 1 for an image
    blank         (N / 4,) bool: merge blocks in which every pixel has the same colour
    size_px       (height, width) of the image as given, before any resizing
    """

    pixel_values: Floats
    grid_thw: NDArray[np.int64]
    blank: Mask
    size_px: tuple[int, int]
    kind: Literal["image", "video"] = "image"

    @property
    def n_tokens(self) -> int:
        """Visual tokens when nothing is skipped: one for each 2×2 patches."""
        return len(self.blank)

    @property
    def kept(self) -> Mask:
        """(N / 4,) bool: the blocks that stay when blank ones are skipped; never none at all.

        Of a wholly blank image the first block stays, so that it still has one token and one
        vector: an empty page can be indexed, answered about, and told from a missing one.
        """
        kept = ~self.blank
        kept[0] |= not kept.any()
        return kept


def smart_resize(
    height: int,
    width: int,
    factor: int = FACTOR_PX,
    min_pixels: int = MIN_PIXELS,
    max_pixels: int = MAX_PIXELS,
) -> tuple[int, int]:
    """(height, width) near the given one, multiples of `factor`, area within the two limits.

    `round` is Python's, halves go to even: 42 × 70 becomes 56 × 56. Raises ImageError for an
    empty image or an aspect ratio above 200.
    """
    if min(height, width) < 1:
        raise ImageError(f"the image is empty: {width}×{height} pixels")
    if max(height, width) / min(height, width) > MAX_ASPECT:
        raise ImageError(
            f"the image is {width}×{height} pixels, more than {MAX_ASPECT} times as long as wide: "
            "cut it into pieces"
        )
    new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
    if new_height * new_width > max_pixels:
        beta = math.sqrt(height * width / max_pixels)
        new_height = max(factor, math.floor(height / beta / factor) * factor)
        new_width = max(factor, math.floor(width / beta / factor) * factor)
    elif new_height * new_width < min_pixels:
        beta = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * beta / factor) * factor
        new_width = math.ceil(width * beta / factor) * factor
    return new_height, new_width


def preprocess(
    image: Image.Image,
    min_pixels: int = MIN_PIXELS,
    max_pixels: int = MAX_PIXELS,
    blank_tolerance: int = 0,
) -> VisualInput:
    """One image as the vision tower wants it; see `VisualInput`, `smart_resize`, `blank_blocks`.

    Raises ImageError for an image that is empty or too long and narrow.
    """
    image = upright_rgb(image)
    size_px = (image.height, image.width)
    height, width = smart_resize(*size_px, FACTOR_PX, min_pixels, max_pixels)
    small = image.resize((width, height), Image.Resampling.BICUBIC)
    patches = patchify(np.asarray(small)[None])
    grid = np.array([1, height // PATCH_PX, width // PATCH_PX])
    return VisualInput(normalise(patches), grid, blank_blocks(patches, blank_tolerance), size_px)


def patchify(frames: Bytes) -> Bytes:
    """(N, C, T, 196) uint8 from frames (F, height, width, C) uint8 of whole merge blocks.

    One frame gives T = 1 (an image: `normalise` repeats it), an even number F gives T = 2.
    Order of the rows: time, block row, block column, then the 2×2 patches of the block.
    """
    n_frames, height, width, _ = frames.shape
    depth = 1 if n_frames == 1 else TEMPORAL_PATCH
    blocks = (height // FACTOR_PX, MERGE, PATCH_PX, width // FACTOR_PX, MERGE, PATCH_PX)
    cut = frames.reshape(n_frames // depth, depth, *blocks, 3)
    ordered = cut.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)  # (t, h, w, 2, 2, C, T, 14, 14)
    return ordered.reshape(-1, 3, depth, PATCH_PX**2)


def normalise(patches: Bytes) -> Floats:
    """(N, 1176) float32 from patches (N, C, T or 1, 196) uint8: CLIP's mean and deviation.

    A byte has 256 values, so each channel is a look-up in a table computed as the reference
    computes a pixel (float32 steps, same bits); the float image is never made.
    """
    mean, std = np.array(CLIP_MEAN, np.float32), np.array(CLIP_STD, np.float32)
    unit = (np.arange(256) * (1 / 255)).astype(np.float32)
    out = np.empty((len(patches), 3, TEMPORAL_PATCH, PATCH_PX**2), np.float32)
    for channel in range(3):
        table = (unit - mean[channel]) / std[channel]
        out[:, channel] = table[patches[:, channel]]
    return out.reshape(-1, PATCH_DIM)


def blank_blocks(patches: Bytes | Floats, tolerance: int = 0) -> Mask:
    """(B,) bool: merge blocks whose pixels all have one colour, from patches (N, C, T, 196).

    Judged after resizing, on the very bytes the model would see. `tolerance` is the spread
    allowed in each channel, in levels of 0..255. The default 0 is exact, so skipping loses no
    ink, however faint; scans and JPEG pages have no exactly even paper and need 8 to 16.
    """
    blocks = patches.reshape(-1, MERGE**2, *patches.shape[1:])  # (B, 4, C, T, 196)
    over = (1, 3, 4)
    spread = blocks.max(axis=over) - blocks.min(axis=over)  # (B, C)
    return np.asarray((spread <= tolerance).all(axis=1))


def shifted(visual: VisualInput) -> VisualInput:
    """Cut an image into merge blocks half a block further down and to the right: the same patches.

    Its outer ring of patches falls away, so it has a row and a column of blocks less; it must have
    two of each. Raises ImageError if it has not.
    """
    n_rows, n_columns = (int(n) // MERGE for n in visual.grid_thw[1:])
    if min(n_rows, n_columns) < 2:
        raise ImageError(f"an image of {n_rows} × {n_columns} visual tokens cannot be shifted")
    blocks = visual.pixel_values.reshape(n_rows, n_columns, MERGE, MERGE, -1)
    patches = blocks.swapaxes(1, 2).reshape(MERGE * n_rows, MERGE * n_columns, -1)[1:-1, 1:-1]
    blocks = patches.reshape(n_rows - 1, MERGE, n_columns - 1, MERGE, -1).swapaxes(1, 2)
    pixels = blocks.reshape(-1, PATCH_DIM)
    return replace(
        visual,
        pixel_values=pixels,
        grid_thw=visual.grid_thw - np.array([0, MERGE, MERGE]),
        blank=blank_blocks(pixels.reshape(-1, 3, TEMPORAL_PATCH, PATCH_PX**2)),
    )


def load_image(source: str | Path | bytes | Image.Image) -> Image.Image:
    """Load an upright RGB image from a file, its bytes, or a Pillow image.

    Turned as its EXIF tag says; transparency over white; 16-bit and CMYK brought to 8-bit RGB;
    of an animation the first frame (a warning says so). Raises ImageError, naming the file, if
    it is missing, damaged, cut short, empty, not an image, or above 178 megapixels.
    """
    if isinstance(source, Image.Image):
        return _checked(lambda: upright_rgb(source), "the image")
    name = "the image" if isinstance(source, bytes) else str(source)
    file = io.BytesIO(source) if isinstance(source, bytes) else Path(source)
    return _checked(lambda: _open(file, name), name)


def _open(file: io.BytesIO | Path, name: str) -> Image.Image:
    with warnings.catch_warnings():
        # Pillow warns at half the size at which it refuses; between the two is a poster.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(file)
    with image:
        # The second picture of an MPO camera file is a preview, not a frame.
        n_frames = getattr(image, "n_frames", 1)
        if n_frames > 1 and image.format != "MPO":
            log.warning("%s has %d frames; only the first is used", name, n_frames)
        return upright_rgb(image)


def _checked(load: Callable[[], Image.Image], name: str) -> Image.Image:
    """Run `load`, turning whatever Pillow raises into one ImageError that names the image."""
    try:
        image = load()
    except Image.DecompressionBombError:
        limit = MAX_FILE_PIXELS // 10**6
        raise ImageError(f"{name} has more than {limit} megapixels; make it smaller") from None
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name} is not an image that Pillow can read") from None
    except _DAMAGED as error:
        raise ImageError(f"{name} cannot be read: {error or type(error).__name__}") from None
    if min(image.size) < 1:
        raise ImageError(f"{name} is empty: {image.width}×{image.height} pixels")
    return image


def upright_rgb(image: Image.Image) -> Image.Image:
    """Bring to RGB: turned as its EXIF tag says, 8 bits a channel, transparency over white."""
    image.load()
    if min(image.size) < 1:
        return image.convert("RGB")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale greyscale of 16 or 32 bits, or of floats, to 8 bits; Pillow's `convert` clips it.

    Whole numbers are taken as 16-bit unless none is above 255, floats as 0..1 unless one is.
    """
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    top = values.max()
    if image.mode == "F":
        scale = 255.0 if top <= 1 else 1.0
    else:
        scale = 1.0 if top <= 255 and image.mode == "I" else 1 / 257  # 65535 / 255
    return Image.fromarray(np.clip(np.rint(values * scale), 0, 255).astype(np.uint8))
