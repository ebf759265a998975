"""What services send of a policy's turn, over real HTTP, and what becomes of it."""

import asyncio
import json
import re

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool

from eapo_agents.errors import EngineLostError, ExpertError, TransientExpertError
from eapo_agents.experts.costs import costs
from eapo_agents.policy.recording import TurnRecord
from eapo_agents.recipe import Recipe
from eapo_agents.types import Billed
from graphs.agent import load_agent

USAGE = {"prompt_tokens": 300, "completion_tokens": 20, "total_tokens": 320}
PRICE = {"input_usd": 100, "output_usd": 200}
COST = (300 * 100 + 20 * 200) / 1e6


@tool
def a(query: str) -> str:
    """An expert."""
    return query


def made(content=None, calls=(), finish="stop", usage=USAGE, **fields):
    sent = [{"id": "x", "type": "function", "function": function} for function in calls]
    message = {"role": "assistant", "content": content, "tool_calls": sent, **fields}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage})


def call(name="a", arguments='{"query": "q"}'):
    return {"name": name, "arguments": arguments}


@pytest.fixture
def agent(faulty):
    def make(fault="given", **policy):
        endpoint = {"url": faulty.url(fault), "model": "m"}
        calls = {"retries": 0, "price": PRICE, "timeout_s": 20, **policy}
        return load_agent(
            Recipe.model_validate({"name": "x", "policy": {"endpoint": endpoint, "calls": calls}})
        )

    return make


def ask(agent, *messages, tools=(a,)):
    policy = agent.policy(agent.sampling)
    bound = policy.bind_tools(list(tools)) if tools else policy
    return asyncio.run(bound.ainvoke(list(messages)))


@pytest.mark.parametrize(
    ("reply", "content", "calls", "thought"),
    [
        (made("Five."), "Five.", [], ""),
        (made([{"type": "text", "text": "Fi"}, {"type": "text", "text": "ve."}]), "Five.", [], ""),
        (made("<think>4?</think>\n\nFive."), "Five.", [], "4?"),
        (made("Five.", reasoning_content="4?"), "Five.", [], "4?"),
        (made("4?</think>Five."), "Five.", [], "4?"),
        (made(None, [call()]), "", [{"query": "q"}], ""),
        (made("<think>4?</think>", [call(), call()]), "", [{"query": "q"}] * 2, "4?"),
        (made("I ask.", [call(arguments={"query": "q"})]), "I ask.", [{"query": "q"}], ""),
        (made("", [call(arguments="")]), "", [{}], ""),
        (made("", [call(arguments=None)]), "", [{}], ""),
        (made("", [call(arguments='{"query": "a\nb"}')]), "", [{"query": "a\nb"}], ""),
        (made("", [call(arguments='{"query": "\\\\frac"}')]), "", [{"query": "\\frac"}], ""),
        (made("", [call(arguments='{"query": "\\ud800"}')]), "", [{"query": "?"}], ""),
        (made("", finish="function_call", function_call=call()), "", [{"query": "q"}], ""),
        (made(None, refusal="I will not."), "I will not.", [], ""),
        (made(""), "", [], ""),
        (made("Say `<tool_call>` to call."), "Say `<tool_call>` to call.", [], ""),
    ],
)
def test_a_turn_is_read_as_services_send_it(agent, faulty, reply, content, calls, thought):
    loaded = agent()
    message = ask(loaded, HumanMessage(reply))
    assert message.content == content
    assert [c["args"] for c in message.tool_calls] == calls
    record = TurnRecord.read(message)
    assert record.billed == Billed(prompt_tokens=300, completion_tokens=20, cost_usd=COST)
    assert (record.context_ids, record.completion_ids) == ((), ())
    assert record.text.startswith("<think>\n" + thought if thought else content)
    (row,) = loaded.pool.store.rows()
    assert (row[1].expert, row[1].thought) == ("policy", thought)
    assert faulty.last()["tools"][0]["function"]["name"] == "a"


@pytest.mark.parametrize(
    "arguments",
    ['{"query": ', "[1]", "7", "query", '{"query": "q"} and more', "[" * 19_000, "[" * 99_000],
)
def test_a_call_that_cannot_be_read_is_answered_with_a_reason(agent, faulty, arguments):
    loaded = agent()
    question = HumanMessage(made("", [call(arguments=arguments)]))
    message = ask(loaded, question)
    (invalid,) = message.invalid_tool_calls
    assert re.search("JSON|longer than 20,000", invalid["error"])
    notice = ToolMessage(made("Five."), tool_call_id=invalid["id"])
    assert ask(loaded, question, message, notice).content == "Five."
    sent = faulty.last()["messages"]
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"]
    assert "unreadable" in json.loads(sent[1]["tool_calls"][0]["function"]["arguments"])


@pytest.mark.parametrize("sent", ["<tool_call>\n{}\n</tool_call>", "\n[TOOL_CALLS] [{}]"])
def test_a_call_that_a_service_leaves_in_the_text_is_a_failure(agent, sent):
    with pytest.raises(ExpertError, match="left a call in the text"):
        ask(agent(), HumanMessage(made(sent)))
    assert ask(agent(), HumanMessage(made(sent)), tools=()).content == sent.strip()


@pytest.mark.parametrize("finish", ["length", "max_tokens"])
def test_a_turn_that_is_cut_off_says_so_and_is_booked(agent, finish):
    loaded = agent()
    message = ask(loaded, HumanMessage(made("<think>4 or", finish=finish)))
    assert message.response_metadata["finish_reason"] == "length"
    assert message.content == ""
    (summed,) = costs(loaded.pool.store.rows())
    assert (summed.tokens, summed.cost_usd) == (320, pytest.approx(COST))


