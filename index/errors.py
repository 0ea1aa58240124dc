"""Errors of the page index.

PageIndexError
├── IndexMissing     there is no index in the folder
├── IndexMismatch    the index was made with another model, setting or format version
├── IndexCorrupt     a file of the index is damaged, truncated or gone
├── IndexLocked      another process is writing to the index
├── IndexReadOnly    a change was asked of an index that was opened for reading
├── IndexFull        the disk is full or refused a write; nothing committed was lost
├── TooManyFiles     the process may open no more files; the index itself is as it was
├── DocumentUnknown  no document, or no page of it, has this name
├── ShapeMismatch    vectors of another width, or an empty or non-finite multi-vector
└── FilterError      a filter or an option of the search cannot be meant
"""


class PageIndexError(Exception):
    """Base of every error the page index raises for a cause outside our code."""


class IndexMissing(PageIndexError):
    """There is no index in the folder; make one with `yomu ingest`."""


class IndexMismatch(PageIndexError):
    """The index was made with another model, setting or format version.

    The message names each difference; use the old setting or build a new index.
    """


class IndexCorrupt(PageIndexError):
    """A file of the index is damaged, truncated or gone; `yomu verify` says what can be mended."""


class IndexLocked(PageIndexError):
    """Another process is writing to the index; wait for it to finish, or stop it."""


class IndexReadOnly(PageIndexError):
    """A change was asked of an index that was opened for reading only."""


class IndexFull(PageIndexError):
    """The disk refused a write; free some space and run again: what was committed is kept."""


class TooManyFiles(PageIndexError):
    """The process, or the machine, may open no more files; raise the limit and run again."""


class DocumentUnknown(PageIndexError):
    """No document, or no page of it, has this name; `yomu list` shows the names."""


class ShapeMismatch(PageIndexError):
    """Vectors have another width than the index, or a multi-vector is empty or not finite."""


class FilterError(PageIndexError):
    """A filter or an option of the search cannot be meant; the message says what to write."""
