"""Replies as services send them: thoughts, parts, streams that end early, what each was billed."""

import asyncio
import json
import sqlite3

import pytest

from eapo_agents.errors import BudgetError
from eapo_agents.experts.budget import Budget
from eapo_agents.experts.call_store import CallSite, CallStore, LedgerRow
from eapo_agents.experts.chat_reply import usage_of
from eapo_agents.experts.costs import costs
from eapo_agents.experts.kinds import make_expert
from eapo_agents.experts.listening import listening
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.experts.thoughts import open_thought, split_thought
from eapo_agents.experts.usage import Price, Usage
from eapo_agents.types import ConsultationStatus

S = ConsultationStatus
PRICE = Price(input_usd=100.0, output_usd=200.0)
USAGE = {"prompt_tokens": 300, "completion_tokens": 700, "total_tokens": 1000}
COST = (300 * 100 + 700 * 200) / 1e6


def completion(content=None, finish="stop", usage=USAGE, **fields):
    message = {"role": "assistant", "content": content, **fields}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}


def piece(finish=None, index=0, **delta):
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "choices": [choice]}


def stream(*chunks, done=True):
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([*lines, "data: [DONE]\n\n"] if done else lines)


def pool_of(faulty, **settings):
    options = {"model": "m", "base_url": faulty.url("given")}
    settings = {"retries": 0, "timeout_s": 20, "price": PRICE, "stored": False, **settings}
    budget = settings.pop("budget", None)
    return ExpertPool(
        [make_expert("openai-chat", name="a", options=options, **settings)], budget=budget
    )


def ask(pool, reply, name="a"):
    """Ask for a completion, or listen to a stream."""

    async def go():
        query = {"query": reply if isinstance(reply, str) else json.dumps(reply)}
        if not isinstance(reply, str):
            return await pool.ask(name, query, CallSite())
        with listening(lambda text: None):
            return await pool.ask(name, query, CallSite())

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("text", "answer", "thought"),
    [
        ("Five.", "Five.", ""),
        ("<think>4 or 5.</think>\n\nFive.", "Five.", "4 or 5."),
        ("\n\n<think>\n4 or 5.\n</think>Five.", "Five.", "4 or 5."),
        ("<THINK>4</THINK> Five.", "Five.", "4"),
        ("<think></think>\n\nFive.", "Five.", ""),
        ("<think>4 or", "", "4 or"),
        ("4 or 5.\n</think>\n\nFive.", "Five.", "4 or 5."),  # the prompt opened it
        ("4 or 5.</think>Five.", "Five.", "4 or 5."),
        ("4 or 5.</think>", "", "4 or 5."),
        ("<think>a</think><think>b</think>Five.", "Five.", "a\n\nb"),
        ("<think>a<think>b</think></think>\nFive.", "Five.", "a<think>b"),
        ("<think>a</think>Five.\n<think>b</think>\nSix.", "Five.\n\nSix.", "a\n\nb"),
        ("Five.\n<think>but perhaps", "Five.", "but perhaps"),
        ("<think>It ends with `</think>`, I say.</think>Five.", "Five.", "It ends with `</think>`"),
        ("<think>an odd ` and\n```\nx\n</think>\nFive `x`.", "Five `x`.", "an odd `"),
        ("[THINK]4[/THINK]Five.", "Five.", "4"),
        ("<thought>4</thought>Five.", "Five.", "4"),
        ("<seed:think>4</seed:think>Five.", "Five.", "4"),
        ("◁think▷4◁/think▷Five.", "Five.", "4"),
        (
            "<|START_THINKING|>4<|END_THINKING|><|START_RESPONSE|>Five.<|END_RESPONSE|>",
            "Five.",
            "4",
        ),
        (
            "<|channel|>analysis<|message|>4<|end|><|start|>assistant<|channel|>final<|message|>"
            "Five.<|return|>",
            "Five.",
            "4",
        ),
        ("<|channel|>analysis<|message|>4 or", "", "4 or"),
        ("analysisPerhaps 4.assistantfinalFive.", "Five.", "Perhaps 4."),
    ],
)
def test_a_thought_is_taken_out_of_the_text(text, answer, thought):
    said = split_thought(text)
    assert said.answer == answer
    assert said.thought.startswith(thought)
    assert bool(said.thought) == bool(thought)


@pytest.mark.parametrize(
    "text",
    [
        "Wrap it in `<think>` and `</think>`.",
        "R1 writes <think> before and </think> after its thought.",
        "Wrap it in <think>...</think> please.",
        "The tag is '</think>'",
        "```\n<think>\nx\n</think>\n```\nThat is the form.",
        "Use </think> to end it.",
        "analysis of the case: assistants help",
        "I think 3 < 4.",
    ],
)
def test_a_tag_that_is_mentioned_is_text(text):
    assert split_thought(text) == (text, "")


