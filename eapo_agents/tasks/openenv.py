"""Environments of OpenEnv as tasks: `openenv:URL`, a problem for each seed.

A server runs the environment; we speak its WebSocket protocol and need no package of OpenEnv's. An
answer is a list of actions, one a line, and is played from the start in a session of its own: what
the environment pays is the score. The tool `try_actions` plays actions in the same way.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx2
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect

from eapo_agents.errors import EapoError, TaskError
from eapo_agents.grading import Grade
from eapo_agents.secrets import read_key
from eapo_agents.tasks.environment_options import read_options, said
from eapo_agents.tasks.environments import Played
from eapo_agents.tasks.files import Numbered
from eapo_agents.types import Problem

PREFIX = "openenv:"
GRADER = "eapo_agents.tasks.openenv:graded"
_DEFAULTS: Mapping[str, Any] = {
    "size": 200,
    "seed": 0,
    "reset": {},
    "solved": 1.0,
    "api_key_env": None,
}
_MOST_ACTIONS = 1000
_ANSWER_S = 60.0
"""How long a server may take for one step, and to have room for another session."""
_FULL = "CAPACITY_REACHED"
_NOT_AN_ACTION = ("VALIDATION_ERROR", "INVALID_JSON")
_FAILURES = (OSError, TimeoutError, WebSocketException, ValueError)


class ServerError(EapoError):
    """The server cannot be reached, or refused a message."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class Actions(NamedTuple):
    """How an environment's actions are written."""

    field: str | None
    """The one field that an action has; a line is its text. None: a line is JSON."""
    is_text: bool
    """Whether that field is text."""
    rule: str
    """For the policy."""


def read_environment(name: str, options: Mapping[str, Any]) -> Iterator[Numbered]:
    """Yield a problem for each seed; equal first observations once.

    Args:
        options: `size` (200 seeds), `seed` (the first, 0), `reset` (what is given to each reset
            beside the seed), `solved` (the total reward that solves it, 1), `api_key_env` (the
            environment variable with the server's key).

    Raises:
        TaskError: there is no such server, or it does not speak the protocol.
    """
    url = name.removeprefix(PREFIX)
    settings = _settings(name, options)
    first = settings["seed"]
    seen = set()
    try:
        rule = _actions(url, settings["api_key_env"]).rule
        for seed in range(first, first + settings["size"]):
            facts = {"environment": url, "options": settings, "seed": seed}
            question = play(facts, []).seen
            if question in seen:
                continue
            seen.add(question)
            yield (
                f"Seed {seed} of '{name}'",
                {
                    "id": f"{url}/{seed}",
                    "question": f"{question}\n\n{rule}",
                    "answer": f"a total reward of {settings['solved']:g}",
                    "grader": GRADER,
                    **facts,
                },
            )
    except ServerError as error:
        raise TaskError(f"The environment of '{name}' cannot be a task: {error}") from error


def graded(text: str, problem: Problem) -> Grade:
    """Play the lines that follow the last `Answer:`. A total that solves it scores 1, a lower one
    its share of that. What the server could not play is undecided."""
    _, mark, answer = text.rpartition("Answer:")
    facts = problem.metadata
    try:
        wanted = read_actions(answer, facts) if mark else None
        if wanted is None:
            return Grade(score=0.0, formatted=False, extracted=answer.strip() or None)
        total = play(facts, wanted).total
    except ServerError as error:
        if error.code in _NOT_AN_ACTION:
            return Grade(score=0.0, formatted=False, extracted=answer.strip(), note=str(error))
        return Grade(score=0.0, formatted=False, undecided=True, note=str(error))
    share = min(1.0, max(0.0, total / facts["options"]["solved"]))
    return Grade(score=share, formatted=True, extracted=answer.strip())


def tried(actions: str, problem: Problem) -> str:
    """Return what the tool `try_actions` says of some actions."""
    facts = problem.metadata
    try:
        wanted = read_actions(actions, facts)
        if wanted is None:
            return _actions(facts["environment"], facts["options"]["api_key_env"]).rule
        found = play(facts, wanted)
    except ServerError as error:
        return str(error)
    ended = f"It ended after {found.num_actions} actions." if found.ended else "It goes on."
    return f"{found.seen}\nTotal reward {found.total:g}. {ended}"


