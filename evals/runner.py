"""Tool-free evaluation: the solo graph on problems, greedy and sampled, every answer kept as a
trace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from eapo_agents.errors import ErrorBudgetError
from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.rewards import reward_of
from eapo_agents.store import TraceStore
from eapo_agents.types import Problem, Sampling, Trajectory
from evals.metrics import score_interval
from graphs.agent import Agent
from graphs.rollout import AnyGraph, RolloutPlan, run_rollouts

GREEDY, SAMPLED = "greedy", "sampled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Accuracy over problems under one way of sampling."""

    accuracy: float
    """Mean over problems of the share of right answers."""
    ci95: tuple[float, float]
    n: int
    """Problems."""
    samples: int
    """Answers a problem."""
    temperature: float
    formatted: float
    """Share of answers from which something could be extracted."""
    sampled_tokens: int
    asked: float
    """Share of answers for which an expert was asked."""
    per_problem: dict[str, float]
    """Problem id -> share of right answers."""

    def summary(self) -> dict[str, Any]:
        """Everything but the single problems."""
        return {key: value for key, value in asdict(self).items() if key != "per_problem"}


def evaluate(
    agent: Agent,
    problems: Sequence[Problem],
    store: TraceStore,
    run_id: str,
    on_wave: Callable[[int], None] = lambda num_done: None,
    examples: Sequence[tuple[str, str]] = (),
    graph_of: Callable[[PolicyChatModel], AnyGraph] | None = None,
    max_new_tokens: int | None = None,
) -> dict[str, Score]:
    """Scores the agent's policy in the recipe's graph, or in the one that `graph_of` makes;
    `sampled` and, where the recipe asks for it, `greedy`.

    `examples` are questions and answers shown before each problem. Answers that the store already
    has under `run_id` are not asked for again. `max_new_tokens` bounds a turn; by default the
    recipe's `eval.max_new_tokens`.

    Raises:
        ErrorBudgetError: more rollouts failed than the recipe allows; the rest is in the store.
    """
    recipe = agent.recipe
    longest = max_new_tokens or recipe.eval.max_new_tokens
    modes = {
        SAMPLED: (
            Sampling(temperature=recipe.eval.temperature, max_new_tokens=longest),
            recipe.eval.samples,
        ),
        **(
            {GREEDY: (Sampling(temperature=0.0, max_new_tokens=longest), 1)}
            if recipe.eval.greedy
            else {}
        ),
    }
    policies = {mode: agent.policy(sampling) for mode, (sampling, _) in modes.items()}
    answers_a_problem = sum(samples for _, samples in modes.values())
    for mode, (sampling, _) in modes.items():
        store.start_run(
            f"{run_id}/{mode}",
            kind="eval",
            recipe=recipe.model_dump(mode="json"),
            sampling=sampling,
            policy=agent.engine.policy_version,
        )
    width = max(1, recipe.rollouts.at_once(128) // answers_a_problem)
    have = {mode: store.have(f"{run_id}/{mode}") for mode in modes}
    for start in range(0, len(problems), width):
        wave = problems[start : start + width]
        plans = {
            mode: [
                RolloutPlan(
                    problem=problem,
                    rollouts=[r for r in range(samples) if r not in have[mode].get(problem.id, ())],
                )
                for problem in wave
            ]
            for mode, (_, samples) in modes.items()
        }
        for mode, trajectories in asyncio.run(
            _run_wave(agent, policies, plans, examples, graph_of or agent.evaluated_graph)
        ).items():
            for trajectory in trajectories:
                store.append(trajectory, run_id=f"{run_id}/{mode}", group_key=trajectory.problem.id)
        on_wave(min(start + width, len(problems)))
    wanted = {problem.id for problem in problems}
    return {
        mode: _score(
            [
                stored.trajectory
                for stored in store.trajectories(run_id=f"{run_id}/{mode}")
                if stored.trajectory.problem.id in wanted
            ],
            sampling,
            samples,
            recipe.rollouts.max_error_share,
        )
        for mode, (sampling, samples) in modes.items()
    }


async def _run_wave(
    agent: Agent,
    policies: dict[str, PolicyChatModel],
    plans: dict[str, list[RolloutPlan]],
    examples: Sequence[tuple[str, str]],
    graph_of: Callable[[PolicyChatModel], AnyGraph],
) -> dict[str, list[Trajectory]]:
    """Both ways of sampling at once: they share each problem's prompt in the engine's batches."""
    recipe = agent.recipe
    async with asyncio.TaskGroup() as tasks:
        running = {
            mode: tasks.create_task(
                run_rollouts(
                    graph_of(policy),
                    policy,
                    plans[mode],
                    system_prompt=recipe.task.system_prompt,
                    seed=recipe.seed,
                    reward=reward_of(recipe),
                    examples=examples,
                )
            )
            for mode, policy in policies.items()
        }
    return {
        mode: [t for group in task.result() for t in group.trajectories_G]
        for mode, task in running.items()
    }


def _score(
    trajectories: Sequence[Trajectory], sampling: Sampling, samples: int, max_error_share: float
) -> Score:
    scored = [t for t in trajectories if t.correct is not None]
    num_failed = len(trajectories) - len(scored)
    if num_failed > max_error_share * len(trajectories) or not scored:
        errors = [t.error for t in trajectories if t.error]
        raise ErrorBudgetError(
            f"{num_failed} of {len(trajectories)} evaluation rollouts failed (first: "
            f"{errors[0] if errors else '-'}), "
            f"and at most {max_error_share:.0%} may: mend the cause and run the same command again."
        )
    by_problem: dict[str, list[float]] = {}
    for trajectory in scored:
        by_problem.setdefault(trajectory.problem.id, []).append(float(bool(trajectory.correct)))
    per_problem = {key: sum(values) / len(values) for key, values in by_problem.items()}
    accuracy = sum(per_problem.values()) / len(per_problem)
    return Score(
        accuracy=accuracy,
        ci95=score_interval(per_problem),
        n=len(per_problem),
        samples=samples,
        temperature=sampling.temperature,
        formatted=sum((t.reward or 0) > 0 for t in scored) / len(scored),
        sampled_tokens=sum(len(turn.completion_ids) for t in scored for turn in t.turns),
        asked=sum(any(turn.consultations for turn in t.turns) for t in scored) / len(scored),
        per_problem=per_problem,
    )
