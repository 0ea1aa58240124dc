"""What of a chat becomes the question and the turns before it."""

import pytest

from rag.errors import UsageError
from ui.openai_api import ChatBody
from ui.requests import ServiceLimits

LIMITS = ServiceLimits(turns=2, new_tokens=64)
CALL = {"role": "assistant", "content": None}
RESULT = {"role": "tool", "content": "{}"}


def say(role, content):
    return {"role": role, "content": content}


def asked(*messages, **more):
    return ChatBody(messages=list(messages), **more).request("me", LIMITS)


def test_answers_after_a_call_of_a_tool_belong_to_their_question():
    request = asked(say("user", "q1"), CALL, RESULT, say("assistant", "a1"), say("user", "q2"))
    assert request.question == "q2"
    assert request.history == (("q1", "a1"),)


def test_the_latest_turns_and_the_longest_answer_there_is():
    turns = [say(role, f"{role[0]}{n}") for n in range(5) for role in ("user", "assistant")]
    request = asked(*turns, say("user", "q"), max_tokens=100_000)
    assert request.history == (("u3", "a3"), ("u4", "a4"))
    assert request.max_new_tokens == 64
    assert asked(say("user", "q")).max_new_tokens is None


@pytest.mark.parametrize("last", [say("assistant", "a"), say("user", " "), say("user", None)])
def test_a_chat_ends_with_a_question(last):
    with pytest.raises(UsageError, match="the user's question"):
        asked(say("user", "q"), last)
