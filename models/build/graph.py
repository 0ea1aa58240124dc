"""Writes ONNX nodes: linear maps at each precision, norms, rotary embedding.

Weights are lazy: a tensor is read, converted and written when the file is saved, one at a time.

Letters in shapes: B batch, S sequence, K inputs, N outputs of a linear map, H hidden size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.tape import Tape

from models.build.quantize import BLOCK, quantize_int4, quantize_int8, quantize_int8_blocks
from models.build.source import FloatArray, TensorFiles, row_chunks
from models.errors import ModelNumbersError

Precision = Literal["fp32", "fp16", "int8", "int4"]
Target = Literal["cpu", "gpu"]

MICROSOFT = "com.microsoft"
OPSETS = {"": 21, MICROSOFT: 1}
IR_VERSION = 10
FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
FP16_MAX = 65504.0
# Quantized activations: 127 levels on each side of 128, relative to the row's largest value.
_LEVELS = 127
_ZERO_POINT = 128


@dataclass(frozen=True)
class Recipe:
    """How the weights of one part are stored and multiplied.

    On a CPU fp16 is storage only and int8 multiplies int8 by int8 (W8A8); on a GPU fp16
    multiplies in fp16, and int8 and int4 are weight-only (MatMulNBits, fp16 activations).

    weight_only  int8 by MatMulNBits on a CPU too: a scale for each block of 32 and all 8 bits,
                 a third of the error; slower for many rows, so for lm_head, which sees one.
    """

    precision: Precision
    target: Target = "cpu"
    weight_only: bool = False

    @property
    def attention_type(self) -> ir.DataType:
        """Type of queries, keys, values and the KV cache; CUDA's GQA kernel has no fp32."""
        return HALF if self.target == "gpu" else FLOAT


