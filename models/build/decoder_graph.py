"""The decoder of Qwen2-VL (arXiv:2409.12191) as one ONNX graph, for both roles.

Inputs   inputs_embeds (B, S, H) float32
         position_ids (3, B, S) int64          M-RoPE: time, row, column
         seqlens_k (B,) int32                  valid length of each row, cache included, minus 1
         total_sequence_length () int32        the longest of them
         logits_positions (L,) int64           rows of hidden, flattened to B·S, to turn to logits
         past.N.key, past.N.value              (B, KV, P, head_dim); P = 0 for no cache
         MODULE.lora_A (K, r), lora_B (r, N)   optional; absent = plain Qwen2-VL
Outputs  hidden (B, S, H) after the last norm, logits (L, V), present.N.key, present.N.value

The cache may be one buffer given as past and present both: keys are then written in place.
Right padding. Reference: transformers 5.23 modeling_qwen2_vl.py, Qwen2VLTextModel.
"""

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from models.build.graph import FLOAT, MICROSOFT, GraphWriter, Recipe
from models.build.source import Checkpoint
from models.config import TextConfig

Tables = tuple[ir.Value, ir.Value, ir.Value]


@dataclass(frozen=True)
class _Inputs:
    embeds: ir.Value
    positions: ir.Value
    seqlens: ir.Value
    total: ir.Value
    logits_positions: ir.Value
    past: list[tuple[ir.Value, ir.Value]]

    def all(self) -> list[ir.Value]:
        pairs = [value for pair in self.past for value in pair]
        scalars = [self.seqlens, self.total, self.logits_positions]
        return [self.embeds, self.positions, *scalars, *pairs]


def decoder_graph(checkpoint: Checkpoint, recipe: Recipe, lm_head: Recipe) -> ir.Model:
    """Return the graph with lazy weights; `lm_head` says how the map to logits is stored."""
    text = checkpoint.config.text
    g = GraphWriter(checkpoint.tensors, recipe)
    inputs = _inputs(text, recipe)
    tables = _rotary_tables(g, inputs.positions, text)
    x = inputs.embeds
    n = g.rms_norm(x, "model.layers.0.input_layernorm.weight", text.rms_norm_eps)
    outputs: dict[str, ir.Value] = {}
    for layer in range(text.n_layers):
        n, x, present = _layer(g, n, x, layer, tables, inputs, text)
        for name, value in zip(("key", "value"), present, strict=True):
            outputs[f"present.{layer}.{name}"] = value
            value.dtype = recipe.attention_type
            value.shape = ir.Shape(["batch", text.n_kv_heads, "total", text.head_dim])
    flat = g.op("Reshape", [n, g.constant(np.array([-1, text.hidden_size], np.int64), "rows")])
    last = g.op("Gather", [flat, inputs.logits_positions], axis=0)  # (L, H)
    g.recipe = replace(lm_head, weight_only=True)  # one row is asked for, not a page of them
    logits = g.matmul(last, checkpoint.lm_head_name, "lm_head.weight")
    logits.dtype, logits.shape = FLOAT, ir.Shape(["logits", text.vocab_size])
    n.dtype, n.shape = FLOAT, ir.Shape(["batch", "sequence", text.hidden_size])
    return g.model(inputs.all(), {"hidden": n, "logits": logits, **outputs}, "decoder")


def _inputs(text: TextConfig, recipe: Recipe) -> _Inputs:
    int64, int32 = ir.DataType.INT64, ir.DataType.INT32
    past_shape: list[int | str | None] = ["batch", text.n_kv_heads, "past", text.head_dim]
    return _Inputs(
        embeds=ir.val("inputs_embeds", FLOAT, ["batch", "sequence", text.hidden_size]),
        positions=ir.val("position_ids", int64, [3, "batch", "sequence"]),
        seqlens=ir.val("seqlens_k", int32, ["batch"]),
        total=ir.val("total_sequence_length", int32, []),
        logits_positions=ir.val("logits_positions", int64, ["logits"]),
        past=[
            (
                ir.val(f"past.{layer}.key", recipe.attention_type, past_shape),
                ir.val(f"past.{layer}.value", recipe.attention_type, past_shape),
            )
            for layer in range(text.n_layers)
        ],
    )


