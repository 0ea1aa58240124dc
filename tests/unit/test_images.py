"""Loading, resizing and cutting images, on pictures whose numbers a person can check."""

import io
import logging
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from models.errors import ImageError
from models.images import (
    CLIP_MEAN,
    CLIP_STD,
    blank_blocks,
    load_image,
    patchify,
    preprocess,
    shifted,
    smart_resize,
)
from tests.parity import cases

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def saved(image: Image.Image, format: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def corners(image: Image.Image) -> tuple:
    right, bottom = image.width - 1, image.height - 1
    return tuple(image.getpixel(at) for at in [(0, 0), (right, 0), (0, bottom), (right, bottom)])


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((42, 70), (56, 56)),  # 1.5 and 2.5 both round to even: 2
        ((98, 98), (112, 112)),  # 3.5 -> 4
        ((56, 84), (56, 84)),  # exact multiples stay
        ((13, 300), (28, 280)),  # no lower bound on the first rounding: 0 -> too small -> ceil
        ((2339, 1654), (896, 644)),  # A4 at 200 dpi -> 32 * 23 = 736 tokens
        ((842, 595), (840, 588)),  # A4 at 72 dpi is not enlarged: 630 tokens
        ((1, 200), (28, 812)),
        ((20000, 100), (10948, 28)),
    ],
    ids=str,
)
def test_smart_resize(size, wanted):
    assert smart_resize(*size) == wanted


def test_an_aspect_above_200_is_refused():
    with pytest.raises(ImageError, match="201×1 .*more than 200 times"):
        smart_resize(1, 201)


def test_a_pixel_is_normalised_with_the_mean_and_deviation_of_its_channel():
    visual = preprocess(Image.new("RGB", (56, 28), (255, 0, 51)), min_pixels=784)
    assert visual.grid_thw.tolist() == [1, 2, 4]
    assert visual.pixel_values.shape == (8, 1176)
    assert visual.pixel_values.dtype == np.float32
    wanted = (np.array([1, 0, 0.2]) - CLIP_MEAN) / CLIP_STD
    found = visual.pixel_values.reshape(8, 3, -1)
    np.testing.assert_allclose(found, np.broadcast_to(wanted[:, None], found.shape), atol=1e-6)


def test_patches_come_block_by_block_and_a_frame_is_repeated_in_time():
    rows, columns = np.indices((56, 84))
    frame = np.stack([rows, columns, rows * 0 + 7], axis=-1).astype(np.uint8)
    patches = patchify(frame[None])
    starts = patches[:, :2, 0, 0].tolist()  # (row, column) of each patch's first pixel
    assert starts[:6] == [[0, 0], [0, 14], [14, 0], [14, 14], [0, 28], [0, 42]]
    assert starts[-1] == [42, 70]
    values = preprocess(Image.fromarray(frame), min_pixels=784).pixel_values
    in_time = values.reshape(24, 3, 2, 196)
    assert (in_time[:, :, 0] == in_time[:, :, 1]).all()
    assert in_time[0, 0, 0].reshape(14, 14)[1:].min() > in_time[0, 0, 0, 0]


def test_two_frames_fill_one_temporal_patch():
    frames = np.stack([np.full((28, 28, 3), level, np.uint8) for level in (1, 2, 3, 4)])
    patches = patchify(frames)
    assert patches.shape == (2 * 4, 3, 2, 196)
    assert patches[:4, :, 0].max() == 1
    assert patches[4:, :, 1].min() == 4


def page_with_one_dot(level: int) -> Image.Image:
    pixels = np.full((84, 112, 3), 255, np.uint8)
    pixels[30, 60] = level  # second row of blocks, third column
    return Image.fromarray(pixels)


def test_a_block_is_blank_when_all_its_pixels_have_one_colour():
    visual = preprocess(page_with_one_dot(level=254))
    assert visual.n_tokens == 12
    assert np.flatnonzero(~visual.blank).tolist() == [6]
    assert visual.kept.tolist() == (~visual.blank).tolist()


def test_blank_means_even_not_white():
    pixels = np.zeros((28, 56, 3), np.uint8)
    pixels[:, :28] = (10, 20, 30)
    pixels[:, 28:] = np.arange(28)[:, None, None]
    assert blank_blocks(patchify(pixels[None])).tolist() == [True, False]


def test_the_tolerance_counts_levels_of_each_channel():
    faint = patchify(np.asarray(page_with_one_dot(level=247))[None])
    assert (~blank_blocks(faint, tolerance=7)).sum() == 1
    assert (~blank_blocks(faint, tolerance=8)).sum() == 0


def test_a_blank_page_keeps_one_block():
    visual = preprocess(Image.new("RGB", (280, 280), "white"))
    assert visual.blank.all()
    assert np.flatnonzero(visual.kept).tolist() == [0]
    assert visual.blank[0]  # asking does not change the answer


def test_a_shifted_image_is_the_image_without_its_outer_patches():
    image = cases.picture(112, 140)
    cropped = preprocess(image.crop((14, 14, 126, 98)))
    found = shifted(preprocess(image))
    assert (found.pixel_values == cropped.pixel_values).all()
    assert found.grid_thw.tolist() == cropped.grid_thw.tolist() == [1, 6, 8]
    assert found.blank.tolist() == cropped.blank.tolist() == [False] * 12


