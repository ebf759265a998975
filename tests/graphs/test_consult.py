"""The consult graph: a real compiled graph, a scripted policy, scripted experts."""

import asyncio
import time

import pytest
from langchain_core.tools import StructuredTool

from eapo_agents.experts.consulting import NOT_SENT, UNAVAILABLE
from eapo_agents.experts.expert import Expert
from eapo_agents.experts.kinds import make_expert
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget
from eapo_agents.types import ConsultationStatus, StopReason
from graphs.consult import build_consult_graph
from graphs.rollout import RolloutPlan, run_group, run_rollouts

ALWAYS = AcceptanceSchedule(kind="constant")
S = ConsultationStatus


def expert(name: str, reply: str | None = "reply", delay_s: float = 0.0, timeout_s: float = 5.0):
    return make_expert(
        "scripted",
        name=name,
        timeout_s=timeout_s,
        options={"default": reply, "delay_s": delay_s},
    )


def ask(name: str = "a", query: str = "q") -> str:
    return format_call(name, {"query": query})


async def run_one(policy, pool, problem, acceptance=ALWAYS, turns=3, **options):
    graph = build_consult_graph(
        policy,
        pool,
        acceptance=acceptance,
        turns=TurnBudget(start=turns, end=turns),
        max_queries=options.pop("max_queries", 3),
    )
    group = await run_group(
        graph,
        policy,
        problem,
        options.pop("rollouts", 1),
        system_prompt="Solve.",
        seed=0,
        **options,
    )
    return group.trajectories_G


async def test_replies_come_back_in_the_order_of_the_calls_whichever_is_first(scripted, problem):
    pool = ExpertPool([expert("slow", "from slow", 0.2), expert("fast", "from fast")])
    policy = scripted([f"{ask('slow')}{ask('fast')}", "Answer: 19"])
    (trajectory,) = await run_one(policy, pool, problem)
    assert [c.reply for c in trajectory.turns[0].consultations] == ["from slow", "from fast"]
    assert trajectory.stop_reason is StopReason.ANSWERED
    assert (trajectory.reward, trajectory.correct) == (1.0, True)
    assert trajectory.turns[1].parent == 0


async def test_the_queries_of_a_turn_are_in_flight_together(scripted, problem):
    pool = ExpertPool([expert(name, delay_s=0.5) for name in "abc"])
    policy = scripted([ask("a") + ask("b") + ask("c"), "Answer: 19"])
    started = time.perf_counter()
    await run_one(policy, pool, problem)
    assert time.perf_counter() - started < 1.0  # 1.5 s one after another


async def test_a_withheld_reply_is_never_asked_for(scripted, problem):
    asked = []

    async def spy(query: str) -> str:
        asked.append(query)
        return "secret"

    pool = ExpertPool(
        [Expert(tool=StructuredTool.from_function(coroutine=spy, name="a", description="d"))]
    )
    policy = scripted([ask(), "Answer: 19"])
    (trajectory,) = await run_one(
        policy, pool, problem, acceptance=AcceptanceSchedule(kind="never")
    )
    (consultation,) = trajectory.turns[0].consultations
    assert consultation.status is S.WITHHELD
    assert consultation.reply == UNAVAILABLE
    assert consultation.rho == 0 <= consultation.u
    assert asked == []


async def test_about_rho_of_the_replies_are_accepted_and_the_coin_says_which(scripted, problem):
    pool = ExpertPool([expert("a")])
    policy = scripted([ask(), "Answer: 19"])
    trajectories = await run_one(
        policy, pool, problem, acceptance=AcceptanceSchedule(), rollouts=200, global_step=4
    )
    consultations = [t.turns[0].consultations[0] for t in trajectories]
    assert {c.rho for c in consultations} == {0.25}
    for c in consultations:
        assert c.status is (S.ACCEPTED if c.u < c.rho else S.WITHHELD)
    assert 25 < sum(c.status is S.ACCEPTED for c in consultations) < 80


