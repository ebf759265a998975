"""`eapo eval`, `rescore` and `compare`, with the small model's first layers on small files."""

import csv
import json
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace

import pytest

from eapo_agents.cli.main import main
from eapo_agents.errors import ErrorBudgetError, StoreError
from eapo_agents.recipe import Recipe
from eapo_agents.runs.evaluation_plan import task_part
from eapo_agents.store import TraceStore
from eapo_agents.types import StopReason, Turn
from evals.bench_report import score_table
from evals.benchmarks import find_benchmark
from evals.results import answer_text, grade_answers
from evals.sealing import MARK, open_text


@pytest.fixture
def run(capsys, monkeypatch, shallow_model):
    """Runs `eapo`; `eval` with the first layers of the small model."""

    def command(*arguments):
        model = ("--set", f"policy.model={shallow_model}") if arguments[0] == "eval" else ()
        monkeypatch.setattr("sys.argv", ["eapo", *map(str, (*arguments, *model))])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return status, captured.out, captured.err.strip()

    return command


@pytest.fixture
def gsm8k(tmp_path):
    file = tmp_path / "test.jsonl"
    lines = [{"question": f"What is {i} + 1?", "answer": f"#### {i + 1}"} for i in range(6)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def options(out, data, *more):
    few = ("--max-new-tokens", 8, "--concurrency", 8, "--json")
    return ("eval", "-b", "gsm8k", "--data", f"gsm8k={data}", "--out", out, *few, *more)


def test_a_run_is_sampled_graded_reported_regraded_and_compared(run, tmp_path, gsm8k):
    out = tmp_path / "a"
    status, printed, _ = run(*options(out, gsm8k, "--samples", 3, "--temperature", 1.0))
    assert status == 0
    result = json.loads(printed)["results"]["gsm8k solo"]
    assert (result["n"], result["samples"]) == (6, 3)
    assert set(result["pass_at"]) == {"1", "2"}
    assert 0 <= result["variance"] <= 0.25
    assert result["ci95"][0] <= result["score"] <= result["ci95"][1]
    items = [json.loads(line) for line in (out / "items.jsonl").open()]
    assert len(items) == 18
    assert result["score"] == pytest.approx(sum(i["correct"] for i in items) / 18)
    with TraceStore.open(out / "traces.db") as store:
        kept = [s.trajectory for s in store.trajectories(run_id="gsm8k solo")]
    assert len(kept) == 18
    assert all(t.reward is None and t.turns[0].logprobs is not None for t in kept)
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 3
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "| gsm8k solo | accuracy |" in (out / "report.md").read_text()

    status, printed, _ = run("rescore", out, "--json")
    assert status == 0
    again = json.loads(printed)
    assert again["changed"] == {"gsm8k solo": []}
    assert again["results"]["gsm8k solo"]["score"] == result["score"]
    # a verdict that was another before is told
    items[0]["score"] = 1.0 - items[0]["score"]
    lines = "".join(json.dumps(item) + "\n" for item in items)
    (out / "items.jsonl").write_text(lines)
    _, printed, _ = run("rescore", out, "--data", f"gsm8k={gsm8k}", "--json")
    assert json.loads(printed)["changed"] == {"gsm8k solo": [f"{items[0]['id']}#0"]}

    status, printed, _ = run("compare", out, out, "--json")
    assert status == 0
    compared = json.loads(printed)["benchmarks"]["gsm8k solo"]
    assert (compared["difference"], compared["gained"], compared["lost"]) == (0.0, [], [])


def test_runs_with_other_settings_are_not_compared_and_the_sentence_says_which(
    run, tmp_path, gsm8k
):
    assert run(*options(tmp_path / "a", gsm8k, "--limit", 2))[0] == 0
    assert run(*options(tmp_path / "b", gsm8k, "--limit", 2, "--set", "seed=1"))[0] == 0
    status, _, err = run("compare", tmp_path / "a", tmp_path / "b")
    assert status == 2
    assert "gsm8k solo differ in seed (0 and 1)" in err
    status, _, err = run(*options(tmp_path / "a", gsm8k, "--limit", 3))
    assert status == 2
    assert "limit (2 and 3)" in err
    status, _, err = run("compare", tmp_path / "a", tmp_path)
    assert status == 2
    assert "is not an evaluation" in err


@pytest.mark.long
def test_a_killed_run_goes_on_and_gives_what_an_unbroken_one_gives(
    run, tmp_path, gsm8k, shallow_model
):
    arguments = options(tmp_path / "a", gsm8k, "--samples", 4, "--temperature", 1.0)
    model = ("--set", f"policy.model={shallow_model}")
    arguments = [*map(str, arguments), "--concurrency", "2", *model]
    command = [sys.executable, "-m", "eapo_agents.cli.main", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(StoreError), TraceStore.open(tmp_path / "a" / "traces.db") as store:
            if sum(map(len, store.have("gsm8k solo").values())) >= 6:
                break  # before that it is just being made
        time.sleep(0.05)
    process.kill()
    process.wait()
    with TraceStore.open(tmp_path / "a" / "traces.db") as store:
        before = sum(map(len, store.have("gsm8k solo").values()))
    assert 6 <= before < 24
    assert "is unfinished" in run("report", tmp_path / "a")[2]
    # what there is can be graded, and never without the number of what is not there
    status, printed, _ = run("rescore", tmp_path / "a", "--json")
    assert status == 0
    cut_off = json.loads(printed)
    assert cut_off["missing"] == {"gsm8k solo": 24 - before}
    assert cut_off["results"]["gsm8k solo"]["missing"] == 24 - before
    says = f"gsm8k solo: INCOMPLETE, {24 - before} answers are missing"
    assert says in run("rescore", tmp_path / "a")[1]
    assert says in (tmp_path / "a" / "report.md").read_text()
    assert f"{24 - before} MISSING" in (tmp_path / "a" / "report.md").read_text()
    assert "is unfinished" in run("compare", tmp_path / "a", tmp_path / "a")[2]
    more = ("--concurrency", 2, "--samples", 4, "--temperature", 1.0)
    status, printed, _ = run(*options(tmp_path / "a", gsm8k, *more))
    assert status == 0
    resumed = json.loads(printed)["results"]["gsm8k solo"]
    status, printed, _ = run(*options(tmp_path / "b", gsm8k, *more))
    unbroken = json.loads(printed)["results"]["gsm8k solo"]
    assert (resumed["missing"], unbroken["missing"]) == (0, 0)
    assert resumed["sampled_tokens"] == unbroken["sampled_tokens"]
    status, printed, _ = run("compare", tmp_path / "a", tmp_path / "b", "--json")
    assert status == 0
    assert json.loads(printed)["benchmarks"]["gsm8k solo"]["difference"] == 0.0


def test_another_benchmark_joins_a_folder_and_the_first_ones_results_stay(run, tmp_path, gsm8k):
    folder = tmp_path / "mmlu"
    folder.mkdir()
    (folder / "anatomy_test.csv").write_text("Which?,w,x,y,z,B\nWho?,w,x,y,z,A\n")
    out = tmp_path / "out"
    assert run(*options(out, gsm8k, "--limit", 2))[0] == 0
    few = ("--max-new-tokens", 8, "--data", f"mmlu={folder}", "--out", out, "--json")
    status, printed, _ = run("eval", "-b", "mmlu", *few)
    assert status == 0
    assert set(json.loads(printed)["results"]) == {"gsm8k solo", "mmlu solo"}
    status, printed, _ = run("rescore", out, "--json")
    assert status == 0
    assert json.loads(printed)["changed"] == {"gsm8k solo": [], "mmlu solo": []}


def test_the_same_graph_with_help_and_the_gap(run, tmp_path, gsm8k):
    status, printed, _ = run(*options(tmp_path / "a", gsm8k, "--assisted", "--limit", 2))
    assert status == 0
    results = json.loads(printed)["results"]
    assert set(results) == {"gsm8k solo", "gsm8k assisted"}
    gap = results["gsm8k assisted"]["gap"]
    assert gap["difference"] == results["gsm8k assisted"]["score"] - results["gsm8k solo"]["score"]


FILES = {"run.json", "results.json", "items.jsonl", "traces.db", "report.md", "report.html"}
TASK = (
    *("--set", "eval.problems=5", "--set", "eval.max_new_tokens=6", "--set", "eval.greedy=true"),
    *("--set", "sampling.max_new_tokens=24", "--json"),
)


def keys_of(items):
    with items.open() as lines:
        return Counter(f"{i['benchmark']} {i['condition']}" for i in map(json.loads, lines))


@pytest.mark.long
def test_a_recipes_task_and_a_benchmark_leave_the_same_folder(run, tmp_path, gsm8k):
    both = tmp_path / "both"
    asked = ("eval", "-b", "arithmetic,gsm8k", "--data", f"gsm8k={gsm8k}", "--limit", 3)
    status, printed, _ = run(*asked, *TASK, "--out", both)
    assert status == 0
    found = json.loads(printed)
    assert list(found["results"]) == ["arithmetic solo", "arithmetic greedy", "gsm8k solo"]
    task, greedy, benchmark = found["results"].values()
    assert set(task["metrics"]) == {"accuracy", "reward", "formatted"}
    assert (task["temperature"], greedy["temperature"]) == (0.6, 0.0)
    assert task.keys() - {"published"} == benchmark.keys() - {"published"}
    assert keys_of(both / "items.jsonl") == dict.fromkeys(found["results"], 3)
    alone = tmp_path / "alone"
    status, printed, _ = run("eval", *TASK, "--limit", 3, "--out", alone)
    assert status == 0
    assert json.loads(printed)["results"]["arithmetic solo"]["score"] == task["score"]
    for folder in (both, alone):
        assert {file.name for file in folder.iterdir()} >= FILES
    assert "| arithmetic greedy | accuracy |" in (alone / "report.md").read_text()
    assert run("report", alone)[1] == (alone / "report.md").read_text() + "\n"


def test_runs_of_a_recipes_task_are_compared_and_graded_again(run, tmp_path):
    few = (*TASK, "--samples", 4)
    status, printed, _ = run("eval", *few, "--out", tmp_path / "a")
    assert status == 0
    before = json.loads(printed)["results"]
    assert (before["arithmetic solo"]["samples"], before["arithmetic greedy"]["samples"]) == (4, 1)
    assert set(before["arithmetic solo"]["pass_at"]) == {"1", "2", "4"}
    status, printed, _ = run("eval", *few, "--out", tmp_path / "b", "--baseline", tmp_path / "a")
    assert status == 0
    paired = json.loads(printed)["paired"]
    assert {key: p["difference"] for key, p in paired.items()} == dict.fromkeys(before, 0.0)
    status, printed, _ = run("compare", tmp_path / "a", tmp_path / "b", "--json")
    assert json.loads(printed)["benchmarks"] == paired
    status, printed, _ = run("rescore", tmp_path / "a", "--json")
    assert status == 0
    again = json.loads(printed)
    assert again["changed"] == {key: [] for key in before}
    assert {k: s["score"] for k, s in again["results"].items()} == {
        k: s["score"] for k, s in before.items()
    }
    other = (*TASK, "--set", "task.system_prompt=Say it.", "--out", tmp_path / "c")
    status, _, err = run("eval", *other, "--baseline", tmp_path / "a")
    assert status == 2
    assert "arithmetic solo differ in samples (4 and 1); system_prompt" in err
    assert not (tmp_path / "c").exists()


def test_a_finished_evaluation_given_again_says_so_and_changes_nothing(run, tmp_path, gsm8k):
    assert run(*options(tmp_path / "a", gsm8k, "--limit", 2))[0] == 0
    before = {file: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    status, printed, err = run(*options(tmp_path / "a", gsm8k, "--limit", 2))
    assert status == 0
    assert "is finished: nothing was run" in err
    assert json.loads(printed)["results"]["gsm8k solo"]["n"] == 2
    results = ("run.json", "results.json", "items.jsonl", "report.md")
    assert {n: (tmp_path / "a" / n).read_bytes() for n in results} == {
        n: before[tmp_path / "a" / n] for n in results
    }


def test_a_baseline_graph_answers_a_benchmark_under_its_own_name_and_its_calls_are_booked(
    run, tmp_path, gsm8k
):
    out = tmp_path / "out"
    solver = ("--set", "consult.experts.solver.kind=scripted")
    solver = (*solver, "--set", "consult.experts.solver.options={default: It is 3.}")
    few = options(out, gsm8k, "--recipe", "cpu-smol+workflow", "--limit", 2, *solver)
    status, printed, _ = run(*few)
    assert status == 0
    assert list(json.loads(printed)["results"]) == ["gsm8k workflow"]
    with TraceStore.open(out / "traces.db") as store:
        kept = [stored.trajectory for stored in store.trajectories(run_id="gsm8k workflow")]
    assert [t.graph for t in kept] == ["workflow", "workflow"]
    with sqlite3.connect(out / "experts.db") as ledger:
        (table,) = [
            name
            for (name,) in ledger.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if "calls" in name or "ledger" in name
        ]
        assert ledger.execute(f"SELECT count(*) FROM {table}").fetchone() == (2,)


def test_help_is_measured_on_a_recipes_task_too(run, tmp_path):
    status, printed, _ = run("eval", *TASK, "--assisted", "--out", tmp_path / "a")
    assert status == 0
    results = json.loads(printed)["results"]
    assert list(results) == ["arithmetic solo", "arithmetic greedy", "arithmetic assisted"]
    gap = results["arithmetic assisted"]["gap"]["difference"]
    solo, assisted = (results[f"arithmetic {c}"]["score"] for c in ("solo", "assisted"))
    assert gap == pytest.approx(assisted - solo)
    with TraceStore.open(tmp_path / "a" / "traces.db") as store:
        helped = [s.trajectory for s in store.trajectories(run_id="arithmetic assisted")]
    assert {t.sampling.max_new_tokens for t in helped} == {24}  # as in training


def test_a_folder_of_another_format_is_refused_in_a_sentence(run, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"format": 1, "benchmarks": {}}))
    for command in (("rescore", tmp_path), ("compare", tmp_path, tmp_path), ("report", tmp_path)):
        status, _, err = run(*command)
        assert status == 2
        assert "has format 1, and this version reads 2" in err


def test_failed_rollouts_are_counted_and_are_not_wrong_answers(trajectory):
    recipe = Recipe(name="x")
    part = task_part(recipe)
    problems = part.loaded.problems[:4]
    part = replace(part, loaded=replace(part.loaded, problems=problems))
    solo = part.conditions[0]
    turn = Turn(
        context_ids=(1,),
        completion_ids=(2,),
        logprobs=None,
        parent=None,
        text="Answer:",
        finish_reason="stop",
    )
    right = [
        trajectory((turn,), problem=p, answer=f"Answer: {p.answer}", reward=None, correct=None)
        for p in problems[:2]
    ]
    failed = replace(right[0], problem=problems[2], turns=(), answer=None, error="Down: no")
    grader = part.benchmark.grader(part.loaded)
    samples, score = grade_answers(
        part, solo, [*right, failed], grader, num_threads=1, max_error_share=0.5
    )
    assert len(samples) == 2
    assert (score.score, score.n, score.failed, score.missing) == (1.0, 2, 1, 1)
    assert "1 MISSING, 1 failed" in score_table({"x": score}).markdown()[2]
    with pytest.raises(ErrorBudgetError, match="1 of 3 rollouts"):
        grade_answers(part, solo, [*right, failed], grader, num_threads=1, max_error_share=0.1)


def test_what_was_cut_off_is_graded_in_benchmarks_and_has_no_reward_in_a_task(trajectory):
    turn = Turn(
        context_ids=(1,),
        completion_ids=(2,),
        logprobs=None,
        parent=None,
        text="Answer: 19 and",
        finish_reason="length",
    )
    cut_off = trajectory((turn,), answer=None, stop_reason=StopReason.LENGTH)
    assert answer_text(cut_off, find_benchmark("gsm8k")) == "Answer: 19 and"
    assert answer_text(cut_off, task_part(Recipe(name="x")).benchmark) == ""


SECRET = "Zyzzogeton haemorrhous"


def test_gpqa_is_nowhere_in_plain_text_and_is_graded_again_all_the_same(run, tmp_path):
    file = tmp_path / "gpqa_diamond.csv"
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        names = ["Record ID", "Question", "Correct Answer"]
        writer.writerow([*names, *(f"Incorrect Answer {i}" for i in (1, 2, 3))])
        for i in range(3):
            row = [f"rec{i}", f"Which {SECRET} is it?", f"{SECRET} one", "w2", "w3", "w4"]
            writer.writerow(row)
    out = tmp_path / "out"
    few = ("--max-new-tokens", 24, "--samples", 2, "--temperature", 0.5, "--json")
    data = f"gpqa={file}"
    status, printed, err = run("eval", "-b", "gpqa", "--data", data, "--out", out, *few)
    assert status == 0
    assert json.loads(printed)["results"]["gpqa solo"]["samples"] == 2
    for written in out.rglob("*"):
        if written.is_file():
            assert b"Zyzzogeton" not in written.read_bytes(), written
    assert "Zyzzogeton" not in printed + err
    with TraceStore.open(out / "traces.db") as store:
        kept = [s.trajectory for s in store.trajectories()]
    assert all(t.problem.question.startswith(MARK) and not t.turns[0].context_ids for t in kept)
    assert SECRET in open_text(kept[0].problem.question)
    status, printed, _ = run("rescore", out, "--data", data, "--json")
    assert status == 0
    assert json.loads(printed)["changed"] == {"gpqa solo": []}
    status, _, err = run("eval", "-b", "gpqa", "--data", data, "--out", out, "--assisted")
    assert status == 2
    assert "may not be written out in plain" in err
    _, printed, _ = run("benchmarks", "gpqa", "--gold", file)
    assert "Zyzzogeton" not in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("eval", "-b", "nope"), "Unknown benchmark 'nope'"),
        (("eval", "-b", "hle"), "--judge"),
        (("eval", "-b", ","), "names nothing"),
        (("eval", "-b", "arithmetic", "--data", "gsm8k=x"), "is not among the benchmarks"),
        (("eval", "-b", "gsm8k", "--data", "gsm8k"), "BENCHMARK=FILE"),
        (("eval", "--baseline", "/nonexistent"), "is not an evaluation"),
        (("eval", "-r", "cpu-smol+workflow", "--assisted"), "evaluated as it is"),
        (("rescore", "/nonexistent"), "is not an evaluation"),
    ],
)
def test_wrong_use_is_one_sentence(run, arguments, says):
    status, _, err = run(*arguments)
    assert status == 2
    assert says in err


def test_greedy_samples_that_would_all_be_the_same_are_refused(run, tmp_path, gsm8k):
    status, _, err = run(*options(tmp_path / "a", gsm8k, "--samples", 2))
    assert status == 2
    assert "--temperature above 0" in err


def test_benchmarks_are_listed_and_shown_as_they_are_asked(run, gsm8k):
    status, printed, _ = run("benchmarks", "--json")
    assert status == 0
    listed = {row["name"] for row in json.loads(printed)["benchmarks"]}
    assert {"aime24", "humanevalplus", "gpqa", "hle", "hotpotqa", "simpleqa"} <= listed
    status, printed, _ = run("benchmarks", "gsm8k", "--gold", gsm8k, "--json")
    shown = json.loads(printed)
    assert shown["prompt"].startswith("What is 0 + 1?")
    assert shown["gold"] == "1"
