"""Text of pages and questions as the words that full-text search compares.

Folding is Unicode NFKC (full-width and half-width forms become one), casefold, Latin letters
without accents (Zürich, Tōkyō), numbers without commas (1,420), words without the 's of a
possessive or the ending of a plural. A word that the end of a line divides is whole and in parts;
soft hyphens go. Quarters are Q1 to Q4 and Japanese years western ones.
Chinese, Japanese and Korean have no spaces: runs of their letters, over the ends of lines and where
a heading is spaced out, become overlapping pairs (bigrams; one letter alone stays alone, and a
kanji between kana is beside them, too). Everything else is split into words. SQLite's FTS5 indexes
the result and ranks with BM25 (k1 1.2, b 0.75).
"""

import calendar
import re
import unicodedata
from collections.abc import Iterable

WORDS_VERSION = 8  # of what words() makes of a text; an index made by another is folded anew
# The first lines of a page count twice. Of 644 pages, four lines to eight raised the nDCG@5 of text
# by 0.004 to 0.007 for searches and 0.014 to 0.025 for questions; one did nothing, twelve less.
HEAD_LINES = 5
# Hiragana, katakana, CJK ideographs with extensions, Hangul; ー and 々 belong to the words they
# lengthen or repeat.
CJK = "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
CJK += "\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U000323af"
RUNS = re.compile(f"([{CJK}]+)|([^\\W_]+(?:['’][^\\W\\d_]+)?)")
POSSESSIVE = re.compile(r"['’]s$")
ACCENTS = re.compile("(?<=[a-z])[\u0300-\u036f]+")  # FTS5 drops them, so none is looked for
VARIANTS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")  # which shape of a letter is meant
# Words go on in the next line, whatever stands there: lines of a few letters, most of them cells of
# tables, make pairs that nobody asks for, which changed no ranking of the development set.
BROKEN_LINE = re.compile(f"(?<=[{CJK}])[ \t]*\\r?\\n[ \t]*(?=[{CJK}])")
# A word that the end of a line divides is whole as well as in parts: the hyphen may be its own.
DIVIDED = re.compile(r"(?<![^\W\d_])([a-z]{2,})-[ \t]*\r?\n[ \t]*([a-z]{2,})")
SOFT_HYPHEN = re.compile(r"\u00ad[ \t]*(?:\r?\n)?[ \t]*")
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")  # 1,420 is the number 1420
FISCAL = re.compile(r"\b(fy|cy)[ '’]?(19|20)?(\d\d)\b")  # FY23 is 2023
# R&D, AT&T; in "AI & ML" both are words of their own.
ABBREVIATED = re.compile("(?<![a-z0-9])(?:([a-z]) ?& ?([a-z]{1,2})|([a-z]{2})&([a-z]))(?![a-z0-9])")
# 3Q23, the 3rd quarter and third-quarter results are all of Q3.
QUARTER = re.compile(
    r"(?<![a-z0-9])(?:q([1-4])|([1-4])q)(?:(?:fy|cy)?(\d\d))?(?![a-z0-9])|第([1-4])(?=四半期)"
)
NAMED_QUARTER = re.compile(
    r"(?<![a-z0-9])(?:(first|1st)|(second|2nd)|(third|3rd)|(fourth|4th))[\s-]+(?=quarters?\b)"
)
PLURAL = re.compile("[a-z]{2,}[a-rtv-z]s|[a-z]+sses")
KANJI = "\u3400-\u9fff\u3005"
LONE_KANJI = re.compile(f"(?<![{KANJI}])[{KANJI}](?![{KANJI}])")
ERAS = {"令和": 2018, "平成": 1988, "昭和": 1925, "大正": 1911}  # the year before the first
ERA_YEAR = re.compile(f"({'|'.join(ERAS)})\\s?(元|\\d{{1,2}})(?!\\d)")
# 二十代, 昭和五十年三月; no part of another word, as in 統一日程, 四日市 and 一人.
NUMERAL = re.compile(
    f"(?:(?<![{KANJI}\\d])|(?<=[和成正年月第約暦]))"
    "(?:([〇一二三四五六七八九十百]+)(?=[代年月]|四半期)|([〇一二三四五六七八九十百]{2,})(?=[日人]))"
)
DIGITS = {numeral: value for value, numeral in enumerate("〇一二三四五六七八九")}
UNITS = {"十": 10, "百": 100}
SPACED_OUT = re.compile(f"(?<![{CJK}])[{CJK}](?: [{CJK}](?![{CJK}])){{2,}}")  # as headings are
CJK_FIRST = re.compile(f"[{CJK}]")
# Words that say nothing of what a text is about, as people put them around what they ask; in
# Japanese 教えてください, and below what asks (何) and what is written in hiragana alone.
EMPTY = frozenset(
    "a about again all also am an and any are as at be been being but by can could did do does "
    "doing done else for from get give given had has have how i if in into is it its just know let "
    "many me might much must my not of on or our please say see shall should show so some "
    "tell than that the their them then there these they this those to too up was we were what "
    "when where whether which who whom whose why will with would you your fy cy stand mean "
    "教え 教 下さ 下".split()
)
JOINT = re.compile(r"[\u3041-\u309f][^\u3041-\u309f]|[^\u3041-\u309f][\u3041-\u309f]")
UNSAYING = re.compile(r"[\u3041-\u309f\u30fc]+|何.?|.何")
NAME = re.compile(r"(?<=[a-z,] )[A-Z][\w.'’-]*")
YEAR = re.compile(r"(?:19|20)\d\d")
LATIN = re.compile(r"(?=.*[a-z])[a-z0-9]{2,}")
ACRONYM = re.compile("(?<![A-Za-z0-9])[A-Z]{2,}s?(?![A-Za-z0-9])")
TIMES = (*calendar.month_name, *calendar.month_abbr, *calendar.day_name, *calendar.day_abbr)
NO_NAMES = frozenset(
    [*map(str.lower, TIMES), *"mr mrs ms dr sept united state kingdom internet web".split()]
)
WORD_IN_MIXED = re.compile(f"[{CJK}]+|[^{CJK}]+")


