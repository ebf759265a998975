"""The parts behind the pages: curves, tokens, pages of a store, turns."""

import json
from dataclasses import replace

import pytest

from eapo_agents.errors import StoreError
from eapo_agents.runs.lock import LOCK, locked
from eapo_agents.runs.view.conversation import conversation_of, extracted_answer
from eapo_agents.runs.view.curves import HEIGHT, charts_of, facts_of, short
from eapo_agents.runs.view.evaluations import categories, samples_page
from eapo_agents.runs.view.finding import Kind, find_places
from eapo_agents.runs.view.groups import group_view
from eapo_agents.runs.view.state import State, state_of
from eapo_agents.runs.view.tokenizers import TokenTexts
from eapo_agents.runs.view.training import Trainings
from eapo_agents.store import StoredTrajectory, TraceStore
from eapo_agents.store.briefs import Wanted
from eapo_agents.store.browsing import StoreBrowser
from eapo_agents.types import PolicyVersion, Sampling, Turn
from evals.sealing import seal

POLICY = PolicyVersion(model="small", base="base", weights="weights", step=0)
SAID = "héllo 漢字 🙂🙃 naïve — 7 + 3 * 4 = 19\n\tend"


def turn(text: str, parent: int | None = None, **changes) -> Turn:
    facts = {
        "context_ids": (1, 5),
        "completion_ids": (7, 2),
        "logprobs": (-0.5, -0.25),
        "parent": parent,
        "text": text,
        "finish_reason": "stop",
    }
    return Turn(**{**facts, **changes})


