"""Question and the rows of a page → the few rows that speak of it, word for word.

For a model that finds pages but cannot read answers off them: what the page says is quoted, nothing
is made up. Rows are chosen one by one, each for the question's words that are not covered yet, rare
words counting more (as in BM25), near ones preferred: a table's row, then its heading.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from index.text_layer import words
from rag.rows import CELL_END, FIGURE, joined_lines, width
from rag.table_columns import named_figure
from rag.terms import asked_in_kana, terms

MOST_ROWS = 4
MOST_CHARS = 240
LEAST_SAID = 0.25  # of the question's words: of a page of few words, less is a mere footer
SAID_SHARE = 0.6  # of the question's words: a sentence that has them answers without its page
LEAST_SHARE = 0.1  # of the question's weight that a further row must bring
LINE_CHARS = 36  # wide; a row less wide is a table's or a heading: the next is no part of it
MOST_HEADING = 60  # wide; of what stands over a sentence or figures
RUNNING_CHARS = 20  # a shorter row is no line of a sentence that goes on
FIGURES_HELP = 1.2  # most questions to a report ask for a number
QUESTION_END = re.compile(r"([?？]|か[。．])\W*$")
ANSWER_ROWS = 2  # that follow a question of the page's own
MOST_FURTHER = 2  # rows in which a sentence goes on
LEAST_TICKS = 3
NUMBER = re.compile(r"[-−△▲]?\d[\d,]*(\.\d+)?")
PLAIN = str.maketrans("−△▲", "---", ",")
YEARS = re.compile(r"(19|20)\d\d$")
ENDED = re.compile(r"([.!。！][\"'”’」』]*|、)$")
CAPTION = re.compile(r"(fig|table|chart|source|note|図|表|出典|資料|注|※)", re.IGNORECASE)
HEADED = re.compile(r"[■□●○◆◇▼▽・※•▪–]|注[:：]|第[\d１-９]|[\d１-９]+[.．)）]")  # begins anew
TITLED = re.compile(r"[■□◆◇▼【]")
SENTENCE_END = re.compile(r"[.!?:;。！？：；]\W*$")


def quote(question: str, rows: Sequence[str]) -> str:
    """Return up to four rows that say most of the question's words, in the page's order.

    Beside them the rows in which a sentence begins or ends, or a question of the page is answered.

    "" if no row has any of them. Rows left out between two are shown as " … ", lines of one
    sentence are put in one. A table's row is followed by the figure of the one column that is asked
    for: "Sales 1,300 1,420 (2023: 1,420)". A page of few words, such as a slide with a chart, is
    quoted whole but for the ticks of an axis, unless a sentence or a row of a table says it.
    """
    rows = [row for row in rows if row.strip()]
    texts = [CELL_END.join(" ".join(cell.split()) for cell in row.split(CELL_END)) for row in rows]
    kana = asked_in_kana(question)
    asked = terms(question) | kana
    found = [terms(text) | kana.intersection(words(text)) for text in texts]
    count = Counter(word for row in found for word in row)
    weight = {word: math.log(1 + len(texts) / count[word]) for word in asked & set(count)}
    chosen: list[int] = []
    is_small = sum(map(len, texts)) <= MOST_CHARS
    said_at = _said_at(texts, found, asked) if is_small else None
    if said_at is not None:
        chosen.append(said_at)
    missing = set(weight).difference(*(found[at] for at in chosen))
    least = LEAST_SHARE * sum(weight.values())
    while missing and len(chosen) < MOST_ROWS:
        gains = [
            sum(weight[word] for word in row & missing) * (FIGURES_HELP if _has_figure(text) else 1)
            for row, text in zip(found, texts, strict=True)
        ]
        best = max(range(len(texts)), key=lambda at: (gains[at], _nearness(at, chosen)))
        gain = gains[best]
        if not gain or (chosen and gain < least):
            break
        chosen.append(best)
        missing -= found[best]
    further = _continued(texts, chosen)
    for at in chosen:
        if figure := named_figure(question, rows, at):
            texts[at] = f"{texts[at]} ({figure})"
    if weight and is_small and said_at is None:
        has_all = len(weight) == len(asked) and not missing
        if not (has_all and any(_is_of_table(texts[at]) for at in chosen)):
            says_little = len(weight) < LEAST_SAID * len(asked)
            return "" if says_little else _joined(texts, _but_ticks(texts))
    return _joined(texts, sorted(set(chosen) | further))


def _said_at(
    texts: Sequence[str], found: Sequence[frozenset[str]], asked: frozenset[str]
) -> int | None:
    """Return the row of a sentence, or a clause, that has most of the question and more than it.

    Labels and captions do not say a thing alone: the figures around them do.
    """
    for at, (text, row) in enumerate(zip(texts, found, strict=True)):
        is_said = ENDED.search(text) and not QUESTION_END.search(text) and not CAPTION.match(text)
        if is_said and row - asked and len(row & asked) >= SAID_SHARE * len(asked):
            return at
    return None


def _is_of_table(text: str) -> bool:
    """Whether a row is a name and its figures, not only years."""
    return _ends_in_figure(text) and not YEARS.search(text) and any(map(str.isalpha, text))


def _but_ticks(texts: Sequence[str]) -> list[int]:
    """Return the rows but for numbers along an axis: three or more in a column, evenly spaced."""
    kept: list[int] = []
    at = 0
    while at < len(texts):
        end = _end_of_ticks(texts, at)
        if end - at < LEAST_TICKS:
            end = at + 1
            kept.append(at)
        at = end
    return kept


def _end_of_ticks(texts: Sequence[str], start: int) -> int:
    """Return the row behind the evenly spaced numbers, of one unit, that begin in a row."""
    numbers: list[float] = []
    units: set[str] = set()
    for text in texts[start:]:
        number = NUMBER.search(text) if FIGURE.match(text) else None
        if not number:
            break
        numbers.append(float(number.group().replace(",", "")))
        units.add(NUMBER.sub("", text, count=1).strip())
        steps = [b - a for a, b in pairwise(numbers)]
        is_even = all(math.isclose(step, steps[0], rel_tol=0.01) for step in steps)
        zero = {""} if 0 in numbers else set()  # which often has none
        if not is_even or len(units - zero) > 1:
            numbers.pop()
            break
    return start + len(numbers)


def _has_figure(text: str) -> bool:
    return any(char.isdigit() for char in text)


def _nearness(at: int, chosen: Sequence[int]) -> float:
    """How near a row is to the first; above is nearer: what explains a table's row is over it."""
    if not chosen:
        return 0.0
    return chosen[0] - at if at > chosen[0] else (at - chosen[0]) / 2


