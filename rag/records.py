"""What lies below `rag` and is shown above it, so that `ui` imports nothing but `rag`."""

from index.errors import (
    DocumentUnknown,
    FilterError,
    IndexFull,
    IndexLocked,
    IndexMismatch,
    IndexMissing,
    PageIndexError,
)
from index.records import DocumentRecord, Failure, Filters, Floats, PageHit, PageRecord
from models.errors import ModelError, PromptError
from models.session import Cancellation

__all__ = [
    "Cancellation",
    "DocumentRecord",
    "DocumentUnknown",
    "Failure",
    "FilterError",
    "Filters",
    "Floats",
    "IndexFull",
    "IndexLocked",
    "IndexMismatch",
    "IndexMissing",
    "ModelError",
    "PageHit",
    "PageIndexError",
    "PageRecord",
    "PromptError",
]
