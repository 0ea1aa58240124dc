"""How well garbage text layers are told from good ones, and the table the detector uses.

    uv run python -m benchmarks.text_quality FOLDER          # of PDFs with good text layers
    uv run python -m benchmarks.text_quality --table BOOKS   # text file: letter-pair costs

Damages every page in the ways text layers are damaged in the field and counts what is found; pages
left as they are count the false alarms.
"""

import argparse
import json
import lzma
import math
import random
import re
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pymupdf

from rag.text_quality import judge

LETTERS = string.ascii_lowercase
MIN_CHARACTERS = 100
JAPANESE = re.compile("[\u3040-\u30ff]")


def substitute(text: str) -> str:
    """Replace every letter by another (a subset font without a usable mapping)."""
    letters = list(LETTERS)
    random.Random(1).shuffle(letters)
    mixed = "".join(letters)
    return text.translate(str.maketrans(LETTERS + LETTERS.upper(), mixed + mixed.upper()))


def glyph_numbers(text: str) -> str:
    """Take glyph numbers for characters: TrueType letters are usually 29 lower."""
    return "".join(chr(ord(char) - 29) if 61 < ord(char) < 127 else char for char in text)


def shift_japanese(text: str) -> str:
    """Move every Japanese character by 1234 (a CID map of another collection)."""
    return "".join(chr(ord(c) + 1234) if "\u3040" <= c < "\u9fff" else c for c in text)


def random_japanese(text: str) -> str:
    """Replace every Japanese character by any other, always the same one."""
    generator = random.Random(1)
    wanted = sorted({char for char in text if char > "\u3040"})
    return text.translate({ord(c): chr(generator.randrange(0x4E00, 0x9FFF)) for c in wanted})


LATIN_DAMAGE: dict[str, Callable[[str], str]] = {
    "letters substituted": substitute,
    "glyph numbers for letters": glyph_numbers,
}
JAPANESE_DAMAGE: dict[str, Callable[[str], str]] = {
    "UTF-8 read as Latin-1": lambda text: text.encode().decode("latin-1"),
    "Shift JIS read as Latin-1": lambda text: text.encode("cp932", "ignore").decode("latin-1"),
    "UTF-8 read as Shift JIS": lambda text: text.encode().decode("cp932", "replace"),
    "characters shifted": shift_japanese,
    "characters replaced": random_japanese,
}


def pages_of(folder: Path, skipped: set[str]) -> dict[str, list[str]]:
    """Return the texts of each PDF's pages that have enough characters to judge."""
    texts = {}
    for path in sorted(folder.glob("*.pdf")):
        if path.name not in skipped:
            with pymupdf.open(path) as pdf:
                pages = [page.get_text() for page in pdf]
            texts[path.name] = [text for text in pages if len(text) >= MIN_CHARACTERS]
    return texts


def measure(texts: dict[str, list[str]]) -> dict[str, tuple[int, int]]:
    """Return kind of damage -> (pages called garbage, pages)."""
    found = {}
    everything = [text for pages in texts.values() for text in pages]
    found["none (false alarms)"] = _count(everything)
    japanese = [text for text in everything if JAPANESE.search(text)]
    latin = [text for text in everything if not JAPANESE.search(text)]
    for damages, pages in ((LATIN_DAMAGE, latin), (JAPANESE_DAMAGE, japanese)):
        for name, damage in damages.items():
            found[name] = _count([damage(text) for text in pages])
    return found


def letter_pair_costs(text: str) -> list[str]:
    """Return 27 rows of 27 digits: -log2 P(second | first), words weighted by root of count."""
    pairs: Counter[str] = Counter()
    for word, count in Counter(re.findall("[a-z]+", text.lower())).items():
        edged = f"_{word}_"
        for first, second in zip(edged, edged[1:], strict=False):
            pairs[first + second] += math.sqrt(count)  # type: ignore[assignment]
    order = "_" + LETTERS
    rows = []
    for first in order:
        total = sum(pairs[first + second] for second in order) + 0.5 * len(order)
        costs = [-math.log2((pairs[first + second] + 0.5) / total) for second in order]
        rows.append("".join(str(min(9, int(cost))) for cost in costs))
    return rows


def main() -> None:
    """Print a table and one JSON line, or the letter-pair costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--table", action="store_true", help="PATH is a text file (also .xz)")
    parser.add_argument("--skip", nargs="*", default=[], help="PDFs whose text layer is broken")
    options = parser.parse_args()
    if options.table:
        read = lzma.open if options.path.suffix == ".xz" else open
        with read(options.path, "rt", encoding="utf-8", errors="ignore") as file:
            print("\n".join(f'    "{row}",' for row in letter_pair_costs(file.read(12_000_000))))
        return
    found = measure(pages_of(options.path, set(options.skip)))
    for name, (n_garbage, n_pages) in found.items():
        print(f"{name:28} {n_garbage:4} of {n_pages:4} pages called garbage")
    print(json.dumps(found))


def _count(texts: list[str]) -> tuple[int, int]:
    return sum(judge(text).state == "garbage" for text in texts), len(texts)


if __name__ == "__main__":
    main()
