"""`eapo experts`, and what the other commands do with experts: budgets, ledgers, keys, people."""

import json

import pytest

from eapo_agents.experts.call_store import CallStore
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.policy.scripted import ScriptedEngine
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.store import TraceStore

KEY = "sk-planted-77aa31"


@pytest.fixture
def eapo(run_command, monkeypatch, tmp_path):
    """The command in an empty folder, with a policy that asks every expert once, then answers."""
    monkeypatch.chdir(tmp_path)
    return run_command


@pytest.fixture
def asking(loaded_policy, monkeypatch):
    """Commands get a policy that asks: an untrained one never does."""
    from eapo_agents.cli import chat_session, run_once
    from eapo_agents.runs import collection, training
    from graphs.agent import Agent, make_pool

    def load(recipe, progress=None):
        renderer = ChatRenderer(loaded_policy.tokenizer)
        names = list(recipe.consult.experts)

        def script(key, prompt):
            calls = [format_call(n, {"query": f"{key.problem_id} {key.rollout}"}) for n in names]
            return "Answer: 1" if key.turn else "".join(calls)

        return Agent(
            recipe=recipe,
            loaded=None,
            renderer=renderer,
            engine=ScriptedEngine(renderer, script),
            pool=make_pool(recipe),
        )

    for module in (collection, training, chat_session, run_once):
        monkeypatch.setattr(module, "load_agent", load)


def write_recipe(folder, experts, **consult):
    recipe = {
        "name": "x",
        "sampling": {"max_new_tokens": 400},
        "consult": {"experts": experts, "acceptance": {"kind": "constant"}, **consult},
        "rollouts": {"concurrency": 2},
        "collect": {"problems": 3, "num_generations": 2},
    }
    (folder / "r.yaml").write_text(json.dumps(recipe))


def http(url, **settings):
    options = {"model": "m", "base_url": url, **settings.pop("options", {})}
    return {"kind": "openai-chat", "options": options, **settings}


PRICE = {"input_usd": 100, "output_usd": 200}


def test_a_recipe_s_experts_are_listed(eapo, tmp_path):
    experts = {
        "solver": {"kind": "solver", "fallback": "smart"},
        "smart": http("http://127.0.0.1:9/v1", price=PRICE, offered=False),
    }
    write_recipe(tmp_path, experts, ask_all=True)
    status, out, _ = eapo("experts", "ls", "-r", "r.yaml")
    assert status == 0
    assert "openai-chat" in out
    assert "100, 200" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "The policy can ask: solver, all_experts." in out
    status, out, _ = eapo("experts", "ls", "-r", "r.yaml", "--json")
    assert [e["expert"] for e in json.loads(out)["experts"]] == ["solver", "smart"]


def test_ping_asks_the_solver_and_tells_of_a_failure(eapo, tmp_path):
    write_recipe(tmp_path, {"solver": {"kind": "solver"}, "me": {"kind": "human"}})
    status, out, _ = eapo("experts", "ping", "-r", "r.yaml")
    assert status == 0
    assert "1 + 1 = 2." in out
    status, _, err = eapo("experts", "ping", "-r", "r.yaml", "--query", "what?")
    assert status == 1
    assert "1 of 1 experts failed: solver." in err


def test_a_spent_budget_ends_a_collection_and_leaves_no_half_of_anything(
    eapo, asking, faulty, tmp_path
):
    write_recipe(tmp_path, {"a": http(faulty.url("ok"), price=PRICE)}, budget={"calls": 4})
    status, out, err = eapo("collect", "-r", "r.yaml", "--store", "runs/t.db", "--json")
    assert status == 4
    assert out == ""
    assert "eapo: The run's budget is spent: 4 of 4 calls." in err
    with TraceStore.open(tmp_path / "runs" / "t.db") as store:
        stored = [s.trajectory for s in store.trajectories()]
    # what could end has ended, and nothing else is there
    assert len(stored) == 4
    assert all(t.error is None for t in stored)


def test_a_larger_budget_goes_on_where_a_run_stopped(eapo, asking, faulty, tmp_path):
    write_recipe(tmp_path, {"a": http(faulty.url("ok"), price=PRICE)}, budget={"calls": 4})
    arguments = ("collect", "-r", "r.yaml", "--store", "runs/t.db", "--json")
    assert eapo(*arguments)[0] == 4
    status, out, err = eapo(*arguments, "--set", "consult.budget.calls=6")
    assert status == 0, err
    facts = json.loads(out)
    assert (facts["rollouts"], facts["run_now"], facts["failed"]) == (6, 2, 0)
    status, out, _ = eapo("experts", "cost", "runs/experts.db", "--json")
    (line,) = json.loads(out)["experts"]
    assert (line["calls"], line["tokens"]) == (6, 90)
    assert line["cost_usd"] == pytest.approx(6 * 0.002)
    status, out, _ = eapo("experts", "cost", "runs/experts.db", "--by-step")
    assert status == 0
    assert "step" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "$0.0120" in out


