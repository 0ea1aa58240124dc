"""Documents to pages: a PDF or image file becomes page images with their text layer.

Everything here runs inside the render worker (`rag/render_worker.py`): MuPDF and Pillow meet files
that strangers made, and native code cannot be interrupted from within. Other modules use
`rag/reader.py`, which looks the same and survives what happens here.
"""

import math
import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from index.text_layer import is_unicode
from rag.chart_columns import chart_columns
from rag.errors import DocumentError
from rag.image_document import ImageDocument, is_image
from rag.page_content import (
    MIN_SIDE_PX,
    Box,
    PageContent,
    RasterSize,
    bounded_aspect,
    is_blank,
    printable,
)
from rag.rows import PlacedLine, columns_of, join_rows, most_together
from rag.text_quality import judge

# pymupdf loads an onnxruntime layout model when this module is importable: 0.9 s and 350 MB of
# address space for something a page raster never uses (measured, pymupdf 2.0).
sys.modules.setdefault("pymupdf.layout", None)  # type: ignore[arg-type]
import pymupdf  # noqa: E402

pymupdf.TOOLS.mupdf_display_errors(False)
pymupdf.TOOLS.mupdf_display_warnings(False)

POINTS_PER_INCH = 72
WHITE = (255, 255, 255)
# What leaves a mark when it is drawn; a filled path alone is often just a white background.
VISIBLE = {"fill-text", "stroke-text", "stroke-path", "fill-image", "fill-imgmask", "fill-shade"}
# Slides that are one big picture have a footer for a text layer: 44 of 44 such pages in the
# development documents have under 90 characters, ordinary pages with a photograph over 250.
THIN_TEXT = 250
MISSING_GLYPHS_SHARE = 0.1
PROGRAM_TITLE = re.compile(  # what programs write there by themselves
    r"^(Microsoft (Word|Excel|PowerPoint) - |PowerPoint (Presentation|プレゼンテーション)$"
    r"|untitled$|<[0-9A-F]+>$)",
    re.IGNORECASE,
)
NO_DOCUMENTS = (  # MuPDF would open them as something that is no PDF, or say little of them
    (re.compile(rb"<(html|head|body)\b", re.IGNORECASE), "a web page"),
    (re.compile(rb"<svg\b", re.IGNORECASE), "an SVG drawing"),
    (re.compile(rb"PK\x03\x04"), "a ZIP archive or an Office file"),
    (re.compile(rb"\xd0\xcf\x11\xe0"), "an Office file of before 2007"),
)
MOST_BOXES = 200
SOFT_HYPHEN = "\u00ad"
JOINERS = "\u200c\u200d"
KANA = re.compile(r"[\u3041-\u3096\u30a1-\u30fa\u30fc]+$")
READING_SIZE = 0.6  # times the height of what it is the reading of, at most
MOST_AROUND = 3  # lines before and after a reading, of which one has its word
WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uff66-\uff9d]")  # scripts without spaces


class OpenDocument(Protocol):
    """A document held open by the worker."""

    n_pages: int
    title: str  # as the file itself has it; "" for none

    def read(self, number: int, size: RasterSize) -> PageContent:
        """Return page `number` (1-based) drawn at `size`; DocumentError says why it cannot be."""

    def find(self, number: int, words: Sequence[str]) -> list[Box]:
        """Return where page `number` has these words in its text layer."""

    def rows(self, number: int) -> list[str]:
        """Return the text layer of page `number` as rows, cells at one height together."""

    def close(self) -> None:
        """Release the file."""


def open_document(path: Path, passwords: Sequence[str] = ()) -> OpenDocument:
    """Open a PDF or image by its content, not its name; DocumentError says why it cannot be."""
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise DocumentError(f"cannot be read: {error.strerror}") from error
    if not head:
        raise DocumentError("is empty (0 bytes)")
    if b"%PDF-" in head:
        return PdfDocument(path, passwords)
    start = _without_prologue(head)
    for pattern, what in NO_DOCUMENTS:
        if pattern.match(start):
            raise DocumentError(
                f"is no PDF but {what}: save it as a PDF, or give it its own ending"
            )
    if path.suffix.lower() == ".pdf" and not is_image(path):
        return PdfDocument(path, passwords)  # MuPDF mends some that lost their first bytes
    return ImageDocument(path)


