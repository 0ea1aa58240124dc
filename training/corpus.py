"""Text to draw pages from: paragraphs, tables and questions in English and Japanese.

`prepare` reads the archives of a corpora folder once and writes five plain files; `Corpus` loads
them. The text belongs to others: it is drawn and trained on, never copied into the repository.
"""

import csv
import io
import json
import lzma
import random
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

MAX_BYTES = 12_000_000  # per source: more than a short training draws, and it travels
PARAGRAPH_CHARS = (24, 700)
REPEATED = 8  # the one English source that is no novel, and small: a third of what is drawn
CELL_SHARE = 0.3  # of English phrases: cells of tables, as labels and headings of reports are
SYMBOLS = "①②③④⑤⑥⑦⑧⑨⑩⑪⑫●○◎■□◆◇▲△▼▽★☆※→←↑↓〒％℃㎡㎞㈱№±×÷≦≧≠∞"
MARKUP = re.compile(r"[*_#`|]+|^\s*>+|\[\d+\]|［＃[^］]*］|《[^》]*》")
JAPANESE = re.compile(r"[぀-ヿ一-鿿]")


@dataclass(frozen=True)
class Table:
    """A table of text cells; `rows` exclude the header."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Question:
    """A question that its context answers in the context's own words."""

    language: str
    context: str
    question: str
    answer: str


def is_japanese(text: str) -> bool:
    """Tell whether any kana or kanji occurs in the text."""
    return bool(JAPANESE.search(text))


def clean(line: str) -> str:
    """Return a paragraph without markup and with single spaces."""
    return re.sub(r"\s+", " ", MARKUP.sub("", line)).strip()


def prepare(corpora: Path, out: Path) -> None:
    """Write text (en.txt, ja.txt: a paragraph a line), tables and questions into `out`.

    questions.jsonl  with the text that answers them
    asked.txt        without it, one a line: how people word what they ask of tables
    """
    out.mkdir(parents=True, exist_ok=True)
    archives = {path.name.split(".")[0]: path for path in corpora.glob("*.tar.xz")}
    questions = list(_questions(archives))
    tables = list(_tables(archives))
    english = [
        _book(corpora / "english_books_subset.txt.xz"),
        *(_tat_paragraphs(archives) for _ in range(REPEATED)),
    ]
    japanese = [
        _book(corpora / "aozora_modern_subset.txt.xz"),
        _members(archives.get("ict-white-paper"), r"\.txt$"),
        _unspaced(_members(archives.get("small_parallel_enja"), r"train\.ja$")),
        _contexts(questions, "ja"),
    ]
    _write_paragraphs(out / "en.txt", english)
    _write_paragraphs(out / "ja.txt", japanese)
    (out / "asked.txt").write_text("\n".join(_asked(archives)) + "\n", encoding="utf-8")
    _write_json_lines(out / "tables.jsonl", ([list(t.header), *map(list, t.rows)] for t in tables))
    _write_json_lines(
        out / "questions.jsonl",
        (
            [*of, [[q.question, q.answer] for q in same]]
            for of, same in groupby(questions, lambda q: (q.language, q.context))
        ),
    )


def _write_json_lines(path: Path, items: Iterator[object]) -> None:
    lines = (json.dumps(item, ensure_ascii=False) for item in items)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _write_paragraphs(path: Path, sources: list[Iterator[str]]) -> None:
    low, high = PARAGRAPH_CHARS
    kept: list[str] = []
    for source in sources:
        written = 0
        for line in source:
            paragraph = clean(line)[:high]
            if len(paragraph) >= low and written < MAX_BYTES:
                kept.append(paragraph)
                written += len(paragraph.encode())
    random.Random(0).shuffle(kept)
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")


def _book(path: Path) -> Iterator[str]:
    """Yield every nth line so that the byte limit spans the whole file, not its first works."""
    if path.exists():
        with lzma.open(path, "rt", encoding="utf-8") as file:
            yield from (line for number, line in enumerate(file) if number % 5 == 0)


def _members(archive: Path | None, pattern: str) -> Iterator[str]:
    for _, text in _files(archive, pattern):
        yield from text.splitlines()


def _unspaced(lines: Iterator[str]) -> Iterator[str]:
    """Undo word splitting; the English half, lower-cased throughout, is not used at all."""
    yield from ("".join(line.split()) for line in lines)


def _files(archive: Path | None, pattern: str) -> Iterator[tuple[str, str]]:
    if archive is None:
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and re.search(pattern, member.name):
                data = tar.extractfile(member)
                assert data is not None
                yield member.name, data.read().decode("utf-8", "replace")


def _contexts(questions: list[Question], language: str) -> Iterator[str]:
    yield from sorted({q.context for q in questions if q.language == language})


def _questions(archives: dict[str, Path]) -> Iterator[Question]:
    for _, text in _files(archives.get("jaquad"), r"jaquad_train.*\.json$"):
        yield from _squad(json.loads(text), "ja")
    for _, text in _files(archives.get("jglue-jsquad-etc"), r"/jsquad-v[^/]*/valid[^/]*\.json$"):
        yield from _squad(json.loads(text), "ja")
    for item in _tat_items(archives):
        yield from _tat_questions(item)


