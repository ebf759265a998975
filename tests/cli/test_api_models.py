"""API models as policy: real HTTP and a user's chat model, through the commands."""

import io
import json
import re
import sqlite3
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from eapo_agents.store import TraceStore

USAGE = {"prompt_tokens": 300, "completion_tokens": 20, "total_tokens": 320}


def said(content=None, calls=(), finish="stop", usage=USAGE, **fields):
    """A completion; a server sends it where it is asked it (`given`)."""
    made = [
        {"id": f"x{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for n, (name, arguments) in enumerate(calls)
    ]
    message = {"role": "assistant", "content": content, "tool_calls": made or None, **fields}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage})


@pytest.fixture
def project(faulty, tmp_path, monkeypatch, run_command):
    """A folder with a recipe over an endpoint of the faulty server."""
    monkeypatch.chdir(tmp_path)

    class Project:
        folder = tmp_path

        def recipe(self, fault="given", reply="19", questions=(), **sections):
            lines = [
                {
                    "id": f"{split}/{n}",
                    "question": q,
                    "answer": "19",
                    "grader": "number",
                    "split": split,
                }
                for split in ("train", "heldout")
                for n, q in enumerate(questions or ["What is 7 + 3 * 4?"])
            ]
            (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
            recipe = {
                "name": "api",
                "policy": {"endpoint": {"url": faulty.url(fault), "model": "m"}},
                "task": {"name": "t.jsonl", "system_prompt": "", "allow_overlap": True},
                "consult": {
                    "experts": {"a": {"kind": "scripted", "options": {"default": reply}}},
                    "acceptance": {"kind": "constant"},
                },
                "collect": {"num_generations": 2},
                "eval": {"greedy": False, "problems": 4},
            }
            for key, value in sections.items():
                recipe[key] = {**recipe.get(key, {}), **value} if isinstance(value, dict) else value
            (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))

        def run(self, *words):
            recipe = {"traces": [], "study": ["r.yaml"], "compare": []}.get(words[0])
            return run_command(*words, *(["-r", "r.yaml"] if recipe is None else recipe))

        def ledger(self, file="runs/experts.db"):
            db = sqlite3.connect(tmp_path / file)
            return db.execute(
                "SELECT expert, status, prompt_tokens, completion_tokens, cost_usd, thought "
                "FROM calls WHERE attempts > 0 ORDER BY id"
            ).fetchall()

    return Project()


def test_a_collection_by_an_api_model_asks_experts_and_has_no_tokens(project, faulty):
    ask = said("<think>hm</think>", calls=[("a", '{"query": "7 + 3 * 4"}')])
    answer = said("Answer: 19", reasoning_content="now I know", usage={**USAGE, "cost": 0.5})
    project.recipe(questions=[ask], reply=answer)
    status, out, err = project.run("collect", "--json")
    assert status == 0, err
    assert json.loads(out)["accuracy"] == 1.0
    assert json.loads(out)["sampled_tokens"] == 80
    assert "2 rollouts, at most 6 calls" in err
    with TraceStore.open("runs/traces.db") as store:
        (group,) = store.groups("collect-api")
    trajectory = group.trajectories_G[0]
    first, second = trajectory.turns
    assert (first.completion_ids, first.context_ids, first.logprobs) == ((), (), None)
    assert (first.billed.completion_tokens, first.billed.cost_usd) == (20, None)
    assert (second.billed.cost_usd, second.parent) == (0.5, 0)
    assert "<think>\nhm\n</think>" in first.text
    assert [c.status.value for c in first.consultations] == ["accepted"]
    assert trajectory.answer == "Answer: 19"
    policy_rows = [row for row in project.ledger() if row[0] == "policy"]
    assert policy_rows[0][1:] == ("accepted", 300, 20, None, "hm")
    assert policy_rows[-1][-2:] == (0.5, "now I know")
    # a thought is never handed on
    sent = faulty.last()
    assert "hm" not in json.dumps(sent["messages"][1:])
    assert [m["role"] for m in sent["messages"]] == ["user", "assistant", "tool"]
    assert sent["messages"][1]["tool_calls"][0]["id"] == sent["messages"][2]["tool_call_id"]


