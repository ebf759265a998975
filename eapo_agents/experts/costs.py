"""Sums up the experts' ledger: the cost and the outcomes of each expert."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

import numpy as np

from eapo_agents.experts.call_store import LedgerRow


class CostSummary(TypedDict):
    """What one expert cost, for people and programs."""

    expert: str
    step: NotRequired[int]
    """Present where costs are summed by step."""
    calls: int
    cached: int
    withheld: int
    failed: int
    tokens: int
    cost_usd: float | None
    """None if some call has no price."""
    unpriced_calls: int
    p50_s: float | None
    p90_s: float | None
    p99_s: float | None
    acceptance: float | None
    """Accepted replies as a share of the queries that could be sent; None if there were none."""
    attempts: int
    statuses: dict[str, int]


@dataclass(slots=True)
class Costs:
    """One expert's totals, at one step or over all."""

    expert: str
    global_step: int | None
    """None means all steps."""
    statuses: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    """Calls that were sent, whatever their outcome."""
    cached: int = 0
    attempts: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    unpriced_calls: int = 0
    latencies_s: list[float] = field(default_factory=list)

    def add(self, row: LedgerRow) -> None:
        """Count one row."""
        self.statuses[row.status] += 1
        self.cached += row.cached
        self.attempts += row.attempts
        self.tokens += row.prompt_tokens + row.completion_tokens
        if row.attempts:
            self.calls += 1
            self.latencies_s.append(row.latency_s)
            self.unpriced_calls += row.cost_usd is None
            self.cost_usd += row.cost_usd or 0.0

    def summary(self) -> CostSummary:
        """Return the totals and latency percentiles."""
        accepted, withheld = self.statuses["accepted"], self.statuses["withheld"]
        failed = sum(self.statuses[status] for status in ("failed", "timeout", "cancelled"))
        decided = accepted + withheld + failed
        p50, p90, p99 = (
            np.percentile(self.latencies_s, (50, 90, 99)).tolist()
            if self.latencies_s
            else (None, None, None)
        )
        found: CostSummary = {
            "expert": self.expert,
            "calls": self.calls,
            "cached": self.cached,
            "withheld": withheld,
            "failed": failed,
            "tokens": self.tokens,
            "cost_usd": None if self.unpriced_calls else self.cost_usd,
            "unpriced_calls": self.unpriced_calls,
            "p50_s": p50,
            "p90_s": p90,
            "p99_s": p99,
            "acceptance": accepted / decided if decided else None,
            "attempts": self.attempts,
            "statuses": dict(self.statuses),
        }
        return found if self.global_step is None else {**found, "step": self.global_step}


def costs(rows: Iterable[tuple[int, LedgerRow]], *, by_step: bool = False) -> list[Costs]:
    """Sum up (global step, row) pairs, one entry per expert, or per expert and step."""
    found: dict[tuple[str, int | None], Costs] = {}
    for step, row in rows:
        key = (row.expert, step if by_step else None)
        found.setdefault(key, Costs(*key)).add(row)
    return [found[key] for key in sorted(found, key=lambda key: (key[0], key[1] or 0))]
