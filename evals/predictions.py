"""Reads answers that were made elsewhere, in each benchmark's upstream format.

- HumanEval, EvalPlus: JSONL of task_id and completion (continues the prompt) or solution (a whole
  program). Several lines for a task are its samples.
- HotpotQA: the official JSON, {"answer": {id: text}, "sp": {id: [[title, sentence], ...]}}.
- All: JSONL of id and completion (everything that was written) or answer (only the answer).
  SimpleQA and HLE also take a judge's grade. An id is the problem's own, or the number of its
  record, counted from 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eapo_agents.errors import BenchmarkError
from eapo_agents.types import Problem
from evals.benchmark import Benchmark, Prediction, Record
from evals.sources import read_records, read_text

_GRADES = {
    "a": "correct",
    "b": "incorrect",
    "c": "not_attempted",
    "correct": "correct",
    "incorrect": "incorrect",
    "not_attempted": "not_attempted",
    "not attempted": "not_attempted",
    "yes": "correct",
    "no": "incorrect",
    "true": "correct",
    "false": "incorrect",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """Predictions by problem."""

    by_problem: Mapping[str, tuple[Prediction, ...]]
    names: Mapping[str, str]
    """Problem id -> the id that the file has for it."""
    ignored: int = 0
    """Number of predictions for problems that are not in the gold file, if upstream ignores
    those."""


def read_predictions(benchmark: Benchmark, problems: Sequence[Problem], path: Path) -> Matched:
    """Return all predictions of a file, matched with the benchmark's problems.

    Raises:
        BenchmarkError: the file is unreadable or has another format, or an id is unknown or
            there twice.
    """
    if path.is_dir():
        return _match(benchmark, problems, path, _folder(benchmark, path))
    records: Sequence[Record]
    if path.name.removesuffix(".gz").endswith(".json"):
        records = _json(benchmark, path)
    else:
        records = read_records(path)
    return _match(benchmark, problems, path, records)


def _json(benchmark: Benchmark, path: Path) -> list[Record]:
    """Read the official HotpotQA object, or a list of records."""
    import json

    text = read_text(path)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("{") and "\n" in text.strip():
            from evals.sources import read_lines

            return read_lines(text, path)
        raise BenchmarkError(f"'{path}' is not JSON: {error}.") from error
    if isinstance(found, list):
        return read_records(path)
    if isinstance(found, dict) and benchmark.name.startswith("hotpotqa"):
        return _hotpot(found, path)
    if isinstance(found, dict):
        return [found] if "id" in found or "task_id" in found else _plain(found, path)
    raise BenchmarkError(f"'{path}' holds {type(found).__name__}: give JSON objects, one a line.")


def _plain(found: dict[str, object], path: Path) -> list[Record]:
    """Read {id: answer}."""
    if not all(isinstance(value, str | int | float) for value in found.values()):
        raise BenchmarkError(
            f"'{path}' is one JSON object of another format: give JSONL, each line with an id and "
            "a completion or answer."
        )
    return [{"id": key, "answer": str(value)} for key, value in found.items()]


def _hotpot(found: dict[str, object], path: Path) -> list[Record]:
    answers, facts = found.get("answer", {}), found.get("sp", {})
    if not isinstance(answers, dict) or not isinstance(facts, dict) or not (answers or facts):
        raise BenchmarkError(
            f"'{path}' is not HotpotQA's prediction format: a JSON object with 'answer' (id -> "
            "text) and, where there are any, 'sp' (id -> [[title, sentence], ...]) is needed."
        )
    records: list[Record] = []
    for key in answers.keys() | facts.keys():
        record: dict[str, object] = {"id": key}
        if key in answers:
            record["answer"] = answers[key]
        if key in facts:
            record["sp"] = facts[key]
        records.append(record)
    return records


def _folder(benchmark: Benchmark, path: Path) -> list[Record]:
    """Read evalplus's other format: a folder for each task with 0.py, 1.py, ..."""
    files = sorted(
        (f for f in path.glob("*/*.py") if f.stem.isdigit()),
        key=lambda f: (f.parent.name, int(f.stem)),
    )
    if not files or not benchmark.repeats:
        raise BenchmarkError(
            f"'{path}' is a folder without samples (Task_0/0.py, ...): give a file of predictions."
        )
    return [{"task_id": f.parent.name.replace("_", "/"), "solution": read_text(f)} for f in files]


