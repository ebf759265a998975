"""Scores of answers that were made elsewhere, in the benchmark's own format, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.errors import UsageError
from eapo_agents.progress import SILENT, Progress
from eapo_agents.recipe import Recipe
from eapo_agents.runs.grading import num_graders, prepare_sandbox, the_judge

if TYPE_CHECKING:
    from evals.agreement import Agreement
    from evals.benchmark import Benchmark, Loaded
    from evals.judge import Judge
    from evals.predictions import Matched
    from evals.run_folder import Judged
    from evals.scoring import Scored


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredAnswers:
    """The figures that upstream's script would give."""

    benchmark: str
    title: str
    n: int
    """Problems."""
    missing: int
    """Problems without an answer."""
    undecided: int
    """Answers that the grader could not decide; they count in no figure."""
    metrics: Mapping[str, float]
    items: Sequence[Mapping[str, object]] | None
    """Each problem's score, where they were wanted."""
    judge: Judged | None
    agreement: Agreement | None = None
    """Of the judge with the grades of the file, where it was asked again."""
    graded_fields: Sequence[str] = ()
    """The fields of the predictions that were graded."""
    sanitized_by: str | None = None
    """What cleaned the programs first, where that was wanted."""

    def to_json(self) -> dict[str, object]:
        """Return it as one object."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def score(
    name: str,
    predictions: str,
    *,
    gold: str | None = None,
    answer_field: str | None = None,
    with_items: bool = False,
    judge: str | None = None,
    judge_again: bool = False,
    recipe: Recipe | None = None,
    sandbox: str = "auto",
    unsafe_code: bool = False,
    sanitize: bool = False,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> ScoredAnswers:
    """Score a file of predictions.

    Args:
        gold: upstream's file of problems; else EAPO_DATA is searched, then the hub.
        judge: the expert of `recipe` that grades, where the benchmark needs one.
        judge_again: let it grade what the file has grades for too, and report how far they agree;
            the figures are those of the file's grades.
        sanitize: clean the programs of a code benchmark by evalplus's sanitiser first.
        workers: answers graded at once.
    """
    from evals.sanitizing import sanitizer
    from evals.scoring import listed
    from evals.sources import load

    benchmark = _benchmark(name, gold)
    loaded = load(benchmark, gold, with_images=True)
    matched = _read(benchmark, loaded, Path(predictions), answer_field, sanitize=sanitize)
    loaded = _questions_that_count(loaded, matched, progress)
    if judge_again and not (benchmark.judged and judge):
        raise UsageError("--judge-again needs a benchmark with a judge, and --judge EXPERT.")
    grader = None
    if benchmark.judged and judge and recipe:
        grader = the_judge(recipe, judge, Path("runs"))
    again = _asked_of_the_judge(benchmark, loaded, matched, grader, judge_again, progress)
    prepare_sandbox(benchmark, sandbox, unsafe=unsafe_code, workers=workers, progress=progress)
    _say_what_is_there(matched, progress)
    threads = num_graders(benchmark, workers)
    scored, agreement = _graded(benchmark, loaded, matched, grader, again, threads, progress)
    return ScoredAnswers(
        benchmark=benchmark.name,
        title=benchmark.title,
        n=len(scored.items),
        missing=sum(not item.grades for item in scored.items),
        undecided=scored.undecided,
        metrics=scored.metrics(),
        items=[listed(item, matched.names) for item in scored.items] if with_items else None,
        judge=grader.report() if grader else None,
        agreement=agreement,
        graded_fields=[field.name for field in matched.fields],
        sanitized_by=sanitizer() if sanitize else None,
    )


def _asked_of_the_judge(
    benchmark: Benchmark,
    loaded: Loaded,
    matched: Matched,
    grader: Judge | None,
    judge_again: bool,
    progress: Progress,
) -> int:
    """Say what a judge will be asked, before it is; return how many answers that the file has
    grades for are among them.

    Raises:
        BenchmarkError: answers have no grade, and there is no judge.
    """
    from evals.agreement import regraded
    from evals.scoring import answers, refuse_ungraded

    if grader is None:
        if benchmark.judged:
            refuse_ungraded(matched.by_problem, benchmark)
        return 0
    again = regraded(loaded, matched.by_problem) if judge_again else []
    progress.say(grader.forecast([*answers(loaded, matched.by_problem), *again]))
    return len(again)


def _graded(
    benchmark: Benchmark,
    loaded: Loaded,
    matched: Matched,
    grader: Judge | None,
    num_again: int,
    num_threads: int,
    progress: Progress,
) -> tuple[Scored, Agreement | None]:
    """Grade every answer, and those that a judge is to grade again."""
    from evals.agreement import agree
    from evals.scoring import score as grade_all

    agreement = None
    num = matched.num_predictions() + num_again
    with progress.bar(f"Score {benchmark.title} (answers)", num) as bar:
        scored = grade_all(
            benchmark,
            loaded,
            matched.by_problem,
            grader=grader,
            num_threads=num_threads,
            on_graded=bar.step,
        )
        if num_again and grader:
            agreement = agree(
                loaded, matched.by_problem, grader, num_threads=num_threads, on_graded=bar.step
            )
    if scored.undecided:
        progress.say(
            f"{scored.undecided} answers are undecided: the grader came to no verdict. They count "
            "in no figure."
        )
    return scored, agreement


def _read(
    benchmark: Benchmark, loaded: Loaded, file: Path, answer_field: str | None, *, sanitize: bool
) -> Matched:
    """Return the predictions of a file, cleaned first where that is wanted."""
    from evals.predictions import read_predictions
    from evals.sanitizing import sanitized

    if sanitize and not benchmark.runs_code:
        raise UsageError(
            f"--sanitize cleans programs, and answers to {benchmark.title} are none: leave it out."
        )
    matched = read_predictions(benchmark, loaded, file, answer_field)
    if not sanitize:
        return matched
    return replace(matched, by_problem=sanitized(loaded, matched.by_problem))


def _questions_that_count(loaded: Loaded, matched: Matched, progress: Progress) -> Loaded:
    """Return the problems without those that have an image, unless the predictions answer one."""
    from evals.sources import has_image, without_images

    images = {problem.id for problem in loaded.problems if has_image(problem)}
    if not images:
        return loaded
    if not images & matched.by_problem.keys():
        return without_images(loaded)
    progress.say(
        f"The predictions answer questions with an image: all {len(loaded.problems)} questions "
        f"count, {len(images)} of them with an image."
    )
    return loaded


def _say_what_is_there(matched: Matched, progress: Progress) -> None:
    if matched.fields:
        graded = ", ".join(field.describe() for field in matched.fields)
        progress.say(f"Graded: the field {graded}.")
    if matched.ignored:
        progress.say(
            f"{matched.ignored} predictions are for problems that the gold file does not have; "
            "as upstream's script does, they are left out."
        )
    counts = sorted(map(len, matched.by_problem.values()))
    if counts[0] != counts[-1]:
        progress.say(
            f"Problems have from {counts[0]} to {counts[-1]} samples; each problem weighs the same."
        )


def _benchmark(name: str, gold: str | None) -> Benchmark:
    from evals.benchmarks import find_benchmark

    benchmark = find_benchmark(name)
    if benchmark.name == "humanevalplus" and name.lower() == "evalplus" and _is_mbpp(gold):
        return find_benchmark("mbppplus")
    return benchmark


def _is_mbpp(gold: str | None) -> bool:
    """Return whether `evalplus`, which names two benchmarks, means MBPP+ here."""
    from evals.sources import read_text

    return gold is not None and '"Mbpp/' in read_text(Path(gold))[:1000]


def list_benchmarks() -> list[dict[str, object]]:
    """Return the facts of every benchmark."""
    from evals.benchmarks import BENCHMARKS, find_benchmark

    return [_facts(find_benchmark(known)) for known in BENCHMARKS]


def show_benchmark(name: str, gold: str | None) -> dict[str, object]:
    """Return the facts of one benchmark, with its protocol and its first prompt."""
    from evals.benchmarks import find_benchmark
    from evals.sources import load

    benchmark = find_benchmark(name)
    facts = _facts(benchmark)
    loaded = load(benchmark, gold)
    facts |= {"problems": len(loaded.problems), "origin": loaded.origin, "data": loaded.digest}
    if not benchmark.sealed:
        first = loaded.problems[0]
        facts |= {"id": first.id, "prompt": first.question, "gold": first.answer}
    return facts


def _facts(benchmark: Benchmark) -> dict[str, object]:
    hub = benchmark.hub
    return {
        "name": benchmark.name,
        "title": benchmark.title,
        "metric": benchmark.metric,
        "samples": benchmark.samples,
        "temperature": benchmark.temperature,
        "top_p": benchmark.top_p,
        "max_new_tokens": benchmark.max_new_tokens,
        "hub": hub.repo if hub else None,
        "file": benchmark.file,
        "licence": benchmark.licence,
        "obtain": benchmark.obtain,
        "version": benchmark.version,
    }
