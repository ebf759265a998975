"""Reads answers that were made elsewhere, in each benchmark's upstream format.

- HumanEval, EvalPlus: JSONL of task_id and completion (continues the prompt) or solution (a whole
  program). Several lines for a task are its samples.
- HotpotQA: the official JSON, {"answer": {id: text}, "sp": {id: [[title, sentence], ...]}}.
- All: JSONL of id and completion (everything that was written) or answer (only the answer).
  SimpleQA and HLE also take a judge's grade. An id is the problem's own, or the number of its
  record, counted from 0. Several records of a problem are its samples.

`prediction_files` undoes the nesting of other tools' files, `prediction_fields` decides which field
is the model's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eapo_agents.errors import BenchmarkError
from eapo_agents.types import Problem
from evals.benchmark import Benchmark, Loaded, Prediction, Record, Verdict
from evals.judge import fields_verdict
from evals.matching import Questions, same_options, squeezed
from evals.other_logs import OPTIONS, QUESTION
from evals.prediction_fields import Field, choose_fields, has_field, value_of
from evals.prediction_files import read_file, texts_of
from evals.prediction_options import options_of, refuse_places

_VERDICTS: Mapping[str, Literal["correct", "incorrect", "not_attempted"]] = {
    **dict.fromkeys(("a", "correct", "yes", "true"), "correct"),
    **dict.fromkeys(("b", "incorrect", "no", "false"), "incorrect"),
    **dict.fromkeys(("c", "not_attempted", "not attempted"), "not_attempted"),
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
    fields: tuple[Field, ...] = ()
    """What is graded; none where a judge's grades are given."""

    def num_predictions(self) -> int:
        """Return how many there are of all problems."""
        return sum(map(len, self.by_problem.values()))


def read_predictions(
    benchmark: Benchmark, loaded: Loaded, path: Path, answer_field: str | None = None
) -> Matched:
    """Return all predictions of a file, matched with the benchmark's problems.

    Args:
        answer_field: the field that is the model's, where the file does not tell.

    Raises:
        BenchmarkError: the file is unreadable or has another format, an id is unknown, or the
            model's field cannot be told.
    """
    records = read_file(benchmark, path)
    rows, unknown = _match(benchmark, loaded, path, records)
    fields = choose_fields(benchmark, [row[:3] for row in rows], path, answer_field)
    refuse_places([row[:2] for row in rows], fields, path)
    found: dict[str, list[Prediction]] = {}
    names: dict[str, str] = {}
    for record, problem, _, number in rows:
        names[problem.id] = _id(record) or problem.id
        made = _predictions(benchmark, record, fields, path, number)
        found.setdefault(problem.id, []).extend(made)
    if benchmark.needs_all and len(found) < len(loaded.problems):
        missing = [p.id for p in loaded.problems if p.id not in found]
        raise BenchmarkError(
            f"'{path}' leaves out {len(missing)} of {len(loaded.problems)} problems (first: "
            f"'{missing[0]}'), which {benchmark.title}'s own script refuses: add a sample for "
            "each, an empty one if there is none."
        )
    if not benchmark.runs_code:
        _refuse_doubles(found, len(loaded.problems), names, path)
    by_problem = {key: tuple(value) for key, value in found.items()}
    return Matched(by_problem=by_problem, names=names, ignored=unknown, fields=fields)


def _refuse_doubles(
    found: Mapping[str, Sequence[Prediction]],
    num_problems: int,
    names: Mapping[str, str],
    path: Path,
) -> None:
    """Refuse a file in which equal predictions for a few problems are there twice."""
    most = max(map(len, found.values()))
    if len(found) == num_problems and all(len(made) == most for made in found.values()):
        return
    for key, made in found.items():
        if len(made) > 1 and all(prediction == made[0] for prediction in made):
            raise BenchmarkError(
                f"'{path}' has two predictions for '{names[key]}' that are equal, and other "
                "problems have fewer: several predictions for a problem are its samples, so "
                "remove one, or give every problem as many."
            )


def _match(
    benchmark: Benchmark, loaded: Loaded, path: Path, records: Sequence[Record]
) -> tuple[list[tuple[Record, Problem, Record, int]], int]:
    """Return each record with its problem, gold record and number; and how many have none."""
    pairs = list(zip(loaded.problems, loaded.records, strict=True))
    known = {str(number): pair for number, pair in enumerate(pairs)}
    known |= {problem.id: (problem, gold) for problem, gold in pairs}
    records = [_asked(record) for record in records]
    questions = Questions(pairs) if any(QUESTION in record for record in records) else None
    rows: list[tuple[Record, Problem, Record, int]] = []
    unknown: list[str] = []
    for number, record in enumerate(records, start=1):
        name = _id(record)
        if name is None and QUESTION in record:
            name = str(number)
        if name is None:
            raise BenchmarkError(
                f"Record {number} of '{path}' has no id: each needs 'id' (or 'task_id') and what "
                f"was answered, got the keys {', '.join(map(str, record)) or 'none'}."
            )
        if questions is not None and QUESTION in record:
            found = questions.find(record[QUESTION], name, record.get(OPTIONS))
            if found is None:
                unknown.append(name)
            else:
                _refuse_other_options(record, found[0], number, path)
                rows.append((record, *found, number))
        elif name in known:
            problem, gold = known[name]
            if name != problem.id:
                _refuse_other_question(record, problem, number, path)
            rows.append((_with_options(record, problem, number, path), problem, gold, number))
        else:
            unknown.append(name)
    if unknown and (not benchmark.ignores_unknown or not rows):
        raise BenchmarkError(
            f"'{path}' has {len(unknown)} predictions for problems that the gold file does not "
            f"have (first: '{unknown[0]}'; its first problem is '{loaded.problems[0].id}'): give "
            "the gold file that the predictions were made for."
        )
    if not rows:
        raise BenchmarkError(f"'{path}' holds no predictions: give one JSON object a line.")
    return rows, len(unknown)


