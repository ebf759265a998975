"""An expert on a real OpenAI-compatible server, asked by a real policy in the real graph."""

import asyncio
import json

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from eapo_agents.experts.call_store import CallSite
from eapo_agents.experts.costs import costs
from eapo_agents.experts.kinds import make_expert
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.experts.usage import Price
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.recipe import Recipe
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget
from eapo_agents.types import ConsultationStatus, Problem
from graphs.agent import load_agent
from graphs.consult import build_consult_graph
from graphs.conversation import Conversation
from graphs.events import ExpertWrote, Replied
from graphs.rollout import run_group

PRICE = Price(input_usd=1.0, output_usd=2.0)


def expert(server, name="smol", **options):
    given = {"model": server.model, "base_url": server.base_url, "temperature": 0, **options}
    return make_expert("openai-chat", name=name, options=given, price=PRICE, timeout_s=60)


async def test_three_real_experts_are_asked_in_one_turn(chat_server, scripted, problem, renderer):
    pool = ExpertPool([expert(chat_server, name, max_tokens=16) for name in "abc"])
    questions = ["What is the capital of France?", "Name a colour.", "Say hello."]
    calls = [format_call(n, {"query": q}) for n, q in zip("abc", questions, strict=True)]
    policy = scripted(["".join(calls), "Answer: 19"])
    graph = build_consult_graph(
        policy, pool, acceptance=AcceptanceSchedule(kind="constant"), turns=TurnBudget()
    )
    group = await run_group(graph, policy, problem, 1, system_prompt="", seed=0)
    first, second = group.trajectories_G[0].turns
    asked = first.consultations
    assert [c.status for c in asked] == [ConsultationStatus.ACCEPTED] * 3
    assert "Paris" in asked[0].reply
    for c in asked:
        assert c.tokens > 20
        assert 0 < c.cost_usd < 1e-3
        assert c.reply in renderer.tokenizer.decode(second.context_ids)
    assert sum(line.tokens for line in costs(pool.store.rows())) == sum(c.tokens for c in asked)


async def test_a_reply_can_be_watched_while_it_is_written(chat_server, scripted):
    ask = format_call("smol", {"query": "Tell me a story."})
    policy = scripted([ask, "Answer: 19"])
    pool = ExpertPool([expert(chat_server, max_tokens=24)])
    graph = build_consult_graph(
        policy,
        pool,
        acceptance=AcceptanceSchedule(kind="constant"),
        turns=TurnBudget(),
        checkpointer=InMemorySaver(),
    )
    talk = Conversation(graph=graph, policy=policy, thread_id="t", system_prompt="", seed=0)
    events = [event async for event in talk.ask("Q")]
    pieces = [event.text for event in events if isinstance(event, ExpertWrote)]
    (replied,) = [event for event in events if isinstance(event, Replied)]
    assert len([piece for piece in pieces if piece]) > 5
    assert "".join(pieces) == replied.reply
    assert replied.tokens > 20
    assert replied.cost_usd > 0


def test_the_same_request_in_another_run_is_not_sent_again(chat_server, tmp_path):
    def ask(run_id):
        pool = ExpertPool([expert(chat_server, max_tokens=8)])
        pool.open(tmp_path / "experts.db", run_id)
        return asyncio.run(pool.ask("smol", {"query": "What is 2 + 2?"}, CallSite()))

    first, again = ask("one"), ask("two")
    assert (first.cached, again.cached) == (False, True)
    assert first.text == again.text
    assert again.latency_s < first.latency_s / 5


def test_ping_tells_who_answers(chat_server, tmp_path, monkeypatch, capsys):
    from eapo_agents.cli.main import main

    monkeypatch.chdir(tmp_path)
    options = f"{{model: {chat_server.model}, base_url: '{chat_server.base_url}', max_tokens: 4}}"
    (tmp_path / "r.yaml").write_text(
        "name: x\nconsult: {experts: {"
        f"smol: {{kind: openai-chat, options: {options}}}, "
        "gone: {kind: openai-chat, retries: 0, options: "
        "{model: m, base_url: 'http://127.0.0.1:9/v1'}}}}\n"
    )
    monkeypatch.setattr("sys.argv", ["eapo", "experts", "ping", "-r", "r.yaml", "--json"])
    with pytest.raises(SystemExit, match="1"):
        main()
    out, err = capsys.readouterr()
    smol, gone = json.loads(out)["experts"]
    assert (smol["status"], smol["cost_usd"]) == ("accepted", None)
    assert gone["status"] == "failed"
    assert "1 of 2 experts failed: gone." in err


def test_a_real_server_s_model_is_the_policy_in_the_same_graph(chat_server):
    endpoint = {"url": chat_server.base_url, "model": chat_server.model}
    calls = {"price": {"input_usd": 1, "output_usd": 2}}
    sampling = {"max_new_tokens": 16, "temperature": 0.1}
    recipe = {"name": "x", "policy": {"endpoint": endpoint, "calls": calls}, "sampling": sampling}
    agent = load_agent(Recipe.model_validate(recipe))
    policy = agent.policy(agent.sampling)
    asked = Problem(id="p", question="What is the capital of France?", answer="", grader="exact")
    graph = agent.solo_graph(policy)
    group = asyncio.run(run_group(graph, policy, asked, 2, system_prompt="", seed=0, scored=False))
    for trajectory in group.trajectories_G:
        (turn,) = trajectory.turns
        assert "Paris" in trajectory.answer
        assert 0 < turn.billed.completion_tokens <= 16
        assert 0 < turn.billed.cost_usd < 1e-3
    assert agent.pool.budget.spent_calls == 2