async def test_a_timeout_and_a_failure_are_messages_and_the_run_goes_on(scripted, problem):
    pool = ExpertPool([expert("slow", delay_s=5, timeout_s=0.1), expert("broken", None)])
    policy = scripted([ask("slow") + ask("broken"), "Answer: 19"])
    (trajectory,) = await run_one(policy, pool, problem)
    slow, broken = trajectory.turns[0].consultations
    assert (slow.status, broken.status) == (S.TIMEOUT, S.FAILED)
    assert slow.reply == broken.reply == UNAVAILABLE
    assert "No reply within 0.1 s" in slow.error
    assert trajectory.correct


async def test_calls_that_cannot_be_sent_are_told_to_the_policy(scripted, problem):
    pool = ExpertPool([expert("a")])
    text = f"{ask('nobody')}<tool_call>{{broken</tool_call>{format_call('a', {'wrong': 1})}"
    policy = scripted([text, "Answer: 19"])
    (trajectory,) = await run_one(policy, pool, problem)
    unknown, broken, arguments = trajectory.turns[0].consultations
    assert {c.status for c in (unknown, broken, arguments)} == {S.INVALID}
    assert "You can ask: a" in unknown.reply
    assert "not valid JSON" in broken.reply
    assert "query" in arguments.reply
    assert [row.expert for _, row in pool.store.rows()] == ["?", "?", "a"]


async def test_of_fifty_queries_only_k_are_sent(scripted, problem):
    pool = ExpertPool([expert("a")])
    policy = scripted([ask() * 50, "Answer: 19"], max_new_tokens=4000)
    (trajectory,) = await run_one(policy, pool, problem)
    statuses = [c.status for c in trajectory.turns[0].consultations]
    assert statuses == [S.ACCEPTED] * 3 + [S.OVER_LIMIT] * 47
    assert trajectory.turns[0].consultations[-1].reply == NOT_SENT


async def test_a_policy_that_asks_for_ever_stops_at_its_turn_budget(scripted, problem):
    (trajectory,) = await run_one(scripted([ask()]), ExpertPool([expert("a")]), problem, turns=4)
    assert trajectory.stop_reason is StopReason.TURN_BUDGET
    assert len(trajectory.turns) == 4
    assert trajectory.turns[-1].consultations == ()
    assert (trajectory.reward, trajectory.correct) == (0.0, False)


async def test_a_long_turn_budget_is_not_cut_by_the_graph(scripted, problem):
    (trajectory,) = await run_one(scripted([ask()]), ExpertPool([expert("a")]), problem, turns=60)
    assert (trajectory.stop_reason, len(trajectory.turns)) == (StopReason.TURN_BUDGET, 60)


async def test_an_empty_completion_and_an_endless_one_are_recorded_for_what_they_are(
    scripted, problem
):
    pool = ExpertPool([expert("a")])
    (empty,) = await run_one(scripted([""]), pool, problem)
    (endless,) = await run_one(scripted(["Answer: 19 " * 99], max_new_tokens=20), pool, problem)
    (never_asks,) = await run_one(scripted(["Answer: 19"]), pool, problem)
    assert empty.stop_reason is StopReason.EMPTY
    assert len(empty.turns[0].completion_ids) == 1
    assert endless.stop_reason is StopReason.LENGTH
    assert (empty.reward, endless.reward) == (0.0, 0.0)
    assert never_asks.turns[0].consultations == ()
    assert never_asks.correct


async def test_a_failed_rollout_is_recorded_and_its_group_goes_on(scripted, problem):
    def script(key, prompt):
        if key.rollout == 1:
            raise RuntimeError("out of luck")
        return "Answer: 19"

    trajectories = await run_one(scripted(script), ExpertPool([expert("a")]), problem, rollouts=3)
    assert [t.stop_reason for t in trajectories][1] is StopReason.ERROR
    assert "out of luck" in trajectories[1].error
    assert trajectories[1].reward is None
    assert [t.reward for t in trajectories][::2] == [1.0, 1.0]


async def test_the_same_seed_gives_the_same_trajectories(agent, problem):
    policy = agent.policy(agent.sampling)
    graph = agent.graph(policy)

    async def tokens(seed):
        plans = [RolloutPlan(problem=problem, rollouts=range(4))]
        (group,) = await run_rollouts(
            graph, policy, plans, system_prompt="Solve.", seed=seed, global_step=2
        )
        return [[t.completion_ids for t in x.turns] for x in group.trajectories_G]

    first, again, other = await tokens(0), await tokens(0), await tokens(1)
    assert first == again
    assert first != other


