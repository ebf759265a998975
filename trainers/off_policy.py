"""Rows that the policy did not sample behind the prompt that they are trained behind: which they
are, and how their tokens are weighted.

A weight is a factor of a token's advantage. It is a function of the token's probability p today,
behind the prompt that the row has:

    ratio      p divided by the probability with which it was sampled, truncated (Guide,
               arXiv 2506.13923, for a hint that is taken away)
    shaped     gamma p / (p + gamma)^2: p times the slope of p / (p + gamma), most for tokens of
               probability gamma (LUFFY, arXiv 2504.14945; Critique-GRPO, arXiv 2506.03106)
    uncertain  p (1 - p): nothing from tokens that are sure or out of reach (CHORD,
               arXiv 2508.11408)

R is rows of a batch, C is tokens of a completion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from eapo_agents.recipe import OffPolicySection
from eapo_agents.types import ConsultationStatus, Problem, Role, Trajectory
from trainers.rows import OffPolicy, TrainingRow, likelihood_row, trajectory_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsOf:
    """Trajectory, advantage -> the rows of the policy gradient."""

    solo_prompt: Callable[[Problem], Sequence[int]]
    """Token ids of a problem's tool-free prompt."""
    settings: OffPolicySection

    def __call__(self, trajectory: Trajectory, advantage: float) -> list[TrainingRow]:
        """Return rows as `trajectory_rows` does, but of a solution the expert's text, and of a
        rollout whose hint is to be taken away the last turn, both behind the tool-free prompt."""
        if trajectory.role is Role.EXPERT:
            return [self._solution(trajectory, advantage)]
        kind = self.settings.hints
        if kind == "kept" or not was_hinted(trajectory):
            return trajectory_rows(trajectory, advantage=advantage)
        prompt_ids = tuple(self.solo_prompt(trajectory.problem))
        last = replace(trajectory.turns[-1], context_ids=prompt_ids, parent=None)
        bare = replace(trajectory, turns=(last,))
        return [
            replace(row, trajectory=trajectory, off_policy=kind)
            for row in trajectory_rows(bare, advantage=advantage)
        ]

    def _solution(self, trajectory: Trajectory, advantage: float) -> TrainingRow:
        ids = trajectory.turns[-1].completion_ids
        row = likelihood_row(
            trajectory, self.solo_prompt(trajectory.problem), ids, advantage=advantage
        )
        return replace(row, off_policy="shaped")


def was_hinted(trajectory: Trajectory) -> bool:
    """Return whether a rollout of ours had an accepted reply."""
    return trajectory.role is Role.CONSULT and any(
        consultation.status is ConsultationStatus.ACCEPTED
        for turn in trajectory.turns
        for consultation in turn.consultations
    )


def kinds_of(
    relative: Sequence[TrainingRow], likelihood: Sequence[TrainingRow], first: int
) -> list[OffPolicy | None]:
    """Return how the tokens of each row are weighted; None where the policy of today sampled it
    behind its prompt, or where it is plain likelihood.

    Args:
        first: rows of weights with fewer optimizer steps are old.
    """
    older: list[OffPolicy | None] = [
        row.off_policy or ("ratio" if row.trajectory.policy.step < first else None)
        for row in relative
    ]
    # with logprobs, a likelihood row was sampled with a reply in the context that is gone here
    stripped: list[OffPolicy | None] = [
        row.off_policy or ("ratio" if row.logprobs_T is not None else None) for row in likelihood
    ]
    return [*older, *stripped]


def token_factors(
    kinds: Sequence[OffPolicy | None],
    current: torch.Tensor,
    old: torch.Tensor,
    *,
    ratio_cap: float,
    gamma: float,
) -> torch.Tensor:
    """Return the factor of each token's advantage (R, C); 1 in rows without a kind, such as those
    of padding.

    Args:
        kinds: one for each row, but none for the padding rows at the end.
        current: logprobs today (R, C).
        old: logprobs when it was sampled (R, C); read for `ratio` alone.
        ratio_cap: where the ratio is truncated.
        gamma: of `shaped`.
    """
    factors = torch.ones_like(current)
    for row, kind in enumerate(kinds):
        if kind == "ratio":
            factors[row] = torch.exp(current[row] - old[row]).clamp(max=ratio_cap)
        elif kind is not None:
            p = current[row].exp()
            factors[row] = gamma * p / (p + gamma) ** 2 if kind == "shaped" else p * (1 - p)
    return factors
