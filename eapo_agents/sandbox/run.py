"""Tests a sample's code: calls its function on inputs, or runs a test program against it. The
verdict is always reached outside the sandbox, from plain data."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from eapo_agents.errors import GradingError
from eapo_agents.sandbox.pool import (
    Deadline,
    DeadlineError,
    ProcessEndedError,
    Sandbox,
    SandboxedProcess,
    StarvedError,
)

READY = b'{"!":"ready"}'
_NO_VALUE = b'{"!"'
LOST = "its process ended before it was done"
"""Detail of a sample whose process is gone: its own doing, a limit, or a machine out of memory."""
GRACE_S = 2.0
"""Time beyond a job's own limits, before the harness ends it."""


class Verdict(StrEnum):
    """The result of a test."""

    PASSED = "passed"
    FAILED = "failed"
    """A wrong result, an exception, or a process that a limit ended."""
    TIMED_OUT = "timed out"
    UNDECIDED = "undecided"
    """The machine gave it no time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A function to test."""

    code: str
    entry_point: str
    withheld: tuple[str, ...] = ()
    """Builtins that the upstream harness removes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Argument lists, as `inside.values` writes them, with a time limit per call."""

    texts: Sequence[str]
    limits_s: Sequence[float]
    total_s: float
    """Time limit for all calls together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A verdict and its reason."""

    verdict: Verdict
    detail: str = ""
    """For people. The sample may have written it, so it is untrusted."""

    @property
    def passed(self) -> bool:
        """Whether the sample is right."""
        return self.verdict is Verdict.PASSED


Accepts = Callable[[int, bytes], bool]
"""(index of the input, line of the returned value) -> whether the value is right."""


def run_inputs(
    sandbox: Sandbox,
    sample: Sample,
    sets: Sequence[tuple[Inputs, Accepts]],
    *,
    brief: bool = False,
) -> list[Outcome]:
    """Call the sample's function on each set of inputs, and load the code again for each set.

    A set ends at the first call that raises or whose value is not right.

    Args:
        brief: values come as `inside.values.brief_text` writes them: long ones as a digest.
    """
    outcomes: list[Outcome] = []
    with sandbox.slot():
        while len(outcomes) < len(sets):
            # one process takes the sets in turn until it is lost; another takes those that are left
            with _ended_as(outcomes), sandbox.worker() as process:
                process.send(_message(sample), Deadline(GRACE_S))
                for inputs, accepts in sets[len(outcomes) :]:
                    message = {**_inputs_message(inputs), "brief": brief}
                    outcome, usable = _run_set(process, inputs, accepts, message)
                    outcomes.append(outcome)
                    if not usable:
                        break
    return outcomes


def reference_values(
    sandbox: Sandbox,
    sample: Sample,
    texts: Sequence[str],
    limit_s: float,
    *,
    while_one_waits: bool = False,
) -> tuple[list[str], list[float]]:
    """Return a correct solution's values for the inputs, as lines, and its seconds for each.

    Args:
        while_one_waits: the caller is deciding about a sample, and holds that sample's slot: a
            second one might never come.

    Raises:
        GradingError: it raises, or is not done in time, and so cannot be a reference.
    """
    inputs = Inputs(texts=texts, limits_s=[limit_s] * len(texts), total_s=limit_s)
    try:
        slot = contextlib.nullcontext() if while_one_waits else sandbox.slot()
        with slot, sandbox.worker() as process:
            deadline = Deadline(limit_s)
            deadline.count(process)
            process.send(_message(sample), deadline)
            process.send({**_inputs_message(inputs), "timed": True}, deadline)
            lines = [process.line(deadline) for _ in range(len(texts) + 1)]
            times = json.loads(lines.pop())["seconds"]
            if len(times) != len(texts):
                raise ProcessEndedError
    except (ProcessEndedError, DeadlineError, KeyError) as error:
        raise GradingError(
            f"The reference solution of '{sample.entry_point}' does not run to its end in "
            f"{limit_s:.0f} s: check that the benchmark's file is upstream's own."
        ) from error
    return [line.decode("ascii") for line in lines], times


