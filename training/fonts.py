"""The fonts that pages are drawn with: Debian packages, subset to the characters we draw.

Packing does two things: a subset loads in milliseconds where a 20 MB collection takes a quarter of
a second a page, and the folder is small enough to travel to a machine without network.

    apt-get install --no-install-recommends $(python -m training.fonts packages)
"""

import io
import json
import random
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pymupdf
from PIL import Image, ImageDraw, ImageFont, ImageOps

PACKAGES = """
fonts-liberation fonts-dejavu-core fonts-dejavu-extra fonts-texgyre fonts-urw-base35
fonts-noto-core fonts-noto-mono fonts-lato fonts-open-sans fonts-roboto-unhinted fonts-roboto-slab
fonts-crosextra-carlito fonts-crosextra-caladea fonts-ebgaramond fonts-linuxlibertine fonts-cmu
fonts-lmodern fonts-inter fonts-sil-charis fonts-sil-gentiumplus fonts-sil-andika fonts-vollkorn
fonts-quattrocento fonts-oldstandard fonts-cabin fonts-cantarell fonts-comic-neue
fonts-courier-prime fonts-firacode fonts-jetbrains-mono fonts-hack fonts-inconsolata
fonts-clear-sans fonts-b612 fonts-karla fonts-manrope fonts-play fonts-paratype fonts-stix
fonts-yanone-kaffeesatz fonts-dosis fonts-junicode fonts-goudybookletter fonts-oxygen fonts-go
fonts-freefont-otf fonts-adf-accanthis fonts-adf-gillius fonts-adf-universalis
fonts-averia-serif-gwf fonts-prociono fonts-arapey fonts-ipafont fonts-ipaexfont fonts-takao
fonts-vlgothic fonts-morisawa-bizud-gothic fonts-morisawa-bizud-mincho fonts-mplus fonts-migmix
fonts-sawarabi-gothic fonts-sawarabi-mincho fonts-klee fonts-noto-cjk fonts-motoya-l-maruberi
fonts-motoya-l-cedar fonts-umeplus fonts-horai-umefont fonts-konatu fonts-komatuna
""".split()

# family -> how often it is drawn; documents are mostly set in the first few of each list
LATIN = {
    "Liberation Sans": 12, "Liberation Serif": 10, "Nimbus Sans": 5, "Nimbus Roman": 5,
    "TeX Gyre Heros": 4, "TeX Gyre Termes": 4, "TeX Gyre Pagella": 3, "TeX Gyre Bonum": 1,
    "TeX Gyre Schola": 2, "TeX Gyre Adventor": 1, "Carlito": 6, "Caladea": 3, "DejaVu Sans": 3,
    "DejaVu Serif": 2, "Noto Sans": 4, "Noto Serif": 3, "Open Sans": 5, "Roboto": 5, "Lato": 4,
    "Inter": 3, "Roboto Slab": 1, "EB Garamond": 2, "Linux Libertine O": 3, "CMU Serif": 3,
    "Latin Modern Roman": 3, "Charis SIL": 1, "Gentium Plus": 1, "Andika": 1, "Vollkorn": 1,
    "Quattrocento": 1, "Cabin": 1, "Cantarell": 2, "Comic Neue": 1, "Courier Prime": 1,
    "Liberation Mono": 2, "Fira Code": 1, "JetBrains Mono": 1, "Hack": 1, "Inconsolata": 1,
    "Clear Sans": 2, "B612": 1, "Karla": 1, "Play": 1, "PT Sans": 2, "PT Serif": 2,
    "STIXGeneral": 1, "Yanone Kaffeesatz": 1, "Dosis": 1,
    "Goudy Bookletter 1911": 1, "Go": 1, "FreeSans": 1, "FreeSerif": 1,
    "C059": 1, "P052": 2, "URW Gothic": 1, "URW Bookman": 1,
    "Accanthis ADF Std": 1, "Gillius ADF": 1, "Universalis ADF Std": 1, "Averia Serif GWF": 1,
    "Prociono": 1, "Liberation Sans Narrow": 2,
}  # fmt: skip
JAPANESE = {
    "IPAexGothic": 6, "IPAexMincho": 6, "IPAGothic": 2, "IPAPGothic": 3, "IPAMincho": 2,
    "IPAPMincho": 3, "Noto Sans CJK JP": 8, "Noto Serif CJK JP": 5, "VL PGothic": 2,
    "BIZ UDGothic": 3, "BIZ UDPGothic": 4, "BIZ UDMincho": 2, "BIZ UDPMincho": 3,
    "MigMix 1P": 2, "Migu 1C": 1, "Sawarabi Gothic": 1,
    "Sawarabi Mincho": 1, "Klee One": 1, "MotoyaLMaru": 1, "MotoyaLCedar": 2, "Umeplus P Gothic": 1,
    "Ume P Gothic": 2, "Ume P Mincho": 3, "Ume Gothic": 1, "Konatu": 1, "Komatuna P": 1,
}  # fmt: skip
# what a renderer needs; the rest is hinting, shaping and tool leftovers that break the subsetter
TABLES = set(
    "GlyphOrder head hhea maxp OS/2 hmtx cmap name post glyf loca CFF CFF2 cvt fpgm prep".split()
) | {"CFF ", "cvt "}
SPECIMEN = {"en": "Hamburg 0123 gyjq", "ja": "東京年台花咲かなカナ0123Ag"}
ALIKE = 0.6  # correlation: sound fonts reach 0.77 to 0.98, renumbered ones 0.13 at most
TYPEWRITER = {
    "Liberation Mono", "Courier Prime", "Fira Code", "JetBrains Mono", "Hack", "Inconsolata",
}  # fmt: skip
STYLES = {"regular": "Regular", "bold": "Bold", "italic": "Italic"}


