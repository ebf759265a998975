"""Trajectories to rows of the store's tables, and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime

import numpy as np
from sqlalchemy import Connection, RowMapping, Table, inspect, select

from eapo_agents.errors import StoreError
from eapo_agents.types import (
    Billed,
    Consultation,
    ConsultationStatus,
    PolicyVersion,
    Problem,
    Role,
    Sampling,
    StopReason,
    Trajectory,
    Turn,
)

Values = dict[str, object]
"""One row to insert."""
_CONSULTATION = [field.name for field in fields(Consultation)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTrajectory:
    """A trajectory with its place in the store."""

    id: int
    run_id: str
    group_key: str
    created_at: str
    trajectory: Trajectory


def now() -> str:
    """Return the time as the store writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def problem_row(problem: Problem) -> tuple[str, str]:
    """Return a problem's digest and its text.

    Raises:
        StoreError: its metadata is not JSON.
    """
    facts = {**asdict(problem), "metadata": dict(problem.metadata)}
    try:
        text = json.dumps(facts, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"The metadata of problem '{problem.id}' is not JSON ({error}): keep plain values in "
            "it."
        ) from error
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest(), text


def trajectory_row(t: Trajectory, run_id: str, group_key: str, digest: str) -> Values:
    """Return a trajectory's own row; `digest` is its problem's."""
    return {
        "run_id": run_id,
        "group_key": group_key,
        "rollout": t.rollout,
        "problem": digest,
        "created_at": now(),
        "graph": t.graph,
        "role": t.role.value,
        "stop_reason": t.stop_reason.value,
        "answer": _text(t.answer),
        "reward": t.reward,
        "correct": t.correct,
        "error": _text(t.error),
        "policy": json.dumps(asdict(t.policy)),
        "sampling": json.dumps(asdict(t.sampling)),
        "seed": t.seed,
        "global_step": t.global_step,
        "duration_s": t.duration_s,
    }


def turn_rows(trajectory: Trajectory, trajectory_id: int) -> list[Values]:
    """Return a row for each turn."""
    return [
        {
            "trajectory_id": trajectory_id,
            "turn": index,
            "turn_id": turn.id,
            "parent": turn.parent,
            "context_ids": _blob(turn.context_ids, "<i4"),
            "completion_ids": _blob(turn.completion_ids, "<i4"),
            "logprobs": None if turn.logprobs is None else _blob(turn.logprobs, "<f4"),
            "text": _text(turn.text),
            "finish_reason": turn.finish_reason,
            "policy": None if turn.policy is None else json.dumps(asdict(turn.policy)),
            "sampling": None if turn.sampling is None else json.dumps(asdict(turn.sampling)),
        }
        for index, turn in enumerate(trajectory.turns)
    ]


def api_turn_rows(trajectory: Trajectory, trajectory_id: int) -> list[Values]:
    """Return a row for each turn that an API model wrote."""
    return [
        {**asdict(turn.billed), "trajectory_id": trajectory_id, "turn": index}
        for index, turn in enumerate(trajectory.turns)
        if turn.billed is not None
    ]


def reward_part_rows(trajectory: Trajectory, trajectory_id: int) -> list[Values]:
    """Return a row for each part of the reward."""
    return [
        {"trajectory_id": trajectory_id, "place": place, "name": _text(name), "value": value}
        for place, (name, value) in enumerate(trajectory.reward_parts.items())
    ]


def consultation_rows(trajectory: Trajectory, trajectory_id: int) -> list[Values]:
    """Return a row for each consultation."""
    return [
        {
            **asdict(c),
            "trajectory_id": trajectory_id,
            "turn": index,
            "expert": _text(c.expert),
            "query": _text(c.query),
            "reply": _text(c.reply),
            "status": c.status.value,
            "error": _text(c.error),
        }
        for index, turn in enumerate(trajectory.turns)
        for c in turn.consultations
    ]


def by_trajectory(
    connection: Connection, table: Table, ids: Sequence[int]
) -> dict[int, list[RowMapping]]:
    """Return trajectory -> its rows in a table; no rows where the store has no such table."""
    found: dict[int, list[RowMapping]] = {}
    if not inspect(connection).has_table(table.name):
        return found
    order = [table.c[key] for key in ("trajectory_id", "turn", "slot", "place") if key in table.c]
    query = select(table).where(table.c.trajectory_id.in_(ids)).order_by(*order)
    for row in connection.execute(query).mappings():
        found.setdefault(row["trajectory_id"], []).append(row)
    return found


def stored(
    row: RowMapping,
    problem: Problem,
    turns: Sequence[RowMapping],
    asked: Sequence[RowMapping],
    billed: Sequence[RowMapping],
    parts: Sequence[RowMapping],
) -> StoredTrajectory:
    """Return a trajectory as its rows have it; turns and consultations in their order."""
    bill_of = {one["turn"]: _billed(one) for one in billed}
    of_turn: dict[int, list[Consultation]] = {}
    for c in asked:
        of_turn.setdefault(c["turn"], []).append(_consultation(c))
    return StoredTrajectory(
        id=row["id"],
        run_id=row["run_id"],
        group_key=row["group_key"],
        created_at=row["created_at"],
        trajectory=Trajectory(
            problem=problem,
            graph=row["graph"],
            role=Role(row["role"]),
            turns=tuple(
                _turn(turn, of_turn.get(turn["turn"], ()), bill_of.get(turn["turn"]))
                for turn in turns
            ),
            stop_reason=StopReason(row["stop_reason"]),
            answer=row["answer"],
            reward=row["reward"],
            correct=row["correct"],
            error=row["error"],
            policy=policy_of(row["policy"]),
            sampling=sampling_of(row["sampling"]),
            seed=row["seed"],
            rollout=row["rollout"],
            global_step=row["global_step"],
            duration_s=row["duration_s"],
            reward_parts={part["name"]: part["value"] for part in parts},
        ),
    )


def problem_of(text: str) -> Problem:
    """Return the problem that a row's text describes."""
    return Problem(**json.loads(text))


def policy_of(text: str) -> PolicyVersion:
    """The same for a policy's version."""
    return PolicyVersion(**json.loads(text))


def sampling_of(text: str) -> Sampling:
    """The same for a sampling."""
    return Sampling(**json.loads(text))


def _turn(row: RowMapping, asked: Sequence[Consultation], billed: Billed | None) -> Turn:
    return Turn(
        id=row["turn_id"],
        parent=row["parent"],
        context_ids=tuple(np.frombuffer(row["context_ids"], "<i4").tolist()),
        completion_ids=tuple(np.frombuffer(row["completion_ids"], "<i4").tolist()),
        logprobs=None
        if row["logprobs"] is None
        else tuple(np.frombuffer(row["logprobs"], "<f4").tolist()),
        text=row["text"],
        finish_reason=row["finish_reason"],
        consultations=tuple(asked),
        policy=None if row["policy"] is None else policy_of(row["policy"]),
        sampling=None if row["sampling"] is None else sampling_of(row["sampling"]),
        billed=billed,
    )


def _billed(row: RowMapping) -> Billed:
    return Billed(
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        cost_usd=row["cost_usd"],
    )


def _consultation(row: RowMapping) -> Consultation:
    facts = {name: row[name] for name in _CONSULTATION}
    return Consultation(**{**facts, "status": ConsultationStatus(row["status"])})


def _blob(values: Sequence[float], kind: str) -> bytes:
    return np.array(values, dtype=kind).tobytes()


def _text(text: str | None) -> str | None:
    """Return text of models and experts as every database takes it: no lone surrogates, no NUL."""
    if text is None:
        return None
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\ufffd")
