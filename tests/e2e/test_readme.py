"""The README's commands, with the embedded model, as a new user runs them."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from rag.answer import Question
from rag.cli import app
from rag.pipeline import Pipeline
from rag.settings import Settings
from tests.e2e.conftest import ROOT, SAMPLE_QUESTIONS

README = (ROOT / "README.md").read_text("utf-8")
QUESTION = "What were the total sales in 2023?"
COMMAND = re.compile(r"^    .*?\buv run (?:yomu|(?P<script>ingest\.py)) (?P<rest>.*)", re.M)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    variables = {k: v for k, v in os.environ.items() if not k.startswith("YOMU_")}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True
    )


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The index that the README's first command builds, and what it prints."""
    assert f'uv run ingest.py samples/ --ask "{QUESTION}"' in README
    index = tmp_path_factory.mktemp("first") / "index"
    return index, run("ingest.py", "samples/", "--ask", QUESTION, "--index", index, "--ocr", "off")


def test_the_first_command_answers_from_the_right_page(first):
    index, done = first
    assert "1,420" in done.stdout
    assert "Read from: annual-report.pdf, p. 1" in done.stdout
    assert "Left out" not in done.stdout
    # the embedded model does not answer by itself yet, and says so
    assert "these are the words of the pages" in done.stderr
    own = run("-m", "rag", "ask", QUESTION, "--index", index, "--generate", "--json")
    answer = json.loads(own.stdout)
    assert answer["timings"]["tokens"] > 0
    assert answer["stop_reason"] != "quoted"
    assert answer["citations"] == [{"document": "annual-report.pdf", "page": 1}]


def test_the_samples_are_found_and_quoted(first):
    """Every question finds its page without OCR; where the page has text, the answer is quoted."""
    wrong = []
    with Pipeline(Settings(index=first[0], ocr="off")) as pipeline:
        for line in SAMPLE_QUESTIONS.read_text("utf-8").splitlines():
            wanted = json.loads(line)
            stream = pipeline.ask(Question(wanted["question"]))
            text = "".join(stream)
            best = stream.result().hits[0]
            if (best.document, best.page) != (wanted["document"], wanted["page"]):
                wrong.append((wanted["id"], best))
            if wanted["answer"] not in text and not wanted.get("needs_ocr"):
                wrong.append((wanted["id"], text))
    assert not wrong


def test_a_scan_is_quoted_without_ocr_by_what_the_model_reads(first):
    with Pipeline(Settings(index=first[0], ocr="off")) as pipeline:
        stream = pipeline.ask(Question("What is the amount due on the joinery invoice?"))
        text = "".join(stream)
        answer = stream.result()
    assert answer.citations[0].document == "invoice-scan.pdf"
    assert "973.00" in text
    assert any("digits may be wrong" in note for note in answer.notes)
    assert answer.key is None


def test_every_command_is_understood_by_the_command_line():
    understood = set()
    for found in COMMAND.finditer(README):
        words = shlex.split(found["rest"], comments=True)
        command, name = get_command(app), "yomu"
        if found["script"]:
            words.insert(0, "ingest")
        while hasattr(command, "commands"):
            name, *words = words
            command = command.commands[name]
        command.make_context(name, words)
        understood.add(name)
    assert understood >= {"ingest", "ask", "search", "list", "remove", "serve", "verify", "look"}
    assert understood >= {"pull", "build"}
