"""Environments of Gymnasium as tasks: real ones, played by answers and by a tool that stays."""

from collections import deque

import pytest

pytest.importorskip("gymnasium", reason="needs the extra `gymnasium`")

from eapo_agents.errors import RecipeError, TaskError, UsageError
from eapo_agents.experts.consulting import Consulting, consulting
from eapo_agents.recipe import Recipe
from eapo_agents.recipe_file import load_recipe
from eapo_agents.rewards import score_text
from eapo_agents.runs.checking import check
from eapo_agents.tasks import load_problems
from eapo_agents.tasks.environments import play, read_actions
from eapo_agents.tools import make_tools, use_tool
from graphs.fill import run_to_end

LAKE = "gymnasium:FrozenLake-v1"
CALM = {"size": 12, "map_size": 4, "is_slippery": False}


def shortest(problem) -> str:
    """Return the actions of a shortest way over the map that the question shows."""
    rows = [line.replace("[", "").replace("]", "") for line in problem.question.split("\n")]
    cells = [row for row in rows if row and not set(row) - set("SFHG")]
    moves = {"left": (0, -1), "down": (1, 0), "right": (0, 1), "up": (-1, 0)}
    waiting, seen = deque([((0, 0), [])]), {(0, 0)}
    while waiting:
        (row, column), way = waiting.popleft()
        if cells[row][column] == "G":
            return " ".join(way)
        for name, (down, right) in moves.items():
            place = (row + down, column + right)
            inside = 0 <= place[0] < len(cells) and 0 <= place[1] < len(cells)
            if inside and place not in seen and cells[place[0]][place[1]] != "H":
                seen.add(place)
                waiting.append((place, [*way, name]))
    raise AssertionError("no way")


def test_an_answer_is_played_and_earns_what_the_environment_pays():
    problems = load_problems(LAKE, split="all", options=CALM)
    assert 8 < len({problem.question for problem in problems}) == len(problems) <= 12
    again = load_problems(LAKE, split="all", options=CALM)
    assert again == problems
    for problem in problems:
        assert score_text(f"Answer: {shortest(problem)}", problem) == (1.0, True)
        assert score_text("Answer: left, left", problem) == (0.1, False)  # the form, no goal
        assert score_text("Answer: jump", problem) == (0.0, False)
        assert score_text(None, problem) == (0.0, False)
    train = load_problems(LAKE, split="train", options=CALM, held_out=0.3)
    held_out = load_problems(LAKE, split="heldout", options=CALM, held_out=0.3)
    assert len(train) + len(held_out) == len(problems)


def test_the_tool_plays_from_the_start_each_time_in_the_problem_of_its_rollout():
    first, second = load_problems(LAKE, split="all", options=CALM)[:2]
    tools = make_tools(["try_actions"])

    def say(problem, actions):
        with consulting(Consulting(problem=problem)):
            call = {"name": "try_actions", "args": {"actions": actions}, "id": "c"}
            return run_to_end(use_tool(tools, {**call, "type": "tool_call"})).text

    whole = say(first, shortest(first))
    assert "Total reward 1." in whole
    assert "It ended after" in whole
    start = play(first.metadata, []).seen
    assert start in say(first, "left")  # a wall: it stands where it began
    assert play(second.metadata, []).seen in say(second, "left")
    assert say(first, "jump") == "Write actions, separated by spaces: left, down, right, up."
    assert say(None, "left") == "There is no environment here."