async def test_slow_experts_of_different_rollouts_overlap(scripted, problem):
    pool = ExpertPool([expert("a", delay_s=0.5)])
    policy = scripted([ask(), "Answer: 19"])
    started = time.perf_counter()
    await run_one(policy, pool, problem, rollouts=32)
    assert time.perf_counter() - started < 4  # 16 s one after another


def test_the_graph_draws_itself(scripted):
    graph = build_consult_graph(
        scripted([""]), ExpertPool([expert("a")]), acceptance=ALWAYS, turns=TurnBudget()
    )
    drawing = graph.get_graph().draw_mermaid()
    assert "policy" in drawing
    assert "consult" in drawing


async def test_the_token_record_survives_a_checkpoint(scripted, problem):
    from langgraph.checkpoint.memory import InMemorySaver

    from graphs.rollout import first_messages
    from graphs.turns import turns_of

    pool = ExpertPool([expert("a")])
    policy = scripted([ask(), "Answer: 19"])
    graph = build_consult_graph(
        policy, pool, acceptance=ALWAYS, turns=TurnBudget(), checkpointer=InMemorySaver()
    )
    config = {"configurable": {"thread_id": "1"}}
    state = await graph.ainvoke({"messages": first_messages("", "Q")}, config)
    saved = (await graph.aget_state(config)).values
    assert turns_of(saved["messages"]) == turns_of(state["messages"])
    assert len(turns_of(saved["messages"])) == 2


@pytest.mark.parametrize("names", [("a", "a")])
def test_experts_of_one_name_are_refused(names):
    from eapo_agents.errors import UsageError

    with pytest.raises(UsageError, match="different names"):
        ExpertPool([expert(name) for name in names])


def test_an_unknown_expert_kind_lists_the_known_ones():
    from eapo_agents.errors import UsageError

    with pytest.raises(UsageError, match="scripted, solver"):
        make_expert("oracle", name="x", timeout_s=1, options={})


def test_cancelling_a_run_leaves_nothing_behind(scripted, problem):
    async def main():
        pool = ExpertPool([expert("a", delay_s=5)])
        task = asyncio.create_task(run_one(scripted([ask()]), pool, problem))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return len(asyncio.all_tasks())

    assert asyncio.run(main()) == 1


async def test_examples_stand_before_the_problem_in_every_prompt(scripted, renderer, problem):
    shown = [("What is 5 + 2 * 3?", "Answer: 11")]
    (trajectory,) = await run_one(
        scripted(["Answer: 19"]), ExpertPool([expert("a")]), problem, examples=shown
    )
    text = renderer.tokenizer.decode(trajectory.turns[0].context_ids)
    assert text.endswith(
        "<|im_start|>user\nWhat is 5 + 2 * 3?<|im_end|>\n"
        "<|im_start|>assistant\nAnswer: 11<|im_end|>\n"
        f"<|im_start|>user\n{problem.question}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert len(trajectory.turns) == 1
    assert trajectory.correct


@pytest.mark.parametrize("per", ["reply", "turn", "rollout"])
async def test_one_coin_decides_on_a_reply_a_turn_or_a_rollout(scripted, problem, per):
    policy = scripted([ask("a", "x") + ask("a", "y") + ask("a", "z")] * 2 + ["Answer: 7"])
    graph = build_consult_graph(
        policy,
        ExpertPool([expert("a")]),
        acceptance=AcceptanceSchedule(kind="constant", start=0.5, per=per),
        turns=TurnBudget(start=3, end=3),
    )
    group = await run_group(graph, policy, problem, 24, system_prompt="", seed=0)
    by_turn = [
        [{c.status for c in turn.consultations} for turn in t.turns[:2]]
        for t in group.trajectories_G
    ]
    in_one_turn = {len(statuses) for turns in by_turn for statuses in turns}
    in_one_rollout = {len(set.union(*turns)) for turns in by_turn}
    wanted = {"reply": (2, 2), "turn": (1, 2), "rollout": (1, 1)}[per]
    assert (max(in_one_turn), max(in_one_rollout)) == wanted
    heard = [c.status is S.ACCEPTED for t in group.trajectories_G for c in t.turns[0].consultations]
    assert 0.2 < sum(heard) / len(heard) < 0.8
