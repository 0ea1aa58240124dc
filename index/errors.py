"""Errors of the page index.

PageIndexError
"""


class PageIndexError(Exception):
    """Base of every error the page index raises for a cause outside our code."""
