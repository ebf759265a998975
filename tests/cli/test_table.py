"""`eapo study` on a table: what it says of a file that cannot be, what each cell runs, and a tiny
table that is killed, continued and reported."""

import json
import sys
from pathlib import Path

import pytest

from eapo_agents.errors import RecipeError
from eapo_agents.experts.call_store import CallStore
from eapo_agents.recipe_file import load_recipe, to_yaml
from eapo_agents.runs.records import read_runs
from eapo_agents.runs.table_file import read_table
from eapo_agents.runs.table_forecast import forecast
from eapo_agents.runs.tables import TableStudy, _refuse_changed, planned_for

ROOT = Path(__file__).parent.parent.parent
SMALL = Path(__file__).parent / "small_table.yaml"
KINDS = ROOT / "benchmarks" / "studies" / "kinds_of_help.yaml"


def table_of(folder, text):
    file = folder / "table.yaml"
    file.write_text(text)
    return file


def study_of(file, out, **changes):
    table = read_table(file)
    settings = {"seeds": table.seeds, "folder": out, "at_once": 1} | changes
    return TableStudy(table=table, **settings)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("recipe: quick\ntable: {}", "must name at least one method"),
        ("recipe: quick\ntable: {method: [eapo], hints: {}}", "there is no 'hints' here"),
        ("recipes: quick\ntable: {method: [eapo]}", "Did you mean 'recipe'"),
        ("table: {method: [eapo]}", "'recipe' is missing"),
        ("recipe: quick\ntable: {method: [eapo, eapo]}", "twice"),
        ("recipe: quick\ntable: {method: [eapo], help: {eapo: {}}}", "'eapo' names two things"),
        ("recipe: quick\ntable: {method: [eapo], help: {a/b: {}}}", "at most 40 letters"),
        ("recipe: quick\ntable: {method: {base: base}}", "and not 'base'"),
        ("recipe: quick\ntable: {method: [eapo], calls: [0]}", "at least 1, got 0"),
        ("recipe: quick\ntable: {method: [eapo, eapo-9], calls: [9]}", "the folder of another"),
        ("recipe: quick\ntable: {method: [eapo], help: {a: 7}}", "the name of an arm"),
        ("recipe: quick\ntable: {method: [eapo], help: {a: {base: b}}}", "there is no 'b' here"),
        (
            "recipe: quick\ntable: {method: [eapo], help: {a: {}, b: {base: a}, c: {base: b}}}",
            "another's base itself",
        ),
        ("recipe: quick\ntable: {method: {eapo: {for: {x: eapo}}}}", "there is no 'x' here"),
        ("recipe: quick\ntable: {method: [eapo]}\nagainst: x", "'against': there is no 'x'"),
        ("recipe: quick\ntable: {method: [eapo]}\nseeds: many", "'seeds' must be a whole number"),
        ("recipe: quick\ntable: {method: [eapo]}\nwithout: [{method: x}]", "there is no 'x' here"),
        ("recipe: quick\ntable: {method: [eapo]}\nwithout: [{because: x}]", "what is left out"),
        # below, every cell is resolved
        ("recipe: quick\ntable: {method: [epo]}", "no arm 'epo'"),
        ("recipe: quick\ntable: {method: [eapo]}\nwithout: [{method: eapo}]", "every cell"),
        ("recipe: quick\ntable: {task: {a: {recipe: b}}, method: [eapo]}", "no recipe 'b'"),
        ("recipe: quick\ntable: {method: {eapo: {trian: {steps: 1}}}}", "'trian'"),
        (
            "recipe: quick\ntable: {method: {eapo: 'task.system_prompt=Think'}}",
            "task is not as in the recipe of the base policy",
        ),
        (
            "recipe: quick\ntable: {method: {eapo: eval.problems=7}}",
            "eval is not as in the recipe of the base policy",
        ),
        (
            "recipe: quick\ntable: {help: {a: {}, b: {base: a, arm: homogeneous}}, method: [eapo]}",
            "which experts are offered",
        ),
        (
            "recipe: quick\ntable: {method: {a: [eapo, graph=a.b:c]}, calls: [9]}",
            "leave table.calls out",
        ),
        ("recipe: quick\ntable: {method: [offline], calls: [9]}", "a log has 2 problems"),
    ],
)
def test_a_table_that_cannot_be_is_refused_in_one_sentence(
    text, rule, run_command, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    status, _, error = run_command("study", table_of(tmp_path, text), "--out", tmp_path / "out")
    assert status == 2
    assert rule in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_arms_are_not_given_beside_a_table(run_command, tmp_path):
    status, _, error = run_command("study", SMALL, "--arms", "eapo", "--out", tmp_path)
    assert (status, "take --arms out" in error) == (2, True)


def test_the_cells_of_the_kinds_of_help_are_planned_for_the_same_calls(tmp_path):
    wanted = study_of(KINDS, tmp_path, seeds=1)
    found = {(c.help, c.arm): recipe for c, recipe in wanted.recipes.items()}
    assert len(found) == 9 * 3 * 3 + 7
    for help_ in ("whole", "plan", "wrong-60"):
        for calls in (200, 700, 2800):
            log = found[help_, f"offline-{calls}"]
            assert log.collect.problems * log.collect.num_generations == calls
            assert found[help_, f"distillation-{calls}"].train.expert_calls == calls
            assert found[help_, f"eapo-{calls}"].train.expert_calls == calls
            # and train as long
            passed = log.collect.problems * log.train.epochs
            assert passed == pytest.approx(700 * 13, rel=0.01)
    expert = found["critique", "eapo-200"].consult.experts["solver"]
    assert expert.options == {"gives": "critique"}
    assert found["critique", "eapo-200"].warm_start.asks == "try"
    assert found["wrong-60", "eapo-200"].consult.experts["solver"].kind == "noisy"
    assert found["whole", "self-exploration"].consult.solo_share == 1
    jobs = {job.folder.relative_to(tmp_path).as_posix(): job for job in wanted.runs()}
    assert jobs["sums/wrong-60/seed-0/eapo-200"].base == tmp_path / "sums/whole/seed-0/base"
    assert len(wanted.bases()) == 7


def test_what_is_laid_over_one_task_or_help_alone(tmp_path):
    text = """
recipe: quick
table:
  task: {sums: {}, long: {train: {steps: 9}}}
  help: {whole: {for: {long: consult.max_queries=2}}, plan: [consult.max_queries=3]}
  method: {eapo: {arm: eapo, for: {plan: train.learning_rate=0.5, "7": train.steps=4}}}
  calls: [7, 8]
seeds: 2
"""
    found = study_of(table_of(tmp_path, text), tmp_path).recipes
    by_name = {f"{cell.block}/{cell.arm}": r for cell, r in found.items()}
    queries = {name: r.consult.max_queries for name, r in by_name.items() if "eapo-8" in name}
    assert queries == {
        "sums/whole/eapo-8": 1,
        "sums/plan/eapo-8": 3,
        "long/whole/eapo-8": 2,
        "long/plan/eapo-8": 3,
    }
    assert {r.train.learning_rate for name, r in by_name.items() if "/plan/" in name} == {0.5}
    assert by_name["long/whole/eapo-7"].train.steps == 4
    assert by_name["long/whole/eapo-8"].train.steps == 9


def test_a_recipe_beside_the_table_is_found_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "r.yaml").write_text("name: r\ntrain: {steps: 7}\n")
    file = table_of(tmp_path / "here", "recipe: r.yaml\ntable: {method: [eapo]}")
    monkeypatch.chdir(tmp_path)
    (recipe,) = study_of(file, tmp_path).recipes.values()
    assert (recipe.train.steps, recipe.name) == (7, "r-help-eapo")


