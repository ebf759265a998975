"""Short functions that call an invented library: what its operations do stands in documents that
only an expert searches. Answers are run in the sandbox. Held out are calls with other numbers."""

from __future__ import annotations

import random
import re

from words import names

from eapo_agents.types import Problem

_FORMS = (
    *("x + n", "x - n", "n - x", "x * n", "x % n", "x // n"),
    *("abs(x - n)", "min(x, n)", "max(x, n)", "x * x + n"),
)
OPERATIONS = 30
NUMBERS = range(2, 22)


def _library(number: int, seed: str) -> dict[str, str]:
    """Return operation -> what it makes of x and n."""
    draw = random.Random(seed)
    return {word.lower(): draw.choice(_FORMS) for word in names(number, seed, 2)}


def _document(name: str, form: str) -> str:
    return f"{name}(x, n) is {form}."


def _problem(key: str, name: str, n: int, library: dict[str, str]) -> Problem:
    made = re.sub(r"\bn\b", str(n), library[name])
    code = f"def f(x):\n    return {made}"
    defined: dict[str, object] = {}
    exec(code, defined)
    f = defined["f"]
    assert callable(f)
    checks = "\n".join(f"    assert candidate({x}) == {f(x)}" for x in (0, 3, 10, 17, 41))
    return Problem(
        id=f"{key}{name}-{n}",
        question=f"Write f(x), which is {name}(x, {n}).",
        answer=code,
        grader="code",
        metadata={
            "test": f"def check(candidate):\n{checks}\n",
            "entry_point": "f",
            "documents": [_document(*entry) for entry in library.items()],
            "solution": code,
        },
    )


class Functions:
    """The task: every operation with every number, a fifth of which is held out."""

    def problems(self, split: str) -> list[Problem]:
        """Return the problems of a split."""
        library = _library(OPERATIONS, "library")
        calls = [(name, n) for name in library for n in NUMBERS]
        random.Random("calls").shuffle(calls)
        part = len(calls) // 5
        chosen = {"heldout": calls[:part], "train": calls[part:], "all": calls}[split]
        return [_problem("", name, n, library) for name, n in chosen]


class Practice:
    """Calls of other libraries, to learn how a document is used."""

    def problems(self, split: str) -> list[Problem]:
        """Return them, whatever the split."""
        own = _library(OPERATIONS, "library")
        library = {k: v for k, v in _library(1800, "others").items() if k not in own}
        draw = random.Random("practice")
        return [
            _problem("practice/", name, draw.choice(NUMBERS), {name: form})
            for name, form in library.items()
        ]
