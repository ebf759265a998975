"""Tasks: where problems come from."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from eapo_agents.errors import TaskError
from eapo_agents.registry import Registry, did_you_mean
from eapo_agents.schedules import counter_key, counter_uniform
from eapo_agents.tasks.files import ENDINGS, is_file, stem_of
from eapo_agents.tasks.records import (
    AS_THEY_ARE,
    Reading,
    problems_of,
    read_problems,
    split_of,
)
from eapo_agents.types import Problem

Load = Callable[[str], list[Problem]]
"""Split -> its problems."""

TASKS = Registry[Load](
    "task",
    {
        "arithmetic": "eapo_agents.tasks.arithmetic:problems",
        "gsm8k": "eapo_agents.tasks.gsm8k:problems",
    },
    accept=lambda found: cast(Load, found) if callable(found) else None,
    rule="a function from a split ('train', 'heldout' or 'all') to a list of problems",
    error=TaskError,
)
"""Ours. Any other name is a file, a data set of the hub, a family of reasoning-gym, an environment
of Gymnasium, OpenEnv or verifiers, or `package.module:object`."""
NAMED = {
    "dapo-math": ("dapo_math/*.jsonl", "hub:open-r1/DAPO-Math-17k-Processed/en", "math"),
    "hotpotqa": ("hotpotqa/hotpot_*.json", "hub:hotpotqa/hotpot_qa/distractor", "hotpotqa"),
    "humaneval": ("humaneval/HumanEval.jsonl.gz", "hub:openai/openai_humaneval", "humaneval"),
    "mbpp": ("mbpp/mbpp*.jsonl", "hub:google-research-datasets/mbpp/full", "mbpp"),
    "mmlu": ("mmlu/*.parquet", "hub:cais/mmlu/all", "choice"),
}
"""Data sets that are known: where EAPO_DATA has them, where the hub has them, and their form."""
WITH_OPTIONS = {
    "reasoning-gym:": "eapo_agents.tasks.reasoning:read_family",
    "gymnasium:": "eapo_agents.tasks.environments:read_environment",
    "openenv:": "eapo_agents.tasks.openenv:read_environment",
    "verifiers:": "eapo_agents.tasks.verifiers:read_environment",
}
"""Begin the names of tasks that take `task.options`, and what reads their problems:
(name, options) -> records."""
SPLITS = ("train", "heldout", "all")
HELD_OUT_SHARE = 0.1
"""Of a source that does not say which problems are held out."""


def load_problems(
    name: str,
    *,
    split: str,
    limit: int | None = None,
    seed: int = 0,
    held_out: float | str = HELD_OUT_SHARE,
    allow_overlap: bool = False,
    reading: Reading = AS_THEY_ARE,
    options: Mapping[str, Any] | None = None,
) -> list[Problem]:
    """Return a task's problems in an order that `seed` decides, or the first `limit` of them.

    Args:
        name: `arithmetic`, `gsm8k`, a file, `hub:owner/name`, `reasoning-gym:family`,
            `gymnasium:ID`, `openenv:URL`, `verifiers:NAME` or `package.module:object`.
        split: `train`, `heldout` or `all`.
        held_out: a file that is the held-out split, whatever the task; or the share of a source
            that is held out where it says no split. A hash of the question decides, so a problem's
            side depends on nothing but itself.
        allow_overlap: whether a problem may be in both splits.
        reading: how records are read.
        options: of a family of reasoning-gym, or of an environment.

    Raises:
        TaskError: unknown task or split, unreadable data, no problems, fewer than `limit`, or
            problems that are in both splits.
    """
    if split not in SPLITS:
        raise TaskError(f"Unknown split '{split}': use one of {', '.join(SPLITS)}.")
    source = _Source(name, held_out, reading, options or {})
    found = source.split(split)
    if not found:
        raise TaskError(
            f"The task '{name}' has no problems in its split '{split}': give it some. Of a source "
            "without splits, task.held_out is the share that is held out, or a second file with "
            "what is."
        )
    if split != "all" and not allow_overlap and not source.is_known_to_be_apart:
        where = f"the task '{name}', in its splits 'train' and 'heldout',"
        refuse_overlap(found, source.other(split), where)
    found.sort(key=lambda problem: counter_key("order", seed, problem.id))
    if limit is not None and limit > len(found):
        raise TaskError(
            f"The task '{name}' has {len(found)} problems in its split '{split}', and {limit} "
            "were asked for: "
            "ask for fewer."
        )
    return found[:limit]


def refuse_overlap(problems: Sequence[Problem], others: Sequence[Problem], where: str) -> None:
    """Raise TaskError if problems that are trained on and those that are held out have the same id,
    or the same question but for case, white space and the way in which a character is written.

    Args:
        where: what both are in.
    """
    ids, questions = {p.id for p in others}, {_plain(p.question) for p in others}
    both = [p.id for p in problems if p.id in ids or _plain(p.question) in questions]
    if both:
        raise TaskError(
            f"No problem may be both trained on and evaluated, and {len(both)} of "
            f"{where} are (the first is '{both[0]}'): take "
            "them out of one, or set task.allow_overlap=true."
        )


def _plain(question: str) -> str:
    """Return a question as it is compared: full-width letters, composed accents and the like are
    one, and characters that nobody sees are none."""
    if not question.isascii():
        question = unicodedata.normalize("NFKC", question)
        question = "".join(c for c in question if unicodedata.category(c) != "Cf")
    return " ".join(question.casefold().split())


def is_known(name: str) -> bool:
    """Return whether a name is that of a task, and not of a user's object."""
    return (
        name in TASKS or name in NAMED or is_file(name) or name.startswith(("hub:", *WITH_OPTIONS))
    )


