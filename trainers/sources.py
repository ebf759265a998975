"""Where a trainer's rollout groups come from: run now, or read from a trace store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol

from eapo_agents.schedules import counter_key, counter_uniform
from eapo_agents.store import TraceStore
from eapo_agents.types import ConsultationStatus, Problem, Role, RolloutGroup, Trajectory
from graphs.concurrency import Concurrency
from graphs.failures import runs_again
from graphs.fill import RolloutPlan, run_plans, run_to_end
from graphs.rollout import Rollouts, group_key
from trainers.advantages import has_spread
from trainers.call_limit import CALLED, CallLimit


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

    Groups without spread of reward are joined by groups of other problems, at most
    `dynamic_sampling_retries` times a step (DAPO's dynamic sampling). They stay beside their
    replacements: they cost what they cost, and hint-stripped rows may learn from them.
    """

    rollouts: Rollouts
    """How they are run; the training step takes the place of its `global_step`."""
    concurrency: Concurrency
    problems: Sequence[Problem]
    num_rollouts: int
    store: TraceStore
    run_id: str
    has_spread: Callable[[RolloutGroup], bool] = has_spread
    """Whether the policy gradient learns from a group."""
    dynamic_sampling_retries: int = 0
    skip_settled: float = 0.0
    """Probability that a problem is passed over whose last group had no spread."""
    process: int = 0
    """Which of the training processes this is."""
    num_processes: int = 1
    limit: CallLimit | None = None
    _earlier: dict[str, list[Trajectory]] | None = field(default=None)
    """Group key -> what an interrupted run had rolled out, from the step on at which it resumes."""
    _last: int = 0
    """The last step of which it had rolled out anything."""
    _settled: set[str] = field(default_factory=set)
    """Ids of the problems whose last group had no spread."""

    def __len__(self) -> int:
        return len(self.problems)

    def groups(
        self, items: Sequence[int], step: int, elsewhere: Collection[int] = ()
    ) -> list[RolloutGroup]:
        if self._earlier is None:
            self._earlier = self._read_earlier(step)
        if self.limit is not None:
            self.limit.begin(step)
        own = self._spare({self.problems[item].id for item in (*items, *elsewhere)}, step)
        drawn = [self._or_another(self.problems[item], own, step) for item in items]
        groups = self._run(drawn, step)
        for _ in range(self.dynamic_sampling_retries):
            num_flat = len(items) - sum(map(self.has_spread, groups))
            drawn = list(islice(own, max(0, num_flat)))
            if not drawn:
                break
            groups += self._run(drawn, step)
        for group in groups:
            self._note(group)
        return groups

    def _note(self, group: RolloutGroup) -> None:
        """Note whether a problem is settled; a group without a score does not say."""
        if self.has_spread(group):
            self._settled.discard(group.problem.id)
        elif any(t.reward is not None for t in group.trajectories_G):
            self._settled.add(group.problem.id)

    def _spare(self, taken: Collection[str], step: int) -> Iterator[Problem]:
        """Yield problems that may take the place of others, those that are not settled first."""
        spare = [problem for problem in self.problems if problem.id not in taken]
        spare.sort(key=lambda p: counter_key("redraw", self.rollouts.seed, step, p.id))
        # each process has its own share, so that none draws what another does
        own = spare[self.process :: self.num_processes]
        if self.skip_settled:
            own.sort(key=lambda p: p.id in self._settled)
        yield from own

    def _or_another(self, problem: Problem, spare: Iterator[Problem], step: int) -> Problem:
        """Return the problem, or at times another in the place of one that is settled."""
        if problem.id not in self._settled:
            return problem
        if counter_uniform("skip", self.rollouts.seed, step, problem.id) >= self.skip_settled:
            return problem
        other = next(spare, None)
        return problem if other is None or other.id in self._settled else other

    def _run(self, problems: Sequence[Problem], step: int) -> list[RolloutGroup]:
        """Return the problems' groups: what the store has of them under the present weights, and
        the rest run now, each stored as it ends. What other weights sampled at this step, before
        the run was cut off, stays in the store beside it."""
        if self._earlier is None:
            self._earlier = self._read_earlier(step)
        rollouts = replace(self.rollouts, global_step=step)
        engine = rollouts.policy.engine
        weights = engine.policy_version.weights
        plans: list[RolloutPlan] = []
        for problem in problems:
            key = group_key(problem, step)
            earlier = self._earlier.get(key, [])
            usable = [t for t in earlier if t.policy.weights == weights]
            failed = self._failed_last(usable, step)
            key = key if len(usable) == len(earlier) else f"{key}@{weights}"
            done = {t.rollout for t in usable} - failed
            plan = rollouts.plan(problem, self.num_rollouts, run_id=self.run_id, key=key)
            missing = [r for r in plan.rollouts if r not in done]
            before = [t for t in usable if t.rollout in done]
            plans.append(replace(plan, rollouts=missing, before=before))
        whole: dict[str, RolloutGroup] = {}
        run = self.limit.runs(rollouts, plans, self.num_rollouts) if self.limit else rollouts.run

        def keep(plan: RolloutPlan, trajectory: Trajectory) -> None:
            again = step == self._last
            self.store.append(
                trajectory, run_id=self.run_id, group_key=plan.key, replaces_failed=again
            )

        try:
            run_to_end(
                run_plans(
                    plans,
                    run,
                    engine=engine,
                    concurrency=self.concurrency,
                    on_trajectory=keep,
                    on_group=lambda plan, group: whole.__setitem__(plan.key, group),
                )
            )
        except BaseException:
            self._earlier = None  # what has ended is in the store, for whoever tries again
            raise
        groups = [whole[plan.key] for plan in plans]
        if self.limit is not None:
            self.limit.count(step, (t for group in groups for t in group.trajectories_G))
        return groups

    def _failed_last(self, usable: Sequence[Trajectory], step: int) -> set[int]:
        """Return the rollouts that the infrastructure made fail in the step at which the run was
        cut off. Those of earlier steps stay: their steps are repeated as they were."""
        if step != self._last:
            return set()
        return {t.rollout for t in usable if runs_again(t.error, "infrastructure")}

    def _read_earlier(self, step: int) -> dict[str, list[Trajectory]]:
        found: dict[str, list[Trajectory]] = {}
        before: dict[tuple[str, str], list[Trajectory]] = {}
        if self.limit is not None:
            self.limit.forget()
        for stored in self.store.trajectories(self.run_id):
            trajectory = stored.trajectory
            if trajectory.role is Role.EXPERT:
                continue  # a solution, of a step that learned from solutions
            if self.skip_settled and trajectory.global_step < step:
                place = (trajectory.problem.id, stored.group_key)
                before.setdefault(place, []).append(trajectory)
            if self.limit is not None and trajectory.global_step < step:
                self.limit.count(trajectory.global_step, [trajectory])
            if trajectory.global_step >= step:
                key = group_key(trajectory.problem, trajectory.global_step)
                found.setdefault(key, []).append(trajectory)
                self._last = max(self._last, trajectory.global_step)
        self._settled.clear()
        for rolled_out in before.values():  # a problem's last group decides
            problem = rolled_out[0].problem
            self._note(RolloutGroup(problem=problem, trajectories_G=tuple(rolled_out)))
        return found


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


