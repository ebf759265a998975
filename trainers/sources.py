"""Where a trainer's rollout groups come from: run now, or read from a trace store."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
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

    def groups(
        self, items: Sequence[int], step: int, elsewhere: Collection[int] = ()
    ) -> list[RolloutGroup]:
        """The groups of these items at training step `step` (from 1). Other processes have those
        of `elsewhere`."""
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
    process: int = 0
    """Which of the training processes this is."""
    num_processes: int = 1

    def __len__(self) -> int:
        return len(self.problems)

    def groups(
        self, items: Sequence[int], step: int, elsewhere: Collection[int] = ()
    ) -> list[RolloutGroup]:
        groups = self._run([self.problems[item] for item in items], step)
        taken = {self.problems[item].id for item in (*items, *elsewhere)}
        spare = [problem for problem in self.problems if problem.id not in taken]
        spare.sort(key=lambda p: counter_key("redraw", self.seed, step, p.id))
        # each process has its own share, so that none draws what another does
        own = iter(spare[self.process :: self.num_processes])
        for _ in range(self.max_redraws):
            num_flat = len(items) - sum(map(has_spread, groups))
            drawn = list(islice(own, max(0, num_flat)))
            if not drawn:
                break
            groups += self._run(drawn, step)
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

    def groups(
        self, items: Sequence[int], step: int, elsewhere: Collection[int] = ()
    ) -> list[RolloutGroup]:
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


def merge_metrics(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The figures of all processes as one: counts added, means weighted."""
    if len(parts) == 1:
        return dict(parts[0])
    merged: dict[str, float] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        having = [part for part in parts if name in part]
        if name in _COUNTS:
            merged[name] = sum(part[name] for part in having)
            continue
        weights = [_weight(name, part) for part in having]
        total = sum(weight * part[name] for weight, part in zip(weights, having, strict=True))
        merged[name] = total / max(1e-9, sum(weights))
    return merged


def _weight(name: str, part: Mapping[str, float]) -> float:
    if name == "reward":
        return part["rollouts"] - part["unscored"]
    if name == "rho":
        return part["experts/calls"] + part["experts/withheld"]
    return part["rollouts"]


_COUNTS = (
    "rollouts",
    "unscored",
    "sampled_tokens",
    "experts/calls",
    "experts/accepted",
    "experts/withheld",
    "experts/failed",
)
_CALLED = (
    ConsultationStatus.ACCEPTED,
    ConsultationStatus.FAILED,
    ConsultationStatus.TIMEOUT,
)
