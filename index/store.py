"""Files that are whole or not there: fsync, rename, checksums, one writer.

Layout of an index folder:

    index.db           documents, pages, texts, segments, settings (index/database.py)
    codebook-N.faiss   centroids, one file a version (index/candidates.py)
    segments/ID/       vectors of some hundred to some hundred thousand pages (index/segment.py)
    images/xx/SHA.webp page thumbnails by content hash
    writer.lock        held by the one process that writes
"""

import errno
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from index.errors import IndexCorrupt, IndexFull, IndexLocked, TooManyFiles

CHUNK = 1 << 20
TEMPORARY = ".tmp-"
OPEN_FILES = 65_536  # of 20,000 segments; programs started by us may try to close each
NO_MORE_FILES = (errno.EMFILE, errno.ENFILE)
IMAGE_NAME = re.compile(r"[0-9a-f]{64}\.webp")
log = logging.getLogger(__name__)


def allow_open_files() -> None:
    """Let the process open as many files as it may: every segment keeps three open."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)
    if now != resource.RLIM_INFINITY and now < wanted:
        with suppress(ValueError, OSError):  # the system may know a lower one than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def no_more_files(path: Path, reason: str) -> str:
    """Say that a file is as it was, and what to do."""
    return (
        f"{path}: {reason}; nothing is damaged: allow more open files (`ulimit -n 4096`) and run "
        "the same command again"
    )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn a refused read into IndexCorrupt, or TooManyFiles, which says nothing of the file."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_MORE_FILES:
            raise TooManyFiles(no_more_files(path, str(error.strerror))) from error
        raise IndexCorrupt(damaged(path, str(error.strerror or error))) from error


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a refused write into IndexFull: nothing that was committed is lost by it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            space = shutil.disk_usage(folder).free if folder.exists() else 0
            what, advice = f"disk full, {space >> 20} MiB free", "make room"
        else:
            what, advice = str(error.strerror or error), "mend that, or name another --index"
        raise IndexFull(
            f"{folder}: could not write ({what}); everything committed before is safe: {advice}, "
            "and run the same command again"
        ) from error


def fsync_file(path: Path) -> None:
    """Have the disk confirm a file's bytes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


fsync_folder = fsync_file  # a folder's names are confirmed the same way (POSIX)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, so that a power cut takes none of their names away."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    with suppress(PermissionError):  # the one above may be written but not read
        fsync_folder(path.parent)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file so that its name, once there, always means the whole content."""
    make_folder(path.parent)
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    temporary.write_bytes(data)
    fsync_file(temporary)
    temporary.rename(path)
    fsync_folder(path.parent)


def sweep(path: Path) -> None:
    """Delete a leftover; one that cannot be deleted stays, for it harms nobody."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        log.warning("%s: a leftover stays: %s", path, error.strerror)


def sha256_of(path: Path) -> str:
    """Digest of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_checked(path: Path, sha256: str) -> bytes:
    """Read a file whole; raises IndexCorrupt unless it is what was written."""
    with reading(path):
        data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise IndexCorrupt(damaged(path, "checksum differs"))
    return data


def damaged(path: Path, reason: str) -> str:
    """Say what is wrong with a file and what to do."""
    return f"{path}: {reason}; run `yomu verify`, which says what to read again"


def lock_for_writing(folder: Path, wait_s: float) -> FileLock:
    """Take the writer's lock, waiting at most wait_s seconds (-1: for ever).

    The system gives the lock back when the process ends, however it ends.
    """
    lock = FileLock(folder / "writer.lock")
    try:
        lock.acquire(timeout=wait_s)
    except Timeout as error:
        if not (folder / "writer.lock").exists():  # as in /proc, where no file can be made
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from error
        raise IndexLocked(
            f"{folder}: another process is writing to this index; wait for it (--wait) or stop it"
        ) from error
    return lock


class Thumbnails:
    """Page images by content hash, in folders of at most some thousand files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "images"

    def path(self, sha256: str) -> Path:
        """Where the image with this digest lies."""
        return self._folder / sha256[:2] / f"{sha256}.webp"

    def add(self, image: bytes) -> str:
        """Store an image durably, once; returns its digest."""
        sha256 = hashlib.sha256(image).hexdigest()
        path = self.path(sha256)
        if not path.exists():
            write_durably(path, image)
        return sha256

    def remove(self, sha256: str) -> None:
        """Delete an image nobody refers to any more."""
        self.path(sha256).unlink(missing_ok=True)

    def sweep(self, used: set[str]) -> None:
        """Delete images that are not used, and what a killed writer left half-written."""
        for path in self._folder.glob("*/*"):
            is_ours = IMAGE_NAME.fullmatch(path.name) or path.name.startswith(TEMPORARY)
            if is_ours and path.stem not in used:
                sweep(path)