@dataclass(slots=True, kw_only=True)
class ReplayedRollouts:
    """Live rollouts with logged groups among them, already examined by the doctor."""

    live: LiveRollouts
    logged: Sequence[RolloutGroup]
    share: float
    max_staleness: int | None
    """Optimizer steps after which a group is drawn no longer."""

    def __len__(self) -> int:
        return len(self.live)

    def groups(
        self, items: Sequence[int], step: int, elsewhere: Collection[int] = ()
    ) -> list[RolloutGroup]:
        drawn = self._draw(round(self.share * len(items)), step)
        fresh = self.live.groups(items[: len(items) - len(drawn)], step, elsewhere)
        return [*fresh, *drawn]

    def _draw(self, count: int, step: int) -> list[RolloutGroup]:
        """The next of the groups that are young enough, pass after pass."""
        now = self.live.rollouts.policy.engine.policy_version.step
        bound = self.max_staleness
        own = self.logged[self.live.process :: self.live.num_processes]
        young = [group for group in own if bound is None or now - oldest_step(group) <= bound]
        return [young[((step - 1) * count + k) % len(young)] for k in range(count)] if young else []


def oldest_step(group: RolloutGroup) -> int:
    """Optimizer steps that its oldest member's weights had seen."""
    return min(trajectory.policy.step for trajectory in group.trajectories_G)


