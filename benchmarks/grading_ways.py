"""Kinds of random answers: how they are made, what is close and unequal, how they are written.

`benchmarks/grading_properties.py` compares what the graders say. Numbers are in
`grading_numbers.py`, expressions, intervals and sets in `grading_sums.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from grading_numbers import NUMBERS, Way, a_number, number_gold, other_number
from grading_sums import (
    EXPRESSIONS,
    INTERVALS,
    SETS,
    a_set,
    an_expression,
    an_interval,
    other_expression,
    other_interval,
    other_set,
    written_sum,
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of answers."""

    make: Callable[[random.Random], Any]
    other: Callable[[Any, random.Random], Any]
    """An unequal answer, often a close one."""
    gold: Callable[[Any], str]
    ways: dict[str, Way]
    announced: tuple[str, ...]
    grader: str


BOXES = (
    r"\boxed{%s}",
    r"The final answer is $\boxed{%s}$. I hope it is correct.",
    "Hence\n\\[\n\\boxed{%s}\n\\]",
    r"So $$\boxed{ %s }.$$",
    r"\fbox{%s}",
    r"<think>Is it 7? \boxed{7}</think>Yes: \boxed{%s}",
    r"First \boxed{98765} was my guess. No, it is $\boxed{%s}$.",
    r"**Final Answer**" + "\n\n" + r"\boxed{%s}",
)
SENTENCES = (
    "The answer is $%s$.",
    r"The answer is \(%s\).",
    "**Answer:** $%s$",
    "<answer>%s</answer>",
    "Answer: $%s$\n\n",
    "### Answer\n\n$%s$",
    "The final answer is: $%s$",
    "So the answer is $$%s$$.",
    "**Final answer: $%s$**",
    "La respuesta es $%s$.",
    "answer = $%s$",
    "Answer:\r\n$%s$",
)
# --- choices


LETTER_FORMS = (
    *("%s", "(%s)", "**%s**", "Answer: %s", "The answer is (%s).", "[%s]", "%s.", "%s)"),
    *(r"\boxed{\text{%s}}", r"\boxed{%s}", r"\boxed{(%s)}", r"\boxed{\text{(%s)}}"),
    *(r"\boxed{\textbf{(%s)}}", r"$\boxed{\mathrm{%s}}$", "**Answer: (%s)**"),
    *("**Answer:** %s.", "The correct answer is: %s"),
    *("Therefore, %s is the correct answer.", "Answer: %s, not E", "<answer>%s</answer>"),
    *("La respuesta correcta es %s.", "The answer must be %s.", "Option %s is right."),
    *("The correct option is therefore (%s).", "ANSWER: %s"),
    *("The correct answer is option %s.",),
    *("I would choose %s.", "So the best choice is **%s**.", "Final answer: %s", "Choice (%s)"),
    *("My answer is %s", "The correct choice is %s.", "Hence, option (%s) is correct."),
    *("\u7b54\u6848\uff1a%s", "\u7b54\u6848\u662f%s\u3002", "R\u00e9ponse : %s", "Antwort: %s"),
    *("Die richtige Antwort ist %s.", "\u041e\u0442\u0432\u0435\u0442: %s"),
    *("A resposta correta \u00e9 %s.",),
    *("### Answer\n%s", "Answer:\n\n(%s)", "It is %s.", "`%s`", '{"answer": "%s"}'),
    *("Correct answer: %s", "Answer - %s", "The answer is $%s$.", "The answer is **(%s)**."),
)
SMALL_FORMS = ("(%s)", "%s)", "the correct option is therefore (%s)", "Answer: (%s)")


def _letter(form: str) -> Way:
    return lambda v, rng: form % v


def _small_letter(form: str) -> Way:
    return lambda v, rng: form % v.lower()


LETTERS = {form: _letter(form) for form in LETTER_FORMS}
LETTERS |= {f"small: {form}": _small_letter(form) for form in SMALL_FORMS}

ALL = (*BOXES, *SENTENCES)
PLAIN_NUMBERS = {name: way for name, way in NUMBERS.items() if name != "percent less"}
"""A percent sign is a unit to the grader `number`, never a hundredth."""
LINES = ("%s", "It was long.\n\n%s", "<think>A or C?</think>%s", "%s\n", "Let me see.\n%s\r\n")
KINDS: dict[str, Kind] = {
    "numbers": Kind(a_number, other_number, number_gold, NUMBERS, ALL, "math:lenient"),
    "number grader": Kind(
        a_number, other_number, number_gold, PLAIN_NUMBERS, ALL, "number:lenient"
    ),
    "expressions": Kind(
        an_expression, other_expression, written_sum, EXPRESSIONS, ALL, "math:lenient"
    ),
    "intervals": Kind(
        an_interval, other_interval, lambda v: f"{v[0]}{v[1]},{v[2]}{v[3]}", INTERVALS, ALL,
        "math:lenient",
    ),
    "sets": Kind(
        a_set, other_set, lambda v: rf"\{{{', '.join(map(number_gold, v))}\}}", SETS, ALL,
        "math:lenient",
    ),
    "choices": Kind(
        lambda rng: rng.choice("ABCD"),
        lambda v, rng: rng.choice([c for c in "ABCD" if c != v]),
        str, LETTERS, LINES, "choice:lenient",
    ),
}  # fmt: skip