def words(text: str) -> list[str]:
    """Split a text into folded words and bigrams, in order."""
    found: list[str] = []
    folded = unicodedata.normalize("NFKC", VARIANTS.sub("", text)).casefold()
    folded = DIVIDED.sub(r"\1\2 \1 \2", SOFT_HYPHEN.sub("", folded))
    bare = ACCENTS.sub("", unicodedata.normalize("NFD", folded))
    whole = BROKEN_LINE.sub("", unicodedata.normalize("NFC", bare))
    whole = SPACED_OUT.sub(_without_spaces, THOUSANDS.sub("", whole))
    whole = FISCAL.sub(lambda year: f"{year[1]} {year[2] or 20}{year[3]}", western(whole))
    whole = QUARTER.sub(_quarter, whole)
    whole = NAMED_QUARTER.sub(lambda quarter: f" q{quarter.lastindex} ", whole)
    whole = ABBREVIATED.sub(lambda short: "".join(filter(None, short.groups())), whole)
    for match in RUNS.finditer(whole):
        for run in WORD_IN_MIXED.findall(match.group()):
            if not CJK_FIRST.match(run):
                found.append(stem(POSSESSIVE.sub("", run).replace("'", "").replace("’", "")))
            elif len(run) == 1:
                found.append(run)
            else:
                found += [run[i : i + 2] for i in range(len(run) - 1)]
                found += LONE_KANJI.findall(run)
    return found


def _quarter(match: re.Match[str]) -> str:
    year = f"20{match[3]} " if match[3] else ""
    return f" q{match[1] or match[2] or match[4]} {year}"


def western(text: str) -> str:
    """Return a text with its Japanese years and numerals as others write them.

    令和元年 is 2019年, 二十代 is 20代.
    """
    return ERA_YEAR.sub(
        lambda era: str(ERAS[era[1]] + (1 if era[2] == "元" else int(era[2]))), _in_digits(text)
    )


def _in_digits(text: str) -> str:
    return NUMERAL.sub(lambda numeral: str(_number(numeral[1] or numeral[2])), text)


def _number(numeral: str) -> int:
    """Value of a numeral: 五十三, 二〇一三."""
    total, digits = 0, 0
    for letter in numeral:
        if letter in UNITS:
            total += (digits or 1) * UNITS[letter]
            digits = 0
        else:
            digits = 10 * digits + DIGITS[letter]
    return total + digits


def stem(word: str) -> str:
    """Return an English word without the ending of its plural (Harman 1991, S-stemmer)."""
    if not PLURAL.fullmatch(word) or word in EMPTY:
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    return word[:-1]


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

    None in a headline, where all words have one; those of borrowed() where there are any.
    """
    starts = [word[0] for word in text.split()]
    if found := borrowed(text):
        return found
    if sum(map(str.isupper, starts)) >= sum(map(str.islower, starts)):
        return frozenset()
    return frozenset(word for name in NAME.findall(text) for word in words(name))


def proper_names(text: str, named: frozenset[str]) -> frozenset[str]:
    """Those of names(text) that a page about them has, not CEO or Feb, which it may write in full.

    None of a question in Chinese, Japanese or Korean: its page may write them in other letters.
    """
    if CJK_FIRST.search(unicodedata.normalize("NFKC", text)):
        return frozenset()
    others = (word for short in ACRONYM.findall(text) for word in words(short))
    return named - NO_NAMES - frozenset(others)


def years(terms: Iterable[str]) -> list[str]:
    """Words and phrases that a page about the years among these words has: 2023, and 2022/23."""
    found = [word for word in terms if YEAR.fullmatch(word)]
    return found + [f"{int(year) - 1} {year[2:]}" for year in found]


def borrowed(text: str) -> frozenset[str]:
    """Folded words in Latin letters of a question in Chinese, Japanese or Korean: its names."""
    if not CJK_FIRST.search(unicodedata.normalize("NFKC", text)):
        return frozenset()
    return frozenset(word for word in words(text) if LATIN.fullmatch(word))


def fold(text: str) -> str:
    """Return the words of a text with spaces between, as FTS5 stores them.

    Beside the western years that words() makes of them, eras stay to be found.
    """
    folded = _in_digits(unicodedata.normalize("NFKC", text))
    eras = dict.fromkeys(era[1] for era in ERA_YEAR.finditer(folded))
    return " ".join([*words(text), *eras])


def fold_page(text: str) -> str:
    """Return the words of a page, as FTS5 stores them; those of its first lines stand there twice.

    What a page is about stands at its head. To repeat a field is to weigh it (BM25F: Robertson,
    Zaragoza and Taylor, CIKM 2004). A page of few lines has no head.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) <= 2 * HEAD_LINES:
        return fold(text)
    head = "\n".join(lines[:HEAD_LINES])
    return f"{fold(text)} {fold(head)}"


def match_any(terms: list[str], thrice: frozenset[str] = frozenset()) -> str:
    """FTS5 expression for pages with any of these words or phrases.

    Each is counted once, or three times.
    """
    once = list(dict.fromkeys(terms))
    return " OR ".join(f'"{term}"' for term in [*once, *2 * [t for t in once if t in thrice]])
