"""Makes a clean page look resized, coloured, printed, scanned, faxed or aged; boxes move along."""

import io
import math
import random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]
Boxes = NDArray[np.float32]


def vary(image: Pixels, boxes: Boxes, rng: random.Random) -> tuple[Pixels, Boxes]:
    """Return the page as other programs, fonts and designers would have made it.

    Resized as `ingest` does (drawn at 144 dpi, then shrunk to what the model takes), condensed or
    widened, thinner or bolder, in other colours: a hundred fonts become many more.
    """
    if rng.random() < 0.7:
        down = rng.uniform(0.72, 1)
        across = rng.uniform(0.82, 1.12) if rng.random() < 0.35 else 1.0
        image, boxes = resize(image, boxes, down * across, down)
    if rng.random() < 0.3:
        levels = 255 * (np.arange(256) / 255) ** rng.uniform(0.6, 1.7)
        image = levels.astype(np.uint8)[image]
    if rng.random() < 0.2:
        image = recolour(image, rng)
    return image, boxes


def resize(image: Pixels, boxes: Boxes, across: float, down: float) -> tuple[Pixels, Boxes]:
    """Return the image and boxes at other scales, resampled as the runtime does."""
    height, width = image.shape[:2]
    size = (round(width * across), round(height * down))
    resized = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    scale = np.array([size[0] / width, size[1] / height] * 2, np.float32)
    return np.asarray(resized), boxes * scale


def recolour(image: Pixels, rng: random.Random) -> Pixels:
    """Return the image with another colour of paper and of ink, one dark and one light."""
    light = np.array([rng.uniform(190, 255) for _ in range(3)], np.float32)
    dark = np.array([rng.uniform(0, 130) for _ in range(3)], np.float32)
    paper, ink = (light, dark) if rng.random() < 0.6 else (dark, light)
    levels = np.arange(256, dtype=np.float32)[:, None] / 255
    table = (ink + (paper - ink) * levels).astype(np.uint8)  # (256, 3)
    return np.stack([table[image[..., channel], channel] for channel in range(3)], axis=-1)


def degrade(
    image: Pixels, boxes: Boxes, rng: random.Random, share: float = 0.38
) -> tuple[Pixels, Boxes]:
    """Return the image and boxes after what happens to documents; 1 - share stay clean."""
    chance = rng.random() / share
    if chance >= 1:
        return image, boxes
    if chance < 0.15:
        return 255 - image, boxes
    if chance < 0.3:
        return jpeg(image, rng.randint(25, 70)), boxes
    return scan(image, boxes, rng)


def scan(image: Pixels, boxes: Boxes, rng: random.Random) -> tuple[Pixels, Boxes]:
    """Return a skewed, blurred, noisy, sometimes yellowed or black-and-white scan."""
    if rng.random() < 0.6:
        image, boxes = skew(image, boxes, rng.gauss(0, 0.5))
    picture = Image.fromarray(image)
    if rng.random() < 0.6:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))
    pixels = np.asarray(picture).astype(np.float32)
    if rng.random() < 0.4:
        paper = np.array([1, rng.uniform(0.9, 1), rng.uniform(0.7, 1)], np.float32)
        pixels *= paper * np.float32(rng.uniform(0.8, 1))
    noise = np.random.default_rng(rng.getrandbits(32))
    if rng.random() < 0.7:
        spread = rng.uniform(2, 16)
        pixels += noise.standard_normal(pixels.shape[:2], np.float32)[..., None] * spread
    if rng.random() < 0.2:  # fax: one bit a pixel
        grey = pixels.mean(-1, keepdims=True) > rng.uniform(110, 190)
        pixels = np.repeat(grey * np.float32(255), 3, axis=-1)
    image = np.clip(pixels, 0, 255).astype(np.uint8)
    return (jpeg(image, rng.randint(40, 85)) if rng.random() < 0.4 else image), boxes


def skew(image: Pixels, boxes: Boxes, degrees: float) -> tuple[Pixels, Boxes]:
    """Turn the page a little about its centre; boxes move with their centres."""
    height, width = image.shape[:2]
    turned = Image.fromarray(image).rotate(degrees, Image.Resampling.BICUBIC, fillcolor="white")
    angle = math.radians(-degrees)
    centre = np.array([width / 2, height / 2], np.float32)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2 - centre
    turn = np.array(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], np.float32
    )
    shift = middle @ turn.T - middle
    return np.asarray(turned), boxes + np.concatenate([shift, shift], axis=1)


def jpeg(image: Pixels, quality: int) -> Pixels:
    """Return the image after JPEG at a quality."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))
