"""Families of reasoning-gym as tasks, graded as the family itself grades: `reasoning-gym:NAME`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from eapo_agents.errors import TaskError
from eapo_agents.grading import Grade, extract_answer
from eapo_agents.tasks.files import Numbered
from eapo_agents.types import Problem

PREFIX = "reasoning-gym:"
_SIZE = 1000
_GRADER = "eapo_agents.tasks.reasoning:graded"


def read_family(name: str, options: Mapping[str, Any]) -> Iterator[Numbered]:
    """Yield a family's problems; equal questions once.

    Args:
        options: of the family, and `size` (1,000) and `seed` (0).

    Raises:
        TaskError: reasoning-gym is not installed, or there is no such family or option.
    """
    family = name.removeprefix(PREFIX)
    settings = {"size": _SIZE, "seed": 0, **options}
    seen = set()
    for number, entry in enumerate(_family(family, json.dumps(settings, sort_keys=True))):
        if entry["question"] in seen:
            continue
        seen.add(entry["question"])
        yield (
            f"Problem {number} of '{name}'",
            {
                "id": f"{family}/{settings['seed']}/{number}",
                "question": entry["question"],
                "answer": str(entry["answer"]),
                "grader": _GRADER,
                "family": family,
                "options": dict(options),
                "number": number,
            },
        )


def graded(text: str, problem: Problem) -> Grade:
    """Grade what follows `Answer:` as the family does; its scores between 0 and 1 are kept."""
    answer = extract_answer(text)
    if "\n" in problem.answer and "Answer:" in text:  # such as a grid
        answer = text.rpartition("Answer:")[2].strip()
    if answer is None:
        return Grade(score=0.0, formatted=False)
    settings = {"size": _SIZE, "seed": 0, **problem.metadata["options"]}
    family = _family(problem.metadata["family"], json.dumps(settings, sort_keys=True))
    score = family.score_answer(answer, family[problem.metadata["number"]])
    return Grade(score=float(score), formatted=True, extracted=answer)


@lru_cache(maxsize=8)
def _family(name: str, settings: str) -> Any:
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise TaskError(
            f"The task '{PREFIX}{name}' needs reasoning-gym: pip install "
            "'eapo-agents[reasoning-gym]'."
        ) from error
    if name not in DATASETS:
        near = difflib.get_close_matches(name, list(DATASETS), n=3)
        raise TaskError(
            f"reasoning-gym has no family '{name}': it has {len(DATASETS)}, "
            f"such as {', '.join(near or sorted(DATASETS)[:3])}."
        )
    try:
        return reasoning_gym.create_dataset(name, **json.loads(settings))
    except (TypeError, ValueError, AssertionError) as error:
        raise TaskError(
            f"The family '{name}' of reasoning-gym refuses task.options {settings}: {error}."
        ) from error
