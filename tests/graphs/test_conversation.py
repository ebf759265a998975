"""Conversations: several turns in one thread, kept, asked again, stopped, rated and trained on."""

import asyncio
import io

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from rich.console import Console

from eapo_agents.cli.turn_view import TurnView
from eapo_agents.errors import BudgetError, TraceError, UsageError
from eapo_agents.experts.budget import Budget
from eapo_agents.experts.consulting import UNAVAILABLE
from eapo_agents.experts.kinds import make_expert
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.experts.review import Action, Decision
from eapo_agents.policy.recording import TurnRecord
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget
from eapo_agents.store import TraceStore
from eapo_agents.types import Sampling
from graphs.consult import build_consult_graph
from graphs.conversation import Conversation
from graphs.events import Asking, Ended, PersonAsked, Replied, Thought, Wrote
from graphs.ratings import keep_trajectory
from graphs.threads import copy_thread
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


async def test_a_conversation_of_two_policies_is_no_trace(agent, scripted):
    saver = InMemorySaver()
    await events_of(talk_of(scripted(["Hello you."]), saver=saver).ask("Hi."))
    talk = talk_of(agent.policy(Sampling(max_new_tokens=4)), saver=saver)
    await events_of(talk.ask("And now?"))
    with pytest.raises(TraceError, match="must come from one policy"):
        await talk.trajectory(1.0)


async def test_another_temperature_is_the_turn_s_own_and_a_chat_under_it_is_a_run_of_its_own(
    agent, tmp_path
):
    saver = InMemorySaver()
    talk = talk_of(agent.policy(Sampling(max_new_tokens=4)), saver=saver)
    await events_of(talk.ask("Q1"))
    hotter = Sampling(max_new_tokens=4, temperature=0.5)
    await events_of(talk_of(agent.policy(hotter), saver=saver).ask("Q2"))
    trajectory = await talk.trajectory(1.0)
    assert trajectory.sampling.temperature == 1.0
    assert [turn.sampling for turn in trajectory.turns] == [None, hotter]
    other = talk_of(agent.policy(hotter))
    await events_of(other.ask("Q"))
    with TraceStore.open(tmp_path / "traces.db", create=True) as store:
        only = talk_of(agent.policy(Sampling(max_new_tokens=4)))
        await events_of(only.ask("Q"))
        keep_trajectory(store, await only.trajectory(1.0), {})
        again = keep_trajectory(store, await other.trajectory(1.0), {})
        keep_trajectory(store, await other.trajectory(None), {})
        runs = {run.run_id: run.sampling for run in store.runs()}
    assert len(runs) == 2
    assert runs[again[0]] == hotter


async def test_a_question_is_taken_back_with_all_that_came_of_it(scripted):
    talk = talk_of(scripted(by_question("first", "second", "third")), turns=2)
    for said in ("first", "second"):
        await events_of(talk.ask(f"question {said}"))
    kept = [m.text for m in await talk.messages()][:5]
    assert await talk.undo() == "question second"
    assert [m.text for m in await talk.messages()] == kept
    *_, ended = await events_of(talk.ask("another question"))
    assert ended.answer == "second"  # the second turn of this conversation, as before
    assert "question second" not in [m.text for m in await talk.messages()]
    assert len((await talk.trajectory(None)).turns) == 4
    assert [await talk.undo() for _ in range(2)] == ["another question", "question first"]
    assert await talk.messages() == []
    with pytest.raises(UsageError, match="nothing to take back"):
        await talk.undo()


async def test_a_copy_of_a_thread_goes_on_and_the_thread_stays_as_it_is(scripted):
    saver = InMemorySaver()
    policy = scripted(by_question("first", "second", "third"))
    talk = talk_of(policy, saver=saver, turns=2)
    await events_of(talk.ask("Q1"))
    await events_of(talk.ask("Q2"))
    before = [m.text for m in await talk.messages()]
    await copy_thread(saver, "t", "copy")
    copied = talk_of(policy, saver=saver, turns=2)
    copied.thread_id = "copy"
    assert [m.text for m in await copied.messages()] == before
    assert await copied.undo() == "Q2"  # its history came along
    *_, ended = await events_of(copied.ask("Q3"))
    assert (ended.answer, len((await copied.trajectory(None)).turns)) == ("second", 4)
    assert [m.text for m in await talk.messages()] == before


