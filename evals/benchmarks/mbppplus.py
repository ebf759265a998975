"""MBPP+: 378 short Python tasks with many inputs.

Source: evalplus/mbppplus_release (Apache-2.0), MbppPlus.jsonl.gz. Scored as evalplus 0.3.1 does;
see humanevalplus.py.
"""

from __future__ import annotations

from functools import partial

from eapo_agents.types import Problem
from evals.benchmark import Benchmark, Record
from evals.evalplus_oracle import EvalPlusGrader

PROMPT = (
    "Write a Python function for this task, and reply with the whole function, with its imports, "
    "in one code block.\n\n{task}"
)


def _problem(record: Record, number: int) -> Problem:
    for key in ("base_input", "plus_input", "atol", "canonical_solution"):
        record[key]
    if str(record["task_id"]).startswith("HumanEval/"):
        raise ValueError("this is HumanEval+'s file: --benchmark humanevalplus")
    prompt = str(record["prompt"])
    return Problem(
        id=str(record["task_id"]),
        question=PROMPT.format(task=prompt.strip().strip('"').strip()),
        answer=str(record["canonical_solution"]),
        grader="evalplus",
        metadata={"prompt": prompt, "entry_point": str(record["entry_point"])},
    )


MBPP_PLUS = Benchmark(
    name="mbppplus",
    title="MBPP+",
    version="2",
    hub=None,
    file="evalplus/MbppPlus.jsonl.gz",
    licence="Apache-2.0",
    obtain=(
        "Download MbppPlus.jsonl.gz (v0.2.0) from the releases of "
        "github.com/evalplus/mbppplus_release."
    ),
    problem=_problem,
    grader=partial(EvalPlusGrader, "mbpp"),
    metric="plus_pass@1",
    pass_at=(1, 10, 100),
    runs_code=True,
    needs_all=True,
    ignores_unknown=True,
)
