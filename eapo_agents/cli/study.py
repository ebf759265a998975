"""`eapo study`: arms x seeds of a recipe, several at once, and one report.

Every seed has a base policy (the warm start), every arm of it a folder and a process of its own:

    OUT/study.json  seed-0/base/  seed-0/eapo/{recipe.yaml, steps.jsonl, evals.jsonl, result.json}
    OUT/report.{html,md,json}

The same command goes on where it stopped: what has a result is not run again, a training that was
cut off goes on from its checkpoint.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eapo_agents.cli.progress import STEPS, console, read_history
from eapo_agents.errors import ErrorBudgetError, RecipeError, UsageError
from eapo_agents.files import write_atomically
from eapo_agents.recipe import Recipe
from eapo_agents.recipe_file import load_recipe, to_yaml

SETTINGS, RESULT, RECIPE, LOG = "study.json", "result.json", "recipe.yaml", "log.txt"
BASE = "base"
_POLL_S = 1.0


@dataclass(slots=True)
class Job:
    """One arm of one seed, or a seed's base policy."""

    arm: str
    seed: int
    recipe: Recipe
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.arm}, seed {self.seed}"

    @property
    def done(self) -> bool:
        """Whether it has its result."""
        return (self.folder / RESULT).exists()


@dataclass(slots=True, kw_only=True)
class Study:
    """What is to be run, and how much of it at once."""

    recipe: str
    overrides: Sequence[str]
    arms: Sequence[str]
    seeds: int
    folder: Path
    at_once: int
    failed: list[Job] = field(default_factory=list)

    def recipe_of(self, arm: str, seed: int) -> Recipe:
        """The recipe of an arm, on its seed's base policy.

        Raises:
            RecipeError: there is no such recipe or arm, or they do not fit.
        """
        base = self.folder / f"seed-{seed}" / BASE
        name = self.recipe if arm == BASE else f"{self.recipe}+{arm}"
        recipe = load_recipe(name, [*self.overrides, f"seed={seed}"])
        if arm == BASE or recipe.warm_start is None:
            return recipe
        policy: dict[str, Any] = {"adapter": str(base / "policy")}
        if recipe.policy.fresh is not None:
            policy["model"] = str(base / "fresh")
        return recipe.model_copy(update={"policy": recipe.policy.model_copy(update=policy)})

    def jobs(self, arms: Sequence[str]) -> list[Job]:
        """All seeds of these arms, seed by seed."""
        return [
            Job(
                arm=arm,
                seed=seed,
                recipe=self.recipe_of(arm, seed),
                folder=self.folder / f"seed-{seed}" / arm,
            )
            for seed in range(self.seeds)
            for arm in arms
        ]


def run_study(study: Study, *, as_json: bool) -> None:
    """Runs or resumes a study, and writes its report.

    Raises:
        RecipeError: the folder holds another study, or an arm does not fit.
        ErrorBudgetError: arms failed; the others have their results, and the report has them.
    """
    if BASE in study.arms or len(set(study.arms)) < len(study.arms):
        raise RecipeError(
            f"A study's arms must differ from each other and from '{BASE}', which every study "
            f"has: got {', '.join(study.arms)}."
        )
    jobs = study.jobs(study.arms)
    _keep_settings(study)
    if jobs[0].recipe.warm_start is not None:
        run_jobs(study, study.jobs([BASE]))
    lost = {job.seed for job in study.failed}
    run_jobs(study, [job for job in jobs if job.seed not in lost])
    report(study.folder, as_json=as_json)
    if study.failed:
        first = study.failed[0]
        raise ErrorBudgetError(
            f"{len(study.failed)} jobs of the study failed (first: {first.name}; "
            f"{last_line(first.folder)}): mend the cause and run the same command again."
        )