def _match(
    benchmark: Benchmark, problems: Sequence[Problem], path: Path, records: Sequence[Record]
) -> Matched:
    known: dict[str, Problem] = {str(number): p for number, p in enumerate(problems)}
    known |= {problem.id: problem for problem in problems}
    found: dict[str, list[Prediction]] = {}
    names: dict[str, str] = {}
    unknown: list[str] = []
    for number, record in enumerate(records, start=1):
        name = _id(record, path, number)
        problem = known.get(name)
        if problem is None:
            unknown.append(name)
            continue
        if problem.id in found and not benchmark.repeats:
            raise BenchmarkError(
                f"'{path}' has two predictions for '{name}' (record {number}): {benchmark.title} "
                "is scored on one per problem, so remove one."
            )
        found.setdefault(problem.id, []).append(_prediction(benchmark, record, path, number))
        names[problem.id] = name
    if unknown and (not benchmark.name.startswith("hotpotqa") or not found):
        # HotpotQA's script looks up only its gold records and ignores other predictions
        raise BenchmarkError(
            f"'{path}' has {len(unknown)} predictions for problems that the gold file does not "
            f"have (first: '{unknown[0]}'; its first problem is '{problems[0].id}'): give the gold "
            "file that the predictions were made for."
        )
    if not found:
        raise BenchmarkError(f"'{path}' holds no predictions: give one JSON object a line.")
    if benchmark.needs_all and len(found) < len(problems):
        missing = [p.id for p in problems if p.id not in found]
        raise BenchmarkError(
            f"'{path}' leaves out {len(missing)} of {len(problems)} problems (first: "
            f"'{missing[0]}'), which {benchmark.title}'s own script refuses: add a sample for "
            "each, an empty one if there is none."
        )
    by_problem = {key: tuple(value) for key, value in found.items()}
    return Matched(by_problem=by_problem, names=names, ignored=len(unknown))


def _id(record: Record, path: Path, number: int) -> str:
    for key in ("task_id", "id", "_id", "unique_id", "problem_id"):
        if key in record and isinstance(record[key], str | int) and str(record[key]).strip():
            return str(record[key])
    raise BenchmarkError(
        f"Record {number} of '{path}' has no id: each needs 'id' (or 'task_id') and what was "
        f"answered, got the keys {', '.join(map(str, record)) or 'none'}."
    )


def _prediction(benchmark: Benchmark, record: Record, path: Path, number: int) -> Prediction:
    facts = record.get("sp")
    supporting = _facts(facts, path, number) if facts is not None else None
    grade = record.get("grade", record.get("judge"))
    if benchmark.judged and grade is not None:
        verdict = _GRADES.get(str(grade).strip().lower())
        if verdict is None:
            raise BenchmarkError(
                f"Record {number} of '{path}' has the grade '{grade}': A or CORRECT, B or "
                "INCORRECT, C or NOT_ATTEMPTED are known."
            )
        return Prediction(verdict=verdict)
    completion = "continuation" if benchmark.repeats else "completion"
    for key, kind in (
        ("solution", "answer"),
        ("completion", completion),
        ("answer", "answer"),
        ("prediction", "answer"),
        ("response", "completion"),
    ):
        value = record.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and kind == "answer":
            value = str(value)
        if isinstance(value, str):
            return Prediction(**{kind: value}, supporting_facts=supporting)
        if value is not None:
            raise BenchmarkError(
                f"Record {number} of '{path}' has a {key} that is {type(value).__name__}: a text "
                "is needed; several samples are several lines."
            )
    if supporting is not None:
        return Prediction(supporting_facts=supporting)
    wanted = "completion or solution" if benchmark.repeats else "completion or answer"
    wanted += ", or a grade" if benchmark.judged else ""
    raise BenchmarkError(
        f"Record {number} of '{path}' has nothing to score: it needs {wanted}, got the keys "
        f"{', '.join(map(str, record))}."
    )


def _facts(facts: object, path: Path, number: int) -> list[tuple[str, int]]:
    try:
        if isinstance(facts, Iterable):
            return [(str(title), int(sentence)) for title, sentence in facts]
    except (TypeError, ValueError):
        pass
    raise BenchmarkError(
        f"Record {number} of '{path}' has supporting facts that are not a list of [title, sentence "
        "number] pairs."
    )
