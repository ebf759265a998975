"""A first look: the model that comes with the package, in `eapo demo --quick`, `eapo run` and
`eapo chat` without arguments."""

from __future__ import annotations

import io
import json
import re

import pytest

from eapo_agents.policy.shipped import BEFORE, FOLDER, TRAINED, shipped_training
from eapo_agents.store import TraceStore


@pytest.fixture
def eapo(run_command, monkeypatch, tmp_path):
    """The command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return run_command


def test_the_quick_demo_shows_help_before_and_none_after(eapo, tmp_path):
    status, out, err = eapo("demo", "--quick")
    assert status == 0, err
    lines = out.splitlines()

    # the same problem three times: wrong alone, right with the expert, right alone
    questions = [line.split("question  ")[1] for line in lines if "question  " in line]
    assert len(questions) == 3
    assert len(set(questions)) == 1
    gold = re.search(r"the answer is (\d+)", out)[1]
    said = [line for line in lines if "(the answer is" in line]
    assert [f"Answer: {gold} " in line for line in said] == [False, True, True]
    assert sum("asks solver" in line for line in lines) == 1

    # the help fades, and the accuracy without it rises
    stretches = [re.match(r" +(\d+) +(\d+)% +([\d,]+) .* ([\d.]+)%$", line) for line in lines]
    accepted = [int(found[2]) for found in stretches if found]
    right = [float(found[4]) for found in stretches if found]
    assert len(accepted) == len(shipped_training().stretches)
    assert accepted[0] > 2 * accepted[-1]
    assert right[-1] > 70
    assert not list(tmp_path.iterdir())


def test_the_quick_demo_as_an_object_has_scores_and_their_difference(eapo):
    status, out, err = eapo("demo", "--quick", "--json")
    assert status == 0, err
    found = json.loads(out)

    assert found["before"]["score"] < 0.2
    assert found["helped"]["score"] > found["before"]["score"] + 0.3
    assert found["after"]["score"] > 0.7
    low, high = found["difference"]["ci95"]
    assert 0.5 < low < high
    assert found["after"]["consultations"] == 0
    assert found["training"]["command"] == "eapo train --recipe scale-model+eapo"


@pytest.mark.parametrize(
    "more", [("--recipe", "scale-model"), ("--set", "seed=1"), ("--out", "x")], ids=str
)
def test_the_quick_demo_takes_no_settings(eapo, more):
    status, out, err = eapo("demo", "--quick", *more)
    assert (status, out) == (2, "")
    assert "leave out --recipe, --set and --out" in err


def test_a_question_without_a_recipe_is_answered_by_the_trained_model(eapo):
    status, out, err = eapo("run", "What is 3 + 4 * 2?", "--solo")
    assert status == 0, err
    assert re.search(r"Answer: \d+", out)
    assert "solver" not in err


def test_chat_without_a_recipe_gives_each_question_a_thread(eapo, monkeypatch, tmp_path):
    lines = (
        "What is 3 + 4 * 2?\n/solo\nWhat is 7 + 2 * 5?\n/save\n/single\nWhat is 1 + 1 * 1?\n/save\n"
    )
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    status, out, err = eapo("chat")
    assert status == 0, err
    assert TRAINED in err
    assert "a new one for each question" in err

    with TraceStore.open(str(tmp_path / "runs/traces.db")) as store:
        kept = [stored.trajectory for stored in store.trajectories()]
    # /solo stays on in the new thread, and after /single the third question is in that thread too
    assert [len(trajectory.turns) for trajectory in kept] == [1, 2]
    # (what it samples is the model's affair: the last question is of another kind than its own)
    replies = [turn.text for trajectory in kept for turn in trajectory.turns]
    assert [reply.strip() in out for reply in replies] == [True] * 3
    assert not any(turn.consultations for trajectory in kept for turn in trajectory.turns)


def test_the_shipped_models_are_small_and_whole():
    size = sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file())
    assert size < 2_000_000
    training = shipped_training()
    assert training.calls == training.stretches[-1].calls
    assert {TRAINED, BEFORE} == {"eapo-scale-model", "eapo-scale-model-before"}
