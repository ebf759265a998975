"""Schedules and the coin."""

import statistics

import pytest

from eapo_agents.errors import UsageError
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget, coin, counter_key


def test_the_papers_schedule_is_one_over_the_step():
    rho = AcceptanceSchedule(kind="inverse").rho
    assert [rho(s) for s in (1, 2, 4, 100)] == [1, 1 / 2, 1 / 4, 1 / 100]


def test_the_linear_schedule_reaches_zero_after_its_steps_and_stays():
    rho = AcceptanceSchedule(kind="linear", steps=4).rho
    assert [rho(s) for s in (1, 2, 3, 4, 5, 50)] == [1, 0.75, 0.5, 0.25, 0, 0]


def test_the_other_schedules_at_literal_steps():
    sqrt = AcceptanceSchedule(kind="inverse_sqrt").rho
    assert [sqrt(s) for s in (1, 4, 100)] == [1, 0.5, 0.1]
    cosine = AcceptanceSchedule(kind="cosine", steps=4).rho
    assert [round(cosine(s), 3) for s in (1, 2, 3, 5, 9)] == [1, 0.854, 0.5, 0, 0]


def test_the_adaptive_schedule_follows_the_groups_solo_success():
    rho = AcceptanceSchedule(kind="adaptive", start=0.8, target=0.5).rho
    assert [rho(7, success) for success in (None, 0, 0.25, 0.5, 1)] == [0.8, 0.8, 0.4, 0, 0]


def test_outside_training_the_first_steps_probability_holds():
    assert AcceptanceSchedule(kind="inverse").rho(0) == 1
    assert AcceptanceSchedule(kind="constant", start=0.3).rho(0) == 0.3
    assert AcceptanceSchedule(kind="never").rho(0) == 0


def test_the_turn_budget_shrinks_from_start_to_end():
    turns = TurnBudget(start=4, end=1, steps=4).turns
    assert [turns(s) for s in (1, 2, 3, 4, 9)] == [4, 3, 2, 1, 1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: AcceptanceSchedule(kind="cosine-ish"),
        lambda: AcceptanceSchedule(kind="constant", start=1.5),
        lambda: AcceptanceSchedule(kind="linear", steps=0),
        lambda: AcceptanceSchedule(kind="adaptive", target=0),
        lambda: TurnBudget(start=1, end=2),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(make):
    with pytest.raises(UsageError):
        make()


def test_the_coin_is_a_function_of_its_counter_alone():
    first = coin(0, "p", 3, 1, 0, 2)
    coin(0, "q", 3, 1, 0, 2)
    assert coin(0, "p", 3, 1, 0, 2) == first
    others = {coin(*c) for c in [(1, "p", 3, 1, 0, 2), (0, "p", 4, 1, 0, 2), (0, "p", 3, 1, 1, 2)]}
    assert first not in others
    assert len(others) == 3


def test_the_coin_is_uniform():
    draws = [coin(0, f"p{i}", 1, 0, 0, 0) for i in range(4000)]
    assert all(0 <= u < 1 for u in draws)
    assert abs(statistics.fmean(draws) - 0.5) < 0.02
    assert abs(sum(u < 0.25 for u in draws) / 4000 - 0.25) < 0.03


def test_counters_that_only_look_alike_give_different_keys():
    assert counter_key("a", 1) != counter_key("a", "1")
    assert counter_key("ab", "c") != counter_key("a", "bc")
