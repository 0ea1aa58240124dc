"""What stands on a drawn page: blocks of HTML, and the questions that each block answers."""

import html
import random
import re
from dataclasses import dataclass

from training.corpus import Corpus, Question, Table


@dataclass(frozen=True)
class Fact:
    """A question that the page answers, and the answer as it stands on the page."""

    kind: str
    question: str
    answer: str


@dataclass(frozen=True)
class Block:
    """A piece of HTML with the facts that can be asked about it."""

    markup: str
    facts: tuple[Fact, ...] = ()


FORM_LABELS = {
    "en": "Name,Address,Date,Invoice number,Total,Phone,Email,Customer,Order number,Department,"
    "Amount due,Account,Reference,Country,City,Position,Signature,Quantity,Unit price,Tax,"
    "Project,Prepared by,Approved by,Version,Status,Issue date,Due date,Postal code".split(","),
    "ja": "氏名,住所,日付,請求番号,合計金額,電話番号,担当者,会社名,注文番号,部署,品名,数量,単価,"
    "消費税,備考,口座番号,生年月日,発行日,支払期限,件名,所属,役職,郵便番号,納期,承認者,版".split(
        ","
    ),
}
UNITS = {
    "en": ["%", " million", " km", " kg", "", "", " USD"],
    "ja": ["%", "億円", "人", "件", "", "万円", "台"],
}
MONTHS = (
    "January February March April May June July August September October November December".split()
)


def with_digits_swapped(blocks: list[Block], rng: random.Random) -> list[Block]:
    """Return the blocks with two digits exchanged throughout one block that shows both or one.

    The result is a near-identical page: the hardest thing to tell apart by looking.
    """
    shown_in = [re.sub(r"<[^>]*>|&[#\w]+;", " ", block.markup) for block in blocks]
    numbered = [at for at, text in enumerate(shown_in) if re.search(r"\d", text)]
    if not numbered:
        return blocks
    chosen = rng.choice(numbered)
    shown = sorted(set(re.findall(r"\d", shown_in[chosen])))
    one = rng.choice(shown)
    other = rng.choice([digit for digit in "0123456789" if digit != one])
    swap = str.maketrans(one + other, other + one)
    block = blocks[chosen]
    markup = re.sub(  # tags and entities stay as they are
        r"<[^>]*>|&[#\w]+;|\d",
        lambda found: found[0].translate(swap) if len(found[0]) == 1 else found[0],
        block.markup,
    )
    facts = tuple(
        Fact(f.kind, f.question.translate(swap), f.answer.translate(swap)) for f in block.facts
    )
    return [*blocks[:chosen], Block(markup, facts), *blocks[chosen + 1 :]]


def number(rng: random.Random) -> str:
    """Return a figure as reports print them."""
    value = rng.choice([rng.uniform(0, 100), rng.uniform(0, 9999), rng.uniform(0, 999999)])
    text = f"{value:,.{rng.choice([0, 0, 1, 2])}f}"
    return rng.choice([text, text, text, f"({text})", f"-{text}"])


def date(rng: random.Random, language: str) -> str:
    """Return a date as it is written in the language."""
    year, month, day = rng.randint(1960, 2029), rng.randint(1, 12), rng.randint(1, 28)
    if language == "ja":
        return rng.choice(
            [
                f"{year}年{month}月{day}日",
                f"令和{rng.randint(1, 9)}年{month}月{day}日",
                f"{year}/{month:02}/{day:02}",
            ]
        )
    name = MONTHS[month - 1]
    return rng.choice(
        [f"{name} {day}, {year}", f"{day} {name} {year}", f"{year}-{month:02}-{day:02}"]
    )


def title(corpus: Corpus, rng: random.Random, language: str, level: int = 1) -> Block:
    """Return a heading, asked for by name when it is the page's title."""
    text = corpus.phrase(rng, language, rng.randint(2, 6))
    if rng.random() < 0.15:
        text = text.upper()
    if level > 1 and rng.random() < 0.5:
        label = (
            f"{rng.randint(1, 9)}.{rng.randint(1, 9)}"
            if rng.random() < 0.6
            else f"{rng.randint(1, 20)}."
        )
        text = (
            f"{label} {text}"
            if language == "en"
            else rng.choice([f"{label} {text}", f"第{rng.randint(1, 9)}章 {text}"])
        )
    ask = {
        "en": ["What is the title of this page?", "What is the title?"],
        "ja": ["このページのタイトルは何ですか。", "題名は何ですか?"],
    }[language]
    facts = (Fact("title", rng.choice(ask), text),) if level == 1 else ()
    return Block(f"<h{level}>{html.escape(text)}</h{level}>", facts)


