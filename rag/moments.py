"""Years, months and quarters in a text, as people write them: 2023, FY23, 令和5年度, Q1, 3月期."""

import re
import unicodedata

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# With a capital: people may ask for what is on the march.
NAMED_MONTH = re.compile(
    r"\b(?:(?=[A-Z])(?i:(jan)(?:uary)?|(feb)(?:ruary)?|(mar)(?:ch)?|(apr)(?:il)?|(may)|(jun)e?"
    r"|(jul)y?|(aug)(?:ust)?|(sep)(?:t|tember)?|(oct)(?:ober)?|(nov)(?:ember)?|(dec)(?:ember)?))\b"
)
ERAS = {"令和": 2018, "平成": 1988, "昭和": 1925, "大正": 1911}  # the year before the first
ERA_YEAR = re.compile(f"({'|'.join(ERAS)})\\s?(元|\\d{{1,2}})(?!\\d)")
YEAR = re.compile(r"(?<!\d)((?:19|20)\d\d)(?!\d)(?:\s?[/–-]\s?(\d\d)(?!\d))?")
SHORT_YEAR = re.compile(r"(?:\b(?:FY|CY)\s?|(?<=[1-4]Q)\s?|['’])(\d\d)(?!\d)", re.IGNORECASE)
MONTH = re.compile(r"(?<!\d)(1[0-2]|[1-9])月")
QUARTER = re.compile(r"\bQ([1-4])|(?<!\d)([1-4])Q|第([1-4])四半期", re.IGNORECASE)
NAMED_QUARTER = re.compile(
    r"\b(?:(first|1st)|(second|2nd)|(third|3rd)|(fourth|4th))[\s-]+quarter", re.IGNORECASE
)

MONTH_NAME = (
    r"\b(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?"
    r"|Sep(?:t(?:ember)?)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\b\.?"
)
DATE = re.compile(
    rf"{MONTH_NAME} \d{{1,2}}(?:st|nd|rd|th)?(?:,? (?:19|20)\d\d)?(?![\d,]*\d)"
    rf"|\b\d{{1,2}} {MONTH_NAME}(?: (?:19|20)\d\d)?|{MONTH_NAME},? (?:19|20)\d\d"
    r"|(?:(?:令和|平成|昭和|大正|西暦) ?(?:\d{1,2}|元)年度?|(?<!\d)(?:19|20)\d\d ?年度?)"
    r"(?:\([^)]{2,9}\))?(?:(?:1[0-2]|[1-9])月(?!間))?(?:\d{1,2}日)?"
    r"|(?<!\d)(?:1[0-2]|[1-9])月(?!間)(?:\d{1,2}日)?"
    r"|(?<![\d.,/-])(?:19|20)\d\d[-/.](?:1[0-2]|0?[1-9])(?:[-/.]\d{1,2})?(?![\d/-])"
    r"|(?<![\w$€£¥.,-])(?:(?:fiscal|FY) ?)?(?:19|20)\d\d(?:[/–-]\d\d)?(?![\w.,%-]*\d)(?!\w)",
    re.IGNORECASE,
)

Moments = dict[str, frozenset[int]]
PLACES = {
    "year": (ERA_YEAR, YEAR, SHORT_YEAR),
    "month": (NAMED_MONTH, MONTH),
    "quarter": (QUARTER, NAMED_QUARTER),
}


def without(text: str, named: Moments) -> str:
    """Return a text without its own years, months or quarters where others are named."""
    text = unicodedata.normalize("NFKC", text)
    for kind, patterns in PLACES.items():
        for pattern in patterns if named[kind] else ():
            text = pattern.sub(" ", text)
    return " ".join(text.split())


def moments(text: str) -> Moments:
    """Return the "year", "month" and "quarter" numbers that a text names."""
    text = unicodedata.normalize("NFKC", text)
    years = {ERAS[era] + (1 if n == "元" else int(n)) for era, n in ERA_YEAR.findall(text)}
    for year, until in YEAR.findall(text):
        years.add(int(year))
        if until and int(until) == (int(year) + 1) % 100:  # 2022/23, but no 2010-12
            years.add(int(year) + 1)
    years |= {2000 + int(year) for year in SHORT_YEAR.findall(text)}
    named = (MONTHS.index("".join(found).lower()) + 1 for found in NAMED_MONTH.findall(text))
    quarters = {int("".join(found)) for found in QUARTER.findall(text)}
    quarters |= {match.lastindex or 0 for match in NAMED_QUARTER.finditer(text)}
    return {
        "year": frozenset(years),
        "month": frozenset(named) | {int(month) for month in MONTH.findall(text)},
        "quarter": frozenset(quarters),
    }
