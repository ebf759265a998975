"""Names: ours by a short one, a user's as package.module:object."""

import asyncio
import sys
import textwrap

import pytest

from eapo_agents.errors import GradingError, TaskError, UsageError
from eapo_agents.experts.kinds import make_expert
from eapo_agents.grading import find_grader, grade
from eapo_agents.recipe import Recipe
from eapo_agents.registry import Registry
from eapo_agents.rewards import find_reward
from eapo_agents.tasks import load_problems
from eapo_agents.types import Problem

PROBLEM = Problem(id="p", question="q", answer="seven", grader="exact")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write a user's module into the working folder, and return its name."""

    def write(code: str, name: str = "own_parts") -> str:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(code))
        sys.modules.pop(name, None)
        return name

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return write


def numbers(known=("one", "two")) -> Registry[int]:
    return Registry[int](
        "number",
        dict.fromkeys(known, "tests:nothing"),
        accept=lambda found: found if isinstance(found, int) else None,
        rule="an integer",
    )


def test_an_unknown_name_gets_the_nearest_and_all_known_ones():
    with pytest.raises(UsageError) as told:
        numbers().find("tow")
    assert str(told.value) == (
        "Unknown number 'tow'. Did you mean 'two'? Known: one, two; or name your own as "
        "package.module:object."
    )


def test_an_object_of_a_module_is_found_and_one_of_another_kind_is_refused(own):
    name = own("ONE = 1\nWORD = 'w'\nclass Inner:\n    TWO = 2\n")
    assert numbers().find(f"{name}:ONE") == 1
    assert numbers().find(f"{name}:Inner.TWO") == 2
    with pytest.raises(UsageError, match="must be an integer, and it is a str"):
        numbers().find(f"{name}:WORD")
    with pytest.raises(UsageError, match=r"has no 'ON'\. Did you mean 'ONE'\?"):
        numbers().find(f"{name}:ON")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_module:x", "ModuleNotFoundError.*working folder"),
        (":x", "package.module:object"),
        ("own_parts:", "package.module:object"),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(name, says):
    with pytest.raises(UsageError, match=says):
        numbers().find(name)


def test_a_module_that_fails_says_how(own):
    name = own("raise RuntimeError('no licence')", "own_broken")
    with pytest.raises(UsageError, match="cannot be imported: RuntimeError: no licence"):
        numbers().find(f"{name}:x")


def test_a_task_of_ones_own_gives_problems_of_each_split(own):
    name = own(
        """
        from eapo_agents.types import Problem

        def words(split):
            return [Problem(id=f"{split}-{n}", question=f"{split} {n}?", answer="a", grader="exact")
                    for n in range(3)]

        def twice(split):
            return words("x") + words("x")

        def texts(split):
            return ["a problem"]
        """
    )
    assert len(load_problems(f"{name}:words", split="heldout", limit=2)) == 2
    with pytest.raises(TaskError, match="there twice"):
        load_problems(f"{name}:twice", split="train")
    with pytest.raises(TaskError, match=r"list of eapo_agents.types.Problem"):
        load_problems(f"{name}:texts", split="train")
    with pytest.raises(TaskError, match=r"Did you mean 'arithmetic'"):
        load_problems("arithmetics", split="train")


def test_a_reward_of_ones_own_may_say_who_is_right(own):
    name = own(
        """
        def length(answer, problem):
            return len(answer or "") / 10

        def pair(answer, problem):
            return 0.3, answer == "yes"

        def endless(answer, problem):
            return float("inf")

        def word(answer, problem):
            return "good"

        def fails(answer, problem):
            raise KeyError(problem.id)
        """
    )
    assert find_reward(f"{name}:length")("x" * 5, PROBLEM) == (0.5, False)
    assert find_reward(f"{name}:length")("x" * 10, PROBLEM) == (1.0, True)
    assert find_reward(f"{name}:length")(None, PROBLEM) == (0.0, False)
    assert find_reward(f"{name}:pair")("yes", PROBLEM) == (0.3, True)
    for wrong in ("endless", "word", "fails"):
        with pytest.raises(GradingError, match=f"{name}:{wrong}"):
            find_reward(f"{name}:{wrong}")("yes", PROBLEM)
    with pytest.raises(UsageError, match="Did you mean 'paper'"):
        find_reward("papper")


