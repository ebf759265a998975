"""Conversations: several turns in one thread, kept, asked again, stopped, rated and trained on."""

import asyncio

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from eapo_agents.errors import BudgetError, StoreError, TraceError, UsageError
from eapo_agents.experts.budget import Budget
from eapo_agents.experts.kinds import make_expert
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.policy.recording import TurnRecord
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget
from eapo_agents.store import TraceStore
from eapo_agents.types import Sampling
from graphs.consult import build_consult_graph
from graphs.conversation import Conversation
from graphs.events import Asking, Ended, Replied, Wrote
from graphs.ratings import keep_trajectory
from trainers.rows import trajectory_rows
from trainers.run import train_traced

ASK = format_call("a", {"query": "q"})


def pool_of(delay_s=0.0, **options):
    reply = {"default": "a reply", "delay_s": delay_s}
    return ExpertPool([make_expert("scripted", name="a", options=reply)], **options)


def talk_of(policy, pool=None, turns=3, saver=None):
    graph = build_consult_graph(
        policy,
        pool or pool_of(),
        acceptance=AcceptanceSchedule(kind="constant"),
        turns=TurnBudget(start=turns, end=turns),
        checkpointer=saver or InMemorySaver(),
    )
    return Conversation(graph=graph, policy=policy, thread_id="t", system_prompt="S", seed=0)


async def events_of(stream):
    return [event async for event in stream]


