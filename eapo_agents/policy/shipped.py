"""The small model that comes with the package: the scale model before and after its training.

It is for a first look (`eapo demo --quick`, `eapo chat`): 0.4 million parameters that work out
a + b * c. `benchmarks/studies/ship_scale_model.py` makes the files from a training run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "scale_model"
TRAINED, BEFORE = "eapo-scale-model", "eapo-scale-model-before"
_FOLDERS = {TRAINED: "trained", BEFORE: "before"}
TRAINING = "training.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Some steps of the training on end."""

    step: int
    """The last of them."""
    accuracy: float
    """Tool-free, on held-out problems, after that step."""
    asked: float
    """Share of the rollouts with experts that asked."""
    accepted: float
    """Share of the asked replies that were accepted; the others were withheld, and cost nothing."""
    calls: int
    """Expert calls so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How the model was trained."""

    command: str
    date: str
    seconds: float
    calls: int
    withheld: int
    stretches: Sequence[Stretch]


def shipped_folder(name: str) -> Path | None:
    """Return the folder of a model that comes with the package, None for another name."""
    return FOLDER / _FOLDERS[name] if name in _FOLDERS else None


def shipped_training() -> Training:
    """Return how the shipped model was trained."""
    found = json.loads((FOLDER / TRAINING).read_text())
    stretches = [Stretch(**stretch) for stretch in found.pop("stretches")]
    return Training(**found, stretches=stretches)
