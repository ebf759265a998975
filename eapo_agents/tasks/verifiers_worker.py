"""The other half of `eapo_agents.tasks.verifiers`: holds one verifiers environment, and scores.

It runs by the interpreter in which verifiers is installed, which need not be ours, so it imports
nothing of ours. A request is a line of JSON on standard input, its answer one on standard output;
they are matched by `id`, and several are worked on at once. What the environment prints goes to
standard error.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import itertools
import json
import logging
import math
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MODEL = "policy"


class NotOursError(Exception):
    """The environment is of a kind that is not supported, or cannot be loaded."""


@dataclass(frozen=True)
class Row:
    """One problem."""

    question: str
    answer: str
    split: str | None
    """`train` or `heldout`; None where the environment does not say."""
    score: Callable[[str], Awaitable[tuple[float, dict[str, float]]]]
    """A policy's last message -> reward, and its weighted parts by name."""


def load(name: str, arguments: Mapping[str, Any], size: int) -> list[Row]:
    """Return the first `size` problems of an environment, of each split where it has two."""
    module_name = name.rsplit("/", 1)[-1].split("@", 1)[0].replace("-", "_").lower()
    try:
        importlib.import_module("verifiers")
    except ImportError as error:
        raise NotOursError(
            f"the interpreter {sys.executable} has no verifiers ({error})"
        ) from error
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise NotOursError(f"the module '{module_name}' cannot be imported: {error}") from error
        module = None
    if module is not None and hasattr(module, "load_environment"):
        return _old(module.load_environment, arguments, size)
    return _new(name, arguments, size)


def _old(make: Callable[..., Any], arguments: Mapping[str, Any], size: int) -> list[Row]:
    """Rows of an environment of the first generation: `load_environment` gives a SingleTurnEnv."""
    import verifiers as vf

    environment = make(**arguments)
    if not isinstance(environment, vf.SingleTurnEnv):
        raise NotOursError(
            f"it is a {type(environment).__name__}, and only a SingleTurnEnv, whose rollouts are "
            "one answer, is supported"
        )
    rubric = environment.rubric
    if any(rubric._is_group_func(function) for function in rubric._get_reward_funcs()):
        raise NotOursError("its rubric compares the answers of a group, and ours are scored alone")
    held_out = environment.build_eval_dataset() if _has_own_eval(environment) else None
    parts = [("train" if held_out is not None else None, _old_train(environment))]
    if held_out is not None:
        parts.append(("heldout", held_out))
    rows = []
    for split, dataset in parts:
        for entry in (dataset[number] for number in range(min(size, len(dataset or ())))):
            question = _question(entry["prompt"], None)
            answer = _text(entry.get("answer"))
            rows.append(Row(question, answer, split, _old_score(environment, entry)))
    return rows


def _has_own_eval(environment: Any) -> bool:
    """Whether held-out rows are not the training rows again, which verifiers falls back to."""
    return environment.eval_dataset is not None or environment.eval_dataset_source is not None


def _old_train(environment: Any) -> Any:
    if environment.dataset is None and environment.dataset_source is None:
        return None
    return environment.get_dataset()


def _old_score(
    environment: Any, entry: Mapping[str, Any]
) -> Callable[[str], Awaitable[tuple[float, dict[str, float]]]]:
    import verifiers as vf

    async def score(text: str) -> tuple[float, dict[str, float]]:
        state = await environment.init_state(
            dict(entry), client=vf.ClientConfig(), model=MODEL, sampling_args={}
        )
        state = await environment.setup_state(state) or state
        state["completion"] = [vf.types.AssistantMessage(content=text)]
        state["is_completed"] = True
        rubric = environment.rubric
        # A reward function that raises is a 0 to verifiers, and a line of its log. To us it is no
        # score, so the line is caught.
        heard = _Heard()
        logging.getLogger("verifiers").addHandler(heard)
        try:
            await rubric.score_rollout(state)
        finally:
            logging.getLogger("verifiers").removeHandler(heard)
            await rubric.cleanup(state)
        if heard.said:
            raise RuntimeError(heard.said[0])
        weights = dict(
            zip(rubric._get_reward_func_names(), rubric._get_reward_weights(), strict=True)
        )
        named = {key: weights.get(key, 0.0) * one for key, one in state["metrics"].items()}
        return state["reward"], {key: one for key, one in named.items() if weights.get(key)}

    return score


