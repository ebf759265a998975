"""Live rollouts under a budget for experts."""

import pytest

from eapo_agents.errors import BudgetError
from eapo_agents.experts.budget import Budget
from eapo_agents.experts.kinds import make_expert
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget
from eapo_agents.store import TraceStore
from graphs.consult import build_consult_graph
from trainers.sources import LiveRollouts


def test_a_step_that_meets_a_spent_budget_is_run_again_whole_and_pays_only_for_the_rest(
    scripted, problem, tmp_path
):
    def script(key, prompt):
        ask = format_call("a", {"query": f"{key.rollout}"})
        return "Answer: 19" if key.turn else ask

    policy = scripted(script)
    options = {"default": "a reply"}
    pool = ExpertPool(
        [make_expert("scripted", name="a", options=options, stored=True)], budget=Budget(calls=3)
    )
    always = AcceptanceSchedule(kind="constant")
    with TraceStore.open(tmp_path / "t.db", create=True) as store:
        store.start_run(
            "train",
            kind="train",
            recipe={},
            sampling=policy.sampling,
            policy=policy.engine.policy_version,
        )
        source = LiveRollouts(
            graph=build_consult_graph(policy, pool, acceptance=always, turns=TurnBudget()),
            policy=policy,
            problems=[problem],
            num_rollouts=4,
            seed=0,
            system_prompt="",
            format_reward=0.1,
            store=store,
            run_id="train",
        )
        with pytest.raises(BudgetError, match="3 of 3 calls"):
            source.groups([0], 1)
        assert list(store.trajectories()) == []
        pool.budget.calls = 4
        (group,) = source.groups([0], 1)
        assert [t.correct for t in group.trajectories_G] == [True] * 4
        assert len(list(store.trajectories())) == 4
    assert pool.budget.spent_calls == 4
    assert [row.cached for _, row in pool.store.rows()].count(True) == 3
