"""Tables: studies of every task, kind of help, method and budget of one file, and one report.

A task with a kind of help is a study in a folder of its own, which every command opens as one. Its
base policy of a seed is made once, for all methods and budgets:

    OUT/study.json  OUT/report.{html,md,json}
    OUT/sums/plan/study.json  OUT/sums/plan/seed-0/base/  OUT/sums/plan/seed-0/eapo-200/

The same call continues where it stopped, as that of a study. A file may gain cells and seeds;
what has begun with other settings is refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import chain

from eapo_agents.errors import RecipeError, UsageError
from eapo_agents.files import write_atomically
from eapo_agents.progress import SILENT, Progress
from eapo_agents.recipe import Recipe
from eapo_agents.recipe_file import Layer, fixed_part, load_recipe, load_recipe_under
from eapo_agents.recipe_help import HINTED, learns_from_solutions, may_ask
from eapo_agents.recipe_rules import is_own
from eapo_agents.runs.folder import RECIPE
from eapo_agents.runs.loading import refuse_untrained
from eapo_agents.runs.lock import locked
from eapo_agents.runs.studies import BASE, SETTINGS, Job, Jobs, run_all
from eapo_agents.runs.study_reports import Report
from eapo_agents.runs.table_file import Cell, TableFile

_SHARED = ("warm_start", "policy", "task", "tools")
"""Sections that shape a base policy, or what it is compared on: a method may not change them."""


@dataclass(kw_only=True)
class TableStudy(Jobs):
    """The studies of a table."""

    table: TableFile
    overrides: Sequence[str] = ()
    """`key.sub=value`, laid over every cell."""
    seeds: int
    _num_train: dict[str, int] = field(default_factory=dict)
    """Task, as its section says -> how many problems it has to train on."""

    @cached_property
    def recipes(self) -> dict[Cell, Recipe]:
        """The recipe of every cell that is run, with seed 0. Of a method that asks nobody there is
        one cell for all budgets.

        Raises:
            RecipeError: a cell's recipe cannot be, or does not fit its base policy.
        """
        found: dict[Cell, Recipe] = {}
        for wanted in self.table.cells():
            if any(left_out.has(wanted) for left_out in self.table.without):
                continue
            cell, recipe = self._resolved(wanted)
            if cell not in found:
                _refuse_other_base(cell, recipe, self.base_recipes[self.base_of(cell)])
                found[cell] = recipe
        if not found:
            raise RecipeError(f"The table '{self.table.file}' leaves out every cell: run one.")
        return found

    @cached_property
    def base_recipes(self) -> dict[Cell, Recipe]:
        """The recipe of every task and help, with seed 0, as its base policy is made."""
        methods = list(self.table.methods)
        return {
            cell: self._load(cell, self.table.layers(cell, base=True), BASE)
            for task in self.table.tasks
            for help_ in self.table.helps
            for cell in [Cell(task=task, help=help_, method=methods[0])]
        }

    def base_of(self, cell: Cell) -> Cell:
        """Return the key in `base_recipes` of a cell's base policy."""
        help_ = self.table.helps[cell.help].base or cell.help
        return Cell(task=cell.task, help=help_, method=next(iter(self.table.methods)))

    def _load(self, cell: Cell, layers: Sequence[Layer], arm: str) -> Recipe:
        try:
            name = f"{cell.help}-{arm}"
            return load_recipe_under(
                self.table.recipe_of(cell), layers, [*self.overrides, "seed=0"], name=name
            )
        except RecipeError as error:
            raise RecipeError(f"In the table's cell {cell.block}, {arm}: {error}") from error

    def _resolved(self, cell: Cell) -> tuple[Cell, Recipe]:
        """Return a cell with its recipe; without a budget where it asks nobody."""
        layers = self.table.layers(cell)
        recipe = self._load(cell, layers, cell.arm)
        if cell.calls is None:
            return cell, recipe
        if not asks(recipe):
            free = Cell(task=cell.task, help=cell.help, method=cell.method)
            return free, self._load(free, self.table.layers(free), free.arm)
        planned = planned_for(recipe, cell.calls, self.num_train(recipe))
        return cell, self._load(cell, [*layers, *planned], cell.arm)

    def num_train(self, recipe: Recipe) -> int:
        """Return how many problems a recipe's task has to train on."""
        key = recipe.task.model_dump_json()
        if key not in self._num_train:
            self._num_train[key] = len(recipe.task.load("train", recipe.seed))
        return self._num_train[key]

    def bases(self) -> list[Job]:
        if not self.recipes:
            return []
        used = dict.fromkeys(self.base_of(cell) for cell in self.recipes)
        return [
            self._job(cell, BASE, seed, self.base_recipes[cell])
            for seed in range(self.seeds)
            for cell in used
            if self.base_recipes[cell].warm_start is not None
        ]

    def runs(self) -> list[Job]:
        """Return the jobs seed by seed, so that what has ended can be compared."""
        return [
            self._job(cell, cell.arm, seed, recipe)
            for seed in range(self.seeds)
            for cell, recipe in self.recipes.items()
        ]

    def _job(self, cell: Cell, arm: str, seed: int, recipe: Recipe) -> Job:
        base = self.folder / self.base_of(cell).block / f"seed-{seed}" / BASE
        found = recipe.model_copy(update={"seed": seed})
        if arm != BASE and recipe.warm_start is not None:
            begun = {"adapter": str(base / "policy")}
            if recipe.policy.fresh is not None:
                begun["model"] = str(base / "fresh")
            policy = recipe.policy.model_copy(update=begun)
            found = found.model_copy(update={"policy": policy})
        folder = self.folder / cell.block / f"seed-{seed}" / arm
        return Job(arm=arm, seed=seed, recipe=found, folder=folder, base=base, block=cell.block)


