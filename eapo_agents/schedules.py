"""Acceptance and turn-budget schedules over the global training step, and the coin.

Source: EAPO (arXiv 2509.23730), section on internalisation; METHOD: rho_s = 1/s, s counted from 1.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from eapo_agents.errors import UsageError

ACCEPTANCE_KINDS = (
    "inverse",
    "inverse_sqrt",
    "linear",
    "cosine",
    "constant",
    "never",
    "adaptive",
)
COIN_PER = ("reply", "turn", "rollout")
"""What one coin decides on: each reply by itself, all of a turn, or all of a rollout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptanceSchedule:
    """Global step s -> rho_s, the probability that a reply enters the history."""

    kind: str = "inverse"
    """`inverse` is the paper's 1/s and `inverse_sqrt` 1/sqrt(s), both times `start`; `linear` and
    `cosine` fall from `start` at step 1 to 0 after `steps` steps; `constant` stays at `start`;
    `never` is 0; `adaptive` falls with the share of the group's members that succeed alone, from
    `start` at none to 0 at `target`."""
    start: float = 1.0
    steps: int = 1
    """Only for `linear` and `cosine`: the number of steps with rho > 0."""
    target: float = 0.7
    """Only for `adaptive`: the solo success rate from which nothing is accepted."""
    per: str = "reply"
    """What one coin decides on: one of `COIN_PER`."""

    def __post_init__(self) -> None:
        if self.kind not in ACCEPTANCE_KINDS:
            raise UsageError(
                f"Unknown acceptance schedule '{self.kind}': use one of "
                f"{', '.join(ACCEPTANCE_KINDS)}."
            )
        if self.per not in COIN_PER:
            raise UsageError(f"One coin decides per {', '.join(COIN_PER)}, got '{self.per}'.")
        if not 0.0 <= self.start <= 1.0:
            raise UsageError(
                f"The acceptance schedule's start must be from 0 to 1, got {self.start}."
            )
        if self.steps < 1:
            raise UsageError(
                f"The acceptance schedule's steps must be at least 1, got {self.steps}."
            )
        if not 0.0 < self.target <= 1.0:
            raise UsageError(
                f"The acceptance schedule's target must be above 0 and at most 1, got "
                f"{self.target}."
            )

    def rho(self, step: int, solo_success: float | None = None) -> float:
        """Probability at global step `step` (from 1). Step 0, outside training, counts as step
        1.

        Args:
            solo_success: share of the group's members without experts that were right; `adaptive`
                alone reads it, and is at `start` where it is not known.
        """
        s = max(1, step)
        done = min(1.0, (s - 1) / self.steps)
        match self.kind:
            case "inverse":
                return self.start / s
            case "inverse_sqrt":
                return self.start / math.sqrt(s)
            case "linear":
                return self.start * (1.0 - done)
            case "cosine":
                return self.start * 0.5 * (1.0 + math.cos(math.pi * done))
            case "constant":
                return self.start
            case "adaptive":
                return self.start * max(0.0, 1.0 - (solo_success or 0.0) / self.target)
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
