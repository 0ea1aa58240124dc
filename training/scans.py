"""Makes a clean page look printed, scanned, faxed or aged, and moves its boxes along."""

import io
import math
import random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]
Boxes = NDArray[np.float32]


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
