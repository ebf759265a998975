"""Solo shares and adaptive acceptance: real graphs, a scripted policy, a scripted expert."""

from eapo_agents.experts.consulting import UNAVAILABLE
from eapo_agents.experts.kinds import make_expert
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget
from eapo_agents.store import TraceStore
from graphs.collect import Collection, collect
from graphs.concurrency import Concurrency
from graphs.consult import build_consult_graph
from graphs.fill import run_plans
from graphs.groups import Assistance, solo_success
from graphs.rollout import Rollouts

ADAPTIVE = AcceptanceSchedule(kind="adaptive", target=1.0)


def asks_unless_alone(num_right: int):
    """Alone, the first members are right; with experts in the prompt, it asks."""

    def script(key: RolloutKey, prompt: str) -> str:
        if "Experts you can ask" not in prompt:
            return "Answer: 19" if key.rollout < num_right else "Answer: 8"
        if key.turn == 0:
            return format_call("a", {"query": "q"})
        return "Answer: 8" if UNAVAILABLE in prompt else "Answer: 19"

    return script


def graph_of(policy, acceptance):
    pool = ExpertPool([make_expert("scripted", name="a", options={"default": "seven"})])
    return build_consult_graph(
        policy, pool, acceptance=acceptance, turns=TurnBudget(start=2, end=2)
    )


async def run(scripted, problem, num_right: int, share: float = 0.5, schedule=ADAPTIVE):
    policy = scripted(asks_unless_alone(num_right))
    rollouts = Rollouts(
        graph=graph_of(policy, schedule),
        policy=policy,
        system_prompt="Solve.",
        seed=0,
        global_step=5,
        assistance=Assistance(solo_share=share, acceptance=schedule),
    )
    plan = rollouts.plan(problem, 8, run_id="", key="")
    groups = []
    await run_plans(
        [plan],
        rollouts.run,
        engine=policy.engine,
        concurrency=Concurrency(64, policy.engine),
        on_group=lambda plan, group: groups.append(group),
    )
    return groups[0]


async def test_part_of_a_group_runs_without_experts(scripted, problem):
    constant = AcceptanceSchedule(kind="constant")
    group = await run(scripted, problem, 0, 0.25, constant)
    assert [t.graph for t in group.trajectories_G] == ["solo"] * 2 + ["consult"] * 6
    assert all(not turn.consultations for t in group.trajectories_G[:2] for turn in t.turns)
    assert all(t.turns[0].consultations for t in group.trajectories_G[2:])
    assert [t.rollout for t in group.trajectories_G] == list(range(8))


async def test_the_more_succeed_alone_the_less_the_others_are_heard(scripted, problem):
    for num_right, rho in ((0, 1.0), (1, 0.75), (3, 0.25), (4, 0.0)):
        group = await run(scripted, problem, num_right)
        assert solo_success(group.trajectories_G) == num_right / 4
        rhos = {c.rho for t in group.trajectories_G for turn in t.turns for c in turn.consultations}
        assert rhos == {rho}


def test_a_collection_that_was_cut_off_knows_who_succeeded_alone(scripted, problem, tmp_path):
    policy = scripted(asks_unless_alone(2))
    wanted = Collection(
        run_id="c",
        problems=[problem],
        num_rollouts=8,
        concurrency=64,
        seed=0,
        system_prompt="Solve.",
        assistance=Assistance(solo_share=0.5, acceptance=ADAPTIVE),
    )
    with TraceStore.open(tmp_path / "all.db", create=True) as store:
        start(store, policy)
        assert collect(graph_of(policy, ADAPTIVE), policy, store, wanted) == 8
        whole = list(store.trajectories(run_id="c"))
    with TraceStore.open(tmp_path / "part.db", create=True) as store:
        start(store, policy)
        for stored in whole[:5]:  # the four alone and one more
            store.append(stored.trajectory, run_id="c", group_key=stored.group_key)
        assert collect(graph_of(policy, ADAPTIVE), policy, store, wanted) == 3
        (group,) = store.groups("c")
    rhos = [c.rho for t in group.trajectories_G for turn in t.turns for c in turn.consultations]
    assert rhos == [0.5] * 4


def start(store: TraceStore, policy) -> None:
    store.start_run(
        "c",
        kind="collect",
        recipe={},
        sampling=policy.sampling,
        policy=policy.engine.policy_version,
    )
