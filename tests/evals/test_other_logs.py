"""Logs of inspect, HELM and simple-evals: samples find their problem by what was asked."""

import io
import json
import zipfile

import pyarrow
import pytest

BAGS = [
    {"question": f"Bag {n}: how many balls are in it, all told?", "answer": f"Count. #### {n + 11}"}
    for n in range(3)
]
ASKED = "Solve this.\n\n{question}\n\nEnd with 'ANSWER: n'."


def written(folder, name, value):
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))
    return folder / name


def lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


def inspect_sample(number, epoch, text, **more):
    """As inspect 0.3.285 writes it, without what is not read."""
    asked = BAGS[number]["question"]
    choices = [{"message": {"role": "assistant", "content": text}, "stop_reason": "stop"}]
    return {
        "id": number + 1,
        "epoch": epoch,
        "input": asked,
        "target": str(number + 11),
        "messages": [{"role": "user", "content": ASKED.format(question=asked)}],
        "output": {"model": "m", "choices": choices if text is not None else []},
        "scores": {"match": {"value": "I"}},
        **more,
    }


SAMPLES = [
    inspect_sample(0, 1, "ANSWER: 11"),
    inspect_sample(1, 1, [{"type": "reasoning", "reasoning": "5"}, {"type": "text", "text": "12"}]),
    inspect_sample(2, 1, "attachment://ab", attachments={"ab": "It is 13."}),
    inspect_sample(0, 2, "ANSWER: 11"),
    inspect_sample(1, 2, "ANSWER: 99"),
    inspect_sample(2, 2, None, error={"message": "refused"}),
]


def test_a_log_of_inspect_is_read_with_its_epochs_as_samples(score, tmp_path):
    gold = written(tmp_path, "gold.jsonl", lines(BAGS))
    log = {"version": 2, "status": "success", "eval": {"task": "t"}, "samples": SAMPLES}
    _, result = score("gsm8k", gold, written(tmp_path, "log.json", log))
    metrics = result["metrics"]
    assert metrics["mean@2"] == pytest.approx(4 / 6)
    assert metrics["maj@2"] == pytest.approx(2.5 / 3)
    assert metrics["variance"] == pytest.approx(0.5 / 3)
    assert [item["missing"] for item in result.get("items", [])] == []
    del log["samples"]
    status, message = score("gsm8k", gold, written(tmp_path, "log.json", log))
    assert status == 2
    assert "without samples" in message


def archive(file, samples, *, zstandard):
    """An .eval log. Python cannot write Zstandard into it, so the headers of stored entries are
    changed."""
    sizes = []
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("header.json", "{}")
        for sample in samples:
            data = json.dumps(sample).encode()
            sizes.append(len(data))
            packed = pyarrow.compress(data, "zstd", asbytes=True) if zstandard else data
            made.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", packed)
    data = bytearray(buffer.getvalue())
    if zstandard:
        for entry, size in zip(made.infolist()[1:], sizes, strict=True):
            central = data.index(entry.filename.encode(), made.start_dir) - 46
            for place in (entry.header_offset + 8, central + 10):
                data[place : place + 2] = (93).to_bytes(2, "little")
            for place in (entry.header_offset + 22, central + 24):
                data[place : place + 4] = size.to_bytes(4, "little")
    file.write_bytes(data)
    return file


@pytest.mark.parametrize("zstandard", [False, True])
def test_an_archive_of_inspect_is_read(score, tmp_path, zstandard):
    gold = written(tmp_path, "gold.jsonl", lines(BAGS))
    file = archive(tmp_path / "log.eval", SAMPLES[:3], zstandard=zstandard)
    assert score("gsm8k", gold, file)[1]["metrics"] == {"accuracy": 1.0}
    file.write_bytes(file.read_bytes()[:-9])
    assert score("gsm8k", gold, file)[0] == 2


