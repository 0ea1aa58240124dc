"""Documents to pages: sizes, rotation, forms, images, and everything that can be wrong."""

import os
from contextlib import closing

import numpy as np
import pymupdf
import pytest
from PIL import Image

from rag.documents import _one_line, open_document, raster_zoom, read_pages
from rag.errors import DocumentError
from rag.page_content import RasterSize, is_blank
from tests import odd_files as odd

SIZE = RasterSize(dpi=72, max_pixels=2_000_000)


def only_page(path, size=SIZE, passwords=()):
    (page,) = read_pages(path, size, passwords)
    return page


def saved(tmp_path, pdf, **options):
    path = tmp_path / "made.pdf"
    pdf.save(path, **options)
    pdf.close()
    return path


@pytest.mark.parametrize(
    ("width", "height", "pixels"),
    [
        (612, 792, (1224, 1584)),  # Letter at 144 dpi
        (1e7, 1e7, (1448, 1448)),  # 3.5 km: clamped to max_pixels
        (1e6, 10, (8192, 1)),  # a strip: clamped to the longest side allowed
        (2, 2, (56, 56)),  # a dot: enlarged to what the model can see
    ],
)
def test_size_is_clamped_before_drawing(width, height, pixels):
    zoom = raster_zoom(width, height, RasterSize(144, 2_097_152))
    assert (max(1, round(width * zoom)), max(1, round(height * zoom))) == pixels


@pytest.mark.parametrize("side", [0, -5, float("inf"), float("nan")])
def test_impossible_page_box(side):
    with pytest.raises(DocumentError, match="impossible page box"):
        raster_zoom(100, side, SIZE)


def test_text_page(tmp_path):
    page = only_page(odd.text_pdf(tmp_path / "a.pdf", [odd.TEXT]))
    assert page.image.size == (595, 842)
    assert page.text.split() == odd.TEXT.split()
    assert (page.text_state, page.blank, page.notes) == ("good", False, ())


def test_huge_page_box_is_drawn_small(tmp_path):
    path = odd.raw_pdf(
        tmp_path / "a.pdf", b"1 0 0 rg 0 0 9000000 9000000 re f", box="0 0 10000000 20000000"
    )
    page = only_page(path, RasterSize(144, 600_000))
    assert page.image.width * page.image.height <= 601_000
    assert page.image.getpixel((10, page.image.height - 10)) == (255, 0, 0)


def test_rotation_and_crop(tmp_path):
    pdf = pymupdf.open()
    page = pdf.new_page(width=200, height=400)
    page.draw_rect((0, 0, 200, 100), fill=(1, 0, 0), color=None)
    page.set_cropbox((0, 0, 200, 200))
    page.set_rotation(90)
    image = only_page(saved(tmp_path, pdf)).image
    assert image.size == (200, 200)
    # the red upper half of the crop is turned to the right
    assert image.getpixel((150, 100)) == (255, 0, 0)
    assert image.getpixel((50, 100)) == (255, 255, 255)


def test_form_values_and_notes_are_drawn_and_read(tmp_path):
    pdf = pymupdf.open()
    page = pdf.new_page()
    page.insert_text((72, 50), "Name:")
    widget = pymupdf.Widget()
    widget.field_type = pymupdf.PDF_WIDGET_TYPE_TEXT
    widget.field_name, widget.field_value = "name", "Hanako Yamada"
    widget.rect = pymupdf.Rect(72, 72, 300, 100)
    page.add_widget(widget)
    page.add_freetext_annot((72, 200, 300, 240), "a remark in the margin")
    page = only_page(saved(tmp_path, pdf))
    assert "Hanako Yamada" in page.text
    assert "a remark in the margin" in page.text
    ink = np.asarray(page.image.convert("L")) < 128
    assert ink[72:100, 72:300].sum() > 50
    assert ink[200:240, 72:300].sum() > 50


