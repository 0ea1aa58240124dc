"""`yomu ask` and `ingest --ask` over samples/, as people run them, on a tiny random model.

What a random model writes means nothing: these tests look at which pages are read, what is printed
where, and how failures are told.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from index.fusion import DEFAULT
from index.records import Filters
from rag.answer import Question
from rag.manner import AnswerOptions
from rag.page_choice import PageRef
from rag.pipeline import Pipeline
from rag.settings import Settings
from tests import odd_files as odd
from tests.e2e.conftest import SAMPLE_QUESTIONS
from tests.e2e.test_ingest import Yomu

ROOT = Path(__file__).parent.parent.parent
SAMPLES = ROOT / "samples"
CONTRACT = {"id", "question", "answer", "abstained", "citations", "hits", "timings"}
KETTLE = "What is the capacity of the kettle?"


def answer_from(folder: Path, threshold: float) -> None:
    """Set from which score on a page counts as an answer, whatever the random model sees."""
    fusion = replace(DEFAULT, outstanding=0.0, visual=0.0, threshold=threshold)
    (folder / "fusion.json").write_text(json.dumps(asdict(fusion)))


@pytest.fixture
def model(both_roles, tmp_path) -> Path:
    """A model folder of the test's own; the text decides, and any page counts as an answer."""
    folder = Path(shutil.copytree(both_roles, tmp_path / "model"))
    answer_from(folder, 0.0)
    return folder


@pytest.fixture
def yomu(tmp_path, model, monkeypatch) -> Yomu:
    for name, value in {
        "INDEX": tmp_path / "index", "MODEL": model, "OCR": "off", "DEVICE": "cpu", "READERS": 1,
    }.items():  # fmt: skip
        monkeypatch.setenv(f"YOMU_{name}", str(value))
    return Yomu(tmp_path / "index")


@pytest.fixture
def asked(yomu, samples_index) -> Yomu:
    """The command line on an index of samples/."""
    shutil.copytree(samples_index, yomu.index)
    return yomu


def pages(listed) -> list[tuple[str, int]]:
    return [(each["document"], each["page"]) for each in listed]


