"""Does a text layer say what the page shows? A detector of garbage that looks like text.

A PDF maps its glyphs to characters by a table that may be wrong or missing: the page looks
right, its text layer reads "7KLV LV D WHVW" or rare characters of four scripts in one word, and a
test of length sees nothing. Four signs, each measured by `benchmarks/text_quality.py` on real
pages and on the same pages with their characters damaged in the known ways:

- characters that no text has: U+FFFD, private use, controls, unassigned;
- neighbours inside a word from scripts that no language mixes (Arabic beside Han, Cyrillic
  beside Latin);
- Chinese characters outside the common sets of Japanese, Chinese and Taiwanese standards;
- Latin letters in an order that no European language uses (cost of letter pairs, in bits).

Judged line by line, so that the good half of a page is kept.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

# A page is garbage when more than this share of its characters stands in bad lines.
GARBAGE_SHARE = 0.2
# A line is bad when more than this share of its letters is.
BAD_LINE_SHARE = 0.25
# Bits per letter pair; real pages and damaged ones meet here, see docs/robustness.md.
LATIN_COST_LIMIT = 5.0
# Fewer letter pairs than this say nothing about a language.
MIN_LATIN_PAIRS = 60

# Cost in bits (0 to 9) of the second letter after the first, "_" being the edge of a word; from
# English books in the public domain, words weighted by the root of their count.
# Made by benchmarks/text_quality.py --table.
_ORDER = "_abcdefghijklmnopqrstuvwxyz"
_COSTS = (
    "934344454466445537434564979",
    "594448658495342959232556857",
    "535982999369289399346399969",
    "539592992394499298473499969",
    "149962969399577499549578969",
    "247525668699453768234867679",
    "339992399299399299374399969",
    "149992953499485499357499979",
    "328991899299767299564498969",
    "656344549997441369433849897",
    "729991999599999199999199999",
    "248991798299473599739797959",
    "338852689297378379955579939",
    "324992899299747339759499959",
    "249433628486786498833668969",
    "555557568596442459244354879",
    "439992994399389339254499979",
    "899999999999999999999099999",
    "337552768396655379544568959",
    "149593894396567448932496979",
    "239692893299588499344497959",
    "645444649499342749223989888",
    "539990999299997399889799979",
    "327972793298594399549899989",
    "339393895299799627992569569",
    "058894899599667479747998999",
    "338991996299498499979599953",
)
_COST = {
    first + second: int(cost)
    for first, row in zip(_ORDER, _COSTS, strict=True)
    for second, cost in zip(_ORDER, row, strict=True)
}


@dataclass(frozen=True)
class TextHealth:
    """What a text layer is worth.

    state      "good", "none" or "garbage"
    text       its good lines
    bad_share  share of its characters that stand in bad lines, 0 to 1
    """

    state: str
    text: str
    bad_share: float


def judge(text: str) -> TextHealth:
    """Keep the good lines of a text layer and say whether the whole can be trusted."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return TextHealth("none", "", 0.0)
    bad = _bad_lines(lines)
    weights = [_n_letters(line) for line in lines]
    bad_share = sum(weights[row] for row in bad) / max(1, sum(weights))
    kept = "\n".join(line for row, line in enumerate(lines) if row not in bad)
    state = "garbage" if bad_share > GARBAGE_SHARE else "good"
    return TextHealth(state, kept, bad_share)


# Words that stand on every page of their language and on few of another.
_FUNCTION_WORDS = {
    "en": {"the", "and", "for", "with", "that", "this", "from", "are", "was", "not"},
    "de": {"der", "die", "und", "das", "nicht", "mit", "ist", "von", "den", "auf"},
    "fr": {"les", "des", "une", "est", "dans", "pour", "que", "qui", "sur", "aux"},
    "es": {"los", "las", "del", "una", "que", "por", "para", "con", "como", "sus"},
    "it": {"che", "della", "gli", "del", "per", "una", "con", "sono", "nel", "alla"},
    "pt": {"que", "uma", "dos", "das", "com", "para", "por", "mais", "pelo", "nos"},
}
_SCRIPTS = {"HANGUL": "ko", "HAN": "zh", "CYRILLIC": "ru"}
LANGUAGES = ("en", "ja", *sorted({*_FUNCTION_WORDS, *_SCRIPTS.values()} - {"en"}))
MIN_LANGUAGE_LETTERS = 40


def language_of(text: str) -> str | None:
    """Guess a language code from scripts and function words; None where nothing tells."""
    scripts = Counter(filter(None, map(_script, text)))
    total = sum(scripts.values())
    if total < MIN_LANGUAGE_LETTERS:
        return None
    if scripts["KANA"] > 0.02 * total:  # tables have few; Chinese has none
        return "ja"
    for script, language in _SCRIPTS.items():
        if scripts[script] > 0.5 * total:
            return language
    words = Counter(re.findall(r"[a-z\u00df-\u00ff]{3,}", text.lower()))
    found = {code: sum(words[word] for word in known) for code, known in _FUNCTION_WORDS.items()}
    best = max(found, key=lambda code: found[code])
    return best if found[best] > 0.02 * words.total() else None


