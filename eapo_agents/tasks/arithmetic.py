"""Procedural arithmetic: `a + b * c` with a in 2..19, b and c in 2..9, 1,152 problems.

A small model can do each operation and does not get the two together: an expert's worked steps are
what it lacks. About 30% of the expressions are held out, by a hash of the expression, so no run can
ever train on them.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from eapo_agents.schedules import counter_uniform
from eapo_agents.types import Problem

HELD_OUT_SHARE = 0.3
_MAX_CHARS = 100
_MAX_VALUE = 10**12
_OPERATORS: dict[type[ast.operator], tuple[str, Callable[[Fraction, Fraction], Fraction]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
}


def problems(split: str) -> list[Problem]:
    """All expressions of a split."""
    expressions = (
        f"{a} + {b} * {c}" for a in range(2, 20) for b in range(2, 10) for c in range(2, 10)
    )
    return [
        make_problem(expression)
        for expression in expressions
        if split == "all" or (split == "heldout") == is_held_out(expression)
    ]


def make_problem(expression: str) -> Problem:
    """`7 + 3 * 4` as a problem."""
    _, value = worked_steps(expression)
    return Problem(
        id=f"arithmetic/{expression.replace(' ', '')}",
        question=f"What is {expression}?",
        answer=value,
        grader="number",
        metadata={"expression": expression},
    )


def is_held_out(expression: str) -> bool:
    """Whether an expression belongs to the held-out split: a property of the expression alone."""
    return counter_uniform("heldout", expression) < HELD_OUT_SHARE


def worked_steps(expression: str) -> tuple[str, str]:
    """(one sentence an operation, the value): `7 + 3 * 4` -> (`3 * 4 = 12. 7 + 12 = 19.`, `19`).

    Raises:
        ValueError: not arithmetic over numbers with + - * /, too long, too large, or a division by
        zero.
    """
    steps, value = operations(expression)
    return " ".join(step.text for step in steps) or f"{value}.", value


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of an expression: `7 + 12 = 19` of `7 + 3 * 4`."""

    left: str
    sign: str
    right: str
    result: str
    given: tuple[bool, bool]
    """Whether left and right stand in the expression. The others are results."""

    @property
    def text(self) -> str:
        """Return it as a sentence."""
        return f"{self.left} {self.sign} {self.right} = {self.result}."


def operations(expression: str) -> tuple[list[Operation], str]:
    """Return an expression's operations, in the order in which they are worked out, and its value.

    Raises:
        ValueError: as `worked_steps`.
    """
    if len(expression) > _MAX_CHARS:
        raise ValueError(f"An expression has at most {_MAX_CHARS} characters.")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
        steps: list[Operation] = []
        value = _value(tree.body, steps)
    except ZeroDivisionError as error:
        raise ValueError("The expression divides by zero.") from error
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("That is not an arithmetic expression such as 7 + 3 * 4.") from error
    return steps, _text(value)


def _value(node: ast.expr, steps: list[Operation]) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _checked(Fraction(str(value)))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, steps)
        case ast.BinOp(left=left, op=kind, right=right) if type(kind) in _OPERATORS:
            sign, apply = _OPERATORS[type(kind)]
            a, b = _value(left, steps), _value(right, steps)
            result = _checked(apply(a, b))
            steps.append(
                Operation(
                    left=_text(a),
                    sign=sign,
                    right=_text(b),
                    result=_text(result),
                    given=(_is_number(left), _is_number(right)),
                )
            )
            return result
    raise ValueError("Only numbers with + - * / and brackets can be worked out.")


def _is_number(node: ast.expr) -> bool:
    return isinstance(node.operand if isinstance(node, ast.UnaryOp) else node, ast.Constant)


def _checked(value: Fraction) -> Fraction:
    if abs(value) > _MAX_VALUE or value.denominator > _MAX_VALUE:
        raise ValueError(f"Numbers must stay under {_MAX_VALUE:,}.")
    return value


def _text(value: Fraction) -> str:
    return str(value)
