"""Tasks: where problems come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from eapo_agents.errors import EapoError, TaskError
from eapo_agents.grading import find_grader
from eapo_agents.registry import Registry, did_you_mean
from eapo_agents.schedules import counter_key, counter_uniform
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


HELD_OUT_SHARE = 0.1
"""Of a JSONL file that does not say which problems are held out."""
_BUILT_IN = tuple(TASKS)
"""Their splits are known to share nothing."""


def load_problems(
    name: str,
    *,
    split: str,
    limit: int | None = None,
    seed: int = 0,
    held_out: float | str = HELD_OUT_SHARE,
    allow_overlap: bool = False,
) -> list[Problem]:
    """Return a task's problems in an order that `seed` decides, or the first `limit` of them.

    Args:
        name: `arithmetic`, `gsm8k`, a JSONL file or `package.module:function`.
        split: `train`, `heldout` or `all`.
        held_out: a JSONL file that is the held-out split, whatever the task; or the share of a
            JSONL task that is held out where its lines have no `split`. A hash of the question
            decides, so a problem's side depends on nothing but itself.
        allow_overlap: whether a problem may be in both splits.

    Raises:
        TaskError: unknown task or split, unreadable data, no problems, fewer than `limit`, or
            problems that are in both splits.
    """
    if split not in SPLITS:
        raise TaskError(f"Unknown split '{split}': use one of {', '.join(SPLITS)}.")
    found = _problems(name, split, held_out)
    if not found:
        raise TaskError(
            f"The task '{name}' has no problems in its split '{split}': give it some. Of a JSONL "
            "file, task.held_out is the share that is held out, or a second file with what is."
        )
    if (
        split != "all"
        and not allow_overlap
        and not (name in _BUILT_IN and not isinstance(held_out, str))
    ):
        other = "heldout" if split == "train" else "train"
        refuse_overlap(found, _other_split(name, other, held_out), name)
    found.sort(key=lambda problem: counter_key("order", seed, problem.id))
    if limit is not None and limit > len(found):
        raise TaskError(
            f"The task '{name}' has {len(found)} problems in its split '{split}', and {limit} "
            "were asked for: "
            "ask for fewer."
        )
    return found[:limit]


def refuse_overlap(problems: Sequence[Problem], others: Sequence[Problem], name: str) -> None:
    """Raise TaskError if problems of the two splits have the same id, or the same question but for
    case and white space."""
    ids, questions = {p.id for p in others}, {_plain(p.question) for p in others}
    both = [p.id for p in problems if p.id in ids or _plain(p.question) in questions]
    if both:
        raise TaskError(
            f"No problem may be both trained on and evaluated, and {len(both)} of the task "
            f"'{name}' are in its splits 'train' and 'heldout' (the first is '{both[0]}'): take "
            "them out of one, or set task.allow_overlap=true."
        )


def _plain(question: str) -> str:
    return " ".join(question.casefold().split())


def _other_split(name: str, split: str, held_out: float | str) -> list[Problem]:
    """Return a split to compare with; nothing where the task does not have it."""
    try:
        return _problems(name, split, held_out)
    except TaskError:
        return []


def _of_file(name: str, split: str, share: float) -> list[Problem]:
    """Return a JSONL file's problems of a split."""
    from eapo_agents.tasks.jsonl import read_problems, split_of

    def side(problem: Problem) -> str:
        is_held_out = counter_uniform("heldout", _plain(problem.question)) < share
        return split_of(problem) or ("heldout" if is_held_out else "train")

    return [p for p in read_problems(name) if split in ("all", side(p))]


def _problems(name: str, split: str, held_out: float | str) -> list[Problem]:
    """Return a split in the task's own order."""
    if isinstance(held_out, str):
        from eapo_agents.tasks.jsonl import read_problems

        trained = _problems(name, "train", 0.0) if split != "heldout" else []
        return [*trained, *(read_problems(held_out) if split != "train" else [])]
    if name.endswith(".jsonl"):
        return _of_file(name, split, held_out)
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