def _layer(
    g: GraphWriter,
    n: ir.Value,
    x: ir.Value,
    layer: int,
    tables: Tables,
    inputs: _Inputs,
    text: TextConfig,
) -> tuple[ir.Value, ir.Value, tuple[ir.Value, ir.Value]]:
    """One layer on n = norm(x); returns the next norm's output, x, and the layer's cache."""
    prefix = f"model.layers.{layer}"
    attended, present = _attention(g, n, layer, tables, inputs, text)
    norm = f"{prefix}.post_attention_layernorm.weight"
    n, x = g.add_rms_norm(attended, x, norm, text.rms_norm_eps)
    gate = g.linear(n, f"{prefix}.mlp.gate_proj", bias=False, lora=True)
    up = g.linear(n, f"{prefix}.mlp.up_proj", bias=False, lora=True)
    # QuickGelu with alpha 1 is x·sigmoid(x): SiLU in one pass.
    inner = g.op("Mul", [g.op("QuickGelu", [gate], MICROSOFT, alpha=1.0), up])
    down = g.linear(inner, f"{prefix}.mlp.down_proj", bias=False, lora=True)
    last = layer + 1 == text.n_layers
    following = "model.norm" if last else f"model.layers.{layer + 1}.input_layernorm"
    n, x = g.add_rms_norm(down, x, f"{following}.weight", text.rms_norm_eps)
    return n, x, present


def _attention(
    g: GraphWriter, n: ir.Value, layer: int, tables: Tables, inputs: _Inputs, text: TextConfig
) -> tuple[ir.Value, tuple[ir.Value, ir.Value]]:
    """Grouped-query causal attention over the cache and n; returns it and the new cache."""
    prefix = f"model.layers.{layer}.self_attn"
    q = g.rotate(g.linear(n, f"{prefix}.q_proj", bias=True, lora=True), tables, text.n_heads)
    k = g.rotate(g.linear(n, f"{prefix}.k_proj", bias=True, lora=True), tables, text.n_kv_heads)
    v = g.linear(n, f"{prefix}.v_proj", bias=True, lora=True)
    dtype = g.recipe.attention_type
    if dtype != FLOAT:
        q, k, v = (g.cast(each, dtype) for each in (q, k, v))
    attended, key, value = g.ops(
        "GroupQueryAttention",
        [q, k, v, *inputs.past[layer], inputs.seqlens, inputs.total],
        3,
        MICROSOFT,
        num_heads=text.n_heads,
        kv_num_heads=text.n_kv_heads,
        do_rotary=0,
    )
    attended = attended if dtype == FLOAT else g.cast(attended, FLOAT)
    return g.linear(attended, f"{prefix}.o_proj", bias=False, lora=True), (key, value)


def _rotary_tables(g: GraphWriter, positions: ir.Value, text: TextConfig) -> Tables:
    """M-RoPE: `mrope_section` says how many frequencies turn with time, row and column.

    Tables are computed from the positions in the graph, once for all layers, and rotated with
    the ordinary RotaryEmbedding kernel: no table of all positions on disk (16 MB at 2B), no
    limit on positions, and every execution provider has the kernel.
    """
    half = text.head_dim // 2
    exponent = np.arange(0, text.head_dim, 2, dtype=np.float32) / np.float32(text.head_dim)
    inverse = (np.float32(1.0) / np.float32(text.rope_theta) ** exponent).astype(np.float32)
    axis = np.repeat(np.arange(3), text.mrope_section)  # (half,) which axis a frequency follows
    chosen = g.op(
        "Gather", [g.cast(positions, FLOAT), g.constant(axis, "mrope_axis")], axis=0
    )  # (half, B, S)
    chosen = g.op("Transpose", [chosen], perm=[1, 2, 0])
    angles = g.op("Mul", [chosen, g.constant(inverse, "inverse_frequencies")])
    return g.cos_sin(angles, half)
