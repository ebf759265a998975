"""Where in a LangGraph run a completion is asked for, and an order of completions that does not
depend on when they come.

LangGraph names each task by its path through the graphs (`outer:<id>|inner:<id>`). The ids differ
from run to run. The checkpoint that a task starts from tells its step, at each level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from langchain_core.runnables.config import var_child_runnable_config

T = TypeVar("T")
_STEPS = 1 << 14
"""LangGraph keeps a checkpoint's step in so many values of its id, and begins at -2."""


@dataclass(frozen=True, slots=True)
class Level:
    """A task of one graph."""

    call: int
    """Which graph it is of those that the task around it has called, from 0."""
    step: int
    node: str
    task: str
    """Differs from run to run."""


Place = tuple[Level, ...]


def current_place() -> Place | None:
    """Return the place of the code that runs; None where LangGraph does not tell."""
    settings = (var_child_runnable_config.get() or {}).get("configurable", {})
    names = str(settings.get("checkpoint_ns") or "")
    checkpoints = settings.get("checkpoint_map")
    if not names or not isinstance(checkpoints, dict):
        return None
    found: list[Level] = []
    around: list[str] = []
    call = 0
    try:
        for part in names.split("|"):
            if part.isdigit():
                call = int(part)
                around.append(part)
                continue
            step = (UUID(checkpoints["|".join(around)]).clock_seq + 2) % _STEPS
            node, _, task = part.rpartition(":")
            found.append(Level(call, step, node, task))
            around.append(part)
            call = 0
    except (KeyError, ValueError):  # a version of LangGraph that says it in another way
        return None
    return tuple(found)


def named(place: Place | None) -> list[tuple[int, int, str]]:
    """Return what of a place is the same in every run."""
    return [(level.call, level.step, level.node) for level in place or ()]


def in_order(
    items: Sequence[T], place_of: Callable[[T], Place | None], name_of: Callable[[T], str]
) -> list[T]:
    """Return the items, given in the order in which they began, in an order that is the same in
    every run: by steps of the graph, within a step by the nodes' names, and within a task as they
    began. Tasks of one node in one step go by the name of what they began with.

    Where a place is not known, the order stays as it is.
    """
    if any(place_of(item) is None for item in items):
        return list(items)

    def of_task(inside: Sequence[T], depth: int) -> list[T]:
        units: dict[int, list[T]] = {}
        for number, item in enumerate(inside):
            place = place_of(item) or ()
            # what the task asks for itself is a unit; so is all of a graph that it calls
            nested = len(place) > depth
            units.setdefault(-1 - place[depth].call if nested else number, []).append(item)
        return [
            one
            for key, unit in units.items()
            for one in (of_graph(unit, depth) if key < 0 else unit)
        ]

    def of_graph(inside: Sequence[T], depth: int) -> list[T]:
        tasks: dict[str, list[T]] = {}
        for item in inside:
            tasks.setdefault((place_of(item) or ())[depth].task, []).append(item)

        def rank(task: Sequence[T]) -> tuple[int, str, str]:
            level = (place_of(task[0]) or ())[depth]
            return (level.step, level.node, name_of(task[0]))

        ranked = sorted(tasks.values(), key=rank)
        return [one for task in ranked for one in of_task(task, depth + 1)]

    return of_task(items, 0)
