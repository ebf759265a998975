"""EvalPlus: expected outputs, and the rules that decide whether an output is right.

evalplus supplies tasks, inputs, special oracles and tolerance. Its version 0.3.1 decides each
verdict; this module reaches the same verdicts from outside the process that ran the code. Its
oddities are kept, since people compare with its figures:

- a call may take four times what the reference took, at least one second, and all calls 60;
- a tolerance that is set for one float stays for the rest of the task's inputs;
- HumanEval/32 counts as failed whatever is returned: its special oracle moves to the next input
  and never notes that this one passed.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from eapo_agents.errors import BenchmarkError
from eapo_agents.files import cache_folder
from eapo_agents.grading import Grade
from eapo_agents.grading.code import the_sandbox
from eapo_agents.sandbox import (
    Inputs,
    Outcome,
    Sample,
    Sandbox,
    Verdict,
    reference_values,
    run_inputs,
)
from eapo_agents.sandbox.inside.values import brief_text, from_text, to_text
from eapo_agents.types import Problem
from evals.benchmark import Loaded, Prediction, Record

_REFERENCE_S = 120.0
_FORMAT = 5
_MAX_KEPT_CHARS = 1 << 17
"""Longer outputs are kept as a digest, and computed again when a sample's digest differs."""
_MIN_DECODED_BYTES = 1 << 20
_MAX_COMPARED = 10_000_000
"""Numbers that are compared at once: shapes that are stretched to each other could be huge."""
_DIGEST = "sha256:"
_LONG = b'{"h"'
"""A value that crossed as a digest."""
WITHHELD = ("open",)
Arguments = Sequence[object]
"""Arguments of one call."""


def evalplus_parts() -> Any:
    """Return evalplus's tables of special oracles.

    Raises:
        BenchmarkError: evalplus is not installed.
    """
    try:
        from evalplus.eval import _special_oracle
    except ImportError as error:
        raise BenchmarkError(
            "HumanEval+ and MBPP+ need evalplus: pip install 'eapo-agents[bench]'."
        ) from error
    return _special_oracle


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """One set of inputs of a task, what the reference returned, and how long it took."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    seconds: tuple[float, ...]
    floats: frozenset[int]
    """Indices of the outputs that are a float, or a list of floats."""
    briefs: Mapping[int, str]
    """Of long outputs, as `brief_text` writes them."""

    def limits(self) -> Inputs:
        """Return the inputs with evalplus's time limits."""
        limits_s = [max(1.0, 4.0 * s) for s in self.seconds]
        return Inputs(texts=self.inputs, limits_s=limits_s, total_s=min(60.0, sum(limits_s)) + 1.0)


class OutputOracle:
    """Decides for one task and set of inputs; one for each sample, since a tolerance sticks."""

    def __init__(
        self,
        dataset: str,
        record: Record,
        expected: Expected,
        again: Callable[[str], str],
        *,
        brief: bool,
    ) -> None:
        """Take `again`, which computes the reference's output for an input, and whether long values
        come as digests."""
        self._dataset, self._entry_point = dataset, str(record["entry_point"])
        self._atol = float(record["atol"])
        self._expected = expected
        self._again, self._brief = again, brief
        self.is_open = False
        """Whether all that is known of a value is another digest than the right one's: it may be
        equal none the less, as 1 and 1.0 are."""
        self._special = evalplus_parts()
        self._whole = self._entry_point in (
            "are_equivalent",
            "sum_div",
            "surface_Area",
            "digit_distance_nums",
            *self._special.MBPP_OUTPUT_SET_EQ_TASKS,
            *self._special.MBPP_OUTPUT_NOT_NONE_TASKS,
        )

    def accepts(self, index: int, line: bytes) -> bool:
        """Return whether a line's value is right for an input."""
        text = self._expected.outputs[index]
        if self._atol == 0 and index in self._expected.floats:
            self._atol = 1e-6
        if self._brief and line.startswith(_LONG) and not text.startswith(_LONG.decode()):
            self.is_open = line != self._expected.briefs.get(index, "").encode("ascii")
            return not self.is_open
        if not self._whole and "NaN" not in text:
            if line == text.encode("ascii"):
                return True
            if text.startswith(_DIGEST) and _digest(line) == text:
                return True
        if text.startswith(_DIGEST):
            text = self._again(self._expected.inputs[index])
        if len(line) > _MIN_DECODED_BYTES + 4 * len(text):
            return False  # no other writing of the right value is so long
        try:
            exp = from_text(text)
            return self._right(from_text(line.decode("ascii")), exp, index)
        except Exception:  # a value that raises when it is compared is not the right one
            return False

    def _right(self, out: Any, exp: Any, index: int) -> bool:
        exact: object = out == exp
        if self._dataset == "mbpp":
            exact = self._mbpp(out, exp, index, exact)
        if not exact and self._atol != 0:
            if type(out) is not type(exp):
                return False
            if isinstance(exp, list | tuple) and len(out) != len(exp):
                return False
            if math.prod(np.broadcast_shapes(np.shape(out), np.shape(exp))) > _MAX_COMPARED:
                return False
            # numpy's own default for assert_allclose, as evalplus has it
            return bool(np.allclose(out, exp, rtol=1e-07, atol=self._atol))
        return bool(exact)

    def _mbpp(self, out: Any, exp: Any, index: int, exact: object) -> object:
        name, special = self._entry_point, self._special
        if name == "are_equivalent":
            return True
        if name == "sum_div":
            return exact or out == 0
        if name == "surface_Area":
            return exact or abs(out - special._surface_Area(*self._input(index))) <= self._atol
        if name == "digit_distance_nums":
            return exact or out == special._digit_distance_nums(*self._input(index))
        if name in special.MBPP_OUTPUT_SET_EQ_TASKS:
            return set(out) == set(exp)
        if name in special.MBPP_OUTPUT_NOT_NONE_TASKS:
            return out == exp if isinstance(out, bool) else exp == (out is not None)
        return exact

    def _input(self, index: int) -> Any:
        return from_text(self._expected.inputs[index])


