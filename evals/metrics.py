"""Intervals and tests. The unit is what was drawn: the problem, or the seed of a training run.

SciPy's statistics take a second to import, so they are imported where they are used.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

# pydantic reads it from results.json, and on Python 3.11 refuses typing's own
from typing_extensions import TypedDict

from eapo_agents.errors import UsageError

_Z95 = 1.959963984540054
_RESAMPLES = 10_000
_SLICE = 500
"""Resamples at once: all of a large benchmark's would take gigabytes."""
_NO_SPREAD = 1e-9
"""Standard deviation that is rounding."""
CALIBRATION_BIN = 100
"""Answers in a bin of HLE's calibration error."""
MCNEMAR, SIGN_FLIPS = "exact McNemar", "sign flips"
Scores = Mapping[str, float]
"""Problem id -> share of right answers."""
_Key = TypeVar("_Key", bound=Hashable)


class PairedDifference(TypedDict):
    """after - before over the same problems, as reports keep it."""

    difference: float
    ci95: tuple[float, float]
    """Percentile bootstrap over problems."""
    n: int
    """Problems."""
    p: float
    """Chance of a difference at least as large, up or down, if there is none (two-sided)."""
    test: str
    """Where p comes from: exact McNemar where each score is right or wrong, else sign flips."""
    p_holm: float
    """p, corrected for all comparisons of the report."""


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """95% interval of a share (Wilson 1927); it stays inside [0, 1] and does not collapse at 0 or
    n."""
    from scipy.stats import binomtest

    if not 0 <= successes <= n or n == 0:
        raise UsageError(
            f"An interval needs 0 <= successes <= n and n > 0, got {successes} of {n}."
        )
    found = binomtest(successes, n).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def student_interval(
    values: Sequence[float], low: float = 0.0, high: float = 1.0
) -> tuple[float, float] | None:
    """95% interval of the mean of a few values between `low` and `high` (Student's t, 1908).

    It is cut to [low, high]. The mean cannot lie outside, so the cut loses no coverage. None for
    fewer than two values and for equal ones, which say nothing about the spread of others.
    """
    from scipy.stats import t

    if not _spread(values):
        return None
    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    half = error * float(t.ppf(0.975, len(values) - 1))
    return max(low, mean - half), min(high, mean + half)


def student_p(differences: Sequence[float]) -> float | None:
    """Two-sided p value of a mean difference of 0 (paired t test); None as for the interval."""
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(differences, 0.0).pvalue) if _spread(differences) else None


def _spread(values: Sequence[float]) -> bool:
    return len(values) > 1 and statistics.stdev(values) > _NO_SPREAD


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p value of the exact McNemar test (McNemar 1947): if nothing changed, each problem
    whose verdict changed was as likely gained as lost. 1 where none changed."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0


def sign_flip_test(differences: Sequence[float]) -> float:
    """Two-sided p value of a mean difference of 0 (Fisher's randomisation test, 1935): if nothing
    changed, each problem's difference was as likely to have the other sign. All signs where they
    are at most ten thousand, else that many at random."""
    from scipy.stats import permutation_test

    if len(differences) < 2:
        return 1.0
    found = permutation_test(
        (np.array(differences),),
        np.mean,
        permutation_type="samples",
        n_resamples=_RESAMPLES,
        batch=_SLICE,
        rng=0,
    )
    return float(found.pvalue)


def holm(p_values: Mapping[_Key, float]) -> dict[_Key, float]:
    """p values corrected for their number (Holm 1979): the smallest of m is multiplied by m, the
    next by m - 1, and so on; none is below a smaller one's, none above 1."""
    corrected: dict[_Key, float] = {}
    least = 0.0
    for rank, key in enumerate(sorted(p_values, key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[key]))
        corrected[key] = least
    return corrected


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


def calibration_error(confidence: Sequence[float], correct: Sequence[bool]) -> float | None:
    """Root mean square gap between stated confidence and accuracy, as HLE's script computes it:
    over bins of 100 answers sorted by confidence, *without the last bin*, which holds the rest and
    the most confident ones. So it is 0 for 100 to 199 answers, and None for fewer, where the script
    fails. Equal confidences stay in the order in which NumPy sorts them, so order matters.

    Args:
        confidence: shares, from 0 to 1.
    """
    num_bins = len(confidence) // CALIBRATION_BIN
    if num_bins == 0:
        return None
    order = np.argsort(np.array(confidence))
    stated, right = np.array(confidence)[order], np.array(correct)[order]
    squares = 0.0
    for start in range(0, (num_bins - 1) * CALIBRATION_BIN, CALIBRATION_BIN):
        part = slice(start, start + CALIBRATION_BIN)
        gap = abs(np.mean(stated[part]) - np.mean(right[part]))
        squares += CALIBRATION_BIN / len(order) * np.square(gap)
    return float(np.sqrt(squares))


def mean_interval(per_problem: Mapping[str, float]) -> tuple[float, float]:
    """95% percentile bootstrap interval of the mean over problems; [0, 1] for a single one."""
    if not per_problem:
        raise UsageError("An interval needs at least one problem.")
    if len(per_problem) == 1:
        return 0.0, 1.0
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


def paired_differences(
    pairs: Mapping[_Key, tuple[Scores, Scores]],
) -> dict[_Key, PairedDifference]:
    """(before, after) of each comparison of a report -> the difference, and whether it is chance.

    Raises:
        UsageError: a comparison's two sides are not over the same problems.
    """
    found = {key: _paired(before, after) for key, (before, after) in pairs.items()}
    for key, p in holm({key: paired["p"] for key, paired in found.items()}).items():
        found[key]["p_holm"] = p
    return found


def gained_and_lost(before: Scores, after: Scores) -> tuple[list[str], list[str]]:
    """Problems that only `after` has right, and those that only `before` has; right is a score of
    at least a half."""
    gained = [key for key, score in before.items() if score < 0.5 <= after[key]]
    return gained, [key for key, score in before.items() if after[key] < 0.5 <= score]


def _paired(before: Scores, after: Scores) -> PairedDifference:
    if before.keys() != after.keys() or not before:
        only = len(before.keys() ^ after.keys())
        raise UsageError(
            f"A paired comparison needs the same problems on both sides, but {only} are on one "
            f"side only ({len(before)} before, {len(after)} after): evaluate both with the same "
            "recipe and seed."
        )
    differences = np.array([after[key] - before[key] for key in sorted(before)])
    if {*before.values(), *after.values()} <= {0.0, 1.0}:
        test, p = MCNEMAR, mcnemar(*map(len, gained_and_lost(before, after)))
    else:
        test, p = SIGN_FLIPS, sign_flip_test(differences.tolist())
    return PairedDifference(
        difference=float(differences.mean()),
        ci95=_percentiles(_resampled_means(differences)) if len(differences) > 1 else (-1.0, 1.0),
        n=len(differences),
        p=p,
        test=test,
        p_holm=p,
    )


def _resampled_means(values: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    means = [
        values[rng.integers(0, len(values), (_SLICE, len(values)))].mean(axis=1)
        for _ in range(_RESAMPLES // _SLICE)
    ]
    return np.concatenate(means)


def _percentiles(means: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
