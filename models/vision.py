"""The vision tower: pixel values to one feature per visual token, for both roles."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.config import VisionConfig
from models.images import VisualInput
from models.positions import patch_positions
from models.session import Cancellation, check_inputs, ensure_finite

FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Patches encoded in one run: a page of 768 tokens has 3072. Frames of a video are batched up to
# this; more would only cost memory.
MAX_PATCHES_PER_RUN = 4096
# Above this size of one activation the memory of a run is given back after it, or the arena keeps
# it while the decoder runs: 0.9 GB for a page at 2B. Taking it again costs less than 1 % there.
KEPT_ACTIVATION_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Patches:
    """An image or video of which some merge blocks are to be seen.

    kept  (t·h·w / 4,) bool: the blocks to encode; the others were blank
    """

    visual: VisualInput
    kept: Mask

    @classmethod
    def choose(cls, visual: VisualInput, skip_blank: bool) -> "Patches":
        """Keep all blocks, or only inked ones. Frames of a video are never thinned out."""
        if skip_blank and visual.kind == "image":
            return cls(visual, visual.kept)
        return cls(visual, np.ones(visual.n_tokens, bool))

    @property
    def grid_thw(self) -> NDArray[np.int64]:
        """(3,) frames, rows, columns in patches."""
        return self.visual.grid_thw

    @property
    def kind(self) -> Literal["image", "video"]:
        """Image or video."""
        return self.visual.kind

    @cached_property
    def digest(self) -> int:
        """64 bits that name the content: equal pixels and blocks give equal digests."""
        total = hashlib.sha256(np.ascontiguousarray(self.visual.pixel_values).data)
        total.update(self.grid_thw.tobytes() + self.kept.tobytes())
        return int.from_bytes(total.digest()[:8], "little", signed=True)


@dataclass(frozen=True)
class VisionFeatures:
    """What the vision tower saw of an image or a video; may be handed from one role to the other.

    features  (n, H) float32, one row for each visual token that was kept
    grid_thw  (3,) int64: frames, rows, columns in patches
    kept      (t·h·w / 4,) bool: which merge blocks the rows stand for
    size_px   (height, width) of the image as given
    digest    names the content, as `Patches.digest`
    tower     file name of the graph that made them; another graph's features mean nothing to it
    """

    features: FloatArray
    grid_thw: NDArray[np.int64]
    kept: Mask
    size_px: tuple[int, int]
    kind: Literal["image", "video"]
    digest: int
    tower: str


class VisionTower:
    """Runs vision.onnx."""

    def __init__(self, session: ort.InferenceSession, path: Path, config: VisionConfig) -> None:
        wanted = {
            "pixel_values": (None, None, config.patch_features),
            "patch_positions": (None, None, 2),
        }
        check_inputs(session, path, wanted)
        self.name = path.name
        self._session = session
        self._config = config

    def encode(self, patches: Patches, cancellation: Cancellation | None = None) -> VisionFeatures:
        """Return the features of an image or video.

        Raises ModelNumbersError if NaN or infinity comes out, Cancelled if stopped.
        """
        visual, width = patches.visual, self._config.patch_features
        blocks = visual.pixel_values.reshape(visual.n_tokens, -1, width)
        n_frames = int(visual.grid_thw[0])
        pixels = blocks[patches.kept].reshape(n_frames, -1, width)
        places = patch_positions(visual.grid_thw, patches.kept).reshape(n_frames, -1, 2)
        step = max(1, MAX_PATCHES_PER_RUN // pixels.shape[1])
        parts = [
            self._run(pixels[at : at + step], places[at : at + step], cancellation)
            for at in range(0, n_frames, step)
        ]
        features = np.concatenate(parts).reshape(-1, self._config.out_features)
        return VisionFeatures(
            features=ensure_finite(features, "the features of an image"),
            grid_thw=visual.grid_thw,
            kept=patches.kept,
            size_px=visual.size_px,
            kind=visual.kind,
            digest=patches.digest,
            tower=self.name,
        )

    def _run(
        self,
        pixels: FloatArray,
        places: NDArray[np.int64],
        cancellation: Cancellation | None,
    ) -> FloatArray:
        options = ort.RunOptions()
        if (
            pixels.shape[0] * pixels.shape[1] * self._config.mlp_features * 4
            > KEPT_ACTIVATION_BYTES
        ):
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        inputs = {"pixel_values": pixels, "patch_positions": places}
        with (cancellation or Cancellation()).watch(options):
            features: FloatArray = self._session.run(["image_features"], inputs, options)[0]
        return features
