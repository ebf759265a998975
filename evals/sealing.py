"""Seals trajectories of benchmarks whose text must not be stored as plain text (GPQA).

This is not encryption: the key is here. It keeps the text out of crawls, searches and screenshots,
as upstream's own password does. Saved answers can still be graded again.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from dataclasses import replace

from eapo_agents.errors import StoreError
from eapo_agents.types import Problem, Trajectory

MARK = "sealed:"
_KEY = b"eapo-agents: not to be read by crawlers"


def seal(trajectory: Trajectory) -> Trajectory:
    """Return the trajectory without tokens, with every text of problem and answer sealed."""
    problem = trajectory.problem
    return replace(
        trajectory,
        problem=Problem(
            id=problem.id,
            question=seal_text(problem.question),
            answer=seal_text(problem.answer),
            grader=problem.grader,
        ),
        turns=tuple(
            replace(t, context_ids=(), completion_ids=(), logprobs=None, text=seal_text(t.text))
            for t in trajectory.turns
        ),
        answer=None if trajectory.answer is None else seal_text(trajectory.answer),
        error=None if trajectory.error is None else seal_text(trajectory.error),
    )


def seal_text(text: str) -> str:
    """Return a text sealed and marked."""
    data = zlib.compress(text.encode("utf-8", "surrogatepass"))
    return MARK + base64.b85encode(_mixed(data)).decode()


def open_text(text: str) -> str:
    """Return the text that was sealed; a text without the mark as it is.

    Raises:
        StoreError: the text has the mark but is damaged.
    """
    if not text.startswith(MARK):
        return text
    try:
        data = _mixed(base64.b85decode(text.removeprefix(MARK)))
        return zlib.decompress(data).decode("utf-8", "surrogatepass")
    except (ValueError, zlib.error) as error:
        raise StoreError(f"A sealed text in the store is damaged: {error}.") from error


def _mixed(data: bytes) -> bytes:
    stream = b"".join(
        hashlib.sha256(_KEY + number.to_bytes(8, "big")).digest()
        for number in range(len(data) // 32 + 1)
    )
    return bytes(a ^ b for a, b in zip(data, stream, strict=False))