def test_hidden_layer_is_not_drawn(tmp_path):
    pdf = pymupdf.open()
    page = pdf.new_page(width=100, height=100)
    shown, hidden = pdf.add_ocg("shown"), pdf.add_ocg("hidden", on=False)
    page.draw_rect((0, 0, 50, 100), fill=(0, 0, 1), color=None, oc=shown)
    page.draw_rect((50, 0, 100, 100), fill=(1, 0, 0), color=None, oc=hidden)
    image = only_page(saved(tmp_path, pdf)).image
    assert image.getpixel((25, 50)) == (0, 0, 255)
    assert image.getpixel((75, 50)) == (255, 255, 255)


@pytest.mark.parametrize("password", ["secret", "owner", "パスワード"])
def test_password_opens(tmp_path, password):
    user = "secret" if password == "owner" else password
    path = odd.encrypted_pdf(tmp_path / "a.pdf", user)
    assert "quick brown fox" in only_page(path, passwords=("wrong", password)).text


@pytest.mark.parametrize(
    ("passwords", "reason"),
    [
        ((), "is encrypted: give its password by --password"),
        (("wrong",), "the password given does not open it"),
        (("wrong", "worse"), "none of 2 passwords opens it"),
    ],
)
def test_password_missing_or_wrong(tmp_path, passwords, reason):
    path = odd.encrypted_pdf(tmp_path / "a.pdf", "secret")
    with pytest.raises(DocumentError, match=reason):
        open_document(path, passwords)


def test_owner_password_alone_does_not_lock(tmp_path):
    assert "fox" in only_page(odd.encrypted_pdf(tmp_path / "a.pdf", "")).text


