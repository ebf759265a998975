"""Tasks: where problems come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from eapo_agents.errors import EapoError, TaskError
from eapo_agents.grading import find_grader
from eapo_agents.registry import Registry, did_you_mean
from eapo_agents.schedules import counter_key
from eapo_agents.types import Problem

Load = Callable[[str], list[Problem]]
"""Split -> its problems."""


def _callable(found: object) -> Load | None:
    return cast(Load, found) if callable(found) else None


TASKS = Registry[Load](
    "task",
    {
        "arithmetic": "eapo_agents.tasks.arithmetic:problems",
        "gsm8k": "eapo_agents.tasks.gsm8k:problems",
    },
    accept=_callable,
    rule="a function from a split ('train', 'heldout' or 'all') to a list of problems",
    error=TaskError,
)
"""Any other name that ends in .jsonl is a file."""
SPLITS = ("train", "heldout", "all")


def load_problems(
    name: str, *, split: str, limit: int | None = None, seed: int = 0
) -> list[Problem]:
    """Return a task's problems in an order that `seed` decides, or the first `limit` of them.

    Args:
        name: `arithmetic`, `gsm8k`, a JSONL file or `package.module:function`.
        split: `train`, `heldout` or `all`. A file has no splits: each is the whole file.

    Raises:
        TaskError: unknown task or split, unreadable data, or fewer problems than `limit`.
    """
    if split not in SPLITS:
        raise TaskError(f"Unknown split '{split}': use one of {', '.join(SPLITS)}.")
    found = _problems(name, split)
    found.sort(key=lambda problem: counter_key("order", seed, problem.id))
    if limit is not None and limit > len(found):
        raise TaskError(
            f"The task '{name}' has {len(found)} problems in its split '{split}', and {limit} "
            "were asked for: "
            "ask for fewer."
        )
    return found[:limit]


def _problems(name: str, split: str) -> list[Problem]:
    if name.endswith(".jsonl"):
        from eapo_agents.tasks.jsonl import read_problems

        return read_problems(name)
    if name not in TASKS and ":" not in name:
        raise TaskError(
            f"Unknown task '{name}'. {did_you_mean(name, TASKS)}Use {', '.join(TASKS)}, a "
            ".jsonl file of id, question, answer, grader, or your own as package.module:function."
        )
    load = TASKS.find(name)
    try:
        found: object = load(split)
    except EapoError:
        raise
    except Exception as error:
        if name in TASKS:
            raise
        raise TaskError(
            f"The task '{name}' failed for its split '{split}': {type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, list | tuple) or not all(isinstance(one, Problem) for one in found):
        raise TaskError(f"The task '{name}' must return a list of eapo_agents.types.Problem.")
    return _checked(name, list(found))


def _checked(name: str, problems: list[Problem]) -> list[Problem]:
    """The problems of a task, which need different ids and graders that exist."""
    if len({problem.id for problem in problems}) < len(problems):
        raise TaskError(f"The task '{name}' has problems with the same id.")
    for grader in {problem.grader for problem in problems}:
        find_grader(grader)
    return problems
