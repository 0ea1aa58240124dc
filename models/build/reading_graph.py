"""The reading head, one ONNX graph: what the vision tower saw of a page, and its pixels, to text.

Inputs   features (n, H) float32     visual tokens of any views of a page
         places (8n, 1) int64        where on the lattice of R·C slots each of their slots lies
         weights (R, C) float32      1 / how many views show a slot of the lattice; 0: none does
         seen (S, 1) int64           the slots that are shown
         pixels (16R, 8C) uint8      the page in grey, 16×8 px a slot
Outputs  frames (F,) int64           which frames of these slots, of 4S, may name a character
         classes (F,) int64          0 blank, 1 unknown, 2… characters, the last one a space
         confidence (F,) float32     probability of that class

A slot is 7×14 px of a page: a visual token has 2 rows of 4. Slots of several views that lie at one
place are averaged, convolutions add what its pixels show, depthwise ones look at the slots around,
and each frame, a quarter of a slot, names a character or none, for CTC (Graves et al., ICML 2006)
along the rows of the lattice, as in CRNN (arXiv:1507.05717). The depthwise layers are those of
ConvNeXt (arXiv:2201.03545). Most frames name none, which `ink` knows beforehand: scores of 3,600
classes would be most of the work.
"""

import numpy as np
import onnx_ir as ir

from models.build.graph import FLOAT, GraphWriter, Recipe
from models.build.source import TensorFiles

INT64 = ir.DataType.INT64
PIXEL_STRIDES = ((2, 2), (2, 2), (2, 1), (2, 1))  # from 16×8 px to the two halves of a slot
FRAMES_AT_ONCE = 2048  # that get their scores
_EPS = 1e-5


def reading_graph(tensors: TensorFiles, recipe: Recipe, characters: str) -> ir.Model:
    """Return the graph with lazy weights; its metadata holds the characters."""
    hidden = tensors.shape("slots.weight")[1]
    width = tensors.shape("characters.weight")[1]  # of a slot, and of a frame
    g = GraphWriter(tensors, recipe)
    features = ir.val("features", FLOAT, ["tokens", hidden])
    places = ir.val("places", INT64, ["slots", 1])
    weights = ir.val("weights", FLOAT, ["rows", "columns"])
    seen = ir.val("seen", INT64, ["seen", 1])
    pixels = ir.val("pixels", ir.DataType.UINT8, ["height", "width"])
    lattice = _Lattice(g, weights, seen)
    by_slot = g.constant(np.array([-1, width], np.int64), "by_slot")
    last = g.constant(np.array([-1], np.int64), "last_axis")

    slots = g.op("Reshape", [_gelu(g, g.linear(features, "slots", bias=True)), by_slot])
    share = g.op("Reshape", [weights, g.constant(np.array([-1, 1], np.int64), "in_a_column")])
    x = lattice.gather(g.op("Mul", [lattice.scatter(slots, places, width, "add"), share]))
    found, n_channels = _convolve(g, pixels)
    found = lattice.gather(found)
    h = g.op("Add", [g.linear(x, "widen", bias=True), g.linear(found, "pixels.out", bias=True)])
    block = 0
    while f"blocks.{block}.up.weight" in tensors:
        h = g.op("Add", [h, _block(g, lattice, h, f"blocks.{block}")])
        block += 1
    h = g.op("Add", [g.linear(h, "frames", bias=True), g.linear(x, "shortcut", bias=True)])
    by_half = g.constant(np.array([-1, n_channels], np.int64), "pixels_by_half")
    direct = g.linear(g.op("Reshape", [found, by_half]), "pixels.direct", bias=True)
    by_frame = [g.op("Reshape", [each, by_slot]) for each in (h, direct)]
    states = g.op("Add", by_frame)  # (4S, width)
    ink = g.op("Squeeze", [g.linear(states, "ink", bias=True), last])
    is_inked = g.op("Greater", [ink, g.scalar(0, np.float32, "none")])
    frames = g.op("Squeeze", [g.op("NonZero", [is_inked]), lattice.first_axis])
    classes, confidence = _name(g, g.op("Gather", [states, frames], axis=0), width)
    outputs = {"frames": frames, "classes": classes, "confidence": confidence}
    for name, value in outputs.items():
        value.dtype = FLOAT if name == "confidence" else INT64
        value.shape = ir.Shape(["inked"])
    model = g.model([features, places, weights, seen, pixels], outputs, "reading")
    model.metadata_props["characters"] = characters
    return model