def group_metrics(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    """What a step's rollouts were like: means over trajectories, counts over consultations."""
    every = [t for group in groups for t in group.trajectories_G]
    consultations = [c for t in every for turn in t.turns for c in turn.consultations]
    by_policy = [t for t in every if t.role is not Role.EXPERT]
    # solutions that are mixed in are no rollouts; where there is nothing else, they are looked at
    trajectories = by_policy or every
    scored = [t.reward for t in trajectories if t.reward is not None]
    count = max(1, len(trajectories))
    asked = sum(any(turn.consultations for turn in t.turns) for t in by_policy)
    by_status: Mapping[ConsultationStatus, int] = {
        status: sum(c.status is status for c in consultations) for status in ConsultationStatus
    }
    metrics: dict[str, Any] = {
        "rollouts": len(trajectories),
        "unscored": len(trajectories) - len(scored),
        "accuracy": _accuracy(trajectories),
        "consultation_rate": asked / count,
        "experts/calls": sum(by_status[s] for s in CALLED),
        "experts/accepted": by_status[ConsultationStatus.ACCEPTED],
        "experts/withheld": by_status[ConsultationStatus.WITHHELD],
        "experts/failed": by_status[ConsultationStatus.FAILED]
        + by_status[ConsultationStatus.TIMEOUT],
        "nonzero_variance_groups": sum(map(has_spread, groups)) / max(1, len(groups)),
        "expert_tokens": sum(c.tokens for c in consultations),
        "expert_usd": sum(c.cost_usd for c in consultations),
        "sampled_tokens": sum(len(turn.completion_ids) for t in by_policy for turn in t.turns),
    }
    solo = [t for t in by_policy if t.role is Role.SOLO]
    helped = [t for t in by_policy if t.role is not Role.SOLO]
    if solo:
        metrics["solo/rollouts"] = len(solo)
        metrics["solo/accuracy"] = _accuracy(solo)
    if helped:
        metrics["helped/rollouts"] = len(helped)
        metrics["helped/accuracy"] = _accuracy(helped)
        metrics["copied"] = sum(map(_copies, helped)) / len(helped)
        # of those that could ask
        metrics["consultation_rate"] = asked / len(helped)
    if scored:
        metrics["reward"] = sum(scored) / len(scored)
    for name in sorted({name for t in trajectories for name in t.reward_parts}):
        parts = [t.reward_parts[name] for t in trajectories if name in t.reward_parts]
        metrics[f"reward/{name}"] = sum(parts) / len(parts)
    if consultations:
        metrics["rho"] = sum(c.rho for c in consultations) / len(consultations)
    return metrics


def _accuracy(trajectories: Sequence[Trajectory]) -> float:
    """Return the share of the scored rollouts that is right: an unscored one is not a wrong one."""
    scored = [t for t in trajectories if t.reward is not None]
    return sum(bool(t.correct) for t in scored) / max(1, len(scored))


def _copies(trajectory: Trajectory) -> bool:
    """Whether its last turn repeats a reply that it was given before, or a long piece of one."""
    if not trajectory.turns:
        return False
    said = trajectory.turns[-1].text
    heard = [
        consultation.reply
        for turn in trajectory.turns  # a hint that nobody asked for is the only turn's own
        for consultation in turn.consultations
        if consultation.status is ConsultationStatus.ACCEPTED
    ]
    return any(
        reply[start : start + COPIED_CHARS] in said
        for reply in heard
        if reply
        for start in range(0, max(1, len(reply) - COPIED_CHARS + 1), COPIED_CHARS // 2)
    )


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
    if name == "reward" or name.startswith("reward/"):
        return part["rollouts"] - part["unscored"]
    if name in ("solo/accuracy", "helped/accuracy", "copied", "consultation_rate"):
        part_of = "solo/rollouts" if name.startswith("solo") else "helped/rollouts"
        return part.get(part_of, 0.0)
    if name == "rho":
        return part["experts/calls"] + part["experts/withheld"]
    return part["rollouts"]


COPIED_CHARS = 60
"""A piece of so many characters, or a whole reply that is shorter, counts as copied."""
_COUNTS = (
    "rollouts",
    "expert_tokens",
    "expert_usd",
    "unscored",
    "sampled_tokens",
    "solo/rollouts",
    "helped/rollouts",
    "left_out/tokens",
    "left_out/helped_answers",
    "teacher/tokens",
    "experts/calls",
    "experts/accepted",
    "experts/withheld",
    "experts/failed",
)