def test_a_template_may_open_the_thought_in_the_prompt():
    assert open_thought("<|Assistant|><think>\n") == "<think>"
    assert open_thought("<|im_start|>assistant\n") == ""


PARTS = [{"type": "text", "text": "Fi"}, {"type": "text", "text": "ve."}]
MISTRAL = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "4?"}]},
    {"type": "text", "text": "Five."},
]


@pytest.mark.parametrize(
    ("reply", "thought"),
    [
        (completion("Five."), ""),
        (completion("<think>4?</think>\n\nFive."), "4?"),
        (completion("Five.", reasoning_content="4?"), "4?"),
        (completion("Five.", reasoning="4?", reasoning_content="4?"), "4?"),
        (completion(PARTS), ""),
        (completion(MISTRAL), "4?"),
        (completion(["Fi", {"type": "output_text", "text": {"value": "ve."}}]), ""),
        (completion({"type": "text", "text": "Five."}), ""),
        (completion("Five.", finish=None), ""),
        (completion("Five.", finish="eos_token"), ""),
        (stream(piece(content="Fi"), piece(content="ve."), piece("stop")), ""),
        (stream(piece(content=PARTS), piece("stop")), ""),
        (stream(piece(content="<thi"), piece(content="nk>4?</think>Five."), piece("stop")), "4?"),
        (stream(piece(reasoning="4?"), piece(content="Five."), piece("stop")), "4?"),
        (stream(piece(content="Five."), piece(index=1, content="Six."), piece("stop")), ""),
        (stream(piece(content="Five."), piece("stop"), done=False), ""),
    ],
)
def test_the_answer_is_handed_on_and_the_thought_is_kept(faulty, reply, thought):
    pool = pool_of(faulty)
    answer = ask(pool, reply)
    assert (answer.status, answer.text) == (S.ACCEPTED, "Five.")
    ((_, row),) = pool.store.rows()
    assert row.thought == thought


BILL = {**piece(), "choices": [], "usage": USAGE}


@pytest.mark.parametrize(
    ("reply", "says", "cost"),
    [
        (completion("", finish="length"), "is empty before it wrote any answer", COST),
        (completion(None), "is empty", COST),
        (completion("<think>4 or", finish="length"), "empty but for a thought", COST),
        (completion("", reasoning="4 or", finish="length"), "empty but for a thought", COST),
        (completion(None, refusal="I will not."), "refused to answer: I will not.", COST),
        (completion("Fi", finish="content_filter"), "withheld its reply", COST),
        (completion("Fi", finish="abort"), "broke its reply off", COST),
        (completion([{"type": "image_url", "image_url": {"url": "x"}}]), "is empty", COST),
        (completion("", usage=None), "is empty", None),
        ({"choices": [], "usage": USAGE}, "not a chat completion", COST),
        ({"error": {"message": "overloaded"}}, "is an error: overloaded", 0.0),
        ({"choices": "x"}, "not a chat completion", 0.0),
        ({"choices": [3]}, "not a chat completion", None),
        (stream(piece(content="Fi"), BILL), "ended before the reply did", COST),
        (stream(piece(content="Fi"), done=False), "ended before the reply did", None),
        (stream(piece("stop"), BILL), "is empty", COST),
        (stream(piece(content="Fi"), BILL, {"error": {"message": "down"}}), "down", COST),
        (stream(), "not a chat completion", 0.0),
    ],
)
def test_a_reply_without_an_answer_is_a_failure_and_is_booked(faulty, reply, says, cost):
    pool = pool_of(faulty)
    answer = ask(pool, reply)
    assert answer.status is S.FAILED
    assert says in answer.error
    assert answer.text == ""
    assert answer.cost_usd == (None if cost is None else pytest.approx(cost))
    (line,) = costs(pool.store.rows())
    assert line.tokens == (1000 if cost else 0)
    assert (line.unpriced_calls, pool.budget.spent_tokens) == (cost is None, line.tokens)


def test_every_attempt_and_the_fallback_are_billed(faulty, monkeypatch):
    monkeypatch.setattr("eapo_agents.experts.calling._FIRST_WAIT_S", 0.01)
    again = ask(pool_of(faulty, retries=1), completion("Fi", finish="abort"))
    assert (again.attempts, again.cost_usd) == (2, pytest.approx(2 * COST))
    options = {"model": "m", "base_url": faulty.url("given")}
    pool = ExpertPool(
        [
            make_expert("openai-chat", name="a", options=options, price=PRICE, fallback="b"),
            make_expert("scripted", name="b", options={"default": "B"}),
        ]
    )
    answer = ask(pool, completion(""))
    assert (answer.text, answer.cost_usd) == ("B", pytest.approx(COST))
    assert answer.usage.completion_tokens == 700