async def test_a_person_approves_edits_or_refuses_each_call_before_it_is_sent(scripted):
    asks = "".join(format_call("a", {"query": f"q{number}"}) for number in range(3))
    pool = pool_of()
    talk = talk_of(scripted([asks, "done"]), pool)
    talk.review = True
    waiting = [e for e in await events_of(talk.ask("Q")) if isinstance(e, PersonAsked)]
    assert [one.query for one in waiting] == ["q0", "q1", "q2"]
    assert pool.store.rows() == []  # nothing is paid for before they have decided
    assert waiting[0].actions[0].allowed == ("approve", "edit", "reject")
    edited = Action(name="a", arguments={"wrong": "argument"})
    decisions = [
        Decision(type="approve"),
        Decision(type="edit", edited=edited),
        Decision(type="reject", message="too dear"),
    ]
    given = {one.id: [decision] for one, decision in zip(waiting, decisions, strict=True)}
    talk.review = False  # as whoever continues it later may have it
    (again,) = [e for e in await events_of(talk.reply(given)) if isinstance(e, PersonAsked)]
    assert again.actions[0].description.startswith("a takes these arguments: query.")
    better = Decision(type="edit", edited=Action(name="a", arguments={"query": "better"}))
    *_, ended = await events_of(talk.reply({again.id: [better]}))
    assert ended.answer == "done"
    (turn, _) = (await talk.trajectory(None)).turns
    assert "q1" in turn.text  # what the policy wrote stays on record
    found = [(c.query, c.status.value, c.reply, c.error) for c in turn.consultations]
    assert found == [
        ("q0", "accepted", "a reply", None),
        ("better", "accepted", "a reply", None),
        ("q2", "withheld", UNAVAILABLE, "A person refused it: too dear"),
    ]
    ledger = sorted((row.status, row.error or "") for _, row in pool.store.rows())
    assert ledger == [
        ("accepted", ""),
        ("accepted", ""),
        ("withheld", "A person refused it: too dear"),
    ]


async def test_a_person_who_is_the_expert_is_asked_in_langchain_s_form(scripted):
    pool = ExpertPool([make_expert("human", name="a", options={})])
    talk = talk_of(scripted([ASK, "so it is"]), pool)
    talk.review = True  # nobody approves a question to themselves
    (asked,) = [e for e in await events_of(talk.ask("Q")) if isinstance(e, PersonAsked)]
    (interrupt,) = (await talk.snapshot()).interrupts
    assert interrupt.value["action_requests"][0] == {
        "name": "a",
        "args": {"query": "q"},
        "description": "The policy asks you, its expert 'a': q",
    }
    allowed = interrupt.value["review_configs"][0]["allowed_decisions"]
    assert allowed == ["respond", "reject"]
    approved = await events_of(talk.reply({asked.id: [Decision(type="approve")]}))
    (asked,) = [e for e in approved if isinstance(e, PersonAsked)]
    assert "A decision is respond or reject" in asked.actions[0].description
    *_, ended = await events_of(talk.reply({asked.id: "my word"}))
    assert ended.answer == "so it is"
    (turn, _) = (await talk.trajectory(None)).turns
    assert [(c.reply, c.status.value) for c in turn.consultations] == [("my word", "accepted")]


async def test_a_thought_is_told_apart_from_the_answer_and_before_it(scripted):
    talk = talk_of(scripted(["<think>3 * 4 is 12.</think>It is 19."]))
    told = await events_of(talk.ask("What is 7 + 3 * 4?"))
    assert [type(event) for event in told] == [Thought, Wrote, Ended]
    assert (told[0].text, told[1].text.strip()) == ("3 * 4 is 12.", "It is 19.")
    assert told[-1].answer.strip() == "It is 19."
    screen = Console(file=io.StringIO(), width=60)
    view = TurnView(screen)
    view.show(Thought(text="\n".join(f"line {n} \x1b[31m" for n in range(9)), turn="t"))
    for event in told[1:]:
        view.show(event)
    shown = screen.file.getvalue()
    assert "thought line 0" in shown
    assert "… 5 more lines" in shown
    assert "\x1b" not in shown
    assert shown.index("thought") < shown.index("It is 19.")
