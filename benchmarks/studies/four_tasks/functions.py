"""Short functions that use an invented library: what its operations do stands in documents that
only an expert searches. Answers are run in the sandbox. Held out are other pairs of operations."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import permutations

from words import names

from eapo_agents.types import Problem

_FORMS = ("x + {n}", "x - {n}", "x * {n}", "x % {n}", "x // {n}", "{n} - x")
OPERATIONS = 20


def _library(words: Sequence[str], draw: random.Random) -> dict[str, str]:
    """Return operation -> what it makes of x."""
    return {word.lower(): draw.choice(_FORMS).format(n=draw.randint(2, 9)) for word in words}


def _problem(key: str, pair: tuple[str, str], library: dict[str, str]) -> Problem:
    first, second = (library[name] for name in pair)
    code = f"def f(x):\n    x = {first}\n    return {second}"
    defined: dict[str, object] = {}
    exec(code, defined)
    f = defined["f"]
    assert callable(f)
    checks = "\n".join(f"    assert candidate({x}) == {f(x)}" for x in (0, 3, 10, 17))
    return Problem(
        id=f"{key}{pair[0]}-{pair[1]}",
        question=f"Write f(x): {pair[0]} x, then {pair[1]} it.",
        answer=code,
        grader="code",
        metadata={
            "test": f"def check(candidate):\n{checks}\n",
            "entry_point": "f",
            "documents": [f"To {name} x is {made}." for name, made in library.items()],
            "solution": code,
        },
    )


class Functions:
    """The task: all pairs of operations, a fifth of which is held out."""

    def problems(self, split: str) -> list[Problem]:
        """Return the problems of a split."""
        library = _library(names(OPERATIONS, "operations", 2), random.Random("library"))
        pairs = list(permutations(library, 2))
        random.Random("pairs").shuffle(pairs)
        part = len(pairs) // 5
        chosen = {"heldout": pairs[:part], "train": pairs[part:], "all": pairs}[split]
        return [_problem("", pair, library) for pair in chosen]


class Practice:
    """Pairs of operations of other libraries, to learn how documents are used."""

    def problems(self, split: str) -> list[Problem]:
        """Return them, whatever the split."""
        words = names(1600, "others", 2)
        found = []
        for n in range(800):
            library = _library(words[2 * n : 2 * n + 2], random.Random(n))
            first, second = library
            found.append(_problem(f"practice/{n}/", (first, second), library))
        return list({problem.question: problem for problem in found}.values())
