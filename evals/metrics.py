"""Intervals and comparisons. All of them treat the problem as the unit that was drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eapo_agents.errors import UsageError

_Z95 = 1.959963984540054
_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """after - before over the same problems."""

    difference: float
    ci95: tuple[float, float]
    """Percentile bootstrap over problems."""
    n: int
    """Problems."""
    p_better: float
    """Share of resamples in which the difference is above 0."""


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """95% interval of a share (Wilson 1927); it stays inside [0, 1] and does not collapse at 0 or
    n."""
    if not 0 <= successes <= n or n == 0:
        raise UsageError(
            f"An interval needs 0 <= successes <= n and n > 0, got {successes} of {n}."
        )
    share = successes / n
    centre = share + _Z95**2 / (2 * n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + _Z95**2 / (4 * n**2))
    scale = 1 + _Z95**2 / n
    # at 0 and n rounding would leave the share itself just outside
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return low, high


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased estimate of the chance that one of k samples is right (Chen et al. 2021, HumanEval).

    Raises:
        UsageError: fewer samples than k.
    """
    if not 0 <= num_correct <= num_samples or not 1 <= k <= num_samples:
        raise UsageError(
            f"pass@{k} needs 1 <= k <= samples and 0 <= correct <= samples, got {num_correct} of "
            f"{num_samples}: take more samples or a smaller k."
        )
    if num_samples - num_correct < k:
        return 1.0
    return 1.0 - math.prod(
        1.0 - k / i for i in range(num_samples - num_correct + 1, num_samples + 1)
    )


def mean_interval(per_problem: Mapping[str, float]) -> tuple[float, float]:
    """95% percentile bootstrap interval of the mean over problems."""
    if not per_problem:
        raise UsageError("An interval needs at least one problem.")
    values = np.array([per_problem[key] for key in sorted(per_problem)])
    return _percentiles(_resampled_means(values))


def score_interval(per_problem: Mapping[str, float]) -> tuple[float, float]:
    """Bootstrap over problems; Wilson's where every problem is right or wrong, since a bootstrap of
    equal values has no width."""
    if per_problem and set(per_problem.values()) <= {0.0, 1.0}:
        return wilson_interval(round(sum(per_problem.values())), len(per_problem))
    return mean_interval(per_problem)


def clustered_interval(
    per_problem: Mapping[str, Sequence[float]],
) -> tuple[float, float]:
    """95% interval of the mean over problems of their samples' means, from the cluster-robust
    standard error: samples of one problem count as one draw (Miller 2024, "Adding error bars to
    evals"). Cut to [0, 1]."""
    means = [sum(values) / len(values) for values in per_problem.values()]
    if not means:
        raise UsageError("An interval needs at least one problem.")
    mean = sum(means) / len(means)
    if len(means) == 1:
        return 0.0, 1.0
    variance = sum((value - mean) ** 2 for value in means) / (len(means) - 1)
    half = _Z95 * math.sqrt(variance / len(means))
    return max(0.0, mean - half), min(1.0, mean + half)


def paired_bootstrap(
    before: Mapping[str, float], after: Mapping[str, float], *, seed: int = 0
) -> PairedDifference:
    """The mean difference and its 95% interval; problems are resampled with both of their scores.

    Raises:
        UsageError: the two are not over the same problems.
    """
    if before.keys() != after.keys() or not before:
        only = len(before.keys() ^ after.keys())
        raise UsageError(
            f"A paired comparison needs the same problems on both sides, but {only} are on one "
            "side only "
            f"({len(before)} before, {len(after)} after): evaluate both with the same recipe and "
            "seed."
        )
    ids = sorted(before)
    differences = np.array([after[key] - before[key] for key in ids])
    means = _resampled_means(differences, seed)
    return PairedDifference(
        difference=float(differences.mean()),
        ci95=_percentiles(means),
        n=len(ids),
        p_better=float((means > 0).mean()),
    )


def _resampled_means(values: np.ndarray, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    # in slices: ten thousand resamples of a large benchmark at once would take gigabytes
    means = [
        values[rng.integers(0, len(values), (500, len(values)))].mean(axis=1)
        for _ in range(_RESAMPLES // 500)
    ]
    return np.concatenate(means)


def _percentiles(means: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
