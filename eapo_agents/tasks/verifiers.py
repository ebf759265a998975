"""Environments of verifiers as tasks: `verifiers:NAME`, with the environment's own reward.

The environment runs in a process of its own, by an interpreter of the user's choice, because what
verifiers and its environments need seldom fits what a trainer needs. `verifiers_worker.py` is what
runs there.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, NamedTuple

from eapo_agents.errors import GradingError, TaskError, UndecidedError, UsageError
from eapo_agents.grading import Grade
from eapo_agents.secrets import read_key
from eapo_agents.tasks import verifiers_worker
from eapo_agents.tasks.environment_options import read_options, said
from eapo_agents.tasks.files import Numbered
from eapo_agents.types import Problem

PREFIX = "verifiers:"
GRADER = "eapo_agents.tasks.verifiers:graded"
_DEFAULTS: Mapping[str, Any] = {
    "python": None,
    "env": [],
    "args": {},
    "size": 1000,
    "solved": 1.0,
}
_LOAD_S = 600.0
"""An environment may fetch its data first."""
SCORE_S = 120.0
"""Time limit of one score: a judge may be asked for it."""


class Earned(NamedTuple):
    """What an environment gives for an answer."""

    reward: float
    parts: Mapping[str, float]
    """By the names of its reward functions, weighed; their sum is the reward."""


class LostError(Exception):
    """The environment's process ended, or did not answer in time and was ended."""


def read_environment(name: str, options: Mapping[str, Any]) -> Iterator[Numbered]:
    """Yield an environment's problems; equal questions once.

    Args:
        options: `python` (the interpreter that has verifiers; by default ours), `env` (names of
            environment variables that it gets beside PATH and HOME), `args` (what the environment
            takes), `size` (at most so many problems of each split, 1,000) and `solved` (the reward
            from which on an answer is right, 1).

    Raises:
        TaskError: there is no such environment, or it is of a kind that is not supported.
    """
    environment = name.removeprefix(PREFIX)
    settings = _settings(name, options)
    try:
        rows = _worker(environment, settings).rows
    except LostError as error:
        raise TaskError(f"The environment of '{name}' could not be loaded: {error}.") from error
    if not rows:
        raise TaskError(f"The environment of '{name}' has no problems.")
    seen = set()
    for number, row in enumerate(rows):
        if row["question"] in seen:
            continue
        seen.add(row["question"])
        yield (
            f"Problem {number} of '{name}'",
            {
                "id": f"{environment}/{number}",
                "question": row["question"],
                "answer": row["answer"] or "what the environment rewards",
                "grader": GRADER,
                "environment": environment,
                "options": settings,
                "number": number,
                **({"split": row["split"]} if row["split"] else {}),
            },
        )


def graded(text: str, problem: Problem) -> Grade:
    """Score a text by the problem's environment: `solved` and more is 1, less its share of that.
    What could not be scored is undecided."""
    if not text.strip():
        return Grade(score=0.0, formatted=False)
    try:
        earned = _earned(text, problem)
    except UndecidedError as error:
        return Grade(score=0.0, formatted=False, undecided=True, note=str(error))
    share = max(0.0, earned.reward / problem.metadata["options"]["solved"])
    return Grade(
        score=min(1.0, share), formatted=share > 0, extracted=text, details=dict(earned.parts)
    )


def reward(answer: str | None, problem: Problem) -> tuple[Mapping[str, float] | float, bool]:
    """Return what the environment pays, by parts, whatever its size and sign, and whether that is
    right: the reward `environment`."""
    if problem.grader != GRADER:
        raise GradingError("the reward 'environment' is that of a task 'verifiers:NAME'")
    if not (answer or "").strip():
        return 0.0, False
    earned = _earned(answer or "", problem)
    return earned.parts, earned.reward >= problem.metadata["options"]["solved"]