def run_jobs(study: Study, jobs: Sequence[Job]) -> None:
    """Runs what has no result yet, `study.at_once` processes at a time."""
    from rich.live import Live

    waiting = [job for job in jobs if not job.done]
    running: list[Job] = []
    try:
        with Live(console=console, refresh_per_second=1, transient=True) as live:
            while waiting or running:
                while waiting and len(running) < study.at_once:
                    job = waiting.pop(0)
                    start(job, study.at_once)
                    running.append(job)
                time.sleep(_POLL_S)
                for job in [job for job in running if has_ended(job)]:
                    running.remove(job)
                    if not job.done:
                        study.failed.append(job)
                    _tell(job)
                live.update(_progress(running, len(waiting)))
    finally:
        for job in running:
            assert job.process is not None
            job.process.terminate()
        for job in running:
            assert job.process is not None
            job.process.wait()


def start(job: Job, at_once: int) -> None:
    """Starts a job's process, with its share of the cores."""
    job.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(job.folder / RECIPE, to_yaml(job.recipe))
    threads = max(1, (os.cpu_count() or 1) // at_once)
    words = [str(job.folder), job.arm, str(os.getpid())]
    command = [sys.executable, "-m", "eapo_agents.cli.study_job", *words]
    with (job.folder / LOG).open("ab") as log:
        job.process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )


def has_ended(job: Job) -> bool:
    """Whether its process is gone."""
    return job.process is not None and job.process.poll() is not None


def last_line(folder: Path) -> str:
    """What a job said last."""
    lines = (folder / LOG).read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _tell(job: Job) -> None:
    if not job.done:
        console.print(f"{job.name}: failed ({last_line(job.folder)})", markup=False)
        return
    result = json.loads((job.folder / RESULT).read_text())
    found = f"{result['final']['sampled']['accuracy']:.1%} alone" if "final" in result else "ready"
    console.print(f"{job.name}: {found}, {result['seconds']:.0f} s", markup=False)


def _progress(running: Sequence[Job], num_waiting: int) -> Any:
    from rich.table import Table

    table = Table(box=None, show_header=False)
    for job in running:
        table.add_row(job.name, *_state(job))
    table.add_row("waiting", str(num_waiting), "")
    return table


def _state(job: Job) -> tuple[str, str]:
    if not (job.folder / STEPS).exists():
        return "starting", ""
    history = read_history(job.folder)
    if not history:
        return "starting", ""
    last = history[-1]
    return (
        f"step {last['step']:.0f} of {job.recipe.train.steps}",
        f"alone {last.get('solo/accuracy', float('nan')):.0%} "
        f"asking {last['consultation_rate']:.0%} rho {last.get('rho', 0):.2f}",
    )


def _keep_settings(study: Study) -> None:
    file = study.folder / SETTINGS
    settings = {"recipe": study.recipe, "overrides": list(study.overrides)}
    if file.exists():
        kept = json.loads(file.read_text())
        if {key: kept.get(key) for key in settings} != settings:
            raise RecipeError(
                f"'{study.folder}' holds a study of another recipe or other settings "
                f"({kept.get('recipe')}): give another --out, or delete the folder."
            )
        arms = [*kept["arms"], *(arm for arm in study.arms if arm not in kept["arms"])]
    else:
        arms = list(study.arms)
    study.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps({**settings, "arms": arms}, indent=1) + "\n")


def report(folder: Path, *, as_json: bool) -> None:
    """Writes report.json, report.md and report.html into a run's or a study's folder, and prints
    one of them."""
    from eapo_agents.cli.run_records import read_runs
    from evals.study import study_html, study_markdown, summarise

    runs = read_runs(folder)
    if not runs:
        raise UsageError(f"The study in '{folder}' has no results yet: run it further.")
    summary = summarise(runs)
    markdown = study_markdown(summary)
    write_atomically(folder / "report.json", json.dumps(summary, indent=1) + "\n")
    write_atomically(folder / "report.md", markdown)
    write_atomically(folder / "report.html", study_html(summary, runs))
    print(json.dumps(summary) if as_json else markdown)
