"""Conversations as training traces: a person says what one is worth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from eapo_agents.errors import StoreError, TraceError
from eapo_agents.policy.recording import records_on
from eapo_agents.store import TraceStore
from eapo_agents.types import Problem, Role, Sampling, StopReason, Trajectory
from graphs.turns import turns_of

PERSON = "person"
"""The grader of a conversation."""


def conversation_trajectory(
    messages: Sequence[BaseMessage], thread_id: str, seed: int, reward: float | None
) -> Trajectory:
    """A conversation as one trajectory: what the user said is context, like experts' replies.

    Raises:
        TraceError: no policy of ours has said anything, or several have.
    """
    records = records_on(messages)
    if not records:
        raise TraceError("The policy has said nothing in this conversation yet: ask it something.")
    if any(record.policy != records[0].policy for record in records):
        raise TraceError(
            "A trace must come from one policy, and this conversation was continued by another: "
            "start a new one."
        )
    questions = [str(m.text) for m in messages if isinstance(m, HumanMessage)]
    problem = Problem(
        id=f"chat/{opening(messages)}",
        question=questions[0],
        answer="",
        grader=PERSON,
        metadata={"thread": thread_id, "questions": questions},
    )
    last = messages[-1]
    return Trajectory(
        problem=problem,
        graph="chat",
        role=Role.CONSULT,
        turns=turns_of(messages),
        stop_reason=StopReason.ANSWERED,
        answer=str(last.text) if isinstance(last, AIMessage) else None,
        reward=reward,
        # of several questions, no single answer can be said to be right
        correct=reward > 0.5 if reward is not None and len(questions) == 1 else None,
        error=None,
        policy=records[0].policy,
        sampling=records[0].sampling,
        seed=seed,
        rollout=0,
        global_step=0,
    )


def opening(messages: Sequence[BaseMessage]) -> str:
    """Names how a conversation began: those that began alike are samples of one group."""
    first = next(i for i, message in enumerate(messages) if isinstance(message, HumanMessage))
    said = "\x1f".join(f"{m.type}:{m.text}" for m in messages[: first + 1])
    return hashlib.blake2b(said.encode(errors="surrogatepass"), digest_size=6).hexdigest()


def keep_trajectory(
    store: TraceStore, trajectory: Trajectory, recipe: Mapping[str, object]
) -> tuple[str, str, int, int]:
    """Puts a conversation into a store, as a further rollout of the group of those that began
    alike; returns (run, group, rollout, trajectories with a reward in the group).

    A chat under other settings (another temperature, system prompt or choice of experts) is a run
    of its own.

    Raises:
        TraceError: the same conversation has been rated before.
        StoreError: the store cannot be written.
    """
    facts: dict[str, Any] = {
        "kind": "chat",
        "recipe": recipe,
        "sampling": trajectory.sampling,
        "policy": trajectory.policy,
    }
    run_id = f"chat-{trajectory.policy.weights[:8]}"
    try:
        store.start_run(run_id, **facts)
    except StoreError:
        run_id = f"{run_id}-{_settings_key(recipe, trajectory.sampling)}"
        store.start_run(run_id, **facts)
    group = trajectory.problem.id
    kept = [s.trajectory for s in store.trajectories(run_id) if s.group_key == group]
    rated = [t for t in kept if t.reward is not None]
    if trajectory.reward is not None and any(t.turns == trajectory.turns for t in rated):
        raise TraceError(
            "This conversation is rated already, and traces are never changed: ask something more, "
            "or /again for another answer."
        )
    rollout = max((t.rollout for t in kept), default=-1) + 1
    store.append(replace(trajectory, rollout=rollout), run_id=run_id, group_key=group)
    return run_id, group, rollout, len(rated) + (trajectory.reward is not None)


def _settings_key(recipe: Mapping[str, object], sampling: Sampling) -> str:
    """Name the settings that shape a conversation."""
    shaping = {name: recipe.get(name) for name in ("seed", "task", "consult")}
    said = json.dumps([shaping, asdict(sampling)], sort_keys=True, default=str)
    return hashlib.blake2b(said.encode(), digest_size=4).hexdigest()
