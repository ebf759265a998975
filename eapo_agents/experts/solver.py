"""The solver: exact arithmetic, for the arithmetic task. It gives worked steps or help of another
kind, to study what each is worth."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, get_args

from langchain_core.tools import BaseTool, StructuredTool

from eapo_agents.errors import ExpertError, UsageError
from eapo_agents.tasks.arithmetic import Operation, operations

Gives = Literal[
    "solution", "prefix", "first_step", "plan", "subresult", "other_notation", "critique"
]
_EXPRESSION = re.compile(r"[\d(-][\d\s.()+*/-]*[\d)]")
_TRY = re.compile(r"=\s*(-?\d+(?:/\d+)?)\s*[.?]?\s*$")


def expression_in(query: str) -> str:
    """Return the arithmetic in a question such as `What is 7 + 3 * 4?`, else the whole query."""
    found = _EXPRESSION.findall(query)
    return str(max(found, key=len)) if found else query


def solver_tool(name: str, *, gives: Gives = "solution", share: float | None = None) -> BaseTool:
    """Make a tool that helps with `7 + 3 * 4`.

    Args:
        gives: `solution`: `3 * 4 = 12. 7 + 12 = 19.` `first_step`: `3 * 4 = 12.` `prefix`: the
            first words of the solution, never the last one: `3 * 4 = 12. 7 +`. `plan`, without the
            results: `3 * 4, then 7 +.` `subresult`: `12.` `other_notation`: `3 4 * 12. 7 12 + 19.`
            `critique`, of a query with a try such as `7 + 3 * 4 = 31`: `Wrong. First 3 * 4.`, or
            `Right.`
        share: `prefix`: the share of the solution's words, 0.7 by default.

    Raises:
        UsageError: an unknown kind of help, or a share that does not fit.
    """
    if gives not in get_args(Gives):
        known = ", ".join(get_args(Gives))
        raise UsageError(f"The solver '{name}' gives one of {known}, got '{gives}'.")
    if share is not None and (gives != "prefix" or not 0 < share < 1):
        raise UsageError(
            f"The solver '{name}' takes a share in (0, 1) where it gives a prefix, got {share:g} "
            f"where it gives '{gives}'."
        )
    help_of = partial(_prefix, share=share or 0.7) if gives == "prefix" else _HELP.get(gives)

    async def solve(query: str) -> str:
        expression = expression_in(query)
        try:
            steps, value = operations(expression)
        except ValueError as error:
            raise ExpertError(str(error)) from error
        if help_of is None:
            return _critique(steps, value, query)
        if gives in _PARTS and len(steps) < 2:
            raise ExpertError(f"A part of '{expression}' would be all of it.")
        return help_of(steps) if steps else f"{value}."

    # the prompts of trained policies have these words
    known = "works out arithmetic step by step" if gives == "solution" else "helps with arithmetic"
    return StructuredTool.from_function(coroutine=solve, name=name, description=known)


def _solution(steps: Sequence[Operation]) -> str:
    return " ".join(step.text for step in steps)


def _prefix(steps: Sequence[Operation], *, share: float) -> str:
    words = _solution(steps).split()
    return " ".join(words[: max(1, min(round(share * len(words)), len(words) - 1))])


def _plan(steps: Sequence[Operation]) -> str:
    """`3 * 4, then 7 +.`: what is the result of another operation is left out."""
    said = []
    for step in steps:
        left, right = step.given
        parts = [step.left if left else "", step.sign, step.right if right else ""]
        said.append(" ".join(part for part in parts if part))
    return f"{', then '.join(said)}."


def _other_notation(steps: Sequence[Operation]) -> str:
    return " ".join(f"{step.left} {step.right} {step.sign} {step.result}." for step in steps)


def _critique(steps: Sequence[Operation], value: str, query: str) -> str:
    """Say whether a try is right, and where a wrong one should have begun."""
    tried = _TRY.search(query)
    if tried is None or not steps:
        return "There is no answer to judge."
    first = steps[0]
    right = tried.group(1) == value
    return "Right." if right else f"Wrong. First {first.left} {first.sign} {first.right}."


_HELP: dict[str, Callable[[Sequence[Operation]], str]] = {
    "solution": _solution,
    "first_step": lambda steps: steps[0].text,
    "plan": _plan,
    "subresult": lambda steps: f"{steps[0].result}.",
    "other_notation": _other_notation,
}
_PARTS = ("prefix", "first_step", "subresult")
"""Of a single operation these would be the answer."""
