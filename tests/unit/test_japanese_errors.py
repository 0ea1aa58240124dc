"""Every error line that the page can show is there in Japanese."""

import ast
from pathlib import Path

import pytest

from models import folder
from models.errors import ModelFilesError
from rag.words import UNREAD
from ui.handlers import reason
from ui.japanese import in_japanese

ROOT = Path(__file__).parents[2]
SHOWN = (
    "ui/service.py", "ui/uploads.py", "ui/queue.py", "rag/documents.py", "rag/image_document.py",
    "rag/page_images.py",
    "rag/office.py", "rag/ocr.py",
)  # fmt: skip


def _lines(module):
    """Return the error lines that a module raises, with 7 for everything that is filled in."""
    for node in ast.walk(ast.parse((ROOT / module).read_text("utf-8"))):
        if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
            continue
        (message, *_) = [*node.exc.args, None]
        if isinstance(message, ast.Constant):
            yield str(message.value)
        elif isinstance(message, ast.JoinedStr):
            first = message.values[0]
            if isinstance(first, ast.FormattedValue) and getattr(first.value, "id", "") == "what":
                continue  # MuPDF's own words
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "7"
                for part in message.values
            )


@pytest.mark.parametrize("module", SHOWN)
def test_every_line_of_a_module_is_known(module):
    lines = [line for line in _lines(module) if not line.startswith("--")]  # of the command line
    assert lines
    english = [line for line in lines if in_japanese(line) == line]
    assert english == []


def test_names_and_numbers_are_kept():
    assert (
        in_japanese("report.pdf: is empty (0 bytes)") == "report.pdf: 空のファイルです（0バイト）"
    )
    assert "12000" in in_japanese("the question has 12000 characters, 8000 are the most")
    assert in_japanese("top_k is 90, it must be from 1 to 50") == (
        "top_kは1から50までです（90が指定されました）"
    )
    assert in_japanese("something nobody translated") == "something nobody translated"


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("'2023/1/1' is no date; write YYYY-MM-DD, as in 2024-03-31", "'2023/1/1'"),
        ("2024-05-01 is after 2024-04-01: no day is in between", "2024-05-01"),
        ("no document matches 'x*'; `yomu list` shows all, `yomu ingest` adds some", "'x*'"),
        ("nosuch: no such file or folder", "nosuch"),
        ("a.pdf: cannot be opened as a PDF: syntax error", "a.pdf"),
        ("a.pdf, p. 3 is left out: the model's context of 4096 tokens is full", "a.pdf"),
        ("the earliest 2 of 9 turns are left out: the model's context of 4096 tokens is full", "9"),
        ("page 3 of 'a.pdf' is not in the index", "'a.pdf'"),
        ("an error of the server; its log has the cause", ""),
        ("page is blank, like all of this document", ""),
        ("took longer than 60 s and was stopped", "60"),
        ("took more than 60 s of CPU and was stopped", "60"),
        ("crashed the renderer (SIGSEGV)", "SIGSEGV"),
        ("needs more memory than a page may take", ""),
        ("nothing to read in x: no PDF, image or Office file; `yomu remove GLOB` …", "x"),
        ("index: another process is writing to this index; wait for it (--wait) or stop it", ""),
        ("index.db: index format 1, this program reads format 2; ingest again into …", "1"),
        (
            "index: this index was made with model a1b2…, dpi 144 (now 96); use --dpi 144, or "
            "ingest again into a new folder with `yomu ingest PATH --index NEW`",
            "dpi 144 (now 96)",
        ),
        ("a.pdf, p. 3 is left out: is empty (0 bytes)", "a.pdfの3ページは省きました：空の"),
        ("OCR: Tesseract took longer than 9 s", "文字認識：Tesseractが9秒を"),
        (
            "a.pdf, p. 3: only its small stored image could be used: its file cannot be read: x",
            "a.pdfの3ページは、保存してある小さな画像だけで読みました：読めません（x）",
        ),
    ],
)
def test_lines_from_below_are_known_as_well(line, kept):
    said = in_japanese(line)
    assert said != line
    assert kept in said
    assert "yomu" not in said


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_model_that_is_not_downloaded_is_said_with_the_command_that_gets_it(language):
    with pytest.raises(ModelFilesError) as error:
        folder.find_folder("colqwen2-v9")
    said = reason(error.value, language)
    assert "'colqwen2-v9'" in said and "`yomu models pull " in said


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("asked", ["en", "ja"])
def test_the_page_does_not_send_people_to_the_command_line(language, asked):
    """Whatever the languages of the page and of the question are."""
    said = reason(UNREAD[asked].format(unread=1, all=6), language)
    assert "6" in said and "yomu" not in said


def test_the_page_asks_for_its_own_language():
    line = "a.pdf is larger than 200 MB"
    assert reason(line, "ja") == "a.pdfは200 MBを超えています"
    assert reason(line, "en") == reason(line) == line
