"""Sampling, decoding and cutting videos; the clips are drawn and encoded here."""

import builtins
import logging

import av
import numpy as np
import pytest
from PIL import Image

from models.errors import ImageError
from models.images import preprocess
from models.video import frame_size, load_video, preprocess_frames, sample_frames

LIMITS = {"min_pixels": 784, "max_pixels": 3136}


def clip(path, levels, size=(56, 84), rate=10, codec="libx264", rotation=0, audio_only=False):
    """Encode one grey frame for each level; the left edge of a frame is white."""
    with av.open(str(path), "w") as container:
        if audio_only:
            stream = container.add_stream("aac", rate=44100)
            silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
            silence.sample_rate = 44100
            container.mux(stream.encode(silence))
        else:
            stream = container.add_stream(codec, rate=rate)
            stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
            if rotation:
                stream.set_display_rotation(rotation)
            for level in levels:
                pixels = np.full((*size, 3), level, np.uint8)
                pixels[:, : size[1] // 4] = 255
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def levels_of(video) -> list[int]:
    """The grey level of each frame, read off the lower right corner of its last patch."""
    t, h, w = video.grid_thw
    last = video.pixel_values.reshape(t, h * w, 3, 2, 196)[:, -1, 0, :, -1]
    return np.rint((last.ravel() * 0.26862954 + 0.48145466) * 255).astype(int).tolist()


@pytest.mark.parametrize(
    ("video", "wanted"),
    [
        ((100, 25.0), [0, 12, 25, 37, 50, 62, 75, 87]),  # 4 s at 2 a second
        ((10, 25.0), [0, 2, 5, 7]),  # never fewer than 4
        ((3, 25.0), [0, 1]),  # unless there are fewer; always pairs
        ((1, 25.0), [0]),
        ((0, 25.0), []),
    ],
)
def test_frames_are_spread_evenly(video, wanted):
    assert sample_frames(*video) == wanted


def test_at_most_thirty_frames_are_taken():
    taken = sample_frames(90_000, 25.0)
    assert len(taken) == 30
    assert taken[:3] == [0, 3000, 6000]
    assert len(sample_frames(90_000, 25.0, max_frames=7)) == 6


def test_no_frame_behind_the_end_is_asked_for():
    for n_total in range(1, 2000):
        taken = sample_frames(n_total, 29.97)
        assert taken[-1] < n_total
        assert len(set(taken)) == len(taken)
        assert len(taken) % 2 == 0 or n_total == 1


def test_frames_fill_temporal_patches_in_pairs():
    frames = [Image.new("RGB", (56, 56), (level,) * 3) for level in (10, 20, 30, 40)]
    video = preprocess_frames(frames, **LIMITS)
    assert video.grid_thw.tolist() == [2, 4, 4]
    assert (video.kind, video.size_px, video.n_tokens) == ("video", (56, 56), 8)
    assert levels_of(video) == [10, 20, 30, 40]
    assert not video.blank.any()  # even in each frame, but not over the pair


def test_the_last_of_an_odd_number_of_frames_is_repeated():
    frames = [Image.new("RGB", (56, 56), (level,) * 3) for level in (10, 20, 30)]
    assert levels_of(preprocess_frames(frames, **LIMITS)) == [10, 20, 30, 30]


def test_a_video_of_one_frame_equals_the_image():
    rows = np.arange(56 * 56 * 3).reshape(56, 56, 3) % 256
    image = Image.fromarray(rows.astype(np.uint8))
    video, still = preprocess_frames([image], **LIMITS), preprocess(image, **LIMITS)
    assert (video.pixel_values == still.pixel_values).all()
    assert video.grid_thw.tolist() == still.grid_thw.tolist()


def test_frames_have_limits_of_their_own():
    assert frame_size(100, 100, 4, 100352, 602112) == (336, 336)  # enlarged to 128 tokens
    assert frame_size(2160, 3840, 4, 100352, 602112) == (560, 1008)  # 720 tokens
    # 768 frames may not have 768 tokens each: all together 230,400 at most.
    height, width = frame_size(2160, 3840, 768, 100352, 602112)
    assert (height // 28) * (width // 28) <= 300


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.webm", "libvpx"), ("a.mkv", "libx264")]
)
def test_a_clip_is_decoded_and_sampled(tmp_path, name, codec):
    path = clip(tmp_path / name, range(0, 240, 10), codec=codec)  # 24 frames, 2.4 s
    video = load_video(path, fps=2.5, **LIMITS)
    assert video.grid_thw.tolist() == [3, 2, 4]
    assert video.size_px == (56, 84)
    np.testing.assert_allclose(levels_of(video), [0, 40, 80, 120, 160, 200], atol=4)


def test_a_clip_is_turned_as_it_was_filmed(tmp_path):
    path = clip(tmp_path / "turned.mp4", [100] * 4, size=(56, 112), rotation=90)
    video = load_video(path, min_pixels=784, max_pixels=56 * 112)
    assert video.size_px == (112, 56)
    # Turned counter-clockwise, the white left edge lies at the bottom.
    t, h, w = video.grid_thw
    patches = video.pixel_values.reshape(t, h // 2, w // 2, 4, 1176)
    assert patches[0, -1].mean() > patches[0, 0].mean() + 1


def test_a_clip_that_ends_early_is_sampled_again_and_said(tmp_path, monkeypatch, caplog):
    path = clip(tmp_path / "short.mp4", range(0, 240, 10))
    monkeypatch.setattr("models.video._measure", lambda av, path: (48, 10.0))
    with caplog.at_level(logging.WARNING):
        video = load_video(path, fps=2.5, **LIMITS)
    assert "says it has 48 frames but has 24" in caplog.text
    np.testing.assert_allclose(levels_of(video), [0, 40, 80, 120, 160, 200], atol=4)


@pytest.mark.parametrize(
    ("fps", "most", "is_said"), [(2.5, 8, False), (10, 8, True), (99, 24, False)]
)
def test_frames_that_are_left_out_are_said(tmp_path, caplog, fps, most, is_said):
    """A long video was seen in 30 frames, whatever --fps said."""
    path = clip(tmp_path / "a.mp4", range(0, 240, 10))  # 2.4 s
    load_video(path, fps=fps, max_frames=most, **LIMITS)
    said = "10 frames a second of its 2 s are more than 8; 8 are taken, evenly spread"
    assert (said in caplog.text) == bool(caplog.records) == is_said


def test_a_damaged_a_missing_and_a_silent_file_are_refused(tmp_path):
    whole = clip(tmp_path / "whole.mp4", [100] * 8).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.mp4").write_text("no video")
    clip(tmp_path / "sound.mp4", [], audio_only=True)
    for name, message in {
        "cut.mp4": "cannot be read as a video",
        "text.mp4": "cannot be read as a video",
        "none.mp4": "no such file",
        "sound.mp4": "holds no video",
    }.items():
        with pytest.raises(ImageError, match=f"{name}.* {message}|{name}: {message}"):
            load_video(tmp_path / name)


def test_without_pyav_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    real = builtins.__import__

    def without_av(name, *args, **kwargs):
        if name == "av":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_av)
    with pytest.raises(ImageError, match="uv sync --extra video"):
        load_video(tmp_path / "a.mp4")