class _Heard(logging.Handler):
    """Keeps the errors that are logged while one answer is scored, by the task that logs them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []
        self._task = asyncio.current_task()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            task = asyncio.current_task()
        except RuntimeError:  # logged in a thread: whose it is cannot be known
            task = self._task
        if task is self._task:
            self.said.append(record.getMessage())


def _new(name: str, arguments: Mapping[str, Any], size: int) -> list[Row]:
    """Rows of a taskset of `verifiers.v1`."""
    try:
        from verifiers.v1.utils import loaders
    except ImportError as error:
        raise NotOursError("there is no module of that name with load_environment") from error
    from verifiers.v1.envs.single_agent import SingleAgentEnv
    from verifiers.v1.task import Task

    try:
        kind = loaders.taskset_config_type(name)
    except (ImportError, TypeError, AttributeError) as error:
        raise NotOursError(f"there is no such environment in {sys.executable}: {error}") from error
    config = kind.model_validate({**arguments, "id": name})
    taskset = loaders.load_taskset(config)
    if loaders.environment_class(name) is not SingleAgentEnv or type(taskset).toolsets(config):
        raise NotOursError("it has an exchange or tools of its own, and only one answer is scored")
    rows = []
    for task in itertools.islice(iter(taskset), size):
        kind_of_task = type(task)
        hooks = [hook for hook in ("setup", "finalize") if _overrides(kind_of_task, Task, hook)]
        if kind_of_task.NEEDS_CONTAINER or hooks or kind_of_task.toolsets(task.config):
            needs = " and ".join(hooks) or "a container or tools"
            raise NotOursError(
                f"its {kind_of_task.__name__} needs {needs}, and only one answer is scored"
            )
        if needing := _need_a_runtime(task):
            raise NotOursError(f"its reward '{needing}' needs a runtime, and only an answer is had")
        if not task.hooks("reward") and not task.plugged_judges():
            raise NotOursError(f"its {kind_of_task.__name__} has no reward")
        data = task.data
        question = _question(data.prompt, data.system_prompt)
        answer = _text(getattr(data, "answer", None))
        rows.append(Row(question, answer, None, _new_score(task)))
    return rows


def _overrides(kind: type, base: type, hook: str) -> bool:
    return getattr(kind, hook) is not getattr(base, hook)


def _need_a_runtime(task: Any) -> str | None:
    """Return the name of a reward that verifiers would leave out, since there is no runtime."""
    for function in (*task.hooks("reward"), *(judge.score for judge in task.plugged_judges())):
        parameter = inspect.signature(function).parameters.get("runtime")
        if parameter is not None and parameter.default is inspect.Parameter.empty:
            return str(function.__name__)
    return None


def _new_score(task: Any) -> Callable[[str], Awaitable[tuple[float, dict[str, float]]]]:
    import verifiers.v1 as vf
    from verifiers.v1.graph import MessageNode

    async def score(text: str) -> tuple[float, dict[str, float]]:
        about = vf.TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash)
        trace = vf.Trace(task=about, agent=vf.AgentInfo(config=vf.AgentConfig()))
        data = task.data
        messages: list[Any] = []
        if data.system_prompt:
            messages.append(vf.SystemMessage(content=data.system_prompt))
        if isinstance(data.prompt, str):
            messages.append(vf.UserMessage(content=data.prompt))
        else:
            messages += data.prompt or []
        messages.append(vf.AssistantMessage(content=text))
        for number, message in enumerate(messages):
            is_last = number == len(messages) - 1
            node = MessageNode(parent=number - 1 if number else None, message=message)
            trace.nodes.append(node.model_copy(update={"sampled": is_last}))
        trace.ok = True
        trace.stop("agent_completed")
        await task.score(trace, None)
        unscored = [key for key, reward in trace.rewards.items() if reward is None]
        if unscored:
            raise RuntimeError(f"the reward '{unscored[0]}' gave nothing")
        parts = {key: reward.value for key, reward in trace.rewards.items()}
        return trace.reward, parts

    return score


def _text(answer: object) -> str:
    return "" if answer is None else str(answer)


def _question(prompt: Any, system: str | None) -> str:
    """Return a prompt as one text: the system prompt, an empty line, the user's message."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt or []
    read = [_read(message) for message in messages]
    if system:
        read.insert(0, ("system", system))
    roles = [role for role, _ in read]
    if roles not in (["user"], ["system", "user"]):
        raise NotOursError(
            "a prompt is one message of the user, and may have a system prompt before it, and one "
            f"of its prompts is {', '.join(roles) or 'empty'}"
        )
    return "\n\n".join(text.strip() for _, text in read)


