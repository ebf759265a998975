"""Training runs: live or from logged traces, evaluated on the way."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.errors import RecipeError
from eapo_agents.files import write_atomically
from eapo_agents.progress import IS_MAIN, SILENT, Progress
from eapo_agents.recipe import Recipe
from eapo_agents.runs.evaluation import score_policy
from eapo_agents.runs.evaluation_plan import task_part
from eapo_agents.runs.folder import (
    EVALS,
    RECIPE,
    RESULT,
    STEPS,
    TRACES,
    VERDICTS,
    append_line,
    expert_file,
    read_history,
    refuse_other_recipe,
    save_recipe,
)
from eapo_agents.runs.job_progress import TRAINING
from eapo_agents.runs.loading import (
    load_agent,
    logged_groups,
    problems_of,
    quiet_libraries,
    refuse_people,
    refuse_untrained,
)
from eapo_agents.runs.lock import locked
from eapo_agents.runs.warm_starting import keep_fresh_model, taught
from eapo_agents.types import Problem, RolloutGroup

if TYPE_CHECKING:
    from eapo_agents.store import TraceStore
    from evals.results import Score
    from graphs.agent import Agent
    from trainers.dry_run import Plan

TRACED = "traces.json"
"""The traces that a run is on, where it has no rollouts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a training run left."""

    policy: str
    """The trained policy's folder."""
    steps: int
    """Optimizer steps that the weights have seen."""
    weights: str
    """Fingerprint of the weights."""
    rollouts: int
    expert_calls: int
    expert_calls_withheld: int
    sampled_tokens: int
    history: Sequence[Mapping[str, float]]
    """The figures of each training step."""
    seconds: float
    collected: Mapping[str, int] | None = None
    """What the traces had cost that it is on, and how often it went through them; None for a run
    with rollouts."""


def train(
    recipe: Recipe,
    out: Path,
    *,
    from_traces: str | None = None,
    run_id: str | None = None,
    progress: Progress = SILENT,
) -> Trained:
    """Train live, or from logged traces; the same call continues.

    Args:
        from_traces: a trace store to learn from, in place of rollouts.
        run_id: one run of it; by default all its collections.
    """
    started = time.perf_counter()
    refuse_untrained(recipe)
    groups = _read_traces(from_traces, run_id) if from_traces is not None else None
    before = _finished(recipe, out, groups)
    if before is not None:
        progress.say(
            f"The run in '{out}' is finished ({before.steps} optimizer steps): nothing to do."
        )
        return before
    if groups is not None:
        agent, folder = _from_traces(recipe, out, groups, progress)
    else:
        agent, folder = _live(recipe, out, progress)
    history = read_history(out)
    # each pass over traces has what they had cost again
    passes = recipe.train.epochs if groups is not None else 1

    def total(name: str) -> int:
        return round(sum(step[name] for step in history) / passes)

    version = agent.engine.policy_version
    trained = Trained(
        policy=str(folder),
        steps=version.step,
        weights=version.weights,
        rollouts=total("rollouts"),
        expert_calls=total("experts/calls"),
        expert_calls_withheld=total("experts/withheld"),
        sampled_tokens=total("sampled_tokens"),
        history=history,
        seconds=time.perf_counter() - started,
        collected={
            "expert_calls": total("experts/calls"),
            "sampled_tokens": total("sampled_tokens"),
            "passes": passes,
        }
        if groups is not None
        else None,
    )
    write_atomically(out / RESULT, json.dumps(asdict(trained), indent=1) + "\n")
    return trained


def dry_run(recipe: Recipe, num_processes: int) -> Plan:
    """Return what a live run will take at most."""
    refuse_untrained(recipe)
    quiet_libraries()
    from trainers.dry_run import plan

    return plan(recipe, num_processes)


