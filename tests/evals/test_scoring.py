"""`eapo score`: upstream's figures from its own formats; a clear sentence for what has none."""

import gzip
import json
import os
import re
import string
from collections import Counter
from pathlib import Path

import pytest

DATA = Path(os.environ.get("EAPO_DATA", "/nonexistent"))
needs_data = pytest.mark.skipif(
    "EAPO_DATA" not in os.environ, reason="EAPO_DATA names no folder with the benchmarks' files"
)


def write(file, records):
    lines = "".join(json.dumps(record) + "\n" for record in records)
    if file.suffix == ".gz":
        file.write_bytes(gzip.compress(lines.encode()))
    else:
        file.write_text(lines)
    return file


ADD = {
    "task_id": "t/0",
    "prompt": "def add(a, b):\n",
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
}
DOUBLE = {
    **ADD,
    "task_id": "t/1",
    "prompt": "def double(x):\n    '''Twice.'''\n",
    "entry_point": "double",
    "test": "def check(candidate):\n    assert double(4) == candidate(4) == 8\n",
}


def test_code_is_run_and_pass_at_k_is_unbiased(needs_sandbox, score, tmp_path):
    gold = write(tmp_path / "gold.jsonl.gz", [ADD, DOUBLE])
    samples = [{"task_id": "t/0", "completion": "    return a + b\n"}] * 4
    samples += [{"task_id": "t/0", "completion": "    return a - b\n"}] * 6
    samples += [{"task_id": "t/1", "solution": "def double(x): return 2 * x"}]
    samples += [{"task_id": "t/1", "completion": "    return x\n"}] * 9
    predictions = write(tmp_path / "samples.jsonl", samples)
    status, result = score("humaneval", gold, predictions, "--items")
    assert status == 0
    assert result["benchmark"] == "humaneval"
    assert result["n"] == 2
    assert result["metrics"]["pass@1"] == pytest.approx((0.4 + 0.1) / 2, abs=1e-12)
    assert result["metrics"]["pass@10"] == 1.0
    assert [(i["id"], i["score"]) for i in result["items"]] == [("t/0", 0.4), ("t/1", 0.1)]
    assert result["items"][1]["samples"] == [1.0] + [0.0] * 9


@needs_data
def test_upstreams_example_gives_upstreams_figure(needs_sandbox, score):
    folder = DATA / "humaneval"
    status, result = score(
        "humaneval", folder / "example_problem.jsonl", folder / "example_samples.jsonl"
    )
    assert status == 0
    assert result["metrics"]["pass@1"] == 0.4999999999999999  # as its readme prints it


def normalised(text):
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def official_hotpot(gold, predictions):
    """The official formulae, written down anew from their description."""
    total = Counter()

    def harmonic(p, r):
        return 2 * p * r / (p + r) if p + r > 0 else 0.0

    for record in gold:
        key, both = record["_id"], {}
        if key in predictions["answer"]:
            ours, theirs = (normalised(t) for t in (predictions["answer"][key], record["answer"]))
            em, p, r = float(ours == theirs), 0.0, 0.0
            same = sum((Counter(ours.split()) & Counter(theirs.split())).values())
            closed = {"yes", "no", "noanswer"}
            if same and not (ours != theirs and (ours in closed or theirs in closed)):
                p, r = same / len(ours.split()), same / len(theirs.split())
            total.update({"em": em, "f1": harmonic(p, r), "prec": p, "recall": r})
            both["answer"] = em, p, r
        if key in predictions["sp"]:
            ours = {tuple(fact) for fact in predictions["sp"][key]}
            theirs = {tuple(fact) for fact in record["supporting_facts"]}
            right = len(ours & theirs)
            p = right / len(ours) if ours else 0.0
            r = right / len(theirs) if theirs else 0.0
            em = float(ours == theirs)
            total.update({"sp_em": em, "sp_f1": harmonic(p, r), "sp_prec": p, "sp_recall": r})
            both["sp"] = em, p, r
        if len(both) == 2:
            em, p, r = (a * b for a, b in zip(both["answer"], both["sp"], strict=True))
            total.update({"joint_em": em, "joint_f1": harmonic(p, r)})
            total.update({"joint_prec": p, "joint_recall": r})
    return {name: value / len(gold) for name, value in total.items()}


