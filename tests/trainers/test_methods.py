"""Methods of training on a fresh, tiny model: real graphs, a real engine, a real store, TRL's own
loss."""

import dataclasses
import json

import pytest
import torch

from eapo_agents.store import TraceStore
from eapo_agents.tasks import load_problems
from eapo_agents.types import Consultation, ConsultationStatus, Role, RolloutGroup
from graphs.agent import make_pool
from graphs.collect import Collection, collect
from trainers.batches import balanced_counts, micro_batches, pad_rows, tree_tokens
from trainers.rows import TrainingRow
from trainers.run import train_live, train_logged, usable_groups

PROBLEMS = load_problems("arithmetic", split="train", limit=8, seed=0)


def started(store: TraceStore, agent, kind: str = "train", run_id: str = "train") -> TraceStore:
    store.start_run(
        run_id,
        kind=kind,
        recipe={},
        sampling=agent.sampling,
        policy=agent.engine.policy_version,
    )
    return store


def collected(agent, path, run_id: str = "c") -> list[RolloutGroup]:
    """Groups of the agent's own rollouts. A fresh model answers nothing, so their rewards are made
    up; tokens and logprobs are what it sampled."""
    policy = agent.policy(agent.sampling)
    with TraceStore.open(path, create=True) as store:
        started(store, agent, "collect", run_id)
        wanted = Collection(
            run_id=run_id,
            problems=PROBLEMS[4:],
            num_rollouts=4,
            concurrency=64,
            seed=0,
            system_prompt="",
        )
        collect(agent.graph(policy), policy, store, wanted)
        groups = list(store.groups(run_id))
    return [
        dataclasses.replace(
            group,
            trajectories_G=tuple(
                dataclasses.replace(t, reward=float(t.rollout % 2), correct=t.rollout % 2 == 1)
                for t in group.trajectories_G
            ),
        )
        for group in groups
    ]


def test_distillation_raises_the_likelihood_of_the_experts_solutions(agent_of, tmp_path):
    agent = agent_of("train.method=distillation", "train.steps=20", "train.learning_rate=1e-2")
    agent.pool.open(tmp_path / "e.db", "train")
    told = []
    with TraceStore.open(tmp_path / "t.db", create=True) as store:
        started(store, agent)
        train_live(
            agent, PROBLEMS, store, tmp_path / "out", "train", lambda step, m: told.append(m)
        )
        trajectories = [s.trajectory for s in store.trajectories()]
    assert [t.role for t in trajectories] == [Role.EXPERT] * 80
    text = trajectories[0].answer
    expression = trajectories[0].problem.metadata["expression"]
    assert text.endswith(f"Answer: {trajectories[0].problem.answer}")
    assert text.startswith(expression.split(" + ")[1])
    assert [m["experts/calls"] for m in told] == [4] * 20
    assert all(m["sampled_tokens"] == 0 and "helped/accuracy" not in m for m in told)
    history = json.loads((tmp_path / "out/checkpoint-20/trainer_state.json").read_text())
    losses = [entry["loss"] for entry in history["log_history"]]
    assert losses[0] == pytest.approx(-1.0)  # minus the mean ratio, which is 1 by construction
    row = trajectories[0].turns[0]
    assert _mean_logprob(agent, row) > -3.0  # untrained: about -ln 320 = -5.8


def _mean_logprob(agent, turn) -> float:
    return float(_logprobs(agent, turn).mean())


def _logprobs(agent, turn, context=None) -> torch.Tensor:
    """Of each sampled token, after another context than its own where one is given."""
    agent.model.eval()
    ids = torch.tensor([[*(context or turn.context_ids), *turn.completion_ids]])
    with torch.no_grad():
        logprobs = agent.model(ids).logits[0, :-1].log_softmax(-1)
    return logprobs.gather(1, ids[0, 1:, None])[-len(turn.completion_ids) :, 0]


