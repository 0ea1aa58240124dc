"""The folder in which Gradio keeps what people upload, until the page has taken it.

Gradio names it by an environment variable and never empties it. Here it is emptied file by file as
they are taken, has a largest size, and goes when the server ends.
"""

import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

VARIABLE = "GRADIO_TEMP_DIR"
FORGOTTEN_S = 3600.0  # an upload that no page has taken by then is nobody's
KEPT_UPLOADS = 4  # of the largest size that may lie there at once


class UploadFolder:
    """Made at the start of a server, gone at its end."""

    def __init__(self, upload_bytes: int) -> None:
        """Make the folder, and have Gradio use it."""
        self.path = Path(tempfile.mkdtemp(prefix="yomu-page-")).resolve()
        self._most_bytes = KEPT_UPLOADS * upload_bytes
        os.environ[VARIABLE] = str(self.path)

    def has_room(self) -> bool:
        """Say whether another upload may come; deletes those that nobody has taken."""
        total = 0
        for file in self.path.rglob("*"):
            with suppress(OSError):  # gone in the meantime
                if not file.is_file():
                    continue
                if time.time() - file.stat().st_mtime > FORGOTTEN_S:
                    file.unlink()
                else:
                    total += file.stat().st_size
        return total < self._most_bytes

    def close(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.path, ignore_errors=True)


def discard(path: str) -> None:
    """Delete a file that has been taken, if it lies in Gradio's folder, and in no other place."""
    folder = os.environ.get(VARIABLE)
    file = Path(path).resolve()
    if folder and file.is_relative_to(Path(folder).resolve()):
        with suppress(OSError):  # another upload of the same bytes may have the same place
            file.unlink()
            file.parent.rmdir()