def test_empty_replies_use_up_the_budget(faulty):
    pool = pool_of(faulty, budget=Budget(usd=COST))
    assert ask(pool, completion("")).status is S.FAILED
    with pytest.raises(BudgetError, match="US dollars"):
        ask(pool, completion("Five."))


def test_a_failure_that_equal_calls_share_is_billed_once(faulty):
    pool = pool_of(faulty, stored=True)

    async def three():
        query = {"query": json.dumps(completion(""))}
        return await asyncio.gather(*(pool.ask("a", query, CallSite()) for _ in range(3)))

    answers = asyncio.run(three())
    assert sum(answer.cost_usd for answer in answers) == pytest.approx(COST)
    assert pool.store.spent("") == (1, 1000, pytest.approx(COST))


@pytest.mark.parametrize(
    ("said", "cost_usd"),
    [
        ({"cost": 0.25}, 0.25),
        ({"cost": 0}, 0.0),
        ({"cost": {"total_cost": 0.25}}, 0.25),
        ({"estimated_cost": 0.25}, 0.25),
        ({"cost_in_usd_ticks": 2_500_000_000}, 0.25),
        (
            {"cost": 0.05, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.2}},
            0.25,
        ),
        ({"cost": -1}, COST),
        ({"cost": True}, COST),
        ({"cost": "dear"}, COST),
    ],
)
def test_a_price_that_the_provider_reports_is_used(faulty, said, cost_usd):
    usage = {**USAGE, **said}
    answer = ask(pool_of(faulty), completion("Five.", usage=usage))
    assert answer.cost_usd == pytest.approx(cost_usd)
    unpriced = ask(pool_of(faulty, price=None), completion("Five.", usage=usage))
    assert unpriced.cost_usd == (None if cost_usd == COST else pytest.approx(cost_usd))


@pytest.mark.parametrize(
    ("sent", "usage"),
    [
        ({"input_tokens": 3, "output_tokens": 7}, (3, 7, True)),
        ({"prompt_tokens": 3, "total_tokens": 10}, (3, 7, True)),
        ({"completion_tokens": 7, "total_tokens": 10}, (3, 7, True)),
        ({"prompt_tokens": "3", "completion_tokens": 7.0}, (3, 7, True)),
        ({"total_tokens": 10}, (0, 0, False)),
        ({"prompt_tokens": -3, "completion_tokens": 1e300}, (0, 0, False)),
        ({"prompt_tokens": float("nan"), "completion_tokens": None}, (0, 0, False)),
        ({}, (0, 0, False)),
        ("many", (0, 0, False)),
    ],
)
def test_tokens_are_read_or_are_unknown(sent, usage):
    read = usage_of(sent)
    assert (read.prompt_tokens, read.completion_tokens, read.known) == usage


def test_a_stored_reply_has_no_thought_and_keys_are_not_in_it(faulty, tmp_path, monkeypatch):
    monkeypatch.setenv("PLANTED", "sk-planted-in-a-thought")
    options = {"model": "m", "base_url": faulty.url("given"), "api_key_env": "PLANTED"}
    pool = ExpertPool([make_expert("openai-chat", name="a", options=options)])
    pool.open(tmp_path / "experts.db", "run")
    reply = completion("<think>sk-planted-in-a-thought \ud800</think>Five.")
    assert [ask(pool, reply).text for _ in range(2)] == ["Five."] * 2
    first, second = (row for _, row in pool.store.rows())
    assert first.thought == "[key] ?"
    assert (second.thought, second.cached) == ("", True)
    pool.store.close()
    assert all(b"sk-planted" not in file.read_bytes() for file in tmp_path.iterdir())


def test_a_ledger_of_the_earlier_format_gets_a_place_for_thoughts(tmp_path):
    file = tmp_path / "experts.db"
    CallStore(file).close()
    with sqlite3.connect(file) as old:
        old.execute("ALTER TABLE calls DROP COLUMN thought")
        old.execute("PRAGMA user_version = 1")
    for thought in ("one", "two"):
        store = CallStore(file)
        row = LedgerRow(expert="a", status="accepted", thought=thought)
        store.record("run", CallSite(), row, (thought, "text", Usage(thought=thought)))
        assert store.reply(thought) == ("text", Usage())
        store.close()
    assert [row.thought for _, row in CallStore(file).rows()] == ["one", "two"]


@pytest.mark.parametrize(
    "unit", ["`", "`a", "```\n", "<think>", "</think>", "a <think> b ", "x\n<think>a</think>\n"]
)
def test_a_long_hostile_text_is_split_in_linear_time(unit):
    text = unit * (300_000 // len(unit))  # in quadratic time, minutes
    said = split_thought(text)
    assert len(said.answer) + len(said.thought) <= len(text)