def _convolve(g: GraphWriter, pixels: ir.Value) -> tuple[ir.Value, int]:
    """Return what convolutions see of the halves of every slot, (R·C, 2·channels), and channels."""
    x = g.op("Mul", [g.cast(pixels, FLOAT), g.scalar(-1 / 127.5, np.float32, "of_white")])
    x = g.op("Add", [x, g.scalar(2, np.float32, "white")])  # which is 0 then
    x = g.op("Unsqueeze", [x, g.constant(np.array([0, 1], np.int64), "image_axes")])
    n_channels = 1
    for n, strides in enumerate(PIXEL_STRIDES):
        kernel = g.vector(f"pixels.layers.{n}.weight")
        n_channels = g.tensors.shape(f"pixels.layers.{n}.weight")[0]
        x = g.op("Conv", [x, kernel], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=strides)
        # Summed in float32: off the exact norm by 0.13 where a page is one grey, 0.004 with ink.
        norm = [g.vector(f"pixels.norms.{n}.{part}") for part in ("weight", "bias")]
        x = g.op("Relu", [g.op("InstanceNormalization", [x, *norm], epsilon=_EPS)])
    of_slot = g.constant(np.array([-1, 2 * n_channels], np.int64), "pixels_by_slot")
    return g.op("Reshape", [g.op("Transpose", [x], perm=[0, 2, 3, 1]), of_slot]), n_channels


def _name(g: GraphWriter, states: ir.Value, width: int) -> list[ir.Value]:
    """Return the likeliest class of each of the states (F, width), and how likely it is, (F,).

    FRAMES_AT_ONCE frames at a time: scores of all on a full page take half a gigabyte.
    """
    zero, one, last = (
        g.constant(np.array([at], np.int64), name)
        for at, name in ((0, "first_axis"), (1, "one"), (-1, "last_axis"))
    )
    at_once = g.constant(np.array([FRAMES_AT_ONCE], np.int64), "frames_at_once")
    n_frames = g.op("Slice", [g.op("Shape", [states]), zero, one])
    missing = g.op("Sub", [at_once, g.op("Mod", [n_frames, at_once])])  # one block at least
    ends = g.op("Concat", [zero, zero, missing, zero], axis=0)
    by_block = g.constant(np.array([-1, FRAMES_AT_ONCE, width], np.int64), "by_block")
    blocks = g.op("Reshape", [g.op("Pad", [states, ends]), by_block])

    def body(block: ir.Value) -> list[ir.Value]:
        scores = g.linear(block, "characters", bias=True)
        shares = g.op("Softmax", [scores], axis=-1)
        named = g.op("ArgMax", [scores], axis=-1, keepdims=0)
        return [named, g.op("ReduceMax", [shares, last], keepdims=0)]

    found = (g.op("Reshape", [each, last]) for each in g.scan(blocks, body, "scores"))
    return [g.op("Slice", [each, zero, n_frames]) for each in found]


def _gelu(g: GraphWriter, x: ir.Value) -> ir.Value:
    return g.op("Gelu", [x], approximate="none")


class _Lattice:
    """Writes rows of values onto the lattice and takes those of the seen slots from it."""

    def __init__(self, g: GraphWriter, weights: ir.Value, seen: ir.Value) -> None:
        self.first_axis = g.constant(np.array([0], np.int64), "first_axis")
        self._g = g
        self._shape = g.op("Shape", [weights])  # (R, C)
        self._n_slots = g.op("ReduceProd", [self._shape], keepdims=1)
        self._seen = seen

    def scatter(
        self, values: ir.Value, places: ir.Value, width: int, reduction: str = "none"
    ) -> ir.Value:
        """Return (R·C, width) with values (m, width) at their places, 0 elsewhere."""
        g = self._g
        of_slot = g.constant(np.array([width], np.int64), f"width_{width}")
        shape = g.op("Concat", [self._n_slots, of_slot], axis=0)
        empty = g.op("ConstantOfShape", [shape])
        return g.op("ScatterND", [empty, places, values], reduction=reduction)

    def gather(self, values: ir.Value) -> ir.Value:
        """Return the rows (S, width) of the seen slots."""
        return self._g.op("GatherND", [values, self._seen])

    def around(self, h: ir.Value, module: str) -> ir.Value:
        """Convolve each channel of the seen slots (S, D) with the slots around, on the lattice."""
        g = self._g
        n_channels, _, high, wide = g.tensors.shape(f"{module}.weight")
        one = g.constant(np.array([1], np.int64), "one")
        channels = g.constant(np.array([n_channels], np.int64), f"width_{n_channels}")
        as_image = g.op("Concat", [one, self._shape, channels], axis=0)
        image = g.op("Reshape", [self.scatter(h, self._seen, n_channels), as_image])
        image = g.op(
            "Conv",
            [
                g.op("Transpose", [image], perm=[0, 3, 1, 2]),
                g.vector(f"{module}.weight"),
                g.vector(f"{module}.bias"),
            ],
            group=n_channels,
            kernel_shape=[high, wide],
            pads=[high // 2, wide // 2, high // 2, wide // 2],
        )
        image = g.op("Transpose", [image], perm=[0, 2, 3, 1])
        flat = g.constant(np.array([-1, n_channels], np.int64), "by_place")
        return self.gather(g.op("Reshape", [image, flat]))


def _block(g: GraphWriter, lattice: _Lattice, h: ir.Value, module: str) -> ir.Value:
    """One block on h (S, D), without the residual."""
    y = lattice.around(h, f"{module}.around")
    norm = [y, g.vector(f"{module}.norm.weight"), g.vector(f"{module}.norm.bias")]
    y = g.op("LayerNormalization", norm, axis=-1, epsilon=_EPS)
    return g.linear(_gelu(g, g.linear(y, f"{module}.up", bias=True)), f"{module}.down", bias=True)
