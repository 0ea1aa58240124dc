"""The questions of a visit as the browser keeps them: in its tab, to be shown again after a reload.

They end with the tab, and the server has no copy. What comes back was in the browser's hands, so it
is read as a stranger's: what is no question and answer of ours is left out.
"""

from pydantic import TypeAdapter, ValidationError

from rag.words import LONGEST_QUESTION
from ui.markup import LAST_PAGE
from ui.markup_ask import Turn

MAX_TURNS = 50  # of one visit; page.js is told
MAX_PAGES = 500  # found and cited for one question: more than come together
_TURN: TypeAdapter[Turn] = TypeAdapter(Turn)


def written(turn: Turn) -> str:
    """Return a turn as JSON."""
    return _TURN.dump_json(turn).decode("utf-8")


def read(data: object) -> tuple[tuple[Turn, ...], str]:
    """Return the turns, oldest first, and the question that was not answered yet, or "".

    data  {"turns": [JSON, …], "asked": question or null}, as page.js sends it
    """
    if not isinstance(data, dict):
        return (), ""
    sent, asked = data.get("turns"), data.get("asked")
    rows = sent[-MAX_TURNS:] if isinstance(sent, list) else []
    turns = tuple(turn for each in rows if (turn := _turn(each)) is not None)
    return turns, asked[:LONGEST_QUESTION] if isinstance(asked, str) else ""


def _turn(sent: object) -> Turn | None:
    if not isinstance(sent, str):
        return None
    try:
        turn = _TURN.validate_json(sent, strict=True)
    except ValidationError:
        return None
    pages = (*turn.pages, *((document, page) for document, page, _ in turn.hits))
    is_ours = turn.is_finished and all(1 <= page <= LAST_PAGE for _, page in pages)
    is_ours &= len(pages) <= MAX_PAGES  # each is drawn
    return turn if is_ours and turn.question.strip() else None
