"""Weights at lower precision, and the exact values they stand for.

int8  One scale per output channel and 7 of the 8 bits. ONNX Runtime's AVX2 kernel adds two
      u8 × s8 products in 16 bits (vpmaddubsw); 255·127·2 overflows there, 255·63·2 does not.
      Measured (K 1536, N 8960, Gaussian weights): largest error 12 % with 8 bits, 2.7 % with 7.
      Activations are quantized in the graph, one scale per row (graph.py).
int4  Blocks of 32 along the input with a scale each, for com.microsoft::MatMulNBits; the same
      operator takes 8 bits in blocks (`quantize_int8_blocks`) where activations are not quantized.
"""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

INT8_LIMIT = 63
BLOCK = 32  # inputs that share a scale
_INT4_ZERO = 8


def quantize_int8(weight: FloatArray) -> tuple[NDArray[np.int8], FloatArray]:
    """Return (out, in) weights as int8 in [−63, 63] and their scale (out,) float32."""
    scale = np.abs(weight).max(axis=1) / np.float32(INT8_LIMIT)
    scale[scale == 0] = 1.0
    return np.rint(weight / scale[:, None]).astype(np.int8), scale.astype(np.float32)


def dequantize_int8(quantized: NDArray[np.int8], scale: FloatArray) -> FloatArray:
    """Return the float32 (out, in) weights that int8 values and scales (out,) stand for."""
    return quantized.astype(np.float32) * scale[:, None]


def quantize_int8_blocks(weight: FloatArray) -> tuple[NDArray[np.uint8], FloatArray]:
    """Return (out, blocks, 32) uint8 around 128 and scales (out, blocks), for MatMulNBits."""
    blocks = _blocks(weight)
    scale = np.abs(blocks).max(axis=-1) / np.float32(127)
    scale[scale == 0] = 1.0
    return (np.rint(blocks / scale[..., None]) + 128).astype(np.uint8), scale


def _blocks(weight: FloatArray) -> FloatArray:
    """Return (out, in) weights as (out, blocks, 32), the last block filled up with zeros."""
    n_out, n_in = weight.shape
    n_blocks = -(-n_in // BLOCK)
    padded = np.zeros((n_out, n_blocks * BLOCK), np.float32)
    padded[:, :n_in] = weight
    return padded.reshape(n_out, n_blocks, BLOCK)


def quantize_int4(weight: FloatArray) -> tuple[NDArray[np.uint8], FloatArray]:
    """Return (out, in) weights as MatMulNBits wants them.

    Packed (out, blocks, 16) uint8, low nibble first, and scales (out, blocks) float32. The
    value of largest magnitude in a block maps to −8, so that all 16 levels are used.
    """
    blocks = _blocks(weight)
    at = np.abs(blocks).argmax(axis=-1)[..., None]
    scale = np.take_along_axis(blocks, at, axis=-1) / np.float32(-_INT4_ZERO)
    scale[scale == 0] = 1.0
    levels = np.clip(np.rint(blocks / scale) + _INT4_ZERO, 0, 15).astype(np.uint8)
    packed = levels[..., 0::2] | (levels[..., 1::2] << 4)
    return packed, scale[..., 0].astype(np.float32)


def dequantize_int4(packed: NDArray[np.uint8], scale: FloatArray, n_in: int) -> FloatArray:
    """Return the float32 (out, in) weights that packed blocks and scales stand for."""
    levels = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], BLOCK)
    blocks = (levels.astype(np.float32) - _INT4_ZERO) * scale[..., None]
    return blocks.reshape(len(packed), -1)[:, :n_in]
