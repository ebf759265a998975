"""Records of turns: ids that a seed repeats, parents that are known or not claimed, plain data."""

import asyncio
import json

import pytest
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    ToolMessage,
    message_to_dict,
    messages_from_dict,
)
from langgraph.graph import START, MessagesState, StateGraph

from eapo_agents.errors import TraceError
from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.recording import TurnRecord, recording
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.types import Problem
from graphs.rollout import RolloutPlan, run_rollouts
from graphs.turns import turns_of

KEY = RolloutKey(seed=0, problem_id="p", step=1, rollout=2, turn=0)
Q = HumanMessage("What is 7 + 3?")


def record(message: AIMessage) -> TurnRecord:
    found = TurnRecord.read(message)
    assert found is not None
    return found


async def run_twice(policy) -> list[list[str]]:
    found = []
    for _ in range(2):
        with recording(KEY) as recorder:
            first = await policy.ainvoke([Q])
            await asyncio.gather(*(policy.ainvoke([Q, first, HumanMessage(x)]) for x in "ab"))
            await policy.ainvoke([Q], rollout_key=KEY)
        found.append([r.id for r in recorder.records])
    return found


async def test_ids_are_unique_in_a_run_and_the_same_for_the_same_seed(scripted):
    first, again = await run_twice(scripted(lambda key, prompt: "same text"))
    assert first == again
    assert len(set(first)) == 4


async def test_a_record_survives_json_and_sqlite(scripted, tmp_path):
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    policy = scripted([format_call("a", {}), "done"])

    async def node(state):
        return {"messages": [await policy.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("n", node).add_edge(START, "n")
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "c.db")) as saver:
        config = {"configurable": {"thread_id": "1"}}
        await graph.compile(checkpointer=saver).ainvoke({"messages": [Q]}, config)
        state = (await graph.compile(checkpointer=saver).aget_state(config)).values
    kept = state["messages"][-1]
    (copied,) = messages_from_dict(json.loads(json.dumps([message_to_dict(kept)])))
    assert record(copied) == record(kept)
    answered = [Q, copied, ToolMessage("1", tool_call_id=copied.tool_calls[0]["id"])]
    assert record(await policy.ainvoke(answered)).parent == record(kept).id


async def test_turns_of_equal_text_are_told_apart(scripted):
    texts = iter(["12", "12\n", "yes"])
    policy = scripted(lambda key, prompt: next(texts))
    with recording(KEY) as recorder:
        kept = await policy.ainvoke([Q])
        await policy.ainvoke([Q])
        await policy.ainvoke([Q, kept, HumanMessage("Sure?")])
    first, second, third = turns_of([], recorder.records)
    assert first.completion_ids != second.completion_ids
    assert third.parent == 0


async def test_several_turns_may_have_one_parent(scripted):
    policy = scripted(lambda key, prompt: f"turn {key.turn}")
    with recording(KEY) as recorder:
        first = await policy.ainvoke([Q])
        for critic in "ab":
            await policy.ainvoke([Q, first, HumanMessage(critic)])
    assert [turn.parent for turn in turns_of([], recorder.records)] == [None, 0, 0]


async def test_a_turn_whose_message_was_rebuilt_is_found_by_its_id(scripted):
    policy = scripted(lambda key, prompt: f"turn {key.turn}")
    with recording(KEY) as recorder:
        first = await policy.ainvoke([Q])
        second = await policy.ainvoke([Q, first, HumanMessage("more")])
        rebuilt = [Q, AIMessage(first.content), HumanMessage("more"), second, HumanMessage("last")]
        await policy.ainvoke(rebuilt)
    assert [turn.parent for turn in turns_of([], recorder.records)] == [None, 0, 1]