def process(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PYTHONWARNINGS": "error", "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip


def test_ingest_and_ask_in_one_command(yomu):
    """The README's first command, as a process."""
    done = process("ingest.py", SAMPLES, "--ask", KETTLE, "--json")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    report = json.loads(line)
    assert report["documents"]["added"] == 5
    assert report["pages"] == {"added": 7, "failed": 0}
    answer = report["ask"]
    assert answer.keys() >= CONTRACT
    assert answer["question"] == KETTLE
    assert answer["answer"].strip()
    assert pages(answer["citations"])[0] == ("kettle-manual.pdf", 1)

    again = process("ingest.py", SAMPLES, "--ask", KETTLE)
    assert again.returncode == 0, again.stderr
    assert "5 unchanged" in again.stdout
    assert again.stdout.rstrip().splitlines()[-1].startswith("Read from: kettle-manual.pdf, p. 1")
    assert "Reading kettle-manual.pdf, p. 1" in again.stderr


def test_answer_as_json(asked):
    answer = asked.json("ask", KETTLE, "--pages", "2", "--max-new-tokens", "4")
    assert answer.keys() == CONTRACT | {"pages", "stop_reason", "notes"}
    assert answer["id"] is None
    assert answer["abstained"] is False
    assert answer["notes"] == []
    assert len(answer["hits"]) == 5
    assert sorted(pages(answer["citations"])) == sorted(pages(answer["hits"][:2]))
    assert pages(answer["pages"]) == pages(answer["citations"])
    timings = answer["timings"]
    assert timings.keys() >= {"encode_query", "search", "prefill", "decode", "tokens"}
    assert 1 <= timings["tokens"] <= 4
    assert min(timings[name] for name in ("encode_query", "search", "prefill", "decode")) > 0


def test_people_see_pages_first_and_last(asked):
    done = asked.run("ask", KETTLE, "--pages", "1", "--max-new-tokens", "4")
    assert done.err == (
        "Reading kettle-manual.pdf, p. 1 …\n"
        "yomu: cut after 4 tokens; --max-new-tokens allows more\n"
    )
    *text, blank, last = done.out.splitlines()
    assert "".join(text).strip()
    assert (blank, last) == ("", "Read from: kettle-manual.pdf, p. 1")


def test_the_same_question_has_the_same_answer(asked):
    first, second = (asked.json("ask", KETTLE, "--max-new-tokens", "6") for _ in range(2))
    assert first["answer"] == second["answer"]


def test_neighbours_are_read_but_not_cited(asked):
    answer = asked.json("ask", KETTLE, "--pages", "1", "--neighbours", "2", "--max-new-tokens", "2")
    assert pages(answer["citations"]) == [("kettle-manual.pdf", 1)]
    assert pages(answer["pages"]) == [("kettle-manual.pdf", 1), ("kettle-manual.pdf", 2)]


def test_japanese(asked):
    answer = asked.json("ask", "花火大会はいつ開かれましたか。", "--pages", "1", "-k", "1")
    assert pages(answer["citations"]) == pages(answer["hits"]) == [("tourism-ja.pdf", 1)]


def test_abstaining_names_the_nearest_pages(asked, model):
    answer_from(model, 1.1)
    answer = asked.json("ask", KETTLE)
    assert answer["abstained"] is True
    assert answer["answer"] == "Not found in these documents."
    assert answer["citations"] == answer["pages"] == []
    assert pages(answer["hits"])[0] == ("kettle-manual.pdf", 1)
    assert answer["timings"]["tokens"] == 0
    done = asked.run("ask", KETTLE, "-k", "2")
    assert done.err == ""
    first, _, nearest = done.out.splitlines()
    assert first == "Not found in these documents."
    assert nearest.startswith("The nearest pages: kettle-manual.pdf, p. 1; ")


def test_a_japanese_question_has_japanese_words_around_its_answer(asked, model):
    question = "花火大会はいつ開かれましたか。"
    done = asked.run("ask", question, "--pages", "1", "-k", "1", "--max-new-tokens", "2")
    assert done.err == (
        "tourism-ja.pdf 1ページを読んでいます…\n"
        "yomu: 2トークンで打ち切りました。--max-new-tokensで増やせます\n"
    )
    assert done.out.splitlines()[-1] == "参照したページ: tourism-ja.pdf 1ページ"
    answer_from(model, 1.1)
    done = asked.run("ask", question, "-k", "1")
    assert done.out.splitlines()[0] == "これらの文書には見つかりませんでした。"
    assert done.out.splitlines()[-1].startswith("近いページ: tourism-ja.pdf 1ページ; ")
    assert "答えになりそうなページは" in asked.run("search", question).out


def test_abstaining_says_that_not_everything_was_read(asked, model, tmp_path):
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "broken.pdf").write_bytes(b"")
    asked.run("ingest", folder, code=1)
    assert "not read to the end" not in asked.run("ask", KETTLE, "--max-new-tokens", "2").err
    answer_from(model, 1.1)
    assert "1 of 6 documents are not read to the end" in asked.run("ask", KETTLE).err
    assert "6件の文書のうち1件は" in asked.run("ask", "？？？").err
    with Pipeline(Settings.resolve(index=asked.index, model=str(model))) as pipeline:
        for where, said in (({}, 1), ({"document": "kettle*"}, 0), ({"folder": "elsewhere"}, 0)):
            stream = pipeline.ask(Question(KETTLE), filters=Filters(**where))
            assert len(stream.notes) == said, where


def test_no_page_has_a_word_of_the_question(asked):
    done = asked.run("ask", "xyzzy plugh", "--mode", "text")
    assert done.out == "Not found in these documents.\n"


def test_the_model_folder_says_how_many_pages(asked, model):
    (model / "answer.json").write_text('{"pages": 1, "system": null, "max_new_tokens": 2}')
    answer = asked.json("ask", KETTLE)
    assert len(answer["citations"]) == 1
    assert answer["timings"]["tokens"] <= 2


def test_a_model_that_quotes_reads_from_three_pages_or_from_as_many_as_wanted(asked, model):
    (model / "answer.json").write_text('{"pages": 1, "quotes": true}')
    question = "sales electricity kettle"
    several = asked.json("ask", question)
    assert 1 < len(several["citations"]) <= 3
    assert several["answer"].count(", p. ") >= len(several["citations"])
    alone = asked.json("ask", question, "--pages", "1")
    assert pages(alone["citations"]) == pages(several["citations"])[:1]


def test_a_follow_up_of_quotations_keeps_the_page_that_speaks_of_it(asked, model):
    (model / "answer.json").write_text('{"pages": 1, "quotes": true}')
    kept = (PageRef("kettle-manual.pdf", 1),)
    with Pipeline(Settings.resolve(index=asked.index, model=str(model))) as pipeline:
        stream = pipeline.ask(Question("And the capacity?", history=((KETTLE, "1.7"),), kept=kept))
        assert "1.7 litres" in "".join(stream)
        assert kept[0].key in [page.key for page in stream.pages]