def latin_cost(words: Iterable[str]) -> tuple[float, int]:
    """Mean bits per letter pair of Latin words, accents folded, and how many pairs there were."""
    total = n_pairs = 0
    for word in words:
        for first, second in pairwise(f"_{word}_"):
            total += _COST[first + second]
            n_pairs += 1
    return (total / n_pairs if n_pairs else 0.0), n_pairs


def bad_letter_share(line: str) -> float:
    """Share of a line's letters that no text has, that are rare Han or of clashing scripts."""
    n_letters = _n_letters(line)
    if not n_letters:
        return 0.0
    n_bad = sum(_is_impossible(character) for character in line)
    han = [character for character in line if _script(character) == "HAN"]
    rare = [character for character in han if not _is_common_han(character)]
    if len(rare) > 0.3 * len(han):  # a name may hold one rare character; noise holds many
        n_bad += len(rare)
    for first, second in pairwise(line):
        n_bad += 2 * _clash(first, second)
    return min(1.0, n_bad / n_letters)


def _bad_lines(lines: list[str]) -> set[int]:
    bad = {row for row, line in enumerate(lines) if bad_letter_share(line) > BAD_LINE_SHARE}
    for block in _latin_blocks(lines):
        bad |= _bad_latin(lines, block)
    return bad


def _latin_blocks(lines: list[str]) -> list[list[int]]:
    """Rows of lines in runs with enough Latin letter pairs each; the last takes the rest."""
    blocks: list[list[int]] = [[]]
    n_pairs = 0
    for row, line in enumerate(lines):
        if n_pairs >= MIN_LATIN_PAIRS:
            blocks.append([])
            n_pairs = 0
        words = _latin_words(line)
        if words:
            blocks[-1].append(row)
            n_pairs += sum(len(word) + 1 for word in words)
    if n_pairs < MIN_LATIN_PAIRS:
        rest = blocks.pop()
        if blocks:
            blocks[-1] += rest
    return blocks


def _bad_latin(lines: list[str], block: list[int]) -> set[int]:
    cost, _ = latin_cost(word for row in block for word in _latin_words(lines[row]))
    if cost <= LATIN_COST_LIMIT:
        return set()
    return {row for row in block if _n_latin(lines[row]) > 0.5 * _n_letters(lines[row])}


@lru_cache(maxsize=4096)
def _latin_words(line: str) -> tuple[str, ...]:
    """Words of three letters and more, lower case and without accents; codes are left out."""
    folded = "".join(
        char for char in unicodedata.normalize("NFKD", line) if not unicodedata.combining(char)
    )
    words = re.findall(r"(?<![\w@/\\.])[A-Za-z]{3,}(?![\w@/\\])", folded)
    return tuple(word.lower() for word in words)


def _n_latin(line: str) -> int:
    return sum(_script(character) == "LATIN" for character in line)


def _n_letters(line: str) -> int:
    return sum(character.isalpha() or _is_impossible(character) for character in line)


@lru_cache(maxsize=65536)
def _is_impossible(character: str) -> bool:
    """U+FFFD, private use, surrogates, unassigned and control characters."""
    category = unicodedata.category(character)
    return character == "\ufffd" or (category in ("Co", "Cs", "Cn", "Cc") and character not in "\t")


# First words of the names of letters that stand for something: µ, ª, ℓ, 𝑥, Ω, Å, K.
_SYMBOLS = {
    "MICRO", "FEMININE", "MASCULINE", "SCRIPT", "MATHEMATICAL", "OHM", "ANGSTROM", "KELVIN",
}  # fmt: skip
_JAPANESE = {"HAN", "KANA", "FULLWIDTH", "HANGUL", "BOPOMOFO"}


@lru_cache(maxsize=65536)
def _script(character: str) -> str:
    """Script of a letter, "" for anything else and for letters every script uses."""
    if not character.isalpha() and not unicodedata.combining(character):
        return ""
    name = unicodedata.name(character, "")
    if name.startswith(("CJK", "IDEOGRAPHIC")):  # 々 and 〆 as well
        return "HAN"
    if name.startswith(("HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA")):
        return "KANA"
    first = name.split(" ", 1)[0]
    return "" if first in ("COMBINING", "MODIFIER") or first in _SYMBOLS else first


def _clash(first: str, second: str) -> bool:
    """Say whether two neighbours are letters of scripts that never share a word."""
    scripts = {_script(first), _script(second)}
    if len(scripts) == 1 or "" in scripts or scripts <= _JAPANESE:
        return False
    # Latin stands beside Han and kana without a space, and Greek: β版, in formulas and units.
    return not scripts <= {*_JAPANESE, "LATIN", "GREEK"}


@lru_cache(maxsize=65536)
def _is_common_han(character: str) -> bool:
    """Say whether JIS, GB or Big5 keeps the character on its first, everyday level."""
    return (
        _level(character, "shift_jis", 0x88, 0x98)
        or _level(character, "gb2312", 0xB0, 0xD8)
        or _level(character, "big5", 0xA4, 0xC7)
        or character in "々〆〇"
    )


def _level(character: str, encoding: str, first: int, end: int) -> bool:
    try:
        code = character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return len(code) == 2 and first <= code[0] < end