def _without_prologue(head: bytes) -> bytes:
    """Return what follows an XML declaration, comments and a document type."""
    head = head.lstrip()
    for begin, end in ((b"<?", b"?>"), (b"<!--", b"-->"), (b"<!", b">")):
        if head.startswith(begin):
            _, _, rest = head.partition(end)
            return _without_prologue(rest)
    return head


def read_pages(
    path: Path, size: RasterSize, passwords: Sequence[str] = ()
) -> Iterator[PageContent]:
    """Yield every page of a file, in this process; DocumentError where one cannot be read."""
    document = open_document(path, passwords)
    try:
        for number in range(1, document.n_pages + 1):
            yield document.read(number, size)
    finally:
        document.close()


def raster_zoom(width: float, height: float, size: RasterSize) -> float:
    """Pixels per point for a page box in points, clamped before anything is drawn.

    A page of 10 km by 10 km and one of 1 pt by 1 pt both come out at a sane size. A huge box is
    how a 600-byte file asks for 100 GB (PyMuPDF issue 675).
    """
    if not (0 < width < float("inf") and 0 < height < float("inf")):
        raise DocumentError(f"has an impossible page box ({width:g} x {height:g} pt)")
    zoom = max(size.dpi / POINTS_PER_INCH, MIN_SIDE_PX / min(width, height))
    by_pixels = math.sqrt(size.max_pixels / (width * height))
    return min(zoom, by_pixels, size.max_side_px / max(width, height))


class PdfDocument:
    """A PDF held open by MuPDF."""

    def __init__(self, path: Path, passwords: Sequence[str]) -> None:
        pymupdf.TOOLS.reset_mupdf_warnings()
        with _mupdf_errors("cannot be opened as a PDF"), _name_for_mupdf(path) as name:
            self._pdf = pymupdf.open(name, filetype="pdf")
        if not self._pdf.is_pdf:
            raise DocumentError("is not a PDF")
        self._unlock(passwords)
        with _mupdf_errors("has a page tree that cannot be read"):
            self.n_pages = int(self._pdf.page_count)
            self.title = _title(self._pdf)
        if self.n_pages == 0:
            raise DocumentError(f"has no pages{_because(_complaints())}")

    def read(self, number: int, size: RasterSize) -> PageContent:
        """Return page `number` (1-based), drawn with its annotations, form values and layers."""
        pymupdf.TOOLS.reset_mupdf_warnings()
        with _mupdf_errors("cannot be read"):
            page = self._pdf.load_page(number - 1)
            image = _draw(page, size)
            layer = _text_layer(page)
            notes = [*_missing_glyphs(page), *self._form_notes()]
            drawn = page.get_bboxlog()
        complaints = _complaints()
        if any(line.startswith("cannot encode character") for line in complaints):
            notes.append("some characters cannot be drawn (their font is not embedded)")
        blank = False
        if is_blank(image):
            has_content = _is_visible(drawn) or bool(layer.strip())
            blank = _is_truly_blank(image, has_content, complaints)
            notes.append("page is blank" if blank else "page is one flat colour")
        health = judge(layer)
        if health.state == "garbage":
            notes.append(f"text layer is garbage ({health.bad_share:.0%}), left out")
        state = health.state
        if state == "good" and len(health.text) < THIN_TEXT and _picture_share(page, drawn) > 0.25:
            state = "thin"
        return PageContent(number, image, health.text, state, blank, tuple(dict.fromkeys(notes)))

    def find(self, number: int, words: Sequence[str]) -> list[Box]:
        """Return where page `number` has these words: whole words, or runs of Japanese.

        A word that stands in several places counts where most of the others stand beside it.
        """
        wanted = {_bare(word) for word in words if word} - {""}
        with _mupdf_errors("cannot be searched"):
            page = self._pdf.load_page(number - 1)
            places = [
                (_bare(str(placed[4])), tuple(placed[:4]))
                for placed in page.get_text("words")
                if _bare(str(placed[4])) in wanted
            ]
            for word in sorted(wanted):
                if WIDE.search(word):
                    places += [(word, tuple(found)) for found in page.search_for(word)]
            boxes = [pymupdf.Rect(place) for place in most_together(places)]
            shown = [_share(page, box) for box in boxes[:MOST_BOXES]]
        return list(dict.fromkeys(shown))

    def rows(self, number: int) -> list[str]:
        """Return the lines of page `number`, cells at one height side by side.

        The columns of its charts, each a label and its figures, come last.
        """
        with _mupdf_errors("cannot be read"):
            page = self._pdf.load_page(number - 1)
            columns, others = chart_columns(_placed_lines(page))
            return join_rows(others) + columns

    def close(self) -> None:
        """Release the file, and what MuPDF keeps of it: up to 256 MB of decoded pictures."""
        self._pdf.close()
        pymupdf.TOOLS.store_shrink(100)

    def _unlock(self, passwords: Sequence[str]) -> None:
        if not self._pdf.needs_pass or any(self._pdf.authenticate(word) for word in passwords):
            return
        if passwords:
            n = len(passwords)
            tried = "the password given does not open" if n == 1 else f"none of {n} passwords opens"
            raise DocumentError(f"is encrypted and {tried} it")
        raise DocumentError("is encrypted: give its password by --password or --password-file")

    def _form_notes(self) -> list[str]:
        form = self._pdf.xref_get_key(self._pdf.pdf_catalog(), "AcroForm/XFA")
        return ["XFA form: only its static pages are drawn"] if form[0] != "null" else []


