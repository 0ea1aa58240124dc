"""The README's first command, with the embedded model, as a new user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
QUESTION = "What were the total sales in 2023?"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    variables = {k: v for k, v in os.environ.items() if not k.startswith("YOMU_")}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True
    )


def test_the_first_command_answers_from_the_right_page(tmp_path):
    readme = (ROOT / "README.md").read_text("utf-8")
    assert f'uv run ingest.py samples/ --ask "{QUESTION}"' in readme
    index = tmp_path / "index"
    first = run("ingest.py", "samples/", "--ask", QUESTION, "--index", index, "--ocr", "off")
    assert "1,420" in first.stdout
    assert "Read from: annual-report.pdf, p. 1" in first.stdout
    # the embedded model does not answer by itself yet, and says so
    assert "these are the words of the pages" in first.stderr
    own = run("-m", "rag", "ask", QUESTION, "--index", index, "--generate", "--json")
    answer = json.loads(own.stdout)
    assert answer["timings"]["tokens"] > 0
    assert answer["stop_reason"] != "quoted"
    assert answer["citations"] == [{"document": "annual-report.pdf", "page": 1}]
