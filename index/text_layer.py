"""Text of pages and questions as the words that full-text search compares.

Folding is Unicode NFKC (full-width and half-width forms become one) and casefold. Chinese, Japanese
and Korean have no spaces: runs of their letters become overlapping pairs (bigrams; one letter alone
stays alone). Everything else is split into words. SQLite's FTS5 indexes the result and ranks with
BM25 (k1 1.2, b 0.75).
"""

import re
import unicodedata

# Hiragana, katakana, CJK ideographs with extensions, Hangul; ー and 々 belong to the words they
# lengthen or repeat.
CJK = "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
CJK += "\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U000323af"
RUNS = re.compile(f"([{CJK}]+)|([^\\W_]+(?:['’][^\\W\\d_]+)?)")
CJK_FIRST = re.compile(f"[{CJK}]")
# Words that say nothing of what a text is about, and endings in hiragana.
EMPTY = frozenset(
    "a an and are as at be by did do does for from had has have how in is it its many much of on "
    "or that the their there these they this to was were what when where which who whom why will "
    "with".split()
)
HIRAGANA = re.compile(r"[\u3041-\u309f\u30fc]+")
WORD_IN_MIXED = re.compile(f"[{CJK}]+|[^{CJK}]+")


def words(text: str) -> list[str]:
    """Split a text into folded words and bigrams, in order."""
    found: list[str] = []
    for match in RUNS.finditer(unicodedata.normalize("NFKC", text).casefold()):
        for run in WORD_IN_MIXED.findall(match.group()):
            if CJK_FIRST.match(run) and len(run) > 1:
                found += [run[i : i + 2] for i in range(len(run) - 1)]
            else:
                found.append(run.replace("'", "").replace("’", ""))
    return found


def means_something(word: str) -> bool:
    """Tell a word or bigram that a text may be about from one that any text has."""
    return word not in EMPTY and not HIRAGANA.fullmatch(word)


def fold(text: str) -> str:
    """Return the words of a text with spaces between, as FTS5 stores them."""
    return " ".join(words(text))


def match_any(terms: list[str]) -> str:
    """FTS5 expression for pages with any of these words, each counted once."""
    return " OR ".join(f'"{term}"' for term in dict.fromkeys(terms))