def test_after_so_many_calls_the_solutions_at_hand_are_drawn_again_also_when_resumed(
    agent_of, tmp_path
):
    told = []
    for steps in (1, 4):  # cut off after the first step, and gone on with
        agent = agent_of("train.method=distillation", f"train.steps={steps}")
        agent = dataclasses.replace(
            agent,
            recipe=agent.recipe.model_copy(
                update={"train": agent.recipe.train.model_copy(update={"expert_calls": 6})}
            ),
        )
        agent.pool = make_pool(agent.recipe)
        agent.pool.open(tmp_path / "e.db", "train")
        with TraceStore.open(tmp_path / "t.db", create=True) as store:
            started(store, agent)
            train_live(
                agent, PROBLEMS, store, tmp_path / "out", "train", lambda step, m: told.append(m)
            )
    assert len(list(agent.pool.store.rows())) == 6
    assert [m["experts/calls"] for m in told] == [4, 2, 0, 0]


def test_a_distillation_that_is_killed_between_checkpoints_pays_no_solution_twice(
    agent_of, tmp_path
):
    curves: list[list[float]] = [[], []]
    for attempt, curve in enumerate(curves):  # the second finds no checkpoint, and the solutions
        agent = agent_of("train.method=distillation")
        agent.pool.open(tmp_path / "e.db", "train")
        with TraceStore.open(tmp_path / "t.db", create=True) as store:
            started(store, agent)
            out = tmp_path / f"out{attempt}"
            train_live(agent, PROBLEMS, store, out, "train")
            assert len(list(store.trajectories())) == 8
        state = json.loads((out / "checkpoint-2/trainer_state.json").read_text())
        curve += [entry["grad_norm"] for entry in state["log_history"]]
        assert len(list(agent.pool.store.rows())) == 8
    assert curves[0] == pytest.approx(curves[1])


def test_the_divergence_holds_the_policy_where_it_began(agent_of, tmp_path):
    lora = "train.lora={r: 4, alpha: 8}"
    moved = {}
    for kl in (0.0, 10.0):
        agent = agent_of(
            lora, f"train.beta={kl}", "train.learning_rate=3e-2", "train.method=logged"
        )
        groups = collected(agent, tmp_path / f"{kl}.db")
        turn = groups[0].trajectories_G[0].turns[0]
        before = _mean_logprob(agent, turn)
        train_logged(agent, groups * 3, tmp_path / f"out{kl}")
        moved[kl] = abs(_mean_logprob(agent, turn) - before)
    assert moved[10.0] < 0.5 * moved[0.0]


def test_what_the_teacher_with_a_reply_in_sight_finds_likelier_becomes_likelier_alone(
    agent_of, tmp_path
):
    agent = agent_of(
        "train.learning_rate=1e-3",
        "consult.solo_share=0.75",
        "train.internalise={self_distillation_weight: 1.0}",
    )
    (group, *_) = collected(agent, tmp_path / "c.db")
    *members, asked = group.trajectories_G
    said = {"slot": 0, "expert": "solver", "query": "q", "reply": "r", "rho": 1, "u": 0}
    reply = Consultation(status=ConsultationStatus.ACCEPTED, **said)
    (turn,) = asked.turns
    turn = dataclasses.replace(turn, consultations=(reply,))
    answer = dataclasses.replace(turn, context_ids=(40, 41, 42), parent=0, consultations=())
    # equal rewards: the policy gradient has nothing to say
    right = {"reward": 1.0, "correct": True}
    helped = dataclasses.replace(asked, turns=(turn, answer), **right)
    alone = [dataclasses.replace(member, role=Role.SOLO, **right) for member in members]
    group = RolloutGroup(problem=group.problem, trajectories_G=(*alone, helped))
    taught = [*turn.context_ids, *turn.completion_ids, *answer.context_ids]

    def logprobs(context: list[int] | None = None) -> torch.Tensor:
        return torch.cat([_logprobs(agent, member.turns[0], context) for member in alone])

    before = logprobs()
    gap = logprobs(taught) - before
    assert gap.abs().max() > 1e-3
    train_logged(agent, [group] * 4, tmp_path / "out")
    assert float(gap @ (logprobs() - before)) > 0


