"""Wrong use: one clear sentence on stderr, exit status 2, nothing changed."""

import json
import os
import sqlite3
from pathlib import Path

import pytest

from eapo_agents.recipe_file import SHIPPED as RECIPES
from eapo_agents.store import TraceStore
from eapo_agents.types import FORMAT_VERSION


@pytest.fixture
def eapo(run_command, monkeypatch, tmp_path):
    """The command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return run_command


def refused(outcome: tuple[int, str, str], says: str) -> None:
    status, out, err = outcome
    assert status == 2, err
    assert says in err
    assert out == ""
    (sentence,) = [line for line in err.splitlines() if line.startswith("eapo: ")]
    assert sentence == err.splitlines()[-1]


def recipe_file(folder: Path, text: str) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: x\nlerning_rate: 1", "there is no key 'lerning_rate'"),
        ("name: x\ntrain: {lerning_rate: 1}", "did you mean 'learning_rate'?"),
        ("name: x\ntrain: {steps: none}", "'train.steps'"),
        ("name: x\ntrain: {steps: 0}", "greater than or equal to 1, got 0"),
        (
            "name: x\ntrain: {num_generations: 5, gradient_accumulation_steps: 3}",
            "(40) must divide by",
        ),
        ("name: x\nsampling: {temperature: 0}", "sampling.temperature must be above 0"),
        ("name: x\nconsult: {experts: {a: {knd: solver}}}", "did you mean 'kind'?"),
        ("name: [", "is not YAML"),
        ("- a list", "must be a mapping"),
        ("", "must be a mapping"),
        ("name: ../../etc", "'name'"),
    ],
)
def test_a_wrong_recipe_is_refused(eapo, tmp_path, text, says):
    before = set(tmp_path.iterdir())
    refused(eapo("train", "--recipe", recipe_file(tmp_path, text)), says)
    assert set(tmp_path.iterdir()) - before == {tmp_path / "recipe.yaml"}


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "meta", "cuda:x"])
@pytest.mark.parametrize("recipe", ["scale-model+eapo", "cpu-smol"])
def test_a_device_that_is_not_here_is_refused_and_the_right_one_may_follow(
    eapo, tmp_path, recipe, device
):
    wrong = ["--recipe", recipe, "--set", f"policy.device={device}"]
    refused(eapo("warm-start", *wrong, "--out", "w"), f"cannot compute on '{device}' here")
    refused(eapo("train", *wrong, "--out", "t"), "set policy.device to cpu")
    assert not (tmp_path / "w/recipe.yaml").exists()
    assert not list(tmp_path.glob("t/**/recipe.yaml"))


@pytest.mark.parametrize("override", ["train.steps", "=3", "train.steps.more=3", "train.stepz=3"])
def test_a_wrong_override_is_refused(eapo, tmp_path, override):
    file = recipe_file(tmp_path, "name: x\ntrain: {steps: 3}")
    refused(eapo("train", "--recipe", file, "--set", override), "")


@pytest.mark.parametrize("shard", ["3", "0/2", "3/2", "1/0", "a/b", "-1/2", "1/2/3"])
def test_a_wrong_shard_is_refused(eapo, tmp_path, shard):
    file = recipe_file(tmp_path, "name: x")
    refused(eapo("collect", "--recipe", file, f"--shard={shard}"), "--shard must be i/n with 1 <=")
    assert not (tmp_path / "runs").exists()


def test_ray_is_refused_where_the_store_is_a_file(eapo, tmp_path):
    file = recipe_file(tmp_path, "name: x")
    says = "give --store a PostgreSQL URL"
    refused(eapo("collect", "--recipe", file, "--store", "t.db", "--ray", "2"), says)
    assert not (tmp_path / "t.db").exists()


@pytest.mark.parametrize(
    ("servers", "says"),
    [
        ("[localhost:8000]", "must be http or https"),
        ("[ftp://host]", "must be http or https"),
        ("['http://me:secret@host/v1']", "'policy.servers.0': a URL must hold no user or password"),
        ("['http://127.0.0.1:9']", "No policy server answers at http://127.0.0.1:9"),
    ],
)
def test_a_server_that_cannot_be_used_is_refused(eapo, tmp_path, servers, says):
    file = recipe_file(tmp_path, "name: x")
    outcome = eapo("collect", "--recipe", file, "--set", f"policy.servers={servers}")
    refused(outcome, says)
    assert "secret" not in outcome[2]


def test_an_unknown_recipe_and_a_binary_one_are_refused(eapo, tmp_path):
    refused(eapo("collect", "--recipe", "nothing-here"), "There is no recipe 'nothing-here'")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    refused(eapo("collect", "--recipe", "binary.yaml"), "")


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("./missing", "There is no model folder or GGUF file './missing'"),
        ("empty", "has no config.json"),
        ("no/such-model-anywhere", "cannot be loaded"),
    ],
)
def test_a_missing_model_is_refused(eapo, tmp_path, model, says):
    (tmp_path / "empty").mkdir()
    file = recipe_file(tmp_path, f"name: x\npolicy: {{model: {model}}}")
    refused(eapo("run", "What is 1 + 1?", "--recipe", file), says)


@pytest.mark.parametrize("command", ["ls", "stats", "doctor"])
def test_traces_of_no_store_are_refused(eapo, tmp_path, command):
    refused(eapo("traces", command, "missing.db"), "There is no store 'missing.db'")
    (tmp_path / "text.db").write_text("no database")
    refused(eapo("traces", command, "text.db"), "is not a trace store")
    assert (tmp_path / "text.db").read_text() == "no database"


def test_a_store_of_a_newer_format_is_refused_by_every_command_and_left_alone(eapo, tmp_path):
    file = tmp_path / "newer.db"
    TraceStore.open(file, create=True).close()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE eapo_meta SET value = '99' WHERE key = 'format'")
    connection.close()
    before = file.read_bytes()
    recipe = RECIPES / "cpu-smol.yaml"
    for command in (
        ("traces", "ls", file),
        ("traces", "export", file, "out.jsonl"),
        ("collect", "--recipe", recipe, "--store", file),
        ("train", "--recipe", recipe, "--from-traces", file),
    ):
        refused(eapo(*command), f"has format 99, and eapo 0.1.0 reads format {FORMAT_VERSION}")
    assert file.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"newer.db"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_store_that_may_not_be_read_is_refused(eapo, tmp_path):
    file = tmp_path / "mine.db"
    TraceStore.open(file, create=True).close()
    file.chmod(0)
    refused(eapo("traces", "ls", file), "cannot be read")


def test_an_unknown_run_or_trajectory_is_refused(eapo, tmp_path):
    TraceStore.open(tmp_path / "t.db", create=True).close()
    refused(eapo("traces", "show", "t.db", 1), "has no trajectory 1")
    refused(eapo("traces", "stats", "t.db", "--run-id", "x"), "has no run 'x'")
    refused(
        eapo("train", "--recipe", RECIPES / "cpu-smol.yaml", "--from-traces", "t.db"),
        "no collected",
    )


def test_a_file_of_problems_that_is_malformed_is_refused_before_the_model_is_loaded(eapo, tmp_path):
    (tmp_path / "p.jsonl").write_text('{"id": "1"}\n')
    file = recipe_file(tmp_path, "name: x\ntask: {name: p.jsonl}")
    refused(eapo("collect", "--recipe", file), "Line 1 of 'p.jsonl'")
    assert not (tmp_path / "runs").exists()


def test_a_baseline_that_is_none_is_refused(eapo, tmp_path):
    (tmp_path / "b.json").write_text(json.dumps({"accuracy": 1}))
    recipe = RECIPES / "cpu-smol.yaml"
    refused(eapo("eval", "--recipe", recipe, "--baseline", "b.json"), "is not an evaluation")


def test_unknown_options_and_commands_are_wrong_use(eapo):
    assert eapo("train", "--nonsense")[0] == 2
    assert eapo("nonsense")[0] == 2


def test_the_doctor_s_finding_has_an_exit_status_of_its_own(eapo, tmp_path, trajectory):
    from eapo_agents.types import PolicyVersion, Sampling, Turn

    turn = Turn(
        context_ids=(1,),
        completion_ids=(2,),
        logprobs=None,
        parent=None,
        text="",
        finish_reason="stop",
    )
    with TraceStore.open(tmp_path / "t.db", create=True) as store:
        policy = PolicyVersion(model="m", base="b", weights="w", step=0)
        store.start_run("r", kind="collect", recipe={}, sampling=Sampling(), policy=policy)
        store.append(trajectory((turn,)), run_id="r", group_key="g")
    status, out, _ = eapo("traces", "doctor", "t.db", "--json")
    assert status == 5
    assert json.loads(out)["runs"]["r"]["blocking"][0]["name"] == "without_logprobs"