async def test_without_a_recorder_a_lost_parent_is_not_guessed(scripted, renderer):
    policy = scripted(lambda key, prompt: f"turn {key.turn}")
    first = await policy.ainvoke([Q])
    second = await policy.ainvoke([Q, first, HumanMessage("more")])
    rebuilt = [Q, AIMessage(first.content), HumanMessage("more"), second, HumanMessage("last")]
    third = record(await policy.ainvoke(rebuilt))
    assert third.parent is None
    assert list(third.context_ids) == renderer.prompt(rebuilt, [])
    with pytest.raises(TraceError, match="continues turn"):
        turns_of([second])


async def test_a_turn_that_the_run_did_not_sample_is_context_and_no_parent(scripted):
    policy = scripted(lambda key, prompt: f"turn {key.turn}")
    before = await policy.ainvoke([Q])
    with recording(KEY) as recorder:
        await policy.ainvoke([Q, before, HumanMessage("go on")])
    (turn,) = turns_of([], recorder.records)
    earlier = record(before)
    assert turn.parent is None
    seen = (*earlier.context_ids, *earlier.completion_ids)
    assert turn.context_ids[: len(seen)] == seen


def test_a_message_of_an_older_version_counts_as_text():
    old = AIMessage("ten", additional_kwargs={"eapo": {"digest": "d", "context_ids": [1]}})
    assert TurnRecord.read(old) is None
    assert TurnRecord.read(AIMessage("ten")) is None


async def test_consultations_belong_to_the_turn_whose_call_they_answer(scripted):
    policy = scripted([format_call("a", {}), format_call("a", {}), "done"])
    one, two = await policy.ainvoke([Q]), await policy.ainvoke([Q, HumanMessage("again")])
    facts = {"slot": 0, "expert": "a", "query": "q", "status": "accepted", "rho": 1.0, "u": 0.5}
    replies = [
        ToolMessage(text, tool_call_id=m.tool_calls[0]["id"], artifact={**facts, "reply": text})
        for m, text in ((two, "second"), (one, "first"))
    ]
    turns = turns_of([one, two, *replies])
    assert [[c.reply for c in turn.consultations] for turn in turns] == [["first"], ["second"]]


def test_another_models_turns_and_samplings_are_told_on_the_turns(scripted, renderer):
    from dataclasses import replace

    from eapo_agents.policy.chat_model import PolicyChatModel
    from trainers.doctor import examine
    from trainers.rows import trajectory_rows

    policy = scripted(["of the policy"])
    cold = replace(policy.sampling, temperature=0.25)
    again = PolicyChatModel(engine=policy.engine, renderer=renderer, sampling=cold)

    async def node(state):
        first = await again.ainvoke([HumanMessage("check")])
        return {"messages": [await policy.ainvoke(state["messages"]), first]}

    graph = StateGraph(MessagesState).add_node("n", node).add_edge(START, "n").compile()
    problem = Problem(id="p", question="q", answer="a", grader="exact")
    plan = RolloutPlan(problem=problem, rollouts=range(1))
    (group,) = asyncio.run(run_rollouts(graph, policy, [plan], system_prompt="", seed=0))
    (trajectory,) = group.trajectories_G
    assert [turn.sampling for turn in trajectory.turns] == [cold, None]
    logged = replace(
        trajectory,
        turns=tuple(replace(t, logprobs=(-0.5,) * len(t.completion_ids)) for t in trajectory.turns),
    )
    report = examine([replace(group, trajectories_G=(logged,))])
    assert report.blocking == []
    assert report.num_tokens_left_out == len(logged.turns[0].completion_ids)
    (row,) = trajectory_rows(logged, advantage=1.0)
    assert row.prompt_ids == logged.turns[1].context_ids
    other = replace(trajectory.policy, base="another")
    foreign = replace(logged.turns[0], policy=other, sampling=None)
    (row,) = trajectory_rows(replace(logged, turns=(foreign, logged.turns[1])), advantage=1.0)
    assert row.prompt_ids == logged.turns[1].context_ids
    assert row.weight == 1.0
