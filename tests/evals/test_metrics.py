"""Intervals against published ones and against what they promise."""

import numpy as np
import pytest

from eapo_agents.errors import UsageError
from evals.metrics import mean_interval, paired_bootstrap, wilson_interval


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_gives_the_published_intervals(successes, n, low, high):
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3; the last by symmetry."""
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_a_wilson_interval_holds_its_share_to_the_last_bit():
    for n in (1, 7, 300, 10_000):
        for successes in (0, 1, n - 1, n):
            low, high = wilson_interval(successes, n)
            assert 0 <= low <= successes / n <= high <= 1


def test_an_interval_needs_something_to_count():
    for successes, n in ((0, 0), (-1, 3), (4, 3)):
        with pytest.raises(UsageError):
            wilson_interval(successes, n)
    with pytest.raises(UsageError):
        mean_interval({})


def test_the_bootstrap_interval_holds_the_mean_and_is_about_as_wide_as_the_normal_one():
    rng = np.random.default_rng(1)
    values = {str(i): float(v) for i, v in enumerate(rng.random(400))}
    low, high = mean_interval(values)
    mean, error = np.mean(list(values.values())), np.std(list(values.values())) / 20
    assert low < mean < high
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_a_paired_comparison_sees_what_an_unpaired_one_cannot():
    rng = np.random.default_rng(1)
    before = {str(i): float(rng.random()) for i in range(200)}
    after = {key: value + 0.02 for key, value in before.items()}
    paired = paired_bootstrap(before, after)
    assert paired.difference == pytest.approx(0.02)
    assert paired.ci95[0] > 0
    assert (paired.n, paired.p_better) == (200, 1.0)


def test_no_difference_is_not_called_one():
    rng = np.random.default_rng(1)
    before = {str(i): float(rng.random() < 0.5) for i in range(300)}
    after = {str(i): float(rng.random() < 0.5) for i in range(300)}
    low, high = paired_bootstrap(before, after).ci95
    assert low < 0 < high


def test_other_problems_on_one_side_are_refused():
    with pytest.raises(UsageError, match="same problems"):
        paired_bootstrap({"a": 1.0}, {"b": 1.0})