def _asked(record: Record) -> Record:
    """Return a record without an id, such as NeMo-Skills' and Qwen2.5-Math's, as one that is found
    by its question."""
    if QUESTION in record or _id(record) is not None:
        return record
    asked = next((record[n] for n in ("problem", "question") if isinstance(record.get(n), str)), "")
    return {**record, QUESTION: asked} if asked.strip() else record


def _refuse_other_question(record: Record, problem: Problem, number: int, path: Path) -> None:
    """Refuse a record that its number gives to a problem with another question: numbers that
    begin anew in each subject, or another order."""
    for name in ("question", "problem"):
        asked = record.get(name)
        if (
            isinstance(asked, str)
            and " " in asked
            and squeezed(asked) not in squeezed(problem.question)
        ):
            raise BenchmarkError(
                f"Record {number} of '{path}' has the number of the problem '{problem.id}', and "
                f"its '{name}' is another one: give the gold file that the predictions were made "
                "for (of MMLU, the subject's), in the same order."
            )


def _with_options(record: Record, problem: Problem, number: int, path: Path) -> Record:
    """Return a record that says which options were shown, in its own order, as one whose letters
    are of those."""
    shown = options_of(record)
    if "choices" not in problem.metadata or not shown:
        return record
    record = {**record, OPTIONS: shown}
    _refuse_other_options(record, problem, number, path)
    return record


def _refuse_other_options(record: Record, problem: Problem, number: int, path: Path) -> None:
    """Refuse a letter that could be of other options."""
    if not same_options(problem, record.get(OPTIONS)):
        raise BenchmarkError(
            f"Sample {number} of '{path}' asks '{problem.id}' with other options, or does not say "
            "which: give the gold file that the predictions were made for."
        )


def _id(record: Record) -> str | None:
    """Return the record's id; a whole float is pandas' way to write an integer."""
    for key in ("task_id", "id", "_id", "unique_id", "problem_id", "doc_id"):
        value = record.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value)
    return None


def _predictions(
    benchmark: Benchmark, record: Record, fields: Sequence[Field], path: Path, number: int
) -> list[Prediction]:
    facts = record.get("sp")
    supporting = _facts(facts, path, number) if facts is not None else None
    verdict = _verdict(record, path, number) if benchmark.judged else None
    field = next((f for f in fields if has_field(record, f.name)), None)
    if field is not None:
        try:
            texts = texts_of(value_of(record, field.name))
        except TypeError as error:
            raise BenchmarkError(
                f"Record {number} of '{path}' has a {field.name} that is {error}: a text is needed."
            ) from error
        if verdict is not None:
            texts = texts[:1]  # a record's verdict is of one answer
        made = Prediction(supporting_facts=supporting, verdict=verdict, options=record.get(OPTIONS))
        return [field.filled(made, text or "") for text in texts]
    if supporting is not None or verdict is not None:
        return [Prediction(supporting_facts=supporting, verdict=verdict)]
    other = "completion or solution" if benchmark.runs_code else "completion or answer"
    wanted = " or ".join(f"'{f.name}'" for f in fields) or f"{other} (or --answer-field)"
    wanted += ", or a grade" if benchmark.judged else ""
    raise BenchmarkError(
        f"Record {number} of '{path}' has nothing to score: it needs {wanted}, got the keys "
        f"{', '.join(map(str, record))}."
    )


def _verdict(record: Record, path: Path, number: int) -> Verdict | None:
    """Return the judge's verdict that a record has: HLE's fields, or a grade."""
    judged = record.get("judge_response")
    if isinstance(judged, Mapping):
        try:
            return fields_verdict(judged)
        except ValueError as error:
            raise BenchmarkError(
                f"Record {number} of '{path}' has a judge's reply that cannot be read: {error}."
            ) from error
    grade = record.get("grade", record.get("judge"))
    if grade is None:
        return None
    name = _VERDICTS.get(str(grade).strip().lower())
    if name is None:
        raise BenchmarkError(
            f"Record {number} of '{path}' has the grade '{grade}': A or CORRECT, B or "
            "INCORRECT, C or NOT_ATTEMPTED are known."
        )
    return Verdict(name=name)


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
