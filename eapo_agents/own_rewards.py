"""Rewards of a user's own: in which forms they are called, in time, and what they may return.

def reward(answer, problem): ...                      # also async, also without `problem`
def reward(answer, problem, trajectory): ...          # None where only an answer is at hand
def reward(prompts, completions, **columns): ...      # TRL's, called with one completion
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from eapo_agents.errors import GradingError, UndecidedError, UsageError
from eapo_agents.registry import describe
from eapo_agents.threads import LoopThread, in_thread
from eapo_agents.types import Problem, Trajectory

_NO_PARTS: Mapping[str, float] = MappingProxyType({})


class Value(NamedTuple):
    """What a reward gives for one answer."""

    number: float | None
    """None where it gives no score."""
    right: bool | None
    """Whether the answer is right; None where it does not say."""
    parts: Mapping[str, float] = _NO_PARTS
    """Its parts by name, before they are weighed; none where it is one number."""


Score = Callable[[str | None, Problem, Trajectory | None], Awaitable[Value]]
_OURS = ("answer", "problem", "trajectory")
_OTHERS = {"prompt", "completion", "state", "solution_str", "ground_truth", "info", "parser"}
"""Arguments of other libraries' rewards, which mean something else than ours in their places."""
_TRL = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")


def own_reward(
    name: str,
    function: Callable[..., object],
    *,
    timeout_s: float,
    weights: Mapping[str, float],
    system_prompt: str,
) -> Score:
    """Return a user's function in the one form in which rewards are asked.

    Raises:
        UsageError: its arguments are of no form that is known.
    """
    names = _names_of(function)
    is_trl = "completions" in names
    arguments: Arguments = (
        partial(_trl_arguments, names, system_prompt) if is_trl else _arguments_of(name, function)
    )

    async def score(text: str | None, problem: Problem, trajectory: Trajectory | None) -> Value:
        try:
            found = await _in_time(function, arguments(text, problem, trajectory), timeout_s)
            found = _only(found) if is_trl else found
            return _value(found, weights)
        except TimeoutError as error:
            what = f"took longer than task.reward_timeout_s ({timeout_s:g} s)"
            raise _undecided(name, problem, what) from error
        except Exception as error:  # a user's function may raise anything
            said = str(error) if isinstance(error, GradingError) else _named(error)
            raise _undecided(name, problem, f"failed: {said}") from error

    return score


def _undecided(name: str, problem: Problem, what: str) -> UndecidedError:
    return UndecidedError(f"The reward '{name}' {what.rstrip('.')}, on problem '{problem.id}'.")


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


Arguments = Callable[[str | None, Problem, Trajectory | None], tuple[list[Any], dict[str, Any]]]


_ALL = "**"
"""Stands for all further names, in a function's."""


def _names_of(function: Callable[..., object]) -> list[str]:
    """Return the names of a function's arguments; none where it has no signature."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C
        return []
    return [_ALL if p.kind is p.VAR_KEYWORD else p.name for p in parameters]


def _arguments_of(name: str, function: Callable[..., object]) -> Arguments:
    """Return what makes a function's arguments: by their names where it uses ours, else in the
    order answer, problem, trajectory."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # written in C: it has no signature
        return lambda text, problem, trajectory: ([text, problem], {})
    placed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    by_name = [p.name for p in parameters if p.name in _OURS and p.kind is not p.POSITIONAL_ONLY]
    required = [p for p in parameters if p.default is p.empty and p.kind not in _VARIADIC]
    if any(name in _OURS[1:] for name in by_name):
        unknown = [p.name for p in required if p.name not in by_name]
        if by_name and not unknown:
            return lambda *given: (
                [],
                {key: value for key, value in zip(_OURS, given, strict=True) if key in by_name},
            )
    wanted = [p for p in placed if p.default is p.empty] or placed[:2]
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    count = 2 if variadic else len(wanted)
    others = {p.name for p in parameters} & _OTHERS or "answer" in [p.name for p in parameters[1:]]
    if others or not 1 <= count <= 3 or any(p.kind is p.KEYWORD_ONLY for p in required):
        takes = ", ".join(_names_of(function))
        raise UsageError(
            f"The reward '{name}' must take (answer, problem), (answer, problem, trajectory) or "
            f"TRL's (prompts, completions, **columns), and takes ({takes})."
        )
    return lambda *given: (list(given[:count]), {})


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _trl_arguments(
    names: list[str],
    system_prompt: str,
    text: str | None,
    problem: Problem,
    trajectory: Trajectory | None,
) -> tuple[list[Any], dict[str, Any]]:
    """Return what TRL gives a reward function: lists of one, in its conversational form. Columns
    are the problem's parts and its metadata; `solution` is the gold answer where there is none."""
    prompt = [{"role": "system", "content": system_prompt}] if system_prompt else []
    prompt.append({"role": "user", "content": problem.question})
    columns: dict[str, Any] = {
        "id": problem.id,
        "question": problem.question,
        "answer": problem.answer,
        "solution": problem.answer,
        **problem.metadata,
    }
    given: dict[str, Any] = {key: [value] for key, value in columns.items() if key not in _TRL}
    turns = trajectory.turns if trajectory is not None else ()
    given |= {
        "prompts": [prompt],
        "completions": [[{"role": "assistant", "content": text or ""}]],
        "completion_ids": [list(turns[-1].completion_ids) if turns else []],
        "trainer_state": None,
        "log_extra": lambda *args, **more: None,
        "log_metric": lambda *args, **more: None,
    }
    return [], {key: one for key, one in given.items() if _ALL in names or key in names}


def _only(found: object) -> object:
    if not isinstance(found, list | tuple) or len(found) != 1:
        raise GradingError(
            f"a function in TRL's form returns a list with one reward a completion, got {found!r}"
        )
    return found[0]


def _value(found: object, weights: Mapping[str, float]) -> Value:
    """Return what a function returned, checked and added up."""
    value, right = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    parts = _NO_PARTS
    if isinstance(value, Mapping):
        parts = {str(key): _number(part, str(key)) for key, part in value.items()}
        number = sum(weights.get(key, 1.0) * part for key, part in parts.items())
    elif value is None:
        return Value(None, None)
    else:
        number = _number(value, "reward")
    return Value(number, number >= 1 if right is None else bool(right), parts)


def _number(value: Any, what: str) -> float:
    if hasattr(value, "item") and getattr(value, "size", 1) in (1, ()):  # of numpy or torch
        with suppress(Exception):
            value = value.item()
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise GradingError(
            "it must return a finite number, a mapping of them, None for no score, or one of these "
            f"with whether the answer is right, and its {what} is {describe(value)} ({value!r})"
        )
    return float(value)


_LOOP = LoopThread()
"""Where all asynchronous functions run, with their clients."""


async def _in_time(
    function: Callable[..., object], given: tuple[list[Any], dict[str, Any]], timeout_s: float
) -> object:
    """Call a function in a thread, so that one that hangs costs no more than the time limit."""
    args, more = given

    def call() -> object:
        result = function(*args, **more)
        return _LOOP.run(lambda: _awaited(result)) if inspect.isawaitable(result) else result

    reply = asyncio.ensure_future(in_thread(call))
    # the function's own TimeoutError is a failure like any other
    done, _ = await asyncio.wait([reply], timeout=timeout_s)
    if not done:
        reply.cancel()
        raise TimeoutError
    if isinstance(error := reply.exception(), TimeoutError):
        raise RuntimeError(f"TimeoutError: {error}") from error
    return reply.result()


async def _awaited(result: Awaitable[object]) -> object:
    return await result
