"""Studies: arms x seeds of a recipe, several at once, and one report.

Every seed has a base policy (the warm start). Every arm of a seed has its own folder and process:

    OUT/study.json  seed-0/base/  seed-0/eapo/{recipe.yaml, steps.jsonl, evals.jsonl, result.json}
    OUT/report.{html,md,json}

The same call continues where it stopped: an arm with a result is not run again, and a training
that was cut off continues from its checkpoint.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.errors import ErrorBudgetError, RecipeError
from eapo_agents.files import write_atomically
from eapo_agents.progress import SILENT, Progress
from eapo_agents.recipe import Recipe
from eapo_agents.recipe_file import load_recipe, to_yaml
from eapo_agents.runs.folder import RECIPE
from eapo_agents.runs.loading import refuse_untrained
from eapo_agents.runs.lock import locked

if TYPE_CHECKING:
    from eapo_agents.runs.study_reports import Report

SETTINGS, RESULT, LOG = "study.json", "result.json", "log.txt"
BASE = "base"
_POLL_S = 1.0
_ENDING_S = 60.0


@dataclass(slots=True)
class Job:
    """One arm of one seed, or a seed's base policy."""

    arm: str
    seed: int
    recipe: Recipe
    folder: Path
    base: Path | None = None
    """Folder of the job that makes the policy which this one begins with."""
    block: str = ""
    """Of a table: the task and the help."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """The arm and its seed, for people."""
        block = f"{self.block}, " if self.block else ""
        return f"{block}{self.arm}, seed {self.seed}"

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return (self.folder / RESULT).exists()


@dataclass(slots=True, kw_only=True)
class Jobs(ABC):
    """Jobs in a folder, and how many processes at once."""

    folder: Path
    at_once: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Number of processes at once."""
    on_look: Callable[[Sequence[Job], int], None] = lambda running, num_waiting: None
    """Called every second with the jobs that run and the number that wait."""
    failed: list[Job] = field(default_factory=list)

    @abstractmethod
    def bases(self) -> list[Job]:
        """Return the jobs that make the policies which the runs begin with: none without a warm
        start."""

    @abstractmethod
    def runs(self) -> list[Job]:
        """Return the jobs of the arms, in the order in which they are begun."""


@dataclass(slots=True, kw_only=True)
class Study(Jobs):
    """The arms of one recipe on some seeds."""

    recipe: str
    overrides: Sequence[str]
    arms: Sequence[str]
    seeds: int

    def recipe_of(self, arm: str, seed: int) -> Recipe:
        """Return the recipe of an arm, on its seed's base policy.

        Raises:
            RecipeError: there is no such recipe or arm, or they do not fit.
        """
        base = self.folder / f"seed-{seed}" / BASE
        name = self.recipe if arm == BASE else f"{self.recipe}+{arm}"
        recipe = load_recipe(name, [*self.overrides, f"seed={seed}"])
        if arm == BASE or recipe.warm_start is None:
            return recipe
        policy = {"adapter": str(base / "policy")}
        if recipe.policy.fresh is not None:
            policy["model"] = str(base / "fresh")
        return recipe.model_copy(update={"policy": recipe.policy.model_copy(update=policy)})

    def jobs(self, arms: Sequence[str]) -> list[Job]:
        """Return the jobs of these arms, seed by seed."""
        return [
            Job(
                arm=arm,
                seed=seed,
                recipe=self.recipe_of(arm, seed),
                folder=self.folder / f"seed-{seed}" / arm,
                base=self.folder / f"seed-{seed}" / BASE,
            )
            for seed in range(self.seeds)
            for arm in arms
        ]

    def runs(self) -> list[Job]:
        return self.jobs(self.arms)

    def bases(self) -> list[Job]:
        return [job for job in self.jobs([BASE]) if job.recipe.warm_start is not None]


def check(wanted: Study) -> None:
    """Raise RecipeError if an arm does not fit."""
    if BASE in wanted.arms or len(set(wanted.arms)) < len(wanted.arms):
        raise RecipeError(
            f"A study's arms must differ from each other and from '{BASE}', the policy that all "
            f"begin with: got {', '.join(wanted.arms)}."
        )
    for job in wanted.runs():
        refuse_untrained(job.recipe)


