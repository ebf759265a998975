"""What an engine was shown, and what would be trained: the two must agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from eapo_agents.policy.engine import Completion
from eapo_agents.policy.scripted import ScriptedEngine
from eapo_agents.types import Trajectory
from trainers.rows import trajectory_rows

Pair = tuple[tuple[int, ...], tuple[int, ...]]
"""(context, completion)"""


class KnowingEngine(ScriptedEngine):
    """Follows a script, and keeps what it was shown and what it wrote."""

    def __init__(self, *script: Any) -> None:
        super().__init__(*script)
        self.seen: list[Pair] = []

    async def generate(self, prompt_ids: Any, *args: Any, **more: Any) -> Completion:
        found = await super().generate(prompt_ids, *args, **more)
        self.seen.append((tuple(prompt_ids), found.completion_ids))
        return replace(found, logprobs=(-0.5,) * len(found.completion_ids))


def trained(trajectory: Trajectory) -> list[Pair]:
    """Return every (context, completion) that the rows of a trajectory train."""
    found: list[Pair] = []
    for row in trajectory_rows(trajectory, advantage=1.0):
        ids, first = (*row.prompt_ids, *row.completion_ids_T), len(row.prompt_ids)
        mask = (*row.mask_T, 0)
        begun = None
        for at, bit in enumerate(mask):
            if bit and begun is None:
                begun = at
            elif not bit and begun is not None:
                found.append((ids[: first + begun], ids[first + begun : first + at]))
                begun = None
    return found
