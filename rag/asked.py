"""A question → the kind of answer it wants, and how much a passage looks like one."""

import re
import unicodedata
from functools import cached_property

from rag.moments import DATE, moments

KIND_HELP = 1.3  # times; of a passage that has what is asked for
FIGURES_HELP = 1.2  # most questions to a report ask for a number
WHEN = re.compile(
    r"\bwhen\b|\b(what|which) (date|day|year|month|time)\b|いつ|何[年月日]|日付|日時|年月日",
    re.IGNORECASE,
)
HOW_MANY = re.compile(
    r"\bhow (many|much|long|often|far|large|big|high|old)\b"
    r"|\b(percent|percentage|share|number|rate|amount|cost|total|average|price)\b"
    r"|[%％]|いくら|いくつ|どれ(くらい|だけ|ほど)|何[^がをでのにはかもと]|割合|[数額量率]は",
    re.IGNORECASE,
)
DEFINED = re.compile(
    r"^\W*(?:(?P<ja>.{1,30}?)(?:とは|って)(?:何|なに|どういう|どのような|どんな|\W*$)"
    r"|what\s+(?:is|are)\s+an?\s+(?P<kind>[^?]{1,30}?)\s+(?:in|on|at|for)\s"
    r"|(?:what|who)\s+(?:is|are|was|were)\s+(?:an?\s+|the\s+)?(?P<en>[^?]{1,30}?)\W*$"
    r"|what\s+does\s+(?P<short>.{1,30}?)\s+(?:stand|mean)\b|what\s+is\s+(?P<for>.{1,30}?)\s+short\s+for)",
    re.IGNORECASE,
)
NAME_START = r"(?<![^\W\u3041-\u309f])"  # これをハルシネーションと呼ぶ
NUMBER = re.compile(r"\d[\d,.]*")


class Asked:
    """What a question wants to know."""

    def __init__(self, question: str) -> None:
        self.text = unicodedata.normalize("NFKC", question)

    @cached_property
    def defined(self) -> str:
        """What the question wants to have explained, "" if nothing is."""
        match = DEFINED.match(self.text)
        return next(filter(None, match.groups()), "").strip("「」『』\"'“” ") if match else ""

    @cached_property
    def _definition(self) -> re.Pattern[str]:
        name = rf"[「『“\"]?{re.escape(self.defined)}[」』”\"]?"
        told = rf"{name}\s*(?:\([^)]*\)\s*)?"
        begins = (
            rf"^(?:\W|\d|an?\s|the\s)*{told}"
            r"(?:\s?(?:is|are|was|means|stands|refers)\b|は、|[:\t]\W*[^\W\d])"
        )
        names = (
            rf"{told}と(?:は|呼[ばびぶん]|称[さしすせ]|いう[。)]|いい(?:ます|、))"
            rf"|\b(?:called|known as|referred to as|defined as)\s+(?:an?\s|the\s)?{name}(?!\w)"
            rf"|\bwe\s(?:\w+\s)?call\s[^.;]{{0,60}}?{name}(?!\w)"
        )
        return re.compile(rf"{begins}|{NAME_START}(?:{names}|{name}\s?\()|\({name}[)、,]", re.I)

    def is_name(self, text: str) -> bool:
        """Whether a passage is what is to be explained, and nothing else."""
        folded = unicodedata.normalize("NFKC", text).casefold()
        return bool(self.defined) and folded == self.defined.casefold()

    def is_defined_by(self, text: str) -> bool:
        """Whether a passage says what is to be explained: "X is …", "… (X)", 「X」とは."""
        folded = unicodedata.normalize("NFKC", text)
        return bool(self.defined) and bool(self._definition.search(folded))

    @cached_property
    def wants_kind(self) -> bool:
        """Whether a date or a number is asked for."""
        return bool(WHEN.search(self.text) or HOW_MANY.search(self.text))

    def is_of_kind(self, text: str) -> bool:
        """Whether a passage has a date, where one is asked for, or else another number.

        What the question itself says of them is no answer.
        """
        folded = unicodedata.normalize("NFKC", text)
        if WHEN.search(self.text):
            return any(moments(folded)[kind] for kind in ("year", "month"))
        numbers = set(NUMBER.findall(DATE.sub(" ", folded)))
        return bool(numbers - set(NUMBER.findall(self.text)))

    def help(self, text: str) -> float:
        """Return how many times as much a passage counts for being what is asked for."""
        if not self.is_of_kind(text):
            return 1.0
        return KIND_HELP if self.wants_kind else FIGURES_HELP
