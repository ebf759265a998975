"""Acceptance and turn-budget schedules over the global training step, and the coin.

Source: EAPO (arXiv 2509.23730), section on internalisation; METHOD: rho_s = 1/s, s counted from 1.
"""

from __future__ import annotations

import hashlib
import math
from typing import Literal

from pydantic import Field, model_validator

from eapo_agents.settings import Settings

AcceptanceKind = Literal[
    "inverse", "inverse_sqrt", "linear", "cosine", "constant", "never", "adaptive"
]


class AcceptanceSchedule(Settings):
    """Acceptance probability: training step s -> rho_s, with which a reply is accepted."""

    kind: AcceptanceKind = "inverse"
    """How it falls. `inverse` is the paper's 1/s and `inverse_sqrt` is 1/sqrt(s), both times
    `start`. `linear` and `cosine` fall from `start` at step 1 to 0 after `steps` steps. `constant`
    stays at `start`. `never` is 0. `adaptive` follows the solo rollouts of the group: `start` when
    none is right, 0 from a solo accuracy of `target`."""
    start: float = Field(1.0, ge=0, le=1)
    """Acceptance probability at the start."""
    steps: int = Field(1, ge=1)
    """Training steps with an acceptance probability above 0 (`linear`, `cosine`)."""
    target: float = Field(0.7, gt=0, le=1)
    """Solo accuracy from which no reply is accepted (`adaptive`)."""
    per: Literal["reply", "turn", "rollout"] = "reply"
    """What one coin decides: each reply, all replies of a turn, or all replies of a rollout."""

    def rho(self, step: int, solo_success: float | None = None) -> float:
        """Return the acceptance probability at training step `step` (from 1). Step 0, outside
        training, counts as step 1.

        Args:
            solo_success: share of the group's solo rollouts that were right. Only `adaptive` reads
                it; None, not known, gives `start`.
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


class TurnBudget(Settings):
    """Turn budget: training step s -> T, the most turns that a rollout may take.

    It falls linearly from `start` at step 1 to `end` at step `steps`, and stays there.
    """

    start: int = Field(3, ge=1)
    """Turns at step 1."""
    end: int = Field(3, ge=1)
    """Turns from step `steps` on."""
    steps: int = Field(1, ge=1)
    """Training steps over which the budget falls."""

    @model_validator(mode="after")
    def _does_not_grow(self) -> TurnBudget:
        if self.end > self.start:
            raise ValueError(
                f"the turn budget needs end <= start, and start is {self.start}, end {self.end}"
            )
        return self

    def turns(self, step: int) -> int:
        """Return the most turns at training step `step` (from 1)."""
        if self.steps == 1:
            return self.end if step > 1 else self.start
        done = min(1.0, (max(1, step) - 1) / (self.steps - 1))
        return round(self.start + (self.end - self.start) * done)


def coin(
    seed: int, problem_id: str, step: int, rollout: int, turn: int | str, slot: int | str
) -> float:
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
