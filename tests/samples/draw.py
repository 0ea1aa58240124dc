"""Draws the sample documents: our own words, fonts that PyMuPDF carries, the same pixels each time.

Run as `uv run python -m tests.samples.draw [FOLDER]`. A test compares what is committed in samples/
with what this draws. The pages are A5, so that a small budget of visual tokens still shows every
character.
"""

import argparse
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pymupdf
from PIL import Image, ImageFilter

HERE = Path(__file__).parent
SAMPLES_FOLDER = HERE.parent.parent / "samples"
WIDTH, HEIGHT = 420, 595  # A5 in points
MARGIN = 40
INK, GREY, BLUE, PALE = (0.1, 0.1, 0.12), (0.45, 0.45, 0.5), (0.13, 0.35, 0.6), (0.9, 0.93, 0.97)
LATIN, LATIN_BOLD, JAPANESE = "helv", "hebo", "japan"
SCAN_DPI = 130

Table = Sequence[Sequence[str]]

SALES: Table = (
    ("Region", "2022", "2023"),
    ("North", "410", "455"),
    ("South", "380", "362"),
    ("East", "295", "341"),
    ("West", "215", "262"),
    ("Total", "1,300", "1,420"),
)
VISITORS: Table = (
    ("季節", "来訪者(人)", "宿泊(泊)"),
    ("春", "12,400", "3,100"),
    ("夏", "28,900", "9,750"),
    ("秋", "19,300", "5,200"),
    ("冬", "8,600", "1,950"),
    ("合計", "69,200", "20,000"),
)
ELECTRICITY = (("Jan", 64), ("Feb", 58), ("Mar", 47), ("Apr", 35), ("May", 28), ("Jun", 41))
INVOICE = (
    "Birch & Rowan Joinery",
    "Mill Lane 7, Eastbrook",
    "",
    "INVOICE No. 3187",
    "Date: 14 May 2023",
    "",
    "6 oak shelves          540.00",
    "2 garden benches       398.00",
    "Delivery                35.00",
    "",
    "Amount due: 973.00 EUR",
    "Please pay within 21 days.",
)


class Sheet:
    """A page being drawn, from the top down."""

    def __init__(self, pdf: pymupdf.Document, font: str = LATIN, bold: str = LATIN_BOLD) -> None:
        self.page = pdf.new_page(width=WIDTH, height=HEIGHT)
        self.font, self.bold = pymupdf.Font(font), pymupdf.Font(bold)
        self.y = float(MARGIN)

    def write(
        self,
        text: str,
        x: float,
        y: float,
        size: float,
        color: tuple[float, float, float] = INK,
        bold: bool = False,
    ) -> None:
        """Write one line whose baseline begins at (x, y)."""
        writer = pymupdf.TextWriter(self.page.rect, color=color)
        writer.append((x, y), text, self.bold if bold else self.font, size)
        writer.write_text(self.page)

    def title(self, text: str, subtitle: str = "") -> None:
        """Write a heading with a rule below it."""
        self.y += 22
        self.write(text, MARGIN, self.y, 21, BLUE, bold=True)
        if subtitle:
            self.y += 22
            self.write(subtitle, MARGIN, self.y, 12, GREY)
        self.y += 12
        self.page.draw_line((MARGIN, self.y), (WIDTH - MARGIN, self.y), BLUE, 1.2)
        self.y += 14

    def heading(self, text: str) -> None:
        """Write a heading of a section."""
        self.y += 34
        self.write(text, MARGIN, self.y, 15, INK, bold=True)
        self.y += 4

    def lines(self, *lines: str, size: float = 13) -> None:
        """Write lines, already broken, each below the other."""
        for line in lines:
            self.y += size * 1.55
            self.write(line, MARGIN, self.y, size)

    def table(self, rows: Table, size: float = 14) -> None:
        """Draw a ruled table: the first row a heading, the last one a sum, numbers flush right."""
        height, width = size * 2.1, (WIDTH - 2 * MARGIN) / len(rows[0])
        self.y += 14
        for n, row in enumerate(rows):
            top = self.y + n * height
            if n == 0:
                self.page.draw_rect((MARGIN, top, WIDTH - MARGIN, top + height), None, PALE)
            is_strong = n in (0, len(rows) - 1)
            for column, cell in enumerate(row):
                font = self.bold if is_strong else self.font
                x = MARGIN + column * width + 8
                if column:
                    x += width - 16 - font.text_length(cell, size)
                self.write(cell, x, top + height * 0.68, size, INK, is_strong)
        bottom = self.y + len(rows) * height
        for n in range(len(rows) + 1):
            y = self.y + n * height
            self.page.draw_line((MARGIN, y), (WIDTH - MARGIN, y), GREY, 0.7)
        for n in range(len(rows[0]) + 1):
            x = MARGIN + n * width
            self.page.draw_line((x, self.y), (x, bottom), GREY, 0.7)
        self.y = bottom + 8


def sales_report(pdf: pymupdf.Document) -> None:
    """Draw a report of two pages: a table of sales, then what is said about it."""
    sheet = Sheet(pdf)
    sheet.title("Annual Report 2023", "Harbour Tea Company")
    sheet.heading("Sales by region")
    sheet.lines("Thousand euros, without tax.", size=12)
    sheet.table(SALES)
    sheet.lines("Sales grew by 9.2 percent.", "Only the South sold less than the year before.")
    sheet = Sheet(pdf)
    sheet.title("People and shops", "Harbour Tea Company, page 2")
    sheet.lines(
        "At the end of 2023 we had 86 employees,",
        "seven more than a year earlier.",
        "",
        "Two shops were opened: Lindau in April",
        "and Trieste in October. We now run",
        "14 shops in five countries.",
        "",
        "The managing director is Clara Weiss.",
    )