def _squad(data: dict, language: str) -> Iterator[Question]:
    for article in data["data"]:
        for paragraph in article["paragraphs"]:
            context = paragraph["context"].split("[SEP]")[-1]
            for qa in paragraph["qas"]:
                answer = qa["answers"][0]["text"] if qa["answers"] else ""
                if answer and answer in context and len(answer) <= 40:
                    yield Question(language, clean(context), clean(qa["question"]), clean(answer))


def _tat_paragraphs(archives: dict[str, Path]) -> Iterator[str]:
    for item in _tat_items(archives):
        yield from (paragraph["text"] for paragraph in item["paragraphs"])


def _tat_items(archives: dict[str, Path]) -> Iterator[dict]:
    for _, text in _files(archives.get("tat-qa"), r"tatqa_dataset_(dev|test_gold)\.json$"):
        yield from json.loads(text)


def _tat_questions(item: dict) -> Iterator[Question]:
    paragraphs = {str(p["order"]): clean(p["text"]) for p in item["paragraphs"]}
    for qa in item["questions"]:
        if qa["answer_from"] == "text" and qa["answer_type"] == "span" and qa["rel_paragraphs"]:
            context = paragraphs.get(qa["rel_paragraphs"][0], "")
            answer = clean(str(qa["answer"][0]))
            if answer and answer in context and len(answer) <= 60:
                yield Question("en", context, clean(qa["question"]), answer)


def _asked(archives: dict[str, Path]) -> Iterator[str]:
    for _, text in _files(archives.get("wikitablequestions"), r"/data/training\.tsv$"):
        yield from (clean(line.split("\t")[1]) for line in text.splitlines()[1:])


def _tables(archives: dict[str, Path]) -> Iterator[Table]:
    for _, text in _files(archives.get("wikitablequestions"), r"csv/.*\.csv$"):
        rows = list(csv.reader(io.StringIO(text), escapechar="\\"))
        yield from _table(rows)
    for item in _tat_items(archives):
        yield from _table(item["table"]["table"])


def _table(rows: list[list[str]]) -> Iterator[Table]:
    cleaned = [tuple(clean(cell)[:32] for cell in row) for row in rows if any(row)]
    if len(cleaned) >= 3 and len(cleaned[0]) >= 2:
        width = len(cleaned[0])
        body = tuple(row for row in cleaned[1:] if len(row) == width)
        if len(body) >= 2:
            yield Table(cleaned[0], body)


def characters(folder: Path, known: int = 3900, drawn: int = 4500) -> tuple[str, str]:
    """Return the characters that get a class of their own, and those that fonts must have."""
    counts = Counter()
    for path in sorted(folder.iterdir()):
        counts.update(path.read_text(encoding="utf-8"))
    common = [c for c, _ in counts.most_common(drawn) if c > " "]
    classes = {c for c in common[:known] if counts[c] > 20} | {chr(i) for i in range(33, 127)}
    kana = {chr(i) for i in (*range(0x3001, 0x3100), *range(0xFF01, 0xFF9F))}
    return "".join(sorted(classes | set(SYMBOLS))), "".join(sorted({*common, *kana, *SYMBOLS}))


class Corpus:
    """Paragraphs, tables and questions of a prepared folder, drawn by a given random source."""

    def __init__(self, folder: Path) -> None:
        self.paragraphs = {
            language: (folder / f"{language}.txt").read_text(encoding="utf-8").splitlines()
            for language in ("en", "ja")
        }
        self.tables = [
            Table(tuple(rows[0]), tuple(map(tuple, rows[1:])))
            for rows in _read_json_lines(folder / "tables.jsonl")
        ]
        cells = {cell for table in self.tables for row in table.rows for cell in row[:1]}
        self.labels = sorted(cell for cell in cells if re.search(r"[A-Za-z]{3}", cell))
        self.questions = {
            language: [q for q in self._load_questions(folder) if q.language == language]
            for language in ("en", "ja")
        }
        self.asked = {
            language: [each.question for each in found]
            for language, found in self.questions.items()
        }
        self.asked["en"] += (folder / "asked.txt").read_text(encoding="utf-8").splitlines()

    @staticmethod
    def _load_questions(folder: Path) -> list[Question]:
        return [
            Question(language, context, question, answer)
            for language, context, asked in _read_json_lines(folder / "questions.jsonl")
            for question, answer in asked
        ]

    def paragraph(self, rng: random.Random, language: str) -> str:
        """Return one paragraph."""
        return rng.choice(self.paragraphs[language])

    def phrase(self, rng: random.Random, language: str, words: int) -> str:
        """Return a short piece of text, about `words` words (three characters each in Japanese)."""
        if language == "en" and self.labels and rng.random() < CELL_SHARE:
            return rng.choice(self.labels)
        text = self.paragraph(rng, language)
        if language == "ja":
            pieces = [p for p in re.split(r"[。、！？「」『』（）()・ ]", text) if len(p) > 1]
            return rng.choice(pieces or [text])[: 3 * words + 1]
        tokens = text.split()
        start = rng.randrange(max(1, len(tokens) - words))
        return " ".join(tokens[start : start + words]).strip(".,;:!?\"'“”‘’ ") or tokens[0]


def _read_json_lines(path: Path) -> Iterator[list]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)