def short_name(task: str) -> str:
    """Return what a task is called in results: `problems` for `data/problems.jsonl`."""
    return stem_of(task) if is_file(task) and ":" not in task else task


class _Source:
    """A task's problems, read once where the source is one."""

    def __init__(
        self, name: str, held_out: float | str, reading: Reading, options: Mapping[str, Any]
    ) -> None:
        self.name, self._held_out = name, held_out
        self._reading, self._options = reading, options
        if options and not name.startswith(tuple(WITH_OPTIONS)):
            kinds = ", ".join(prefix[:-1] for prefix in WITH_OPTIONS)
            raise TaskError(f"task.options are those of {kinds}, and '{name}' takes none.")
        self._all: list[Problem] | None = None

    @property
    def is_known_to_be_apart(self) -> bool:
        """Whether its splits are known to share nothing."""
        return self.name in TASKS and not isinstance(self._held_out, str)

    def split(self, split: str) -> list[Problem]:
        """Return a split in the task's own order."""
        if not isinstance(self._held_out, str):
            return self._own(split, self._held_out)
        trained = self._own("train", 0.0) if split != "heldout" else []
        if split == "train":
            return trained
        return [*trained, *read_problems(self._held_out, self._reading)]

    def other(self, split: str) -> list[Problem]:
        """Return the split to compare with; nothing where the task does not have it."""
        try:
            return self.split("heldout" if split == "train" else "train")
        except TaskError:
            if isinstance(self._held_out, str):
                raise
            return []

    def _own(self, split: str, share: float) -> list[Problem]:
        """Return a split without a second file."""
        name = self.name
        if name in TASKS:
            return list(TASKS.find(name)(split))
        if self._all is None:
            self._all, knows_splits = self._read(split)
            if knows_splits:
                found, self._all = self._all, None
                return found
        return [p for p in self._all if split in ("all", _side(p, share))]

    def _read(self, split: str) -> tuple[list[Problem], bool]:
        """Return the problems of a split, and whether the source knows splits: else all."""
        name, reading = self.name, self._reading
        if name in NAMED:
            name, form = _where(name)
            reading = replace(reading, form=form)
        if name.startswith("hub:"):
            from eapo_agents.tasks.hub import read_hub

            return problems_of(read_hub(name), f"'{name}'", name, reading), False
        for prefix, reader in WITH_OPTIONS.items():
            if name.startswith(prefix):
                module, _, function = reader.partition(":")
                records = getattr(import_module(module), function)(name, self._options)
                return problems_of(records, f"'{name}'", name, reading), False
        if is_file(name):
            return read_problems(name, reading), False
        if ":" not in name:
            raise TaskError(
                f"Unknown task '{name}'. {did_you_mean(name, [*TASKS, *NAMED])}Use "
                f"{', '.join([*TASKS, *NAMED])}, a file "
                f"({', '.join(ENDINGS)}) of id, question, answer, grader, hub:owner/name, "
                "reasoning-gym:family, gymnasium:ID, openenv:URL, verifiers:NAME, or your own as "
                "package.module:object."
            )
        from eapo_agents.tasks.own import own_problems

        return own_problems(name, split, reading)


def _where(name: str) -> tuple[str, str]:
    """Return the file or the hub's name of a known data set, and the form of its records."""
    pattern, hub, form = NAMED[name]
    folder = os.environ.get("EAPO_DATA")
    there = sorted(Path(folder).glob(pattern)) if folder else []
    return (str(there[0]) if there else hub), form


def _side(problem: Problem, share: float) -> str:
    """Return the split of a problem whose source knows none, by its record or by a hash."""
    return split_of(problem) or (
        "heldout" if counter_uniform("heldout", _plain(problem.question)) < share else "train"
    )