def test_what_cannot_be_opened(tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(b"")
    with pytest.raises(DocumentError, match=r"is empty \(0 bytes\)"):
        open_document(path)
    path.write_bytes(b"hello, I am a text file")
    with pytest.raises(DocumentError, match="cannot be opened as a PDF"):
        open_document(path)
    with pytest.raises(DocumentError, match="cannot be read: No such file"):
        open_document(tmp_path / "missing.pdf")
    odd.raw_pdf(path, b"", kids=False)
    with pytest.raises(DocumentError, match="has no pages"):
        open_document(path)
    other = tmp_path / "a.png"
    other.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    with pytest.raises(DocumentError, match="not a PDF or an image of a known kind"):
        open_document(other)


@pytest.mark.parametrize("name", ["minutes.pdf", "photo.jpg"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_picture_is_one_whatever_its_name(tmp_path, name, kind):
    odd.picture(120, 80).save(tmp_path / name, kind)
    assert only_page(tmp_path / name).image.size == (120, 80)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\n<!DOCTYPE html>\n<html><body>Please log in</body></html>", "a web page"),
        (b'<?xml version="1.0"?><!-- drawn --><svg width="9" height="9"></svg>', "an SVG drawing"),
        (b"<!-- a -->\n" * 60 + b"<html><body>", "a web page"),
        (b"PK\x03\x04" + bytes(40), "a ZIP archive or an Office file"),
        (b"\xd0\xcf\x11\xe0" + bytes(40), "an Office file of before 2007"),
    ],
)
def test_what_is_only_named_a_pdf_is_called_by_what_it_is(tmp_path, content, what):
    path = tmp_path / "a.pdf"
    path.write_bytes(content)
    with pytest.raises(DocumentError, match=f"is no PDF but {what}"):
        open_document(path)


@pytest.mark.parametrize("name", [b"\x93\xfa\x96{", b"\xb2\xf1\xb5\xc4"])  # Shift JIS, EUC-JP
def test_names_that_are_no_utf8_are_opened(tmp_path, name):
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    path = folder / os.fsdecode(name + b".pdf")
    odd.text_pdf(tmp_path / "plain.pdf", [odd.TEXT, "second page"]).rename(path)
    document = open_document(path)
    assert document.n_pages == 2
    assert document.read(2, SIZE).text.split() == ["second", "page"]
    assert document.find(2, ["second"])
    document.close()
    for suffix in (".png", ".tiff"):
        Image.new("RGB", (60, 60), "red").save(tmp_path / f"plain{suffix}")
        picture = (tmp_path / f"plain{suffix}").rename(path.with_suffix(suffix))
        assert only_page(picture).image.getpixel((5, 5)) == (255, 0, 0)
    path.write_bytes(b"%PDF-1.7 and no more")
    with pytest.raises(DocumentError, match="^(cannot be opened as a PDF|has )") as error:
        open_document(path)
    assert "/dev/fd" not in str(error.value)


def test_japanese_words_are_framed_where_most_of_the_others_stand(tmp_path):
    pdf = pymupdf.open()
    page = pdf.new_page(width=400, height=400)
    lines = ("都内感染者数 10月10日 総数", "1 10月10日 男性", "2 10月10日 女性")
    for n, line in enumerate(lines):
        page.insert_text((40, 100 * (n + 1)), line, fontname="japan")
    pdf.save(tmp_path / "a.pdf")
    with closing(open_document(tmp_path / "a.pdf")) as document:
        boxes = document.find(1, ["都内感染者数", "10月10日", "総数"])
        assert boxes and all(bottom < 0.3 for _, _, _, bottom in boxes)
        assert len(document.find(1, ["10月10日"])) == 3  # alone it counts wherever it stands


def test_a_word_of_every_row_is_framed_only_where_nothing_else_is(tmp_path):
    pdf = pymupdf.open()
    page = pdf.new_page(width=400, height=800)
    for n, line in enumerate(["249 cases", *["October 10"] * 12]):
        page.insert_text((40, 50 * (n + 1)), line)
    pdf.save(tmp_path / "a.pdf")
    with closing(open_document(tmp_path / "a.pdf")) as document:
        assert len(document.find(1, ["October", "10", "249", "cases"])) == 2
        assert len(document.find(1, ["October", "10"])) == 24


def test_truncated_pdf_is_right_or_says_why(tmp_path):
    whole = odd.text_pdf(tmp_path / "a.pdf", [odd.TEXT] * 3).read_bytes()
    outcomes = set()
    for share in (0.05, 0.3, 0.5, 0.7, 0.9, 0.99):
        (tmp_path / "b.pdf").write_bytes(whole[: int(share * len(whole))])
        try:
            pages = list(read_pages(tmp_path / "b.pdf", SIZE))
            assert all("quick brown fox" in page.text for page in pages)
            outcomes.add("right")
        except DocumentError as error:
            assert str(error)
            outcomes.add("says why")
    assert outcomes == {"right", "says why"}


def test_blank_page_and_lost_content_are_told_apart(tmp_path):
    blank = only_page(odd.raw_pdf(tmp_path / "a.pdf", b""))
    assert blank.blank
    assert blank.notes == ("page is blank",)
    white = only_page(odd.raw_pdf(tmp_path / "a.pdf", b"1 1 1 rg 0 0 612 792 re f"))
    assert white.blank
    with pytest.raises(DocumentError, match="has content but renders blank"):
        only_page(odd.broken_image_pdf(tmp_path / "a.pdf"))
    red = only_page(odd.raw_pdf(tmp_path / "a.pdf", b"1 0 0 rg 0 0 612 792 re f"))
    assert not red.blank
    assert red.notes == ("page is one flat colour",)


def test_invisible_text_over_a_lost_scan_is_not_taken_for_a_page(tmp_path):
    path = odd.raw_pdf(
        tmp_path / "a.pdf",
        b"BT 3 Tr /F1 12 Tf 72 700 Td (text of a scan that is gone) Tj ET",
        resources="/Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >>",
    )
    with pytest.raises(DocumentError, match="has content but renders blank"):
        only_page(path)


def test_japanese_without_its_font_is_drawn_by_another(tmp_path):
    path = odd.japanese_without_font_pdf(tmp_path / "a.pdf", "日本語の文書です")
    page = only_page(path)
    assert page.text.strip() == "日本語の文書です"
    assert page.notes == ()
    assert (np.asarray(page.image.convert("L")) < 128).sum() > 300  # eight 20-pt characters of ink


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("語" + "𠮟" * 9, "9 of 10 characters have no glyph (not embedded: HeiseiKakuGo-W5)"),
        ("語" + "\ue000" * 9, "some characters cannot be drawn (their font is not embedded)"),
    ],
)
def test_characters_no_font_can_draw_are_reported(tmp_path, text, note):
    page = only_page(odd.japanese_without_font_pdf(tmp_path / "a.pdf", text))
    assert note in page.notes


