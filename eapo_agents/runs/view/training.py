"""What a training run's folder holds, read again only when it has changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eapo_agents.errors import EapoError
from eapo_agents.runs.folder import EVALS, RECIPE, RESULT, STEPS
from eapo_agents.runs.view.state import State, state_of

if TYPE_CHECKING:
    from evals.study import Evaluation

_LARGEST = 1e15
"""Of what is drawn; this leaves out infinity and what is not a number too."""
RESULTS = ("result.json", RESULT)
"""Of a study's arm, and of a training run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A training run so far."""

    history: Sequence[Mapping[str, float]]
    """The figures of each step."""
    evals: Sequence[Evaluation]
    result: Mapping[str, Any] | None
    """What it left; None until it is finished."""
    recipe: Mapping[str, Any]
    """As recipe.yaml has it; empty where there is none that can be read."""
    state: State
    warnings: Sequence[str]
    """Guard rails that were crossed."""
    problem: str = ""
    """Why its files cannot be read."""

    @property
    def step(self) -> int:
        """Return the last step."""
        return int(self.history[-1]["step"]) if self.history else 0

    @property
    def name(self) -> str:
        """Return the recipe's name and model; empty where it does not say."""
        policy = section(self.recipe, "policy")
        # the default model's name stands in a recipe whose model was made anew in the run
        model = "model made anew" if policy.get("fresh") else policy.get("model")
        named = [self.recipe.get("name"), model]
        return " · ".join(str(one) for one in named if isinstance(one, str) and one)

    @property
    def planned(self) -> int | None:
        """Return how many steps the recipe wants; None where it does not say, or trains on traces:
        then it goes through them, however many steps that are."""
        settings = section(self.recipe, "train")
        steps = None if settings.get("method") == "logged" else settings.get("steps")
        return steps if isinstance(steps, int) and steps > 0 else None

    @property
    def progress(self) -> float | None:
        """Return the share of its steps that are done."""
        return min(1.0, self.step / self.planned) if self.planned and self.history else None

    @property
    def evaluated(self) -> tuple[int, Mapping[str, Any]] | None:
        """Return the step and the first score of the last evaluation."""
        if not self.evals:
            return None
        last = self.evals[-1]
        return int(last["step"]), next(iter(last["scores"].values()), {})

    def latest(self, name: str, num_steps: int = 10) -> float | None:
        """Return the mean of a figure over the last steps that have it."""
        values = [step[name] for step in self.history[-num_steps:] if is_figure(step.get(name))]
        return sum(values) / len(values) if values else None

    def total(self, name: str) -> float | None:
        """Return the sum of a figure over all steps; None where no step has it."""
        values = [step[name] for step in self.history if is_figure(step.get(name))]
        return sum(values) if values else None

    @property
    def seconds(self) -> float | None:
        """Return the time that the command which finished it took."""
        found = (self.result or {}).get("seconds")
        return float(found) if found is not None and is_figure(found) else None


def is_figure(value: object) -> bool:
    """Return whether a value can be drawn."""
    return isinstance(value, int | float) and abs(value) < _LARGEST


def section(recipe: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a section of a recipe; an empty one where it has none."""
    found = recipe.get(name)
    return found if isinstance(found, Mapping) else {}


@dataclass(slots=True)
class Trainings:
    """Reads runs, and keeps what it read until a file changes."""

    _kept: dict[Path, tuple[object, Training]] = field(default_factory=dict)

    def read(self, folder: Path) -> Training:
        """Return a run's figures. What cannot be read is said in `problem`."""
        stamp = tuple(_stamp(folder / name) for name in (STEPS, EVALS, RECIPE, *RESULTS))
        kept = self._kept.get(folder)
        if kept is not None and kept[0] == stamp:
            found = kept[1]
            state = state_of(folder, is_finished=found.result is not None)
            return found if found.state is state else _with_state(found, state)
        found = _read(folder)
        self._kept[folder] = stamp, found
        return found


def _with_state(found: Training, state: State) -> Training:
    from dataclasses import replace

    return replace(found, state=state)


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _read(folder: Path) -> Training:
    from eapo_agents.runs.records import read_runs

    recipe = read_recipe(folder)
    has_figures = any((folder / name).exists() for name in (STEPS, EVALS))
    finished = any((folder / name).exists() for name in RESULTS)
    state = state_of(folder, is_finished=finished)
    if not has_figures:  # it has begun, and no step has ended
        return Training(history=(), evals=(), result=None, recipe=recipe, state=state, warnings=())
    try:
        from evals.guards import findings

        (run,) = read_runs(folder)
        history = [_figures(step) for step in run["history"] if is_figure(step["step"])]
        evals = [one for one in run["evals"] if _is_evaluation(one)]
        result = run["result"]
        return Training(
            history=history,
            evals=evals,
            result=result if result is None or isinstance(result, dict) else {},
            recipe=recipe,
            state=state,
            warnings=findings(history, evals, ended=finished),
        )
    except (EapoError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        told = str(error) or type(error).__name__
        return Training(
            history=(),
            evals=(),
            result=None,
            recipe=recipe,
            state=state,
            warnings=(),
            problem=f"The figures in '{folder}' cannot be read ({told}).",
        )


def _figures(step: Mapping[str, float]) -> dict[str, float]:
    """Return a step without what is not a number: a file may hold anything."""
    return {str(name): value for name, value in step.items() if is_figure(value)}


def _is_evaluation(found: object) -> bool:
    """Return whether a line of evals.jsonl has a score for each condition."""
    if not isinstance(found, dict) or not is_figure(found.get("step")):
        return False
    scores = found.get("scores")
    return (
        isinstance(scores, dict)
        and bool(scores)
        and all(isinstance(s, dict) and is_figure(s.get("score")) for s in scores.values())
    )


def interval_of(found: object) -> tuple[float, float] | None:
    """Return an interval as a file has it; None where it has none that can be drawn."""
    if isinstance(found, list | tuple) and len(found) == 2 and all(map(is_figure, found)):
        return float(found[0]), float(found[1])
    return None


def read_recipe(folder: Path) -> Mapping[str, Any]:
    """Return a folder's recipe.yaml as it is; empty where it is missing or is not YAML."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        found = yaml.load((folder / RECIPE).read_text(encoding="utf-8"), loader)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, Mapping) else {}