def electricity_chart(pdf: pymupdf.Document) -> None:
    """Draw a bar chart with a value above each bar."""
    sheet = Sheet(pdf)
    sheet.title("Electricity use", "Town library, first half of 2024, MWh")
    left, right, top, bottom = MARGIN + 26, WIDTH - MARGIN, sheet.y + 30, sheet.y + 330
    scale = (bottom - top) / 70
    for value in range(0, 71, 10):
        y = bottom - value * scale
        sheet.page.draw_line((left, y), (right, y), (0.82, 0.82, 0.85), 0.6)
        label = str(value)
        sheet.write(label, left - 8 - sheet.font.text_length(label, 11), y + 4, 11, GREY)
    step = (right - left) / len(ELECTRICITY)
    for n, (month, value) in enumerate(ELECTRICITY):
        x, y = left + n * step, bottom - value * scale
        sheet.page.draw_rect((x + step * 0.2, y, x + step * 0.8, bottom), None, BLUE)
        for text, baseline in ((str(value), y - 6), (month, bottom + 20)):
            middle = x + step / 2 - sheet.font.text_length(text, 14) / 2
            sheet.write(text, middle, baseline, 14)
    sheet.page.draw_line((left, bottom), (right, bottom), INK, 1)
    sheet.y = bottom + 40
    sheet.lines("New windows were fitted in March.")


def tourism_report(pdf: pymupdf.Document) -> None:
    """Draw a Japanese report with a table."""
    sheet = Sheet(pdf, JAPANESE, JAPANESE)
    sheet.title("湖畔町 観光報告", "2023年度")
    sheet.heading("季節ごとの来訪者")
    sheet.table(VISITORS)
    sheet.lines(
        "来訪者は前の年より一割増えました。",
        "夏の花火大会は8月12日に開かれ、",
        "約4,500人が集まりました。",
        "来年度は湖の西に案内所を作ります。",
    )


def kettle_manual(pdf: pymupdf.Document) -> None:
    """Draw a manual whose numbered steps run on from the first page to the second."""
    sheet = Sheet(pdf)
    sheet.title("Kettle K-20", "Manual")
    sheet.heading("Technical data")
    sheet.lines("Capacity: 1.7 litres", "Power: 2,200 watts", "Guarantee: 3 years")
    sheet.heading("Removing limescale")
    sheet.lines(
        "1. Unplug the kettle and let it cool.",
        "2. Fill it with half a litre of water.",
        "3. Add 50 ml of lemon juice.",
        "4. Boil it once and wait 30 minutes.",
    )
    sheet = Sheet(pdf)
    sheet.lines(
        "5. Pour the water away.",
        "6. Rinse the kettle twice.",
        "7. Boil fresh water and pour it away.",
    )
    sheet.heading("When the red light blinks")
    sheet.lines(
        "Three times: there is too little water.",
        "Five times: the heater needs a repair.",
        "Call the service: 0800 555 0142",
    )


def scanned_invoice(pdf: pymupdf.Document) -> None:
    """Draw an invoice as a scanner gives it: grey, noisy, a little askew, without a text layer."""
    with pymupdf.open() as clean:
        sheet = Sheet(clean, "cour", "cobo")
        sheet.y += 20
        sheet.lines(*(line or " " for line in INVOICE), size=15)
        pixmap = sheet.page.get_pixmap(dpi=SCAN_DPI, colorspace=pymupdf.csGRAY)
    image = Image.frombytes("L", (pixmap.width, pixmap.height), pixmap.samples)
    turned = image.rotate(0.7, Image.Resampling.BICUBIC, fillcolor=255)
    pixels = np.asarray(turned.filter(ImageFilter.GaussianBlur(0.5)), np.float64)
    # RandomState, not default_rng: its stream is frozen for good.
    noise = np.random.RandomState(1).normal(0, 4, pixels.shape)  # noqa: NPY002
    scan = Image.fromarray(np.clip(pixels * 0.93 + 8 + noise, 0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    scan.save(buffer, "JPEG", quality=45)
    page = pdf.new_page(width=WIDTH, height=HEIGHT)
    page.insert_image(page.rect, stream=buffer.getvalue())


SAMPLES: dict[str, Callable[[pymupdf.Document], None]] = {
    "annual-report.pdf": sales_report,
    "electricity-chart.pdf": electricity_chart,
    "invoice-scan.pdf": scanned_invoice,
    "kettle-manual.pdf": kettle_manual,
    "tourism-ja.pdf": tourism_report,
}


def draw(folder: Path) -> list[Path]:
    """Write every sample into a folder; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, make in SAMPLES.items():
        with pymupdf.open() as pdf:
            make(pdf)
            pdf.subset_fonts()
            pdf.set_metadata({"title": name.removesuffix(".pdf"), "producer": "samples/draw.py"})
            pdf.save(folder / name, garbage=4, deflate=True, no_new_id=True, use_objstms=1)
        paths.append(folder / name)
    return paths


def main() -> None:
    """Draw the samples and print their sizes as one JSON line; note the sums of committed ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=SAMPLES_FOLDER)
    folder = parser.parse_args().folder
    paths = draw(folder)
    if folder == SAMPLES_FOLDER:
        sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths]
        (HERE / "SHA256SUMS").write_text("".join(sums))
    print(json.dumps({path.name: path.stat().st_size for path in paths}))


if __name__ == "__main__":
    main()
