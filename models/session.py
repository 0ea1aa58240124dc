"""ONNX Runtime sessions: the device asked for and the one got, and runs that can be stopped."""

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.errors import DeviceError, ModelFilesError, ModelMemoryError, ModelNumbersError

logger = logging.getLogger(__name__)

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
PACKAGES = {
    "cuda": "onnxruntime-gpu",
    "coreml": "onnxruntime on macOS",
    "directml": "onnxruntime-directml",
    "openvino": "onnxruntime-openvino",
}
# How onnxruntime's arenas, CUDA, cuBLAS and C++ say it; its exceptions have no class of their own.
_OUT_OF_MEMORY = (
    "Failed to allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "bad_alloc",
)  # fmt: skip
_ERROR = 3  # log severity: LoRA inputs with defaults warn once each, hundreds of lines


class Cancelled(Exception):
    """A run was stopped by `Cancellation.cancel`; no error, the caller asked for it."""


class Cancellation:
    """Stops running work from another thread, inside a graph too (between two of its nodes)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._running: list[ort.RunOptions] = []

    def cancel(self) -> None:
        """Stop now; safe to call from any thread and more than once."""
        with self._lock:
            self._cancelled = True
            for options in self._running:
                options.terminate = True

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    @contextmanager
    def watch(self, options: ort.RunOptions) -> Iterator[None]:
        """Let `cancel` end a run with these options, which then raises Cancelled."""
        with self._lock:
            if self._cancelled:
                raise Cancelled
            self._running.append(options)
        try:
            yield
        except Exception as error:
            if self._cancelled:  # onnxruntime reports termination as a failed node
                raise Cancelled from None
            if any(words in str(error) for words in _OUT_OF_MEMORY):
                raise ModelMemoryError(
                    "the device ran out of memory: give fewer or smaller pages, a smaller or more "
                    "compressed model, or use --device cpu"
                ) from error
            raise
        finally:
            with self._lock:
                self._running.remove(options)


@dataclass(frozen=True)
class Device:
    """The device asked for and the one that onnxruntime really uses."""

    asked: str
    used: str

    @classmethod
    def choose(cls, asked: str, built_for: str) -> "Device":
        """Return what can be had. `built_for` is the folder's target, cpu or gpu.

        Raises DeviceError for an unknown device, or one this onnxruntime does not have.
        """
        available = ort.get_available_providers()
        if asked == "auto":
            has_cuda = PROVIDERS["cuda"] in available
            if has_cuda and built_for == "cpu":
                logger.warning(
                    "a GPU could be used, but this model folder was built for a CPU; "
                    "build it again with `yomu models build … --target gpu`"
                )
            return cls(asked, "cuda" if has_cuda and built_for == "gpu" else "cpu")
        if asked not in PROVIDERS:
            raise DeviceError(f"no device {asked!r}; choose one of auto, {', '.join(PROVIDERS)}")
        if PROVIDERS[asked] not in available:
            raise DeviceError(
                f"device {asked} is not in this onnxruntime (it has {', '.join(available)}); "
                f"install {PACKAGES[asked]} or use --device auto"
            )
        return cls(asked, asked)

    @property
    def providers(self) -> list[str]:
        """Execution providers in order of preference; the CPU takes what others cannot."""
        return list(dict.fromkeys([PROVIDERS[self.used], PROVIDERS["cpu"]]))


def open_session(path: Path, device: Device, n_threads: int = 0) -> ort.InferenceSession:
    """Open a graph. `n_threads` 0 means all cores this process may use.

    Raises ModelFilesError if it cannot be read. Says so loudly when the device was not got.
    """
    if not path.exists():
        raise ModelFilesError(f"{path}: not there; build the model folder again")
    options = ort.SessionOptions()
    options.intra_op_num_threads = n_threads or n_cores()
    options.log_severity_level = _ERROR
    # Threads that wait by spinning take the cores from whatever else runs (rendering, another
    # session): without it a page of the embedded model costs 0.78 instead of 1.05 CPU seconds.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    fault = ""
    # Our own fallback: onnxruntime's prints to stdout, which belongs to results.
    for providers in dict.fromkeys((tuple(device.providers), (PROVIDERS["cpu"],))):
        try:
            session = ort.InferenceSession(
                path, options, providers=list(providers), enable_fallback=0
            )
        except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions share no base class
            if not (
                isinstance(error, RuntimeError) or type(error).__module__.startswith("onnxruntime")
            ):
                raise
            fault = f" ({(str(error).splitlines() or [''])[0]})"
            continue
        if session.get_providers()[0] != device.providers[0]:
            logger.warning(
                "%s: %s failed to start, running on the CPU%s", path.name, device.used, fault
            )
        return session
    raise ModelFilesError(f"{path}: onnxruntime cannot open it{fault}")


def n_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_inputs(
    session: ort.InferenceSession, path: Path, wanted: Mapping[str, Sequence[int | None]]
) -> None:
    """Compare graph inputs with what config.json says; None matches any size.

    Raises ModelFilesError naming the first input that is missing or of another shape.
    """
    found = {each.name: each.shape for each in session.get_inputs()}
    for name, shape in wanted.items():
        if name not in found:
            raise ModelFilesError(f"{path}: has no input {name}; build the folder again")
        sizes = found[name]
        fits = len(sizes) == len(shape) and all(
            want is None or want == size for want, size in zip(shape, sizes, strict=True)
        )
        if not fits:
            raise ModelFilesError(
                f"{path}: input {name} is {sizes}, config.json wants {list(shape)}; "
                "graph and config do not belong together, build the folder again"
            )


def ensure_finite(values: NDArray[np.float32], what: str) -> NDArray[np.float32]:
    """Return the values. Raises ModelNumbersError if one is NaN or infinite."""
    if not np.isfinite(values).all():
        raise ModelNumbersError(
            f"{what} came out as NaN or infinity: the weights are damaged or overflow this "
            "precision; run `yomu models verify`, or build with --precision fp32"
        )
    return values