@pytest.fixture
def own_model(project, monkeypatch):
    """The same project with a chat model of a user's."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))

    def recipe(name, **sections):
        policy = {"endpoint": None, "chat_model": f"api_objects:{name}"}
        project.recipe(**{**sections, "policy": {**policy, **sections.get("policy", {})}})
        return project

    return recipe


@pytest.mark.parametrize("name", ["asking", "made"])
def test_a_langchain_chat_model_is_a_policy_in_the_same_graph(own_model, name):
    project = own_model(name, sampling={"temperature": 0.5, "max_new_tokens": 77})
    status, out, err = project.run("collect", "--json")
    assert status == 0, err
    assert json.loads(out)["accuracy"] == 1.0
    assert json.loads(out)["sampled_tokens"] == 12
    thoughts = [row[-1] for row in project.ledger() if row[0] == "policy" and row[-1]]
    assert thoughts == ["T=0.5 L=77"] * 2


@pytest.mark.parametrize(
    ("name", "words", "status", "says"),
    [
        ("number", ["collect"], 2, "must be a LangChain chat model .* it is a int"),
        ("not_there", ["collect"], 2, "has no 'not_there'"),
        ("not_made", ["collect"], 2, "cannot be made: KeyError: 'SOME_KEY'"),
        ("without_tools", ["collect"], 2, "takes none .*--graph solo"),
        ("without_tools", ["eval", "--set", "eval.greedy=true"], 2, "has no field `temperature`"),
        ("wrong_key", ["collect"], 1, "cannot go on: RuntimeError: no"),
    ],
)
def test_a_chat_model_that_cannot_be_the_policy_is_refused_in_a_sentence(
    own_model, name, words, status, says
):
    found, _, err = own_model(name).run(*words)
    assert found == status
    assert re.search(says, err)
    assert "Traceback" not in err


@pytest.mark.parametrize("name", ["failing", "busy"])
def test_rollouts_that_a_service_failed_run_again(own_model, name):
    project = own_model(name, policy={"calls": {"retries": 0}})
    status, out, _ = project.run("collect", "--json")
    assert (status, json.loads(out)["failed"]) == (3, 2)
    assert json.loads(project.run("collect", "--json")[1])["run_now"] == 2


def test_one_question_is_answered_with_its_cost(project):
    answer = said("<think>4?</think>Answer: 19", usage={**USAGE, "cost": 0.25})
    project.recipe()
    status, out, err = project.run("run", answer, "--json")
    assert status == 0, err
    found = json.loads(out)
    assert (found["answer"], found["cost_usd"]) == ("Answer: 19", 0.25)
    assert (found["sampled_tokens"], found["turns"][0]["tokens"]) == (20, 20)
    status, out, err = project.run("run", said("Five.", usage=None))
    assert (status, out) == (0, "Five.\n")
    assert "tokens not counted · unpriced" in err


def test_a_conversation_with_an_api_model_can_be_rated(project, monkeypatch):
    project.recipe()
    lines = f"{said('<think>secret</think>Five.')}\n/rate 1\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    status, out, err = project.run("chat")
    assert (status, out) == (0, "Five.\n"), err
    assert "Saved in runs/traces.db" in err
    assert "thought secret" in err  # apart from the answer


def test_an_evaluation_compares_api_models_and_shares_one_budget(project):
    right, wrong = said("Answer: 19"), said("Answer: 7")
    project.recipe(
        questions=[right, wrong], policy={"calls": {"price": {"input_usd": 1, "output_usd": 2}}}
    )
    words = ["eval", "--out", "a", "--assisted", "--json", "--set", "consult.budget.calls=3"]
    status, _, err = project.run(*words)
    assert status == 4
    assert "The run's budget is spent: 3 of 3 calls." in err
    assert "4 rollouts, at most 8 calls" in err
    assert "The budget ends it at 3 calls." in err
    status, out, err = project.run(*words[:-1], "consult.budget.calls=4")
    assert status == 0, err
    scores = {key: found["score"] for key, found in json.loads(out)["results"].items()}
    assert scores == {"t solo": 0.5, "t assisted": 0.5}
    assert len(project.ledger("a/experts.db")) == 4
    assert project.run("compare", "a", "a")[0] == 0


def test_an_evaluation_whose_service_counts_no_tokens_is_read_again(project):
    project.recipe(questions=[said("<think>hm</think>Answer: 19", usage=None)])
    assert project.run("eval", "--out", "a")[0] == 0
    assert project.run("compare", "a", "a")[0] == 0
    assert "not counted" in Path("a/report.md").read_text()
    status, out, _ = project.run("eval", "--out", "a", "--json")
    assert status == 0
    assert "sampled_tokens" not in json.loads(out)["results"]["t solo"]


def test_a_graph_of_a_users_own_asks_an_api_model(project, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "graphs"))
    ask = said(calls=[("search", '{"query": "x"}'), ("a", '{"query": "y"}'), ("a", "{")])
    project.recipe(questions=[ask], reply=said("Answer: 19"), graph="own_agents:searching")
    status, out, err = project.run("run", said("Answer: 19"), "--json")
    assert (status, json.loads(out)["answer"]) == (0, "Answer: 19"), err
    status, out, err = project.run("collect", "--json")
    assert (status, json.loads(out)["accuracy"]) == (0, 1.0), err
    with TraceStore.open("runs/traces.db") as store:
        (group,) = store.groups("collect-api")
    asked = group.trajectories_G[0].turns[0]
    assert [(c.expert, c.status.value) for c in asked.consultations] == [("a", "accepted")]


def test_the_doctor_looks_at_an_api_model_and_tells_its_price(project):
    project.recipe(policy={"calls": {"price": {"input_usd": 0, "output_usd": 10000}}})
    _, out, _ = project.run("doctor")
    assert "'m' is an API model: it can be asked, not trained" in out
    assert "at most $15.36" in out
    project.recipe(policy={"endpoint": {"url": "http://127.0.0.1:9/v1", "model": "m"}})
    assert "cannot be reached" in project.run("doctor")[1]


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        ({"url": "http://127.0.0.1:9/v1"}, "cannot be reached (The connection failed"),
        ({"url": "localhost:8000"}, "policy.endpoint.url must be an http or https URL"),
        ({"key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE, which is not set"),
        ({"extra_body": {"api_key": "sk-1"}}, "must not hold a key ('api_key')"),
        ({"temprature": 1}, "there is no key 'policy.endpoint.temprature'"),
    ],
)
def test_an_endpoint_that_cannot_be_used_is_refused_in_a_sentence(project, faulty, endpoint, says):
    given = {"url": faulty.url("given"), "model": "m", **endpoint}
    project.recipe(policy={"endpoint": given})
    status, _, err = project.run("collect")
    assert status == 2
    assert says in err


def test_settings_of_weights_have_no_effect_on_an_api_model(project):
    project.recipe(policy={"adapter": "x"})
    status, _, err = project.run("collect")
    assert status == 2
    assert "'policy.adapter' has no effect: it needs a policy whose weights are here" in err


@pytest.mark.parametrize(
    "words",
    [
        ["train"],
        ["train", "--dry-run"],
        ["train", "--from-traces", "runs/traces.db"],
        ["warm-start"],
        ["study", "--arms", "paper"],
        ["demo"],
    ],
)
def test_training_an_api_model_is_refused_before_anything_slow(project, faulty, words):
    project.recipe()
    before = faulty.counts()
    status, _, err = project.run(*words)
    assert status == 2
    assert "is an API model" in err or "API model, 'm'" in err
    assert faulty.counts() == before


def test_traces_of_an_api_model_are_exported_and_not_trained_on(project):
    project.recipe(questions=[said("<think>hm</think>Answer: 19")])
    assert project.run("collect")[0] == 0
    status, out, err = project.run("traces", "doctor", "runs/traces.db")
    assert status == 5
    assert "LEFT OUT without_tokens (2)" in out
    assert "have no tokens" in err
    (stats,) = json.loads(project.run("traces", "stats", "runs/traces.db", "--json")[1])["runs"]
    assert (stats["sampled_tokens"], stats["context_tokens"]) == (40, None)
    assert (stats["turns_without_tokens"], stats["policy_cost_usd"]) == (2, None)
    assert "an API model's, 20 written" in project.run("traces", "show", "runs/traces.db", "1")[1]
    assert project.run("traces", "export", "runs/traces.db", "s.jsonl", "--as", "sft")[0] == 0
    (row,) = map(json.loads, Path("s.jsonl").read_text().splitlines())
    assert row["completion"] == [{"role": "assistant", "content": "Answer: 19"}]
    assert project.run("traces", "export", "runs/traces.db", "t.parquet")[0] == 0
    turn = pq.read_table("t.parquet").to_pylist()[0]["turns"][0]
    assert turn["billed"] == {"prompt_tokens": 300, "completion_tokens": 20, "cost_usd": None}
    Path("r.yaml").write_text("name: x\npolicy: {model: nowhere/at-all}\n")
    status, _, err = project.run("train", "--from-traces", "runs/traces.db")
    assert (status, "have no tokens" in err) == (2, True)


@pytest.mark.parametrize(
    ("fault", "policy", "status", "says"),
    [
        ("401", {}, 2, "refuses the key"),
        ("no_tools", {}, 1, "gemma does not support tools.*serve it with tool calls"),
        ("400", {}, 3, "2 of 2 rollouts failed"),
        ("429", {"retries": 1}, 3, "2 of 2 rollouts failed"),
        ("hang", {"timeout_s": 0.3}, 3, "2 of 2 rollouts failed"),
        ("bad_json", {"retries": 0}, 3, "2 of 2 rollouts failed"),
        ("redirect", {}, 3, "2 of 2 rollouts failed"),
    ],
)
def test_a_service_that_fails_is_told(project, fault, policy, status, says):
    project.recipe(fault, policy={"calls": policy} if policy else {})
    found, _, err = project.run("collect")
    assert found == status, err
    assert re.search(says, err)
