"""Scripted episodes on a task of one's own: what they contain, and what is refused."""

import json

import pytest

from eapo_agents.cli.progress import TERMINAL
from eapo_agents.errors import RecipeError, TaskError, TraceError
from eapo_agents.recipe_file import load_recipe
from eapo_agents.runs.loading import load_agent, problems_of, warm_start_problems
from eapo_agents.runs.warm_starting import WARM, warm_start, with_fresh_model
from eapo_agents.types import ConsultationStatus as S
from eapo_agents.types import Role
from trainers.warm_start_episodes import scripted_episodes

RECIPE = """
name: words
policy: {fresh: {layers: 1, width: 16, heads: 2, vocabulary: 300}}
sampling: {max_new_tokens: 200}
task: {name: words.jsonl, system_prompt: ''}
consult: {experts: {list: {kind: scripted, options: {replies: REPLIES, default: DEFAULT}}}}
warm_start: {problems: 3, rows_per_step: 9}
train: {lora: null, report_to: [], steps: 1, problems_per_step: 2, num_generations: 2,
        dynamic_sampling_retries: 0, minibatches_per_step: 1, gradient_accumulation_steps: 1}
"""
QUESTIONS = [f"Which word has number {n}?" for n in range(3)]


@pytest.fixture
def recipe_of(tmp_path, monkeypatch):
    """recipe_of(replies, default) -> a recipe of a fresh model whose expert replies so."""
    monkeypatch.chdir(tmp_path)
    problems = [
        {"id": f"w{n}", "question": question, "answer": f"word{n}", "grader": "exact"}
        for n, question in enumerate(QUESTIONS)
    ]
    problems[2]["solution"] = "It comes after word1."
    lines = [json.dumps({**problem, "split": "train"}) for problem in problems]
    (tmp_path / "words.jsonl").write_text("\n".join(lines))

    def make(replies=None, default="null", *overrides):
        text = RECIPE.replace("REPLIES", json.dumps(replies or {})).replace("DEFAULT", default)
        (tmp_path / "words.yaml").write_text(text)
        return load_recipe(tmp_path / "words.yaml", overrides)

    return make


def episodes_of(recipe, folder):
    agent = load_agent(with_fresh_model(recipe, problems_of(recipe, "train", 3), folder))
    return scripted_episodes(agent, problems_of(recipe, "train", 3), TERMINAL)


def test_any_task_is_taught_by_the_experts_own_replies(recipe_of, tmp_path):
    """A right reply is gone on from in the task's form; of a wrong one the gold answer is given."""
    replies = {QUESTIONS[0]: "It is easy. Answer: word0", QUESTIONS[1]: "Answer: nonsense"}
    recipe = recipe_of(replies, "no idea")
    episodes = episodes_of(recipe, tmp_path / "run")
    assert len(episodes) == 9
    assert all(episode.correct for episode in episodes)
    asked = [t for t in episodes if t.role is Role.CONSULT]
    assert len(asked) == 6
    assert all(t.turns[0].consultations[0].query == t.problem.question for t in asked)
    helped = {t.problem.id: t for t in asked if t.turns[0].consultations[0].status is S.ACCEPTED}
    assert helped["w0"].turns[1].text.startswith("It is easy. Answer: word0")
    assert helped["w1"].turns[1].text == "Answer: word1"
    # without a reply nothing but the answer is shown
    alone = [t for t in episodes if helped.get(t.problem.id) is not t]
    assert {t.turns[-1].text for t in alone} == {"Answer: word0", "Answer: word1", "Answer: word2"}


