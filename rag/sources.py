"""Files to read: what lies below the given paths, under which names, and what was left out."""

import hashlib
import os
import re
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from urllib.parse import unquote_to_bytes

from index.text_layer import is_unicode
from rag.errors import DocumentError, UsageError
from rag.image_document import is_image

IMAGE_SUFFIXES = frozenset(
    ".png .jpg .jpeg .jfif .tif .tiff .webp .bmp .gif .pnm .ppm .pgm .pbm .avif .heic .heif".split()
)
OFFICE_SUFFIXES = frozenset(
    ".doc .docx .odt .rtf .xls .xlsx .ods .ppt .pptx .odp .odg .vsd .vsdx .pub".split()
)
READABLE_SUFFIXES = IMAGE_SUFFIXES | OFFICE_SUFFIXES | {".pdf"}
NUMBER = re.compile(r" \(\d+\)(?=(\.[^./]*)?$)")  # that tells names apart
HALF_WIDTH = re.compile(r"[\uff61-\uff9f]")
URI = "file://"
OF_INDEX = re.compile(
    r"index\.db(-\w+)?|codebook-\d+\.faiss|writer\.lock|segments/[0-9a-f]{24}/[^/]+"
    r"|images/[0-9a-f]{2}/[0-9a-f]{64}\.webp"
)
LOOK_SECONDS = 5.0  # in which drives answer that have to wake up
LOOKING = "look-for-file"  # name of a thread that does
LOOK_THREADS = 32  # at once; a dead drive takes one for each of its files that comes first
BAD_BYTE = re.compile(r"[\udc80-\udcff]")  # as "surrogateescape" has it


@dataclass(frozen=True)
class Source:
    """A file to read and the name its document goes by: the path below its folder, with `/`."""

    name: str
    path: Path

    @property
    def is_office(self) -> bool:
        """Say whether LibreOffice has to turn it into a PDF first."""
        return self.path.suffix.lower() in OFFICE_SUFFIXES


@dataclass(frozen=True)
class Known:
    """What the index has under a name: the file it was read from and what that held.

    sha256 is None where nothing is stored of it.
    """

    path: Path
    sha256: str | None = None
    size_bytes: int = 0