@dataclass(frozen=True)
class Family:
    """One family of a packed folder: style → file name, and how often it is drawn."""

    name: str
    language: str
    weight: int
    files: dict[str, str]


def _find(family: str, style: str) -> tuple[str, int] | None:
    """Return (file, face number) of a family's style, or None when fontconfig substitutes."""
    answer = subprocess.run(
        ["fc-match", "-f", "%{family}\t%{style}\t%{file}\t%{index}", f"{family}:style={style}"],
        capture_output=True, text=True, check=True,
    ).stdout.split("\t")  # fmt: skip
    exact = family.lower() in answer[0].lower().split(",")
    styled = style == "Regular" or style.lower() in answer[1].lower()
    usable = Path(answer[2]).suffix in {".ttf", ".otf", ".ttc"}
    return (answer[2], int(answer[3]) & 0xFFFF) if exact and styled and usable else None


def pack(out: Path, characters: str) -> list[Family]:
    """Subset every listed family that is installed into `out`, with a fonts.json."""
    out.mkdir(parents=True, exist_ok=True)
    families = []
    for language, wanted in (("en", LATIN), ("ja", JAPANESE)):
        for name, weight in wanted.items():
            files = _pack_family(out, name, language, characters)
            if "regular" in files:
                families.append(Family(name, language, weight, files))
            else:
                print(f"{name}: not installed, left out", file=sys.stderr)
    (out / "fonts.json").write_text(json.dumps([vars(f) for f in families], indent=1))
    return families


def _latin() -> str:
    ranges = [(0x20, 0x7F), (0xA0, 0x180), (0x2010, 0x2027), (0x2030, 0x203B), (0x20AC, 0x20AD)]
    return "".join(chr(code) for low, high in ranges for code in range(low, high))


def _pack_family(out: Path, name: str, language: str, characters: str) -> dict[str, str]:
    files = {}
    kept = characters if language == "ja" else _latin()
    for style, label in STYLES.items():
        found = _find(name, label)
        if found is not None:
            target = out / f"{name.replace(' ', '')}-{label}.otf"
            subset_font(*found, target, kept)
            if likeness(target, SPECIMEN[language]) > ALIKE:
                files[style] = target.name
            else:
                print(f"{target.name}: draws other characters, left out", file=sys.stderr)
    return files


def subset_font(source: str, face: int, target: Path, characters: str) -> None:
    """Write the part of a font that draws the given characters."""
    from fontTools import subset
    from fontTools.ttLib import TTFont

    with TTFont(source, fontNumber=face, lazy=True) as font:
        for tag in set(font.keys()) - TABLES:
            del font[tag]
        # PDF finds the glyphs of a CID-keyed font by number: renumbered ones show other characters
        keyed = "CFF " in font and hasattr(font["CFF "].cff.topDictIndex[0], "ROS")
        options = subset.Options(hinting=False, notdef_outline=True, retain_gids=keyed)
        chopper = subset.Subsetter(options)
        chopper.populate(text=characters)
        chopper.subset(font)
        font.save(target)


def likeness(font: Path, text: str) -> float:
    """Return how alike PyMuPDF's layout and FreeType draw a text: a correlation, 1 at best.

    A font whose glyphs are renumbered may draw wrong characters or none, and a model trained on
    that learns nonsense without any error: two Japanese families did so for 1,000 steps.
    """
    story = pymupdf.Story(
        f"<p>{text}</p>",
        user_css=f"@font-face{{font-family:f;src:url({font.name})}} body{{font:36pt f}}",
        archive=pymupdf.Archive(str(font.parent)),
    )
    buffer = io.BytesIO()
    writer = pymupdf.DocumentWriter(buffer)
    device = writer.begin_page(pymupdf.Rect(0, 0, 900, 120))
    story.place(pymupdf.Rect(10, 10, 890, 110))
    story.draw(device)
    writer.end_page()
    writer.close()
    pixmap = pymupdf.open("pdf", buffer.getvalue())[0].get_pixmap(dpi=72, colorspace="gray")
    laid = Image.frombytes("L", (pixmap.width, pixmap.height), pixmap.samples)
    direct = Image.new("L", (900, 120), 255)
    ImageDraw.Draw(direct).text((10, 10), text, font=ImageFont.truetype(font, 36), fill=0)
    pair = [
        np.asarray(image.crop(ImageOps.invert(image).getbbox()).resize((400, 32)), float).ravel()
        for image in (laid, direct)
    ]
    return float(np.corrcoef(*pair)[0, 1])


@lru_cache(maxsize=4)
def load(folder: Path) -> tuple[Family, ...]:
    """Return the families of a packed folder."""
    return tuple(Family(**item) for item in json.loads((folder / "fonts.json").read_text()))


@lru_cache(maxsize=400)
def font_bytes(path: Path) -> bytes:
    """Return a font file's bytes, kept for the next page."""
    return path.read_bytes()


def choose(folder: Path, rng: random.Random, language: str, common: bool = False) -> Family:
    """Draw a family for a language by weight; `common` leaves the three that weigh most."""
    families = [f for f in load(folder) if f.language == language]
    if common:
        families = sorted(families, key=lambda f: -f.weight)[:3]
    return rng.choices(families, [f.weight for f in families])[0]


def choose_typewriter(folder: Path, rng: random.Random) -> Family:
    """Draw a family whose characters are all of one width; any Latin one where none is packed."""
    latin = [f for f in load(folder) if f.language == "en"]
    mono = [f for f in latin if f.name in TYPEWRITER]
    return rng.choice(mono or latin)


if __name__ == "__main__":
    print(" ".join(PACKAGES))
