"""The demo: the whole of EAPO on a small model, phase by phase.

Every phase leaves its result in the run's folder. The same call continues with the first phase that
is not done: a training phase that was cut off from its last checkpoint, an evaluation or collection
from its last answer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from eapo_agents.errors import RecipeError
from eapo_agents.files import write_atomically
from eapo_agents.progress import SILENT, Progress
from eapo_agents.recipe import Recipe
from eapo_agents.runs.collection import collect_into, tally_of
from eapo_agents.runs.evaluation import score_policy
from eapo_agents.runs.evaluation_plan import task_part
from eapo_agents.runs.folder import expert_file, read_history, save_recipe
from eapo_agents.runs.loading import (
    load_agent,
    logged_groups,
    problems_of,
    refuse_untrained,
    warm_start_problems,
)
from eapo_agents.runs.lock import locked
from eapo_agents.runs.training import train_live_into, train_logged_into
from eapo_agents.runs.warm_starting import warm_start_into

if TYPE_CHECKING:
    from eapo_agents.store import TraceStore
    from evals.demo_report import Phase
    from graphs.agent import Agent

STATE = "phases.json"
MIN_HELD_OUT = 300


@dataclass(slots=True)
class DemoRun:
    """A demo under way: what is done, and the agent with the weights reached so far."""

    recipe: Recipe
    folder: Path
    store: TraceStore
    progress: Progress
    done: dict[str, Phase] = field(default_factory=dict)
    _agent: Agent | None = None

    @property
    def agent(self) -> Agent:
        """Loaded when first needed, with the policy that the last finished training phase left."""
        if self._agent is None:
            policies = [phase["policy"] for phase in self.done.values() if "policy" in phase]
            adapter = str(self.folder / policies[-1]) if policies else None
            settings = self.recipe.policy.model_copy(update={"adapter": adapter})
            self._agent = load_agent(
                self.recipe.model_copy(update={"policy": settings}), self.progress
            )
        return self._agent

    def phase(self, name: str, what: str, work: Callable[[], Phase]) -> Phase:
        """Runs a phase unless it is done, and keeps its result."""
        if name in self.done:
            self.progress.say(f"{what}: done before")
            return self.done[name]
        self.progress.say(what)
        _ = self.agent  # loading is no part of the phase's time
        started = time.perf_counter()
        result = work()
        result["seconds"] = time.perf_counter() - started
        self.done[name] = result
        write_atomically(self.folder / STATE, json.dumps(self.done, indent=1) + "\n")
        return result


def run_demo(
    recipe: Recipe, folder: Path, *, progress: Progress = SILENT
) -> tuple[dict[str, object], str]:
    """Run or continue the demo in `folder`; return its report as an object and as Markdown, which
    are also written there (report.json, report.md, report.html)."""
    refuse_untrained(recipe)
    if recipe.warm_start is None or recipe.eval.problems < MIN_HELD_OUT:
        raise RecipeError(
            "The demo needs a recipe with a warm_start section and eval.problems of at least "
            f"{MIN_HELD_OUT}: use cpu-smol or one like it."
        )
    from eapo_agents.store import TraceStore

    with locked(folder):
        save_recipe(recipe, folder, progress)
        with TraceStore.open(str(folder / "traces.db"), create=True) as store:
            run = DemoRun(
                recipe=recipe,
                folder=folder,
                store=store,
                progress=progress,
                done=_read_state(folder),
            )
            _phases(run)
    from evals.demo_report import demo_page, demo_report

    found = demo_report(
        run.done,
        model=recipe.policy.model,
        recipe=recipe.name,
        seed=recipe.seed,
        base_examples=len(recipe.eval.base_examples),
    )
    report = asdict(found)
    write_atomically(folder / "report.json", json.dumps(report, indent=1) + "\n")
    return report, demo_page(found).write(folder)


def _phases(run: DemoRun) -> None:
    shown = [(e.question, e.answer) for e in run.recipe.eval.base_examples]
    run.phase(
        "base",
        f"Base model, tool-free, {len(shown)} examples shown, held-out problems",
        lambda: _evaluate(run, "base", shown),
    )
    run.phase("warm_start", "Warm start: scripted episodes teach the format", lambda: _warm(run))
    run.phase("before", "Before: warm-started policy, tool-free", lambda: _evaluate(run, "before"))
    run.phase("collect", "Collect trajectories with experts", lambda: _collect(run))
    run.phase("train_logged", "Train from the logged traces", lambda: _train_logged(run))
    run.phase("train_live", "Train live, the experts fading out", lambda: _train_live(run))
    run.phase("after", "After: trained policy, tool-free", lambda: _evaluate(run, "after"))


def _evaluate(run: DemoRun, name: str, examples: Sequence[tuple[str, str]] = ()) -> Phase:
    part = task_part(run.recipe, examples=examples)
    scores = score_policy(run.agent, part, run.store, name, run.progress)
    return cast("Phase", {"scores": {name: score.to_json() for name, score in scores.items()}})


def _warm(run: DemoRun) -> Phase:
    problems = warm_start_problems(run.recipe)
    policy, num_episodes = warm_start_into(
        run.agent, problems, run.folder / "warm_start", run.progress
    )
    return {"policy": str(policy.relative_to(run.folder)), "episodes": num_episodes}


def _collect(run: DemoRun) -> Phase:
    settings = run.recipe.warm_start
    skipped = settings.problems if settings and settings.practice is None else 0
    wanted = run.recipe.collect.problems
    problems = problems_of(run.recipe, "train", skipped + wanted)[skipped:]
    experts = expert_file(run.recipe, run.folder)
    collect_into(run.agent, run.store, "collect", 1, problems, experts, run.progress)
    return cast("Phase", tally_of(run.store, "collect").summary())


def _train_logged(run: DemoRun) -> Phase:
    from trainers.run import usable_groups

    usable = usable_groups(run.agent, logged_groups(run.store, "collect"), run.progress.warn)
    out = run.folder / "train_logged"
    policy = train_logged_into(run.agent, usable, out, progress=run.progress)
    return {"policy": str(policy.relative_to(run.folder)), "history": read_history(out)}


def _train_live(run: DemoRun) -> Phase:
    problems = problems_of(run.recipe, "train", None)
    out = run.folder / "train_live"
    experts = expert_file(run.recipe, run.folder)
    policy = train_live_into(
        run.agent, problems, run.store, "train_live", out, experts, run.progress
    )
    return {"policy": str(policy.relative_to(run.folder)), "history": read_history(out)}


def _read_state(folder: Path) -> dict[str, Phase]:
    try:
        state: dict[str, Phase] = json.loads((folder / STATE).read_text())
    except FileNotFoundError:
        return {}
    return state
