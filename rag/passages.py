"""Rows of a page → passages to quote: running text by its sentences, everything else row by row.

A text layer has the lines of a sentence as rows of their own; quoted by line, an answer would begin
and end where the column does. Rows of tables, headings and lists stay as they are.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rag.rows import CELL_END, FIGURE, joined_lines, width

LINE_CHARS = 36  # wide; a row less wide is a table's or a heading, unless its letters go on
LEAST_LINE = 16  # wide; no column of text is narrower
COLUMN_SHARE = 0.7  # of the width of the lines around it that a line fills
WIDE_SHARE = 0.85  # of Japanese, whose words may be divided anywhere
NARROWER = 1.5  # times: what follows stands in another column
COLUMN_REACH = 3  # lines around it
MOST_LINES = 100
MANY_WORDS = 5  # before a figure: it ends a line of text, not a row of a table
FEW_WORDS = 4  # a name may end with a dot: "Example Inc."
MARK = r"[＊*†‡※]\s?\d{0,2}+"  # of a footnote
MARK_ALONE = re.compile(rf"{MARK}[。、.]?")
MARK_INSIDE = re.compile(rf"{MARK}[\u3041-\u309f、。）」]")  # of a sentence
MARK_CELL = re.compile(rf"{CELL_END}(?={MARK}[。、.]?$)")
NOISE = re.compile(
    r"(page|p\.)\s*\d+(\s*(of|/)\s*\d+)?|[-–—]\s*\d+\s*[-–—]|[←→↑↓].*|[^\W\d]|\W", re.I
)
BULLET = re.compile("[•·●▪◦‣]")
LONE_LETTER = re.compile(r"[\u3400-\u9fff々]")  # says something: 春 over its figures
HEADED = re.compile(  # begins anew; not with a mark inside a sentence, 「…法」＊21に
    r"[■□●○◆◇▼▽・•·▪◦‣–]|[^\s:：、。]{1,10}：|注[:：]|第[\d１-９]|[\d１-９]{1,2}[.．)）]\s?(?=[^\d\s])|"
    rf"[(（][\d１-９ア-ンa-z]{{1,2}}[)）]|{MARK}(?![\u3041-\u309f、。）」\d])"
)
TITLED = re.compile(
    r"[■□◆◇▼【]|図表|[図表]\s?\d|第\S{1,8}[図表]|(fig|fig\.|figure|table|chart)\s?\d", re.IGNORECASE
)
SENTENCE_END = re.compile(r"[.!?:;。！？：；]\W*$")
COMPLETE = re.compile(r"[.!?。！？][\"'”’」』)）]*$|[^\W\d][.。]\d{1,2}$")  # with a footnote's mark
# "Inc. The" ends nothing, nor do a lone letter ("U.S. Army") and 。 inside of brackets.
SENTENCES = re.compile(
    r"(?<=[。！？])(?![」』）)])"
    r"|(?<=[^\W\d_A-Z][^\W_A-Z][.!?])(?<!\bInc\.)(?<!\bNo\.)(?<!\bal\.)(?<!\bvs\.)(?<!\bFig\.)"
    r"(?<!\bLtd\.)(?<!\bCorp\.)(?<!\bDr\.)(?<!\bMr\.)(?<!\bSt\.)\s+(?=[A-Z“\"‘(])"
    r"|(?<=[A-Z]{3}[.!?])\s+(?=[A-Z“\"‘(])|(?<=[\d%)”\"’][.!?])\s+(?=[A-Z“\"‘(])"
)
GOES_ON_BEHIND = re.compile(
    r"([,、–-]|(?<![.\w])(of|the|a|an|and|or|to|in|for|by|with|on|at|from|that|is|are|was|be|as)"
    r"|[\u3040-\u309f])$"
)
GOES_ON_BEFORE = re.compile(rf"[a-z\u3041-\u309f、。]|{MARK}[\u3041-\u309f、。）」]")
WIDE_END = re.compile(r"[\u3040-\u30ff\u3400-\u9fff々、Ａ-Ｚａ-ｚ０-９]$")
# A particle before what it cannot begin a sentence with, a small letter, the end of a bracket.
BEGUN_BEFORE = re.compile(
    r"[a-z]|[、。）」』をんっゃゅょー]|[はがのにとで][\u30a0-\u30ff\u3400-\u9fff\d、]"
)


@dataclass(frozen=True)
class Passage:
    """What is quoted in one piece.

    text          of a row, cells divided by CELL_END, or of a sentence
    row           number of the row on the page; None for a sentence
    follows       whether it goes on in the paragraph of the passage before
    is_cut        whether its end is not known: the column ends before it does
    """

    text: str
    row: int | None = None
    follows: bool = False
    is_cut: bool = False

    @property
    def is_sentence(self) -> bool:
        """Whether it is running text."""
        return self.row is None

    @property
    def is_begun_before(self) -> bool:
        """Whether it begins in the middle of a sentence."""
        return self.is_sentence and not self.follows and bool(BEGUN_BEFORE.match(self.text))


def passages_of(rows: Sequence[str]) -> list[Passage]:
    """Return the passages of a page in its order, without numbers of pages and lone letters."""
    spaced = (CELL_END.join(" ".join(cell.split()) for cell in row.split(CELL_END)) for row in rows)
    texts = _with_bullets([MARK_CELL.sub("", text) for text in spaced])
    kept = [at for at, text in enumerate(texts) if not is_noise(text)]
    lines = [texts[at] for at in kept]
    found: list[Passage] = []
    start = 0
    while start < len(lines):
        end = start
        while end + 1 < len(lines) and end - start < MOST_LINES and goes_on(lines, end):
            end += 1
        if end == start and not _is_whole_sentence(lines[start]):
            found.append(Passage(lines[start], kept[start]))
        else:
            found += _sentences(lines, start, end)
        start = end + 1
    return found


def _with_bullets(texts: Sequence[str]) -> list[str]:
    """Return rows with a bullet that is a row of its own put before the next one."""
    found: list[str] = []
    bullet = ""
    for text in texts:
        if BULLET.fullmatch(text):
            bullet = f"{text} "
            found.append("")
        else:
            found.append(f"{bullet}{text}" if text else text)
            bullet = ""
    return found


def is_noise(text: str) -> bool:
    """Whether a row is no part of any answer: a page's number, an arrow, a lone mark or letter."""
    if not text or MARK_ALONE.fullmatch(text):
        return True
    return bool(NOISE.fullmatch(text)) and not LONE_LETTER.fullmatch(text)