@contextmanager
def _name_for_mupdf(path: Path) -> Iterator[str]:
    """Yield a name to open a file by: MuPDF takes UTF-8 only, a descriptor serves for the rest."""
    if is_unicode(str(path)):
        yield str(path)
        return
    with path.open("rb") as file:
        yield f"/dev/fd/{file.fileno()}"


def _placed_lines(page: pymupdf.Page) -> list[PlacedLine]:
    """Return the lines of a page as it is shown, turned pages too."""
    found = []
    for block in page.get_text("dict", flags=pymupdf.TEXTFLAGS_TEXT)["blocks"]:
        for line in block["lines"]:
            box = (pymupdf.Rect(line["bbox"]) * page.rotation_matrix).normalize()
            text = _one_line("".join(span["text"] for span in line["spans"]))
            found.append(PlacedLine(box.x0, box.y0, box.x1, box.y1, text, bool(line["wmode"])))
    found = _but_readings(found)
    return [*(line for line in found if not line.is_vertical), *columns_of(found)]


def _but_readings(lines: Sequence[PlacedLine]) -> list[PlacedLine]:
    """Leave out readings in small kana over a word, and join the line that each of them divides."""
    found: list[PlacedLine] = []
    is_divided = False
    for at, line in enumerate(lines):
        around = lines[max(0, at - MOST_AROUND) : at + 1 + MOST_AROUND]
        if KANA.match(line.text) and any(_is_reading_of(line, other) for other in around):
            is_divided = True
            continue
        last = found[-1] if found and is_divided else None
        if last and abs(last.top - line.top) < 1 and abs(last.right - line.left) < 1:
            found[-1] = replace(last, right=line.right, text=last.text + line.text)
        else:
            found.append(line)
        is_divided = False
    return found


def _is_reading_of(small: PlacedLine, line: PlacedLine) -> bool:
    height = small.bottom - small.top
    is_small = height < READING_SIZE * (line.bottom - line.top)
    is_over = line.left <= (small.left + small.right) / 2 <= line.right
    return is_small and is_over and abs(small.bottom - line.top) < READING_SIZE * height


def _one_line(text: str) -> str:
    """Return a text without line ends and without what cannot be shown.

    A soft hyphen divides a word at the end of a line, and is nothing within it.
    """
    text = re.sub(f"{SOFT_HYPHEN}(?=\\s*$)", "-", text)
    shown = (char if char.isprintable() else _instead_of(char) for char in text)
    return " ".join("".join(shown).split())


def _instead_of(char: str) -> str:
    """Return nothing for what has no width; what joins or divides letters in Persian stays."""
    if char in JOINERS:
        return char
    return "" if unicodedata.category(char) == "Cf" else " "


def _bare(word: str) -> str:
    """Return a word without the punctuation around it, in lower case."""
    return re.sub(r"^\W+|\W+$", "", word).casefold()


def _title(pdf: pymupdf.Document) -> str:
    """Return the title in a PDF's metadata, without what programs write there by themselves."""
    title = printable((pdf.metadata or {}).get("title") or "")
    return PROGRAM_TITLE.sub("", title).strip()


def _share(page: pymupdf.Page, box: pymupdf.Rect) -> Box:
    """Return a box of the unturned page as shares of the page as it is shown."""
    turned = box * page.rotation_matrix
    width, height = float(page.rect.width), float(page.rect.height)
    edges = (turned.x0 / width, turned.y0 / height, turned.x1 / width, turned.y1 / height)
    left, top, right, bottom = (round(min(1.0, max(0.0, at)), 5) for at in edges)
    return left, top, right, bottom


