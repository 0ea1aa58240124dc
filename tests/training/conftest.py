"""A work folder made of our own sentences and the fonts that come with PyMuPDF."""

import json

import pymupdf
import pytest

ENGLISH = [
    "The harbour office counts every boat that comes in before noon and writes it in a blue book.",
    "A letter from the north arrived on Tuesday; nobody had expected it so soon after the storm.",
    "Three bridges cross the river, and the oldest of them is closed to carts in winter.",
    "Her report lists the price of salt, copper and wool for each month of the year.",
    "When the lamp went out they waited quietly, and then somebody began to laugh.",
]
JAPANESE = [
    "港の事務所では、正午までに入った船をすべて青い帳面に書き留めています。",
    "北からの手紙は火曜日に届いた。嵐のあとこんなに早いとは誰も思っていなかった。",
    "川には三つの橋があり、いちばん古い橋は冬のあいだ車が通れない。",
    "報告書には塩と銅と羊毛の値段が月ごとに並んでいる。",
    "明かりが消えると皆は静かに待ち、やがて誰かが笑い出した。",
]


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    """Return a work folder as `prepare` makes it, tokenizer excepted."""
    folder = tmp_path_factory.mktemp("work")
    text = folder / "text"
    text.mkdir()
    (text / "en.txt").write_text("\n".join(ENGLISH), encoding="utf-8")
    (text / "ja.txt").write_text("\n".join(JAPANESE), encoding="utf-8")
    table = [["Port", "Boats", "Crew"], ["North", "12", "140"], ["South", "7", "88"]]
    (text / "tables.jsonl").write_text(json.dumps(table) + "\n")
    questions = [
        ["en", ENGLISH[2], [["Which bridge is closed to carts?", "the oldest"]]],
        ["ja", JAPANESE[2], [["冬に車が通れないのはどの橋ですか。", "いちばん古い橋"]]],
    ]
    (text / "asked.txt").write_text("how many people voted in the last election?\n")
    (text / "questions.jsonl").write_text(
        "".join(json.dumps(q, ensure_ascii=False) + "\n" for q in questions), encoding="utf-8"
    )
    fonts = folder / "fonts"
    fonts.mkdir()
    families = []
    for name, language in (("helv", "en"), ("tiro", "en"), ("japan", "ja")):
        (fonts / f"{name}.otf").write_bytes(pymupdf.Font(name).buffer)
        files = {"regular": f"{name}.otf"}
        families.append({"name": name, "language": language, "weight": 1, "files": files})
    (fonts / "fonts.json").write_text(json.dumps(families))
    known = sorted({c for line in ENGLISH + JAPANESE for c in line if c > " "} | set("0123456789"))
    (folder / "characters.txt").write_text("".join(known), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tools(work):
    """Return the tools of the work folder, with a tokenizer trained on it."""
    from training import tokenizer
    from training.batches import Tools

    tokenizer.train(work / "text", 700).save(str(work / "tokenizer.json"))
    return Tools.load(work)
