"""The vision tower of Qwen2-VL (arXiv:2409.12191) as one ONNX graph.

Inputs   pixel_values (B, N, 1176) float32    B images or frames of N patches each
         patch_positions (B, N, 2) int64      row and column of each patch in its image
Output   image_features (B, N/4, H) float32

Full attention within one batch row and no mask: images of one size share a batch, and any
subset of an image's 2×2 blocks can be encoded, because positions are an input.
Reference: transformers 5.23 modeling_qwen2_vl.py, Qwen2VisionTransformerPretrainedModel.
"""

import numpy as np
import onnx_ir as ir

from models.build.graph import FLOAT, MICROSOFT, GraphWriter, Recipe
from models.build.source import TensorFiles
from models.config import VisionConfig

_EPS = 1e-6
_ROTARY_THETA = 10000.0


def vision_graph(tensors: TensorFiles, config: VisionConfig, recipe: Recipe) -> ir.Model:
    """Return the graph with lazy weights."""
    g = GraphWriter(tensors, recipe)
    pixels = ir.val("pixel_values", FLOAT, ["batch", "patches", config.patch_features])
    positions = ir.val("patch_positions", ir.DataType.INT64, ["batch", "patches", 2])
    tables = _rotary_tables(g, positions, config)
    # The first map stays float32: 0.2 % of the weights, and every feature hangs on it.
    x = g.op("MatMul", [pixels, g.transposed("visual.patch_embed.proj.weight")])  # (B, N, E)
    norm1 = "visual.blocks.0.norm1"
    weight, bias = g.vector(f"{norm1}.weight"), g.vector(f"{norm1}.bias")
    n = g.op("LayerNormalization", [x, weight, bias], axis=-1, epsilon=_EPS)
    for block in range(config.depth):
        n, x = _block(g, n, x, block, tables, config)
    merged = g.constant(np.array([0, -1, config.embed_dim * config.merge**2], np.int64), "merged")
    n = g.op("Reshape", [n, merged])  # four rows in a row are one 2×2 block: (B, N/4, 4E)
    n = g.op("Gelu", [g.linear(n, "visual.merger.mlp.0", bias=True)], approximate="none")
    features = g.linear(n, "visual.merger.mlp.2", bias=True)
    features.dtype, features.shape = FLOAT, ir.Shape(["batch", "tokens", config.out_features])
    return g.model([pixels, positions], {"image_features": features}, "vision")


def _block(
    g: GraphWriter,
    n: ir.Value,
    x: ir.Value,
    block: int,
    tables: tuple[ir.Value, ir.Value, ir.Value],
    config: VisionConfig,
) -> tuple[ir.Value, ir.Value]:
    """One block on n = norm1(x); returns the next block's (norm1(x), x), or the merger's."""
    prefix = f"visual.blocks.{block}"
    qkv = g.linear(n, f"{prefix}.attn.qkv", bias=True)  # (B, N, 3E)
    q, k, v = g.ops("Split", [qkv], 3, axis=-1, num_outputs=3)
    q, k = (g.rotate(each, tables, config.num_heads) for each in (q, k))
    dtype = g.recipe.attention_type
    q, k, v = (each if dtype == FLOAT else g.cast(each, dtype) for each in (q, k, v))
    attended = g.op("MultiHeadAttention", [q, k, v], MICROSOFT, num_heads=config.num_heads)
    attended = attended if dtype == FLOAT else g.cast(attended, FLOAT)
    attended = g.linear(attended, f"{prefix}.attn.proj", bias=True)
    n, x = g.add_layer_norm(attended, x, f"{prefix}.norm2", _EPS)
    inner = g.linear(n, f"{prefix}.mlp.fc1", bias=True)
    inner = g.op("QuickGelu", [inner], MICROSOFT, alpha=1.702)
    inner = g.linear(inner, f"{prefix}.mlp.fc2", bias=True)
    last = block + 1 == config.depth
    following = "visual.merger.ln_q" if last else f"visual.blocks.{block + 1}.norm1"
    return g.add_layer_norm(inner, x, following, _EPS)


def _rotary_tables(
    g: GraphWriter, positions: ir.Value, config: VisionConfig
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Angles: the first half of the frequencies turns with the row, the second with the column."""
    half = config.head_dim // 2
    inverse = _ROTARY_THETA ** -(np.arange(0, half, 2, dtype=np.float32) / np.float32(half))
    angles = g.op(
        "Mul",
        [
            g.op(
                "Unsqueeze",
                [g.cast(positions, FLOAT), g.constant(np.array([-1], np.int64), "last_axis")],
            ),
            g.constant(inverse.astype(np.float32), "inverse_frequencies"),
        ],
    )  # (B, N, 2, head_dim/4)
    flat = g.constant(np.array([0, 0, half], np.int64), "angles_shape")
    return g.cos_sin(g.op("Reshape", [angles, flat]), half)
