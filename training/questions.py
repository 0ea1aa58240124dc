"""What is asked of a window or a page, and the right answers."""

import random
import re
from dataclasses import dataclass

from training.corpus import is_japanese
from training.samples import Window

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
LINKS = {"en": (" in ", " of ", " for ", " and ", ", "), "ja": ("の", "における", "と", "、", " ")}
READ = {
    "en": ["Read the text.", "What does it say?", "Transcribe this line."],
    "ja": ["文字を読んでください。", "何と書いてありますか。", "この行を読んでください。"],
}


@dataclass(frozen=True)
class Asked:
    """A question put to the model and the answer it should give."""

    kind: str
    question: str
    answer: str


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


def read_line(text: str, rng: random.Random) -> list[Asked]:
    """Ask for the whole text of a one-line window."""
    return [Asked("line", rng.choice(READ[_language(text)]), text)] if text else []


def ask(found: Window, rng: random.Random, count: int, whole: bool) -> list[Asked]:
    """Return up to `count` questions; facts only when the whole page is in view."""
    asked: list[Asked] = []
    lines = [line.text for line in found.lines if len(line.text) >= 8]
    while len(asked) < count:
        if whole and found.page.facts and rng.random() < 0.7:
            fact = rng.choice(found.page.facts)
            asked.append(Asked(fact.kind, fact.question, fact.answer))
        elif whole and rng.random() < 0.1:
            asked.append(_absent(rng, found.page.language))
        elif lines:
            asked.append(_continue(rng.choice(lines), rng))
        else:
            break
    return asked


def _absent(rng: random.Random, language: str) -> Asked:
    value = rng.randint(1000, 99999)
    question = {
        "en": f"What is the value of item {value}?",
        "ja": f"項目{value}の値はいくつですか。",
    }[language]
    return Asked("absent", question, ABSENT[language])


def _continue(text: str, rng: random.Random) -> Asked:
    """Ask what follows a few words of a line: finding a place and reading on from it."""
    if is_japanese(text):
        start = rng.randrange(max(1, len(text) - 8))
        cut = start + rng.randint(3, 6)
        return Asked(
            "continue", f"「{text[start:cut]}」の続きは?", text[cut : cut + 12] or text[start:]
        )
    words = [m.start() for m in re.finditer(r"\S+", text)]
    first = rng.randrange(max(1, len(words) - 3))
    cut = min(first + rng.randint(1, 3), len(words) - 1)
    if cut <= first:
        return Asked("line", "What does it say?", text)
    head = text[words[first] : words[cut]].strip()
    tail = " ".join(text[words[cut] :].split()[:6])
    return Asked("continue", f'What comes after "{head}"?', tail)
