"""Graders: what counts as an answer, and as a right one; nothing that a policy writes makes them
raise."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eapo_agents.errors import GradingError, UsageError
from eapo_agents.grading import GRADERS, extract_answer, grade
from eapo_agents.rewards import score_text
from eapo_agents.types import Problem


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Answer: 19", "19"),
        ("answer : 19 apples\nand more", "19 apples"),
        ("Answer: 1. No. Answer: 2", "2"),
        (r"So \boxed{\frac{1}{2}} it is", r"\frac{1}{2}"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"Answer: \boxed{7}", "7"),
        (r"\boxed{never closed", "never closed"),
        ("It is 19.", None),
        ("Answer:", None),
        ("", None),
    ],
)
def test_the_answer_is_what_follows_the_last_marker_else_the_last_box(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("grader", "text", "gold", "score"),
    [
        ("number", "Answer: 1,200", "1200", 1.0),
        ("number", "Answer: $1200.00", "1200", 1.0),
        ("number", "Answer: 2400/2", "1200", 1.0),
        ("number", "Answer: -5 degrees", "-5", 1.0),
        ("number", "Answer: \u22125", "-5", 1.0),
        ("number", "Answer: 0.1", "1/10", 1.0),
        ("number", "Answer: 12", "1200", 0.0),
        ("number", "Answer: 1/0", "1", 0.0),
        ("exact", "Answer: The  Eiffel Tower!", "eiffel tower", 1.0),
        ("exact", "Answer: Eiffel", "eiffel tower", 0.0),
        ("f1", "Answer: the Eiffel Tower", "Eiffel Tower, Paris", 0.8),
        ("f1", "Answer: yes it is", "yes", 0.0),
        ("f1", "Answer: yes", "yes", 1.0),
        ("math", r"Answer: \frac{1}{2}", "0.5", 1.0),
        ("math", r"\boxed{x^2 + 2x + 1}", "(x+1)^2", 1.0),
        ("math", "Answer: 3", "4", 0.0),
    ],
)
def test_answers_are_compared_as_what_they_mean(grader, text, gold, score):
    graded = grade(grader, text, gold)
    assert graded.score == pytest.approx(score)
    assert graded.correct == (score == 1.0)


@pytest.mark.parametrize("grader", GRADERS)
@settings(max_examples=60, deadline=None)
@given(text=st.text())
def test_no_text_of_a_policy_makes_a_grader_raise(grader, text):
    for written in (text, f"Answer: {text}", f"\\boxed{{{text}"):
        assert 0.0 <= grade(grader, written, "12").score <= 1.0


@pytest.mark.parametrize(
    "text", ["9^9^9^9^9", "999999999!", "2**2**2**2**99", "(" * 500, "1" * 100_000, r"\frac{" * 90]
)
@pytest.mark.parametrize("grader", GRADERS)
def test_hostile_answers_cost_no_time(grader, text):
    started = time.perf_counter()
    assert not grade(grader, f"Answer: {text}", "12").correct
    assert time.perf_counter() - started < 5  # the first use of math-verify loads sympy


@pytest.mark.parametrize("grader", ["number", "math"])
def test_a_gold_answer_that_cannot_be_read_raises_and_is_never_a_zero(grader):
    with pytest.raises(GradingError, match="gold answer"):
        grade(grader, "Answer: 1", "" if grader == "math" else "no number")


def test_an_unknown_grader_lists_the_known_ones():
    with pytest.raises(UsageError, match="exact, f1, math, number"):
        grade("vibes", "a", "b")


@pytest.mark.parametrize(
    ("text", "reward"),
    [("Answer: 19", 1.0), ("Answer: 20", 0.1), ("Answer: dunno", 0.0), ("19", 0.0), (None, 0.0)],
)
def test_the_reward_is_the_score_or_a_tenth_for_the_format(text, reward):
    problem = Problem(id="p", question="q", answer="19", grader="number")
    assert score_text(text, problem) == (reward, reward == 1.0)
    without, _ = score_text(text, problem, format_reward=0.0)
    assert without == (reward if reward == 1.0 else 0.0)
