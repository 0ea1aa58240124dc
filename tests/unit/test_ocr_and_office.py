"""Tesseract and LibreOffice: asked for, missing, failing, slow. Stand-ins are shell scripts."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from rag import ocr, office
from rag.errors import DocumentError, OcrError
from rag.ocr import Tesseract, tidy
from tests import odd_files as odd

PAGE = Image.new("RGB", (60, 40), "white")


@pytest.fixture
def programs(tmp_path, monkeypatch) -> Path:
    """A PATH that holds nothing but what a test puts there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "cat", "sleep", "cp", "mkdir"):
        (folder / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(folder))
    return folder


def script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


LANGUAGES = 'if [ "$1" = --list-langs ]; then printf "List of\\neng\\njpn\\nosd\\n"; exit; fi\n'


def test_tesseract_is_optional_unless_named(programs):
    assert Tesseract.find("auto") is None
    assert Tesseract.find("off") is None
    with pytest.raises(OcrError, match="tesseract is not installed"):
        Tesseract.find("jpn")


def test_languages(programs):
    script(programs / "tesseract", LANGUAGES)
    assert Tesseract.find("off") is None
    assert Tesseract.find("auto").languages == "eng+jpn"
    assert Tesseract.find("jpn").languages == "jpn"
    assert Tesseract.find("auto").finds_orientation
    with pytest.raises(OcrError, match="has no 'deu'; it has eng, jpn"):
        Tesseract.find("eng+deu")


def test_text_comes_back_tidy(programs):
    script(
        programs / "tesseract", LANGUAGES + 'cat > /dev/null; printf "日 本 語 の text\\n\\n x\\n"'
    )
    assert Tesseract.find("auto").read(PAGE) == "日本語の text\nx"


def test_failing_and_slow_tesseract(programs, monkeypatch):
    script(programs / "tesseract", LANGUAGES + 'cat > /dev/null; echo "no memory" >&2; exit 3')
    with pytest.raises(DocumentError, match="Tesseract failed: no memory"):
        Tesseract.find("auto").read(PAGE)
    script(programs / "tesseract", LANGUAGES + "exec sleep 60")
    monkeypatch.setattr(ocr, "PAGE_SECONDS", 0.3)
    with pytest.raises(DocumentError, match="Tesseract took longer than 0.3 s"):
        Tesseract.find("auto").read(PAGE)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("平 成 17 年 の 表", "平成 17 年の表"),
        ("plain words stay", "plain words stay"),
        ("「 引 用 」", "「引用」"),
    ],
)
def test_spaces_between_japanese_characters_go(text, wanted):
    assert tidy(text) == wanted


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="Tesseract is not installed")
def test_real_tesseract_reads_a_turned_scan():
    page = Image.new("RGB", (1240, 1754), "white")
    font = ImageFont.load_default(size=40)
    lines = "The annual report\nshows a profit of\n1,204 million in the\nthird quarter of 2023."
    ImageDraw.Draw(page).multiline_text((100, 100), lines, fill="black", font=font, spacing=30)
    text = Tesseract.find("auto").read(page)
    assert "annual report" in text
    assert "1,204" in text


# -- LibreOffice -----------------------------------------------------------------------------------


@pytest.fixture
def converter():
    with office.OfficeConverter() as made:
        yield made


@pytest.fixture
def deck(tmp_path) -> Path:
    path = tmp_path / "deck.pptx"
    path.write_bytes(b"PK office file")
    return path


# what soffice is called with: profile, 2 flags, --convert-to pdf --outdir OUT FILE
CONVERT = 'out="$7"; mkdir -p "$out"\n'


def test_no_libreoffice_has_a_clear_word(programs, converter, deck):
    with pytest.raises(DocumentError, match=r"Office file \(\.pptx\): install LibreOffice"):
        converter.to_pdf(deck, "key")


def test_converted_once(programs, deck, tmp_path):
    pdf = odd.text_pdf(tmp_path / "made.pdf", ["slide"])
    script(programs / "soffice", CONVERT + f'echo x >> {tmp_path}/calls; cp {pdf} "$out/deck.pdf"')
    with office.OfficeConverter() as converter:
        first = converter.to_pdf(deck, "key")
        assert first.read_bytes() == pdf.read_bytes()
        assert converter.to_pdf(deck, "key") == first
    assert (tmp_path / "calls").read_text() == "x\n"
    assert not first.exists()


def test_converted_once_for_all_who_ask_at_the_same_time(programs, deck, tmp_path):
    pdf = odd.text_pdf(tmp_path / "made.pdf", ["slide"])
    work = f'echo x >> {tmp_path}/calls; sleep 0.3; cp {pdf} "$out/deck.pdf"'
    script(programs / "soffice", CONVERT + work)
    with office.OfficeConverter() as converter, ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: converter.to_pdf(deck, "key").read_bytes(), range(4)))
    assert made == [pdf.read_bytes()] * 4
    assert (tmp_path / "calls").read_text() == "x\n"


def test_failing_and_slow_libreoffice(programs, deck, monkeypatch):
    script(programs / "soffice", "exit 1")
    with (
        office.OfficeConverter() as converter,
        pytest.raises(DocumentError, match="LibreOffice could not convert it"),
    ):
        converter.to_pdf(deck, "key")
    script(programs / "soffice", "sleep 60 & sleep 60")
    monkeypatch.setattr(office, "CONVERT_SECONDS", 0.3)
    with (
        office.OfficeConverter() as converter,
        pytest.raises(DocumentError, match="took longer than 0.3 s"),
    ):
        converter.to_pdf(deck, "key")