def test_a_log_passes_over_fewer_problems_more_often():
    recipe = load_recipe("scale-model+offline")
    assert planned_for(recipe, 400, 800) == ["collect.problems=100", "train.epochs=91"]
    # no more than there are
    assert planned_for(recipe, 8000, 800) == ["collect.problems=800", "train.epochs=11"]


def test_methods_that_ask_in_their_own_ways_are_planned_and_never_left_unlimited(tmp_path):
    asking = ("luffy", "chord", "supervised-then-rl", "distillation-completed")
    asking += ("pushed-hints", "critique", "prefix")
    methods = ", ".join([*asking, "self-exploration"])
    text = f"recipe: scale-model\ntable: {{method: [{methods}], calls: [70]}}"
    wanted = study_of(table_of(tmp_path, text), tmp_path)
    limits = {cell.method: recipe.train.expert_calls for cell, recipe in wanted.recipes.items()}
    assert limits == {**dict.fromkeys(asking, 70), "self-exploration": None}
    assert {cell.calls for cell in wanted.recipes if cell.method in asking} == {70}
    of_seed = forecast(wanted).training_calls / wanted.seeds
    assert of_seed == 700 + len(asking) * 70  # the base policy's warm start, and the methods


def test_the_forecast_counts_what_is_left_and_its_time_is_that_of_what_has_ended(tmp_path):
    wanted = study_of(SMALL, tmp_path, at_once=2)
    before = forecast(wanted)
    assert (before.bases, before.runs, before.done, before.seconds) == (2, 10, 0, None)
    # 40 to warm start each base; 8 for each of the 8 runs that ask
    assert before.training_calls == 2 * 40 + 8 * 8
    assert "2 base policies and 10 trainings, 2 at once" in before.told()
    first_of_kind = {}
    for job in [*wanted.bases(), *wanted.runs()]:
        kind = "base" if job.arm == "base" else job.recipe.train.method
        first_of_kind.setdefault(kind, job)
    for job in first_of_kind.values():
        job.folder.mkdir(parents=True)
        (job.folder / "result.json").write_text('{"seconds": 60}')
    after = forecast(wanted)
    assert (after.bases, after.runs, after.done) == (1, 8, 3)
    assert after.seconds == pytest.approx(9 * 60 / 2)
    assert "3 have ended before" in after.told()