def _read(message: Any) -> tuple[str, str]:
    is_mapping = isinstance(message, Mapping)
    role = message.get("role") if is_mapping else message.role
    content = message.get("content") if is_mapping else message.content
    if not isinstance(content, str):
        parts = [one if isinstance(one, Mapping) else one.model_dump() for one in content or []]
        if any(part.get("type") != "text" for part in parts):
            raise NotOursError("a prompt is text, and one of its prompts has something else")
        content = "\n".join(part["text"] for part in parts)
    return str(role), content


async def answer(rows: Sequence[Row], request: Mapping[str, Any]) -> dict[str, Any]:
    """Score one text."""
    row = rows[request["number"]] if request["number"] < len(rows) else None
    if row is None or row.question != request["question"]:
        raise NotOursError(
            f"its problem {request['number']} is another one than when problems were read: an "
            "environment must give the same problems each time"
        )
    reward, parts = await row.score(request["text"])
    for key, value in {"its reward": reward, **parts}.items():
        if not math.isfinite(float(value)):
            raise ValueError(f"{key} is {value}, and a reward is a finite number")
    return {"reward": float(reward), "parts": {key: float(one) for key, one in parts.items()}}


async def serve(rows: Sequence[Row], tell: Callable[[Mapping[str, Any]], None]) -> None:
    """Score until standard input ends."""
    loop, running = asyncio.get_running_loop(), set()
    requests: asyncio.Queue[str] = asyncio.Queue()

    def read() -> None:
        while line := sys.stdin.readline():
            loop.call_soon_threadsafe(requests.put_nowait, line)
        os._exit(0)  # nobody is left to tell, even if a reward function blocks the loop

    async def handle(request: Mapping[str, Any]) -> None:
        try:
            found = await answer(rows, request)
        except Exception as error:
            found = {"error": _named(error)}
        tell({"id": request["id"], **found})

    threading.Thread(target=read, daemon=True).start()
    while True:
        task = asyncio.create_task(handle(json.loads(await requests.get())))
        running.add(task)
        task.add_done_callback(running.discard)


def _named(error: Exception) -> str:
    return str(error) if isinstance(error, NotOursError) else f"{type(error).__name__}: {error}"


def main() -> None:
    """Load what the first line names, then score."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what an environment prints must not look like an answer
    sys.stdout = sys.stderr
    sys.path[0] = os.getcwd()  # it was this file's folder, whose verifiers.py is another

    def tell(found: Mapping[str, Any]) -> None:
        out.write(json.dumps(found) + "\n")
        out.flush()

    request = json.loads(sys.stdin.readline())
    try:
        # in the main thread, and in no event loop: environments set signals, or start a loop
        rows = load(request["name"], request["arguments"], request["size"])
    except Exception as error:
        tell({"id": request["id"], "error": _named(error)})
        return
    told = [{"question": row.question, "answer": row.answer, "split": row.split} for row in rows]
    tell({"id": request["id"], "rows": told})
    asyncio.run(serve(rows, tell))


if __name__ == "__main__":
    main()
