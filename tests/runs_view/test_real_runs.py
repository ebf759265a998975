"""What the pages say of real runs is what the runs' own files and the trainer say."""

import html
import json
import re
import shutil
import time
from collections import defaultdict
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from typer.testing import CliRunner

from eapo_agents.cli.main import app
from eapo_agents.errors import UsageError
from eapo_agents.policy.models import load_tokenizer
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.recipe import Recipe
from eapo_agents.runs.comparing import compare
from eapo_agents.runs.stages import read_stages
from eapo_agents.runs.study_reports import report
from eapo_agents.store import TraceStore
from eapo_agents.types import ConsultationStatus, RolloutGroup
from evals.compare import compare_runs
from graphs.rollout import first_messages
from trainers.likelihood import StandIn
from trainers.objective import Objective
from trainers.rows import trajectory_rows


def links(page: str) -> list[str]:
    return [html.unescape(found) for found in re.findall(r'href="(/[^"]*)"', page)]


class Spans(HTMLParser):
    """The tokens of each row of a page: (class, title, text)."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[tuple[set[str], str, str]]] = []
        self._token: tuple[set[str], str] | None = None
        self._text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        facts = dict(attributes)
        if facts.get("class") == "tokens":
            self.rows.append([])
        elif tag == "span" and "t" in (facts.get("class") or "").split() and "title" in facts:
            self._token = set(facts["class"].split()), facts["title"]
            self._text = ""

    def handle_data(self, data):
        self._text += data

    def handle_endtag(self, tag):
        if tag == "span" and self._token is not None:
            self.rows[-1].append((*self._token, self._text))
            self._token = None


@pytest.fixture(scope="module")
def stored(runs):
    """All trajectories of the training, and their recipe."""
    with TraceStore.open(runs / "train" / "traces.db") as store:
        (info,) = [one for one in store.runs() if one.kind == "train"]
        return list(store.trajectories(info.run_id)), Recipe.model_validate(info.recipe)


def test_every_link_leads_to_a_page(viewed):
    todo, seen, by_page = ["/"], set(), defaultdict(int)
    while todo:
        address = todo.pop()
        path = address.partition("?")[0]
        if address in seen or by_page[path] >= 15:
            continue
        seen.add(address)
        by_page[path] += 1
        answer = viewed.client.get(f"{viewed.base}{address}")
        assert answer.status_code == 200, (address, answer.text[-400:])
        todo += links(answer.text)
    pages = {"/", "/run", "/step", "/group", "/rollout", "/tokens", "/rollouts", "/samples"}
    assert pages | {"/flips", "/ledger"} <= set(by_page)


def test_the_list_has_each_run_with_its_state_and_its_score(viewed, runs):
    page = viewed.page("/")
    last = json.loads((runs / "train" / "evals.jsonl").read_text().splitlines()[-1])
    score = next(iter(last["scores"].values()))["score"]
    assert f"{score:.1%}" in page
    for name in ("train", "before", "after"):
        assert f"at=runs%2F{name}" in page
    assert page.count('class="state finished"') >= 3


def test_a_runs_curves_have_a_point_for_each_step_that_leads_to_it(viewed, runs):
    page = viewed.page("/run", at="runs/train")
    history = [json.loads(line) for line in (runs / "train" / "steps.jsonl").open()]
    steps = {int(step["step"]) for step in history}
    led = {int(found) for found in re.findall(r"/step\?[^\"]*step=(\d+)", page)}
    assert led == steps
    # the recipe, unfolded below, has the default model's name, which a fresh model does not have
    above = page.partition("&#34;policy&#34;")[0]
    assert above != page
    assert "model made anew" in above
    assert "SmolLM2" not in above
    reward = history[-1]["reward"]
    assert re.search(rf"step {max(steps)}: {re.escape(f'{reward:.3g}')}\b", page)


def test_curves_of_two_runs_lie_over_each_other(viewed):
    both = viewed.client.get(f"{viewed.base}/run?at=runs/train&with=runs/train").text
    assert "legend" not in both  # a run is not laid over itself
    assert 'class="line c0"' in both or "line raw c0" in both


def test_a_steps_groups_have_the_trainers_advantages(viewed, stored):
    trajectories, recipe = stored
    objective = Objective(solo_prompt=lambda problem: (), settings=recipe.train)
    groups = defaultdict(list)
    for one in trajectories:
        groups[one.group_key].append(one)
    checked = 0
    for key, members in groups.items():
        members.sort(key=lambda one: one.trajectory.rollout)
        of_group = RolloutGroup(
            problem=members[0].trajectory.problem,
            trajectories_G=tuple(one.trajectory for one in members),
        )
        page = viewed.page("/group", at="runs/train", run="train", group=key)
        shown = re.findall(r"<dt>advantage</dt><dd[^>]*>([^<]+)</dd>", page)
        expected = [f"{a:+.3f}" if a else "0" for a in objective.advantages(of_group)]
        assert [text.strip() for text in shown] == expected
        checked += any(text != "0" for text in expected)
    assert checked


def whole_tokens(viewed, number: int) -> str:
    """A page of tokens with the rows that take seconds the first time, as it renews itself."""
    deadline = time.monotonic() + 120
    while "data-live-ms" in (page := viewed.page("/tokens", at="runs/train", id=number)):
        assert "More rows are on their way" in page
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return page


def test_tokens_are_those_of_the_training_rows_with_mask_logprob_and_advantage(viewed, stored):
    trajectories, _ = stored
    # of a rollout that asked, so that there is context between what was sampled
    one = next(s for s in trajectories if len(s.trajectory.turns) > 1)
    assert one.trajectory.turns[1].context_ids
    (row,) = trajectory_rows(one.trajectory, advantage=0.0)
    page = viewed.page("/tokens", at="runs/train", id=one.id)
    shown = Spans(page).rows[0]
    ids = [int(re.search(r"id (\d+)", title)[1]) for _, title, _ in shown]
    assert ids == [*row.prompt_ids, *row.completion_ids_T]
    mask = [int("m" in classes) for classes, _, _ in shown[len(row.prompt_ids) :]]
    assert mask == list(row.mask_T)
    assert not any("m" in classes for classes, _, _ in shown[: len(row.prompt_ids)])
    for (_, title, _), kept, logprob in zip(
        shown[len(row.prompt_ids) :], row.mask_T, row.logprobs_T, strict=True
    ):
        assert ("logprob" in title) == bool(kept)
        if kept:
            assert float(re.search(r"logprob ([-\d.e]+)", title)[1]) == pytest.approx(
                logprob, rel=1e-2, abs=1e-4
            )


def test_tokens_read_as_the_text_that_was_sampled(viewed, stored):
    trajectories, _ = stored
    one = max(trajectories, key=lambda s: len(s.trajectory.turns[-1].text))
    page = viewed.page("/tokens", at="runs/train", id=one.id)
    said = "".join(text for c, _, text in Spans(page).rows[0] if "m" in c and "e" not in c)
    text = one.trajectory.turns[-1].text
    assert len(text) > 10
    assert text.replace("\ufffd", "") in said.replace("\ufffd", "")


def test_likelihood_rows_are_those_that_the_recipe_makes_of_a_rollout(viewed, runs):
    with TraceStore.open(runs / "train" / "traces.db") as store:
        (info,) = [one for one in store.runs() if one.run_id == "helped"]
        members = list(store.trajectories("helped"))
    recipe = Recipe.model_validate(info.recipe)
    renderer = ChatRenderer(load_tokenizer(recipe.policy.model))
    group = RolloutGroup(
        problem=members[0].trajectory.problem,
        trajectories_G=tuple(one.trajectory for one in members),
    )
    objective = Objective(
        solo_prompt=lambda p: renderer.prompt(first_messages("", p.question), []),
        settings=recipe.train,
        stand_in=StandIn(
            renderer=renderer,
            answer_form=recipe.task.answer_form,
            min_answer_to_reply_ratio=recipe.train.internalise.min_answer_to_reply_ratio,
        ),
    )
    expected = objective.likelihood_rows([group])
    assert len(expected) == 2  # rehearsed, and hint-stripped
    right = next(one for one in members if one.trajectory.correct)
    page = viewed.page("/tokens", at="runs/train", id=right.id)
    assert re.search(
        "Rehearsal row.*Hint-stripped row|Hint-stripped row.*Rehearsal row", page, re.S
    )
    shown = [
        tuple(int(re.search(r"id (\d+)", title)[1]) for _, title, _ in row)
        for row in Spans(page).rows[1:]
    ]
    assert set(shown) == {(*row.prompt_ids, *row.completion_ids_T) for row in expected}
    wrong = next(one for one in members if not one.trajectory.correct)
    page = whole_tokens(viewed, wrong.id)
    assert len(Spans(page).rows) == 1


def test_a_rollout_shows_its_consultations_with_coin_and_outcome(viewed, stored):
    trajectories, _ = stored
    asked = next(
        s
        for s in trajectories
        if any(
            c.status is ConsultationStatus.ACCEPTED
            for t in s.trajectory.turns
            for c in t.consultations
        )
    )
    (first, *_) = (c for t in asked.trajectory.turns for c in t.consultations)
    page = html.unescape(viewed.page("/rollout", at="runs/train", id=asked.id))
    for text in (first.query, first.reply, first.status.value, first.expert, "coin"):
        assert text in page
    assert asked.trajectory.problem.answer in page


def test_next_and_previous_lead_through_a_group_in_order(viewed, stored):
    trajectories, _ = stored
    key = trajectories[0].group_key
    members = sorted(
        (s for s in trajectories if s.group_key == key), key=lambda s: s.trajectory.rollout
    )
    for one, following in pairwise(members):
        page = viewed.page("/rollout", at="runs/train", id=one.id)
        assert re.search(rf'rel="next" href="[^"]*id={following.id}"', page)
        back = viewed.page("/rollout", at="runs/train", id=following.id)
        assert re.search(rf'rel="prev" href="[^"]*id={one.id}"', back)


def test_samples_are_those_of_the_evaluation_by_verdict(viewed, runs):
    lines = [json.loads(line) for line in (runs / "after" / "items.jsonl").open()]
    of = f"{lines[0]['benchmark']} {lines[0]['condition']}"
    mine = [one for one in lines if f"{one['benchmark']} {one['condition']}" == of]
    for verdict, wanted in (("right", True), ("wrong", False)):
        page = viewed.page("/samples", at="runs/after", of=of, verdict=verdict)
        expected = {one["id"] for one in mine if one["correct"] is wanted}
        shown = set(re.findall(r"<bdi>(arithmetic/[^<]+)</bdi>", html.unescape(page)))
        assert shown == expected


def test_flips_are_what_eapo_compare_finds(viewed, runs):
    comparison = compare_runs(str(runs / "before"), str(runs / "after"))
    assert all(len(c.gained) == 3 and len(c.lost) == 1 for c in comparison.benchmarks.values())
    for key, found in comparison.benchmarks.items():
        page = viewed.page("/flips", a="runs/before", b="runs/after", of=key)
        shown = re.findall(r"<b><bdi>([^<]+)</bdi></b>", html.unescape(page))
        assert shown == [*found.gained, *found.lost]


def test_runs_of_other_settings_are_not_compared(viewed):
    page = viewed.page("/flips", a="runs/after", b="runs/train", status=404)
    assert "not an evaluation" in html.unescape(page)


def test_the_ledger_counts_every_call(viewed, runs):
    from eapo_agents.experts.call_store import CallStore
    from eapo_agents.experts.costs import costs

    store = CallStore(runs / "train" / "experts.db", create=False)
    lines = costs(store.rows())
    store.close()
    page = viewed.page("/ledger", at="runs/train")
    for line in lines:
        assert re.search(rf"<bdi>{re.escape(line.expert)}</bdi>.*?>{line.calls:,}<", page, re.S)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/run", {"at": "../../etc"}),
        ("/run", {"at": "runs/none"}),
        ("/rollout", {"at": "runs/train", "id": "999999"}),
        ("/rollout", {"at": "runs/train", "id": "x"}),
        ("/rollout", {"at": "runs/train", "id": "9" * 400}),
        ("/step", {"at": "runs/train", "run": "train", "step": "77"}),
        ("/step", {"at": "runs/train", "run": "no-such", "step": "1"}),
        ("/group", {"at": "runs/train", "run": "train", "group": "no-such"}),
        ("/samples", {"at": "runs/after", "of": "no-such"}),
        ("/ledger", {"at": "runs/after"}),
        ("/static/..%2Fbase.html", {}),
        ("/nothing", {}),
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(viewed, path, query):
    page = viewed.page(path, status=404, **query)
    assert "There is no" in page or "has no" in page or "whole number" in page


def test_search_finds_replies_whatever_their_case(viewed, stored):
    trajectories, _ = stored
    reply = next(
        c.reply
        for s in trajectories
        for t in s.trajectory.turns
        for c in t.consultations
        if c.status is ConsultationStatus.ACCEPTED
    )
    page = html.unescape(viewed.page("/search", q=reply.upper(), at="runs/train"))
    assert f"<mark>{reply}</mark>" in page or reply in page
    assert "Nothing was found" in viewed.page("/search", q="no such text anywhere")


def test_the_report_of_a_run_says_what_the_runs_own_files_say(runs, tmp_path):
    folder = tmp_path / "train"
    shutil.copytree(runs / "train", folder)
    first, last = (json.loads(line) for line in (folder / "verdicts.jsonl").open())
    gained, lost, *_ = last["right"]["solo"]
    first["right"]["solo"] |= {gained: 0.0, lost: 1.0}
    last["right"]["solo"] |= {gained: 1.0, lost: 0.0}
    (folder / "verdicts.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(last)}\n")

    written = report(folder)
    page, found = written.page.markdown(), written.summary["run"]
    history = [json.loads(line) for line in (folder / "steps.jsonl").open()]
    calls, withheld = (
        round(sum(step[f"experts/{name}"] for step in history)) for name in ("calls", "withheld")
    )
    assert f"| expert calls | {calls:,} |" in page
    assert calls == json.loads((folder / "train.json").read_text())["expert_calls"]
    assert sum(expert["calls"] for expert in found["experts"]) == calls
    assert sum(expert["withheld"] for expert in found["experts"]) == withheld
    low, high = json.loads((folder / "evals.jsonl").open().readlines()[-1])["scores"]["solo"][
        "ci95"
    ]
    assert f"[{low:.1%}, {high:.1%}]" in page
    for share in re.findall(r"\[(-?[\d.]+)%, (-?[\d.]+)%\]", page):
        assert all(0 <= float(bound) <= 100 for bound in share)

    assert [example["id"] for example in found["improved"]] == [gained]
    assert found["failed"][0]["id"] == lost
    assert len(found["failed"]) == 3
    with TraceStore.open(folder / "traces.db") as store:
        answers = {
            (step["step"], one.trajectory.problem.id): one.trajectory.answer
            for step in (first, last)
            for one in store.trajectories(f"eval/{step['step']}/{step['weights']}/solo")
        }
    for example in (*found["improved"], *found["failed"]):
        shown = example["before"], example["after"]
        assert shown == tuple(answers[step["step"], example["id"]] for step in (first, last))

    differing = {d["key"]: (d["here"], d["base"]) for d in found["differences"]}
    assert found["base"] == "scale-model"
    assert differing["train.steps"] == ("2", "300")
    assert differing["consult.solo_share"] == ("0.5", "0.0")
    assert "train.learning_rate" not in differing

    for form, start in (("png", b"\x89PNG"), ("svg", b"<svg")):
        ended = CliRunner().invoke(app, ["report", str(folder), "--plots", form])
        assert ended.exit_code == 0, ended.output
        plots = list((folder / "plots").glob(f"*.{form}"))
        assert {"accuracy-without-experts", "rollouts-that-ask"} <= {file.stem for file in plots}
        assert all(file.read_bytes().startswith(start) for file in plots)


def test_watch_ends_at_once_where_an_evaluation_is_finished(runs):
    found = read_stages(str(runs / "after"))
    assert not found.is_running
    assert "arithmetic solo" in {one.name for one in found.stages}
    assert {(one.state, one.done, one.planned) for one in found.stages} == {("finished", 12, 12)}


def test_compare_lays_two_training_runs_side_by_side_and_says_how_their_recipes_differ(
    runs, tmp_path
):
    other = tmp_path / "other"
    shutil.copytree(runs / "train", other)
    recipe = (other / "recipe.yaml").read_text()
    (other / "recipe.yaml").write_text(recipe.replace(" learning_rate: ", " learning_rate: 1"))
    found, page = compare(str(runs / "train"), str(other))
    keys = [one.key for one in found.recipes]
    assert "train.learning_rate" in keys
    assert all("learning_rate" in key for key in keys)
    figures = found.to_json()
    assert figures["a"]["expert_calls"] == figures["b"]["expert_calls"] > 0
    assert "| steps | 2 | 2 |" in page.markdown()
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text('{"arms": ["eapo"]}')
    for wrong, rule in ((runs / "after", "is an evaluation"), (tmp_path / "study", "is a study")):
        with pytest.raises(UsageError, match=rule):
            compare(str(runs / "train"), str(wrong))
    with pytest.raises(UsageError, match="has no results yet"):
        compare(str(tmp_path / "study"), str(tmp_path / "study"))


def study_of(train, folder, finals, change=lambda text: text):
    """A study whose runs are copies of a real training, with these accuracies at their ends: of
    None, not yet ended."""
    for arm, by_seed in finals.items():
        for seed, final in enumerate(by_seed):
            run = folder / f"seed-{seed}" / arm
            shutil.copytree(train, run)
            recipe = (run / "recipe.yaml").read_text().replace("seed: 0", f"seed: {seed}", 1)
            (run / "recipe.yaml").write_text(change(recipe))
            (run / "train.json").unlink()
            curve = [
                {"step": step, "scores": {"solo": {"score": score, "n": 10}}}
                for step, score in ((0, 0.1), (2, final or 0.1))
            ]
            (run / "evals.jsonl").write_text("".join(json.dumps(e) + "\n" for e in curve))
            if final is not None:
                (run / "result.json").write_text(json.dumps({"steps": 2, "seconds": 1.0}))
    (folder / "study.json").write_text(json.dumps({"arms": list(finals)}))
    return str(folder)


def test_compare_pairs_the_arms_of_two_studies_by_seed(runs, tmp_path):
    train = runs / "train"
    one = study_of(train, tmp_path / "one", {"eapo": [0.3, 0.4, 0.5], "only": [0.2]})
    other = study_of(
        train,
        tmp_path / "other",
        {"eapo": [0.5, 0.5, 0.7, None]},
        lambda text: text.replace(" learning_rate: ", " learning_rate: 1"),
    )
    found, page = compare(one, other)
    eapo, only = found.pairs
    assert (eapo.difference.seeds, only.difference) == (3, None)
    assert eapo.difference.points == pytest.approx(100 * (0.2 + 0.1 + 0.2) / 3)
    low, high = eapo.difference.ci95
    assert 0 < low < eapo.difference.points < high
    assert eapo.difference.p_holm == eapo.difference.p
    assert {key.key for key in eapo.recipes} == {"train.learning_rate", "warm_start.learning_rate"}
    told = page.markdown()
    assert "| eapo | 3 | 3 | 10.0% | 10.0% | 40.0%" in told
    assert "| all of both |" in told
    assert "other: eapo, seed 3" in told.partition("Not finished")[2]
    written = json.loads(json.dumps(found.to_json()))
    assert written["arms"]["only"]["b"] is None
    assert written["unfinished"] == [f"{other}: eapo, seed 3"]


def test_studies_that_are_scored_on_other_tasks_are_laid_side_by_side_and_not_paired(
    runs, tmp_path
):
    train, finals = runs / "train", {"eapo": [0.3, 0.4]}
    one = study_of(train, tmp_path / "one", finals)
    other = study_of(
        train,
        tmp_path / "other",
        finals,
        lambda text: re.sub("held_out: .*", "held_out: 0.3", text),
    )
    found, page = compare(one, other)
    assert found.pairs[0].difference is None
    assert "another task or evaluation, or are not there: eapo." in page.markdown()
    for file in (tmp_path / "other").rglob("recipe.yaml"):
        file.unlink()
    found, page = compare(one, other)
    assert (found.pairs[0].difference, found.pairs[0].recipes) == (None, None)
    assert "Some arms keep no recipe.yaml." in page.markdown()