def test_blocks_of_a_shifted_image_are_blank_where_nothing_lies_in_them():
    image = Image.new("RGB", (84, 84), "white")
    image.putpixel((20, 50), (255, 254, 255))
    assert shifted(preprocess(image)).blank.tolist() == [True, True, False, True]
    assert preprocess(image).blank.tolist() == [True] * 3 + [False] + [True] * 5


def test_an_image_of_one_row_of_blocks_cannot_be_shifted():
    with pytest.raises(ImageError, match="1 × 3 visual tokens"):
        shifted(preprocess(Image.new("RGB", (84, 28)), min_pixels=1))


def test_transparency_is_laid_over_white():
    image = Image.new("RGBA", (2, 1), (*RED, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    loaded = load_image(saved(image))
    assert (loaded.mode, loaded.getpixel((0, 0)), loaded.getpixel((1, 0))) == ("RGB", RED, WHITE)


def test_a_transparent_palette_colour_is_white():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    loaded = load_image(saved(image, transparency=1))
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [RED, WHITE]


def test_exif_rotation_is_applied():
    image = Image.new("RGB", (60, 20), "red")
    image.paste(BLUE, (0, 0, 20, 20))  # left third
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    loaded = load_image(saved(image, exif=exif))
    assert loaded.size == (20, 60)
    assert corners(loaded) == (BLUE, BLUE, RED, RED)
    assert corners(load_image(load_image(saved(image, exif=exif)))) == corners(loaded)


def test_a_picture_given_with_its_exif_rotation_is_turned_before_it_is_resized():
    """It was resized to the size of the unturned picture: squeezed, without a word."""
    image = Image.new("RGB", (280, 56), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = preprocess(Image.open(io.BytesIO(saved(image, exif=exif))))
    assert (turned.size_px, turned.grid_thw.tolist()) == ((280, 56), [1, 20, 4])


def test_cmyk_becomes_rgb():
    loaded = load_image(saved(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG"))
    assert (loaded.mode, loaded.getpixel((0, 0))) == ("RGB", WHITE)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_become_eight(format):
    levels = np.array([[0, 128 * 257, 65535]], np.uint16)
    loaded = load_image(saved(Image.fromarray(levels), format))
    assert [loaded.getpixel((x, 0)) for x in range(3)] == [(0,) * 3, (128,) * 3, WHITE]


def test_floats_are_levels_between_zero_and_one():
    loaded = load_image(saved(Image.fromarray(np.array([[0, 0.2, 1]], np.float32)), "TIFF"))
    assert [loaded.getpixel((x, 0))[0] for x in range(3)] == [0, 51, 255]


def test_floats_that_are_no_numbers_are_black():
    values = np.array([[np.nan, 1.0]], np.float32)
    loaded = load_image(Image.fromarray(values))
    assert [loaded.getpixel((x, 0))[0] for x in range(2)] == [0, 255]


def test_one_bit_and_grey_become_rgb():
    assert load_image(Image.new("1", (2, 2), 1)).getpixel((0, 0)) == WHITE
    assert load_image(Image.new("LA", (2, 2), (0, 0))).getpixel((0, 0)) == WHITE


def test_the_first_frame_of_an_animation_is_used_and_said(caplog):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (GREEN, RED, BLUE)]
    gif = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with caplog.at_level(logging.WARNING):
        loaded = load_image(gif)
    assert loaded.getpixel((0, 0)) == GREEN
    assert "3 frames; only the first is used" in caplog.text


def test_a_truncated_file_is_refused_by_name(tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for format in ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP"):
        whole = saved(Image.fromarray(noise), format)
        path = tmp_path / f"cut.{format}"
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ImageError, match=f"cut.{format} "):
            load_image(path)


def png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_before_it_unfolds():
    with pytest.raises(ImageError, match="more than 178 megapixels"):
        load_image(png(60_000, 60_000))


def test_a_large_poster_is_no_bomb():
    poster = Image.new("1", (9933, 9933))  # 99 megapixels, above where Pillow starts to warn
    assert load_image(saved(poster)).size == (9933, 9933)


def test_an_empty_image_is_refused():
    for empty in (Image.new("RGB", (0, 5)), Image.new("L", (5, 0))):
        with pytest.raises(ImageError, match="empty"):
            load_image(empty)
        with pytest.raises(ImageError, match="empty"):
            preprocess(empty)
    with pytest.raises(ImageError, match="cannot be read|not an image"):
        load_image(png(0, 5))


@pytest.mark.parametrize("content", [b"", b"%PDF-1.7 no image", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused(tmp_path, content):
    path = tmp_path / "file.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match="file.png"):
        load_image(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ImageError, match="none.png: no such file"):
        load_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="cannot be read"):
        load_image(tmp_path)


def test_preprocess_takes_any_mode():
    grey = preprocess(Image.new("L", (56, 56), 100))
    colour = preprocess(Image.new("RGB", (56, 56), (100, 100, 100)))
    assert (grey.pixel_values == colour.pixel_values).all()
    assert grey.size_px == (56, 56)
