"""What a question and the rows of a page speak of, as `quote` compares them.

Like the words of full-text search, but decimals stay whole (3.5 is not about 3), single kanji count
as they stand in tables, and "Sales1" is about sales, too.
"""

import re
import unicodedata

from index.text_layer import means_something, stem, western, words

KANJI = re.compile(r"[\u3400-\u9fff]")
DECIMAL = re.compile(r"(?<!\d)\d+(?:\.\d+)+")  # looked for from the first digit only
MARKED = re.compile(r"([^\W\d_]{3,})\d{1,2}")  # with the mark of a footnote
KANA = re.compile(r"(?P<before>[\u3400-\u9fff々\u30a0-\u30ff])?(?P<run>[\u3041-\u309fー]{2,})")
# What a question says in hiragana beside the things it is about, at the end of a run of it or right
# behind a kanji: particles, endings of verbs, words that ask.
ENDING = re.compile(
    r"(?:でしょうか|でしたか|ですか|ましたか|ますか|ません|ください|について|における|によって|による"
    r"|のような|どのくらい|どれくらい|どのように|どうして|いくら|いくつ|いちばん|もっとも|それぞれ|どれ|どの|どこ|だれ|いつ|なに"
    r"|なぜ|どう|という|こと|もの|ため|とき|など|まで|から|より|だけ|ほど|くらい|ぐらい|ありますか|あります|ある|あり|いる|います"
    r"|される|された|され|する|した|して|しました|します|なる|なった|なり|です|でした|ました|ます|れる|られ|った|って"
    r"|とは|では|には|へは|にも|での|への|との|からの|までの|[はがのをにへともやかでねよるたてい])++$"
)
BEGINNING = re.compile(
    r"^(?:について|における|によって|による|から|まで|より|など|とは|では|には|での|への|との|[はがのをにへとやで])"
)


def terms(text: str) -> frozenset[str]:
    """Return what a text speaks of: words, numbers, bigrams and single kanji."""
    return frozenset(filter(means_something, _all(text)))


def asked_in_kana(question: str) -> frozenset[str]:
    """Return the pairs of hiragana in a question that are of things: みか, かん of みかんの.

    Most of what is written in hiragana alone says nothing; these are what is left of it.
    """
    found: set[str] = set()
    for match in KANA.finditer(unicodedata.normalize("NFKC", question)):
        run = ENDING.sub("", match["run"])
        if match["before"]:
            run = BEGINNING.sub("", run)
        found |= {run[at : at + 2] for at in range(len(run) - 1)}
    return frozenset(found)


def _all(text: str) -> list[str]:
    folded = western(unicodedata.normalize("NFKC", text))
    found = [*words(DECIMAL.sub(" ", folded)), *DECIMAL.findall(folded), *KANJI.findall(folded)]
    return found + [stem(match[1]) for match in map(MARKED.fullmatch, found) if match]
