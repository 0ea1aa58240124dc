"""Errors a user may meet, and the tuple of all of them.

YomuError
├── UsageError      an option or argument that cannot be meant; say it differently
├── DocumentError   a file or one of its pages cannot be read
└── OcrError        Tesseract is not there, lacks a language, or failed on a page
"""

from index.errors import PageIndexError
from models.errors import ModelError


class YomuError(Exception):
    """Base of every error that `rag` raises for a cause outside our code."""


class UsageError(YomuError):
    """An option or argument that cannot be meant; the message says what to write instead."""


class DocumentError(YomuError):
    """A file or a page cannot be read; the message is the reason, without the file's name.

    It is recorded in the index and the next ingest tries again: mend or remove the file.
    """


class OcrError(YomuError):
    """Tesseract is missing, lacks a language or failed; install it or use `--ocr off`."""


# The command line and the page catch exactly these and show one line; anything else is our bug.
ExpectedError = (YomuError, ModelError, PageIndexError)
