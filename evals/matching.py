"""Finds a record's problem by what was asked, where its tool numbers samples in its own way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from eapo_agents.types import Problem
from evals.benchmark import Record

Pair = tuple[Problem, Record]
"""A problem and its gold record."""
_COLUMNS = ("question", "problem", "prompt", "Question")
_MIN_CHARS = 12
"""A shorter question is found as a whole only: it could be a part of any other."""


class Questions:
    """The questions of a benchmark."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._pairs: dict[str, list[Pair]] = {}
        for problem, gold in pairs:
            asked = next((gold[c] for c in _COLUMNS if isinstance(gold.get(c), str)), None)
            self._pairs.setdefault(squeezed(asked or problem.question), []).append((problem, gold))
        self._given: Counter[str] = Counter()

    def find(self, asked: str, name: str, options: Sequence[object] | None) -> Pair | None:
        """Return the problem whose question is asked, or stands in what is asked; None where there
        is none, or more than one. Problems with the same question take turns.

        Args:
            name: the record's id, which decides between several.
            options: those shown, where there are any.
        """
        text = squeezed(asked)
        found = [text] if text in self._pairs else self._within(text)
        pairs = [pair for key in found for pair in self._pairs[key]]
        if options is not None:
            pairs = [pair for pair in pairs if _same_options(pair[0], options)] or pairs
        named = [pair for pair in pairs if pair[0].id == name]
        if named or len(pairs) < 2:
            return next(iter(named or pairs), None)
        if len(found) > 1:
            return None
        self._given[found[0]] += 1
        return pairs[(self._given[found[0]] - 1) % len(pairs)]

    def _within(self, text: str) -> list[str]:
        """Return the questions in a text that are not a part of another one there."""
        inside = [key for key in self._pairs if len(key) >= _MIN_CHARS and key in text]
        return [key for key in inside if not any(key in other for other in inside if other != key)]


def squeezed(text: str) -> str:
    """Return the text without white space."""
    return "".join(text.split())


def same_options(problem: Problem, options: Sequence[object] | None) -> bool:
    """Return whether a problem's options, if it has any, are those shown, in whatever order."""
    return "choices" not in problem.metadata or _same_options(problem, options or ())


def _same_options(problem: Problem, options: Sequence[object]) -> bool:
    ours = sorted(squeezed(str(choice)) for choice in problem.metadata.get("choices", ()))
    return ours == sorted(squeezed(str(option)) for option in options)
