"""Notices packages of other people in place of ours.

Our top-level packages have common names. PyPI's `evals` ships evals/__init__.py and
evals/metrics.py as we do: installed later it replaces our two files, and uninstalled it removes
them. A folder of such a name on PYTHONPATH hides ours. Imports would then fail far away, or find
other functions.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from eapo_agents.errors import UsageError

PACKAGES = ("graphs", "trainers", "evals")
_MARK = "eapo-agents"
"""In the docstring of each package."""


def refuse_foreign_packages() -> None:
    """Make sure that `graphs`, `trainers` and `evals` are ours, without importing them.

    Raises:
        UsageError: one is hidden by another package, or its files are replaced or removed.
    """
    home = Path(__file__).resolve().parents[1]
    for name in PACKAGES:
        spec = find_spec(name)
        found = Path(spec.origin).resolve() if spec and spec.origin else None
        ours = home / name / "__init__.py"
        if found == ours and _MARK in ours.read_text(encoding="utf-8", errors="replace"):
            continue
        if found and found != ours:
            raise UsageError(
                f"The package '{name}' in {found.parent} is not eapo-agents' own and hides it: "
                "take its folder off PYTHONPATH, or install eapo-agents in its own virtual "
                "environment."
            )
        raise UsageError(
            f"The package '{name}' in {ours.parent} is not eapo-agents' own, since another "
            "distribution has replaced or removed its files: run `python -m pip uninstall "
            f"{name}`, then install eapo-agents again with --force-reinstall."
        )
