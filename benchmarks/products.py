"""One matrix product at each precision: speed against fp32, and the largest error.

    uv run python -m benchmarks.products

K 1536 × N 8960, Gaussian weights; row 5 of the input is 300 times larger, as an outlier token is.
It decided the int8 of models/build: one scale a row, 7 bits of weight. Ends with one JSON line.
"""

import json
import time
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.engine import machine
from models.build.quantize import quantize_int4

K, N, OUTLIER = 1536, 8960, 5
MICROSOFT = "com.microsoft"


def session(nodes: list[Any], tensors: dict[str, NDArray[Any]]) -> ort.InferenceSession:
    """Return a session of nodes from x (M, K) to y (M, N)."""
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["M", K])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M", N])],
        [numpy_helper.from_array(each, name) for name, each in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return ort.InferenceSession(model.SerializeToString())


def by_row(weight: NDArray[np.float32], limit: int, is_signed: bool) -> ort.InferenceSession:
    """W8A8 with a scale for each row of x, weights (K, N) within ± limit."""
    scale = np.abs(weight).max(0) / limit
    values = np.rint(weight / scale).astype(np.int32)
    dtype, zero = (np.int8, 0) if is_signed else (np.uint8, 128)
    node = helper.make_node
    nodes = [
        node("Abs", ["x"], ["size"]),
        node("ReduceMax", ["size", "axis"], ["largest"], keepdims=1),
        node("Div", ["x", "largest"], ["unit"]),
        node("QuantizeLinear", ["unit", "step", "middle"], ["q"]),
        node(
            "MatMulIntegerToFloat",
            ["q", "w", "step", "scale", "middle", "zero"],
            ["p"],
            domain=MICROSOFT,
        ),
        node("Mul", ["p", "largest"], ["y"]),
    ]
    tensors = {
        "axis": np.array([-1]),
        "step": np.array(1 / 127, np.float32),
        "middle": np.array(128, np.uint8),
        "w": (values + zero).astype(dtype),
        "scale": scale.astype(np.float32),
        "zero": np.full(N, zero, dtype),
    }
    return session(nodes, tensors)


def variants(weight: NDArray[np.float32]) -> dict[str, ort.InferenceSession]:
    """Return a session for each way to multiply by the weight (K, N)."""
    scale = (np.abs(weight).max(0) / 127).astype(np.float32)
    packed, block_scale = quantize_int4(weight.T)
    node = helper.make_node
    bits = {"K": K, "N": N, "bits": 4, "block_size": 32, "accuracy_level": 4}
    return {
        "fp32": session([node("MatMul", ["x", "w"], ["y"])], {"w": weight}),
        "W8A8 by row, s8, 8 bits": by_row(weight, 127, True),
        "W8A8 by row, s8, 7 bits": by_row(weight, 63, True),
        "W8A8 by row, u8, 8 bits": by_row(weight, 127, False),
        "DynamicQuantizeMatMul": session(
            [node("DynamicQuantizeMatMul", ["x", "w", "s"], ["y"], domain=MICROSOFT)],
            {"w": np.rint(weight / scale).astype(np.int8), "s": scale},
        ),
        "int4 blocks of 32": session(
            [node("MatMulNBits", ["x", "w", "s"], ["y"], domain=MICROSOFT, **bits)],
            {"w": packed, "s": block_scale},
        ),
    }


def main() -> None:
    """Print errors and ratios, and one JSON line."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((K, N)).astype(np.float32) * np.float32(0.02)
    x = rng.standard_normal((768, K)).astype(np.float32)
    x[OUTLIER] *= 300
    exact, sessions = x @ weight, variants(weight)
    results: dict[str, dict[str, float]] = {}
    for name, each in sessions.items():
        error = np.abs(each.run(None, {"x": x})[0] - exact).max(1) / np.abs(exact).max(1)
        results[name] = {"largest error": round(float(np.delete(error, OUTLIER).max()), 4)}
    for rows in (1, 768):
        best = dict.fromkeys(sessions, np.inf)
        for _ in range(12 if rows == 1 else 3):
            for name, each in sessions.items():
                start = time.perf_counter()
                each.run(None, {"x": x[:rows]})
                best[name] = min(best[name], time.perf_counter() - start)
        for name, seconds in best.items():
            results[name][f"times fp32, {rows} rows"] = round(best["fp32"] / seconds, 2)
    for name, each in results.items():
        print(f"{name:26}", each)
    print(json.dumps({"machine": machine(), **results}))


if __name__ == "__main__":
    main()