@dataclass(frozen=True)
class Discovery:
    """What lies below the given paths.

    skipped   suffix -> number of files that are no documents
    folders   the folders that were walked, absolute
    unlisted  name of a folder below them -> why it could not be looked into
    links     names of links to folders, which are not followed: they may lead anywhere, or round
    """

    sources: tuple[Source, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()
    unlisted: Mapping[str, str] = field(default_factory=dict)
    links: tuple[str, ...] = ()


def discover(paths: Iterable[Path], known: Mapping[str, Known], ignore: Path) -> Discovery:
    """Find the documents of files and folders, recursively, in a stable order.

    known   document name -> what the index has of it; keeps names stable
    ignore  the index: left out as a whole where it lies inside, its own files where it is the
            folder that is read or one above
    Raises UsageError for a path that does not exist, and if all that is there are files that were
    named and are no documents: among others, these are listed as failed.
    """
    names = _Names(known)
    sources: dict[Path, Source] = {}
    skipped: Counter[str] = Counter()
    folders: list[Path] = []
    unlisted: dict[str, str] = {}
    links: list[str] = []
    for path in paths:
        root = path.resolve()
        try:
            root.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(f"{path}: no such file or folder") from None
        except OSError as error:
            raise UsageError(f"{path}: cannot be looked at ({error.strerror})") from None
        if root.is_dir():
            folders.append(root)
        base = root if root.is_dir() else root.parent
        for file in _files(root, ignore.resolve(), unlisted, links):
            if root.is_dir() and not _is_document(file):
                skipped[file.suffix.lower() or "(no suffix)"] += 1
            elif file not in sources:
                sources[file] = Source(names.choose(file, base), file)
    found = tuple(sources.values())
    if found and not any(map(_may_be_document, sources)):
        named = ", ".join(map(str, paths))
        raise UsageError(f"nothing to read in {named}: no PDF, image or Office file")
    return Discovery(found, dict(skipped), tuple(folders), unlisted, tuple(links))


def storable(path: Path) -> str:
    """Return an absolute path as text: as it is, or as a file: URI where it is not Unicode."""
    return str(path) if is_unicode(str(path)) else path.as_uri()


def path_of(stored: str) -> Path:
    """Return the path that `storable` was given; no absolute path begins as a URI does."""
    if stored.startswith(URI):
        return Path(os.fsdecode(unquote_to_bytes(stored.removeprefix(URI))))
    return Path(stored)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file; DocumentError says why it cannot be read."""
    try:
        if not path.is_file() and path.exists():  # opening a pipe would wait for ever
            raise DocumentError("is no regular file")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DocumentError(f"cannot be read: {error.strerror}") from error


class _Names:
    """Gives every file its own name, the same one at every run."""

    def __init__(self, known: Mapping[str, Known]) -> None:
        self._known = known
        self._name_of = {each.path: name for name, each in known.items()}
        self._name_of_text = {_text(path): name for path, name in self._name_of.items()}
        self._taken: dict[str, Path] = {}
        self._moved: dict[tuple[Path, Path], tuple[frozenset[Path], int]] = {}

    def choose(self, file: Path, base: Path) -> str:
        """Return the path below `base`; where another file has that name, more of the path.

        Where that says the same of both, as of two encodings of one name, a number is added.
        """
        free = (
            name
            for name in self._candidates(file, base)
            if name not in self._taken and not self._is_other(name, file)
        )
        name = next(free)
        self._taken[name] = file
        return name

    def _candidates(self, file: Path, base: Path) -> Iterator[str]:
        """Yield names for a file without end, the one it has in the index first."""
        names = [_text(file.relative_to(folder)) for folder in (base, *base.parents)]
        before = self._name_of.get(file) or self._name_of_text.get(_text(file))
        if before is not None and (before in names or NUMBER.sub("", before) in names):
            yield before
        for name in names:
            yield name
            known = self._known.get(name)
            holder = self._taken.get(name) or (known.path if known else None)
            if holder is not None and holder != file and _text(holder) == _text(file):
                break
        stem, suffix = os.path.splitext(names[0])
        yield from (f"{stem} ({n}){suffix}" for n in count(2))

    def _is_other(self, name: str, file: Path) -> bool:
        """Say whether the index knows this name as another document.

        Its file may be away for the moment, with the disk it lies on: what is stored of it goes to
        no file but itself, at another place.
        """
        known = self._known.get(name)
        if known is None or known.path == file:
            return False
        if os.path.exists(known.path):
            return not _is_respelt(known.path, file)
        if known.sha256 is None or _text(known.path) == _text(file):
            return False
        return not (self._has_moved(known.path, name, file) or _holds(file, known))

    def _has_moved(self, known: Path, name: str, file: Path) -> bool:
        """Say whether a file came along with the folder that it was read from.

        That is so if most of the others that were read from there are at the new place: as large as
        they were, since folders that are filled every month alike have the same names, too.
        """
        depth = name.count("/")
        if len(known.parents) <= depth or len(file.parents) <= depth:
            return False
        before, now = known.parents[depth], file.parents[depth]
        if _text(known.relative_to(before)) != _text(file.relative_to(now)):
            return False
        if (before, now) not in self._moved:
            lay_there = {
                each.path: each
                for each in self._known.values()
                if each.sha256 is not None and before in each.path.parents
            }
            found = (path for path, each in lay_there.items() if _came_along(each, before, now))
            self._moved[before, now] = frozenset(found), len(lay_there)
        there, n_before = self._moved[before, now]
        return 2 * (len(there) - (known in there)) > n_before - 1  # no copy a file: 100,000 squared


def _came_along(known: Known, before: Path, now: Path) -> bool:
    """Say whether a file of one folder is in another, by its size."""
    try:
        return (now / known.path.relative_to(before)).stat().st_size == known.size_bytes
    except OSError:
        return False


def _holds(file: Path, known: Known) -> bool:
    """Say whether a file has the bytes that the index knows."""
    try:
        return file.stat().st_size == known.size_bytes and file_sha256(file) == known.sha256
    except (OSError, DocumentError):
        return False


def _is_respelt(known: Path, file: Path) -> bool:
    """Say whether two paths are one file, composed in one and decomposed in the other (macOS)."""
    try:
        return _text(known) == _text(file) and known.samefile(file)
    except OSError:
        return False


def _text(path: Path) -> str:
    """Path with `/` in composed form (macOS decomposes), always printable and encodable."""
    decoded = "/".join(map(_decoded, os.fsencode(path.as_posix()).split(b"/")))
    return unicodedata.normalize("NFC", "".join(map(_shown, decoded)))


def _decoded(name: bytes) -> str:
    """Name of a file or folder; what old Japanese archives left is no UTF-8 and read as they meant.

    Shift JIS takes most bytes of EUC-JP for half-width katakana: the reading with fewer is right.
    Bytes that are no text in either are shown as %XX.
    """
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        pass
    readings = []
    for encoding in ("cp932", "euc_jp"):
        with suppress(UnicodeDecodeError):
            readings.append(name.decode(encoding))
    printable = [each for each in readings if all(map(_is_printable, each))]
    if printable:
        return min(printable, key=lambda each: len(HALF_WIDTH.findall(each)))
    escaped = name.decode("utf-8", "surrogateescape")
    return BAD_BYTE.sub(lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", escaped)


def _shown(char: str) -> str:
    """Return a character of a name, U+FFFD for what steers terminals or writing direction."""
    return char if _is_printable(char) else "\ufffd"


def _is_printable(char: str) -> bool:
    # a space as U+3000 is refused by isprintable()
    return char.isprintable() or unicodedata.category(char) == "Zs"


def is_gone(path: Path) -> bool:
    """Say whether a file is not there, rather than behind a folder that cannot be looked into."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def which_gone(paths: Iterable[Path], seconds: float = LOOK_SECONDS) -> dict[Path, bool]:
    """Say of paths whether they are gone; those that nothing was heard of in time are left out.

    A network drive that is dead answers after minutes or never. So threads ask, which nobody waits
    for, not even at the end of the program. Those of earlier calls that still wait count among
    LOOK_THREADS, so that a server does not gather them.
    """
    found: dict[Path, bool] = {}
    waiting: SimpleQueue[Path] = SimpleQueue()
    for path in set(paths):
        waiting.put(path)
    end = time.monotonic() + seconds

    def look() -> None:
        with suppress(Empty):
            while time.monotonic() < end:
                path = waiting.get_nowait()
                found[path] = is_gone(path)

    n_free = LOOK_THREADS - sum(thread.name == LOOKING for thread in threading.enumerate())
    n_threads = max(0, min(n_free, waiting.qsize()))
    threads = [threading.Thread(target=look, name=LOOKING, daemon=True) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return dict(found)


def _files(root: Path, ignore: Path, unlisted: dict[str, str], links: list[str]) -> Iterator[Path]:
    """Yield the files below a folder; put into the last two what Discovery says of folders."""
    if not root.is_dir():
        yield root
        return

    def below(path: str | Path) -> str:
        return f"{_text(Path(path).relative_to(root.parent))}/"

    def cannot_list(error: OSError) -> None:
        name = below(error.filename)
        if name in unlisted:  # of another folder that was given
            name = _text(Path(error.filename))
        unlisted[name] = f"folder cannot be looked into: {error.strerror}"

    is_in_index = root.is_relative_to(ignore)
    for folder, folders, files in os.walk(root, onerror=cannot_list):
        folders[:] = sorted(
            each
            for each in folders
            if not each.startswith(".") and Path(folder, each) != ignore and each != "__MACOSX"
        )
        links += [below(Path(folder, each)) for each in folders if Path(folder, each).is_symlink()]
        # Dot files and Office's lock files (~$name.docx) are nobody's documents.
        for name in sorted(each for each in files if not each.startswith((".", "~$"))):
            file = Path(folder, name)
            if not (is_in_index and _is_of_index(file, ignore)):
                yield file


def _is_of_index(file: Path, index: Path) -> bool:
    """Say whether a file is one of the index's own (index/store.py), and no document beside it."""
    return OF_INDEX.fullmatch(file.relative_to(index).as_posix()) is not None


def _is_document(file: Path) -> bool:
    suffix = file.suffix.lower()
    return suffix in READABLE_SUFFIXES or (not suffix and _holds_pdf(file))


def _may_be_document(file: Path) -> bool:
    """Say whether a file that was named is worth an index, whatever its suffix."""
    return (
        file.suffix.lower() in READABLE_SUFFIXES
        or _holds_pdf(file)
        or (file.is_file() and is_image(file))
    )


def _holds_pdf(file: Path) -> bool:
    try:
        if not file.is_file():
            return False
        with file.open("rb") as opened:
            return b"%PDF-" in opened.read(1024)
    except OSError:
        return False