def _settings(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options, checked."""
    found = read_options(name, options, _DEFAULTS, inner="args")
    env = found["env"]
    if not isinstance(env, list | tuple) or not all(isinstance(one, str) for one in env):
        raise TaskError(f"task.options.env of '{name}' is a list of names, got {env!r}.")
    return found


def _earned(text: str, problem: Problem) -> Earned:
    """Ask the environment.

    Raises:
        UndecidedError: it gave no score.
    """
    asked = {"number": problem.metadata["number"], "question": problem.question, "text": text}
    try:
        found = _ask(problem.metadata["environment"], problem.metadata["options"], asked)
    except (LostError, TaskError) as error:
        raise _undecided(problem, str(error)) from error
    if "error" in found:
        raise _undecided(problem, said(found["error"]))
    return Earned(found["reward"], found["parts"])


def _ask(name: str, settings: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer to a request; where it came too late or its process ended, that of a second
    process, which has nothing else to do then: one answer that hangs holds up all that are scored
    beside it, and which of them it was cannot be seen."""
    try:
        return _worker(name, settings).ask(asked, SCORE_S)
    except LostError:
        with _alone:
            return _worker(name, settings, is_second=True).ask(asked, SCORE_S)


def _undecided(problem: Problem, why: str) -> UndecidedError:
    return UndecidedError(
        f"The environment '{problem.metadata['environment']}' gave no score for problem "
        f"'{problem.id}': {why.rstrip('.')}."
    )


class _Worker:
    """The process in which one environment runs."""

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        what = f"The environment of '{PREFIX}{name}'"
        kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        given = {key: read_key(key, wanted_by=what) for key in settings["env"]}
        python = os.path.expanduser(str(settings["python"] or sys.executable))
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the process
        try:
            self._process = subprocess.Popen(
                [python, verifiers_worker.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**kept, **given, "PYTHONUNBUFFERED": "1"},
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            raise TaskError(
                f"task.options.python of '{PREFIX}{name}' must be a Python interpreter that has "
                f"verifiers, and '{python}' cannot be run: {error.strerror}."
            ) from error
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self._next = 0
        self.is_lost = False
        self._owner = os.getpid()
        threading.Thread(target=self._read, daemon=True).start()
        found = self.ask(
            {
                "name": name,
                "arguments": dict(settings["args"]),
                "size": settings["size"],
            },
            _LOAD_S,
        )
        if "error" in found:
            self.end()
            raise TaskError(
                f"'{PREFIX}{name}' cannot be a task: {said(found['error']).rstrip('.')}. See "
                "verifiers in docs/tasks.md."
            )
        self.rows: list[dict[str, Any]] = found["rows"]

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Return the answer to a request. Several threads may ask at once.

        Raises:
            LostError: the process ended, or did not answer in time and was ended.
        """
        assert self._process.stdin is not None
        answer: Future[dict[str, Any]] = Future()
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._waiting[number] = answer
            try:
                self._process.stdin.write(json.dumps({**request, "id": number}, default=str) + "\n")
                self._process.stdin.flush()
            except (OSError, ValueError) as error:  # ValueError: it is closed
                self.is_lost = True
                raise LostError(f"its process ended{self._last_words()}") from error
            if self.is_lost:  # it ended just now, and nobody would answer
                raise LostError(f"its process ended{self._last_words()}")
        try:
            return answer.result(timeout_s)
        except FutureTimeout as error:
            self.end()
            raise LostError(f"it did not answer in {timeout_s:g} s") from error

    def end(self) -> None:
        """End the process, which is another one's in a child that was forked."""
        self.is_lost = True
        if os.getpid() != self._owner:
            return
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        """Give each answer to who waits for it; at the end tell all others that none will come."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            found = json.loads(line)
            with self._lock:
                waiting = self._waiting.pop(found["id"], None)
            if waiting is not None:
                waiting.set_result(found)
        with self._lock:
            self.is_lost = True
            left, self._waiting = list(self._waiting.values()), {}
        self._process.wait()
        for waiting in left:
            waiting.set_exception(LostError(f"its process ended{self._last_words()}"))

    def _last_words(self) -> str:
        """Return the last line that the process wrote to standard error."""
        size = os.fstat(self._errors.fileno()).st_size
        text = os.pread(self._errors.fileno(), 4000, max(0, size - 4000)).decode(errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        return f" ({said(lines[-1])})" if lines else ""


_workers: dict[str, _Worker] = {}
_starting = threading.Lock()
_alone = threading.Lock()


def _worker(name: str, settings: Mapping[str, Any], *, is_second: bool = False) -> _Worker:
    """Return the process of an environment, started where there is none.

    Raises:
        TaskError: it cannot be a task.
        LostError: it ended while it loaded.
    """
    kind = {key: one for key, one in settings.items() if key != "solved"}
    key = json.dumps([os.getpid(), name, kind, is_second], sort_keys=True, default=str)
    with _starting:
        found = _workers.get(key)
        if found is None or found.is_lost:
            try:
                found = _workers[key] = _Worker(name, settings)
            except UsageError as error:  # a key that is not set, beside ours
                raise error if isinstance(error, TaskError) else TaskError(str(error)) from error
        return found


@atexit.register
def _end_all() -> None:
    for worker in _workers.values():
        worker.end()
