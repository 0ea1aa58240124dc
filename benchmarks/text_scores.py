"""BM25 over a text a page, the baseline of retrieval; and how right a short answer is."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

JAPANESE = re.compile(r"[぀-ヿ㐀-鿿]")


def terms(text: str) -> list[str]:
    """Return lower-case words, and overlapping pairs of characters for Japanese runs."""
    found = []
    for run in re.findall(
        r"[a-z0-9]+|[぀-ヿ㐀-鿿々〆ヵヶ]+", unicodedata.normalize("NFKC", text).lower()
    ):
        if JAPANESE.match(run) and len(run) > 1:
            found += [run[i : i + 2] for i in range(len(run) - 1)]
        else:
            found.append(run)
    return found


class BM25:
    """BM25 (Robertson and Zaragoza, 2009), k1 1.2 and b 0.75, over whole pages."""

    def __init__(self, pages: Iterable[str], k1: float = 1.2, b: float = 0.75) -> None:
        self.counts = [Counter(terms(page)) for page in pages]
        self.lengths = [sum(count.values()) for count in self.counts]
        self.k1, self.b = k1, b
        self.mean = sum(self.lengths) / max(1, len(self.lengths)) or 1.0
        self.frequency = Counter(term for count in self.counts for term in count)

    def scores(self, query: str) -> list[float]:
        """Return the score of every page."""
        total = len(self.counts)
        weights = {
            term: math.log(1 + (total - self.frequency[term] + 0.5) / (self.frequency[term] + 0.5))
            for term in set(terms(query))
        }
        return [self._score(weights, i) for i in range(total)]

    def _score(self, weights: dict[str, float], page: int) -> float:
        count = self.counts[page]
        norm = self.k1 * (1 - self.b + self.b * self.lengths[page] / self.mean)
        return sum(
            weight * count[term] * (self.k1 + 1) / (count[term] + norm)
            for term, weight in weights.items()
        )


def normalise(answer: str) -> str:
    """Return an answer without case, width, punctuation and spaces, for comparison."""
    folded = unicodedata.normalize("NFKC", answer).lower()
    return "".join(c for c in folded if c.isalnum() or c in "%.-")


def answered(given: str, wanted: Iterable[str]) -> bool:
    """Tell whether an answer equals or contains one of the accepted answers.

    Without case, width, punctuation and spaces; but numbers are whole: 64 is not in 1,164 or 64.5.
    """
    said = _whole(given)
    return any(_pattern(one).search(said) for one in wanted if normalise(one).strip("."))


def _whole(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).lower()
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", folded)  # 1,164 → 1164


def _pattern(wanted: str) -> re.Pattern[str]:
    kept = re.findall(r"\d+|[^\W_]|[%.-]", _whole(wanted).strip(". "))
    between = r"(?:(?![%.-])[\W_])*"
    start = r"(?<!\d)(?<!\d\.)" if kept[0].isdecimal() else ""
    end = r"(?!\d)(?!\.\d)" if kept[-1].isdecimal() else ""
    return re.compile(start + between.join(map(re.escape, kept)) + end)


def edit_distance(one: str, other: str) -> int:
    """Return the Levenshtein distance of two strings."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


def anls(given: str, wanted: Iterable[str]) -> float:
    """Return the normalised Levenshtein similarity, 0 below one half (arXiv:1905.13648)."""
    said, best = normalise(given), 0.0
    for one in map(normalise, wanted):
        length = max(len(said), len(one)) or 1
        best = max(best, 1 - edit_distance(said, one) / length)
    return best if best >= 0.5 else 0.0