@needs_data
def test_hotpotqa_is_scored_by_the_official_formulae_to_twelve_digits(score, tmp_path):
    file = DATA / "hotpotqa" / "hotpot_dev_distractor_v1_100.json"
    published = DATA / "hotpotqa" / "dev_distractor_pred.json"
    gold = json.loads(file.read_text())
    made = {
        "answer": {
            r["_id"]: r["answer"] + " " * i + "x" * (i % 3) for i, r in enumerate(gold[:90])
        },
        "sp": {r["_id"]: r["supporting_facts"][: i % 4] + [["x", 0]] * (i % 2)
               for i, r in enumerate(gold[20:])},
    }  # fmt: skip
    (tmp_path / "made.json").write_text(json.dumps(made))
    for predictions in (published, tmp_path / "made.json"):
        wanted = official_hotpot(gold, json.loads(predictions.read_text()))
        status, result = score("hotpotqa", file, predictions)
        assert status == 0
        assert result["n"] == 103
        for name, value in wanted.items():
            assert result["metrics"][name] == pytest.approx(value, abs=1e-12), name


def test_evalplus_s_sanitiser_is_an_option_that_the_results_name(score, tmp_path, needs_sandbox):
    gold = write(tmp_path / "gold.jsonl.gz", [ADD])
    # a raw reply as a solution: no program before it is cleaned
    said = "Sure:\n```python\ndef add(a, b):\n    return a + b\n```\nprint('done"
    file = write(tmp_path / "p.jsonl", [{"task_id": ADD["task_id"], "solution": said}])
    assert score("humaneval", gold, file)[1]["metrics"] == {"pass@1": 0.0}
    status, cleaned = score("humaneval", gold, file, "--sanitize")
    assert (status, cleaned["metrics"]) == (0, {"pass@1": 1.0})
    assert cleaned["sanitized_by"].startswith("evalplus.sanitize 0.")
    assert score("gsm8k", gold, file, "--sanitize")[0] == 2


@needs_data
@pytest.mark.parametrize("name", ["gsm8k", "math500", "mmlu", "aime24", "aime25", "aimo"])
def test_gold_solutions_score_100_percent(score, tmp_path, name):
    from evals.benchmarks import find_benchmark
    from evals.sources import load

    loaded = load(find_benchmark(name))
    solution = {"gsm8k": "answer", "math500": "solution"}.get(name)
    for kind in ("answer", "completion"):
        records = []
        pairs = zip(loaded.problems, loaded.records, strict=True)
        for number, (problem, record) in enumerate(pairs):
            text = record[solution] if solution else f"The answer is {problem.answer}."
            records.append({"id": number, kind: problem.answer if kind == "answer" else text})
        status, result = score(name, None, write(tmp_path / f"{kind}.jsonl", records))
        assert (status, result["n"], result["metrics"]) == (0, len(records), {"accuracy": 1.0})


def test_missing_answers_count_as_wrong_and_ids_are_echoed(score, tmp_path):
    gold = write(
        tmp_path / "gold.jsonl",
        [{"question": f"{i}?", "answer": f"so #### {i}"} for i in range(4)],
    )
    predictions = write(
        tmp_path / "p.jsonl",
        [
            {"id": 1, "completion": "It is 1."},
            {"id": "gsm8k/test/2", "answer": 2},
            {"id": 3, "answer": "4"},
        ],
    )
    status, result = score("GSM8K", gold, predictions, "--items")
    assert status == 0
    assert result["metrics"] == {"accuracy": 0.5}
    assert result["missing"] == 1
    scores = {item["id"]: item["score"] for item in result["items"]}
    assert scores == {"gsm8k/test/0": 0.0, "1": 1.0, "gsm8k/test/2": 1.0, "3": 0.0}