def run_program(
    sandbox: Sandbox, sample: Sample, *, prompt: str, test: str, limit_s: float
) -> Outcome:
    """Run a test program's `check` against the sample's function, each in a separate sandbox.

    Args:
        prompt: code that the test may use, run beside the test.
        test: defines `check(candidate)`.
        limit_s: time for everything, without what it waits for a core.
    """
    outcomes: list[Outcome] = []
    with sandbox.slot(), _ended_as(outcomes), sandbox.worker() as candidate:
        deadline = Deadline(limit_s)
        deadline.count(candidate)
        candidate.send({**_message(sample), "tests": f"\n{prompt}\n{test}"}, deadline)
        candidate.send({"load": limit_s}, deadline)
        if (line := candidate.line(deadline)) != READY:
            outcomes.append(Outcome(verdict=Verdict.FAILED, detail=f"raised {_error(line)}"))
        else:
            with contextlib.ExitStack() as held:
                with deadline.paused():
                    checker = held.enter_context(sandbox.checker())
                deadline.count(checker)
                program = {"prompt": prompt, "test": test, "entry_point": sample.entry_point}
                checker.send(program, deadline)
                outcomes.append(_relay(checker, candidate, deadline))
    return outcomes[0]


def _relay(checker: SandboxedProcess, candidate: SandboxedProcess, deadline: Deadline) -> Outcome:
    """Carry messages between the two, who take turns, until the test program has decided."""
    while True:
        line = checker.line(deadline)
        if line.startswith(_NO_VALUE):
            message = json.loads(line)
            if message["!"] == "passed":
                return Outcome(verdict=Verdict.PASSED)
            return Outcome(verdict=Verdict.FAILED, detail=str(message["error"])[:200])
        candidate.send_line(line, deadline)
        checker.send_line(candidate.line(deadline), deadline)


def _message(sample: Sample) -> dict[str, object]:
    return {
        "code": sample.code,
        "entry_point": sample.entry_point,
        "withheld": list(sample.withheld),
        "tests": "",
    }


def _inputs_message(inputs: Inputs) -> dict[str, object]:
    return {"inputs": list(inputs.texts), "limits_s": list(inputs.limits_s)}


@contextlib.contextmanager
def _ended_as(outcomes: list[Outcome]) -> Iterator[None]:
    """Turn a process that is lost, or silent for too long, into the sample's outcome."""
    try:
        yield
    except ProcessEndedError:
        outcomes.append(Outcome(verdict=Verdict.FAILED, detail=LOST))
    except StarvedError:
        outcomes.append(Outcome(verdict=Verdict.UNDECIDED, detail="the machine gave it no time"))
    except DeadlineError:
        outcomes.append(Outcome(verdict=Verdict.TIMED_OUT, detail="it took too long"))


def _run_set(
    process: SandboxedProcess, inputs: Inputs, accepts: Accepts, message: Mapping[str, object]
) -> tuple[Outcome, bool]:
    """Return the outcome of one set, and whether the process can take another set."""
    deadline = Deadline(inputs.total_s + GRACE_S)
    deadline.count(process)
    process.send(message, deadline)
    for index in range(len(inputs.texts)):
        line = process.line(deadline)
        if line.startswith(_NO_VALUE):
            detail = _error(line)
            process.line(deadline)  # "ready"
            return Outcome(verdict=Verdict.FAILED, detail=f"raised {detail}"), True
        if not accepts(index, line):
            return Outcome(verdict=Verdict.FAILED, detail=f"wrong for input {index}"), False
    process.line(deadline)
    return Outcome(verdict=Verdict.PASSED), True


def _error(line: bytes) -> str:
    try:
        message = json.loads(line)
        return str(message["error"])[:200]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "something unreadable"
