"""Pixels and tokens to numbers: Qwen2-VL and ColQwen2 on ONNX Runtime.

Knows nothing of documents on disk or of the index.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

# ONNX Runtime reports its use to its makers from its import on, unless this is set before
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from models.engine import Engine, EngineOptions


def load(
    folder_or_name: str | Path = "embedded",
    device: str = "auto",
    options: "EngineOptions | None" = None,
) -> "Engine":
    """Load a model folder: `.retriever` and `.generator` over one set of weights.

    folder_or_name  a folder, the name of a pulled model, or `embedded`
    device          auto, cpu, cuda, coreml, directml or openvino
    Raises ModelFilesError (no or damaged folder), DeviceError (device not there).
    """
    # onnxruntime takes a second to import: `yomu --help` should not pay for it.
    from models.engine import Engine, EngineOptions
    from models.folder import find_folder

    return Engine(find_folder(folder_or_name), device, options or EngineOptions())
