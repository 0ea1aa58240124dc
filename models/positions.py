"""Where each token and each patch stands: M-RoPE positions (Qwen2-VL, arXiv:2409.12191).

Text counts 0, 1, 2 … on all three axes at once. The merged tokens of an image or a video get
(time, row, column) of their own grid, and the text after them goes on behind the longer side.
Positions are inputs of both graphs, so a page may leave out any of its 2×2 merge blocks: what
stays keeps the place it has in the whole grid, and the text after it does not move.

Letters: L tokens, N patches, G grids; a grid is (t, h, w) in patches, as in `grid_thw`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TEXT, IMAGE, VIDEO = 0, 1, 2

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


def token_types(token_ids: Sequence[int] | Ints, image_token_id: int, video_token_id: int) -> Ints:
    """(L,) int64: 0 for text, 1 for image pads, 2 for video pads (`mm_token_type_ids`)."""
    ids = np.asarray(token_ids, np.int64)
    types = np.full(ids.shape, TEXT, np.int64)
    types[ids == image_token_id] = IMAGE
    types[ids == video_token_id] = VIDEO
    return types


def mrope_positions(
    types: Ints,
    grids: Sequence[Sequence[int] | Ints] = (),
    kept: Sequence[Mask | None] | None = None,
    merge: int = 2,
) -> tuple[Ints, int]:
    """M-RoPE positions of a sequence, and the position of the token that comes after it.

    types  (L,) 0 text, 1 image, 2 video: see `token_types`
    grids  (t, h, w) in patches of each image or video, in the order they appear
    kept   per grid: (t·h·w / merge²,) bool, the merge blocks present in the sequence; None = all
    Returns position_ids (3, L) int64 on the axes (time, row, column) and the next position:
    decoding step i stands at `next + i` on all axes. Equal to `get_rope_index` of transformers
    5.23, where a video advances the text by its longer side even if it has more frames than that.
    Raises ValueError when tokens and grids do not belong together.
    """
    kept = [None] * len(grids) if kept is None else kept
    visuals = zip(grids, kept, strict=True)
    parts: list[Ints] = []
    at = position = furthest = 0
    while at < len(types):
        if types[at] == TEXT:
            n = _run_length(types, at)
            parts.append(np.tile(np.arange(position, position + n), (3, 1)))
            position += n
            furthest = max(furthest, position)
        else:
            grid, mask = next(visuals, (None, None))
            if grid is None:
                raise ValueError(f"a visual token at {at}, but only {len(grids)} grids were given")
            whole = position + merged_grid(grid, merge)
            parts.append(whole if mask is None else whole[:, mask])
            n = parts[-1].shape[1]
            if n == 0 or n > len(types) - at or (types[at : at + n] != types[at]).any():
                raise ValueError(f"grid {tuple(grid)} needs {n} visual tokens in a row at {at}")
            furthest = max(furthest, int(whole.max()) + 1)
            position += max(int(grid[1]), int(grid[2])) // merge
        at += n
    if next(visuals, None) is not None:
        raise ValueError(f"{len(grids)} grids were given, more than the sequence has visuals")
    ids = np.concatenate(parts, axis=1) if parts else np.empty((3, 0), np.int64)
    return ids.astype(np.int64), furthest


def merged_grid(grid_thw: Sequence[int] | Ints, merge: int = 2) -> Ints:
    """(3, t·h·w / merge²) int64: time, row and column of each merged token, row by row."""
    t, h, w = (int(n) for n in grid_thw)
    return np.indices((t, h // merge, w // merge), dtype=np.int64).reshape(3, -1)


def patch_positions(
    grid_thw: Sequence[int] | Ints, kept: Mask | None = None, merge: int = 2
) -> Ints:
    """(N, 2) int64: row and column of each patch, in the order of `pixel_values`.

    Patches come block by block: the merge × merge patches of one merged token are neighbours.
    kept (t·h·w / merge²,) bool leaves out whole blocks. Frames of a video repeat the same places.
    """
    block = merged_grid(grid_thw, merge)[1:].T  # (blocks, 2)
    if kept is not None:
        block = block[kept]
    inner = np.indices((merge, merge), dtype=np.int64).reshape(2, -1).T  # (merge², 2)
    return (block[:, None] * merge + inner[None]).reshape(-1, 2)


def _run_length(types: Ints, at: int) -> int:
    """Length of the text run that starts at `at`."""
    visual = np.flatnonzero(types[at:] != TEXT)
    return int(visual[0]) if len(visual) else len(types) - at