def test_a_copy_of_the_gold_column_is_not_graded_and_two_fields_are_refused(score, tmp_path):
    gold = [{"question": f"{i}?", "answer": f"so #### {i}"} for i in range(4)]
    file = write(tmp_path / "gold.jsonl", gold)

    def run(records, *more):
        return score("gsm8k", file, write(tmp_path / "p.jsonl", records), *more)

    beside = [{**r, "id": i, "response": "#### 9"} for i, r in enumerate(gold)]
    assert run(beside)[1]["metrics"] == {"accuracy": 0.0}
    status, message = run([{**r, "id": i} for i, r in enumerate(gold)])
    assert (status, "'answer'" in message, "--answer-field" in message) == (2, True, True)
    two = [{"id": i, "response": f"#### {i}", "output": "#### 9"} for i in range(4)]
    status, message = run(two)
    assert status == 2
    assert "'response' and 'output'" in message
    assert "--answer-field" in message
    assert run(two, "--answer-field", "response")[1]["metrics"] == {"accuracy": 1.0}


def lm_eval(number, question, said, filter_="none"):
    doc = {"question": question, "answer": f"so #### {number + 1}"}
    return {"doc_id": number, "doc": doc, "resps": [[said]], "filter": filter_}


def test_a_number_of_another_tool_must_be_that_of_the_same_question(score, tmp_path):
    gold = [{"question": f"How many are {i}?", "answer": f"so #### {i}"} for i in (1, 2)]
    file = write(tmp_path / "gold.jsonl", gold)
    right = [lm_eval(i, gold[i]["question"], f"#### {i + 1}") for i in (0, 1)]
    assert score("gsm8k", file, write(tmp_path / "p.jsonl", right))[1]["metrics"] == {
        "accuracy": 1.0
    }
    other = [right[0], lm_eval(1, "How many are 7?", "#### 2")]
    status, message = score("gsm8k", file, write(tmp_path / "p.jsonl", other))
    assert status == 2
    assert "Record 2" in message
    assert "'question' is another one" in message


def test_samples_that_are_written_once_for_each_filter_count_once(score, tmp_path):
    gold = [{"question": f"How many are {i}?", "answer": f"so #### {i}"} for i in (1, 2)]
    file = write(tmp_path / "gold.jsonl", gold)
    twice = [
        lm_eval(i, gold[i]["question"], "#### 1", f) for f in ("strict", "flexible") for i in (0, 1)
    ]
    _, result = score("gsm8k", file, write(tmp_path / "p.jsonl", twice))
    assert result["metrics"] == {"accuracy": 0.5}
    programs = [{**record, "task_id": f"t/{n}"} for n, record in enumerate(twice)]
    status, message = score("gsm8k", file, write(tmp_path / "p.jsonl", programs))
    assert status == 2
    assert "2 filters (strict, flexible)" in message


def test_several_samples_are_averaged_problem_by_problem(score, tmp_path):
    gold = write(
        tmp_path / "g.jsonl", [{"question": f"{i}?", "answer": f"#### {i}"} for i in (1, 2)]
    )
    samples = [{"id": i - 1.0, "generation": text} for i in (1, 2) for text in (f"#### {i}", None)]
    _, result = score("gsm8k", gold, write(tmp_path / "p.jsonl", samples))
    same = {"accuracy": 0.5, "mean@2": 0.5, "pass@2": 1.0, "maj@2": 1.0, "variance": 0.25}
    assert result["metrics"] == same
    assert result["graded_fields"] == ["generation"]


SIMPLE = "metadata,problem,answer\n" + "".join(f"{{}},Question {i}?,Gold {i}\n" for i in range(5))