def test_rollouts_are_scored_by_the_reward_that_is_named(own, scripted):
    from graphs.rollout import run_group
    from graphs.solo import build_solo_graph

    name = own("def three(answer, problem):\n    return 3.0\n", "own_reward")
    policy = scripted(["a word"])
    group = asyncio.run(
        run_group(
            build_solo_graph(policy),
            policy,
            PROBLEM,
            2,
            system_prompt="",
            seed=0,
            reward=find_reward(f"{name}:three"),
        )
    )
    assert [t.reward for t in group.trajectories_G] == [3.0, 3.0]
    assert [t.correct for t in group.trajectories_G] == [True, True]


def test_a_grader_of_ones_own_is_a_problem_s_grader(own):
    name = own(
        """
        from eapo_agents.grading import Grade

        def says_it(text, problem):
            return problem.answer in text

        def half(text, problem):
            return Grade(score=0.5, formatted=True)

        def shrug(text, problem):
            return None
        """
    )
    problem = Problem(id="p", question="q", answer="seven", grader=f"{name}:says_it")
    assert grade("It is seven.", problem).correct
    assert not grade("It is six.", problem).correct
    assert find_grader(f"{name}:half:lenient").text("x", problem).score == 0.5
    with pytest.raises(GradingError, match="returned a NoneType"):
        grade("x", Problem(id="p", question="q", answer="a", grader=f"{name}:shrug"))


def test_an_expert_of_ones_own_kind_is_a_tool_whose_price_is_not_known(own):
    name = own(
        """
        from langchain_core.tools import StructuredTool

        def adviser(name, *, advice="ask again"):
            async def ask(query: str) -> str:
                return advice
            return StructuredTool.from_function(coroutine=ask, name=name, description="d")

        def text(name):
            return "no tool"
        """
    )
    expert = make_expert(f"{name}:adviser", name="a", options={"advice": "no"})
    assert expert.name == "a"
    assert expert.price is None
    with pytest.raises(UsageError, match="do not fit"):
        make_expert(f"{name}:adviser", name="a", options={"advise": "no"})
    with pytest.raises(UsageError, match="must return a LangChain tool, and returned a str"):
        make_expert(f"{name}:text", name="a", options={})


def test_an_advantage_of_ones_own_gives_one_number_for_each_reward(own):
    from trainers.advantages import group_advantages

    name = own(
        """
        def ranks(rewards):
            return [sorted(rewards).index(reward) - 1 for reward in rewards]

        def one(rewards):
            return [1.0]
        """
    )
    assert group_advantages([0.0, None, 1.0, 0.5], f"{name}:ranks") == [-1.0, None, 1.0, 0.0]
    with pytest.raises(UsageError, match="one finite number for each of 2"):
        group_advantages([0.0, 1.0], f"{name}:one")
    with pytest.raises(UsageError, match="Did you mean 'rloo'"):
        group_advantages([0.0, 1.0], "rlo")


def test_a_benchmark_of_ones_own_is_found_and_a_misspelt_one_gets_the_nearest(own):
    from evals.benchmarks import find_benchmark

    name = own("from evals.benchmarks.gsm8k import GSM8K as MINE\nOTHER = 1\n", "own_benchmark")
    assert find_benchmark(f"{name}:MINE").name == "gsm8k"
    with pytest.raises(UsageError, match=r"must be an evals.benchmark.Benchmark"):
        find_benchmark(f"{name}:OTHER")
    with pytest.raises(UsageError, match="Did you mean 'math500'"):
        find_benchmark("math50")


def test_names_in_a_recipe_reach_the_command(own):
    recipe = Recipe.model_validate(
        {"name": "r", "task": {"reward": "own_parts:f", "name": "own_parts:g"}, "graph": "a.b:c"}
    )
    assert (recipe.task.reward, recipe.task.name) == ("own_parts:f", "own_parts:g")
    assert recipe.graph == "a.b:c"