def _is_visible(drawn: list[tuple[str, Any]]) -> bool:
    return any(kind in VISIBLE for kind, _ in drawn)


def _picture_share(page: pymupdf.Page, drawn: list[tuple[str, Any]]) -> float:
    """Share of the page under pictures, overlaps counted twice."""
    boxes = (pymupdf.Rect(box) & page.rect for kind, box in drawn if kind == "fill-image")
    return float(sum(abs(box) for box in boxes) / abs(page.rect))


def _is_truly_blank(image: Image.Image, has_content: bool, complaints: list[str]) -> bool:
    """Tell an empty page (True) and a coloured one (False) from one whose content got lost.

    Raises DocumentError for the last: white although something should show, or one colour (black
    squares in place of pictures) after complaints.
    """
    is_white = image.getpixel((0, 0)) == WHITE
    if (is_white and (has_content or complaints)) or (has_content and complaints):
        what = "has content but renders blank" if has_content else "renders blank"
        raise DocumentError(what + _because(complaints))
    return is_white


def _draw(page: pymupdf.Page, size: RasterSize) -> Image.Image:
    zoom = raster_zoom(page.rect.width, page.rect.height, size)
    pixmap = page.get_pixmap(
        matrix=pymupdf.Matrix(zoom, zoom), colorspace=pymupdf.csRGB, alpha=False, annots=True
    )
    image = Image.frombytes("RGB", (pixmap.width, pixmap.height), pixmap.samples)
    return bounded_aspect(image)


def _text_layer(page: pymupdf.Page) -> str:
    """Text in reading order, then what people typed into forms and free-text notes."""
    parts = [page.get_text("text", sort=False)]
    parts += [str(widget.field_value) for widget in page.widgets() if _is_typed(widget)]
    parts += [
        str(note.info["content"]) for note in page.annots(types=[pymupdf.PDF_ANNOT_FREE_TEXT])
    ]
    return "\n".join(part for part in parts if part)


def _is_typed(widget: pymupdf.Widget) -> bool:
    typed = (
        pymupdf.PDF_WIDGET_TYPE_TEXT,
        pymupdf.PDF_WIDGET_TYPE_COMBOBOX,
        pymupdf.PDF_WIDGET_TYPE_LISTBOX,
    )
    return widget.field_type in typed and bool(widget.field_value)


def _missing_glyphs(page: pymupdf.Page) -> list[str]:
    """Name the fonts that are not embedded and whose characters no font here can draw."""
    absent = {font[3].split("+")[-1] for font in page.get_fonts() if font[1] == "n/a"}
    if not absent:
        return []
    n_missing = n_characters = 0
    for span in page.get_texttrace():
        # characters are (unicode, glyph, origin, box); glyph 0 is .notdef, an empty box
        glyphs = [glyph for character, glyph, *_ in span["chars"] if not chr(character).isspace()]
        n_characters += len(glyphs)
        n_missing += glyphs.count(0)
    if n_missing <= MISSING_GLYPHS_SHARE * n_characters:
        return []
    fonts = ", ".join(sorted(absent))
    return [f"{n_missing} of {n_characters} characters have no glyph (not embedded: {fonts})"]


def _complaints() -> list[str]:
    """Return what MuPDF complained about since the last reset, and forget it."""
    lines = [line.strip() for line in str(pymupdf.TOOLS.mupdf_warnings()).splitlines()]
    return [printable(line) for line in lines if line and not line.startswith("...")]


def _because(complaints: list[str]) -> str:
    return f": {complaints[0]}" if complaints else ""


@contextmanager
def _mupdf_errors(what: str) -> Iterator[None]:
    """Turn whatever MuPDF raises into a DocumentError; its own classes are many and unlisted."""
    try:
        yield
    except DocumentError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
        raise DocumentError(f"{what}: {_mupdf_reason(error)}") from error
    except pymupdf.mupdf.FzErrorBase as error:
        raise DocumentError(f"{what}: {_mupdf_reason(error)}") from error


def _mupdf_reason(error: Exception) -> str:
    """Return the cause without MuPDF's "code=7:" and without this machine's path."""
    text = str(error).split(": ", 1)[-1] if str(error).startswith("code=") else str(error)
    if text.startswith("Failed to open file"):
        text = next(iter(_complaints()), "it is not a PDF, or damaged beyond repair")
    return printable(text)