def test_simpleqa_with_grades_given_has_upstreams_metrics(score, tmp_path):
    (tmp_path / "gold.csv").write_text(SIMPLE)
    grades = ["A", "CORRECT", "B", "not_attempted"]  # the fifth question is missing
    records = [{"id": i, "answer": "x", "grade": grade} for i, grade in enumerate(grades)]
    status, result = score(
        "simpleqa", tmp_path / "gold.csv", write(tmp_path / "p.jsonl", records), "--items"
    )
    assert status == 0
    metrics = result["metrics"]
    assert metrics["correct"] == 0.4
    assert metrics["given_attempted"] == pytest.approx(2 / 3)
    assert metrics["f_score"] == pytest.approx(2 * (2 / 3) * 0.4 / (2 / 3 + 0.4))
    assert metrics["not_attempted"] == pytest.approx(0.4)
    assert [item["score"] for item in result["items"]] == [1.0, 1.0, 0.0, 0.0, 0.0]


JUDGE = """
name: judged
consult:
  experts:
    judge: {kind: scripted, stored: true, options: {default: "Letter: %s"}}
  expert_store: %s
"""


@pytest.mark.parametrize(("letter", "correct"), [("A", 1.0), ("B", 0.0)])
def test_simpleqa_is_judged_by_an_expert_and_its_cost_is_told(score, tmp_path, letter, correct):
    (tmp_path / "gold.csv").write_text(SIMPLE)
    (tmp_path / "r.yaml").write_text(JUDGE % (letter, tmp_path / "experts.db"))
    records = [{"id": i, "completion": f"I think Gold {i}."} for i in range(5)]
    predictions = write(tmp_path / "p.jsonl", records)
    options = ("--judge", "judge", "--recipe", tmp_path / "r.yaml")
    status, result = score("simpleqa", tmp_path / "gold.csv", predictions, *options)
    assert status == 0
    assert result["metrics"]["correct"] == correct
    assert result["judge"]["judge_version"] == "2"
    assert result["judge"]["costs"][0]["calls"] == 5
    _, again = score("simpleqa", tmp_path / "gold.csv", predictions, *options)
    assert again["judge"]["costs"][0]["calls"] == 5  # its replies were stored


def test_a_person_is_no_judge_and_the_pinned_prompts_are_whole(score, tmp_path):
    from evals.judge import PROTOCOLS

    for prompt in (protocol.prompt for protocol in PROTOCOLS.values()):
        assert "\\" not in prompt
        assert all(line == line.strip() for line in prompt.split("\n"))
    (tmp_path / "gold.csv").write_text(SIMPLE)
    (tmp_path / "r.yaml").write_text("name: x\nconsult: {experts: {me: {kind: human}}}\n")
    predictions = write(tmp_path / "p.jsonl", [{"id": 0, "completion": "x"}])
    options = ("--judge", "me", "--recipe", tmp_path / "r.yaml")
    status, message = score("simpleqa", tmp_path / "gold.csv", predictions, *options)
    assert status == 2
    assert "is a person" in message


def test_a_judge_without_a_verdict_leaves_answers_undecided(score, tmp_path):
    (tmp_path / "gold.csv").write_text(SIMPLE)
    (tmp_path / "r.yaml").write_text(JUDGE % ("?", tmp_path / "experts.db"))
    predictions = write(tmp_path / "p.jsonl", [{"id": 0, "completion": "x"}])
    options = ("--judge", "judge", "--recipe", tmp_path / "r.yaml")
    status, message = score("simpleqa", tmp_path / "gold.csv", predictions, *options)
    assert status == 3
    assert "replied without a verdict" in message


GSM = [{"question": "1?", "answer": "#### 1"}, {"question": "2?", "answer": "#### 2"}]