def _finished(recipe: Recipe, out: Path, groups: Sequence[RolloutGroup] | None) -> Trained | None:
    """Return what a finished run left; None where there is something to do.

    Raises:
        RecipeError: the folder holds a run of another recipe, or on other traces.
    """
    if (out / RECIPE).exists():
        refuse_other_recipe(recipe, out)
        _refuse_other_traces(out, groups)
    if not (out / RESULT).exists():
        return None
    found = Trained(**json.loads((out / RESULT).read_text()))
    last = max((step["step"] for step in found.history), default=0)
    return found if groups is not None or last >= recipe.train.steps else None


def _refuse_other_traces(out: Path, groups: Sequence[RolloutGroup] | None) -> None:
    file = out / TRACED
    known = json.loads(file.read_text())["digest"] if file.exists() else None
    if known != _digest(groups):
        raise RecipeError(
            f"'{out}' holds a run on other {'rollouts' if known is None else 'traces'}: give "
            "another --out, or delete the folder to start again."
        )


def _digest(groups: Sequence[RolloutGroup] | None) -> str | None:
    """Return a name for exactly these traces."""
    if groups is None:
        return None
    trajectories = [t for group in groups for t in group.trajectories_G]
    said = [
        (t.problem.id, t.rollout, t.global_step, t.policy.weights, t.reward, t.answer)
        for t in trajectories
    ]
    return hashlib.blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()


def _read_traces(store_at: str, run_id: str | None) -> list[RolloutGroup]:
    from eapo_agents.store import TraceStore

    with TraceStore.open(store_at) as store:
        return logged_groups(store, run_id)


def _from_traces(
    recipe: Recipe, out: Path, groups: Sequence[RolloutGroup], progress: Progress
) -> tuple[Agent, Path]:
    agent = load_agent(recipe, progress)
    from trainers.run import usable_groups

    usable = usable_groups(agent, groups, progress.warn)
    with locked(out):
        save_recipe(recipe, out, progress)
        write_atomically(out / TRACED, json.dumps({"digest": _digest(groups)}) + "\n")
        keep_fresh_model(recipe, out)
        return agent, train_logged_into(agent, usable, out, progress=progress)


def _live(recipe: Recipe, out: Path, progress: Progress) -> tuple[Agent, Path]:
    from eapo_agents.store import TraceStore

    if recipe.train.method in ("logged", "none"):
        raise RecipeError(
            f"train.method is '{recipe.train.method}', and a live run learns from rollouts or "
            "by distillation: give --from-traces with a store that `eapo collect` made, or "
            "use `eapo study`, which collects by itself."
        )
    problems = problems_of(recipe, "train", None)
    agent = load_agent(_with_its_model(recipe, out, progress), progress)
    from trainers.run import refuse_unfit_problems

    refuse_unfit_problems(recipe, problems)
    refuse_people(agent.pool, "train")
    with locked(out):
        save_recipe(recipe, out, progress)
        with TraceStore.open(str(out / TRACES), create=True) as store:
            experts = expert_file(recipe, out)
            return agent, train_live_into(agent, problems, store, "train", out, experts, progress)


def _with_its_model(recipe: Recipe, out: Path, progress: Progress) -> Recipe:
    """Return the recipe with its model, which is made first where it has to be."""
    if not recipe.policy.awaits_model:
        return recipe
    with locked(out):
        return taught(recipe, out, progress)


def train_live_into(
    agent: Agent,
    problems: Sequence[Problem],
    store: TraceStore,
    run_id: str,
    out: Path,
    experts: Path,
    progress: Progress = SILENT,
) -> Path:
    """Train live, with the rollouts in `store` and the ledger in the file `experts`; return the
    trained policy's folder."""
    from trainers.run import train_live

    recipe = agent.recipe
    store.start_run(
        run_id,
        kind="train",
        recipe=recipe.model_dump(mode="json"),
        sampling=agent.sampling,
        policy=agent.engine.policy_version,
    )
    agent.pool.open(experts, run_id)
    with training_bar(recipe.train.steps, out, progress) as on_step:
        after_step = _evaluation_every(agent, store, out)
        logged = _replayed(agent, progress)
        return train_live(agent, problems, store, out, run_id, on_step, after_step, logged)


