"""Acceptance and turn-budget schedules over the global training step, and the coin.

Source: EAPO (arXiv 2509.23730), section on internalisation; METHOD: rho_s = 1/s, s counted from 1.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from eapo_agents.errors import UsageError

ACCEPTANCE_KINDS = ("inverse", "linear", "constant", "never")


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptanceSchedule:
    """Global step s -> rho_s, the probability that a reply enters the history."""

    kind: str = "inverse"
    """`inverse` is the paper's 1/s; `linear` falls from `start` at step 1 to 0 after `steps` steps;
    `constant` stays at `start`; `never` is 0."""
    start: float = 1.0
    steps: int = 1
    """Only for `linear`: the number of steps with rho > 0."""

    def __post_init__(self) -> None:
        if self.kind not in ACCEPTANCE_KINDS:
            raise UsageError(
                f"Unknown acceptance schedule '{self.kind}': use one of "
                f"{', '.join(ACCEPTANCE_KINDS)}."
            )
        if not 0.0 <= self.start <= 1.0:
            raise UsageError(
                f"The acceptance schedule's start must be from 0 to 1, got {self.start}."
            )
        if self.steps < 1:
            raise UsageError(
                f"The acceptance schedule's steps must be at least 1, got {self.steps}."
            )

    def rho(self, step: int) -> float:
        """Probability at global step `step` (from 1). Step 0, outside training, counts as step
        1."""
        s = max(1, step)
        match self.kind:
            case "inverse":
                return self.start / s
            case "linear":
                return self.start * max(0.0, 1.0 - (s - 1) / self.steps)
            case "constant":
                return self.start
            case _:
                return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnBudget:
    """Global step s -> T, the most turns one trajectory may take.

    Falls linearly from `start` at step 1 to `end` at step `steps`, and stays there.
    """

    start: int = 3
    end: int = 3
    steps: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.end <= self.start:
            raise UsageError(
                f"The turn budget needs 1 <= end <= start, got start {self.start} and end "
                f"{self.end}."
            )
        if self.steps < 1:
            raise UsageError(f"The turn budget's steps must be at least 1, got {self.steps}.")

    def turns(self, step: int) -> int:
        """Most turns at global step `step` (from 1)."""
        if self.steps == 1:
            return self.end if step > 1 else self.start
        done = min(1.0, (max(1, step) - 1) / (self.steps - 1))
        return round(self.start + (self.end - self.start) * done)


def coin(seed: int, problem_id: str, step: int, rollout: int, turn: int, slot: int) -> float:
    """The draw u in [0, 1) of one query; accepted when u < rho.

    A keyed hash of the counter (a counter-based generator): no state, so the same query gets the
    same coin however asynchronous calls interleave, and a run can be repeated.
    """
    return counter_uniform("coin", seed, problem_id, step, rollout, turn, slot)


def counter_uniform(*counter: str | int) -> float:
    """Uniform in [0, 1) with 53 bits, a pure function of its arguments."""
    return (counter_key(*counter) >> 75) / (1 << 53)


def counter_key(*counter: str | int) -> int:
    """128-bit key, a pure function of its arguments; strings and integers never collide."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in counter)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")
