"""A question that goes on from earlier ones → what it asks, said in full.

"And in 2022?" after "What were the total sales in 2023?" is about total sales: pages are looked
for, and quoted, by both, with the years, months and quarters of the newer one.
"""

import re
from collections.abc import Sequence

from index.text_layer import EMPTY
from rag.moments import moments, without

WIDE = r"\u3040-\u30ff\u3400-\u9fff"
THING = re.compile(rf"[^\W\d_{WIDE}]{{2,}}|[\u3400-\u9fff々]{{2,}}|[\u30a0-\u30ff]{{2,}}")
GOING_ON = re.compile(
    r"\W*((and|but|also|then|what about|how about)\b"
    r"|では|じゃあ|それ|その|これ|この|同じ|同様|ちなみに)",
    re.IGNORECASE,
)
FEW = 2  # things that a question that stands alone names; one more where it begins with "and"
LONG = 3  # letters of a Japanese word that says as much as two of other languages


def is_follow_up(question: str) -> bool:
    """Whether a question says too little to be understood without those before it."""
    things = {
        thing.lower()
        for thing in THING.findall(question)
        if thing.lower() not in EMPTY and not any(moments(thing).values())
    }
    n_things = sum(1 + (len(thing) >= LONG and not thing.isascii()) for thing in things)
    return n_things < FEW + bool(GOING_ON.match(question))


def in_full(question: str, earlier: Sequence[str]) -> str:
    """Return a question with what it leaves to earlier ones, oldest first."""
    whole = ""
    for each in (*earlier, question):
        if whole and is_follow_up(each):
            whole = f"{without(whole, moments(each))} {each}"
        else:
            whole = each
    return whole