@pytest.mark.parametrize(
    ("reply", "error", "tokens"),
    [
        (made("Fi", finish="content_filter"), ExpertError, 320),
        (made("Fi", finish="error"), TransientExpertError, 320),
        (made(None, finish=None), TransientExpertError, 320),
        (json.dumps({"error": {"message": "x"}, "usage": USAGE}), TransientExpertError, 320),
        ("null", TransientExpertError, 0),
        ('{"choices": []}', TransientExpertError, 0),
    ],
)
def test_a_reply_that_is_none_fails_the_turn_and_what_was_billed_is_booked(
    agent, reply, error, tokens
):
    loaded = agent()
    with pytest.raises(error):
        ask(loaded, HumanMessage(reply))
    assert loaded.pool.budget.spent_tokens == tokens


def test_what_a_service_does_not_count_is_unknown_and_its_own_price_counts(agent):
    record = TurnRecord.read(ask(agent(), HumanMessage(made("Five.", usage=None))))
    assert record.billed == Billed(prompt_tokens=None, completion_tokens=None, cost_usd=None)
    paid = made("Five.", usage={**USAGE, "cost": 0.25})
    assert TurnRecord.read(ask(agent(), HumanMessage(paid))).billed.cost_usd == 0.25


def test_every_attempt_is_booked_and_a_flaky_service_answers_in_the_end(agent, monkeypatch):
    monkeypatch.setattr("eapo_agents.experts.calling._FIRST_WAIT_S", 0.01)
    loaded = agent("flaky", retries=2)
    assert ask(loaded, HumanMessage("a policy's question")).content == "at last"
    (row,) = loaded.pool.store.rows()
    assert row[1].attempts == 3


def test_a_service_that_keeps_failing_ends_the_run(agent):
    loaded = agent("500")
    for _ in range(10):
        with pytest.raises(TransientExpertError):
            ask(loaded, HumanMessage("q"))
    with pytest.raises(EngineLostError, match="failed too often"):
        ask(loaded, HumanMessage("q"))


def test_a_busy_service_does_not_open_the_circuit(agent):
    loaded = agent("429")
    for _ in range(11):
        with pytest.raises(TransientExpertError, match="HTTP 429"):
            ask(loaded, HumanMessage("q"))
    assert loaded.pool.rate_limited() == 11


def test_a_key_that_is_repeated_stays_out_of_message_and_record(faulty, monkeypatch):
    monkeypatch.setenv("EAPO_TEST_KEY", "sk-planted-77aa51")
    endpoint = {"url": faulty.url("echo"), "model": "m", "key_env": "EAPO_TEST_KEY"}
    loaded = load_agent(Recipe.model_validate({"name": "x", "policy": {"endpoint": endpoint}}))
    message = ask(loaded, HumanMessage("q"))
    assert message.content == "your key is Bearer [key]"
    assert "sk-planted" not in str(message)


def test_a_history_of_others_is_sent_as_text_and_calls(agent, faulty):
    before = AIMessage(
        "I ask.",
        tool_calls=[{"name": "a", "args": {"query": "x"}, "id": "c1"}],
        additional_kwargs={"reasoning_content": "a secret thought"},
    )
    reply = ToolMessage("r", tool_call_id="c1")
    ask(agent(), HumanMessage("q"), before, reply, HumanMessage(made("Five.")))
    sent = faulty.last()
    assert "secret" not in json.dumps(sent)
    assert sent["messages"][1]["tool_calls"][0]["function"] == call(arguments='{"query": "x"}')
    assert (sent["temperature"], sent["max_tokens"]) == (1.0, 256)


def test_a_ledger_may_be_kept_without_thoughts(agent, tmp_path):
    loaded = agent()
    loaded.pool.open(tmp_path / "experts.db", "run", thoughts=False)
    message = ask(loaded, HumanMessage(made("<think>the question says</think>Five.")))
    assert "the question says" in TurnRecord.read(message).text
    (row,) = loaded.pool.store.rows()
    assert (row[1].prompt_tokens, row[1].thought) == (300, "")


def test_a_call_that_was_never_sent_is_answered_so(agent, faulty):
    loaded = agent()
    question = HumanMessage(made("", [call(), call(arguments="{")]))
    last = ask(loaded, question)
    assert ask(loaded, question, last, HumanMessage(made("Five."))).content == "Five."
    sent = faulty.last()["messages"]
    assert [m["role"] for m in sent] == ["user", "assistant", "tool", "tool", "user"]
    assert [c["id"] for c in sent[1]["tool_calls"]] == [m["tool_call_id"] for m in sent[2:4]]


def test_a_form_that_is_asked_for_is_asked_for_by_a_call(agent, faulty):
    policy = agent().policy(agent().sampling)
    asking = policy.with_structured_output(
        {"title": "a", "description": "x", "type": "object", "properties": {"query": {}}}
    )
    assert asking.invoke(made("", [call()])) == {"query": "q"}
    assert faulty.last()["tool_choice"] in (
        "required",
        {"type": "function", "function": {"name": "a"}},
    )


def test_blocking_callers_share_the_limit_of_calls_in_flight(agent):
    loaded = agent(concurrency=1, queue_timeout_s=20)
    policy = loaded.policy(loaded.sampling)
    assert policy.invoke(made("Five.")).content == "Five."
    assert "".join(piece.text for piece in policy.stream(made("Six."))) == "Six."
    assert policy.batch([made("a"), made("b")])[1].content == "b"