def train_logged_into(
    agent: Agent,
    usable: Sequence[RolloutGroup],
    out: Path,
    evaluated_in: TraceStore | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Train on logged groups; return the trained policy's folder. The policy is evaluated on the
    way where the recipe wants that and there is a store for it."""
    from trainers.run import train_logged

    after_step = _evaluation_every(agent, evaluated_in, out) if evaluated_in is not None else None
    with training_bar(None, out, progress) as on_step:
        return train_logged(agent, usable, out, on_step, after_step)


def evaluator(
    agent: Agent, store: TraceStore, out: Path, progress: Progress = SILENT
) -> Callable[[int], dict[str, Score]]:
    """Return a function of a step: the tool-free scores of the present weights on the recipe's
    held-out problems, by condition, which it also keeps in the folder's evals.jsonl. The share of
    right answers of each problem is kept in verdicts.jsonl, for the examples of a report."""
    part = task_part(agent.recipe, pool=agent.pool)

    def at(step: int) -> dict[str, Score]:
        # a run that was killed between checkpoints may come to a step again with other weights
        weights = agent.engine.policy_version.weights
        scores = score_policy(agent, part, store, f"eval/{step}/{weights}", progress)
        found = {name: score.summary() for name, score in scores.items()}
        append_line(out / EVALS, {"step": step, "scores": found})
        right = {name: score.per_problem for name, score in scores.items()}
        append_line(out / VERDICTS, {"step": step, "weights": weights, "right": right})
        return scores

    return at


def _evaluation_every(agent: Agent, store: TraceStore, out: Path) -> Callable[[int], None] | None:
    """What training calls after each step, where the recipe wants it evaluated."""
    every = agent.recipe.eval.every
    if every is None or not IS_MAIN:
        return None
    evaluate_at = evaluator(agent, store, out)

    def after_step(step: int) -> None:
        if step % every == 0:
            evaluate_at(step)

    return after_step


def _replayed(agent: Agent, progress: Progress) -> list[RolloutGroup]:
    """The groups that the recipe's replay draws from."""
    replay = agent.recipe.train.replay
    if replay is None:
        return []
    from eapo_agents.store import TraceStore
    from trainers.run import usable_groups

    with TraceStore.open(replay.store) as store:
        return usable_groups(agent, logged_groups(store, replay.run_id), progress.warn)


@contextmanager
def training_bar(
    total: int | None, folder: Path, progress: Progress
) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """Keep each step's figures in the folder's steps.jsonl and tell the reward and the
    consultations. A guard rail that is crossed is told once, in a short run at its end."""
    from evals.guards import findings

    history = read_history(folder) if (folder / STEPS).exists() else []
    told: set[str] = set()
    has_stepped = False

    def tell(step: float, found: Sequence[str]) -> None:
        for finding in found:
            if (kind := finding.partition(":")[0]) not in told:
                told.add(kind)
                progress.warn(f"  step {step:g}: {finding}")

    with progress.bar(TRAINING, total) as bar:

        def on_step(step: int, metrics: dict[str, float]) -> None:
            nonlocal has_stepped
            has_stepped = True
            append_line(folder / STEPS, {"step": step, **metrics})
            # what was run again after an interruption takes the place of what was lost
            while history and history[-1]["step"] >= step:
                history.pop()
            history.append({"step": step, **metrics})
            tell(step, findings(history))
            note = (
                f"reward {metrics.get('reward', float('nan')):.2f} "
                f"asking {metrics['consultation_rate']:.0%} rho {metrics.get('rho', 0):.2f}"
            )
            bar.at(step, total, note)

        yield on_step
        if has_stepped:  # a finished run that is given again has told it
            tell(history[-1]["step"], findings(history, ended=True))