def _is_floats(value: object) -> bool:
    if isinstance(value, float):
        return True
    if isinstance(value, list | tuple) and value:
        return all(isinstance(item, float) for item in value)
    return isinstance(value, np.ndarray) and value.dtype in (np.float64, np.float32)


class EvalPlusGrader:
    """Grades samples of HumanEval+ (`humaneval`) or MBPP+ (`mbpp`). Thread-safe."""

    def __init__(self, dataset: str, loaded: Loaded) -> None:
        self._dataset = dataset
        self._records = {str(record["task_id"]): record for record in loaded.records}
        self._digest = loaded.digest

    def __call__(self, problem: Problem, prediction: Prediction) -> Grade:
        """Grade as `GradePrediction` says. Details: `base` and `plus`; plus needs both."""
        from evals.benchmarks.humaneval import program_of

        base, plus = self.outcomes(problem.id, program_of(problem, prediction))
        if self._dataset == "humaneval" and problem.metadata["entry_point"] == "find_zero":
            passed = {"base": 0.0, "plus": 0.0}
            note = "evalplus 0.3.1 counts this task as failed whatever is returned"
        else:
            passed = {"base": float(base.passed), "plus": float(base.passed and plus.passed)}
            note = base.detail or plus.detail
        verdicts = {base.verdict, plus.verdict}
        return Grade(
            score=passed["plus"],
            formatted=True,
            details=passed,
            note=note,
            undecided=Verdict.UNDECIDED in verdicts and Verdict.FAILED not in verdicts,
        )

    def expected_seconds(self, problem: Problem) -> float:
        """Return how many seconds the reference takes on all inputs."""
        return sum(sum(expected.seconds) for expected in self.expected[problem.id])

    def outcomes(self, task_id: str, program: str) -> tuple[Outcome, Outcome]:
        """Return the outcomes on the base inputs and on the plus inputs."""
        record, expected = self._records[task_id], self.expected[task_id]
        sample = Sample(code=program, entry_point=str(record["entry_point"]), withheld=WITHHELD)

        def again(text: str) -> str:
            values, _ = reference_values(
                the_sandbox(), _reference(record), [text], _REFERENCE_S, while_one_waits=True
            )
            return values[0]

        for brief in (True, False):
            oracles = [OutputOracle(self._dataset, record, e, again, brief=brief) for e in expected]
            sets = [(e.limits(), o.accepts) for e, o in zip(expected, oracles, strict=True)]
            base, plus = run_inputs(the_sandbox(), sample, sets, brief=brief)
            if not any(oracle.is_open for oracle in oracles):
                break
        return base, plus

    @cached_property
    def expected(self) -> dict[str, tuple[Expected, Expected]]:
        """What the reference solutions return, computed once for each file and then cached."""
        file = cache_folder() / f"evalplus-{self._dataset}-{self._digest[:16]}-{_FORMAT}.json.gz"
        if (found := _read_cache(file)) is not None:
            return found
        from concurrent.futures import ThreadPoolExecutor

        sandbox = the_sandbox()
        with ThreadPoolExecutor(sandbox.num_workers) as threads:
            sets = list(threads.map(lambda r: self._references(sandbox, r), self._records.values()))
        expected = dict(zip(self._records, sets, strict=True))
        _write_cache(file, expected)
        return expected

    def _references(self, sandbox: Sandbox, record: Record) -> tuple[Expected, Expected]:
        base, plus = (
            self._expect(sandbox, record, record[name]) for name in ("base_input", "plus_input")
        )
        return base, plus

    def _expect(self, sandbox: Sandbox, record: Record, inputs: Sequence[Arguments]) -> Expected:
        if self._dataset == "mbpp":
            from evalplus.data.mbpp import mbpp_deserialize_inputs

            inputs = mbpp_deserialize_inputs(record["task_id"], inputs)
        texts = [to_text(list(arguments)) for arguments in inputs]
        sample = _reference(record)
        outputs, seconds = reference_values(sandbox, sample, texts, _REFERENCE_S)
        if sample.entry_point in evalplus_parts().MBPP_OUTPUT_NOT_NONE_TASKS:
            outputs = [to_text(from_text(output) is not None) for output in outputs]
        floats = frozenset(i for i, o in enumerate(outputs) if _is_floats(from_text(o)))
        kept = (o if len(o) <= _MAX_KEPT_CHARS else _unequal_or_digest(o) for o in outputs)
        return Expected(
            inputs=tuple(texts),
            outputs=tuple(kept),
            seconds=tuple(seconds),
            floats=floats,
            briefs={i: brief for i, o in enumerate(outputs) if (brief := _brief(o)) is not None},
        )


