"""A streamed turn is the turn that is not streamed, in pieces."""

import asyncio

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.messages.utils import message_chunk_to_message
from langgraph.graph import START, MessagesState, StateGraph

from eapo_agents.policy.chat_messages import reason_of, sure_text
from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.recording import TurnRecord, recording
from eapo_agents.policy.tool_calls import format_call

KEY = RolloutKey(seed=0, problem_id="p", step=1, rollout=2, turn=0)
CALL = format_call("ask", {"query": "x <b> \u2211", "n": [1, 2.5, None], "deep": {"a": "}"}})
TEXTS = [
    "one two three four",
    f"I ask. {CALL}",
    f"{CALL}{format_call('again', {})} and then some",
    "I ask. <tool_call>{broken</tool_call> Sorry.",
    '<tool_call>{"name": "ask", "arguments": {"q": "never closed"',
    '<tool_call>{"name": "ask", "colour": "red"}</tool_call>',
    "<tool_call></tool_call>",
    "<think>let me see</think>The answer is 3 < 4.",
    "no opening</think>The answer is 4.",
    r"  So \frac{1}{2} [see above] and x^{2} < 3, i <3 you, `code` and [1, 2]. ",
    "smile \U0001f600 and \u00e9l\u00e8ve",
    "",
]


def added_up(chunks):
    assert all(isinstance(chunk, AIMessageChunk) for chunk in chunks)
    return message_chunk_to_message(sum(chunks[1:], chunks[0]))


def told(message: AIMessage):
    """All of a message but its id; LangChain loses the error of a call that cannot be sent."""
    assert type(message) is AIMessage
    invalid = [(c["name"], c["args"], c["id"]) for c in message.invalid_tool_calls]
    reasons = [reason_of(message, call) for call in message.invalid_tool_calls]
    assert None not in reasons
    rest = message.model_dump(exclude={"id", "invalid_tool_calls"})
    return rest, invalid, reasons


@pytest.mark.parametrize("text", TEXTS)
async def test_the_pieces_of_a_turn_add_up_to_it(scripted, text):
    policy = scripted([text])
    whole = policy.invoke("Q", rollout_key=KEY)
    assert TurnRecord.read(whole).text == text
    chunks = list(policy.stream("Q", rollout_key=KEY))
    if "no opening" not in text:  # which is noticed once it has been streamed
        assert told(added_up(chunks)) == told(whole)
    assert TurnRecord.read(added_up(chunks)) == TurnRecord.read(whole)
    assert not any("tool_call" in chunk.text for chunk in chunks)


async def test_text_is_told_as_it_is_sampled_and_calls_at_the_end(scripted):
    chunks = [c async for c in scripted([f"one two three {CALL}"]).astream("Q")]
    assert [c.text for c in chunks][:3] == ["one", " two", " three"]
    assert [c["name"] for chunk in chunks for c in chunk.tool_call_chunks] == ["ask"]


@pytest.mark.parametrize(
    ("text", "sure"),
    [
        ("I ask <", "I ask"),
        ("I ask <tool", "I ask"),
        ("3 < 4 and 5 <= 6", "3 < 4 and 5 <= 6"),
        ("see [TOOL_CALLS", "see"),
        ("see [", "see"),
        ("see [get_weather(", "see"),
        ("the list [1, 2]", "the list [1, 2]"),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        ('so {"name', "so"),
        ("so ```json", "so"),
        ("say `x` now", "say `x` now"),
    ],
)
def test_what_may_begin_a_call_is_held_back(text, sure):
    assert sure_text(text) == sure


def graph_of(policy):
    async def node(state):
        return {"messages": [await policy.ainvoke(state["messages"])]}

    return StateGraph(MessagesState).add_node("n", node).add_edge(START, "n").compile()


async def test_a_graph_that_is_streamed_records_the_same_turn(scripted):
    policy = scripted([f"I ask. {CALL}<tool_call>{{broken</tool_call>"])
    found = []
    for streamed in (False, True):
        with recording(KEY) as recorder:
            given = {"messages": [HumanMessage("Q")]}
            if streamed:
                stream = graph_of(policy).astream(given, stream_mode="messages")
                assert len([part async for part in stream]) > 2
            else:
                await graph_of(policy).ainvoke(given)
        found.append(recorder.records)
    assert found[0] == found[1]


async def test_a_stream_that_is_left_makes_the_run_unusable_and_says_why(scripted):
    slow = scripted(["one two three"])

    async def never_ends(prompt_ids, sampling, key, *, on_token):
        on_token(slow.renderer.encode_text("one")[0])
        await asyncio.sleep(60)

    class Slow:
        policy_version = slow.engine.policy_version
        generate = staticmethod(never_ends)

    with recording(KEY) as recorder:
        stream = slow.model_copy(update={"engine": Slow()}).astream("Q")
        await anext(stream)
        await stream.aclose()
    assert "left before its end" in recorder.fault
