"""What is asked of a window or a page, and the right answers."""

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.corpus import is_japanese
from training.samples import Line, Window, phrase, rows

ABSENT = {"en": "Not on this page.", "ja": "このページにはありません。"}
AROUND = {  # how people ask for a phrase
    "en": (
        ("What is ", "?"),
        ("Where is ", " described?"),
        ("What does the report say about ", "?"),
        ("How much is ", "?"),
        ("Find the page about ", ""),
        ("When was ", "?"),
        ("Which page shows ", "?"),
    ),
    "ja": (
        ("", "とは何ですか"),
        ("", "はいくつですか。"),
        ("", "について教えてください"),
        ("", "はどこに書いてありますか？"),
        ("", "のページ"),
        ("", "は誰ですか。"),
        ("", "はいつですか"),
    ),
}
MOST_READ = 64  # letters of an answer that is a line
LINKS = {"en": (" in ", " of ", " for ", " and ", ", "), "ja": ("の", "における", "と", "、", " ")}
READ = {
    "en": ["Read the text.", "What does it say?", "Transcribe this line."],
    "ja": ["文字を読んでください。", "何と書いてありますか。", "この行を読んでください。"],
}


@dataclass(frozen=True)
class Asked:
    """A question put to the model and the answer it should give.

    cells  (n,) the cell that shows each character of the answer, -1 for none; None: unknown
    """

    kind: str
    question: str
    answer: str
    cells: NDArray[np.int64] | None = None


def wording(language: str, asked: list[str], other: str, rng: random.Random) -> tuple[str, str]:
    """Return what stands before and behind a phrase that is searched for; often nothing.

    asked  real questions: their beginnings (English) or ends (Japanese) are put around phrases
           that they have nothing to do with, so that words which no page shows count for nothing
    other  another phrase of the same page: people name two things that stand apart
    """
    draw = rng.random()
    if draw < 0.15:
        return rng.choice(AROUND[language])
    if draw < 0.35 and asked:
        question = rng.choice(asked)
        if language == "ja":
            return "", question[-rng.randint(3, 14) :]
        return " ".join(question.split()[: rng.randint(1, 6)]) + " ", rng.choice(("?", ""))
    if draw < 0.5 and other:
        return "", rng.choice(LINKS[language]) + other
    return "", ""


def _language(text: str) -> str:
    return "ja" if is_japanese(text) else "en"


def read_line(line: Line, rng: random.Random) -> list[Asked]:
    """Ask for the whole text of a one-line window."""
    return [Asked("line", rng.choice(READ[_language(line.text)]), line.text, line.cells)]


def ask(
    found: Window, rng: random.Random, count: int, whole: bool, asked: dict[str, list[str]]
) -> list[Asked]:
    """Return up to `count` questions; facts only when the whole page is in view.

    asked  real questions by language (`wording`)
    """
    wanted: list[Asked] = []
    lines = [line for line in rows(found.lines) if len(line.text) >= 8]
    while len(wanted) < count:
        if whole and found.page.facts and rng.random() < 0.4:
            fact = rng.choice(found.page.facts)
            wanted.append(Asked(fact.kind, fact.question, fact.answer))
        elif whole and rng.random() < 0.1:
            wanted.append(_absent(rng, found.page.language))
        elif lines:
            wanted.append(_read_on(rng.choice(lines), rng, asked))
        else:
            break
    return wanted


def _absent(rng: random.Random, language: str) -> Asked:
    value = rng.randint(1000, 99999)
    question = {
        "en": f"What is the value of item {value}?",
        "ja": f"項目{value}の値はいくつですか。",
    }[language]
    return Asked("absent", question, ABSENT[language])


def _read_on(line: Line, rng: random.Random, asked: dict[str, list[str]]) -> Asked:
    """Ask for a few words of a line; the answer is the line from these words on.

    They are found, and what stands behind them is read: the value of a label, the figures of a row.
    """
    language = _language(line.text)
    words, start = phrase(line, rng, language == "ja")
    cut = start + min(len(words), rng.randint(4, 24))  # of many words the first few are asked for
    words = line.text[start:cut].strip() if rng.random() < 0.7 else words
    shown = words.lower() if rng.random() < 0.2 else words
    lead, tail = wording(language, asked[language], "", rng)
    end = _end_of(line.text, start + MOST_READ)
    return Asked("row", f"{lead}{shown}{tail}", line.text[start:end], line.cells[start:end])


def _end_of(text: str, most: int) -> int:
    """Return where an answer ends that may reach to `most`: not within a word."""
    if most >= len(text):
        return len(text)
    if is_japanese(text):
        return most
    return most if " " not in text[:most] else text.rindex(" ", 0, most)
