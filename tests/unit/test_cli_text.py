"""Text that a person, a file or a terminal spells otherwise: still one clear line, or the text."""

import io
import json
import sys

import pytest

from index.page_index import PageIndex
from rag.cli import main
from rag.cli_common import read_lines
from tests.unit.index_data import SETTINGS, put


def run(*arguments, code):
    with pytest.raises(SystemExit) as exit_:
        main([str(each) for each in arguments])
    assert exit_.value.code == code


@pytest.fixture
def index(tmp_path):
    """An index with a document whose name few encodings can show."""
    with PageIndex.open(tmp_path / "index", SETTINGS, writable=True) as page_index:
        put(page_index, "café𠮷.pdf")
        page_index.commit()
    return tmp_path / "index"


def test_lines_of_files_as_editors_write_them(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeffone\r\n \t\r\n two \u2028and\n\nlast".encode())
    assert read_lines(path) == ["one", "", " two \u2028and", "", "last"]
    path.write_bytes(b"one\n")
    assert read_lines(path) == ["one"]
    path.write_bytes(b"")
    assert not any(read_lines(path))


def test_questions_of_a_file_with_a_mark_and_blank_lines(index, tmp_path, capsys):
    path = tmp_path / "queries.jsonl"
    path.write_bytes('\ufeff{"query": "common\u2028page1"}\r\n  \r\n{"query": "page2"}\n'.encode())
    run("search", "--queries", path, "--index", index, "--mode", "text", code=0)
    found = [json.loads(line) for line in capsys.readouterr().out.rstrip("\n").split("\n")]
    assert [each["query"] for each in found] == ["common\u2028page1", "page2"]


def test_a_question_that_is_no_text_is_refused_in_every_mode(index, tmp_path, capsys):
    path = tmp_path / "queries.jsonl"
    path.write_text('{"query": "fine"}\n\n{"query": "half \\ud800"}\n')
    run("search", "--queries", path, "--index", index, "--mode", "text", code=2)
    assert capsys.readouterr().err == f"yomu: {path}:3: 'half \\ud800' is not valid Unicode\n"
    run("search", "half \udcff", "--index", index, "--mode", "text", code=2)
    assert capsys.readouterr().err == "yomu: QUESTION: 'half \\udcff' is not valid Unicode\n"


@pytest.mark.parametrize("command", [["list"], ["remove"], ["search", "x", "--document"]])
def test_a_pattern_that_is_no_text_is_one_clear_line(index, capsys, command):
    mode = ["--mode", "text"] if command[0] == "search" else []
    run(*command, "\udcff*", "--index", index, *mode, code=2)
    assert "'\\udcff*' is not valid Unicode" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "cp932", "utf-8"])
def test_a_terminal_that_lacks_a_character_shows_its_number(index, monkeypatch, encoding):
    def shown(*arguments):
        written = io.BytesIO()
        stdout = io.TextIOWrapper(written, encoding)
        with monkeypatch.context() as changed:
            changed.setattr(sys, "stdout", stdout)
            run("list", "--index", index, *arguments, code=0)
        stdout.flush()
        return written.getvalue().decode(encoding)

    assert json.loads(shown("--json"))["documents"][0]["document"] == "café𠮷.pdf"
    as_shown = "café𠮷.pdf" if encoding == "utf-8" else "caf\\u00e9\\ud842\\udfb7.pdf"
    assert as_shown in shown()
