"""Text of pages and questions as the words that full-text search compares.

Folding is Unicode NFKC (full-width and half-width forms become one), casefold, Latin letters
without accents (Zürich, Tōkyō) and numbers without commas (1,420). Chinese, Japanese and Korean
have no spaces: runs of their letters, over the ends of lines and where a heading is spaced out,
become overlapping pairs (bigrams; one letter alone stays alone). Everything else is split into
words. SQLite's FTS5 indexes the result and ranks with BM25 (k1 1.2, b 0.75).
"""

import re
import unicodedata

WORDS_VERSION = 5  # of what words() makes of a text; an index made by another is folded anew
# Hiragana, katakana, CJK ideographs with extensions, Hangul; ー and 々 belong to the words they
# lengthen or repeat.
CJK = "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
CJK += "\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U000323af"
RUNS = re.compile(f"([{CJK}]+)|([^\\W_]+(?:['’][^\\W\\d_]+)?)")
ACCENTS = re.compile("(?<=[a-z])[\u0300-\u036f]+")  # FTS5 drops them, so none is looked for
VARIANTS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")  # which shape of a letter is meant
# Words go on in the next line, whatever stands there: lines of a few letters, most of them cells of
# tables, make pairs that nobody asks for, which changed no ranking of the development set.
BROKEN_LINE = re.compile(f"(?<=[{CJK}])[ \t]*\\r?\\n[ \t]*(?=[{CJK}])")
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")  # 1,420 is the number 1420
FISCAL = re.compile(r"\b(fy|cy)[ '’]?(19|20)?(\d\d)\b")  # FY23 is 2023
SPACED_OUT = re.compile(f"(?<![{CJK}])[{CJK}](?: [{CJK}](?![{CJK}])){{2,}}")  # as headings are
CJK_FIRST = re.compile(f"[{CJK}]")
# Words that say nothing of what a text is about, as people put them around what they ask; in
# Japanese 教えてください, and below what asks (何) and what is written in hiragana alone.
EMPTY = frozenset(
    "a about again all also am an and any are as at be been being but by can could did do does "
    "doing done else for from get give given had has have how i if in into is it its just know let "
    "many me might much must my not of on or our please say see shall should show so some "
    "tell than that the their them then there these they this those to too up was we were what "
    "when where whether which who whom whose why will with would you your fy cy "
    "教え 教 下さ 下".split()
)
JOINT = re.compile(r"[\u3041-\u309f][^\u3041-\u309f]|[^\u3041-\u309f][\u3041-\u309f]")
UNSAYING = re.compile(r"[\u3041-\u309f\u30fc]+|何.?|.何")
NAME = re.compile(r"(?<=[a-z,] )[A-Z][\w.'’-]*")
WORD_IN_MIXED = re.compile(f"[{CJK}]+|[^{CJK}]+")


def words(text: str) -> list[str]:
    """Split a text into folded words and bigrams, in order."""
    found: list[str] = []
    folded = unicodedata.normalize("NFKC", VARIANTS.sub("", text)).casefold()
    bare = ACCENTS.sub("", unicodedata.normalize("NFD", folded))
    whole = BROKEN_LINE.sub("", unicodedata.normalize("NFC", bare))
    whole = SPACED_OUT.sub(_without_spaces, THOUSANDS.sub("", whole))
    whole = FISCAL.sub(lambda year: f"{year[1]} {year[2] or 20}{year[3]}", whole)
    for match in RUNS.finditer(whole):
        for run in WORD_IN_MIXED.findall(match.group()):
            if CJK_FIRST.match(run) and len(run) > 1:
                found += [run[i : i + 2] for i in range(len(run) - 1)]
            else:
                found.append(run.replace("'", "").replace("’", ""))
    return found


def _without_spaces(match: re.Match[str]) -> str:
    return match.group().replace(" ", "")


def is_unicode(text: str) -> bool:
    """Tell text from what has half of a letter in it, such as a name of other bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_single_letter(word: str) -> bool:
    """Tell a letter of Chinese, Japanese or Korean that stands alone, as bigrams never do."""
    return len(word) == 1 and CJK_FIRST.match(word) is not None


def means_something(word: str) -> bool:
    """Tell a word or bigram that a text may be about from one that any text has."""
    return word not in EMPTY and not UNSAYING.fullmatch(word)


def is_joint(word: str) -> bool:
    """Whether a bigram lies over the end of a word: hiragana beside a kanji or katakana.

    No page may have just this one, of words that every page has.
    """
    return JOINT.fullmatch(word) is not None


def names(text: str) -> frozenset[str]:
    """Folded words of a question that are written as names are: capital inside a sentence.

    None in a headline, where all words have one.
    """
    starts = [word[0] for word in text.split()]
    if sum(map(str.isupper, starts)) >= sum(map(str.islower, starts)):
        return frozenset()
    return frozenset(word for name in NAME.findall(text) for word in words(name))


def fold(text: str) -> str:
    """Return the words of a text with spaces between, as FTS5 stores them."""
    return " ".join(words(text))


def match_any(terms: list[str]) -> str:
    """FTS5 expression for pages with any of these words, each counted once."""
    return " OR ".join(f'"{term}"' for term in dict.fromkeys(terms))