def test_garbage_text_layer_is_left_out(tmp_path):
    shifted = "".join(chr(ord(c) - 29) if c.isalpha() else c for c in odd.TEXT * 4)
    page = only_page(odd.text_pdf(tmp_path / "a.pdf", [shifted]))
    assert page.text_state == "garbage"
    assert page.text == ""
    assert page.notes[0].startswith("text layer is garbage")


def test_footer_over_a_picture_is_a_thin_text_layer(tmp_path):
    pdf = pymupdf.open()
    page = pdf.new_page()
    page.insert_image((50, 50, 550, 700), stream=odd.png_bytes(odd.picture(200, 260)))
    page.insert_text((72, 800), "page 3 of the survey")
    page = only_page(saved(tmp_path, pdf))
    assert (page.text_state, page.text) == ("thin", "page 3 of the survey")


# -- images ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "webp", "bmp", "gif"])
def test_image_formats(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    odd.picture(120, 80).save(path)
    page = only_page(path)
    assert page.image.mode == "RGB"
    assert page.image.size == (120, 80)
    assert page.text_state == "none"


def test_exif_orientation(tmp_path):
    # 6: the camera was turned, show it rotated by 90 degrees clockwise
    page = only_page(odd.jpeg_with_orientation(tmp_path / "a.jpg", 6), RasterSize(72, 10_000))
    upright = np.asarray(page.image.convert("L")).astype(int)
    assert upright.shape[0] > upright.shape[1]
    assert upright[:10, -8:].mean() > 200  # the bright corner went from upper left to upper right


def test_multi_page_tiff(tmp_path):
    path = tmp_path / "a.tif"
    frames = [odd.picture(100, 70, seed) for seed in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    pages = list(read_pages(path, SIZE))
    assert [page.number for page in pages] == [1, 2, 3]
    for page, frame in zip(pages, frames, strict=True):
        assert np.array_equal(np.asarray(page.image), np.asarray(frame))


def test_transparency_is_put_on_white(tmp_path):
    image = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 50, 100))
    image.save(tmp_path / "a.png")
    page = only_page(tmp_path / "a.png")
    assert page.image.getpixel((25, 50)) == (255, 0, 0)
    assert page.image.getpixel((75, 50)) == (255, 255, 255)


def test_sixteen_bit_grey_keeps_its_shades(tmp_path):
    ramp = np.linspace(0, 65535, 100).astype(np.uint16)
    Image.fromarray(np.tile(ramp, (60, 1))).save(tmp_path / "a.png")
    row = np.asarray(only_page(tmp_path / "a.png").image)[30, :, 0].astype(int)
    assert row[0] == 0
    assert 120 <= row[50] <= 135
    assert row[-1] == 255


def test_cmyk_jpeg_and_palette(tmp_path):
    odd.picture(100, 80).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    odd.picture(100, 80).convert("P").save(tmp_path / "b.png")
    for name in ("a.jpg", "b.png"):
        image = only_page(tmp_path / name).image
        assert image.mode == "RGB"
        assert np.asarray(image)[5, 5].min() > 200  # the bright corner is still bright


def test_large_image_is_shrunk_to_the_budget(tmp_path):
    odd.picture(3000, 2000).save(tmp_path / "a.jpg")
    image = only_page(tmp_path / "a.jpg", RasterSize(72, 150_000)).image
    assert 0.95 * 150_000 < image.width * image.height < 1.02 * 150_000
    assert abs(image.width / image.height - 1.5) < 0.02


def test_strip_is_widened_to_an_aspect_the_model_takes(tmp_path):
    Image.new("RGB", (4000, 3), (200, 0, 0)).save(tmp_path / "a.png")
    image = only_page(tmp_path / "a.png").image
    assert max(image.size) <= 100 * min(image.size)


def test_truncated_image_says_so(tmp_path):
    odd.picture(400, 300).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(DocumentError, match="damaged image"):
        only_page(tmp_path / "a.png")


def test_decompression_bomb_is_refused(tmp_path):
    path = odd.huge_png(tmp_path / "a.png", 40_000, 40_000)
    with pytest.raises(DocumentError, match="too many pixels"):
        only_page(path)


