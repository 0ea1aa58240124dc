"""Image files as documents: upright, on white, within the budget. Runs inside the render worker."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.Image import DecompressionBombError

from rag.errors import DocumentError
from rag.page_content import (
    MIN_SIDE_PX,
    Box,
    PageContent,
    RasterSize,
    bounded_aspect,
    is_blank,
    printable,
)

# Decoded, this many pixels are 0.75 GB of RGB: half of the worker's memory limit.
MAX_IMAGE_PIXELS = 256_000_000
IMAGE_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "AVIF", "HEIF")


def is_image(path: Path) -> bool:
    """Tell whether a file is an image by its first bytes, damaged or too large ones included."""
    try:
        with Image.open(path, formats=_readable_formats()):
            return True
    except UnidentifiedImageError:
        return False
    except (DecompressionBombError, OSError, SyntaxError, ValueError):
        return True


class ImageDocument:
    """An image file; each frame of a TIFF is a page, other formats have one."""

    def __init__(self, path: Path) -> None:
        Image.MAX_IMAGE_PIXELS = MAX_IMAGE_PIXELS // 2  # Pillow raises at twice this
        with _image_errors():
            self._image = Image.open(path, formats=_readable_formats())
            is_tiff = self._image.format == "TIFF"
            self.n_pages = self._image.n_frames if is_tiff else 1  # type: ignore[attr-defined]
        self.title = ""

    def read(self, number: int, size: RasterSize) -> PageContent:
        """Return frame `number` (1-based) upright, on white, at most `size`."""
        with _image_errors():
            self._image.seek(number - 1)
            target = _fit(self._image.size, size)
            if self.n_pages == 1:
                self._image.draft("RGB", target)  # JPEG decodes straight to 1/2, 1/4 or 1/8
            image = _upright_rgb(self._image)
        # Only now is the orientation known; a rotated page swaps the two sides.
        image = image.resize(_fit(image.size, size), Image.Resampling.BICUBIC, reducing_gap=3.0)
        blank = is_blank(image)
        notes = ("page is blank",) if blank else ()
        return PageContent(number, bounded_aspect(image), "", "none", blank, notes)

    def find(self, number: int, words: Sequence[str]) -> list[Box]:
        """Return nothing: an image has no text layer."""
        return []

    def rows(self, number: int) -> list[str]:
        """Return nothing: an image has no text layer."""
        return []

    def close(self) -> None:
        """Release the file."""
        self._image.close()


@contextmanager
def _image_errors() -> Iterator[None]:
    try:
        yield
    except UnidentifiedImageError as error:
        known = ", ".join(_readable_formats())
        raise DocumentError(
            f"is not a PDF or an image of a known kind ({known}); convert it to one"
        ) from error
    except DecompressionBombError as error:
        raise DocumentError(f"has too many pixels (over {MAX_IMAGE_PIXELS:,})") from error
    except MemoryError:  # the worker's, not the file's
        raise
    except Exception as error:  # Pillow lists none, and damage raises most of them
        raise DocumentError(f"is a damaged image: {printable(str(error))}") from error


def _readable_formats() -> list[str]:
    Image.init()
    return [name for name in IMAGE_FORMATS if name in Image.OPEN]


def _upright_rgb(image: Image.Image) -> Image.Image:
    """Decode, turn as EXIF says, and put transparency on white."""
    image.load()
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        upright = _grey_from_wide(upright)
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        white = Image.new("RGBA", upright.size, "white")
        return Image.alpha_composite(white, upright).convert("RGB")
    return upright.convert("RGB")


def _grey_from_wide(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit or float grey to 8 bits by its own range; convert() would clip it."""
    low, high = image.getextrema()
    span = max(float(high) - float(low), 1.0)  # type: ignore[arg-type]
    scaled = image.convert("F").point(lambda value: value * (255 / span) - float(low) * 255 / span)  # type: ignore[arg-type]
    return scaled.convert("L")


def _fit(pixels: tuple[int, int], size: RasterSize) -> tuple[int, int]:
    """Size in pixels within the budget: images are shrunk, never enlarged beyond MIN_SIDE_PX."""
    width, height = pixels
    by_budget = math.sqrt(size.max_pixels / (width * height))
    by_side = size.max_side_px / max(width, height)
    scale = min(max(1.0, MIN_SIDE_PX / min(width, height)), by_budget, by_side)
    return max(1, round(width * scale)), max(1, round(height * scale))