def test_a_follow_up_is_understood_with_the_question_before_it(asked, model):
    (model / "answer.json").write_text('{"pages": 1, "quotes": true}')
    sales = ("What were the total sales in 2023?", "Total 1,300 1,420 (2023: 1,420)")
    kept = (PageRef("annual-report.pdf", 1),)
    with Pipeline(Settings.resolve(index=asked.index, model=str(model))) as pipeline:

        def ask(text, filters=None):
            stream = pipeline.ask(Question(text, history=(sales,), kept=kept), filters=filters)
            return "".join(stream), [page.document for page in stream.pages]

        answer, documents = ask("And in 2022?")
        assert "(2022: 1,300)" in answer
        assert "annual-report.pdf" in documents
        answer, documents = ask("What is the capacity of the kettle?")  # about something else
        assert "1.7 litres" in answer
        assert "annual-report.pdf" not in documents
        _, documents = ask("And in 2022?", Filters(document="kettle*"))
        assert set(documents) <= {"kettle-manual.pdf"}


def test_only_some_documents(asked):
    answer = asked.json("ask", KETTLE, "--document", "annual*", "--max-new-tokens", "2")
    assert {name for name, _ in pages(answer["hits"])} == {"annual-report.pdf"}
    answer = asked.json("ask", KETTLE, "--language", "japanese", "--max-new-tokens", "2")
    found = {name for name, _ in pages(answer["hits"])}
    assert "tourism-ja.pdf" in found
    assert not {"annual-report.pdf", "kettle-manual.pdf"} & found
    assert (
        "is after"
        in asked.run("ask", "x", "--date-from", "2024-01-02", "--date-to", "2024-01-01", code=2).err
    )


def test_many_questions(asked, tmp_path):
    lines = [{"id": 7, "question": KETTLE}, {"question": "夏の来訪者は何人ですか。"}]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    done = asked.run("ask", "--questions", tmp_path / "q.jsonl", "--max-new-tokens", "2")
    first, second = (json.loads(line) for line in done.out.splitlines())
    assert (first["id"], second["id"]) == ("7", None)
    assert pages(first["hits"])[0] == ("kettle-manual.pdf", 1)
    assert pages(second["hits"])[0] == ("tourism-ja.pdf", 1)


