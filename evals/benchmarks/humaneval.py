"""HumanEval: 164 Python functions to write from their signature and docstring.

Source: hub openai/openai_humaneval; upstream file openai/human-eval, data/HumanEval.jsonl.gz (MIT).
Upstream's script runs prompt + completion + test for 3 seconds; here the test program runs behind
its own wall (eapo_agents.sandbox), with the same verdicts. It refuses samples that leave
problems out, and reports pass@1, 10 and 100 where there are enough. Greedy by default.
"""

from __future__ import annotations

from eapo_agents.grading import Grade, code
from eapo_agents.types import Problem
from evals.benchmark import Benchmark, GradePrediction, Hub, Loaded, Prediction, Record

PROMPT = (
    "Write a Python function that completes the following code. Reply with the whole function, "
    "with its imports, in one code block.\n\n```python\n{prompt}```"
)


def _problem(record: Record, number: int) -> Problem:
    prompt = str(record["prompt"])
    return Problem(
        id=str(record["task_id"]),
        question=PROMPT.format(prompt=prompt),
        answer=str(record.get("canonical_solution", "")),
        grader="code",
        metadata={
            "prompt": prompt,
            "test": str(record["test"]),
            "entry_point": str(record["entry_point"]),
        },
    )


def program_of(problem: Problem, prediction: Prediction) -> str:
    """Return the whole program of a prediction; a bare completion continues the prompt."""
    if prediction.completion is not None:
        return code.find_program(prediction.completion, problem)
    if prediction.answer is not None:
        return prediction.answer
    return str(problem.metadata["prompt"]) + (prediction.continuation or "")


def _grader(loaded: Loaded) -> GradePrediction:
    def graded(problem: Problem, prediction: Prediction) -> Grade:
        return code.code_answer(program_of(problem, prediction), problem)

    return graded


HUMANEVAL = Benchmark(
    name="humaneval",
    title="HumanEval",
    version="2",
    hub=Hub(repo="openai/openai_humaneval", split="test"),
    file="humaneval/HumanEval.jsonl.gz",
    licence="MIT",
    problem=_problem,
    grader=_grader,
    metric="pass@1",
    pass_at=(1, 10, 100),
    runs_code=True,
    needs_all=True,
    published={"EAPO, leaderboard": 91.56},
)
