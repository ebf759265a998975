"""Trajectories in the form of tracing platforms, as JSONL: LangSmith's runs and Langfuse's events.

A trajectory is a trace, a turn an LLM call in it, a consultation a tool call below its turn.
Messages are what was said, not the tokens: for training, the store itself is exact. A rollout's
time is known, and a consultation's; turns have their rollout's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from uuid import NAMESPACE_URL, UUID, uuid5

from eapo_agents.secrets import redact
from eapo_agents.store.export import Record
from eapo_agents.store.table_rows import StoredTrajectory
from eapo_agents.types import Consultation, ConsultationStatus, Trajectory, Turn

PLATFORMS = ("langsmith", "langfuse")
REWARD = "reward"
"""Name of the score."""
Message = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trace:
    """A trajectory with its names and times."""

    stored: StoredTrajectory
    system_prompt: str
    id: UUID
    begun: datetime
    ended: datetime

    @property
    def trajectory(self) -> Trajectory:
        return self.stored.trajectory

    def id_of(self, *place: object) -> UUID:
        return uuid5(self.id, "/".join(map(str, place)))

    def metadata(self) -> Record:
        found = self.trajectory
        return {
            "run_id": self.stored.run_id,
            "group_key": self.stored.group_key,
            "trajectory": self.stored.id,
            "problem_id": found.problem.id,
            "rollout": found.rollout,
            "global_step": found.global_step,
            "seed": found.seed,
            "role": found.role.value,
            "stop_reason": found.stop_reason.value,
            "reward": found.reward,
            "correct": found.correct,
            "policy": asdict(found.policy),
        }

    def asked(self) -> list[Message]:
        system = [_message("system", self.system_prompt)] if self.system_prompt else []
        return [*system, _message("user", self.trajectory.problem.question)]

    def before(self, index: int) -> list[Message]:
        """Return the messages that a turn was written after."""
        parent = self.trajectory.turns[index].parent
        if parent is None:
            return self.asked()
        turn = self.trajectory.turns[parent]
        said = [_message("assistant", turn.text)]
        return [*self.before(parent), *said, *map(_reply, turn.consultations)]


def platform_rows(
    platform: str, trajectories: Iterable[StoredTrajectory], system_prompts: Mapping[str, str]
) -> Iterator[Record]:
    """Yield the rows of a platform's file.

    Args:
        system_prompts: run -> the system prompt of its recipe.
    """
    rows = _langsmith if platform == "langsmith" else _langfuse
    for stored in trajectories:
        ended = datetime.fromisoformat(stored.created_at)
        ended = ended if ended.tzinfo else ended.replace(tzinfo=UTC)
        trace = _Trace(
            stored=stored,
            system_prompt=system_prompts.get(stored.run_id, ""),
            id=uuid5(NAMESPACE_URL, f"eapo:{stored.run_id}/{stored.id}/{stored.created_at}"),
            begun=ended - timedelta(seconds=stored.trajectory.duration_s),
            ended=ended,
        )
        yield from rows(trace)


def _langsmith(trace: _Trace) -> Iterator[Record]:
    found = trace.trajectory
    root = _run(trace, trace.id, None, found.graph, "chain")
    root["inputs"] = {"messages": trace.asked()}
    root["outputs"] = _outputs(found.answer)
    root["error"] = found.error and redact(found.error)
    root["extra"] = {"metadata": trace.metadata()}
    root["feedback_stats"] = {REWARD: {"n": 1, "avg": found.reward}} if _is_scored(found) else {}
    yield root
    for index, turn in enumerate(found.turns):
        row = _run(trace, trace.id_of(index), root, found.policy.model, "llm")
        row["inputs"] = {"messages": trace.before(index)}
        row["outputs"] = {**_outputs(turn.text), "usage_metadata": _tokens(turn)}
        row["extra"] = {"metadata": {"turn": index, "ls_model_name": found.policy.model}}
        yield row
        for c in turn.consultations:
            asked = _run(trace, trace.id_of(index, c.slot), row, c.expert or "?", "tool", c)
            asked["inputs"] = {"query": redact(c.query)}
            asked["outputs"] = {"output": redact(c.reply)}
            asked["error"] = c.error and redact(c.error)
            asked["extra"] = {"metadata": _facts(c)}
            yield asked


def _run(
    trace: _Trace,
    id_: UUID,
    parent: Record | None,
    name: str,
    kind: str,
    consultation: Consultation | None = None,
) -> Record:
    ended = trace.ended
    if consultation is not None:
        ended = min(ended, trace.begun + timedelta(seconds=consultation.latency_s))
    order = f"{trace.begun.astimezone(UTC):%Y%m%dT%H%M%S%f}Z{id_}"
    return {
        "id": str(id_),
        "trace_id": str(trace.id),
        "parent_run_id": parent["id"] if parent else None,
        "dotted_order": f"{parent['dotted_order']}.{order}" if parent else order,
        "session_name": trace.stored.run_id,
        "name": name,
        "run_type": kind,
        "start_time": trace.begun.isoformat(),
        "end_time": ended.isoformat(),
        "error": None,
    }


def _langfuse(trace: _Trace) -> Iterator[Record]:
    found = trace.trajectory
    yield _event(
        trace,
        "trace-create",
        trace.id,
        {
            "timestamp": trace.begun.isoformat(),
            "name": found.graph,
            "sessionId": trace.stored.run_id,
            "input": trace.asked(),
            "output": None if found.answer is None else _message("assistant", found.answer),
            "metadata": {**trace.metadata(), "error": found.error and redact(found.error)},
        },
    )
    times = {"startTime": trace.begun.isoformat(), "endTime": trace.ended.isoformat()}
    for index, turn in enumerate(found.turns):
        own = {"traceId": str(trace.id), **times}
        body: Record = {
            **own,
            "name": "policy",
            "model": found.policy.model,
            "modelParameters": asdict(turn.sampling or found.sampling),
            "input": trace.before(index),
            "output": _message("assistant", turn.text),
            "usageDetails": {
                name.removesuffix("_tokens"): count
                for name, count in _tokens(turn).items()
                if count is not None
            },
            "metadata": {"turn": index, "finish_reason": turn.finish_reason},
        }
        yield _event(trace, "generation-create", trace.id_of(index), body)
        for c in turn.consultations:
            ended = min(trace.ended, trace.begun + timedelta(seconds=c.latency_s))
            body = {
                **own,
                "endTime": ended.isoformat(),
                "parentObservationId": str(trace.id_of(index)),
                "name": c.expert or "?",
                "input": redact(c.query),
                "output": redact(c.reply),
                "level": "DEFAULT" if c.error is None else "WARNING",
                "statusMessage": c.error and redact(c.error),
                "metadata": _facts(c),
            }
            yield _event(trace, "span-create", trace.id_of(index, c.slot), body)
    if _is_scored(found):
        score = {"traceId": str(trace.id), "name": REWARD, "value": found.reward}
        yield _event(trace, "score-create", trace.id_of(REWARD), score)


def _event(trace: _Trace, kind: str, id_: UUID, body: Mapping[str, object]) -> Record:
    return {
        "id": str(trace.id_of(kind, id_)),
        "type": kind,
        "timestamp": trace.ended.isoformat(),
        "body": {"id": str(id_), **body},
    }


def _is_scored(trajectory: Trajectory) -> bool:
    return trajectory.reward is not None


def _message(role: str, text: str) -> Message:
    return {"role": role, "content": redact(text)}


def _reply(c: Consultation) -> Message:
    return {**_message("tool", c.reply), "name": c.expert}


def _outputs(text: str | None) -> Record:
    return {"messages": [] if text is None else [_message("assistant", text)]}


def _tokens(turn: Turn) -> dict[str, int | None]:
    read = None if turn.billed is None else turn.billed.prompt_tokens
    # of a turn that was sampled here only what it added is known without its parents
    return {"input_tokens": read, "output_tokens": turn.num_sampled}


def _facts(c: Consultation) -> Record:
    return {
        "status": c.status.value,
        "accepted": c.status is ConsultationStatus.ACCEPTED,
        "rho": c.rho,
        "u": c.u,
        "tokens": c.tokens,
        "cost_usd": c.cost_usd,
        "latency_s": c.latency_s,
    }