def study(wanted: Study, *, progress: Progress = SILENT) -> Report:
    """Run or continue a study, and write its report.

    Raises:
        RecipeError: the folder holds another study, or an arm does not fit.
        ErrorBudgetError: arms failed. The others have their results, and the report has them.
    """
    check(wanted)
    with locked(wanted.folder):
        _keep_settings(wanted)
        return run_all(wanted, progress)


def run_all(wanted: Jobs, progress: Progress) -> Report:
    """Run the base policies and then the arms, and write the report. Arms without a base policy,
    since it failed, are not run.

    Raises:
        ErrorBudgetError: jobs failed. The report has the others.
    """
    jobs = wanted.runs()
    if all(job.done for job in jobs):
        progress.say(f"The study in '{wanted.folder}' is finished: nothing was run.")
    run_jobs(wanted, wanted.bases(), progress)
    lost = {job.folder for job in wanted.failed}
    run_jobs(wanted, [job for job in jobs if job.base not in lost], progress)
    from eapo_agents.runs.study_reports import report

    written = report(wanted.folder)
    if wanted.failed:
        first = wanted.failed[0]
        raise ErrorBudgetError(
            f"{len(wanted.failed)} jobs of the study failed (first: {first.name}; "
            f"{last_line(first.folder)}): remove the cause and run the same command again."
        )
    return written


def run_jobs(wanted: Jobs, jobs: Sequence[Job], progress: Progress) -> None:
    """Run the jobs without a result, `wanted.at_once` processes at a time."""
    waiting = [job for job in jobs if not job.done]
    running: list[Job] = []
    try:
        while waiting or running:
            while waiting and len(running) < wanted.at_once:
                job = waiting.pop(0)
                start(job, wanted.at_once)
                running.append(job)
            time.sleep(_POLL_S)
            for job in [job for job in running if has_ended(job)]:
                running.remove(job)
                if not job.done:
                    wanted.failed.append(job)
                _tell(job, progress)
            wanted.on_look(running, len(waiting))
    finally:
        for job in running:
            assert job.process is not None
            job.process.terminate()
        for job in running:
            assert job.process is not None
            try:
                job.process.wait(_ENDING_S)
            except subprocess.TimeoutExpired:  # some thread of it does not end: it can be killed
                job.process.kill()
                job.process.wait()


def start(job: Job, at_once: int) -> None:
    """Start a job's process with its share of the cores."""
    job.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(job.folder / RECIPE, to_yaml(job.recipe))
    words = [str(job.folder), job.arm, str(os.getpid())]
    command = [sys.executable, "-m", "eapo_agents.runs.study_job", *words]
    with (job.folder / LOG).open("ab") as log:
        job.process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": str(num_threads(at_once))},
        )


def num_threads(at_once: int) -> int:
    """Return the threads of each of so many jobs at once; OMP_NUM_THREADS may ask for fewer."""
    share = max(1, (os.cpu_count() or 1) // at_once)
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(share, int(wanted))) if wanted.isdecimal() else share


def has_ended(job: Job) -> bool:
    """Return whether the job's process has ended."""
    return job.process is not None and job.process.poll() is not None


def last_line(folder: Path) -> str:
    """Return the last line of a job's output."""
    lines = (folder / LOG).read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it printed nothing"


def _tell(job: Job, progress: Progress) -> None:
    if not job.done:
        progress.warn(f"{job.name}: failed ({last_line(job.folder)})")
        return
    result = json.loads((job.folder / RESULT).read_text())
    scores = list(result.get("final", {}).values())  # none of a base policy
    found = f"{scores[0]['score']:.1%} tool-free" if scores else ""
    progress.say(f"{job.name}: {found or 'ready'}, {result['seconds']:.0f} s")


def _keep_settings(study: Study) -> None:
    file = study.folder / SETTINGS
    settings = {"recipe": study.recipe, "overrides": list(study.overrides)}
    if file.exists():
        kept = json.loads(file.read_text())
        if {key: kept.get(key) for key in settings} != settings:
            raise RecipeError(
                f"'{study.folder}' holds a study of another recipe or other settings "
                f"({kept.get('recipe')}): use another --out, or delete the folder."
            )
        arms = [*kept["arms"], *(arm for arm in study.arms if arm not in kept["arms"])]
    else:
        arms = list(study.arms)
    write_atomically(file, json.dumps({**settings, "arms": arms}, indent=1) + "\n")