def section(corpus: Corpus, rng: random.Random, language: str) -> Block:
    """Return a heading with its paragraph; asks which heading stands above the first words."""
    head = title(corpus, rng, language, level=rng.choice([2, 3]))
    body = corpus.paragraph(rng, language)
    start = " ".join(body.split()[:4]) if language == "en" else body[:8]
    ask = (
        f'What is the heading above "{start}"?'
        if language == "en"
        else f"「{start}」の上の見出しは何ですか。"
    )
    answer = html.unescape(head.markup[4:-5])
    return Block(f"{head.markup}<p>{html.escape(body)}</p>", (Fact("heading", ask, answer),))


def paragraph(corpus: Corpus, rng: random.Random, language: str) -> Block:
    """Return a paragraph, now and then one that has a question of its own."""
    if rng.random() < 0.4 and corpus.questions[language]:
        found: Question = rng.choice(corpus.questions[language])
        return Block(
            f"<p>{html.escape(found.context)}</p>", (Fact("text", found.question, found.answer),)
        )
    return Block(f"<p>{emphasised(corpus.paragraph(rng, language), rng)}</p>")


def emphasised(text: str, rng: random.Random) -> str:
    """Return the text as HTML, some of it in bold or italic type; Japanese has no italics."""
    words = text.split(" ")
    if len(words) < 2:
        return html.escape(text)
    tag = rng.choice(["b", "i", "i", "i", "b", ""] if rng.random() < 0.35 else [""])
    first = rng.randrange(len(words)) if rng.random() < 0.7 else 0
    last = min(len(words), first + rng.choice([1, 3, 8, len(words)]))
    parts = [
        html.escape(" ".join(part)) for part in (words[:first], words[first:last], words[last:])
    ]
    if tag:
        parts[1] = f"<{tag}>{parts[1]}</{tag}>"
    return " ".join(part for part in parts if part)


def reference(corpus: Corpus, rng: random.Random, language: str) -> Block:
    """Return entries of a bibliography: names, year, title, journal in italics, an address."""

    def entry() -> str:
        names = ", ".join(
            f"{corpus.phrase(rng, 'en', 1).capitalize()}, {chr(rng.randint(65, 90))}."
            for _ in range(rng.randint(1, 4))
        )
        title, journal = (corpus.phrase(rng, language, n).capitalize() for n in (7, 3))
        pages = f"{rng.randint(1, 400)}–{rng.randint(401, 999)}"
        journal = f"<i>{html.escape(journal)}, {rng.randint(1, 90)}</i>({rng.randint(1, 12)})"
        return (
            f"<p>{html.escape(names)} ({rng.randint(1950, 2029)}). {html.escape(title)}. "
            f"{journal}, {pages}. {html.escape(address(corpus, rng))}</p>"
        )

    return Block("".join(entry() for _ in range(rng.randint(2, 6))))


def address(corpus: Corpus, rng: random.Random) -> str:
    """Return a web or mail address, or an identifier of a publication."""
    words = [re.sub(r"[^a-z]", "", corpus.phrase(rng, "en", 1).lower()) or "page" for _ in range(3)]
    end = rng.choice(["com", "org", "jp", "go.jp", "net", "gov"])
    return rng.choice(
        [
            f"https://www.{words[0]}.{end}/{words[1]}/{words[2]}.html",
            f"https://{words[0]}-{words[1]}.{end}/{rng.randint(1, 9999)}",
            f"https://doi.org/10.{rng.randint(1000, 9999)}/{words[0]}.{rng.randint(10**4, 10**7)}",
            f"{words[0]}@{words[1]}.{end}",
        ]
    )


def code(corpus: Corpus, rng: random.Random, language: str) -> Block:
    """Return lines of a program or of a command, in the type of typewriters."""
    upper = rng.random() < 0.4

    def name() -> str:
        found = "_".join(corpus.phrase(rng, "en", 1) for _ in range(rng.randint(1, 3)))
        found = re.sub(r"[^A-Za-z0-9_]", "", found) or "x"
        return found.upper() if upper else found.lower()

    def line() -> str:
        value = rng.choice([f'"{name()}"', f"'{name()}'", str(rng.randint(0, 9999)), name()])
        return rng.choice(
            [
                f"{name()} = {value}", f"{name()}({name()}, {value})", f"if {name()} == {value}:",
                f"SELECT {name()} FROM {name()} WHERE {name()} = {value};", f"# {name()} {value}",
                f"$ {name()} --{name().replace('_', '-')} {value}", f"return {name()}.{name()}();",
                f"WHEN {name()} ( {name()} , {value} ) = {rng.randint(0, 9)}", f"{name()}: {value}",
            ]
        )  # fmt: skip

    rows = [" " * rng.choice([0, 0, 2, 4]) + line() for _ in range(rng.randint(3, 12))]
    return Block("".join(f'<p class="code">{html.escape(row)}</p>' for row in rows))