def by_question(*answers):
    """A script that asks first and then answers, whatever the question."""

    def script(key, prompt):
        return (
            ASK if prompt.endswith("assistant\n") and key.turn % 2 == 0 else answers[key.turn // 2]
        )

    return script


async def test_every_question_has_its_own_turns_and_the_tokens_continue(scripted, renderer):
    talk = talk_of(scripted(by_question("first", "second", "third")), turns=2)
    for said in ("first", "second", "third"):
        *_, ended = await events_of(talk.ask(f"question {said}"))
        assert isinstance(ended, Ended)
        assert (ended.answer, ended.stop_reason, ended.turns) == (said, "answered", 2)
    trajectory = await talk.trajectory(None)
    assert [turn.parent for turn in trajectory.turns] == [None, 0, 1, 2, 3, 4]
    assert [turn.consultations != () for turn in trajectory.turns] == [True, False] * 3
    assert "question second" in renderer.tokenizer.decode(trajectory.turns[2].context_ids)
    assert trajectory.problem.metadata["questions"] == [
        "question first",
        "question second",
        "question third",
    ]
    assert trajectory.correct is None


async def test_events_come_as_things_happen(scripted):
    talk = talk_of(scripted(["Let me ask. " + ASK, "So it is."]), pool_of(0.2))
    events = await events_of(talk.ask("Q"))
    kinds = [type(event) for event in events]
    asked, replied = kinds.index(Asking), kinds.index(Replied)
    assert kinds[0] is Wrote
    assert asked < replied < len(kinds) - 1
    texts = {}
    for event in events:
        if isinstance(event, Wrote):
            texts[event.turn] = texts.get(event.turn, "") + event.text
    assert list(texts.values()) == ["Let me ask.", "So it is."]
    assert events[replied].latency_s >= 0.2
    assert (events[replied].status, events[replied].rho) == ("accepted", 1.0)


async def test_solo_nobody_is_offered_and_nobody_is_asked(scripted, renderer):
    pool = pool_of()
    talk = talk_of(scripted(by_question("alone", "alone")), pool)
    talk.solo = True
    *_, ended = await events_of(talk.ask("Q"))
    assert ended.stop_reason == "turn_budget"  # it asked all the same, and nobody was there
    assert pool.store.rows() == []
    trajectory = await talk.trajectory(None)
    assert "Experts" not in renderer.tokenizer.decode(trajectory.turns[0].context_ids)


async def test_rho_takes_the_place_of_the_schedule_s(scripted):
    talk = talk_of(scripted(by_question("x", "x")))
    talk.rho = 0.0
    events = await events_of(talk.ask("Q"))
    (replied,) = [event for event in events if isinstance(event, Replied)]
    assert (replied.status, replied.rho) == ("withheld", 0.0)


async def test_the_last_question_is_asked_again_with_other_random_numbers(agent):
    policy = agent.policy(Sampling(max_new_tokens=8))
    talk = talk_of(policy)
    *_, first = await events_of(talk.ask("Tell me a story."))
    *_, again = await events_of(talk.again())
    assert first.answer != again.answer
    messages = await talk.messages()
    assert [m.type for m in messages] == ["system", "human", "ai"]
    await events_of(talk.ask("And then?"))
    before = [m.text for m in await talk.messages()][:3]
    await events_of(talk.again())
    after = await talk.messages()
    assert [m.text for m in after][:3] == before
    assert [m.type for m in after] == ["system", "human", "ai", "human", "ai"]
    with pytest.raises(UsageError, match="Nothing has been asked"):
        await events_of(talk_of(policy).again())


async def test_a_turn_that_is_stopped_leaves_a_conversation_that_goes_on(scripted):
    pool = pool_of(5.0)
    talk = talk_of(scripted([ASK, "x", "went on", "went on"]), pool)
    task = asyncio.create_task(events_of(talk.ask("Q")))
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [row.status for _, row in pool.store.rows()] == ["cancelled"]
    assert (await talk.snapshot()).next == ("consult",)
    talk.solo = True
    *_, ended = await events_of(talk.ask("Another question"))
    assert ended.turns == 1


async def test_a_turn_cut_off_by_the_end_of_the_program_goes_on(scripted):
    saver = InMemorySaver()
    talk = talk_of(scripted([ASK, "went on"]), pool_of(5.0), saver=saver)
    task = asyncio.create_task(events_of(talk.ask("Q")))
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    later = talk_of(scripted([ASK, "went on"]), pool_of(), saver=saver)
    *_, ended = await events_of(later.resume())
    assert ended.answer == "went on"


async def test_sampling_that_nobody_waits_for_stops(agent):
    import time

    talk = talk_of(agent.policy(Sampling(max_new_tokens=2000)))
    task = asyncio.create_task(events_of(talk.ask("Tell me a very long story.")))
    await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    short = talk_of(agent.policy(Sampling(max_new_tokens=2)))
    started = time.perf_counter()
    await events_of(short.ask("Hi."))
    assert time.perf_counter() - started < 5


async def test_a_spent_budget_ends_the_turn_and_a_larger_one_goes_on(scripted):
    pool = pool_of(budget=Budget(calls=1))
    talk = talk_of(scripted(by_question("one", "two", "three")), pool)
    await events_of(talk.ask("Q1"))
    with pytest.raises(BudgetError, match="1 of 1 calls"):
        await events_of(talk.ask("Q2"))
    pool.budget.calls = 5
    *_, ended = await events_of(talk.again())
    assert ended.stop_reason == "answered"


async def test_rated_conversations_are_a_group_that_is_trained_on(agent, tmp_path):
    policy = agent.policy(agent.sampling)
    talk = talk_of(policy)
    recipe = agent.recipe.model_dump(mode="json")
    with TraceStore.open(tmp_path / "traces.db", create=True) as store:
        with pytest.raises(TraceError, match="said nothing"):
            await talk.trajectory(1.0)
        await events_of(talk.ask("What is 7 + 3 * 4?"))
        run_id, group, rollout, rated = keep_trajectory(store, await talk.trajectory(1.0), recipe)
        assert (rollout, rated) == (0, 1)
        with pytest.raises(TraceError, match="rated already"):
            keep_trajectory(store, await talk.trajectory(0.5), recipe)
        await events_of(talk.again())
        assert keep_trajectory(store, await talk.trajectory(None), recipe)[2:] == (1, 1)
        assert keep_trajectory(store, await talk.trajectory(0.0), recipe)[2:] == (2, 2)
        (kept,) = store.groups(run_id)
        assert [t.reward for t in kept.trajectories_G] == [1.0, None, 0.0]
        assert kept.problem.id == group
        for t in kept.trajectories_G:
            (row,) = trajectory_rows(t, advantage=1.0)
            assert row.num_trained == sum(len(turn.completion_ids) for turn in t.turns)
        before = agent.engine.policy_version
        folder = await asyncio.to_thread(train_traced, agent, store, run_id, tmp_path / "run")
    assert (folder / "eapo_policy.json").exists()
    assert agent.engine.policy_version.weights != before.weights


async def test_another_model_that_goes_on_reads_the_words_and_not_the_tokens(agent, scripted):
    saver = InMemorySaver()
    await events_of(talk_of(scripted(["Hello you."]), saver=saver).ask("Hi."))
    talk = talk_of(agent.policy(Sampling(max_new_tokens=4)), saver=saver)
    await events_of(talk.ask("And now?"))
    *_, last = [m for m in await talk.messages() if m.type == "ai"]
    record = TurnRecord.read(last)
    assert record.parent is None
    prompt = agent.renderer.tokenizer.decode(record.context_ids)
    assert "Hello you." in prompt
    assert "And now?" in prompt


async def test_a_conversation_of_two_policies_is_no_trace(agent, scripted, tmp_path):
    saver = InMemorySaver()
    talk = talk_of(agent.policy(Sampling(max_new_tokens=4)), saver=saver)
    await events_of(talk.ask("Q1"))
    hotter = Sampling(max_new_tokens=4, temperature=0.5)
    await events_of(talk_of(agent.policy(hotter), saver=saver).ask("Q2"))
    with pytest.raises(TraceError, match="one policy under one sampling"):
        await talk.trajectory(1.0)
    other = talk_of(agent.policy(hotter))
    await events_of(other.ask("Q"))
    with TraceStore.open(tmp_path / "traces.db", create=True) as store:
        only = talk_of(agent.policy(Sampling(max_new_tokens=4)))
        await events_of(only.ask("Q"))
        keep_trajectory(store, await only.trajectory(1.0), {})
        with pytest.raises(StoreError, match="sampling"):
            keep_trajectory(store, await other.trajectory(1.0), {})
