"""Environments of verifiers and OpenEnv as tasks: the real packages, in an environment of their
own (`make environments`), a reasoning-gym family by verifiers and a TextArena game by OpenEnv."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from eapo_agents.errors import TaskError, UndecidedError
from eapo_agents.experts.consulting import Consulting, consulting
from eapo_agents.recipe import Recipe
from eapo_agents.rewards import find_reward, score_text
from eapo_agents.runs.checking import check
from eapo_agents.tasks import load_problems, verifiers
from eapo_agents.tools import make_tools, use_tool
from graphs.fill import run_to_end

from .conftest import free_port, is_open

HERE = Path(__file__).parent / "environments"
PYTHON = Path(__file__).parents[2] / ".venv-environments" / "bin" / "python"
pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="needs .venv-environments, which `make environments` makes"
)


@pytest.fixture(autouse=True)
def _in_their_folder(monkeypatch):
    monkeypatch.chdir(HERE)


def read(name, *, split="all", **options):
    return load_problems(
        f"verifiers:{name}", split=split, options={"python": str(PYTHON), **options}
    )


def test_a_family_of_reasoning_gym_is_scored_by_its_verifiers_environment():
    import reasoning_gym

    problems = read("legs", args={"train": 10, "held_out": 5})
    same = reasoning_gym.create_dataset("leg_counting", size=15, seed=0)
    answers = {entry["question"].strip(): entry["answer"] for entry in same}
    assert len(problems) == 15
    reward = find_reward("environment")
    for problem in problems:
        assert "<answer>answer here</answer>" in problem.question  # its system prompt comes along
        right = next(
            one for asked, one in answers.items() if problem.question.endswith(asked.strip())
        )
        assert score_text(f"Legs: <answer>{right}</answer>", problem) == (1.0, True)
        share = same.score_answer(f"{right}9", {"answer": right})  # the family gives a part
        assert score_text(f"Legs: <answer>{right}9</answer>", problem) == (share, False)
        assert score_text(f"Legs: {right}", problem) == (0.0, False)
        assert score_text(None, problem) == (0.0, False)
        found = reward.score_now(f"<answer>{right}</answer>", problem)
        assert (found.reward, found.right) == (1.0, True)
        assert found.parts == {"check_answer_reward_func": 1.0}
    train, held_out = (
        read("legs", split=split, args={"train": 10, "held_out": 5})
        for split in ("train", "heldout")
    )
    assert (len(train), len(held_out)) == (10, 5)  # as the environment says


def test_a_taskset_pays_what_its_rewards_are_worth():
    problems = read("sums", size=30, args={"add": 5})
    problem = next(one for one in problems if "What is 7 + 5?" in one.question)
    assert len(problems) == 30
    assert problem.question == "Say a number.\n\nWhat is 7 + 5?"
    assert problem.answer == "12"
    reward = find_reward("environment")
    assert reward.score_now("It is 12", problem) == (1.2, True, {"right": 1.0, "brief": 0.2})
    wrong = reward.score_now("It is 13", problem)
    assert (wrong.reward, wrong.right) == (0.2, False)
    assert score_text("It is 12", problem) == (1.0, True)
    assert score_text("It is 13", problem)[0] == pytest.approx(0.2)
    with ThreadPoolExecutor(16) as pool:
        many = list(pool.map(lambda one: score_text(f"It is {one.answer}", one), problems * 4))
    assert set(many) == {(1.0, True)}


def test_what_is_no_score_is_never_a_0(monkeypatch):
    for how, said in (("raises", "no luck"), ("nan", "a reward is a finite number")):
        (problem,) = read("odd", args={"how": how})
        with pytest.raises(UndecidedError, match=said):
            score_text("yes", problem)
        with pytest.raises(UndecidedError, match=said):
            find_reward("environment").score_now("yes", problem)
    (problem,) = read("odd", args={"how": "well"})
    assert score_text("yes", problem) == (1.0, True)
    assert find_reward("environment").score_now("no", problem).reward == -0.5  # kept as it is
    assert score_text("no", problem) == (0.0, False)
    with pytest.raises(UndecidedError, match="its process ended"):
        score_text("die", problem)
    assert score_text("yes", problem) == (1.0, True)  # in a new process
    monkeypatch.setattr(verifiers, "SCORE_S", 1.0)
    with pytest.raises(UndecidedError, match="did not answer in 1 s"):
        score_text("hang", problem)
    monkeypatch.setattr(verifiers, "SCORE_S", 8.0)
    with ThreadPoolExecutor(5) as pool:  # who only waited beside it is asked again
        hangs = pool.submit(score_text, "hang", problem)
        wait = [pool.submit(score_text, "yes", problem) for _ in range(4)]
        assert [one.result() for one in wait] == [(1.0, True)] * 4
        assert isinstance(hangs.exception(), UndecidedError)
    for worker in list(verifiers._workers.values()):
        if not worker.is_lost:
            os.kill(worker._process.pid, signal.SIGKILL)
    assert score_text("yes", problem) == (1.0, True)


def test_an_environment_that_gives_other_problems_each_time_is_noticed():
    (problem,) = read("odd", args={"how": "another"})
    for worker in list(verifiers._workers.values()):
        worker.end()
    with pytest.raises(UndecidedError, match="must give the same problems each time"):
        score_text("yes", problem)


def test_an_environment_gets_the_variables_that_are_named_and_no_others(monkeypatch):
    monkeypatch.setenv("A_KEY", "12345678")
    monkeypatch.setenv("OTHER", "secret")
    (problem,) = read("odd", args={"how": "key"}, env=["A_KEY"])
    assert score_text("yes", problem) == (1.0, True)
    monkeypatch.delenv("A_KEY")
    with pytest.raises(TaskError, match="environment variable A_KEY, which is not set"):
        read("odd", args={"how": "key"}, env=["A_KEY"], size=3)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("odd", {"args": {"how": "tools"}}, "it is a ToolEnv, and only a SingleTurnEnv"),
        ("odd", {"args": {"how": "group"}}, "compares the answers of a group"),
        ("odd", {"args": {"how": "shots"}}, "one of its prompts is user, assistant, user"),
        ("odd", {"args": {}}, "missing 1 required positional argument: 'how'"),
        ("no-such-one", {}, "there is no such environment"),
        ("sums", {"args": {"subtract": 1}}, "Extra inputs are not permitted"),
        ("textarena", {"args": {"game": "Wordle-v0"}}, "an exchange or tools of its own"),
        ("sums", {"python": sys.executable}, "has no verifiers"),
    ],
)
def test_an_environment_that_is_no_task_is_one_sentence(name, options, said):
    with pytest.raises(TaskError, match=said) as raised:
        read(name, **options)
    assert "\n" not in str(raised.value)


def test_a_training_run_is_paid_by_the_environment(tmp_path):
    options = {"python": str(PYTHON), "size": 40}
    settings = {
        "task.name": "verifiers:sums",
        "task.system_prompt": "''",
        "task.reward": "environment",
        "task.options": json.dumps(options),
        "train.steps": 1,
        "train.problems_per_step": 2,
        "train.num_generations": 4,
        "train.gradient_accumulation_steps": 1,
        "sampling.max_new_tokens": 8,
    }
    out = tmp_path / "out"
    command = [sys.executable, "-m", "eapo_agents.cli.main", "train", "--out", str(out)]
    command += ["--recipe", "cpu-smol+self-exploration"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]
    assert {"reward/right", "reward/brief"} <= set(steps[0])


GAME = "LightsOut-v0"


@pytest.fixture(scope="module")
def games():
    """Address of an OpenEnv server with two sessions at most, and its process."""
    port = free_port()
    server = subprocess.Popen([PYTHON, HERE / "game_server.py", str(port), GAME, "2"])
    try:
        deadline = time.monotonic() + 120
        while not is_open(port) and time.monotonic() < deadline:
            time.sleep(0.2)
        yield f"openenv:http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def solution(question: str) -> list[str]:
    """Return the presses that put all lights out: for each first row, the rest follows."""
    starts = tuple(f"{row}:" for row in range(5))
    rows = [line.split()[1:] for line in question.splitlines() if line.startswith(starts)]
    lights = [[cell == "O" for cell in row] for row in rows]
    found = []
    for first in itertools.product((False, True), repeat=5):
        now, presses = [row[:] for row in lights], []
        for row in range(5):
            for column in range(5):
                if first[column] if row == 0 else now[row - 1][column]:
                    presses.append(f"[{row} {column}]")
                    for down, right in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):
                        if 0 <= row + down < 5 and 0 <= column + right < 5:
                            now[row + down][column + right] ^= True
        if not any(map(any, now)):
            found.append(presses)
    return min(found, key=len)


def test_a_game_of_an_openenv_server_is_played_by_answers_and_by_the_tool(games):
    problems = load_problems(games, split="all", options={"size": 6, "seed": 3})
    assert len({problem.question for problem in problems}) == 6
    assert load_problems(games, split="all", options={"size": 6, "seed": 3}) == problems
    for problem in problems:
        assert problem.question.endswith("Actions: message, one a line.")
        presses = solution(problem.question)
        assert len(presses) <= 20
        assert score_text("Answer:\n" + "\n".join(presses), problem) == (1.0, True)
        as_json = "\n".join(json.dumps({"message": press}) for press in presses)
        assert score_text(f"Answer: {as_json}", problem) == (1.0, True)
        assert score_text(f"Answer: {presses[0]}", problem)[1] is False
        assert score_text("Answer:", problem) == (0.0, False)
        assert score_text("\n".join(presses), problem) == (0.0, False)  # no `Answer:`
        assert score_text('Answer: {"mess": 1}', problem) == (0.0, False)  # no action
        assert score_text(f"Answer: {'[' * 100_000}", problem)[1] is False
    with ThreadPoolExecutor(12) as pool:  # more at once than the server has sessions
        texts = [("Answer:\n" + "\n".join(solution(p.question)), p) for p in problems] * 4
        assert set(pool.map(lambda one: score_text(*one), texts)) == {(1.0, True)}

    tools = make_tools(["try_actions"])

    def say(actions):
        with consulting(Consulting(problem=problems[0])):
            call = {"name": "try_actions", "args": {"actions": actions}, "id": "c"}
            return run_to_end(use_tool(tools, {**call, "type": "tool_call"})).text

    presses = solution(problems[0].question)
    assert f"It ended after {len(presses)} actions." in say("\n".join(presses))
    assert "Total reward 1." in say("\n".join(presses))
    assert "It goes on." in say(presses[0])
    assert "did not take" in say('{"mess": 1}')
    assert say("") == "Actions: message, one a line."


def test_a_recipe_with_an_openenv_task_is_checked(games):
    facts = {
        "name": "game",
        "task": {"name": games, "options": {"size": 5}},
        "tools": ["try_actions"],
        "consult": {"turns": {"start": 3, "end": 3}},
    }
    found = list(check(Recipe.model_validate(facts)))
    assert any("no gold answers to grade" in str(line) for line in found)


def test_a_server_that_goes_away_leaves_answers_unscored():
    port = free_port()
    server = subprocess.Popen([PYTHON, HERE / "game_server.py", str(port), GAME, "2"])
    while not is_open(port) and server.poll() is None:
        time.sleep(0.2)
    (problem,) = load_problems(f"openenv:http://127.0.0.1:{port}", split="all", options={"size": 1})
    server.kill()
    server.wait()
    with pytest.raises(UndecidedError, match="cannot be reached"):
        score_text("Answer: [0 0]", problem)
