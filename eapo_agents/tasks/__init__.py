"""Tasks: where problems come from."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from eapo_agents.errors import TaskError
from eapo_agents.schedules import counter_key
from eapo_agents.types import Problem

TASKS: dict[str, str] = {
    "arithmetic": "eapo_agents.tasks.arithmetic:problems",
    "gsm8k": "eapo_agents.tasks.gsm8k:problems",
}
"""Name -> "module:function" from a split to its problems. Any other name that ends in .jsonl is a
file."""
SPLITS = ("train", "heldout", "all")


def load_problems(
    name: str, *, split: str, limit: int | None = None, seed: int = 0
) -> list[Problem]:
    """A task's problems in an order that `seed` decides; the first `limit` of them where it is
    given.

    Args:
        name: `arithmetic`, `gsm8k` or a JSONL file. split: `train`, `heldout` or `all`. A file has
        no split of its own: it is whole in every one.

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
    if name not in TASKS:
        raise TaskError(
            f"Unknown task '{name}': use {', '.join(TASKS)} or a .jsonl file of id, question, "
            "answer, grader."
        )
    module, function = TASKS[name].split(":")
    load: Callable[[str], list[Problem]] = getattr(import_module(module), function)
    return load(split)