def _reference(record: Record) -> Sample:
    return Sample(
        code=str(record["prompt"]) + str(record["canonical_solution"]),
        entry_point=str(record["entry_point"]),
    )


def _brief(output: str) -> str | None:
    """Return the digest that stands for a long output; None of one that crosses as it is, or does
    not equal itself."""
    if output.startswith(_LONG.decode()) or "NaN" in output:
        return None
    brief = brief_text(from_text(output))
    return brief if brief.startswith(_LONG.decode()) else None


def _unequal_or_digest(output: str) -> str:
    """Return a long output's digest. NaN equals nothing, so no line has the digest of such ones."""
    return f"{_DIGEST}NaN" if "NaN" in output else _digest(output.encode("ascii"))


def _digest(line: bytes) -> str:
    return _DIGEST + hashlib.sha256(line).hexdigest()


def _read_cache(file: Path) -> dict[str, tuple[Expected, Expected]] | None:
    try:
        found = json.loads(gzip.decompress(file.read_bytes()))
        body, checksum = found["expected"], found["sha256"]
        if hashlib.sha256(json.dumps(body).encode()).hexdigest() != checksum:
            return None
        return {task: (_expected(base), _expected(plus)) for task, (base, plus) in body.items()}
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None  # absent or damaged: the outputs are computed again


class _Kept(TypedDict):
    """`Expected` in the cache."""

    inputs: list[str]
    outputs: list[str]
    seconds: list[float]
    floats: list[int]
    briefs: dict[str, str]


def _expected(data: _Kept) -> Expected:
    return Expected(
        inputs=tuple(data["inputs"]),
        outputs=tuple(data["outputs"]),
        seconds=tuple(data["seconds"]),
        floats=frozenset(data["floats"]),
        briefs={int(index): brief for index, brief in data["briefs"].items()},
    )


def _write_cache(file: Path, expected: Mapping[str, tuple[Expected, Expected]]) -> None:
    body = {
        task: [
            {
                "inputs": e.inputs,
                "outputs": e.outputs,
                "seconds": [_rounded(s) for s in e.seconds],
                "floats": sorted(e.floats),
                "briefs": {str(index): brief for index, brief in e.briefs.items()},
            }
            for e in sets
        ]
        for task, sets in expected.items()
    }
    checksum = hashlib.sha256(json.dumps(body).encode()).hexdigest()
    data = json.dumps({"sha256": checksum, "expected": body}).encode()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        temporary.write_bytes(gzip.compress(data, compresslevel=1))
        temporary.replace(file)
    except OSError:
        return  # without a cache the outputs are computed again


def _rounded(seconds: float) -> float:
    return math.ceil(seconds * 1e6) / 1e6