def read_actions(text: str, facts: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the actions that a text lists, one a line; None where there is none, too many, or one
    that is no action."""
    kind = _actions(facts["environment"], facts["options"]["api_key_env"])
    lines = [line.strip().strip("`") for line in text.strip().splitlines()]
    lines = [line for line in lines if line and line != "json"]
    if not 0 < len(lines) <= _MOST_ACTIONS:
        return None
    found: list[dict[str, Any]] = []
    for line in lines:
        try:
            read = json.loads(line)
        except (ValueError, RecursionError):  # the latter: a thousand brackets
            read = None
        if isinstance(read, dict):
            found.append(read)
        elif kind.field is None or (read is None and not kind.is_text):
            return None
        else:
            found.append({kind.field: line if kind.is_text else read})
    return found


def play(facts: Mapping[str, Any], actions: Sequence[Mapping[str, Any]]) -> Played:
    """Play actions from the start, in a session of its own.

    Args:
        facts: the problem's metadata.

    Raises:
        ServerError: the server cannot be reached or does not take one of them.
    """
    options = facts["options"]
    with _Session(facts["environment"], options["api_key_env"]) as session:
        step = session.send("reset", {**options["reset"], "seed": facts["seed"]})
        total, count = 0.0, 0
        for action in actions:
            if step["done"]:
                break
            step = session.send("step", action)
            reward = step["reward"] or 0.0
            if not isinstance(reward, int | float) or not math.isfinite(reward):
                raise ServerError(f"A reward is a finite number, and the server's is {reward!r}.")
            total, count = total + reward, count + 1
    return Played(
        seen=_as_text(step["observation"]),
        total=total,
        ended=bool(step["done"]),
        num_actions=count,
    )


def _as_text(observation: object) -> str:
    """Return an observation as a policy reads it: its text where it has but one, else JSON, without
    what is empty and without metadata."""
    if not isinstance(observation, Mapping):
        return str(observation)
    empty: tuple[object, ...] = (None, "", [], {})
    kept = {k: v for k, v in observation.items() if k != "metadata" and v not in empty}
    values = list(kept.values())
    if len(values) == 1 and isinstance(values[0], str):
        return values[0]
    return json.dumps(kept, ensure_ascii=False)


def _settings(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options, checked."""
    url = urlsplit(name.removeprefix(PREFIX))
    if url.scheme not in ("http", "https") or not url.netloc:
        raise TaskError(
            f"A task of OpenEnv names its server's address, as in openenv:http://127.0.0.1:8000, "
            f"got '{name}'."
        )
    if url.password is not None or url.username is not None:
        raise TaskError(
            "The address of an OpenEnv server holds no key: traces keep it. Name the environment "
            "variable with the key in task.options.api_key_env."
        )
    return read_options(name, options, _DEFAULTS, inner="reset")


def _headers(url: str, variable: str | None) -> dict[str, str]:
    if variable is None:
        return {}
    return {"Authorization": f"Bearer {read_key(variable, wanted_by=f'The server {url}')}"}


@lru_cache(maxsize=8)
def _actions(url: str, variable: str | None) -> Actions:
    """Ask a server how its actions are written.

    Raises:
        ServerError: it does not say.
    """
    try:
        answer = httpx2.get(
            f"{url.rstrip('/')}/schema", headers=_headers(url, variable), timeout=_ANSWER_S
        )
        answer.raise_for_status()
        schema = answer.json()["action"]
        properties = {k: v for k, v in schema["properties"].items() if k != "metadata"}
    except (httpx2.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServerError(
            f"{url}/schema does not give the schema of its actions ({said(error)}): start an "
            "OpenEnv server there, of version 0.2 or later."
        ) from error
    needed = schema.get("required") or list(properties)
    if len(needed) == 1 and needed[0] in properties:
        field = needed[0]
        kind = properties[field].get("type")
        what = "" if kind == "string" else f", each a JSON {kind or 'value'}"
        return Actions(field, kind == "string", f"Actions: {field}, one a line{what}.")
    fields = ", ".join(f'"{key}": {properties[key].get("type", "value")}' for key in properties)
    return Actions(None, False, f"Actions: JSON objects, one a line: {{{fields}}}.")


class _Session:
    """One WebSocket, which is one copy of the environment on the server."""

    def __init__(self, url: str, variable: str | None) -> None:
        self._url = f"{url.rstrip('/').replace('http', 'ws', 1)}/ws"
        self._headers = _headers(url, variable)
        self._until = time.monotonic() + _ANSWER_S
        self._wait_s = 0.05
        self._open = ExitStack()

    def __enter__(self) -> _Session:
        self._connect()
        return self

    def __exit__(self, *args: object) -> None:
        self._open.close()

    def _connect(self) -> None:
        try:
            self._socket = self._open.enter_context(
                connect(
                    self._url,
                    additional_headers=self._headers,
                    max_size=None,
                    open_timeout=_ANSWER_S,
                )
            )
        except _FAILURES as error:
            raise ServerError(f"{self._url} cannot be reached ({said(error)}).") from error

    def send(self, kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the observation, reward and end that follow a message. Where the server has no
        room for another session, waits for it."""
        while True:
            try:
                # A server without room says so at once and closes: that is read all the same.
                with suppress(ConnectionClosed):
                    self._socket.send(json.dumps({"type": kind, "data": data}))
                answer = json.loads(self._socket.recv(_ANSWER_S))
                found, error_code = answer["data"], answer["data"].get("code")
            except (*_FAILURES, KeyError, TypeError, AttributeError) as error:
                raise ServerError(f"{self._url} broke off ({said(error)}).") from error
            if error_code == _FULL and kind == "reset" and time.monotonic() < self._until:
                self._open.close()
                time.sleep(self._wait_s)
                self._wait_s = min(2.0, 2 * self._wait_s)
                self._connect()
                continue
            if answer.get("type") == "error":
                raise ServerError(
                    f"The environment did not take {said(json.dumps(data))}: "
                    f"{said(found.get('message', ''))}",
                    str(error_code),
                )
            return {"observation": {}, "reward": None, "done": False, **found}
