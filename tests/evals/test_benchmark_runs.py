"""`eapo eval --benchmarks`, `rescore` and `compare`, with the real small model on small files."""

import csv
import json
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from eapo_agents.cli.main import main
from eapo_agents.errors import StoreError
from eapo_agents.store import TraceStore
from evals.sealing import MARK, open_text


@pytest.fixture
def run(capsys, monkeypatch, saved_model):
    """Runs `eapo`; `eval` with the small model."""

    def command(*arguments):
        model = ("--set", f"policy.model={saved_model}") if arguments[0] == "eval" else ()
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
    items = [json.loads(line) for line in (out / "gsm8k-solo.items.jsonl").open()]
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
    (out / "gsm8k-solo.items.jsonl").write_text(lines)
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
    assert "gsm8k differ in seed (0 and 1)" in err
    status, _, err = run(*options(tmp_path / "a", gsm8k, "--limit", 3))
    assert status == 2
    assert "limit (2 and 3)" in err
    status, _, err = run("compare", tmp_path / "a", tmp_path)
    assert status == 2
    assert "no benchmark run" in err


def test_a_killed_run_goes_on_and_gives_what_an_unbroken_one_gives(
    run, tmp_path, gsm8k, saved_model
):
    arguments = options(tmp_path / "a", gsm8k, "--samples", 4, "--temperature", 1.0)
    arguments = [*map(str, arguments), "--concurrency", "2", "--set", f"policy.model={saved_model}"]
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
    more = ("--concurrency", 2, "--samples", 4, "--temperature", 1.0)
    status, printed, _ = run(*options(tmp_path / "a", gsm8k, *more))
    assert status == 0
    resumed = json.loads(printed)["results"]["gsm8k solo"]
    status, printed, _ = run(*options(tmp_path / "b", gsm8k, *more))
    unbroken = json.loads(printed)["results"]["gsm8k solo"]
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
        (("eval", "-b", "nope"), "Unknown benchmark"),
        (("eval", "-b", "hle"), "--judge"),
        (("eval", "--limit", 3), "belong to --benchmarks"),
        (("eval", "-b", "gsm8k", "--data", "gsm8k"), "BENCHMARK=FILE"),
        (("eval", "-b", "gsm8k", "--baseline", "x"), "eapo compare"),
        (("rescore", "/nonexistent"), "no benchmark run"),
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