class GraphWriter:
    """Collects the nodes and lazy weights of one graph."""

    def __init__(self, tensors: TensorFiles, recipe: Recipe) -> None:
        self.tape = Tape()
        self._weights = self.tape  # those of a body are the graph's, too
        self.tensors = tensors
        self.recipe = recipe
        self.lora_inputs: list[ir.Value] = []
        self._constants: dict[str, ir.Value] = {}
        self._row_quantized: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}

    # Nodes

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        domain: str = "",
        **attributes: int | float | str | Sequence[int],
    ) -> ir.Value:
        """Add a node with one output."""
        return self.tape.op(op_type, inputs, attributes, domain=domain)

    def ops(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        n_outputs: int,
        domain: str = "",
        **attributes: int | float | str | Sequence[int],
    ) -> Sequence[ir.Value]:
        """Add a node with several outputs."""
        return self.tape.op_multi_out(
            op_type, inputs, attributes, num_outputs=n_outputs, domain=domain
        )

    def scan(
        self, blocks: ir.Value, body: Callable[[ir.Value], Sequence[ir.Value]], name: str
    ) -> Sequence[ir.Value]:
        """Add what body says of each of the blocks (n, …) float32, one after the other, stacked.

        Only one block's values take memory at a time.
        """
        outer, self.tape = self.tape, Tape()
        block = ir.val(f"{name}.block", FLOAT)
        outputs = body(block)
        inner, self.tape = self.tape, outer
        for n, value in enumerate(value for node in inner.nodes for value in node.outputs):
            value.name = f"{name}.{n}"  # apart from the names outside
        graph = ir.Graph([block], outputs, nodes=inner.nodes, name=name)
        attributes: dict[str, int | ir.Graph] = {"num_scan_inputs": 1, "body": graph}
        return self.tape.op_multi_out("Scan", [blocks], attributes, num_outputs=len(outputs))

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Return the value in another type."""
        return self.op("Cast", [value], to=int(dtype))

    def constant(self, array: NDArray[np.generic], name: str) -> ir.Value:
        """Return a small constant; the same name is written once."""
        if name not in self._constants:
            self._constants[name] = self._weights.initializer(ir.tensor(array, name=name))
        return self._constants[name]

    def scalar(self, value: float, dtype: type[np.generic], name: str) -> ir.Value:
        """Return a constant without axes."""
        return self.constant(np.array(value, dtype), name)

    # Weights

    def lazy(
        self,
        name: str,
        make: Callable[[], NDArray[np.generic]],
        shape: Sequence[int],
        dtype: ir.DataType,
    ) -> ir.Value:
        """Return an initializer whose values are made when the file is written."""
        tensor = ir.LazyTensor(
            lambda: ir.tensor(np.ascontiguousarray(make())),
            dtype=dtype,
            shape=ir.Shape(shape),
            name=name,
        )
        return self._weights.initializer(tensor)

    def vector(self, name: str) -> ir.Value:
        """Return a norm weight, a bias or the kernels of a convolution as float32."""
        return self.lazy(name, lambda: self.tensors.read(name), self.tensors.shape(name), FLOAT)

    # Layers

    def linear(self, x: ir.Value, module: str, bias: bool, lora: bool = False) -> ir.Value:
        """Multiply x (…, K) float32 by a module's weight (N, K), plus bias and LoRA: (…, N)."""
        y = self.matmul(x, f"{module}.weight")
        if lora:
            y = self.op("Add", [y, self._lora(x, module)])
        return self.op("Add", [y, self.vector(f"{module}.bias")]) if bias else y

    def matmul(self, x: ir.Value, name: str, output_name: str | None = None) -> ir.Value:
        """Multiply x (…, K) float32 by the transpose of a weight (N, K) at the part's precision."""
        output_name = output_name or name
        if self.recipe.target == "gpu" and self.recipe.precision != "fp32":
            x16 = self.cast(x, HALF)
            y16 = (
                self.op("MatMul", [x16, self._fp16(name, output_name)])
                if self.recipe.precision == "fp16"
                else self._matmul_nbits(x16, name, output_name, HALF)
            )
            return self.cast(y16, FLOAT)
        if self.recipe.precision == "int8" and not self.recipe.weight_only:
            return self._matmul_int8(x, name, output_name)
        if self.recipe.precision in ("int8", "int4"):
            return self._matmul_nbits(x, name, output_name, FLOAT)
        if self.recipe.precision == "fp16":
            return self.op("MatMul", [x, self.cast(self._fp16(name, output_name), FLOAT)])
        return self.op("MatMul", [x, self.transposed(name, output_name)])

    def transposed(self, name: str, output_name: str | None = None) -> ir.Value:
        """Return a weight (N, …) as float32 (K, N); what follows the first axis is flattened."""
        n_out, n_in = self._flat_shape(name)
        make = lambda: self._read_transposed(name, np.dtype(np.float32))  # noqa: E731
        return self.lazy(output_name or name, make, (n_in, n_out), FLOAT)

    def _read_transposed(self, name: str, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
        """Read (N, K) in chunks of rows into (K, N): one copy in memory, not three."""
        n_out, n_in = self._flat_shape(name)
        result = np.empty((n_in, n_out), dtype)
        for rows in row_chunks((n_out, n_in)):
            values = self.tensors.read(name, rows).reshape(-1, n_in)
            result[:, rows] = (to_fp16(values, name) if dtype == np.float16 else values).T
        return result

    def _flat_shape(self, name: str) -> tuple[int, int]:
        n_out, *rest = self.tensors.shape(name)
        return n_out, int(np.prod(rest))

    def _fp16(self, name: str, output_name: str) -> ir.Value:
        n_out, n_in = self._flat_shape(name)
        make = lambda: self._read_transposed(name, np.dtype(np.float16))  # noqa: E731
        return self.lazy(f"{output_name}.fp16", make, (n_in, n_out), HALF)

    def _matmul_int8(self, x: ir.Value, name: str, output_name: str) -> ir.Value:
        """W8A8 with one activation scale per row.

        DynamicQuantizeMatMul has one scale for the whole matrix: a single outlier row (Qwen2
        has them) costs all others their digits. Measured with one row 300 times larger:
        largest error 108 % against 2.7 % with a scale per row, at the same speed. A scale per row
        also makes each row independent of what else is in its batch.
        """
        quantized, row_max = self._quantize_rows(x)
        n_out, n_in = self._flat_shape(name)
        tensors = self.tensors

        @lru_cache(maxsize=1)  # values and scale are written one after the other
        def parts() -> tuple[NDArray[np.int8], FloatArray]:
            chunks = [quantize_int8(tensors.read(name, rows)) for rows in row_chunks((n_out, n_in))]
            values, scales = zip(*chunks, strict=True)
            return np.concatenate(values).T, np.concatenate(scales)

        def scale() -> FloatArray:
            result = parts()[1]
            parts.cache_clear()
            return result

        weight = self.lazy(
            f"{output_name}.int8", lambda: parts()[0], (n_in, n_out), ir.DataType.INT8
        )
        product = self.op(
            "MatMulIntegerToFloat",
            [
                quantized,
                weight,
                self.scalar(1 / _LEVELS, np.float32, "row_scale"),
                self.lazy(f"{output_name}.scale", scale, (n_out,), FLOAT),
                self.scalar(_ZERO_POINT, np.uint8, "row_zero_point"),
            ],
            MICROSOFT,
        )
        return self.op("Mul", [product, row_max])

    def _quantize_rows(self, x: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return x (…, K) as uint8 relative to each row's largest value, and that (…, 1)."""
        if x not in self._row_quantized:
            axes = self.constant(np.array([-1], np.int64), "last_axis")
            largest = self.op("ReduceMax", [self.op("Abs", [x]), axes], keepdims=1)
            tiny = self.scalar(1e-30, np.float32, "tiny")
            row_max = self.op("Max", [largest, tiny])
            quantized = self.op(
                "QuantizeLinear",
                [
                    self.op("Div", [x, row_max]),
                    self.scalar(1 / _LEVELS, np.float32, "row_scale"),
                    self.scalar(_ZERO_POINT, np.uint8, "row_zero_point"),
                ],
            )
            self._row_quantized[x] = quantized, row_max
        return self._row_quantized[x]

    def _matmul_nbits(
        self, x: ir.Value, name: str, output_name: str, dtype: ir.DataType
    ) -> ir.Value:
        n_out, n_in = self._flat_shape(name)
        n_blocks = -(-n_in // BLOCK)
        tensors = self.tensors
        bits = 8 if self.recipe.precision == "int8" else 4
        quantize = quantize_int8_blocks if bits == 8 else quantize_int4

        @lru_cache(maxsize=1)
        def parts() -> tuple[NDArray[np.uint8], FloatArray]:
            chunks = [quantize(tensors.read(name, rows)) for rows in row_chunks((n_out, n_in))]
            values, scales = zip(*chunks, strict=True)
            return np.concatenate(values), np.concatenate(scales)

        def scale() -> NDArray[np.generic]:
            result = parts()[1]
            parts.cache_clear()
            return to_fp16(result, f"scale of {name}") if dtype == HALF else result

        shape = (n_out, n_blocks, BLOCK * bits // 8)
        weight = self.lazy(f"{output_name}.int{bits}", lambda: parts()[0], shape, ir.DataType.UINT8)
        return self.op(
            "MatMulNBits",
            [x, weight, self.lazy(f"{output_name}.scale", scale, (n_out, n_blocks), dtype)],
            MICROSOFT,
            K=n_in,
            N=n_out,
            bits=bits,
            block_size=BLOCK,
            accuracy_level=4,  # int8 activations; without it 13 times slower at one row
        )

    def _lora(self, x: ir.Value, module: str) -> ir.Value:
        """x·A·B with A (K, r), B (r, N) as optional inputs; their default is rank 0: nothing."""
        n_out, n_in = self._flat_shape(f"{module}.weight")
        factors = []
        for side, shape, symbolic in (
            ("A", (n_in, 0), (n_in, "rank")),
            ("B", (0, n_out), ("rank", n_out)),
        ):
            value = self._weights.initializer(
                ir.tensor(np.zeros(shape, np.float32), name=f"{module}.lora_{side}")
            )
            value.shape = ir.Shape(symbolic)
            self.lora_inputs.append(value)
            factors.append(value)
        return self.op("MatMul", [self.op("MatMul", [x, factors[0]]), factors[1]])

    def rms_norm(self, x: ir.Value, name: str, eps: float) -> ir.Value:
        """RMSNorm over the last axis."""
        return self.op("SimplifiedLayerNormalization", [x, self.vector(name)], axis=-1, epsilon=eps)

    def add_rms_norm(
        self, x: ir.Value, residual: ir.Value, name: str, eps: float
    ) -> tuple[ir.Value, ir.Value]:
        """Return (RMSNorm(x + residual), x + residual)."""
        normed, _, _, total = self.ops(
            "SkipSimplifiedLayerNormalization",
            [x, residual, self.vector(name)],
            4,
            MICROSOFT,
            epsilon=eps,
        )
        return normed, total

    def add_layer_norm(
        self, x: ir.Value, residual: ir.Value, module: str, eps: float
    ) -> tuple[ir.Value, ir.Value]:
        """Return (LayerNorm(x + residual), x + residual)."""
        weight, bias = self.vector(f"{module}.weight"), self.vector(f"{module}.bias")
        normed, _, _, total = self.ops(
            "SkipLayerNormalization", [x, residual, weight, bias], 4, MICROSOFT, epsilon=eps
        )
        return normed, total

    def cos_sin(self, angles: ir.Value, n_frequencies: int) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Tables for `rotate` from angles (B, S, F): cos and sin (B·S, F), and row ids (B, S)."""
        shape = self.op("Shape", [angles], start=0, end=2)
        n_rows = self.op("ReduceProd", [shape], keepdims=0)
        zero, one = self.scalar(0, np.int64, "zero"), self.scalar(1, np.int64, "one")
        rows = self.op("Reshape", [self.op("Range", [zero, n_rows, one]), shape])
        flat = self.constant(np.array([-1, n_frequencies], np.int64), "rotary_rows")
        angles = self.op("Reshape", [angles, flat])
        return self.op("Cos", [angles]), self.op("Sin", [angles]), rows

    def rotate(
        self, x: ir.Value, tables: tuple[ir.Value, ir.Value, ir.Value], n_heads: int
    ) -> ir.Value:
        """Rotary embedding (arXiv:2104.09864, halves) of x (B, S, heads·head_dim)."""
        cos, sin, rows = tables
        return self.op(
            "RotaryEmbedding", [x, rows, cos, sin], MICROSOFT, interleaved=0, num_heads=n_heads
        )

    def model(
        self, inputs: Sequence[ir.Value], outputs: dict[str, ir.Value], name: str
    ) -> ir.Model:
        """Return the finished model; outputs get their names here."""
        for output_name, value in outputs.items():
            value.name = output_name
        graph = ir.Graph(
            inputs=[*inputs, *self.lora_inputs],
            outputs=list(outputs.values()),
            nodes=self.tape.nodes,
            initializers=self._weights.initializers,
            opset_imports=OPSETS,
            name=name,
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="yomu")


def to_fp16(values: FloatArray, name: str) -> NDArray[np.float16]:
    """Return values as float16. Raises ModelNumbersError if one is too large for it."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest > FP16_MAX:
        raise ModelNumbersError(
            f"{name} holds {largest:.6g}, more than float16 can (65504): "
            "build this part with --precision fp32, int8 or int4"
        )
    return values.astype(np.float16)
