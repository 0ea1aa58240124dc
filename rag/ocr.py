"""Text of pages that have none: Tesseract's command, where it is installed."""

import io
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Self

from PIL import Image

from rag.errors import DocumentError, OcrError

OCR_DPI = 300  # what Tesseract was trained for
OCR_MAX_PIXELS = 12_000_000  # A4 at 300 dpi is 8.7 million
PAGE_SECONDS = 300.0  # an A4 page takes 3 to 12 s on an idle core
# In this order, where installed: languages are tried per word, so each one costs time.
AUTO_LANGUAGES = ("eng", "jpn")
_CJK = r"[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]"
_SPACE_BETWEEN_CJK = re.compile(rf"(?<={_CJK})[ \t]+(?={_CJK})")


@dataclass(frozen=True)
class Tesseract:
    """An installed Tesseract and the languages it is to read."""

    command: str
    languages: str
    finds_orientation: bool

    @classmethod
    def find(cls, asked: str) -> Self | None:
        """Return what `--ocr` asks for: None for `off`, and for `auto` where it is not installed.

        Raises OcrError when languages were named and cannot be had.
        """
        if asked == "off":
            return None
        command = shutil.which("tesseract")
        if command is None:
            if asked == "auto":
                return None
            raise OcrError(f"--ocr {asked}: tesseract is not installed; install it or --ocr off")
        installed = _languages(command)
        if asked == "auto":
            chosen = [each for each in AUTO_LANGUAGES if each in installed]
            return cls(command, "+".join(chosen), "osd" in installed) if chosen else None
        missing = [each for each in asked.split("+") if each not in installed]
        if missing:
            raise OcrError(
                f"--ocr {asked}: tesseract has no {missing[0]!r}; it has "
                f"{', '.join(sorted(installed - {'osd'}))}"
            )
        return cls(command, asked, "osd" in installed)

    def read(self, image: Image.Image) -> str:
        """Return the text on a page image; DocumentError when Tesseract fails or takes too long."""
        buffer = io.BytesIO()
        image.convert("L").save(buffer, "PNG", compress_level=1)
        # 1: find the orientation of the page first; 3: take it as upright
        mode = "1" if self.finds_orientation else "3"
        command = [self.command, "-", "-", "-l", self.languages, "--psm", mode, "--dpi", "300"]
        if nice := shutil.which("nice"):
            command = [nice, "-n", "10", *command]
        try:
            done = subprocess.run(
                command,
                input=buffer.getvalue(),
                capture_output=True,
                timeout=PAGE_SECONDS,
                # one thread each: several run side by side, and the encoder keeps its cores
                env={**os.environ, "OMP_THREAD_LIMIT": "1"},
            )
        except subprocess.TimeoutExpired:
            raise DocumentError(f"Tesseract took longer than {PAGE_SECONDS:g} s") from None
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise DocumentError(f"Tesseract failed: {said[-1] if said else done.returncode}")
        return tidy(done.stdout.decode("utf-8", "replace"))


def tidy(text: str) -> str:
    """Drop empty lines and the spaces Tesseract puts between Japanese characters."""
    lines = (_SPACE_BETWEEN_CJK.sub("", line).strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def _languages(command: str) -> set[str]:
    done = subprocess.run([command, "--list-langs"], capture_output=True, text=True, timeout=30)
    return set(done.stdout.split("\n")[1:]) - {""}
