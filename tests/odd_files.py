"""Odd documents drawn by the tests themselves: what people have, and what breaks programs."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pymupdf
from PIL import Image

TEXT = "The quick brown fox jumps over the lazy dog and reads the annual report."


def text_pdf(path: Path, pages: list[str], **page: float) -> Path:
    """A PDF with one page per text."""
    with pymupdf.open() as pdf:
        for text in pages:
            made = pdf.new_page(**page)
            made.insert_textbox(made.rect + (36, 36, -36, -36), text, fontsize=14)
        pdf.save(path)
    return path


def encrypted_pdf(path: Path, password: str, owner: str = "owner") -> Path:
    with pymupdf.open() as pdf:
        pdf.new_page().insert_text((72, 72), TEXT)
        pdf.save(path, encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw=password, owner_pw=owner)
    return path


def raw_pdf(
    path: Path,
    content: bytes,
    *,
    resources: str = "",
    box: str = "0 0 612 792",
    extra: tuple[bytes, ...] = (),
    page: str = "",
    kids: bool = True,
) -> Path:
    """A PDF written by hand: one page with this content stream, objects from number 5 on."""
    count = 1 if kids else 0
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{'3 0 R' if kids else ''}] /Count {count} >>".encode(),
        f"<< /Type /Page /Parent 2 0 R /MediaBox [{box}] /Contents 4 0 R {page}"
        f" /Resources << {resources} >> >>".encode(),
        b"<< /Length %d >> stream\n%s\nendstream" % (len(content), content),
        *extra,
    ]  # fmt: skip
    data = b"%PDF-1.7\n"
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    data += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    data += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1, start,
    )  # fmt: skip
    path.write_bytes(data)
    return path


def stream(header: str, body: bytes) -> bytes:
    return b"<< %s /Length %d >> stream\n%s\nendstream" % (header.encode(), len(body), body)


def endless_pdf(path: Path) -> Path:
    """Ten levels of forms that draw the level below ten times: 10^10 strokes of a kilobyte file."""
    levels = []
    for level in range(10):
        body = b"/F Do " * 10 if level else b"0 0 m 500 500 l S " * 10
        below = f"/XObject << /F {4 + level} 0 R >>" if level else ""
        header = f"/Type /XObject /Subtype /Form /BBox [0 0 612 792] /Resources << {below} >>"
        levels.append(stream(header, body))
    return raw_pdf(path, b"/F Do", resources="/XObject << /F 14 0 R >>", extra=tuple(levels))


def huge_png(path: Path, width: int, height: int) -> Path:
    """A few kilobytes that decode to width x height pixels, black and white."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    packer = zlib.compressobj(1)
    row = bytes(1 + width // 8)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def broken_image_pdf(path: Path) -> Path:
    """A page that is one picture whose data cannot be decoded: renders blank."""
    image = stream(
        "/Type /XObject /Subtype /Image /Width 100 /Height 100 /ColorSpace /DeviceGray "
        "/BitsPerComponent 8 /Filter /FlateDecode",
        b"this is not what zlib writes",
    )
    content = b"612 0 0 792 0 0 cm /I Do"
    return raw_pdf(path, content, resources="/XObject << /I 5 0 R >>", extra=(image,))


def japanese_without_font_pdf(path: Path, text: str) -> Path:
    """Japanese text in a font that is named, not embedded (as many Japanese PDFs are)."""
    codes = text.encode("utf-16-be").hex().upper()
    font = (
        b"<< /Type /Font /Subtype /Type0 /BaseFont /HeiseiKakuGo-W5 /Encoding /UniJIS-UTF16-H "
        b"/DescendantFonts [6 0 R] >>"
    )
    descendant = (
        b"<< /Type /Font /Subtype /CIDFontType0 /BaseFont /HeiseiKakuGo-W5 /CIDSystemInfo "
        b"<< /Registry (Adobe) /Ordering (Japan1) /Supplement 2 >> /FontDescriptor 7 0 R >>"
    )
    descriptor = (
        b"<< /Type /FontDescriptor /FontName /HeiseiKakuGo-W5 /Flags 4 /ItalicAngle 0 /Ascent 750 "
        b"/Descent -250 /CapHeight 700 /StemV 90 /FontBBox [0 -250 1000 750] >>"
    )
    content = f"BT /F1 20 Tf 50 700 Td <{codes}> Tj ET".encode()
    return raw_pdf(
        path, content, resources="/Font << /F1 5 0 R >>", extra=(font, descendant, descriptor)
    )


def picture(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    """A picture without symmetry: left half dark, a bright corner at the upper left."""
    pixels = np.random.default_rng(seed).integers(100, 156, (height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2] //= 2
    pixels[: height // 4, : width // 4] = 255
    return Image.fromarray(pixels)


def jpeg_with_orientation(path: Path, orientation: int) -> Path:
    image = picture()
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, quality=95)
    return path


def png_bytes(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
