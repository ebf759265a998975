"""What the runs of a store hold, in figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from eapo_agents.store.table_rows import StoredTrajectory
from eapo_agents.store.trace_store import RunInfo
from eapo_agents.types import total_known


def stats_of(run: RunInfo, stored: Iterable[StoredTrajectory]) -> dict[str, object]:
    """Return a run's figures: rewards, stop reasons, consultations, tokens, errors."""
    stops: Counter[str] = Counter()
    consulted: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    groups: set[str] = set()
    rewards: list[float] = []
    correct = context = asking = 0
    sampled: list[int | None] = []
    policy_usd: list[float | None] = []
    without_tokens = 0
    expert_tokens, cost_usd = 0, 0.0
    for item in stored:
        found = item.trajectory
        groups.add(item.group_key)
        stops[found.stop_reason.value] += 1
        rewards += [found.reward] if found.reward is not None else []
        correct += bool(found.correct)
        if found.error:
            errors[found.error[:200]] += 1
        asking += any(turn.consultations for turn in found.turns)
        for turn in found.turns:
            sampled.append(turn.num_sampled)
            policy_usd.append(turn.cost_usd)
            without_tokens += turn.billed is not None
            context += len(turn.context_ids)
            for c in turn.consultations:
                consulted[c.status.value] += 1
                expert_tokens += c.tokens
                cost_usd += c.cost_usd
    return {
        "run_id": run.run_id,
        "kind": run.kind,
        "groups": len(groups),
        "trajectories": sum(stops.values()),
        "unscored": sum(stops.values()) - len(rewards),
        "reward": sum(rewards) / len(rewards) if rewards else None,
        "accuracy": correct / len(rewards) if rewards else None,
        "asking": asking,
        "stop_reasons": dict(stops),
        "consultations": dict(consulted),
        "sampled_tokens": total_known(sampled),
        # a service counts whole prompts, not what a turn added
        "context_tokens": None if without_tokens else context,
        "turns_without_tokens": without_tokens,
        "expert_tokens": expert_tokens,
        "cost_usd": cost_usd,
        "policy_cost_usd": total_known(policy_usd),
        "errors": dict(errors.most_common(5)),
    }