@pytest.mark.parametrize(
    ("of", "gold", "predictions", "says"),
    [
        ("gsm9k", GSM, [{"id": 0, "answer": "1"}], "Did you mean 'gsm8k'"),
        ("gsm8k", None, [{"id": 0, "answer": "1"}], "no file"),
        ("gsm8k", GSM, None, "no file"),
        ("gsm8k", "not json\n", [{"id": 0, "answer": "1"}], "Line 1 of .* is not JSON"),
        ("gsm8k", GSM, "{broken\n", "Line 1 of .* is not JSON"),
        ("gsm8k", GSM, '["a"]\n', "JSON objects are needed"),
        ("gsm8k", GSM, "\x00\xff", "cannot be read as text|is not JSON"),
        ("gsm8k", GSM, "", "no predictions"),
        ("gsm8k", [{"q": 1}], [{"id": 0, "answer": "1"}], "not as GSM8K has it|not as upstream"),
        ("gsm8k", GSM, [{"id": 0, "answer": "1"}] * 2, "two predictions for '0'"),
        ("gsm8k", GSM, [{"id": 7, "answer": "1"}], "does not have \\(first: '7'"),
        ("gsm8k", GSM, [{"answer": "1"}], "has no id"),
        ("gsm8k", GSM, [{"id": 0}], "nothing to score"),
        ("gsm8k", GSM, [{"id": 0, "completion": [1]}], "a text is needed"),
        ("humaneval", [ADD, DOUBLE], [{"task_id": "t/0", "completion": ""}], "leaves out 1 of 2"),
        ("humaneval", [ADD], [{"task_id": "x", "completion": ""}], "first: 'x'"),
        ("humanevalplus", [ADD], [{"task_id": "t/0", "completion": ""}], "not as HumanEval\\+ has"),
        ("hotpotqa", GSM, '{"sp": 3}', "not as HotpotQA"),
        ("simpleqa", GSM, [{"id": 0, "answer": "1"}], "not as SimpleQA has it"),
        ("mmlu", GSM, [{"id": 0, "answer": "A"}], "not as MMLU"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_one_clear_sentence(
    needs_sandbox, score, tmp_path, of, gold, predictions, says
):
    files = []
    for name, content in (("gold.jsonl", gold), ("predictions.jsonl", predictions)):
        if isinstance(content, str):
            (tmp_path / name).write_bytes(content.encode("latin-1"))
        elif content is not None:
            write(tmp_path / name, content)
        files.append(tmp_path / name)
    status, message = score(of, *files)
    assert status == 2
    assert re.search(says, message), message
    assert message.startswith("eapo: ")


def test_a_judge_is_asked_for_where_no_grade_is_given(score, tmp_path):
    (tmp_path / "gold.csv").write_text(SIMPLE)
    predictions = write(tmp_path / "p.jsonl", [{"id": 0, "answer": "x"}])
    status, message = score("simpleqa", tmp_path / "gold.csv", predictions)
    assert status == 2
    assert "--judge" in message


def test_gated_data_without_access_says_how_to_get_it(score, tmp_path, monkeypatch):
    monkeypatch.delenv("EAPO_DATA", raising=False)
    predictions = write(tmp_path / "p.jsonl", [{"id": 0, "answer": "A"}])
    status, message = score("gpqa", None, predictions)
    assert status == 2
    assert "accept its terms" in message
    assert "--data gpqa=FILE" in message


def test_code_without_a_sandbox_is_refused_unless_the_user_says_so(score, tmp_path, monkeypatch):
    gold = write(tmp_path / "gold.jsonl", [ADD])
    predictions = write(
        tmp_path / "p.jsonl", [{"task_id": "t/0", "completion": "    return a + b\n"}]
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    status, message = score("humaneval", gold, predictions)
    assert status == 2
    assert "--unsafe-code" in message
    status, result = score("humaneval", gold, predictions, "--unsafe-code")
    assert (status, result["metrics"]["pass@1"]) == (0, 1.0)
