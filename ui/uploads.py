"""Files that people send: checked before they are kept, under a name that cannot lead elsewhere."""

import itertools
import json
import os
import tempfile
import threading
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath

from rag.sources import READABLE_SUFFIXES
from ui.errors import NotAllowed, NotKept

MOST_NAME_BYTES = 180
MAGIC: dict[str, tuple[bytes, ...]] = {
    ".pdf": (b"%PDF-",),
    ".png": (b"\x89PNG\r\n\x1a\n",),
    ".jpg": (b"\xff\xd8\xff",),
    ".jpeg": (b"\xff\xd8\xff",),
    ".jfif": (b"\xff\xd8\xff",),
    ".gif": (b"GIF87a", b"GIF89a"),
    ".tif": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    ".tiff": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    ".bmp": (b"BM",),
    ".rtf": (b"{\\rtf",),
    ".pnm": (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"),
    ".ppm": (b"P3", b"P6"),
    ".pgm": (b"P2", b"P5"),
    ".pbm": (b"P1", b"P4"),
}
UNREAD = ".unread"  # in the library folder
_NAMING = threading.Lock()  # two files of one name at the same moment
ZIPPED, OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def safe_name(name: str) -> str:
    """Return the last part of a file name, without what hides, steers or leads elsewhere.

    Raises NotAllowed for a name with nothing left, or of a kind that is no document.
    """
    last = PurePosixPath(name.replace("\\", "/")).name
    shown = "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else "_"
        for char in unicodedata.normalize("NFC", last.encode("utf-8", "replace").decode())
    )
    cleaned = shown.strip().lstrip(".~").replace(":", "_")
    stem, suffix = os.path.splitext(cleaned)
    if not stem or suffix.lower() not in READABLE_SUFFIXES:
        raise NotAllowed("only PDF, image and Office files can be added")
    room = MOST_NAME_BYTES - len(suffix.encode())
    return stem.encode()[:room].decode("utf-8", "ignore") + suffix


def has_right_magic(suffix: str, head: bytes) -> bool:
    """Say whether the first bytes of a file are those of its kind."""
    suffix = suffix.lower()
    if suffix == ".pdf":
        return b"%PDF-" in head
    if suffix == ".webp":
        return head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    if suffix in (".avif", ".heic", ".heif"):
        return head[4:8] == b"ftyp"
    return head.startswith(MAGIC.get(suffix, (ZIPPED, OLE)))


def store(library: Path, name: str, content: Path | bytes, most_bytes: int) -> Path:
    """Keep a file in the library folder and return its path.

    Another file of that name stays: the new one becomes `name (2).pdf`, unless it is the same.
    Raises NotAllowed for a file that is too large, empty, or not what its name says, and NotKept
    where it cannot be written.
    """
    name = safe_name(name)
    try:
        return _store(library, name, content, most_bytes)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise NotKept(f"{name} could not be kept ({why}); make room and add it again") from error


def _store(library: Path, name: str, content: Path | bytes, most_bytes: int) -> Path:
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    if size > most_bytes:
        raise NotAllowed(f"{name} is larger than {most_bytes / 1e6:g} MB")
    if not size:
        raise NotAllowed(f"{name} is empty (0 bytes)")
    data = content if isinstance(content, bytes) else content.read_bytes()
    if not has_right_magic(Path(name).suffix, data[:1024]):
        raise NotAllowed(f"{name} is not what its name says; nothing was added")
    library.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=library, prefix=".upload-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        with _NAMING:
            path = _free(library, name, data)
            os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


class Unread:
    """Names of the uploads that were taken and are still to be read; kept in a file.

    So a server that was stopped, or killed, knows at its next start what it owes.
    """

    def __init__(self, library: Path) -> None:
        self._library, self._lock = library, threading.Lock()

    def paths(self) -> list[Path]:
        """Return those that are still there."""
        with self._lock:
            found = [self._library / name for name in self._names()]
        return [path for path in found if path.is_file()]

    def add(self, paths: Iterable[Path]) -> None:
        """Note what was taken."""
        self._change(lambda names: [*names, *(path.name for path in paths)])

    def remove(self, paths: Iterable[Path]) -> None:
        """Note what was read, or given up."""
        gone = {path.name for path in paths}
        self._change(lambda names: [name for name in names if name not in gone])

    def _names(self) -> list[str]:
        try:
            said = json.loads((self._library / UNREAD).read_text("utf-8"))
        except (OSError, ValueError):
            return []
        return [PurePosixPath(name).name for name in said if isinstance(name, str)]

    def _change(self, change: Callable[[list[str]], list[str]]) -> None:
        file = self._library / UNREAD
        with self._lock, suppress(OSError):  # on a full disk they are read, and not owed
            names = list(dict.fromkeys(change(self._names())))
            if not names:
                file.unlink(missing_ok=True)
                return
            written = file.with_name(f"{UNREAD}.new")
            written.write_text(json.dumps(names, ensure_ascii=False), "utf-8")
            os.replace(written, file)


def _free(library: Path, name: str, data: bytes) -> Path:
    """Return the first path that nothing else has: name, name (2) and so on."""
    stem, suffix = os.path.splitext(name)
    others = (f"{stem} ({n}){suffix}" for n in itertools.count(2))
    paths = (library / each for each in itertools.chain([name], others))
    return next(path for path in paths if not path.exists() or _holds(path, data))


def _holds(path: Path, data: bytes) -> bool:
    return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data
