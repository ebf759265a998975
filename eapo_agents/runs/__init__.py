"""What the commands do, as functions for notebooks and programs:

    from eapo_agents.runs import collect, evaluate, study, train

Nothing here prints: progress goes to a callback (`eapo_agents.progress`), results are returned.
Each function is imported when it is first asked for, since what it needs takes seconds to import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eapo_agents.runs.collection import collect
    from eapo_agents.runs.evaluation import evaluate
    from eapo_agents.runs.studies import study
    from eapo_agents.runs.training import train
    from eapo_agents.runs.warm_starting import warm_start

__all__ = ["collect", "evaluate", "study", "train", "warm_start"]

_MODULES = {
    "collect": "collection",
    "evaluate": "evaluation",
    "study": "studies",
    "train": "training",
    "warm_start": "warm_starting",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