def test_one_question_of_many_fails(asked, tmp_path):
    lines = [
        {"id": 0, "question": " "},
        {"id": "longer", "question": "kettle " * 2000},
        {"id": "long", "question": "k é " * 2000},
        {"id": "short", "question": KETTLE},
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = asked.run("ask", "--questions", tmp_path / "q.jsonl", "--max-new-tokens", "2", code=1)
    *failed, answered = (json.loads(line) for line in done.out.splitlines())
    for each, says in zip(failed, ("is empty", "8000 are the most", "context"), strict=True):
        assert each.keys() == {"id", "question", "error"}
        assert says in each["error"]
    assert "question 0: " in done.err
    assert "question long: " in done.err
    assert answered["answer"]


def test_questions_of_the_samples_can_be_asked(asked):
    """They are a --questions file as they are; text finds the pages that have it."""
    done = asked.run(
        "ask", "--questions", SAMPLE_QUESTIONS, "--max-new-tokens", "1", "--pages", "1"
    )
    answers = [json.loads(line) for line in done.out.splitlines()]
    wanted = [json.loads(line) for line in SAMPLE_QUESTIONS.read_text().splitlines()]
    assert [each["id"] for each in answers] == [each["id"] for each in wanted]
    right = [
        pages(found["hits"])[0] == (want["document"], want["page"])
        for found, want in zip(answers, wanted, strict=True)
    ]
    assert sum(right) >= 11  # all but those about the scan, which has no text layer


def test_a_page_whose_file_is_gone_is_read_from_its_small_image(yomu, tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    odd.text_pdf(folder / "a.pdf", ["walnut carpentry"])
    yomu.json("ingest", folder)
    (folder / "a.pdf").unlink()
    answer = yomu.json("ask", "walnut", "--max-new-tokens", "2")
    assert pages(answer["citations"]) == [("a.pdf", 1)]
    (note,) = answer["notes"]
    assert "a.pdf, p. 1: only its small stored image could be used: its file cannot be" in note
    odd.text_pdf(folder / "a.pdf", ["something else"])
    (note,) = yomu.json("ask", "walnut", "--max-new-tokens", "2")["notes"]
    assert "has changed since; `yomu ingest` reads it anew" in note
    shutil.rmtree(yomu.index / "images")
    (line,) = yomu.run("ask", "walnut", "--json", code=2).err.splitlines()
    assert line.startswith("yomu: no page can be read any more: a.pdf, p. 1 is left out")


def test_a_touched_file_is_still_the_same(yomu, tmp_path):
    odd.text_pdf(tmp_path / "a.pdf", ["walnut carpentry"])
    yomu.json("ingest", tmp_path / "a.pdf")
    os.utime(tmp_path / "a.pdf", (0, 0))
    assert yomu.json("ask", "walnut", "--max-new-tokens", "2")["notes"] == []


def test_a_conversation_keeps_its_pages(samples_index, model):
    settings = Settings(index=samples_index, model=str(model), ocr="off", device="cpu")
    options = AnswerOptions(pages=1, max_new_tokens=2)
    with Pipeline(settings) as pipeline:
        first = pipeline.ask(Question(KETTLE), options)
        text = "".join(first)
        follow_up = Question("xyzzy", history=((KETTLE, text),), kept=first.pages)
        second = pipeline.ask(follow_up, options)
        assert second.pages[0] == first.pages[0] == PageRef("kettle-manual.pdf", 1)
        gone = pipeline.ask(Question("xyzzy", kept=(PageRef("gone.pdf", 1),)), options)
        assert gone.pages[0] == PageRef("gone.pdf", 1)
        list(gone)
        assert "gone.pdf, p. 1 is left out" in gone.notes[0]


def test_control_characters_never_reach_the_terminal(asked, monkeypatch):
    from models.text import Detokenizer

    monkeypatch.setattr(Detokenizer, "push", lambda self, token: "red\x1b[31m\x07")
    done = asked.run("ask", KETTLE, "--pages", "1", "--max-new-tokens", "1")
    assert "\x1b" not in done.out
    assert "\x07" not in done.out
    assert done.out.startswith("red[31m")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ask", KETTLE], "no index in"),
        (["ask"], "give a QUESTION or --questions"),
        (["ask", "x", "--questions", "q.jsonl"], "leave out QUESTION"),
        (["ask", "--questions", "missing.jsonl"], "missing.jsonl: cannot be read"),
        (["ask", "--questions", "empty.jsonl"], "empty.jsonl: holds no question"),
        (["search", "--queries", "empty.jsonl"], "empty.jsonl: holds no query"),
        (["ask", "--questions", "wrong.jsonl"], "wrong.jsonl:1: wanted"),
        (["ask", "x", "--pages", "0"], "--pages"),
        (["ask", "x", "--neighbours", "-1"], "--neighbours"),
        (["ask", "x", "--max-new-tokens", "0"], "--max-new-tokens"),
        (["ask", "x", "--mode", "magic"], "magic"),
        (["ingest", ".", "--ask", " "], "the question is empty"),
        (["ingest", ".", "--ask", "x", "--dry-run"], "leave out --dry-run"),
    ],
)
def test_every_failure_has_one_clear_line(yomu, monkeypatch, tmp_path, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "wrong.jsonl").write_text('{"query": "wrong key"}\n')
    done = yomu.run(*arguments, code=2)
    assert done.out == ""
    (line,) = done.err.strip().splitlines()
    assert line.startswith("yomu: ")
    assert says in line
    assert not yomu.index.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ask", " "], "the question is empty"),
        (["ask", "x", "--document", "nope*"], "no document matches 'nope*'"),
        (["ask", "k é " * 2000], "context"),
    ],
)
def test_failures_on_an_index(asked, arguments, says):
    done = asked.run(*arguments, "--json", code=2)
    assert done.out == ""
    (line,) = done.err.strip().splitlines()
    assert says in line


def test_an_emptied_index(asked):
    asked.json("remove", "*")
    assert "holds no document" in asked.run("ask", KETTLE, code=2).err


def test_a_model_that_cannot_answer(yomu, corpus, tiny_model, monkeypatch):
    """Ingest is done and says so; the question alone failed."""
    monkeypatch.setenv("YOMU_MODEL", str(tiny_model))
    done = yomu.run("ingest", corpus, "--ask", "cider orchard", "--json", code=1)
    report = json.loads(done.out)
    assert report["documents"]["added"] == 4
    assert report["ask"] is None
    assert "is no generator" in done.err.splitlines()[-1]
    assert "is no generator" in yomu.run("ask", "cider orchard", code=2).err


def test_failed_documents_do_not_keep_the_question_from_its_answer(yomu, corpus):
    (corpus / "broken.pdf").write_bytes(b"nothing")
    report = yomu.json("ingest", corpus, "--ask", "cider orchard", code=1)
    assert report["failures"][0]["document"] == "broken.pdf"
    assert pages(report["ask"]["hits"])[0] == ("first.pdf", 1)