def helm_state(number, text, **more):
    instance = {
        "id": f"id{number + 40}",
        "input": {"text": BAGS[number]["question"]},
        "references": [{"output": {"text": str(number + 11)}, "tags": ["correct"]}],
        "split": "test",
    }
    return {
        "instance": {**instance, **more},
        "train_trial_index": 0,
        "request": {"model": "m", "prompt": ASKED},
        "result": {"success": True, "completions": [{"text": text, "logprob": -1.0}]},
    }


def test_a_scenario_state_of_helm_is_read_without_its_perturbed_instances(score, tmp_path):
    gold = written(tmp_path, "gold.jsonl", lines(BAGS))
    states = [helm_state(n, f"The answer is {n + 11}.") for n in (2, 0)]
    states.append(helm_state(2, "wrong", perturbation={"name": "typos"}))
    written(tmp_path, "scenario_state.json", {"adapter_spec": {}, "request_states": states})
    for given in (tmp_path, tmp_path / "scenario_state.json"):
        _, result = score("gsm8k", gold, given)
        assert result["metrics"]["accuracy"] == pytest.approx(2 / 3)
        assert result["missing"] == 1
    states[0]["reference_index"] = 0
    status, message = score("gsm8k", gold, written(tmp_path, "s.json", {"request_states": states}))
    assert status == 2
    assert "request for each option" in message


def test_display_predictions_of_helm_need_the_instances_beside_them(score, tmp_path):
    gold = written(tmp_path, "gold.jsonl", lines(BAGS))
    shown = [
        {"instance_id": f"id{n + 40}", "predicted_text": f" {n + 11}", "train_trial_index": 0}
        for n in (1, 0)
    ]
    file = written(tmp_path, "display_predictions.json", shown)
    status, message = score("gsm8k", gold, file)
    assert status == 2
    assert "instances.json" in message
    written(tmp_path, "instances.json", [helm_state(n, "")["instance"] for n in range(3)])
    assert score("gsm8k", gold, file)[1]["metrics"]["accuracy"] == pytest.approx(2 / 3)


SUMS = [
    ("Which is the largest of these?", ["one", "two", "three", "four"], "D"),
    ("Which is the smallest of these?", ["1", "10", "100", "-1"], "D"),
]


def chosen(asked, options, text):
    shown = "\n".join(f"{letter}) {o}" for letter, o in zip("ABCD", options, strict=True))
    return [
        {"role": "user", "content": f"Answer with a letter.\n\n{asked}\n\n{shown}"},
        {"role": "assistant", "content": text},
    ]


def test_simple_evals_letters_are_of_the_options_that_it_showed(score, tmp_path):
    rows = "".join(f"{asked},{','.join(options)},{right}\n" for asked, options, right in SUMS)
    gold = written(tmp_path, "sums_test.csv", rows)
    shuffled = ["four", "one", "three", "two"]
    convos = [
        chosen(SUMS[0][0], shuffled, "Answer: A"),
        chosen(SUMS[1][0], SUMS[1][1], "Answer: A"),
    ]
    file = written(tmp_path, "mmlu_m_allresults.json", {"score": 1, "convos": convos})
    status, result = score("mmlu", gold, file, "--items")
    assert status == 0
    assert [item["score"] for item in result["items"]] == [1.0, 0.0]
    convos[0] = chosen(SUMS[0][0], ["one", "two", "three", "five"], "Answer: D")
    written(tmp_path, "mmlu_m_allresults.json", {"convos": convos})
    status, message = score("mmlu", gold, file)
    assert status == 2
    assert "other options" in message


def test_a_log_of_other_questions_is_refused(score, tmp_path):
    gold = written(tmp_path, "gold.jsonl", lines(BAGS))
    other = {**SAMPLES[0], "input": "Another question, about no bag at all?"}
    file = written(tmp_path, "log.json", {"eval": {}, "status": "success", "samples": [other]})
    status, message = score("gsm8k", gold, file)
    assert status == 2
    assert "does not have" in message
