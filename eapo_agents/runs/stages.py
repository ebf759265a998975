"""How far a demo, a collection or an evaluation is: its stages, read from what it leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eapo_agents.errors import UsageError
from eapo_agents.runs.folder import EVALS, RECIPE, RESULT, STEPS, TRACES, read_history
from eapo_agents.runs.view.finding import EVALUATED, PHASES, is_trace_store
from eapo_agents.runs.view.state import State, state_of

if TYPE_CHECKING:
    from eapo_agents.store import RunInfo
    from eapo_agents.store.browsing import StoreBrowser

_DEMO = ("base", "warm_start", "before", "collect", "train_logged", "train_live", "after")
"""A demo's phases, in their order."""
_STORED = ("base", "before", "after")
"""Those whose answers stand in the demo's store, as the runs `before/solo` and so on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One piece of work: a phase of a demo, a benchmark under a condition, a collection."""

    name: str
    state: str
    """As `State`, `waiting` for what has not begun, or what else is known."""
    done: int | None = None
    planned: int | None = None
    """None where it is not known before the work is done."""
    unit: str = "answers"
    score: float | None = None
    ci95: Sequence[float] | None = None
    failed: int = 0
    """Rollouts that failed."""
    calls: float | None = None
    """Of experts."""
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """A demo, a collection or an evaluation so far."""

    stages: Sequence[Stage]
    is_running: bool


def read_stages(at: str) -> Stages | None:
    """Return what a folder or a store holds; None where it is a training or a study, or nothing.

    Raises:
        UsageError: a store's address cannot be read.
        StoreError, BenchmarkError: its files cannot be read.
    """
    if "://" in at:
        return _collections(at)
    folder = Path(at)
    if folder.is_file():
        if not is_trace_store(folder):
            raise UsageError(
                f"'{folder}' is not a trace store: give a store, or the folder of a run."
            )
        return _collections(at)
    if (folder / EVALUATED).exists():
        return _evaluation(folder)
    if (folder / PHASES).exists() or _is_begun_demo(folder):
        return _demo(folder)
    trained = any((folder / name).exists() for name in (STEPS, EVALS, RESULT, RECIPE))
    if not trained and (folder / TRACES).exists():
        return _collections(str(folder / TRACES))
    return None


def _evaluation(folder: Path) -> Stages:
    from evals.run_folder import read_results, read_settings

    settings, results = read_settings(folder), read_results(folder)
    scores = {} if results is None else results.results
    missing = {} if results is None else results.missing
    finished = results is not None and not missing and all(k in scores for k in settings.results)
    state = state_of(folder, is_finished=finished)
    counts = _counts(folder / TRACES)
    stages, begun = [], True
    for key, wanted in settings.results.items():
        planned, done = wanted.problems * wanted.samples, counts.get(key, 0)
        over = key in scores and key not in missing
        score = scores.get(key)
        stages.append(
            Stage(
                name=key,
                state=_state(state, over=over, begun=begun),
                done=done,
                planned=planned,
                score=None if score is None else score.score,
                ci95=None if score is None else score.ci95,
                failed=0 if score is None else score.failed,
                calls=None if score is None else score.consultations,
                seconds=None if score is None else score.seconds,
            )
        )
        begun = done >= planned  # they run one after another
    return Stages(stages=stages, is_running=state is State.RUNNING)


def _is_begun_demo(folder: Path) -> bool:
    """Return whether a demo works in a folder whose first phase is not over."""
    if not ((folder / RECIPE).exists() and (folder / TRACES).exists()):
        return False
    return any(name.startswith(f"{_DEMO[0]}/") for name in _counts(folder / TRACES))


def _demo(folder: Path) -> Stages:
    phases = json.loads((folder / PHASES).read_text()) if (folder / PHASES).exists() else {}
    finished = all(name in phases for name in _DEMO) and (folder / "report.json").exists()
    state = state_of(folder, is_finished=finished)
    counts, stages, begun = _counts(folder / TRACES), [], True
    for name in _DEMO:
        over = name in phases
        stages.append(_phase(folder, name, phases.get(name), counts, state, begun=begun))
        begun = over
    return Stages(stages=stages, is_running=state is State.RUNNING)


def _phase(
    folder: Path,
    name: str,
    facts: Mapping[str, Any] | None,
    counts: Mapping[str, int],
    state: State,
    *,
    begun: bool,
) -> Stage:
    over, facts = facts is not None, facts or {}
    score: Mapping[str, Any] = next(iter(facts.get("scores", {}).values()), {})
    done, unit = None, "answers"
    if name in _STORED:
        done = sum(n for run, n in counts.items() if run.startswith(f"{name}/"))
    elif name == "collect":
        done, unit = counts.get(name, 0), "rollouts"
    elif name.startswith("train"):
        done, unit = len(_steps(folder / name)), "steps"
    elif over:
        done, unit = facts.get("episodes"), "episodes"
    return Stage(
        name=name.replace("_", " "),
        state=_state(state, over=over, begun=begun),
        done=done,
        unit=unit,
        score=score.get("score"),
        ci95=score.get("ci95"),
        calls=facts.get("expert_calls"),
        seconds=facts.get("seconds"),
    )


def _steps(folder: Path) -> Sequence[Mapping[str, float]]:
    return read_history(folder) if (folder / STEPS).exists() else ()


def _state(state: State, *, over: bool, begun: bool) -> str:
    """Return the state of a stage: the first that is not over has the state of the whole."""
    if over:
        return State.FINISHED.value
    return state.value if begun else "waiting"


def _collections(at: str) -> Stages:
    from eapo_agents.store.browsing import StoreBrowser

    with StoreBrowser.look_into(at) as store:
        stages = [_collection(store, info) for info in store.runs() if info.kind == "collect"]
    if not stages:
        raise UsageError(f"'{at}' holds no collection: `eapo collect` makes one.")
    return Stages(stages=stages, is_running=any(one.state == State.RUNNING.value for one in stages))


def _collection(store: StoreBrowser, info: RunInfo) -> Stage:
    settings = info.recipe.get("collect")
    wanted = settings if isinstance(settings, Mapping) else {}
    numbers = [wanted.get("problems"), wanted.get("num_generations")]
    sizes = [n for n in numbers if isinstance(n, int)]
    planned = sizes[0] * sizes[1] if len(sizes) == 2 else None
    if store.is_worked_in(info.run_id):
        state = State.RUNNING.value
    elif planned is not None and info.num_trajectories >= planned:
        state = State.FINISHED.value
    else:  # a task may have fewer problems than the recipe allows
        state = "not running"
    tallies = store.steps(info.run_id)
    scored = sum(one.scored for one in tallies)
    right = sum(one.correct for one in tallies)
    return Stage(
        name=info.run_id,
        state=state,
        done=info.num_trajectories,
        planned=planned,
        unit="rollouts",
        score=right / scored if scored else None,
        failed=sum(one.failed for one in tallies),
    )


def _counts(store: Path) -> Mapping[str, int]:
    """Return run -> its trajectories; nothing where there is no store yet."""
    from eapo_agents.store.browsing import StoreBrowser

    if not store.exists() or not is_trace_store(store):
        return {}
    with StoreBrowser.look_into(store) as opened:
        return {info.run_id: info.num_trajectories for info in opened.runs()}
