"""HumanEval+: HumanEval's functions on 80 times as many inputs.

Source: evalplus/humanevalplus_release (Apache-2.0; HumanEval's part MIT), HumanEvalPlus.jsonl.gz.
Scored as evalplus 0.3.1 does: outputs compared with the reference's (evals/evalplus_oracle.py).
`base` is HumanEval's inputs, `plus` needs those and the further ones.
"""

from __future__ import annotations

from functools import partial

from eapo_agents.types import Problem
from evals.benchmark import Benchmark, Record
from evals.benchmarks.humaneval import PROMPT
from evals.evalplus_oracle import EvalPlusGrader


def _problem(record: Record, number: int) -> Problem:
    for key in ("base_input", "plus_input", "atol", "canonical_solution"):
        record[key]  # a record without it is HumanEval's own
    if str(record["task_id"]).startswith("Mbpp/"):
        raise ValueError("this is MBPP+'s file: --benchmark mbppplus")
    prompt = str(record["prompt"])
    return Problem(
        id=str(record["task_id"]),
        question=PROMPT.format(prompt=prompt),
        answer=str(record["canonical_solution"]),
        grader="evalplus",
        metadata={"prompt": prompt, "entry_point": str(record["entry_point"])},
    )


HUMANEVAL_PLUS = Benchmark(
    name="humanevalplus",
    title="HumanEval+",
    version="2",
    hub=None,
    file="evalplus/HumanEvalPlus.jsonl.gz",
    licence="Apache-2.0, MIT",
    obtain=(
        "Download HumanEvalPlus.jsonl.gz (v0.1.10) from the releases of "
        "github.com/evalplus/humanevalplus_release."
    ),
    problem=_problem,
    grader=partial(EvalPlusGrader, "humaneval"),
    metric="plus_pass@1",
    pass_at=(1, 10, 100),
    runs_code=True,
    needs_all=True,
    ignores_unknown=True,
    published={"EAPO, leaderboard (EvalPlus)": 88.04},
)
