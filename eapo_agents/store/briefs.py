"""What a page shows of trajectories: sums, lists, and what a search found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eapo_agents.store.table_rows import StoredTrajectory
from eapo_agents.types import ConsultationStatus, Problem

_SNIPPET = 90
"""Characters shown before and behind what was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Sums over some trajectories, such as those of a run, a step or a group."""

    name: str
    """The step, or the group's key."""
    num: int
    scored: int
    reward: float | None
    """Mean over the scored ones."""
    lowest: float | None
    highest: float | None
    correct: int
    failed: int
    solo: int
    first_id: int
    last_id: int
    problem: Problem | None = None
    """A group's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """A trajectory in a list: without its turns."""

    id: int
    run_id: str
    group_key: str
    rollout: int
    problem: Problem
    graph: str
    role: str
    stop_reason: str
    answer: str | None
    reward: float | None
    correct: bool | None
    error: str | None
    global_step: int
    duration_s: float
    created_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which trajectories a list shows."""

    run_id: str | None = None
    step: int | None = None
    group_key: str | None = None
    verdict: str = ""
    """right, wrong, unscored or failed; empty for all."""
    role: str = ""
    asked: bool = False
    """Only those that asked an expert."""
    before: int | None = None
    """Only older ones than this: where the page before this one ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A trajectory in which a text was found."""

    brief: Brief
    where: str
    """question, answer, turn, query or reply."""
    snippet: tuple[str, str, str]
    """The text before it, the text that was found as it stands there, and what follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search gave."""

    hits: Sequence[Hit]
    searched: int
    """Trajectories that were looked at, the latest first."""
    whole: bool
    """Whether the whole store was searched: neither the time nor the number of hits ran out."""


def hit_of(hit: StoredTrajectory, text: str) -> Hit:
    """Return where a text stands in a trajectory, whatever its case."""
    found = hit.trajectory
    places = [("question", found.problem.question), ("answer", found.answer or "")]
    for turn in found.turns:
        places.append(("turn", turn.text))
        for c in turn.consultations:
            places.append(("query", c.query))
            if c.status is ConsultationStatus.ACCEPTED:
                places.append(("reply", c.reply))
    places.append(("problem", found.problem.id))
    where, inside = next(
        ((name, said) for name, said in places if text.lower() in said.lower()), ("metadata", "")
    )
    start = max(0, inside.lower().find(text.lower()))
    first, last = max(0, start - _SNIPPET), start + len(text) + _SNIPPET
    end = start + len(text)
    before = f"{'…' if first else ''}{inside[first:start]}"
    behind = f"{inside[end:last]}{'…' if last < len(inside) else ''}"
    return Hit(brief=brief_of(hit), where=where, snippet=(before, inside[start:end], behind))


def brief_of(of: StoredTrajectory) -> Brief:
    """Return a trajectory as lists show it."""
    found = of.trajectory
    return Brief(
        id=of.id,
        run_id=of.run_id,
        group_key=of.group_key,
        rollout=found.rollout,
        problem=found.problem,
        graph=found.graph,
        role=found.role.value,
        stop_reason=found.stop_reason.value,
        answer=found.answer,
        reward=found.reward,
        correct=found.correct,
        error=found.error,
        global_step=found.global_step,
        duration_s=found.duration_s,
        created_at=of.created_at,
    )
