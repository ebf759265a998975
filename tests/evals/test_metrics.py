"""Statistics against published figures, and against formulas that are not SciPy's."""

import math
from itertools import product

import numpy as np
import pytest

from eapo_agents.errors import UsageError
from evals.metrics import (
    MCNEMAR,
    SIGN_FLIPS,
    gained_and_lost,
    holm,
    mcnemar,
    mean_interval,
    paired_differences,
    sign_flip_test,
    student_interval,
    student_p,
    wilson_interval,
)


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


@pytest.mark.parametrize(
    ("values", "t"),  # of the printed tables, at 97.5%
    [([0.2, 0.4], 12.706), ([0.3, 0.4, 0.5], 4.303), ([0.1, 0.2, 0.3, 0.4, 0.5], 2.776)],
)
def test_student_gives_the_intervals_of_the_printed_tables(values, t):
    mean, half = np.mean(values), t * np.std(values, ddof=1) / math.sqrt(len(values))
    wanted = (mean - half, mean + half)
    assert student_interval(values, -9, 9) == pytest.approx(wanted, abs=1e-3)


def test_the_interval_of_a_mean_of_shares_is_cut_where_the_mean_cannot_lie():
    low, high = student_interval([0.6, 1.0, 1.0])
    assert (round(low, 3), high) == (0.293, 1.0)
    assert student_interval([0.0, 0.0, 0.4])[0] == 0.0


def test_one_value_and_equal_values_have_no_interval_and_no_p_value():
    for values in ([], [0.5], [0.5, 0.5, 0.5]):
        assert student_interval(values) is None
        assert student_p(values) is None


def test_the_p_value_of_a_paired_t_test_is_that_of_the_closed_form():
    """With 2 degrees of freedom P(|T| > t) = 1 - t / sqrt(t^2 + 2)."""
    t = 0.2 / (0.1 / math.sqrt(3))
    assert student_p([0.1, 0.2, 0.3]) == pytest.approx(1 - t / math.sqrt(t**2 + 2))


@pytest.mark.parametrize(("gained", "lost"), [(5, 1), (10, 2), (0, 6), (3, 3), (40, 21)])
def test_mcnemar_is_the_two_sided_binomial_sum(gained, lost):
    n = gained + lost
    tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1)) / 2**n
    assert mcnemar(gained, lost) == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar(gained, lost) == pytest.approx(mcnemar(lost, gained))


def test_mcnemar_without_a_changed_verdict_is_1():
    assert mcnemar(0, 0) == 1.0


def test_the_sign_flip_test_counts_all_signs():
    differences = [0.5, 0.25, 0.75, -0.125, 0.5]
    seen = abs(sum(differences))
    flips = [
        sum(s * d for s, d in zip(f, differences, strict=True)) for f in product((1, -1), repeat=5)
    ]
    assert sign_flip_test(differences) == pytest.approx(sum(abs(f) >= seen for f in flips) / 32)
    assert sign_flip_test([0.0, 0.0]) == sign_flip_test([0.25]) == 1.0


def test_flipped_signs_of_verdicts_are_mcnemars_test():
    assert sign_flip_test([1.0] * 7 + [-1.0] * 2 + [0.0] * 3) == pytest.approx(mcnemar(7, 2))


def test_holm_gives_the_worked_example():
    """By hand: 4 x 0.005, 3 x 0.01, then 2 x 0.03, and 1 x 0.04, which may not be below it."""
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert corrected == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({1: 0.6, 2: 0.7}) == {1: 1.0, 2: 1.0}
    assert holm({}) == {}


def test_the_bootstrap_interval_holds_the_mean_and_is_about_as_wide_as_the_normal_one():
    rng = np.random.default_rng(1)
    values = {str(i): float(v) for i, v in enumerate(rng.random(400))}
    low, high = mean_interval(values)
    mean, error = np.mean(list(values.values())), np.std(list(values.values())) / 20
    assert low < mean < high
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_one_problem_says_nothing_about_others():
    assert mean_interval({"a": 0.5}) == (0.0, 1.0)
    found = paired_differences({"x": ({"a": 0.25}, {"a": 0.75})})["x"]
    assert (found["ci95"], found["p"]) == ((-1.0, 1.0), 1.0)


def test_a_paired_comparison_sees_what_an_unpaired_one_cannot():
    rng = np.random.default_rng(1)
    before = {str(i): float(rng.random()) for i in range(200)}
    after = {key: value + 0.02 for key, value in before.items()}
    paired = paired_differences({"x": (before, after)})["x"]
    assert paired["difference"] == pytest.approx(0.02)
    assert paired["ci95"][0] > 0
    assert (paired["n"], paired["test"]) == (200, SIGN_FLIPS)
    assert paired["p"] < 0.001


def test_verdicts_are_compared_by_mcnemar_and_a_report_corrects_all_its_comparisons():
    before = {str(i): float(i < 3) for i in range(20)}
    after = {str(i): float(i < 1 or i > 9) for i in range(20)}
    assert tuple(map(len, gained_and_lost(before, after))) == (10, 2)
    found = paired_differences({"x": (before, after), "y": (before, before)})
    assert found["x"]["test"] == MCNEMAR
    assert found["x"]["p"] == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert found["x"]["p_holm"] == pytest.approx(2 * found["x"]["p"])
    assert (found["y"]["p"], found["y"]["p_holm"]) == (1.0, 1.0)


def test_no_difference_is_not_called_one():
    rng = np.random.default_rng(1)
    before = {str(i): float(rng.random() < 0.5) for i in range(300)}
    after = {str(i): float(rng.random() < 0.5) for i in range(300)}
    paired = paired_differences({"x": (before, after)})["x"]
    assert paired["ci95"][0] < 0 < paired["ci95"][1]
    assert paired["p"] > 0.05


def test_other_problems_on_one_side_are_refused():
    with pytest.raises(UsageError, match="same problems"):
        paired_differences({"x": ({"a": 1.0}, {"b": 1.0})})