def asks(recipe: Recipe) -> bool:
    """Return whether a recipe's training calls experts."""
    consult = recipe.consult
    if recipe.train.method == "none":
        return False
    if learns_from_solutions(recipe):
        return True
    if is_own(recipe.graph) or recipe.graph in HINTED:
        return bool(consult.experts) and consult.solo_share < 1
    return may_ask(recipe)


def planned_for(recipe: Recipe, calls: int, num_train: int) -> list[str]:
    """Return the settings with which a recipe makes at most so many expert calls in training.

    A log has fewer problems then, and passes over them as often as it takes to train as long.

    Args:
        num_train: problems that the task has.

    Raises:
        RecipeError: the recipe cannot keep to the budget.
    """
    train, consult = recipe.train, recipe.consult
    if train.method == "distillation" or (train.method != "logged" and not is_own(recipe.graph)):
        return [f"train.expert_calls={calls}"]
    if is_own(recipe.graph):
        raise RecipeError(
            f"How often '{recipe.graph}' asks experts is not known, so that it cannot be planned "
            "for a number of calls: leave table.calls out."
        )
    from trainers.dry_run import most_calls_of_rollout

    size = recipe.collect.num_generations
    helped = size - round(consult.solo_share * size)
    of_problem = helped * most_calls_of_rollout(recipe, 1)
    problems = min(calls // of_problem, num_train)
    if problems < train.problems_per_step:
        raise RecipeError(
            f"With {calls} expert calls, of which a problem may take {of_problem}, a log has "
            f"{problems} problems, and a training step takes {train.problems_per_step} "
            "(train.problems_per_step): raise the calls, or lower collect.num_generations."
        )
    before = min(recipe.collect.problems, num_train)
    epochs = max(1, round(train.epochs * before / problems))
    return [f"collect.problems={problems}", f"train.epochs={epochs}"]


def _refuse_other_base(cell: Cell, recipe: Recipe, base: Recipe) -> None:
    """Raise RecipeError where a cell would begin with a policy that was made for another recipe, or
    would not be evaluated as others are."""
    differing = [key for key in _SHARED if getattr(recipe, key) != getattr(base, key)]
    if recipe.eval.model_copy(update={"every": None}) != base.eval.model_copy(
        update={"every": None}
    ):
        differing.append("eval")
    if _offered(recipe) != _offered(base):
        differing.append("consult (which experts are offered)")
    if recipe.train.lora and base.train.lora and recipe.train.lora != base.train.lora:
        differing.append("train.lora")
    if differing:
        raise RecipeError(
            f"In the table's cell {cell.block}, {cell.arm}: {differing[0]} is not as in the recipe "
            f"of the base policy that it begins with ({base.name}): change it in the task, or in a "
            "help without 'base', since those have base policies and evaluations of their own."
        )


def _offered(recipe: Recipe) -> tuple[object, ...]:
    """Return what the warm start shows of whom to ask."""
    consult = recipe.consult
    names = sorted(name for name, expert in consult.experts.items() if expert.offered)
    return names, consult.routing, consult.ask_all


def check(wanted: TableStudy, progress: Progress = SILENT) -> None:
    """Look at every cell before anything starts: recipes, tasks, experts, rewards, models.

    Raises:
        RecipeError, TaskError, UsageError: what does not fit, and in which cell.
    """
    from eapo_agents.runs import checking
    from eapo_agents.runs.loading import warm_start_problems
    from graphs.agent import make_pool
    from trainers.warm_start_episodes import refuse_misfit

    recipes = wanted.recipes
    looked_at: set[str] = set()
    for cell in dict.fromkeys(wanted.base_of(cell) for cell in recipes):
        base = wanted.base_recipes[cell]
        for finding in checking.check(base):
            if finding.verdict == "blocking":
                raise RecipeError(
                    f"In the table's cell {cell.block}, {finding.part}: {finding.says}."
                )
        if base.warm_start is not None:
            refuse_misfit(base, warm_start_problems(base))
        elif base.policy.awaits_model:
            raise RecipeError(
                f"In the table's cell {cell.block}: policy.fresh is a model that knows nothing, "
                "and the recipe has no warm_start section: add one, or name a policy.model."
            )
    for cell, recipe in recipes.items():
        refuse_untrained(recipe)
        experts = recipe.consult.model_dump_json()
        if experts not in looked_at:
            looked_at.add(experts)
            make_pool(recipe)
        if wanted.num_train(recipe) < recipe.train.problems_per_step:
            raise RecipeError(
                f"In the table's cell {cell.block}, {cell.arm}: train.problems_per_step is "
                f"{recipe.train.problems_per_step}, and the task has {wanted.num_train(recipe)} "
                "problems to train on: lower it, or add problems."
            )
    for job in chain(wanted.bases(), wanted.runs()):
        _refuse_changed(job)
    progress.say(f"{len(recipes)} cells are checked.")


def _refuse_changed(job: Job) -> None:
    """Raise RecipeError where a job has begun with other settings."""
    file = job.folder / RECIPE
    if not file.exists():
        return
    begun = load_recipe(file)
    kept, wanted = (_compared(recipe) for recipe in (begun, job.recipe))
    if kept != wanted:
        differing = sorted(key for key in wanted if kept.get(key) != wanted[key])
        raise RecipeError(
            f"'{job.folder}' has begun with other settings ({', '.join(differing)} differ from its "
            f"{RECIPE}): use another --out, or delete that folder to run it again."
        )


def _compared(recipe: Recipe) -> dict[str, object]:
    found = fixed_part(recipe)
    found["train"] = recipe.train.model_dump(mode="json")
    # where the base policy lies depends on how --out is written
    if recipe.warm_start is not None:
        del found["policy"]["adapter"], found["policy"]["model"]
    return found


def table_study(wanted: TableStudy, *, progress: Progress = SILENT) -> Report:
    """Check everything, run or continue a table, and write its report.

    Raises:
        RecipeError: the folder holds something else, or a cell cannot be.
        ErrorBudgetError: jobs failed. The others have their results, and the report has them.
    """
    from eapo_agents.runs.table_forecast import forecast

    _refuse_other_folder(wanted)
    check(wanted, progress)
    progress.say(forecast(wanted).told())
    with locked(wanted.folder):
        _keep_settings(wanted)
        return run_all(wanted, progress)


def _refuse_other_folder(wanted: TableStudy) -> None:
    file = wanted.folder / SETTINGS
    if file.exists() and "table" not in json.loads(file.read_text()):
        raise UsageError(f"'{wanted.folder}' holds a study of arms: use another --out.")


def _keep_settings(wanted: TableStudy) -> None:
    """Write study.json of the table and of each of its studies. Cells and seeds that were run
    before, and that the file no longer has, stay in them."""
    file = wanted.folder / SETTINGS
    kept = json.loads(file.read_text())["table"] if file.exists() else {}
    cells = [{**asdict(cell), "arm": cell.arm} for cell in wanted.recipes]
    cells = [*cells, *(cell for cell in kept.get("cells", []) if cell not in cells)]
    table = {
        "cells": cells,
        "seeds": max(wanted.seeds, kept.get("seeds", 0)),
        "against": wanted.table.against,
        "without": [
            {**{key: sorted(names) for key, names in one.where.items()}, "because": one.because}
            for one in wanted.table.without
        ],
    }
    settings = {"recipe": str(wanted.table.file), "overrides": list(wanted.overrides)}
    arms = [f"{cell['task']}/{cell['help']}/{cell['arm']}" for cell in cells]
    write_atomically(file, json.dumps({**settings, "arms": arms, "table": table}, indent=1) + "\n")
    by_block: dict[str, list[str]] = {}
    for cell in cells:
        by_block.setdefault(f"{cell['task']}/{cell['help']}", []).append(str(cell["arm"]))
    for block, of_block in by_block.items():
        write_atomically(
            wanted.folder / block / SETTINGS,
            json.dumps({**settings, "arms": of_block}, indent=1) + "\n",
        )
