"""Graders: what counts as an answer, and as a right one; nothing that a policy writes makes them
raise."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eapo_agents.errors import GradingError, UsageError
from eapo_agents.grading import GRADERS, extract_answer, grade, math_processes, same_answer
from eapo_agents.rewards import score_text
from eapo_agents.types import Problem

TEXT_GRADERS = [name for name in GRADERS if name != "code"]


def problem(grader, gold):
    return Problem(id="p", question="q", answer=gold, grader=grader)


def gold_of(grader):
    return "B" if grader.startswith("choice") else "12"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Answer: 19", "19"),
        ("answer : 19 apples\nand more", "19 apples"),
        ("Answer: 1. No. Answer: 2", "2"),
        (r"So \boxed{\frac{1}{2}} it is", r"\frac{1}{2}"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"Answer: \boxed{7}", "7"),
        (r"\boxed{never closed", None),
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
        ("exact", "Answer: Eiffel  Tower!", "eiffel tower", 1.0),
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
    graded = grade(text, problem(grader, gold))
    assert graded.score == pytest.approx(score)
    assert graded.correct == (score == 1.0)


@pytest.mark.parametrize("grader", [*TEXT_GRADERS, *(f"{n}:lenient" for n in TEXT_GRADERS)])
@settings(max_examples=40, deadline=None)
@given(text=st.text())
def test_no_text_of_a_policy_makes_a_grader_raise(grader, text):
    for written in (text, f"Answer: {text}", f"\\boxed{{{text}"):
        assert 0.0 <= grade(written, problem(grader, gold_of(grader))).score <= 1.0


HOSTILE = {
    "tower of powers": "9^9^9^9^9",
    "tower in LaTeX": "9^{9^{9^{9^{9}}}}",
    "factorial": "999999999!",
    "sum": r"\sum_{n=1}^{10^{12}} n^n",
    "integral": r"\int_0^{\infty} x^x e^{x^x} \sin(x^x) dx",
    "polynomial": "(x+y+z+w)^{999} (a+b+c)^{999}",
    "parentheses": "(" * 500,
    "ten thousand braces": "{" * 10_000,
    "balanced braces": "{" * 10_000 + "}" * 10_000,
    "fractions": r"\frac{" * 5_000,
    "boxes": r"\boxed{" * 10_000,
    "digits": "1" * 100_000,
    "decimal": "0." + "1" * 100_000,
    "ten million characters": "x" * 10_000_000,
    "ten million digits": "7" * 10_000_000,
    "ten million spaces": " " * 10_000_000,
    "ten million markers": "answer: " * 1_250_000,
    "ten million boxes": r"\boxed{1}" * 1_100_000,
    "ten million lines": "a\n" * 5_000_000,
    "ten million signs": "-" * 10_000_000,
    "ten million commas": "1," * 5_000_000,
    "null bytes": "\0" * 1_000 + "12",
    "surrogates": "\ud800\udfff" * 1_000,
    "null in the middle": "1\x002",
    "directions": "\u202e21\u202c",
    "combining": "1" + "\u0301" * 10_000,
    "matrix": r"\begin{pmatrix}" + r"1 & 2 \\" * 5_000 + r"\end{pmatrix}",
    "think tags": "<think>" * 100_000,
    "code fences": "```python\n" * 100_000,
}


@pytest.fixture
def warm_math(monkeypatch):
    grade("Answer: x", problem("math", "y"))  # the first use waits for sympy
    monkeypatch.setattr(math_processes, "CPU_LIMIT_S", 0.3)
    monkeypatch.setattr(math_processes, "RETRY_CPU_LIMIT_S", 0.4)


HARD = list(HOSTILE)[:6]
"""Sympy would work on these for ever: only the math grader gets them."""
LONG_S = 60.0
"""The limit is under a second of CPU time; without a limit it takes for ever."""


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_graded_or_refused_by_every_grader(warm_math, name):
    graders = ["math"] if name in HARD else [*TEXT_GRADERS, *(f"{n}:lenient" for n in TEXT_GRADERS)]
    for grader in graders:
        text = HOSTILE[name] if grader.endswith("lenient") else f"Answer: {HOSTILE[name]}"
        started = time.perf_counter()
        assert 0.0 <= grade(text, problem(grader, gold_of(grader))).score <= 1.0
        assert time.perf_counter() - started < LONG_S, (grader, text[:40])


def test_the_time_limit_of_mathematics_holds_and_the_next_answer_is_graded(warm_math):
    slow = r"\boxed{\int_0^{\infty} x^x e^{x^x} \sin(x^x) dx + \sum_{n=1}^{10^{12}} n^n}"
    for _ in range(2):
        started = time.perf_counter()
        assert not grade(slow, problem("math", "y^2")).correct
        assert time.perf_counter() - started < LONG_S
        assert grade(r"\boxed{2x + x}", problem("math", "3x")).correct


@pytest.mark.parametrize(
    ("grader", "gold"),
    [("number", "no number"), ("math", ""), ("math", r"\frac{1}{"), ("math", "x^"), ("math", "1+")],
)
def test_a_gold_answer_that_cannot_be_read_raises_and_is_never_a_zero(grader, gold):
    with pytest.raises(GradingError, match="gold answer"):
        grade("Answer: 1", problem(grader, gold))


def test_an_unknown_grader_lists_the_known_ones():
    with pytest.raises(UsageError, match="choice, code, exact, f1, math, number, verbatim"):
        grade("a", problem("vibes", "b"))


@pytest.mark.parametrize(
    ("text", "reward"),
    [("Answer: 19", 1.0), ("Answer: 20", 0.1), ("Answer: dunno", 0.0), ("19", 0.0), (None, 0.0)],
)
def test_the_reward_is_the_score_or_a_tenth_for_the_format(text, reward):
    asked = problem("number", "19")
    assert score_text(text, asked) == (reward, reward == 1.0)
    without, _ = score_text(text, asked, format_reward=0.0)
    assert without == (reward if reward == 1.0 else 0.0)


@pytest.mark.parametrize(
    ("answer", "exact", "verbatim"),
    [("Paris", 1.0, 1.0), ("paris", 1.0, 0.0), (" Paris ", 1.0, 1.0), ("Paris.", 1.0, 0.0)],
)
def test_verbatim_counts_the_case_and_the_full_stop_and_exact_does_not(answer, exact, verbatim):
    for name, score in (("exact", exact), ("verbatim", verbatim)):
        problem = Problem(id="p", question="q", answer="Paris", grader=name)
        assert grade(f"Answer: {answer}", problem).score == score


@pytest.mark.parametrize(
    ("grader", "right"),
    [
        ("exact", {"New York", "new york", "New  York", "New York!", "\\text{New York}"}),
        ("exact:case", {"New York", "New  York", "New York!", "\\text{New York}"}),
        ("exact:space", {"New York", "new york", "New York!", "\\text{New York}"}),
        ("exact:end", {"New York", "new york", "New  York", "\\text{New York}"}),
        ("exact:case+end", {"New York", "New  York", "\\text{New York}"}),
        ("exact:case+space+end", {"New York", "\\text{New York}"}),
        ("verbatim", {"New York"}),
    ],
)
def test_what_counts_in_exact_is_named_behind_it(grader, right):
    written = {"New York", "new york", "New  York", "New York!", "\\text{New York}", "NewYork"}
    asked = problem(grader, "New York")
    assert {text for text in written if grade(f"Answer: {text}", asked).correct} == right
    asked = problem(f"{grader}:lenient", "New York")
    assert {text for text in written if grade(f"It is so.\n{text}", asked).correct} == right


def test_what_does_not_count_is_one_sentence_and_votes_follow_what_counts():
    with pytest.raises(UsageError, match=r"'accents' counts.*case, space, end"):
        grade("a", problem("exact:case+accents", "b"))
    assert same_answer("Paris", "paris", "exact:space")
    assert not same_answer("Paris", "paris", "exact:case:lenient")


def test_characters_that_are_composed_in_two_ways_are_the_same_text():
    asked = problem("exact", "caf\u00e9")
    assert grade("Answer: cafe\u0301", asked).correct
    assert not grade("Answer: cafe", asked).correct
