"""Errors a user may meet, and the tuple of all of them.

YomuError
└── UsageError      an option or argument that cannot be meant; say it differently
"""

from index.errors import PageIndexError
from models.errors import ModelError


class YomuError(Exception):
    """Base of every error that `rag` raises for a cause outside our code."""


class UsageError(YomuError):
    """An option or argument that cannot be meant; the message says what to write instead."""


# The command line and the page catch exactly these and show one line; anything else is our bug.
ExpectedError = (YomuError, ModelError, PageIndexError)