def test_logged_groups_are_replayed_among_live_ones_and_leave_when_they_are_too_old(
    agent_of, tmp_path
):
    agent = agent_of(
        "train.replay={store: x, share: 0.5, max_staleness: 1}",
        "train.steps=4",
        "train.learning_rate=1e-2",
    )
    logged = collected(agent, tmp_path / "c.db")
    assert usable_groups(agent, logged) == logged
    seen = []
    with TraceStore.open(tmp_path / "t.db", create=True) as store:
        started(store, agent)
        train_live(
            agent,
            PROBLEMS[:4],
            store,
            tmp_path / "out",
            "train",
            lambda step, m: seen.append(
                (m["rollouts"], m.get("train_inference_mismatch", 0.0) < 1e-4)
            ),
            logged=logged,
        )
        num_live = len(list(store.trajectories()))
    # steps 1 and 2 draw two logged groups of four; those of step 0 are too old from step 3 on
    assert [rollouts for rollouts, _ in seen] == [16, 16, 16, 16]
    assert num_live == 4 * (2 + 2 + 4 + 4)
    assert all(matches for _, matches in seen)


def test_later_passes_over_a_log_say_nothing_of_the_engine(agent_of, tmp_path):
    agent = agent_of("train.method=logged", "train.epochs=2", "train.learning_rate=1e-2")
    told = []
    train_logged(
        agent,
        collected(agent, tmp_path / "c.db"),
        tmp_path / "out",
        lambda step, metrics: told.append(metrics),
    )
    first, second = told
    assert first["train_inference_mismatch"] < 1e-4
    assert "train_inference_mismatch" not in second
    assert min(first["entropy"], second["entropy"]) > 0


@pytest.fixture
def row(trajectory):
    return lambda num_prompt, num_completion: TrainingRow(
        prompt_ids=tuple(range(1, num_prompt + 1)),
        completion_ids_T=tuple(range(100, 100 + num_completion)),
        mask_T=(1,) * num_completion,
        logprobs_T=(-0.5,) * num_completion,
        advantage=float(num_completion),
        weight=1.0,
        trajectory=trajectory(()),
    )


def test_micro_batches_hold_every_row_once_and_little_padding(row):
    rows = [row(3 + i % 4, 2 + 9 * (i % 8)) for i in range(24)]
    batch = pad_rows(rows, multiple=8, pad_id=0)
    found = micro_batches(batch, updates=2, passes=4)
    assert len(found) == 8
    advantages = sorted(float(a) for part in found for a in part["advantages"][:, 0])
    assert advantages == sorted(r.advantage for r in rows)
    for update in (found[:4], found[4:]):
        assert sum(len(part["advantages"]) for part in update) == 12
        width = batch["prompt_ids"].shape[1] + batch["completion_ids"].shape[1]
        areas = [part["prompt_ids"].numel() + part["completion_ids"].numel() for part in update]
        assert max(areas) <= 3 * width


def test_micro_batches_of_rows_that_share_prompts_hold_them_together(row):
    rows = [
        dataclasses.replace(row(10, 1 + i), prompt_ids=(*range(6), i % 3, *[7] * 3))
        for i in range(12)
    ]
    batch = pad_rows(rows, multiple=12, pad_id=0)
    found = micro_batches(batch, updates=1, passes=3, shares=True)
    assert [sorted(set(part["prompt_ids"][:, 6].tolist())) for part in found] == [[0], [1], [2]]
    advantages = sorted(float(a) for part in found for a in part["advantages"][:, 0])
    assert advantages == sorted(r.advantage for r in rows)
    # nothing in common: by length, as without sharing
    rows = [dataclasses.replace(r, prompt_ids=(100 + i,) * 3) for i, r in enumerate(rows)]
    found = micro_batches(pad_rows(rows, multiple=12, pad_id=0), updates=1, passes=3, shares=True)
    lengths = [n for part in found for n in part["completion_mask"].sum(1).tolist()]
    assert lengths == sorted(lengths, reverse=True)


def test_the_largest_micro_batch_is_as_small_as_it_can_be():
    sizes = [(0, 100), (0, 50), (0, 50), (0, 10), (0, 10), (0, 10)]
    assert balanced_counts(sizes, 3) == [1, 2, 3]
    assert balanced_counts(sizes, 6) == [1] * 6
    assert balanced_counts(sizes[:1], 1) == [1]
    shared = [(30, 30), (30, 5), (30, 5), (30, 20), (30, 5), (30, 5)]
    assert balanced_counts(shared, 2, tree_tokens) == [3, 3]
