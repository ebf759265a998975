"""The reference: hands out what a data set knows of the problem, such as its worked solution.

It needs no model, and it shows what help of a kind is worth: the whole solution, or its first
steps. The gold answer is for grading: of a part, a step that holds it is never given.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool

from eapo_agents.errors import ExpertError, RecipeError, UsageError
from eapo_agents.experts.consulting import current_consulting
from eapo_agents.types import Problem

_STEP = re.compile(r"\n+|(?<=[.!?])\s+(?=\S)")
"""Between two steps: the end of a line, or of a sentence. `3.5` has no such end."""


def reference_tool(
    name: str,
    *,
    field: str = "solution",
    part: float = 1.0,
    end: float | None = None,
    steps: int = 0,
    description: str = "knows how this problem is solved",
) -> BaseTool:
    """Make a tool that replies with a field of the problem's metadata, whatever it is asked.

    Args:
        field: the metadata's key, such as `solution` or `hint`.
        part: the share of its steps (lines, else sentences) that is given; 1 is the whole text.
        end: the share that is given from the global step `steps` on. It changes evenly until then.

    Raises:
        UsageError: a share is not in (0, 1], or `end` comes without `steps`.
    """
    for share in (part, part if end is None else end):
        if not 0 < share <= 1:
            raise UsageError(f"A reference gives a part in (0, 1] of its text, got {share:g}.")
    if (end is None) != (steps == 0):
        raise UsageError("A reference whose part changes needs both: end, and steps until then.")

    async def answer(query: str) -> str:
        rollout = current_consulting()
        if rollout is None or rollout.problem is None:
            raise ExpertError(f"{name} knows the problems of a task, and this is none of them.")
        known = rollout.problem.metadata.get(field)
        if not isinstance(known, str) or not known.strip():
            raise ExpertError(f"The problem '{rollout.problem.id}' has no '{field}'.")
        done = min(1.0, rollout.global_step / steps) if steps else 0.0
        share = part if end is None else part + (end - part) * done
        return known.strip() if share >= 1 else _beginning(known, share, rollout.problem)

    return StructuredTool.from_function(coroutine=answer, name=name, description=description)


def refuse_unknown_field(
    name: str, kind: str, options: Mapping[str, Any], problems: Sequence[Problem]
) -> None:
    """Raise RecipeError where an expert is a reference, perhaps within a noisy one, and no problem
    has the field that it gives: each of its replies would fail."""
    if kind == "noisy" and isinstance(of := options.get("of"), Mapping):
        return refuse_unknown_field(name, str(of.get("kind")), of.get("options") or {}, problems)
    field = str(options.get("field", "solution"))
    texts = (problem.metadata.get(field) for problem in problems)
    if kind != "reference" or any(isinstance(text, str) and text.strip() for text in texts):
        return None
    known = sorted({key for problem in problems for key in problem.metadata})
    raise RecipeError(
        f"The expert '{name}' (reference) gives the '{field}' of a problem, and none of the "
        f"{len(problems)} problems has one: name another field in its options (they have: "
        f"{', '.join(known) or 'none'}), or take another expert."
    )


def _beginning(text: str, share: float, problem: Problem) -> str:
    """Return the first steps, at least one, but neither the last one nor one with the answer."""
    every = [step for step in _STEP.split(text.strip()) if step.strip()]
    given = every[: max(1, min(math.ceil(share * len(every)), len(every) - 1))]
    answer = re.compile(rf"(?<![\w.]){re.escape(problem.answer.strip())}(?!\w|\.\d)")
    kept = next((n for n, step in enumerate(given) if answer.search(step)), len(given))
    if kept == 0:
        raise ExpertError(f"The first step of the problem '{problem.id}' is its answer.")
    return "\n".join(given[:kept])
