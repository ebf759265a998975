"""Where a trainer's rollout groups come from: run now, or read from a trace store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.schedules import counter_key
from eapo_agents.store import TraceStore
from eapo_agents.types import ConsultationStatus, Problem, RolloutGroup
from graphs.consult import Graph
from graphs.rollout import RolloutPlan, group_key, run_rollouts
from trainers.rows import has_spread


class RolloutSource(Protocol):
    """Gives the groups of a training step."""

    def __len__(self) -> int:
        """Items that a training step can ask for by number."""
        ...

    def groups(self, items: Sequence[int], step: int) -> list[RolloutGroup]:
        """The groups of these items at training step `step` (from 1)."""
        ...


@dataclass(slots=True, kw_only=True)
class LiveRollouts:
    """Runs the consult graph with the present weights, and logs what it ran.

    Groups without spread of reward are joined by groups of other problems, at most `max_redraws`
    times a step (DAPO's dynamic sampling). They stay beside their replacements: they cost what they
    cost, and hint-stripped rows may learn from them.
    """

    graph: Graph
    policy: PolicyChatModel
    problems: Sequence[Problem]
    num_rollouts: int
    seed: int
    system_prompt: str
    format_reward: float
    store: TraceStore
    run_id: str
    max_redraws: int = 0

    def __len__(self) -> int:
        return len(self.problems)

    def groups(self, items: Sequence[int], step: int) -> list[RolloutGroup]:
        groups = self._run([self.problems[item] for item in items], step)
        asked = {group.problem.id for group in groups}
        for redraw in range(self.max_redraws):
            num_flat = len(items) - sum(map(has_spread, groups))
            spare = [problem for problem in self.problems if problem.id not in asked]
            if num_flat <= 0 or not spare:
                break
            spare.sort(key=lambda p: counter_key("redraw", self.seed, step, redraw, p.id))
            drawn = self._run(spare[:num_flat], step)
            asked |= {group.problem.id for group in drawn}
            groups += drawn
        return groups

    def _run(self, problems: Sequence[Problem], step: int) -> list[RolloutGroup]:
        groups = asyncio.run(
            run_rollouts(
                self.graph,
                self.policy,
                [RolloutPlan(problem=p, rollouts=range(self.num_rollouts)) for p in problems],
                system_prompt=self.system_prompt,
                seed=self.seed,
                global_step=step,
                format_reward=self.format_reward,
            )
        )
        for group in groups:
            for trajectory in group.trajectories_G:
                self.store.append(
                    trajectory, run_id=self.run_id, group_key=group_key(group.problem, step)
                )
        return groups


@dataclass(slots=True, kw_only=True)
class LoggedRollouts:
    """Groups from a trace store, already examined by the doctor."""

    logged: Sequence[RolloutGroup] = field(default_factory=list)
    groups_per_step: int = 1

    def __len__(self) -> int:
        # TRL drops a step that is not full: items without a group fill it up
        return -(-len(self.logged) // self.groups_per_step) * self.groups_per_step

    def groups(self, items: Sequence[int], step: int) -> list[RolloutGroup]:
        return [self.logged[item] for item in items if item < len(self.logged)]


def group_metrics(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    """What a step's rollouts were like: means over trajectories, counts over consultations."""
    trajectories = [t for group in groups for t in group.trajectories_G]
    scored = [t.reward for t in trajectories if t.reward is not None]
    consultations = [c for t in trajectories for turn in t.turns for c in turn.consultations]
    count = max(1, len(trajectories))
    asked = sum(any(turn.consultations for turn in t.turns) for t in trajectories)
    by_status: Mapping[ConsultationStatus, int] = {
        status: sum(c.status is status for c in consultations) for status in ConsultationStatus
    }
    metrics: dict[str, Any] = {
        "rollouts": len(trajectories),
        "unscored": len(trajectories) - len(scored),
        "accuracy": sum(bool(t.correct) for t in trajectories) / count,
        "consultation_rate": asked / count,
        "experts/calls": sum(by_status[s] for s in _CALLED),
        "experts/accepted": by_status[ConsultationStatus.ACCEPTED],
        "experts/withheld": by_status[ConsultationStatus.WITHHELD],
        "experts/failed": by_status[ConsultationStatus.FAILED]
        + by_status[ConsultationStatus.TIMEOUT],
        "groups_with_spread": sum(map(has_spread, groups)) / max(1, len(groups)),
        "sampled_tokens": sum(len(turn.completion_ids) for t in trajectories for turn in t.turns),
    }
    if scored:
        metrics["reward"] = sum(scored) / len(scored)
    if consultations:
        metrics["rho"] = sum(c.rho for c in consultations) / len(consultations)
    return metrics


_CALLED = (
    ConsultationStatus.ACCEPTED,
    ConsultationStatus.FAILED,
    ConsultationStatus.TIMEOUT,
)
