"""Samples of OpenCompass, lighteval, EvalScope, NeMo-Skills, lm-eval and bigcode's harness: what
the model wrote is graded, for the problem that was asked; what would be misread is refused."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

BOXES = [
    {"question": f"A shelf has {n} boxes of 12 pens. How many?", "answer": f"#### {12 * n}"}
    for n in (3, 4, 5)
]
WROTE = ["Three dozen. The answer is 36.", "4 * 12 = 48\n#### 48", "The answer is 61."]
ORDERS = [(0, 1, 2), (2, 0, 1)]
"""Tools number their samples from 0, in whatever order they asked."""


def write(file, value):
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(value), file)
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(record) + "\n" for record in value))
    else:
        file.write_text(json.dumps(value))
    return file


def opencompass(order):
    def sample(n):
        turns = [
            {"role": "HUMAN", "prompt": "Question: A box has 2 pens. How many?"},
            {"role": "BOT", "prompt": "The answer is 2."},
            {"role": "HUMAN", "prompt": f"Question: {BOXES[n]['question']}\nLet us think."},
        ]
        return {"origin_prompt": turns, "prediction": WROTE[n], "gold": BOXES[n]["answer"]}

    return "gsm8k.json", {str(i): sample(n) for i, n in enumerate(order)}


def lighteval(order):
    return "details_gsm8k.parquet", [
        {
            "doc": {"query": f"Q: {BOXES[n]['question']}\nA:", "id": str(i), "choices": ["36"]},
            "model_response": {"text": [WROTE[n]], "text_post_processed": ["36"], "logprobs": []},
            "metric": {"extractive_match": 1.0},
        }
        for i, n in enumerate(order)
    ]


def lighteval_before(order):
    return "details_old.parquet", [
        {
            "example": BOXES[n]["question"],
            "full_prompt": f"Question: {BOXES[n]['question']}",
            "predictions": repr([WROTE[n]]),
            "gold": "['36']",
            "gold_index": 0,
        }
        for n in order
    ]


def evalscope(order):
    return "gsm8k_main.jsonl", [
        {
            "index": i,
            "model": "m",
            "model_output": {"choices": [{"message": {"role": "assistant", "content": WROTE[n]}}]},
            "messages": [
                {"role": "user", "content": f"{BOXES[n]['question']}\nThink."},
                {"role": "assistant", "content": WROTE[n]},
            ],
        }
        for i, n in enumerate(order)
    ]


def evalscope_reviews(order):
    return "reviews.jsonl", [
        {
            "index": i,
            "input": f"**User**: {BOXES[n]['question']}",
            "target": str(12 * (n + 3)),
            "sample_score": {"score": {"prediction": WROTE[n], "extracted_prediction": "36"}},
        }
        for i, n in enumerate(order)
    ]


def evalscope_before(order):
    return "answers.jsonl", [
        {
            "index": i,
            "answer_id": f"a{i}",
            "raw_input": BOXES[n],
            "choices": [{"message": {"role": "assistant", "content": WROTE[n]}, "index": 0}],
        }
        for i, n in enumerate(order)
    ]


def nemo_skills(order):
    return "output.jsonl", [
        {
            "problem": BOXES[n]["question"],
            "expected_answer": str(12 * (n + 3)),
            "generation": WROTE[n],
            "predicted_answer": str(12 * (n + 3)),
        }
        for n in order
    ]


TOOLS = [opencompass, lighteval, lighteval_before, evalscope, evalscope_reviews, evalscope_before]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("tool", [*TOOLS, nemo_skills])
def test_what_the_model_wrote_is_graded_for_the_problem_that_was_asked(
    score, tmp_path, tool, order
):
    gold = write(tmp_path / "gold.jsonl", BOXES)
    name, made = tool(order)
    status, result = score("gsm8k", gold, write(tmp_path / name, made), "--items")
    assert status == 0
    assert [item["score"] for item in result["items"]] == [1.0, 1.0, 0.0]


def test_several_samples_in_one_record_are_not_one_text(score, tmp_path):
    gold = write(tmp_path / "gold.jsonl", BOXES)
    name, made = opencompass((0, 1, 2))
    for sample in made.values():
        sample["prediction"] = [sample["prediction"], "The answer is 36."]
    _, result = score("gsm8k", gold, write(tmp_path / name, made))
    assert result["metrics"]["mean@2"] == pytest.approx((1 + 0.5 + 0) / 3)


CHOICES = [
    ("Which is the largest of these numbers?", ["one", "two", "three", "four"], "D"),
    ("Which is the smallest of these numbers?", ["1", "10", "100", "-1"], "D"),
    ("Which of these numbers is a prime number?", ["4", "3", "6", "8"], "B"),
]


@pytest.fixture
def numbers(tmp_path):
    rows = "".join(f"{asked},{','.join(o)},{right}\n" for asked, o, right in CHOICES)
    (tmp_path / "numbers_test.csv").write_text(rows)
    return tmp_path / "numbers_test.csv"


@pytest.mark.parametrize("name", ["choices", "options"])
def test_letters_are_of_the_options_that_the_record_shows(score, tmp_path, numbers, name):
    made = [
        {"id": f"numbers/{n}", name: options[::-1], "answer": "DCBA"["ABCD".index(right)]}
        for n, (_, options, right) in enumerate(CHOICES)
    ]
    made[0][name] = [
        f"{letter}) {text}" for letter, text in zip("ABCD", made[0][name], strict=True)
    ]
    status, result = score("mmlu", numbers, write(tmp_path / "made.jsonl", made))
    assert (status, result["metrics"]) == (0, {"accuracy": 1.0})
    made[1][name] = ["1", "10", "100", "-2"]
    status, message = score("mmlu", numbers, write(tmp_path / "made.jsonl", made))
    assert status == 2
    assert "other options" in message


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("kind", [int, str])
def test_places_instead_of_letters_are_refused(score, tmp_path, numbers, first, kind):
    made = [
        {"id": f"numbers/{n}", "prediction": kind("ABCD".index(right) + first)}
        for n, (_, _, right) in enumerate(CHOICES)
    ]
    status, message = score("mmlu", numbers, write(tmp_path / "made.jsonl", made))
    assert status == 2
    assert "counted from 0 or from 1" in message
    texts = [
        {"id": f"numbers/{n}", "prediction": options["ABCD".index(right)]}
        for n, (_, options, right) in enumerate(CHOICES)
    ]
    _, result = score("mmlu", numbers, write(tmp_path / "made.jsonl", texts))
    assert result["metrics"] == {"accuracy": 1.0}


@pytest.mark.parametrize("likelihood", [["-1.25", "False"], [-1.25, False]])
def test_probabilities_of_options_are_no_answers(score, tmp_path, numbers, likelihood):
    asked, options, right = CHOICES[0]
    harness = {
        "doc_id": 0,
        "doc": {"question": asked, "choices": options, "answer": "ABCD".index(right)},
        "resps": [[likelihood]] * 4,
        "filtered_resps": [likelihood] * 4,
        "filter": "none",
    }
    status, message = score("mmlu", numbers, write(tmp_path / "made.jsonl", [harness]))
    assert status == 2
    assert "probabilities" in message
    lighteval = {
        "doc": {"query": asked, "id": "0"},
        "model_response": {"text": [], "logprobs": [-1]},
    }
    status, message = score("mmlu", numbers, write(tmp_path / "made.jsonl", [lighteval]))
    assert status == 2
    assert "probabilities" in message


def test_a_record_that_is_not_as_its_tool_writes_it_is_one_sentence(score, tmp_path):
    gold = write(tmp_path / "gold.jsonl", BOXES)
    made = [{"index": 0, "input": "A shelf?", "sample_score": {"score": None}}]
    status, message = score("gsm8k", gold, write(tmp_path / "made.jsonl", made))
    assert status == 2
    assert "Record 1" in message


def test_programs_of_bigcodes_harness_are_samples_of_each_problem(needs_sandbox, score, tmp_path):
    problems = [
        {
            "task_id": f"t/{n}",
            "prompt": f"def add_{n}(x):\n",
            "entry_point": f"add_{n}",
            "canonical_solution": f"    return x + {n}\n",
            "test": f"def check(candidate):\n    assert candidate(1) == {n + 1}\n",
        }
        for n in range(2)
    ]
    gold = write(tmp_path / "gold.jsonl", problems)
    programs = [
        [p["prompt"] + p["canonical_solution"], p["prompt"] + "    return 0\n"] for p in problems
    ]
    _, result = score("humaneval", gold, write(tmp_path / "generations.json", programs))
    assert result["metrics"]["pass@1"] == 0.5