@pytest.fixture
def byte_tokenizer():
    """A real tokenizer that has only bytes: each character of these texts is several tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(["x"], trainer)
    return made


def test_pieces_of_tokens_join_to_the_text(byte_tokenizer):
    texts = TokenTexts(location="", backend=byte_tokenizer, template={})
    ids = byte_tokenizer.encode(SAID).ids
    pieces = texts.pieces(ids)
    assert len(pieces) == len(ids) > len(SAID)
    assert "".join(pieces) == SAID
    assert pieces.count("") == len(ids) - len(SAID)


def test_tokens_that_are_no_text_and_ids_of_another_model_do_no_harm(byte_tokenizer):
    texts = TokenTexts(location="", backend=byte_tokenizer, template={})
    broken = byte_tokenizer.encode("🙂").ids[:2] * 9
    assert len(texts.pieces(broken)) == len(broken)
    assert set("".join(texts.pieces(broken))) == {"\ufffd"}
    assert texts.pieces([10**6, 2**31 - 1]) == ["", ""]


@pytest.fixture
def store(tmp_path, trajectory):
    """A store with two runs of 3 steps x 5 groups x 4 rollouts."""
    with TraceStore.open(tmp_path / "t.db", create=True) as opened:
        for run_id in ("first", "second"):
            facts = {"kind": "train", "recipe": {}, "sampling": Sampling(), "policy": POLICY}
            opened.start_run(run_id, **facts)
            for step in (1, 2, 11):
                for problem in range(5):
                    for rollout in range(4):
                        one = trajectory(
                            (turn(f"Answer: {rollout}"),),
                            global_step=step,
                            rollout=rollout,
                            reward=rollout / 3,
                            correct=rollout == 3,
                        )
                        opened.append(one, run_id=run_id, group_key=f"{step}/p{problem}")
    return StoreBrowser.look_into(tmp_path / "t.db")


def test_rollouts_that_failed_and_were_run_again_are_counted_once_each(tmp_path, trajectory):
    at = tmp_path / "t.db"
    with TraceStore.open(at, create=True) as opened:
        opened.start_run("r", kind="eval", recipe={}, sampling=Sampling(), policy=POLICY)
        failed = {"error": "Down: no", "answer": None, "reward": None, "correct": None}
        for rollout in (0, 1):
            for changes in (failed, failed, {}) if rollout else ({},):
                one = trajectory((), rollout=rollout, **changes)
                opened.append(one, run_id="r", group_key="1/p0", replaces_failed=True)
        with StoreBrowser.look_into(at) as looked:
            assert (looked.num_run_again("r"), looked.num_run_again("other")) == (1, 0)
            assert len(looked.failed_attempts("r", "1/p0")) == 2


def test_pages_of_a_store_have_every_rollout_once(store):
    for wanted, number in (
        (Wanted(), 120),
        (Wanted(run_id="second"), 60),
        (Wanted(run_id="first", step=1), 20),
        (Wanted(verdict="right"), 30),
        (Wanted(verdict="wrong", run_id="first"), 45),
        (Wanted(verdict="failed"), 0),
        (Wanted(asked=True), 0),
    ):
        seen: list[int] = []
        while page := store.briefs(replace(wanted, before=seen[-1] if seen else None), 7):
            seen += [brief.id for brief in page]
        assert len(seen) == len(set(seen)) == number
        assert seen == sorted(seen, reverse=True)


def test_steps_and_groups_are_summed(store):
    steps = store.steps("first")
    assert [tally.name for tally in steps] == ["1", "2", "11"]
    assert {(t.num, t.scored, t.correct, t.failed) for t in steps} == {(20, 20, 5, 0)}
    assert steps[0].reward == pytest.approx(0.5)
    # step 1 is not step 11
    assert [t.name for t in store.groups_of("second", step=1)] == [f"1/p{n}" for n in range(5)]
    pages = [store.groups_of("second", page=page, size=4) for page in range(5)]
    assert [len(page) for page in pages] == [4, 4, 4, 3, 0]


def test_neighbours_lead_through_a_run_and_not_into_another(store):
    ids = [brief.id for brief in reversed(store.briefs(Wanted(run_id="second"), 100))]
    place, walked = ids[0], [ids[0]]
    while (following := store.neighbours(store.trajectory(place))[1]) is not None:
        place = following
        walked.append(place)
    assert walked == ids
    assert store.neighbours(store.trajectory(ids[0]))[0] is None


def test_groups_follow_one_another_in_the_order_in_which_they_began(store):
    keys = [tally.name for tally in store.groups_of("second")]
    walked, key = [keys[0]], keys[0]
    while (following := store.groups_beside(store.group("second", key))[1]) is not None:
        assert store.groups_beside(store.group("second", following))[0] == key
        key = following
        walked.append(key)
    assert walked == keys
    assert store.groups_beside(store.group("second", keys[0]))[0] is None


def test_a_store_that_is_looked_at_cannot_be_written(store, trajectory):
    with pytest.raises(StoreError):
        store.append(trajectory(()), run_id="first", group_key="9/p")


def test_a_search_is_bounded_and_says_so(store):
    found = store.search("answer: 2", limit=5)
    assert (len(found.hits), found.whole) == (5, False)
    assert [hit.snippet for hit in found.hits] == [("", "Answer: 2", "")] * 5
    assert store.search("100%_", limit=5).hits == []  # no pattern of SQL
    whole = store.search("Answer: 2", run_id="first", limit=100)
    assert (len(whole.hits), whole.searched, whole.whole) == (15, 60, True)
    assert {hit.brief.run_id for hit in whole.hits} == {"first"}


def test_curves_put_the_highest_value_on_top_and_leave_out_what_is_no_number(tmp_path):
    lines = [
        {"step": 1, "reward": 0.5, "note": "text", "experts/calls": 0},
        {"step": 2, "reward": 1.5, "entropy": float("nan"), "experts/calls": 0},
        {"step": 3, "reward": None, "entropy": 0.25, "experts/calls": 0},
    ]
    (tmp_path / "steps.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    charts = {chart.name: chart for chart in charts_of([("r", Trainings().read(tmp_path))])}
    assert set(charts) == {"reward", "entropy"}  # what is 0 throughout is not drawn
    low, high = charts["reward"].hits
    assert 0 < high.dot < low.dot < HEIGHT
    assert charts["reward"].latest == "1.5"
    assert charts["reward"].y_ticks[0].label == "0"
    assert len(charts["entropy"].lines[0].points) == 1


def test_a_long_curve_has_no_more_points_than_can_be_told_apart(tmp_path):
    lines = [json.dumps({"step": step, "reward": 1.0}) for step in range(1, 5001)]
    (tmp_path / "steps.jsonl").write_text("\n".join(lines))
    (chart,) = charts_of([("r", Trainings().read(tmp_path))])
    assert len(chart.hits) <= 400
    assert chart.lines[0].path.count(" ") < 900


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1204.0, "1,204"), (0.375, "0.375"), (2.1e-6, "2.1e-06"), (12.5e6, "12.5M")],
)
def test_numbers_are_short(value, text):
    assert short(value) == text


def test_a_run_that_is_held_runs_and_one_that_nobody_holds_was_interrupted(tmp_path):
    arm = tmp_path / "seed-0" / "eapo"
    arm.mkdir(parents=True)
    assert state_of(arm, is_finished=False) is State.INTERRUPTED
    with locked(tmp_path):
        assert state_of(arm, is_finished=False) is State.RUNNING  # a study holds it for its arms
        assert state_of(arm, is_finished=True) is State.FINISHED
    (tmp_path / LOCK).touch()
    assert state_of(arm, is_finished=False) is State.INTERRUPTED


def test_figures_that_cannot_be_read_are_said(tmp_path):
    (tmp_path / "steps.jsonl").write_text('{"step": "x"}\n')
    found = Trainings().read(tmp_path)
    assert "cannot be read" in found.problem
    (tmp_path / "steps.jsonl").write_text('{"step": 1, "reward": 1}\n{"step": 2, "rew')
    assert [step["step"] for step in Trainings().read(tmp_path).history] == [1]


@pytest.mark.parametrize(
    "lines",
    [
        '{"step": 1e308, "reward": 1}',
        '{"step": 1, "reward": 1e400, "rho": "x", "entropy": []}',
        "[1, 2]",
        "\x00",
        '{"step": 1, "reward": {"a": 1}}\n{"step": 2, "reward": true}',
    ],
)
def test_a_damaged_history_is_no_obstacle(tmp_path, lines):
    (tmp_path / "steps.jsonl").write_text(lines)
    (tmp_path / "evals.jsonl").write_text('{"step": 1, "scores": []}\n{"step": 2, "scores": {}}')
    (tmp_path / "train.json").write_text("[]")
    (tmp_path / "recipe.yaml").write_text("name: [1]\ntrain: x\npolicy: 3")
    found = Trainings().read(tmp_path)
    charts_of([("r", found)])
    assert (found.name, found.planned, found.evaluated, found.seconds) == ("", None, None, None)


def test_places_are_found_at_any_depth_once_each(tmp_path, store):
    for name in ("a", "b/c/d", ".hidden", "checkpoint-3"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "steps.jsonl").touch()
    (tmp_path / "runs" / "b" / "notes.db").write_text("no database")
    (tmp_path / "runs" / "loop").symlink_to(tmp_path / "runs")
    found = find_places([str(tmp_path / "runs"), str(tmp_path / "t.db")])
    assert {key: place.kind for key, place in found.items()} == {
        "runs/a": Kind.TRAINING,
        "runs/b/c/d": Kind.TRAINING,
        "t.db": Kind.STORE,
    }
    url = f"sqlite:///{tmp_path / 't.db'}"
    (place,) = find_places([url]).values()
    with StoreBrowser.look_into(place.store) as opened:
        assert len(opened.runs()) == 2


def test_samples_are_counted_by_subject_and_joined_with_their_questions(tmp_path, trajectory):
    key = "mmlu solo"
    items = []
    with TraceStore.open(tmp_path / "e.db", create=True) as opened:
        facts = {"kind": "eval", "recipe": {}, "sampling": Sampling(), "policy": POLICY}
        opened.start_run(key, **facts)
        for number in range(6):
            one = trajectory((turn("Answer: 19"),))
            problem = replace(
                one.problem,
                id=f"q{number}",
                question=f"Question {number}?",
                metadata={"subject": "law" if number % 2 else "maths"},
            )
            opened.append(replace(one, problem=problem), run_id=key, group_key=problem.id)
            verdict = {0: None, 1: True}.get(number, False)
            items.append({"id": problem.id, "rollout": 0, "correct": verdict, "extracted": "19"})
    store = StoreBrowser.look_into(tmp_path / "e.db")
    name, parts = categories(items, store, key)
    assert name == "subject"
    assert [(one.name, one.num, round(one.accuracy, 3)) for one in parts] == [
        ("law", 3, 0.333),
        ("maths", 2, 0.0),
    ]
    found = samples_page(items, store, key)
    assert found.counts == {"right": 1, "wrong": 4, "undecided": 1}
    assert [one.question for one in found.samples] == [f"Question {n}?" for n in range(6)]
    one_of_them = samples_page(items, store, key, verdict="wrong", wanted="QUESTION 4")
    assert [one.problem_id for one in one_of_them.samples] == ["q4"]
    assert samples_page(items, None, key, page=1).samples == []
    assert categories(items, None, key) == ("", [])


def test_forks_are_a_tree_and_each_branch_names_its_row(trajectory):
    turns = (turn("a"), turn("b", 0), turn("c", 0), turn("d", 2), turn("e"))
    found = conversation_of(trajectory(turns))
    assert [view.row for view in found.turns] == [0, 0, 1, 1, 2]
    assert [view.begins_row for view in found.turns] == [True, False, True, False, True]
    assert len(found.tree) == 5
    assert found.tree[4].parent is None
    assert conversation_of(trajectory(turns[:2])).tree == []
    broken = conversation_of(trajectory((turn("a", 3),)))
    assert "does not come before it" in broken.told


def test_thoughts_calls_and_text_are_told_apart(trajectory):
    text = (
        "<think>hm</think>I look it up.\n<tool_call>\n"
        '{"name": "search", "arguments": {"q": "x"}}\n</tool_call>'
    )
    (view,) = conversation_of(trajectory((turn(text),))).turns
    assert (view.thought, view.content) == ("hm", "I look it up.")
    assert [(call.name, call.arguments) for call in view.calls] == [("search", [("q", "x")])]


def test_sealed_text_stays_sealed(trajectory):
    sealed = seal(trajectory((turn("Answer: B"),)))
    (view,) = conversation_of(sealed).turns
    assert "sealed" in view.content
    assert "Answer" not in view.content


def test_programs_are_not_run_to_show_an_answer(trajectory):
    one = trajectory((turn("x"),))
    code = replace(one, problem=replace(one.problem, grader="code"))
    assert extracted_answer(code) == (
        None,
        "the grader 'code' runs programs, which a page does not",
    )
    assert extracted_answer(one) == ("19", "")


def test_a_recipes_own_advantage_function_is_not_run(recipe, trajectory):
    mine = recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"advantage": "os:system"})}
    )
    members = [
        StoredTrajectory(
            id=number,
            run_id="r",
            group_key="g",
            created_at="",
            trajectory=trajectory((turn("x"),), rollout=number, reward=float(number)),
        )
        for number in range(2)
    ]
    found = group_view(members, mine)
    assert "runs no user code" in found.told
    assert [earned.advantage for earned in found.earned] == [None, None]
    assert [e.advantage for e in group_view(members, recipe).earned] == pytest.approx(
        [-0.707, 0.707], abs=1e-3
    )


def test_a_rollouts_page_and_the_curves_show_the_parts_of_its_reward(tmp_path, view, trajectory):
    with TraceStore.open(tmp_path / "t.db", create=True) as store:
        store.start_run("r", kind="collect", recipe={}, sampling=Sampling(), policy=POLICY)
        parts = {"right": 1.0, "<b>brief</b>": 0.125}
        made = trajectory((turn("hi"),), reward=1.125, reward_parts=parts)
        store.append(made, run_id="r", group_key="g")
    page = view(tmp_path / "t.db").page("/rollout", at="t.db", id=1)
    assert '<bdi>right</bdi></dt><dd class="num">1' in page
    assert '<bdi>&lt;b&gt;brief&lt;/b&gt;</bdi></dt><dd class="num">0.125' in page
    assert facts_of({"reward/brief": 0.125}) == [("Reward brief", "0.125")]