def test_a_rerun_replays_the_stored_replies_and_costs_nothing(eapo, asking, faulty, tmp_path):
    write_recipe(tmp_path, {"a": http(faulty.url("ok"), price=PRICE)})
    arguments = ("collect", "-r", "r.yaml", "--json", "--store")
    assert eapo(*arguments, "runs/one.db")[0] == 0
    before = faulty.counts()["ok"]
    assert eapo(*arguments, "runs/two.db", "--run-id", "again")[0] == 0
    assert faulty.counts()["ok"] == before

    def replies(at):
        with TraceStore.open(tmp_path / "runs" / at) as store:
            return [
                [c.reply for turn in s.trajectory.turns for c in turn.consultations]
                for s in store.trajectories()
            ]

    assert sorted(replies("one.db")) == sorted(replies("two.db"))
    assert CallStore(tmp_path / "runs" / "experts.db").spent("again")[0] == 0


def test_a_planted_key_is_nowhere_in_what_a_run_writes(eapo, asking, faulty, tmp_path, monkeypatch):
    monkeypatch.setenv("PLANTED", KEY)
    options = {"api_key_env": "PLANTED"}
    experts = {
        "echo": http(faulty.url("echo"), options=options),
        "refused": http(faulty.url("echo_error"), options=options),
        "cut": http(faulty.url("cut"), options=options, retries=0),
    }
    write_recipe(tmp_path, experts)
    outputs = [
        eapo("collect", "-r", "r.yaml", "--store", "runs/t.db"),
        eapo("run", "What is 1 + 1?", "-r", "r.yaml"),
        eapo("run", "What is 1 + 1?", "-r", "r.yaml", "--json"),
        eapo("experts", "ping", "-r", "r.yaml"),
        eapo("experts", "cost", "runs/experts.db"),
        eapo("traces", "show", "runs/t.db", "1"),
        eapo("traces", "export", "runs/t.db", "t.jsonl"),
    ]
    assert [status for status, _, _ in outputs] == [0, 0, 0, 1, 0, 0, 0]
    shown = "".join(out + err for _, out, err in outputs)
    assert "[key]" in shown
    assert KEY not in shown
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {"t.db", "experts.db", "t.jsonl"} <= {file.name for file in files}
    for file in files:
        assert KEY.encode() not in file.read_bytes(), file


def test_a_file_of_conversations_that_is_none_is_refused(eapo, asking, tmp_path):
    write_recipe(tmp_path, {"a": {"kind": "scripted", "options": {"default": "x"}}})
    (tmp_path / "runs").mkdir()
    file = tmp_path / "runs" / "threads.db"
    file.write_text("junk, and enough of it to be no database at all")
    status, _, err = eapo("chat", "-r", "r.yaml")
    assert status == 2
    assert "cannot be used (file is not a database)" in err
    assert file.read_text().startswith("junk")


def test_run_shows_consultations_and_prints_only_the_answer(eapo, asking, tmp_path):
    write_recipe(tmp_path, {"a": {"kind": "scripted", "options": {"default": "the reply"}}})
    status, out, err = eapo("run", "What is 1 + 1?", "-r", "r.yaml")
    assert status == 0
    assert out == "Answer: 1\n"
    assert "✓ a  accepted" in err
    assert "the reply" in err
    status, out, _ = eapo("run", "What is 1 + 1?", "-r", "r.yaml", "--json")
    facts = json.loads(out)
    assert facts["turns"][0]["consultations"][0]["reply"] == "the reply"
    assert (facts["answer"], facts["cost_usd"]) == ("Answer: 1", 0.0)


@pytest.mark.parametrize("command", ["collect", "train"])
def test_where_nobody_can_be_asked_a_person_is_refused(eapo, asking, tmp_path, command):
    write_recipe(tmp_path, {"me": {"kind": "human"}})
    status, _, err = eapo(command, "-r", "r.yaml")
    assert status == 2
    assert "is a person, and nobody can be asked" in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("experts", "cost", "missing.db"), "There is no expert ledger 'missing.db'"),
        (("chat", "-r", "r.yaml", "--thread", "nope"), "There is no thread 'nope'"),
        (("chat", "-r", "r.yaml", "--continue"), "no thread to continue"),
        (("experts", "ls", "--set", "consult.experts.a.kind=oracle"), "Unknown expert kind"),
        (("experts", "ls", "-r", "r.yaml", "--set", "consult.quorum=5"), "quorum"),
        (("experts", "ls", "-r", "r.yaml", "--set", "consult.routing=best"), "consult.routing"),
    ],
)
def test_wrong_use_is_refused_in_a_sentence(eapo, tmp_path, monkeypatch, arguments, says):
    write_recipe(tmp_path, {"solver": {"kind": "solver"}})
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "cpu-smol.yaml").write_text("name: x\n")
    status, out, err = eapo(*arguments)
    assert status == 2, err
    assert says in err
    assert out == ""
    assert len([line for line in err.splitlines() if line.startswith("eapo: ")]) == 1