def _is_whole_sentence(line: str) -> bool:
    if CELL_END in line or not COMPLETE.search(line) or _ends_in_figure(line):
        return False
    return "。" in line[-2:] or len(line.split()) >= FEW_WORDS


def _sentences(lines: Sequence[str], start: int, end: int) -> list[Passage]:
    text = lines[start]
    for line in lines[start + 1 : end + 1]:
        text = joined_lines(text, _first_of_cells(line))
    is_whole = SENTENCE_END.search(text) or end + 1 == len(lines) or not _fills(lines, end)
    parts = [part.strip() for part in SENTENCES.split(text) if part and part.strip()]
    last = len(parts) - 1
    return [
        Passage(part, None, follows=n > 0, is_cut=n == last and not is_whole)
        for n, part in enumerate(parts)
    ]


def goes_on(lines: Sequence[str], at: int) -> bool:
    """Whether a row is a line of running text that goes on in the next; a table's row is not."""
    line, after = lines[at], lines[at + 1]
    if CELL_END in line or TITLED.match(line) or SENTENCE_END.search(line):
        return False
    is_begun = bool(GOES_ON_BEFORE.match(after))
    is_open = bool(GOES_ON_BEHIND.search(line))
    is_next = not HEADED.match(after) and ((is_begun and is_open) or not _is_narrower(lines, at))
    if not is_next or (CELL_END in after and not COMPLETE.search(_first_of_cells(after))):
        return False
    if _ends_in_figure(line):
        is_text = len(line.split()) >= MANY_WORDS or width(line) >= LINE_CHARS
        is_begun = after[0].islower() or bool(MARK_INSIDE.match(after))
        return is_text and (line.endswith((",", "–")) or is_begun)
    if _ends_in_figure(after) and not (COMPLETE.search(after) or after.endswith(",")):
        return False
    if line.endswith("、") or (is_begun and is_open and width(line) >= LEAST_LINE):
        return True
    is_long = width(line) >= LINE_CHARS
    if not _fills(lines, at):
        return (is_long and is_begun) or (is_open and bool(MARK_INSIDE.match(line)))
    return is_begun or is_open or (is_long and not _is_title(line))


def _is_narrower(lines: Sequence[str], at: int) -> bool:
    """Whether what follows a line stands in another column, which is narrower."""
    column = max(width(line) for line in lines[at + 1 : at + 1 + COLUMN_REACH])
    return width(lines[at]) > NARROWER * column and not COMPLETE.search(lines[at + 1])


def _is_title(line: str) -> bool:
    """Whether all words of some length begin with a capital."""
    words = [word for word in line.split() if word[0].isalpha() and len(word) > 3]
    return len(words) > 1 and all(word.isascii() and word[0].isupper() for word in words)


def _fills(lines: Sequence[str], at: int) -> bool:
    """Whether a line is about as wide as the column it stands in.

    Footnotes or the lines of another column may be wider: of the next lines before and behind it,
    two beside each other that are as wide as it is are of its own.
    """
    line = lines[at]
    if width(line) < LEAST_LINE:
        return False
    share = WIDE_SHARE if WIDE_END.search(line) else COLUMN_SHARE
    around = lines[max(0, at - COLUMN_REACH) : at + COLUMN_REACH + 1]
    column = max(width(each) for each in around if CELL_END not in each or each is line)
    next_ones = [*lines[max(0, at - 2) : at], *lines[at + 1 : at + 3]]
    are_as_wide = [_is_as_wide(each, line, share) for each in next_ones]
    return width(line) >= share * column or any(map(all, pairwise(are_as_wide)))


def _is_as_wide(line: str, other: str, share: float) -> bool:
    narrow, wide = sorted((width(line), width(other)))
    return CELL_END not in line and narrow >= share * wide


def _first_of_cells(line: str) -> str:
    return line.split(CELL_END)[0]


def _ends_in_figure(text: str) -> bool:
    return bool(FIGURE.match(text.split()[-1]))
