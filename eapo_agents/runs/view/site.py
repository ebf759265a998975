"""The pages of the view: what each of them shows, as values for its template."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from eapo_agents.errors import StoreError, UsageError
from eapo_agents.runs.view.evaluations import Evaluated, Evaluations
from eapo_agents.runs.view.finding import Kind, Place, find_places
from eapo_agents.runs.view.keys import learn_keys
from eapo_agents.runs.view.state import State, state_of
from eapo_agents.runs.view.tokenizers import TokenizerShelf
from eapo_agents.runs.view.training import Training, Trainings, interval_of, read_recipe

if TYPE_CHECKING:
    from eapo_agents.recipe import Recipe
    from eapo_agents.store import RunInfo
    from eapo_agents.store.browsing import StoreBrowser

_LOOK_AGAIN_S = 3.0
"""How long what was found below the folders is taken for what is there."""
LIVE_MS = 4_000
"""How often a page of a run that is running asks for its figures."""
Values = dict[str, object]


class NotFoundError(UsageError):
    """An address names what is not there, or no longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A run in the list."""

    place: Place
    state: State | None
    progress: float | None
    done: str
    metric: str
    """Name of the figure that matters."""
    score: float | None
    is_share: bool
    """Whether it is a share, from 0 to 1; a reward need not be."""
    ci95: Sequence[float] | None
    calls: float | None
    cost_usd: float | None
    seconds: float | None
    changed: float
    """When it last changed, in seconds since 1970."""
    told: str = ""


@dataclass(slots=True)
class Site:
    """Reads what the given folders hold."""

    roots: Sequence[str]
    trainings: Trainings = field(default_factory=Trainings)
    evaluations: Evaluations = field(default_factory=Evaluations)
    tokenizers: TokenizerShelf = field(default_factory=TokenizerShelf)
    _places: dict[str, Place] = field(default_factory=dict)
    _looked_at: float = 0.0
    _stores: dict[str, StoreBrowser] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def places(self, *, fresh: bool = False) -> dict[str, Place]:
        """Return what the folders hold."""
        with self._lock:
            if fresh or time.monotonic() - self._looked_at > _LOOK_AGAIN_S:
                found = find_places(self.roots, all_there=not self._looked_at)
                for key in found.keys() - self._places.keys():
                    folder = found[key].folder
                    learn_keys(read_recipe(folder) if folder is not None else {})
                self._places = found
                self._looked_at = time.monotonic()
            return self._places

    def place(self, key: str) -> Place:
        """Return the place of a key.

        Raises:
            NotFoundError: there is none. A key is looked up, and never made a path.
        """
        found = self.places().get(key) or self.places(fresh=True).get(key)
        if found is None:
            raise NotFoundError(f"There is no run '{key}' below the folders of this view.")
        return found

    def store(self, place: Place) -> StoreBrowser:
        """Return a place's trace store.

        Raises:
            NotFoundError: it has none.
            StoreError: it cannot be read.
        """
        from eapo_agents.store.browsing import StoreBrowser

        if place.store is None:
            raise NotFoundError(f"'{place.key}' has no trace store.")
        with self._lock:
            if place.store not in self._stores:
                store = StoreBrowser.look_into(place.store)
                for info in store.runs():
                    learn_keys(info.recipe)
                self._stores[place.store] = store
            return self._stores[place.store]

    def store_if_any(self, place: Place) -> StoreBrowser | None:
        """Return a place's trace store; None where there is none that can be read."""
        try:
            return self.store(place)
        except (NotFoundError, StoreError):
            return None

    def run_info(self, place: Place, run_id: str) -> RunInfo:
        """Return the record of a run in a store.

        Raises:
            NotFoundError: the store has no such run.
        """
        for info in self.store(place).runs():
            if info.run_id == run_id:
                return info
        raise NotFoundError(f"The store of '{place.key}' has no run '{run_id}'.")

    def recipe(self, info: RunInfo) -> Recipe | None:
        """Return a run's recipe, where this version reads it."""
        from eapo_agents.runs.view.groups import recipe_of

        return recipe_of(info.recipe)

    def line(self, place: Place) -> Line:
        """Return a place as the list shows it."""
        if place.kind is Kind.TRAINING and place.folder is not None:
            return _training_line(place, self.trainings.read(place.folder))
        if place.kind is Kind.EVALUATION and place.folder is not None:
            return _evaluation_line(place, self.evaluations.read(place.folder))
        return _other_line(place)

    def is_running(self, key: str, run_id: str) -> bool:
        """Return whether a place's run is running: by its folder, or by who works in its store."""
        place = self.place(key)
        if place.kind is Kind.STORE:
            return self.store(place).is_worked_in(run_id)
        return self.line(place).state is State.RUNNING

    def run_page(self, key: str, others: Sequence[str] = ()) -> tuple[str, Values]:
        """Return the template and the values of a place's own page."""
        from eapo_agents.runs.view import run_pages

        place = self.place(key)
        values: Values = {"place": place, "line": self.line(place)}
        if place.kind is Kind.TRAINING:
            return "training.html", values | run_pages.training(self, place, others)
        if place.kind is Kind.EVALUATION:
            return "evaluation.html", values | run_pages.evaluation(self, place)
        return "place.html", values | run_pages.place(self, place)

    def beside(self, place: Place) -> list[Place]:
        """Return the places of the same kind, to compare with."""
        return [
            other
            for other in self.places().values()
            if other.kind is place.kind and other.key != place.key
        ]


