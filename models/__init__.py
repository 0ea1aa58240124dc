"""Pixels and tokens to numbers: Qwen2-VL and ColQwen2 on ONNX Runtime.

Knows nothing of documents on disk or of the index.
"""
