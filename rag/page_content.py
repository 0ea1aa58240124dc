"""What a page is once it is read, whatever it was read from."""

from dataclasses import dataclass

from PIL import Image

# A 14 px patch pair is the smallest thing the model sees; smaller pages are enlarged to this.
MIN_SIDE_PX = 56
# Qwen2-VL refuses ratios above 200; a strip this thin carries nothing a page search could use.
MAX_ASPECT_RATIO = 100
Box = tuple[float, float, float, float]  # left, top, right, bottom as shares of the page


@dataclass(frozen=True)
class RasterSize:
    """How large to draw: `dpi`, but never more than `max_pixels` (nor a side beyond 8192 px)."""

    dpi: float
    max_pixels: int
    max_side_px: int = 8192


@dataclass(frozen=True)
class PageContent:
    """One page as read: RGB image, text layer, and what looked wrong with it.

    text        the trustworthy lines of the text layer, "" where there are none
    text_state  "good", "none" (no text layer), "thin" (little text over much picture) or "garbage"
                (a text layer that does not say what is drawn)
    notes       one-line observations for the ingest report; they do not stop the page
    """

    number: int
    image: Image.Image
    text: str
    text_state: str
    blank: bool
    notes: tuple[str, ...]


def is_blank(image: Image.Image) -> bool:
    """Say whether every pixel has the same colour, give or take what anti-aliasing leaves."""
    return all(high - low <= 2 for low, high in image.getextrema())  # type: ignore[misc]


def printable(text: str) -> str:
    """Return a message of a library as one line of at most 160 characters, safe to show."""
    one_line = " ".join(text.split())
    return "".join(char if char.isprintable() else "?" for char in one_line)[:160]


def bounded_aspect(image: Image.Image) -> Image.Image:
    """Widen a strip with white until no side is over 100 times the other."""
    width, height = image.size
    least = -(-max(width, height) // MAX_ASPECT_RATIO)
    if min(width, height) >= least:
        return image
    canvas = Image.new("RGB", (max(width, least), max(height, least)), "white")
    canvas.paste(image, (0, 0))
    return canvas
