"""Why seeds of the scale model differ: what the last answers alone of a study's policies got wrong,
and how often they are right where the warm start showed their sum by itself, and where not.

    eapo study scale-model --arms eapo,distillation --seeds 5 --out runs/study
    python benchmarks/studies/scale_model_errors.py runs/study eapo distillation
"""

import re
import sys
from collections import Counter
from pathlib import Path

from eapo_agents.cli.commands import problems_of
from eapo_agents.cli.progress import EVALS, read_history
from eapo_agents.recipe_file import load_recipe
from eapo_agents.store import TraceStore
from eapo_agents.types import Problem, Trajectory
from evals.runner import SAMPLED

STEP = re.compile(r"(\d+) ([+*]) (\d+) = (\d+)")


def operands(problem: Problem) -> tuple[int, int, int]:
    """a, b, c of `a + b * c`."""
    a, b, c = map(int, re.findall(r"\d+", problem.metadata["expression"]))
    return a, b, c


def mistake(trajectory: Trajectory) -> str:
    """The first thing that is wrong in an answer."""
    if trajectory.correct:
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
    """Sampled answers alone, at the end of an arm."""
    step = int(read_history(folder, EVALS)[-1]["step"])
    with TraceStore.open(folder / "traces.db") as store:
        return [
            stored.trajectory
            for stored in store.trajectories()
            if re.fullmatch(rf"eval/{step}(/.*)?/{SAMPLED}", stored.run_id)
        ]


def main(study: Path, arms: list[str]) -> None:
    """A line for each arm of each seed."""
    for seed in range(len(list(study.glob("seed-*")))):
        for arm in arms:
            folder = study / f"seed-{seed}" / arm
            recipe = load_recipe(folder / "recipe.yaml")
            assert recipe.warm_start is not None
            split = "all" if recipe.warm_start.all_operations else "train"
            limit = None if split == "all" else recipe.warm_start.problems
            shown = {(a, b * c) for a, b, c in map(operands, problems_of(recipe, split, limit))}
            answers = last_answers(folder)
            right: dict[bool, list[bool]] = {True: [], False: []}
            for answer in answers:
                a, b, c = operands(answer.problem)
                right[(a, b * c) in shown].append(bool(answer.correct))
            parts = [
                f"{name} {sum(found)}/{len(found)} ({sum(found) / len(found):.1%})"
                for name, found in (("sum shown", right[True]), ("not shown", right[False]))
                if found
            ]
            wrong = Counter(map(mistake, answers))
            del wrong["right"]
            print(f"seed {seed}, {arm}: {', '.join(parts)}; {dict(wrong.most_common())}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