def test_a_cell_that_has_begun_with_other_settings_is_refused(tmp_path):
    job = study_of(SMALL, tmp_path).runs()[0]
    job.folder.mkdir(parents=True)
    (job.folder / "recipe.yaml").write_text(to_yaml(job.recipe))
    _refuse_changed(study_of(SMALL, tmp_path).runs()[0])
    _refuse_changed(study_of(SMALL, tmp_path, overrides=["consult.budget.usd=3"]).runs()[0])
    with pytest.raises(RecipeError, match=r"begun with other settings \(train differ"):
        _refuse_changed(study_of(SMALL, tmp_path, overrides=["train.steps=2"]).runs()[0])


@pytest.fixture(scope="module")
def ran(tmp_path_factory, killed_and_given_again):
    """One seed of the small table, killed with -9 in the middle and continued."""
    out = tmp_path_factory.mktemp("table") / "out"
    words = [sys.executable, "-m", "eapo_agents.cli.main", "study", str(SMALL), "--json"]
    words += ["--jobs", "2", "--seeds", "1", "--out", str(out)]
    steps = out / "tiny" / "plan" / "seed-0" / "eapo-8" / "steps.jsonl"
    return out, *killed_and_given_again(words, out, steps, 1)


@pytest.mark.long
def test_a_killed_table_goes_on_and_runs_everything_once(ran):
    out, report, done_before = ran
    assert done_before
    assert all(path.stat().st_mtime_ns == at for path, at in done_before.items())
    results = {p.parent.relative_to(out).as_posix() for p in out.rglob("result.json")}
    methods = ("distillation-8", "eapo-8", "self-exploration", "base")
    expected = {f"tiny/plan/seed-0/{name}" for name in methods}
    expected |= {f"tiny/wrong/seed-0/{name}" for name in methods[:2]}
    assert results == expected
    assert [len(cell["figures"]["seeds"]) for cell in report["cells"]] == [1] * 5
    assert all(cell["missing"] == [] for cell in report["cells"])


@pytest.mark.long
def test_no_run_of_a_table_pays_for_more_calls_than_it_was_planned_for(ran):
    out, report, _ = ran
    paid = {}
    for cell in report["cells"]:
        for run in cell["figures"]["seeds"]:
            arm = cell["method"] if cell["calls"] is None else f"{cell['method']}-8"
            file = out / cell["task"] / cell["help"] / f"seed-{run['seed']}" / arm / "experts.db"
            store = CallStore(file, create=False)
            assert run["expert_calls"] == store.spent("train", "collect")[0]
            store.close()
            if arm != "eapo-8" or cell["help"] == "wrong":
                # not the one that was killed: it may have paid for lost rollouts again
                paid.setdefault(cell["method"], set()).add(run["expert_calls"])
    assert paid["distillation"] == {8}
    assert max(paid["eapo"]) <= 8
    assert paid["self-exploration"] == {0}


@pytest.mark.long
def test_a_table_s_folder_is_opened_as_a_study_s_is(ran, run_command):
    out, _, _ = ran
    status, printed, _ = run_command("report", out, "--format", "csv")
    assert status == 0
    assert printed.startswith("task,help,calls at most,before,distillation,eapo,self-exploration\n")
    page = (out / "report.html").read_text()
    assert "Differences from distillation" in page
    assert "help wrong, method self-exploration: it asks nobody" in page
    assert (out / "tiny" / "wrong" / "report.html").exists()
    status, printed, _ = run_command("watch", out, "--once")
    assert status == 0
    assert "tiny/wrong/eapo-8, seed 0" in printed
    status, printed, _ = run_command("compare", out, out)
    assert (status, printed.count("+0.0 points")) == (0, 5)
    # a task with a help is a study of its own
    status, printed, _ = run_command("report", out / "tiny" / "plan", "--json")
    assert list(json.loads(printed)["arms"]) == ["distillation-8", "eapo-8", "self-exploration"]
    assert {run["arm"] for run in read_runs(out)} > {"tiny/plan/eapo-8"}