def test_practice_on_other_problems_shows_no_answer_of_the_tasks_own(recipe_of, tmp_path):
    lines = [
        {"id": f"p{n}", "question": f"Which number has word {n}?", "answer": n, "grader": "exact"}
        for n in range(5)
    ]
    (tmp_path / "other.jsonl").write_text("\n".join(map(json.dumps, lines)))
    recipe = recipe_of({}, "no idea", "warm_start.practice=other.jsonl")
    problems = warm_start_problems(recipe)
    assert {problem.id for problem in problems} < {f"p{n}" for n in range(5)}
    assert len(problems) == 3  # warm_start.problems

    agent = load_agent(with_fresh_model(recipe, problems, tmp_path / "run"))
    episodes = scripted_episodes(agent, problems, TERMINAL)
    shown = " ".join(turn.text for episode in episodes for turn in episode.turns)
    assert "Answer: " in shown
    assert "word0" not in shown

    # what is held out is no practice either, whatever its id
    held_out = {"id": "h", "question": "WHICH number has word 1?", "answer": "1", "grader": "exact"}
    with (tmp_path / "words.jsonl").open("a") as file:
        file.write("\n" + json.dumps({**held_out, "split": "heldout"}))
    every = recipe_of({}, "no idea", "warm_start.practice=other.jsonl", "warm_start.problems=5")
    with pytest.raises(TaskError, match=r"1 of warm_start\.practice 'other\.jsonl' are"):
        warm_start_problems(every)


def test_experts_that_fail_are_told_of_and_all_failing_is_an_error(recipe_of, tmp_path, capsys):
    recipe = recipe_of({QUESTIONS[0]: "Answer: word0"})
    episodes = episodes_of(recipe, tmp_path / "run")
    # nothing is left out: after a failure the policy reads what it reads after a withheld reply
    assert len(episodes) == 9
    failed = [t for t in episodes if t.turns[0].consultations and t.turns[0].consultations[0].error]
    assert [t.turns[1].text for t in failed] == ["Answer: word1", "Answer: word2"]
    assert "2 of 3 questions of the warm start had no reply" in capsys.readouterr().err
    with pytest.raises(TraceError, match="Every expert failed"):
        episodes_of(recipe_of(), tmp_path / "other")


def test_turns_longer_than_a_rollout_may_write_are_told_of(recipe_of, tmp_path, capsys):
    recipe = recipe_of({}, "no idea", "sampling.max_new_tokens=4")
    episodes_of(recipe, tmp_path / "run")
    assert "sampling.max_new_tokens is 4. Raise it." in capsys.readouterr().err


def test_a_script_for_expressions_is_refused_on_another_task_before_anything_is_made(
    recipe_of, tmp_path
):
    recipe = recipe_of({}, "no idea", "warm_start.script=arithmetic")
    with pytest.raises(RecipeError, match=r"3 of the task.*warm_start\.script=asking"):
        warm_start(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_experts_that_take_no_query_cannot_be_asked_by_the_script(recipe_of, tmp_path, monkeypatch):
    (tmp_path / "own_tools.py").write_text(
        "from langchain_core.tools import tool\n\n"
        "@tool\ndef add(a: int, b: int) -> int:\n    '''adds'''\n    return a + b\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = recipe_of(
        {}, "no idea", "consult.experts={add: {kind: tool, options: {object: 'own_tools:add'}}}"
    )
    with pytest.raises(RecipeError, match="one argument, query, and none of add"):
        episodes_of(recipe, tmp_path / "run")


def test_a_fresh_model_is_taught_once_and_then_trained_and_found_beside_its_policy(
    recipe_of, tmp_path, run_command
):
    recipe_of({}, "no idea")
    command = ("train", "-r", "words.yaml", "--out", "run", "--json")
    status, out, err = run_command(*command)
    assert status == 0, err
    assert "model made anew" in err
    assert json.loads(out)["rollouts"] == 4
    made = (tmp_path / "run" / WARM / "taught").stat().st_mtime_ns
    status, _, err = run_command(*command)
    assert (status, "is finished" in err) == (0, True)
    assert (tmp_path / "run" / WARM / "taught").stat().st_mtime_ns == made
    further = ("--policy", "run/policy", "--out", "further", "--json")
    status, out, err = run_command("train", "-r", "words.yaml", *further)
    assert status == 0, err
    assert (tmp_path / "further" / "fresh" / "config.json").exists()
    status, _, err = run_command("collect", "-r", "words.yaml", "--store", "t.db")
    assert status == 2
    assert "knows nothing: run `eapo warm-start`" in err
    status, _, err = run_command("run", "q", "-r", "words.yaml", "--policy", "run/warm/nothing")
    assert status == 2