def bullets(corpus: Corpus, rng: random.Random, language: str) -> Block:
    """Return a bulleted or numbered list."""
    tag = rng.choice(["ul", "ul", "ol"])
    items = [corpus.phrase(rng, language, rng.randint(3, 12)) for _ in range(rng.randint(3, 8))]
    rows = "".join(f"<li>{html.escape(item)}</li>" for item in items)
    return Block(f"<{tag}>{rows}</{tag}>")


def form(corpus: Corpus, rng: random.Random, language: str) -> Block:
    """Return labels with filled-in values."""
    labels = rng.sample(FORM_LABELS[language], rng.randint(4, 10))
    rows, facts = [], []
    for label in labels:
        value = _form_value(corpus, rng, language, label)
        rows.append((label, value))
        ask = rng.choice(
            [f"What is the {label.lower()}?", f"{label}?"]
            if language == "en"
            else [f"{label}は何ですか。", f"{label}を答えてください。"]
        )
        kind = "date" if "date" in label.lower() or "日" in label else "form"
        facts.append(Fact(kind, ask, value))
    colon = rng.choice([":", "", " :"]) if language == "en" else rng.choice(["：", "", ":"])
    if rng.random() < 0.5:
        body = "".join(f"<tr><td>{a}{colon}</td><td>{html.escape(b)}</td></tr>" for a, b in rows)
        return Block(
            f'<table class="{rng.choice(["ruled", "plain"])}">{body}</table>', tuple(facts)
        )
    body = "".join(f"<p><b>{a}{colon}</b> {html.escape(b)}</p>" for a, b in rows)
    return Block(body, tuple(facts))


def _form_value(corpus: Corpus, rng: random.Random, language: str, label: str) -> str:
    if any(word in label for word in ("date", "Date", "日", "期限", "納期")):
        return date(rng, language)
    if any(word in label for word in ("number", "Phone", "code", "番号", "Account", "Reference")):
        return "-".join(str(rng.randint(10, 99999)) for _ in range(rng.randint(1, 3)))
    if any(
        word in label
        for word in ("Total", "Amount", "price", "Quantity", "Tax", "金額", "単価", "数量", "税")
    ):
        return number(rng) + rng.choice(UNITS[language])
    return corpus.phrase(rng, language, rng.randint(1, 3))


def table(corpus: Corpus, rng: random.Random, language: str) -> Block:
    """Return a table, real or made up, and questions about some of its cells."""
    found = _made_up_table(corpus, rng, language)
    if language == "en" and rng.random() < 0.4:
        found = _real_table(corpus, rng)
    style = rng.choice(["ruled", "ruled", "lines", "plain", "shaded"])
    if rng.random() < 0.12:
        found = Table(tuple(cell.upper() for cell in found.header), found.rows)
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in found.header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in found.rows
    )
    markup = f'<table class="{style}"><tr>{head}</tr>{body}</table>'
    return Block(markup, tuple(_cell_facts(found, rng, language)))


def _real_table(corpus: Corpus, rng: random.Random) -> Table:
    chosen = rng.choice(corpus.tables)
    width = min(len(chosen.header), 6)
    start = rng.randrange(max(1, len(chosen.rows) - 8))
    rows = tuple(row[:width] for row in chosen.rows[start : start + rng.randint(3, 12)])
    return Table(chosen.header[:width], rows)


def _made_up_table(corpus: Corpus, rng: random.Random, language: str) -> Table:
    columns, rows = rng.randint(2, 6), rng.randint(3, 14)
    first_year = rng.randint(1980, 2020)
    suffix = "年" if language == "ja" and rng.random() < 0.5 else ""
    if rng.random() < 0.5:
        heads = [f"{first_year + i}{suffix}" for i in range(columns)]
    else:
        heads = [corpus.phrase(rng, language, rng.randint(1, 2))[:16] for _ in range(columns)]
    unit = rng.choice(UNITS[language]) if rng.random() < 0.3 else ""
    body = tuple(
        (corpus.phrase(rng, language, rng.randint(1, 3))[:24], *(number(rng) + unit for _ in heads))
        for _ in range(rows)
    )
    return Table(("" if rng.random() < 0.5 else corpus.phrase(rng, language, 1)[:12], *heads), body)


def _cell_facts(found: Table, rng: random.Random, language: str) -> list[Fact]:
    facts = []
    for row in rng.sample(found.rows, min(4, len(found.rows))):
        column = rng.randrange(1, len(found.header))
        head, name, value = found.header[column], row[0], row[column]
        if head and name and value:
            ask = rng.choice(
                [f"What is {head} of {name}?", f"{name}: {head}?"]
                if language == "en"
                else [f"{name}の{head}はいくつですか。", f"{name}の{head}は?"]
            )
            facts.append(Fact("table", ask, value))
    return facts