def _training_line(place: Place, run: Training) -> Line:
    metric, score, ci95, name = "", None, None, ""
    if run.evaluated is not None:
        step, found = run.evaluated
        metric = f"accuracy, step {step}"
        score, ci95 = _float(found.get("score")), found.get("ci95")
    elif run.history:
        name = "solo/accuracy" if run.latest("solo/accuracy") is not None else "reward"
        metric = {"solo/accuracy": "solo accuracy", "reward": "reward"}[name] + ", last 10 steps"
        score = run.latest(name)
    planned = f" of {run.planned}" if run.planned else ""
    return Line(
        place=place,
        state=run.state,
        progress=1.0 if run.state is State.FINISHED else run.progress,
        done=f"step {run.step}{planned}" if run.history else "no step yet",
        metric=metric,
        score=score,
        is_share=name != "reward",
        ci95=interval_of(ci95),
        calls=run.total("experts/calls"),
        cost_usd=run.total("expert_usd"),
        seconds=run.seconds,
        changed=_changed(place),
        told=run.problem,
    )


def _evaluation_line(place: Place, run: Evaluated) -> Line:
    first = next(iter(run.scores.values()), None)
    graded = sum(s.n * s.samples for s in run.scores.values())
    return Line(
        place=place,
        state=run.state,
        progress=1.0 if run.state is State.FINISHED else None,
        done=f"{graded:,} answers" if graded else "",
        metric="" if first is None else f"{first.benchmark} {first.condition}, {first.metric}",
        score=None if first is None else first.score,
        is_share=True,
        ci95=None if first is None else first.ci95,
        calls=sum(s.consultations for s in run.scores.values()) if run.scores else None,
        cost_usd=None,
        seconds=sum(s.seconds for s in run.scores.values()) if run.scores else None,
        changed=_changed(place),
        told=run.problem,
    )


def _other_line(place: Place) -> Line:
    state: State | None = None
    if place.folder is not None:  # a study or a demo
        reported = (place.folder / "report.json").exists()
        state = state_of(place.folder, is_finished=reported)
    return Line(
        place=place,
        state=state,
        progress=None,
        done="",
        metric="",
        score=None,
        is_share=True,
        ci95=None,
        calls=None,
        cost_usd=None,
        seconds=None,
        changed=_changed(place),
    )


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _changed(place: Place) -> float:
    from pathlib import Path

    from eapo_agents.runs.folder import RESULT, STEPS

    files = [Path(place.store)] if place.store is not None and place.is_file else []
    if place.folder is not None:
        names = (STEPS, RESULT, "result.json", "results.json", "run.json", "report.json")
        files += [place.folder / name for name in names]
    times = []
    for file in files:
        try:
            times.append(file.stat().st_mtime)
        except OSError:
            continue
    return max(times, default=0.0)
