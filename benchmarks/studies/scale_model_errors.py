"""Why seeds of the scale model differ: what the last answers alone of a study's policies got wrong,
how often they are right where the warm start showed their sum by itself, and where not; and how
many of the same products and sums the base policy gets right by themselves.

    eapo study scale-model --arms eapo,distillation --seeds 5 --out runs/study
    python benchmarks/studies/scale_model_errors.py runs/study eapo distillation
"""

import re
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from eapo_agents.grading import grade
from eapo_agents.recipe import Recipe
from eapo_agents.recipe_file import load_recipe
from eapo_agents.runs.evaluation import score_policy
from eapo_agents.runs.evaluation_plan import task_part
from eapo_agents.runs.folder import EVALS, read_history
from eapo_agents.runs.loading import load_agent, problems_of
from eapo_agents.store import TraceStore
from eapo_agents.tasks.arithmetic import make_problem
from eapo_agents.types import Problem, Trajectory
from evals.conditions import SOLO

STEP = re.compile(r"(\d+) ([+*]) (\d+) = (\d+)")


def operands(problem: Problem) -> tuple[int, int, int]:
    """a, b, c of `a + b * c`."""
    a, b, c = map(int, re.findall(r"\d+", problem.metadata["expression"]))
    return a, b, c


def is_right(trajectory: Trajectory) -> bool:
    """Return whether the answer is."""
    return grade(trajectory.answer or "", trajectory.problem).correct


def mistake(trajectory: Trajectory) -> str:
    """The first thing that is wrong in an answer."""
    if is_right(trajectory):
        return "right"
    a, b, c = operands(trajectory.problem)
    steps = STEP.findall(trajectory.turns[-1].text)
    if [sign for _, sign, _, _ in steps] != ["*", "+"]:
        return "no two steps"
    (b_said, _, c_said, product), (a_said, _, carried, total) = steps
    if {int(b_said), int(c_said)} != {b, c}:
        return "product miscopied"
    if int(product) != b * c:
        return "product wrong"
    if {int(a_said), int(carried)} != {a, b * c}:
        return "sum miscopied"
    return "sum wrong" if int(total) != a + b * c else "answer miscopied"


def last_answers(folder: Path) -> list[Trajectory]:
    """Return the solo answers at the end of an arm."""
    step = int(read_history(folder, EVALS)[-1]["step"])
    with TraceStore.open(folder / "traces.db") as store:
        return [
            stored.trajectory
            for stored in store.trajectories()
            if re.fullmatch(rf"eval/{step}(/.*)?/{SOLO}", stored.run_id)
        ]


def by_itself(recipe: Recipe, expressions: Sequence[str]) -> str:
    """How many single operations the recipe's policy, before training, gets right."""
    agent = load_agent(recipe)
    problems = [make_problem(expression) for expression in dict.fromkeys(expressions)]
    with (
        tempfile.TemporaryDirectory() as folder,
        TraceStore.open(Path(folder) / "t.db", create=True) as store,
    ):
        part = task_part(recipe)
        part = replace(part, loaded=replace(part.loaded, problems=tuple(problems)))
        score = score_policy(agent, part, store, "single")[SOLO]
    return f"{score.score:.1%} of {score.n}"


def describe(folder: Path) -> str:
    """One arm of one seed."""
    answers = last_answers(folder)
    recipe = load_recipe(folder / "recipe.yaml")
    assert recipe.warm_start is not None
    warm = problems_of(recipe, "train", recipe.warm_start.problems)
    shown = {(a, b * c) for a, b, c in map(operands, warm)}
    right: dict[bool, list[bool]] = {True: [], False: []}
    for answer in answers:
        a, b, c = operands(answer.problem)
        right[(a, b * c) in shown].append(is_right(answer))
    parts = [
        f"{name} {sum(found)}/{len(found)} ({sum(found) / len(found):.1%})"
        for name, found in (("sum shown", right[True]), ("not shown", right[False]))
    ]
    wrong = Counter(map(mistake, answers))
    del wrong["right"]
    return f"{', '.join(parts)}; {dict(wrong.most_common())}"


def main(study: Path, arms: Sequence[str]) -> None:
    """Lines for each seed: its base policy, then the arms."""
    for seed in range(len(list(study.glob("seed-*")))):
        folders = [study / f"seed-{seed}" / arm for arm in arms]
        recipe = load_recipe(folders[0] / "recipe.yaml")
        heldout = list(map(operands, problems_of(recipe, "heldout", recipe.eval.problems)))
        products = by_itself(recipe, [f"{b} * {c}" for _, b, c in heldout])
        sums = by_itself(recipe, [f"{a} + {b * c}" for a, b, c in heldout])
        print(f"seed {seed}, by themselves before training: products {products}, sums {sums}")
        for folder in folders:
            print(f"seed {seed}, {folder.name}: {describe(folder)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