def _continued(texts: Sequence[str], chosen: Sequence[int]) -> set[int]:
    """Rows in which a sentence of the chosen ones begins or goes on, or a question is answered."""
    further: set[int] = set()
    for at in chosen:
        end = _end(texts, at)
        if QUESTION_END.search(texts[end]):
            end = _end(texts, min(end + ANSWER_ROWS, len(texts) - 1))
        elif _is_heading(texts[at]):
            end = max(end, _end_below(texts, at))
        further |= set(range(_start(texts, at), end + 1))
    return further


def _is_heading(text: str) -> bool:
    """Whether a row says nothing by itself: a few words, no figures behind them."""
    *numbers, words_of_it = text.split(CELL_END)
    is_name = len(numbers) < 2 and all(map(FIGURE.match, numbers)) and not FIGURE.match(words_of_it)
    return is_name and width(text) < MOST_HEADING and not SENTENCE_END.search(text)


def _end_below(texts: Sequence[str], at: int) -> int:
    """Return the row in which ends what a heading stands over: a sentence, or figures."""
    below = at + 1
    if below < len(texts) and _is_line(texts[below]) and not _is_line(texts[at]):
        return _end(texts, below)
    for end in range(below, min(below + MOST_FURTHER, len(texts))):
        if FIGURE.match(texts[end]):
            return end
    return at


def _end(texts: Sequence[str], at: int) -> int:
    """Return the row in which the sentence of a row ends, or the last one looked at."""
    end = at
    goes_on = _goes_on
    while end - at < MOST_FURTHER and end + 1 < len(texts) and goes_on(texts[end]):
        end += 1
        goes_on = _is_line  # one row of a table may follow another, not the whole of it
    return end


def _start(texts: Sequence[str], at: int) -> int:
    """Return the row in which the sentence of a row begins, or the first one looked at."""
    start = at
    while at - start < MOST_FURTHER and start and CELL_END not in texts[start]:
        if not _is_line(texts[start - 1]) or HEADED.match(texts[start]):
            break
        start -= 1
    return start


def _goes_on(text: str) -> bool:
    is_open = text.endswith("、") or len(text) >= RUNNING_CHARS
    return is_open and not SENTENCE_END.search(text)


def _joined(texts: Sequence[str], chosen: Sequence[int]) -> str:
    """Put chosen rows under each other, lines of one sentence in one."""
    shown = ""
    for n, at in enumerate(chosen):
        text = texts[at]
        if len(text) > MOST_CHARS:
            text = text[: MOST_CHARS - 2].rstrip() + " …"
        if not n:
            shown = text
        elif at != chosen[n - 1] + 1:
            shown += f" …\n{text}"
        elif _is_line(texts[at - 1]) and not (_ends_in_figure(text) or HEADED.match(text)):
            shown = joined_lines(shown, text)
        else:
            shown += f"\n{text}"
    is_last = not chosen or chosen[-1] + 1 == len(texts)
    if not is_last and _is_line(texts[chosen[-1]]) and not shown.endswith(("…", ")", "）")):
        shown += " …"  # the sentence goes on, the quotation does not
    return shown.replace(CELL_END, " ")


def _is_line(text: str) -> bool:
    """Whether a row is a line of running text that goes on in the next; a table's row is not."""
    is_long = text.endswith("、") or width(text) >= LINE_CHARS
    return (
        CELL_END not in text
        and is_long
        and not TITLED.match(text)
        and not _ends_in_figure(text)
        and _goes_on(text)
    )


def _ends_in_figure(text: str) -> bool:
    return bool(FIGURE.match(text.split()[-1]))