def test_a_taxi_that_does_not_arrive_earns_nothing():
    (problem,) = load_problems("gymnasium:Taxi-v4", split="all", options={"size": 1})
    assert "Actions: south, north, east, west, pickup, dropoff." in problem.question
    assert "\x1b" not in problem.question
    assert score_text("Answer: pickup dropoff", problem) == (0.1, False)
    assert read_actions("south " * 1001, ["south"]) is None


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("gymnasium:NoSuchLake-v1", {}, "cannot make"),
        ("gymnasium:CartPole-v1", {}, "states that are text"),
        (LAKE, {"size": "many"}, "must be integers from 0"),
        (LAKE, {"actions": ["a", "b"]}, "must name the 4 actions"),
        (LAKE, {"no_such_option": 1}, "cannot make"),
        ("gymnasium:CliffWalking-v1", {"map_size": 4}, "map_size is FrozenLake's"),
        ("gymnasium:Blackjack-v1", {}, "states that are text"),
    ],
)
def test_an_environment_that_is_not_a_task_is_one_sentence(name, options, said):
    with pytest.raises(TaskError, match=said):
        load_problems(name, split="all", options=options)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("verifiers:sums", {"add": 1}, "what the environment itself takes stands in args"),
        ("verifiers:sums", {"size": 0}, "must be an integer from 1"),
        ("verifiers:sums", {"solved": 0}, "must be above 0"),
        ("verifiers:sums", {"args": 3}, "is a mapping"),
        ("verifiers:sums", {"env": "KEY"}, "is a list of names"),
        ("verifiers:sums", {"env": ["NO_SUCH_KEY"]}, "NO_SUCH_KEY, which is not set"),
        ("verifiers:sums", {"python": "/no/python"}, "'/no/python' cannot be run"),
        ("verifiers:sums", {"python": "/bin/false"}, "its process ended"),
        ("verifiers:sums", {}, "has no verifiers"),
        ("openenv:127.0.0.1:9", {}, "names its server's address"),
        ("openenv:http://127.0.0.1:9", {}, "does not give the schema"),
        ("openenv:http://me:12345678@127.0.0.1:9", {}, "holds no key"),
        ("openenv:http://127.0.0.1:9", {"size": True}, "must be an integer from 1"),
        ("openenv:http://127.0.0.1:9", {"moves": 3}, "stands in reset"),
        ("openenv:http://127.0.0.1:9", {"solved": -1}, "must be above 0"),
        ("openenv:http://127.0.0.1:9", {"api_key_env": "NO_SUCH_KEY"}, "which is not set"),
    ],
)
def test_an_environment_elsewhere_that_is_no_task_is_one_sentence(name, options, said):
    with pytest.raises(UsageError, match=said) as raised:
        load_problems(name, split="all", options=options)
    assert "\n" not in str(raised.value)


def test_the_reward_of_an_environment_needs_one():
    with pytest.raises(ValueError, match=r"needs a task\.name 'verifiers:NAME'"):
        Recipe.model_validate({"name": "a", "task": {"reward": "environment"}})
    with pytest.raises(ValueError, match="'gymnasium:ID' or 'openenv:URL'"):
        Recipe.model_validate({"name": "a", "tools": ["try_actions"]})


OWN = """
import gymnasium

class Count(gymnasium.Env):
    observation_space = gymnasium.spaces.Text(20, charset="reacht 0123")
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, most=3):
        self.most = most

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.aim, self.now = int(self.np_random.integers(1, self.most + 1)), 0
        return f"reach {self.aim}", {}

    def step(self, action):
        self.now += int(action)
        done = self.now == self.aim
        return f"at {self.now}", float(done), done, False, {}

gymnasium.register("Count-v0", entry_point=Count)
"""


def test_an_environment_of_ones_own_is_imported_by_its_module(tmp_path, monkeypatch):
    (tmp_path / "count_environment.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    name = "gymnasium:count_environment:Count-v0"
    with pytest.raises(TaskError, match=r"set task\.options\.solved"):
        load_problems(name, split="all")
    problems = load_problems(name, split="all", options={"solved": 1, "actions": ["stay", "add"]})
    assert sorted(p.question[:7] for p in problems) == ["reach 1", "reach 2", "reach 3"]
    for problem in problems:
        aim = int(problem.question[6])
        assert score_text("Answer: stay" + " add" * aim, problem) == (1.0, True)
        assert not score_text("Answer: stay", problem)[1]


def test_the_tool_of_environments_needs_one():
    with pytest.raises(RecipeError, match=r"'try_actions' needs a task\.name"):
        load_recipe("quick", ["tools=[try_actions]"])


def test_the_doctor_looks_at_an_environment():
    given = [
        "train.report_to=[]",
        f"task.name={LAKE}",
        "task.options={size: 300, map_size: 4, is_slippery: false}",
        "tools=[try_actions]",
    ]
    found = {(one.part, one.verdict): one.says for one in check(load_recipe("quick", given))}
    assert "no gold answers" in found[("reward", "ok")]
    assert not [says for (_, verdict), says in found.items() if verdict == "blocking"]
