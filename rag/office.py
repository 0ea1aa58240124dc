"""Office files to PDF through LibreOffice, where it is installed."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Self

from index.text_layer import is_unicode
from rag.errors import DocumentError

CONVERT_SECONDS = 180.0
COMMANDS = ("soffice", "libreoffice")


class OfficeConverter:
    """Turns Office files into PDFs in a temporary folder that goes with it."""

    def __init__(self) -> None:
        self._command = next(filter(None, map(shutil.which, COMMANDS)), None)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._made: dict[str, Path] = {}
        self._lock = threading.Lock()  # one LibreOffice at a time: they share a profile

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Delete the PDFs."""
        if self._folder is not None:
            self._folder.cleanup()

    def to_pdf(self, path: Path, key: str) -> Path:
        """Return the PDF of an Office file, converted once per `key` (its sha256).

        Raises DocumentError: no LibreOffice, or it failed, or took over three minutes.
        """
        with self._lock:
            if key not in self._made:
                self._made[key] = self._convert(path, key)
            return self._made[key]

    def require(self, path: Path) -> str:
        """Return the command that converts an Office file. Raises DocumentError: none, or not it.

        LibreOffice cannot be given a path that is not UTF-8.
        """
        if not is_unicode(str(path)):
            raise DocumentError(
                "is an Office file under a path that is not UTF-8, which LibreOffice cannot open: "
                "rename it, or save it as PDF"
            )
        if self._command is None:
            raise DocumentError(
                f"is an Office file ({path.suffix}): install LibreOffice, or save it as PDF"
            )
        return self._command

    def _convert(self, path: Path, key: str) -> Path:
        command = self.require(path)
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="yomu-office-")
        out = Path(self._folder.name, key)
        # A profile of its own: a LibreOffice that is open on the desktop would refuse the work.
        profile = Path(self._folder.name, "profile").as_uri()
        process = subprocess.Popen(
            [command, f"-env:UserInstallation={profile}", "--headless", "--norestore",
             "--convert-to", "pdf", "--outdir", str(out), str(path)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(CONVERT_SECONDS)
        except subprocess.TimeoutExpired:
            raise DocumentError(
                f"LibreOffice took longer than {CONVERT_SECONDS:g} s and was stopped"
            ) from None
        finally:
            # soffice is a script around soffice.bin: end the whole session, whatever happened.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        made = out / f"{path.stem}.pdf"
        if not made.exists():
            raise DocumentError(f"LibreOffice could not convert it (exit {process.returncode})")
        return made
