"""Errors of the model half.

ModelError
├── ModelFilesError      a model or checkpoint folder lacks a file, or one is damaged
├── ModelShapeError      a tensor is missing, unused or of another shape than the config says
├── ModelBuildError      the conversion cannot be done as asked
├── ModelDownloadError   the hub could not be reached or refused
├── ModelNumbersError    the model produced NaN or infinity
├── ModelMemoryError     the device has too little memory for this run
├── DeviceError          the requested device is not available in this onnxruntime
├── ImageError           an image or video cannot be used
└── PromptError          a prompt is empty, or longer than the model's context
"""


class ModelError(Exception):
    """Base of every error the model half raises for a cause outside our code."""


class ModelFilesError(ModelError):
    """A model or checkpoint folder lacks a file or one is damaged; copy or build it again."""


class ModelShapeError(ModelError):
    """A tensor is missing, unused or misshapen: folder and config do not belong together."""


class ModelBuildError(ModelError):
    """The conversion cannot be done as asked; the message says which option to change."""


class ModelDownloadError(ModelError):
    """The hub could not be reached or refused; build from a folder copied by hand instead."""


class ModelNumbersError(ModelError):
    """The model produced NaN or infinity; its weights are damaged or overflow this precision."""


class ModelMemoryError(ModelError):
    """The device has too little memory for this run; give fewer or smaller pages."""


class DeviceError(ModelError):
    """The requested device is not available here; use another, or install its onnxruntime."""


class ImageError(ModelError):
    """An image or video cannot be used; the message says which and why."""


class PromptError(ModelError):
    """A prompt is empty or longer than the model's context; shorten it or give fewer pages."""