def test_blank():
    assert is_blank(Image.new("RGB", (9, 9), (250, 250, 250)))
    speck = Image.new("RGB", (9, 9), "white")
    speck.putpixel((4, 4), (0, 0, 0))
    assert not is_blank(speck)


@pytest.mark.parametrize(
    ("title", "kept"),
    [
        ("Annual Report 2023", "Annual Report 2023"),
        ("Microsoft Word - 報告書.docx", "報告書.docx"),
        ("PowerPoint プレゼンテーション", ""),
        ("<4D6963726F>", ""),
        ("", ""),
    ],
)
def test_the_title_is_the_authors_own(tmp_path, title, kept):
    pdf = pymupdf.open()
    pdf.new_page()
    pdf.set_metadata({"title": title})
    pdf.save(tmp_path / "a.pdf")
    document = open_document(tmp_path / "a.pdf")
    assert document.title == kept
    document.close()


@pytest.mark.parametrize("turned", [0, 90, 180, 270])
def test_rows_of_a_turned_page_are_those_that_are_seen(tmp_path, turned):
    table = [["Millions of yen", "Revenue", "Tax"], ["2022", "12,410", "90"], ["2023", "380", "87"]]
    pdf = pymupdf.open()
    page = pdf.new_page(width=842, height=595)
    page.set_rotation(turned)
    for y, row in enumerate(table):
        for x, cell in enumerate(row):
            at = pymupdf.Point(72 + 150 * x, 100 + 30 * y) * page.derotation_matrix
            page.insert_text(at, cell, rotate=turned)
    with closing(open_document(saved(tmp_path, pdf))) as document:
        assert document.rows(1) == ["\t".join(row) for row in table]
        assert document.read(1, SIZE).image.width == (842 if turned % 180 == 0 else 595)


def test_vertical_text_is_read_downwards_from_right_to_left(tmp_path):
    columns = ["冬の湖畔に小屋がある。", "屋根には雪が積もる。"]
    commands = "".join(
        f"1 0 0 1 {300 - 30 * n} 700 Tm <{text.encode('utf-16-be').hex()}> Tj "
        for n, text in enumerate(columns)
    )
    font = (
        "<< /Type /Font /Subtype /Type0 /BaseFont /HeiseiMin-W3 /Encoding /UniJIS-UTF16-V"
        " /DescendantFonts [<< /Type /Font /Subtype /CIDFontType0 /BaseFont /HeiseiMin-W3"
        " /CIDSystemInfo << /Registry (Adobe) /Ordering (Japan1) /Supplement 2 >>"
        " /FontDescriptor << /Type /FontDescriptor /FontName /HeiseiMin-W3 /Flags 4"
        " /FontBBox [-123 -257 1001 910] /ItalicAngle 0 /Ascent 709 /Descent -241"
        " /CapHeight 709 /StemV 69 >> >>] >>"
    )
    path = odd.raw_pdf(
        tmp_path / "down.pdf",
        f"BT /F1 20 Tf {commands} ET".encode("ascii"),
        resources=f"/Font << /F1 {font} >>",
    )
    with closing(open_document(path)) as document:
        assert document.rows(1) == columns


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a docu\u00adment\n", "a document"),
        ("the infor\u00ad ", "the infor-"),
        ("zero\u200bwidth", "zerowidth"),
        ("two\u3000words\tand\x07more", "two words and more"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
    ],
)
def test_what_has_no_width_divides_no_word(text, shown):
    assert _one_line(text) == shown


def test_readings_over_words_are_no_rows_and_divide_none(tmp_path):
    pdf = pymupdf.open()
    page = pdf.new_page()
    where = {"x": 72.0}

    def write(text, size, y, x=None):
        x = where["x"] if x is None else x
        page.insert_text((x, y), text, fontname="japan", fontsize=size)
        where["x"] = x + size * len(text)

    write("その会社は研究を牽引", 10, 100)
    write("けんいん", 5, 91.5, 72 + 80)
    write("する企業です。", 10, 100, 72 + 100)
    write("かな", 10, 120, 72)  # as large as what it stands over
    write("仮名", 10, 131, 72)
    with closing(open_document(saved(tmp_path, pdf))) as document:
        assert document.rows(1) == ["その会社は研究を牽引する企業です。", "かな", "仮名"]
