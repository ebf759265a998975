"""A first look in half a minute: the scale model that comes with the package, before and after its
training, on problems that it has not seen. Everything but the training is run on the spot."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.errors import EapoError
from eapo_agents.policy.shipped import BEFORE, TRAINED, Training, shipped_training
from eapo_agents.progress import SILENT, Progress
from eapo_agents.recipe import Recipe
from eapo_agents.recipe_file import load_recipe
from eapo_agents.runs.evaluation import score_policy
from eapo_agents.runs.evaluation_plan import task_part
from eapo_agents.runs.loading import load_agent

if TYPE_CHECKING:
    from eapo_agents.store import TraceStore
    from eapo_agents.types import Trajectory
    from evals.metrics import PairedDifference
    from evals.results import Score

RECIPE = "quick"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuickDemo:
    """What was seen."""

    training: Training
    before: Score
    """Tool-free, as `after`."""
    helped: Score
    """Before the training, with the expert at hand."""
    after: Score
    difference: PairedDifference
    """after - before, on the same problems."""
    examples: tuple[Trajectory, Trajectory, Trajectory]
    """One problem: before alone (wrong), before with the expert (right), after alone (right)."""
    seconds: float


def quick_demo(progress: Progress = SILENT) -> QuickDemo:
    """Evaluate the model from before its training, alone and with its expert, and the trained one
    alone."""
    from eapo_agents.store import TraceStore
    from evals.conditions import ASSISTED, SOLO
    from evals.metrics import paired_differences

    started = time.perf_counter()
    trained = load_recipe(RECIPE)
    untrained = load_recipe(RECIPE, [f"policy.model={BEFORE}"])
    with (
        tempfile.TemporaryDirectory() as folder,
        TraceStore.open(str(Path(folder) / "traces.db"), create=True) as store,
    ):
        progress.say("Before the training, alone and with its expert:")
        before = _scores(untrained, store, BEFORE, Path(folder), progress)
        progress.say("After the training, alone:")
        after = _scores(trained, store, TRAINED, None, progress)[SOLO]
        names = (f"{BEFORE}/{SOLO}", f"{BEFORE}/{ASSISTED}", f"{TRAINED}/{SOLO}")
        examples = _example(
            (before[SOLO], before[ASSISTED], after), [_by_problem(store, name) for name in names]
        )
    pairs = {"": (before[SOLO].per_problem, after.per_problem)}
    return QuickDemo(
        training=shipped_training(),
        before=before[SOLO],
        helped=before[ASSISTED],
        after=after,
        difference=paired_differences(pairs)[""],
        examples=examples,
        seconds=time.perf_counter() - started,
    )


def _scores(
    recipe: Recipe, store: TraceStore, name: str, experts: Path | None, progress: Progress
) -> dict[str, Score]:
    """Return the scores by condition: with the expert too where there is a folder for its calls."""
    part = task_part(recipe, assisted=experts is not None)
    agent = load_agent(recipe)
    if experts is not None:
        agent.pool.open(experts / "experts.db", name)
    return score_policy(agent, part, store, name, progress)


def _by_problem(store: TraceStore, run: str) -> dict[str, Trajectory]:
    stored = (entry.trajectory for entry in store.trajectories(run_id=run))
    return {trajectory.problem.id: trajectory for trajectory in stored}


def _example(
    scores: Sequence[Score], answers: Sequence[Mapping[str, Trajectory]]
) -> tuple[Trajectory, Trajectory, Trajectory]:
    """Return the answers to the first problem on which help was needed, was used, and is not needed
    any more."""
    for key in answers[0]:
        verdicts = [score.per_problem.get(key) for score in scores]
        asked = any(turn.consultations for turn in answers[1][key].turns)
        if asked and verdicts == [0.0, 1.0, 1.0]:
            first, second, third = (of[key] for of in answers)
            return first, second, third
    raise EapoError("No problem was solved with help only: the package's model is not whole.")
