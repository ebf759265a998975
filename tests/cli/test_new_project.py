"""`eapo init` writes a project with which nothing is wrong; what `eapo doctor` finds in others."""

import json

import pytest

PROBLEM = {"id": "1", "question": "How many?", "answer": "4", "grader": "number"}


@pytest.fixture
def project(run_command, monkeypatch, tmp_path, saved_model):
    """project(*options) -> (exit status, what was printed) of `eapo init` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def make(*options):
        status, out, err = run_command("init", "mine", "--model", saved_model, *options)
        if status == 0:
            monkeypatch.chdir(tmp_path / "mine")
            monkeypatch.syspath_prepend(str(tmp_path / "mine"))
        return status, out + err

    return make


def examined(run_command, *overrides):
    """(exit status, part -> its worst verdict and all that was said of it)."""
    words = [word for override in overrides for word in ("--set", override)]
    status, out, _ = run_command("doctor", "-r", "recipe.yaml", "--ask", "--json", *words)
    parts = {}
    for finding in json.loads(out)["findings"]:
        verdicts, said = parts.setdefault(finding["part"], (set(), []))
        verdicts.add(finding["verdict"])
        said.append(finding["says"])
    return status, {part: (verdicts, " ".join(said)) for part, (verdicts, said) in parts.items()}


def test_a_new_project_is_whole(project, run_command):
    status, said = project()
    assert status == 0, said
    status, parts = examined(run_command)
    assert status == 0
    assert list(parts) == ["problems", "reward", "model", "experts", "disk", "a live run"]
    assert not any("blocking" in verdicts for verdicts, _ in parts.values())
    assert "replied in" in parts["experts"][1]


def test_problems_of_ones_own_are_taken_and_decide_on_the_expert(project, tmp_path, run_command):
    own = tmp_path / "own.jsonl"
    own.write_text("".join(json.dumps({**PROBLEM, "id": str(n)}) + "\n" for n in range(3)))
    status, said = project("--problems", own, "--expert", "reference")
    assert (status, "have none" in said) == (2, True)
    assert not (tmp_path / "mine").exists()
    assert project("--problems", own)[0] == 0
    assert "kind: openai-chat" in (tmp_path / "mine" / "recipe.yaml").read_text()
    status, _, err = run_command("init", ".")
    assert (status, "has files: name another" in err) == (2, True)
    status, _, err = run_command("init", "other", "--problems", "gymnasium:FrozenLake-v1")
    assert (status, "set task.name in recipe.yaml afterwards" in err) == (2, True)


@pytest.mark.parametrize(
    ("override", "part", "says"),
    [
        ("task.answer_form='{answer} or 0'", "reward", "gold answers do not count as right"),
        ("task.reward=generous:always", "reward", "to another problem count as right"),
        ("task.reward=generous:broken", "reward", "no such thing"),
        ("task.name=none.jsonl", "problems", "cannot be read"),
        ("train.problems_per_step=4000", "problems", "problems_per_step is 4000"),
        ("policy.model=./nowhere", "model", "There is no model folder"),
        ("consult.experts.helper.options.field=plan", "experts", "has no 'plan'"),
        ("consult.experts={me: {kind: human}}", "experts", "is a person"),
        ("tools=[{command: /nonexistent/server}]", "experts", "in tools does not answer"),
    ],
)
def test_what_would_fail_later_is_found_by_the_doctor(
    project, run_command, tmp_path, override, part, says
):
    project()
    (tmp_path / "mine" / "generous.py").write_text(
        "def always(answer, problem):\n    return 1.0\n\n"
        "def broken(answer, problem):\n    raise KeyError('no such thing')\n"
    )
    status, parts = examined(run_command, override)
    assert status == 5
    verdicts, said = parts[part]
    assert "blocking" in verdicts
    assert says in said


LEAKS = """
from eapo_agents.types import Problem
from graphs.solo import build_solo_graph

def told(split):
    return [Problem(id=f"{split}{n}", question=f"{split}: it is {n}9.", answer=f"{n}9",
                    grader="number") for n in range(60)]

def build(policy, tools):
    return build_solo_graph(policy)

def gives(problem):
    return {"messages": [("user", f"{problem.question} ({problem.answer})")]}

def fails(problem):
    raise KeyError("k")
"""


@pytest.mark.parametrize(
    ("overrides", "verdict", "says"),
    [
        (["task.name=leaks:told"], "warning", "stands in the question of 60 of 60"),
        (["graph=leaks:build", "inputs=leaks:gives"], "blocking", "'leaks:gives' gives the graph"),
        (["graph=leaks:build", "inputs=leaks:fails"], "blocking", "KeyError: 'k'"),
    ],
)
def test_a_gold_answer_that_the_policy_sees_is_a_finding(
    project, run_command, tmp_path, overrides, verdict, says
):
    project()
    (tmp_path / "mine" / "leaks.py").write_text(LEAKS)
    _, parts = examined(run_command, *overrides)
    verdicts, said = parts["problems"]
    assert verdict in verdicts
    assert says in said


def test_a_table_of_problems_is_copied_under_its_own_ending(project, tmp_path, run_command):
    rows = "".join(f"How many are {n}?,{n},number\n" for n in range(60))
    (tmp_path / "own.csv").write_text(f"question,answer,grader\n{rows}")
    assert project("--problems", tmp_path / "own.csv")[0] == 0
    assert "name: problems.csv" in (tmp_path / "mine" / "recipe.yaml").read_text()
    _, parts = examined(run_command, "consult.experts={helper: {kind: scripted}}")
    assert "blocking" not in parts["problems"][0]


def test_a_graph_of_ones_own_is_no_finding(project, run_command, tmp_path):
    project()
    (tmp_path / "mine" / "agent_of_mine.py").write_text(
        "from graphs.solo import build_solo_graph\n\n"
        "def build(policy, tools):\n    return build_solo_graph(policy)\n"
    )
    status, parts = examined(run_command, "graph=agent_of_mine:build")
    assert (status, parts["a live run"][0]) == (0, {"ok"})
