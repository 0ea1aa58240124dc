"""Which documents a person means by what was typed: a name, a part of one, a folder, a path."""

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from index.catalogue import as_named
from index.records import DocumentRecord, Filters
from rag.errors import UsageError
from rag.house import House
from rag.sources import path_of

NEAR_NAMES = 3
LEAST_LIKENESS = 0.7  # endings alone, as of a.pdf and b.pdf, are alike


def documents_meant(house: House, typed: str, *, to_remove: bool = False) -> tuple[str, ...]:
    """Names of the documents that are meant, by the first of these that fits any of them.

    Their name or a glob over it; a folder of their names; the last part of their name; the file or
    the folder they were read from, which comes first for a path; a part of their name in whatever
    case, from the beginning of a word. Only the first two are ground to remove anything.
    Raises UsageError, with names that are nearly so.
    """
    found, _ = house.documents(typed)
    if found:
        return tuple(each.name for each in found)
    records, _ = house.documents()
    names = [each.name for each in records]
    spelled = as_named(typed)
    meant = in_folder(names, spelled)
    same = tuple(name for name in names if name.endswith(f"/{spelled.lstrip('/')}"))
    if to_remove and not meant and same:
        raise UsageError(f"no document is named {typed!r}; near it: {', '.join(same)}")
    if not (to_remove or meant):
        is_path = typed.startswith((".", "~", os.sep)) or os.path.isabs(typed)
        read = read_from(records, typed)
        meant = (is_path and read) or same or read or _with_part(names, spelled)
    if not meant:
        raise UsageError(f"no document matches {typed!r}; {_near(spelled, names)}")
    return meant


def in_folder(names: Iterable[str], folder: str) -> tuple[str, ...]:
    """Names below a folder, as names have it."""
    return tuple(name for name in names if name.startswith(f"{folder.strip('/')}/"))


def read_from(records: Iterable[DocumentRecord], path: str) -> tuple[str, ...]:
    """Names of the documents that were read from a file, or from anywhere below a folder."""
    place = Path(os.path.abspath(Path(path).expanduser()))
    places = {place, Path(os.path.realpath(place))}  # /tmp is /private/tmp on macOS
    return tuple(
        each.name
        for each in records
        if any(path_of(each.source).is_relative_to(folder) for folder in places)
    )


def filters_meant(house: House, filters: Filters) -> Filters:
    """Return filters by what is meant where a document or a folder is no name as it was typed.

    Raises UsageError where that is no document.
    """
    names: set[str] | None = None
    document, folder = filters.document, filters.folder
    if document is not None and not house.names(Filters(document=document)):
        names, document = set(documents_meant(house, document)), None
    if folder is not None and not house.names(Filters(folder=folder)):
        records, _ = house.documents()
        below = set(read_from(records, folder))
        if not below:
            raise UsageError(f"no document is in {folder!r}; `yomu list` shows the names")
        names, folder = below if names is None else names & below, None
    chosen = None if names is None else tuple(sorted(names))
    return Filters(document, folder, filters.date_from, filters.date_to, filters.language, chosen)


def _with_part(names: Iterable[str], part: str) -> tuple[str, ...]:
    pattern = re.compile(rf"(?<![a-z0-9]){re.escape(part.casefold())}")
    if not part[:1].isascii():  # words of Japanese have no beginning that could be seen
        pattern = re.compile(re.escape(part.casefold()))
    return tuple(name for name in names if pattern.search(name.casefold()))


def _near(typed: str, names: Sequence[str]) -> str:
    """Say which names are nearly what was typed, or how to see them."""
    forms = {each.casefold(): name for name in names for each in (name.rpartition("/")[2], name)}
    like = difflib.get_close_matches(typed.casefold(), forms, NEAR_NAMES, LEAST_LIKENESS)
    near = [forms[each] for each in like] or _with_part(names, typed)[:NEAR_NAMES]
    if not near:
        return "`yomu list` shows the names"
    return f"near it: {', '.join(dict.fromkeys(near))}"
