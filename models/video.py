"""From a video file to the numbers the vision tower reads: sample, decode, resize, cut.

Two frames fill one temporal patch (Qwen2-VL, arXiv:2409.12191). Sampling and sizes are those of
`Qwen2VLVideoProcessor` of transformers, but at most 30 frames: on a CPU a frame costs seconds.
Frames are decoded from the start, as many as lie before the last one sampled.
"""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.errors import ImageError
from models.images import (
    FACTOR_PX,
    PATCH_PX,
    TEMPORAL_PATCH,
    VisualInput,
    blank_blocks,
    normalise,
    patchify,
    smart_resize,
)

log = logging.getLogger(__name__)

FPS = 2.0
MIN_FRAMES, MAX_FRAMES = 4, 30
MIN_PIXELS = 128 * FACTOR_PX**2  # of each frame
MAX_PIXELS = 768 * FACTOR_PX**2
# qwen-vl-utils lets all frames together have 0.9 of this many visual tokens.
MAX_VIDEO_TOKENS = 128_000
DEFAULT_RATE = 24.0  # frames a second, for the rare file that does not say

_CAPPED = "%s: %g frames a second of its %.0f s are more than %d; %d are taken, evenly spread"

Bytes = NDArray[np.uint8]


def load_video(
    path: Path,
    fps: float = FPS,
    min_frames: int = MIN_FRAMES,
    max_frames: int = MAX_FRAMES,
    min_pixels: int = MIN_PIXELS,
    max_pixels: int = MAX_PIXELS,
) -> VisualInput:
    """Load `fps` frames a second of a video, from `min_frames` to `max_frames`, evenly spread.

    min_pixels, max_pixels  area of each frame after resizing
    Raises ImageError if the file is missing, damaged or holds no video, or if PyAV is missing.
    """
    av = _pyav()
    try:
        n_frames, rate = _measure(av, path)
        while True:
            wanted = sample_frames(n_frames, rate, fps, min_frames, max_frames)
            clip = _Clip(len(wanted), min_pixels, max_pixels)
            n_seen = _decode(av, path, wanted, clip.add)
            if n_seen == 0:
                raise ImageError(f"{path} holds no picture that can be decoded")
            if len(clip.frames) == len(wanted):
                seconds = n_frames / rate
                if min(seconds * fps, n_frames) >= max_frames + 1:
                    log.warning(_CAPPED, path, fps, seconds, max_frames, len(wanted))
                return clip.finish()
            log.warning("%s says it has %d frames but has %d", path, n_frames, n_seen)
            n_frames = n_seen  # fewer than before, so this ends
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except av.FFmpegError as error:
        raise ImageError(f"{path} cannot be read as a video: {error.strerror}") from None


def sample_frames(
    n_total: int,
    rate: float,
    fps: float = FPS,
    min_frames: int = MIN_FRAMES,
    max_frames: int = MAX_FRAMES,
) -> list[int]:
    """Choose the frames to take from a video of `n_total` frames at `rate` frames a second.

    An even number, unless the video has one frame only. The arithmetic is the reference's, which
    multiplies in float64, rounds to float32 and cuts; but where rounding makes the reference ask
    for one frame more, behind the end of the video (1 video in 13), that one is left out.
    """
    if n_total < TEMPORAL_PATCH:
        return list(range(n_total))
    n = min(max(n_total / rate * fps, min_frames), max_frames, n_total)
    n = max(1, math.floor(n / TEMPORAL_PATCH)) * TEMPORAL_PATCH
    indices: list[int] = (np.arange(n) * (n_total / n)).astype(np.float32).astype(int).tolist()
    return indices


def preprocess_frames(
    frames: Sequence[Image.Image], min_pixels: int = MIN_PIXELS, max_pixels: int = MAX_PIXELS
) -> VisualInput:
    """Make one video of frames of one size; the last is repeated if their number is odd.

    Returns grid_thw (frames / 2, rows, columns) and rows of patches, frame pair by frame pair.
    Raises ImageError if a frame is empty or too long and narrow.
    """
    clip = _Clip(len(frames), min_pixels, max_pixels)
    for frame in frames:
        clip.add(frame)
    return clip.finish()


def frame_size(
    height: int, width: int, n_frames: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """(height, width) of each frame: within the limits, and so that all frames fit together."""
    total = int(MAX_VIDEO_TOKENS * FACTOR_PX**2 * 0.9)
    share = max(min(max_pixels, total * TEMPORAL_PATCH // n_frames), int(min_pixels * 1.05))
    return smart_resize(height, width, FACTOR_PX, min_pixels, share)


class _Clip:
    """Frames as they come, made small at once: 30 frames of 4K would take 0.7 GB."""

    def __init__(self, n_frames: int, min_pixels: int, max_pixels: int) -> None:
        self._limits = (n_frames, min_pixels, max_pixels)
        self._size_px = (0, 0)
        self.frames: list[Bytes] = []

    def add(self, frame: Image.Image) -> None:
        if not self.frames:
            self._size_px = (frame.height, frame.width)
        height, width = frame_size(*self._size_px, *self._limits)
        small = frame.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        self.frames.append(np.asarray(small))

    def finish(self) -> VisualInput:
        frames = self.frames + self.frames[-1:] * (-len(self.frames) % TEMPORAL_PATCH)
        height, width, _ = frames[0].shape
        patches = patchify(np.stack(frames))
        grid = np.array([len(frames) // TEMPORAL_PATCH, height // PATCH_PX, width // PATCH_PX])
        blank = blank_blocks(patches)
        return VisualInput(normalise(patches), grid, blank, self._size_px, kind="video")


def _pyav() -> Any:  # noqa: ANN401 - a module
    try:
        import av
    except ImportError:
        raise ImageError(
            "videos need PyAV, which is not installed: `uv sync --extra video`, "
            "or `pip install -e .[video]`"
        ) from None
    return av


def _measure(av: Any, path: Path) -> tuple[int, float]:  # noqa: ANN401
    """(frames, frames a second) of the first video stream."""
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ImageError(f"{path} holds no video")
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate or DEFAULT_RATE
        # Some containers (WebM, GIF) do not say; counting packets does not decode them.
        n_frames = stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
        return int(n_frames), float(rate)


def _decode(
    av: Any,  # noqa: ANN401
    path: Path,
    wanted: Iterable[int],
    use: Callable[[Image.Image], None],
) -> int:
    """Hand the wanted frames to `use`, upright and in order; return how many were decoded."""
    left = set(wanted)
    n_seen = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            if n_seen in left:
                left.remove(n_seen)
                use(_upright(frame))
            n_seen += 1
            if not left:
                break
    return n_seen


def _upright(frame: Any) -> Image.Image:  # noqa: ANN401
    """Turn a frame as the phone that filmed it was held."""
    pixels = frame.to_ndarray(format="rgb24")
    quarter_turns = round((frame.rotation or 0) / 90)  # counter-clockwise, as in rot90
    return Image.fromarray(np.ascontiguousarray(np.rot90(pixels, quarter_turns)))
