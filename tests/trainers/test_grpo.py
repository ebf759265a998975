"""The trainer on the small model's first layers: honest ratios, TRL's contract, the terms of the
loss, resuming."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import math

import pytest
import torch

from eapo_agents.recipe import InternaliseSection
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget
from eapo_agents.store import TraceStore
from eapo_agents.tasks import load_problems
from eapo_agents.types import RolloutGroup
from graphs.consult import build_consult_graph
from graphs.rollout import RolloutPlan, run_rollouts
from trainers.batches import pad_rows, trim
from trainers.grpo import EapoTrainer
from trainers.objective import Objective
from trainers.rows import TrainingRow, trajectory_rows
from trainers.run import add_adapter, train_live, train_logged, usable_groups
from trainers.sources import LoggedRollouts
from trainers.trl_arguments import grpo_config


def make_trainer(agent, groups, folder, weight=0.0, **changes) -> EapoTrainer:
    recipe = agent.recipe
    return EapoTrainer(
        model=agent.engine.model,
        tokenizer=agent.loaded.tokenizer,
        args=grpo_config(recipe, folder, 1),
        source=LoggedRollouts(logged=groups),
        objective=Objective(
            solo_prompt=agent.solo_prompt,
            settings=recipe.train.model_copy(
                update={"internalise": InternaliseSection(hint_stripped_weight=weight)}
            ),
        ),
        fresh_from=lambda: agent.engine.policy_version.step,
        importance_ratio_cap=2.0,
        **changes,
    )


def in_one_pass(trainer) -> None:
    """A whole batch in one forward pass, so that a test can take its loss by hand."""
    trainer.current_gradient_accumulation_steps = 1
    trainer.args.gradient_accumulation_steps = 1
    trainer.args.steps_per_generation = 1


class AskingEngine:
    """The real engine, except that a first turn is forced to be a consultation: the untrained model
    never asks.

    The forced tokens carry the model's own logprobs, so the record is what sampling them would have
    left.
    """

    def __init__(self, engine, renderer, call: str) -> None:
        self.engine, self.renderer = engine, renderer
        self.call_ids = [*renderer.encode_text(call), renderer.end_of_turn_id]

    @property
    def policy_version(self):
        return self.engine.policy_version

    def cohort(self, num_rollouts):
        return self.engine.cohort(num_rollouts)

    async def generate(self, prompt_ids, sampling, key, *, on_token=None):
        if key.turn:
            return await self.engine.generate(prompt_ids, sampling, key)
        from eapo_agents.policy.engine import Completion

        ids = torch.tensor([[*prompt_ids, *self.call_ids]])
        with torch.no_grad():
            rows = (
                self.engine.model(ids).logits[0].float().log_softmax(-1)[len(prompt_ids) - 1 : -1]
            )
        logprobs = rows.gather(1, torch.tensor(self.call_ids)[:, None])[:, 0]
        return Completion(
            policy=self.engine.policy_version,
            completion_ids=tuple(self.call_ids),
            logprobs=tuple(logprobs.tolist()),
            finish_reason="stop",
        )


def multi_turn_groups(agent, num_problems=2, num_rollouts=4) -> list[RolloutGroup]:
    """Real rollouts of two turns, with accepted and withheld consultations."""
    call = '<tool_call>{"name": "solver", "arguments": {"query": "7 + 3 * 4"}}</tool_call>'
    policy = agent.policy(agent.sampling)
    policy = policy.model_copy(update={"engine": AskingEngine(agent.engine, agent.renderer, call)})
    graph = build_consult_graph(
        policy,
        agent.pool,
        acceptance=AcceptanceSchedule(kind="constant", start=0.5),
        turns=TurnBudget(start=2, end=2),
    )
    problems = load_problems("arithmetic", split="train", limit=num_problems, seed=0)
    groups = asyncio.run(
        run_rollouts(
            graph,
            policy,
            [RolloutPlan(problem=p, rollouts=range(num_rollouts)) for p in problems],
            system_prompt="Solve.",
            seed=0,
            global_step=1,
        )
    )
    # the untrained model gets nothing right: rewards that differ, so that there is something to
    # train on
    return [
        dataclasses.replace(
            group,
            trajectories_G=tuple(
                dataclasses.replace(t, reward=float(t.rollout % 2), correct=bool(t.rollout % 2))
                for t in group.trajectories_G
            ),
        )
        for group in groups
    ]


def current_logps(trainer, batch):
    return trainer._current_logps(batch, torch.ones(len(batch["prompt_ids"]), dtype=torch.bool))


def test_on_fresh_traces_with_unchanged_weights_the_ratio_is_one(agent, tmp_path):
    groups = multi_turn_groups(agent)
    statuses = {
        c.status.value
        for group in groups
        for t in group.trajectories_G
        for turn in t.turns
        for c in turn.consultations
    }
    assert statuses == {"accepted", "withheld"}
    add_adapter(agent)
    trainer = make_trainer(agent, groups, tmp_path)
    batch = trainer._generate_and_score_completions([{"item": 0}, {"item": 1}])
    mask = batch["completion_mask"] * batch["tool_mask"]
    assert int(mask.sum()) == sum(
        len(turn.completion_ids) for g in groups for t in g.trajectories_G for turn in t.turns
    )
    difference = (current_logps(trainer, batch) - batch["old_per_token_logps"]) * mask
    assert float(difference.abs().max()) < 1e-3


def test_the_row_decodes_to_what_the_model_saw(agent):
    (group, *_) = multi_turn_groups(agent, num_problems=1)
    for trajectory in group.trajectories_G:
        (row,) = trajectory_rows(trajectory, advantage=1.0)
        text = agent.loaded.tokenizer.decode([*row.prompt_ids, *row.completion_ids_T])
        reply = trajectory.turns[0].consultations[0].reply
        question = trajectory.problem.question
        assert text.startswith("<|im_start|>system\nSolve.\nExperts you can ask:\n- solver(query)")
        assert f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n<tool_call>" in text
        assert f"<|im_start|>tool\n{reply}<|im_end|>\n<|im_start|>assistant\n" in text
        trained = [i for i, m in zip(row.completion_ids_T, row.mask_T, strict=True) if m]
        sampled = [i for turn in trajectory.turns for i in turn.completion_ids]
        assert trained == sampled


def test_only_sampled_tokens_move_the_weights(agent, tmp_path):
    """The gradient does not change when a token that the policy did not write loses its logprob."""
    groups = multi_turn_groups(agent, num_problems=2, num_rollouts=2)
    add_adapter(agent)
    trainer = make_trainer(agent, groups, tmp_path)
    in_one_pass(trainer)
    batch = trainer._generate_and_score_completions([{"item": 0}, {"item": 1}])

    def gradient(batch):
        agent.engine.model.zero_grad()
        agent.engine.model.train()
        trainer._compute_loss(agent.engine.model, batch).backward()
        return torch.cat(
            [p.grad.flatten() for p in agent.engine.model.parameters() if p.grad is not None]
        )

    before = gradient(batch)
    outside = (batch["tool_mask"] == 0) & (batch["completion_mask"] == 1)
    assert outside.any()
    changed = {**batch, "old_per_token_logps": batch["old_per_token_logps"] - 5.0 * outside}
    assert float(before.abs().max()) > 0
    assert torch.allclose(gradient(changed), before, atol=1e-7)


def test_a_trajectory_split_into_rows_weighs_as_the_whole(agent, tmp_path):
    """Two rows of half weight with the same tokens give the loss of one row of weight one."""
    groups = multi_turn_groups(agent)
    add_adapter(agent)
    trainer = make_trainer(agent, groups, tmp_path)
    in_one_pass(trainer)
    trainer.state.global_step = 0
    row = TrainingRow(
        prompt_ids=(1, 520),
        completion_ids_T=(44, 45, 46),
        mask_T=(1, 1, 1),
        logprobs_T=(-9.0, -9.0, -9.0),
        advantage=0.7,
        weight=1.0,
        trajectory=groups[0].trajectories_G[0],
    )
    other = dataclasses.replace(row, completion_ids_T=(50, 51, 52), advantage=-0.7)
    half = dataclasses.replace(row, weight=0.5)

    def loss(rows):
        with torch.no_grad():
            agent.engine.model.train()
            return float(trainer._compute_loss(agent.engine.model, trainer._batch(rows, [])))

    assert loss([row, other]) == pytest.approx(loss([half, half, other]), abs=1e-5)


def test_the_hint_stripped_term_is_a_mean_likelihood_of_its_weight(agent, tmp_path):
    groups = multi_turn_groups(agent)
    add_adapter(agent)
    trainer = make_trainer(agent, groups, tmp_path)
    in_one_pass(trainer)
    row = TrainingRow(
        prompt_ids=(1, 520),
        completion_ids_T=(44, 45, 46),
        mask_T=(1, 1, 1),
        logprobs_T=None,
        advantage=0.5,
        weight=1.0,
        trajectory=groups[0].trajectories_G[0],
    )
    batch = trainer._batch([], [row])
    model = agent.engine.model
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # an optimizer step lies between the batch and its loss
            parameter.data.normal_(std=0.01)
    model.zero_grad()
    trainer._compute_loss(model, batch).backward()
    got = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    ids = torch.tensor([[*row.prompt_ids, *row.completion_ids_T]])
    logps = model(ids).logits[0].log_softmax(-1)[1:4].gather(1, ids[0, 2:, None])
    (-0.5 * logps.mean()).backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and parameter.grad.abs().max() > 0:
            assert torch.allclose(got[name], parameter.grad, rtol=1e-3, atol=1e-6), name


def test_older_traces_are_weighted_by_their_truncated_importance_ratio(agent, tmp_path):
    groups = multi_turn_groups(agent)
    add_adapter(agent)
    agent.engine.weights_changed(3)  # three steps on; the traces are of step 0
    trainer = make_trainer(agent, groups, tmp_path)
    row = TrainingRow(
        prompt_ids=(1, 520),
        completion_ids_T=(44, 45),
        mask_T=(1, 1),
        logprobs_T=(-99.0, 0.0),
        advantage=1.0,
        weight=1.0,
        trajectory=groups[0].trajectories_G[0],
    )
    batch = trainer._batch([row], [])
    current = current_logps(trainer, batch)[0]
    assert torch.allclose(batch["old_per_token_logps"][0], current)
    assert float(batch["advantages"][0, 0]) == 2.0  # exp(lp + 99), cut at the cap
    assert float(batch["advantages"][0, 1]) == pytest.approx(math.exp(float(current[1])), rel=1e-4)


def test_rows_are_padded_to_a_multiple_and_trimmed_again(trajectory):
    row = TrainingRow(
        prompt_ids=(1, 2),
        completion_ids_T=(3, 4, 5),
        mask_T=(1, 0, 1),
        logprobs_T=(-1.0, 0.0, -2.0),
        advantage=0.5,
        weight=1.0,
        trajectory=trajectory(()),
    )
    short = dataclasses.replace(
        row, prompt_ids=(9,), completion_ids_T=(8,), mask_T=(1,), logprobs_T=(-3.0,)
    )
    batch = pad_rows([row, short], multiple=4, pad_id=0)
    assert batch["prompt_ids"].tolist() == [[1, 2], [0, 9], [0, 0], [0, 0]]
    assert batch["completion_mask"].sum(1).tolist() == [3, 1, 0, 0]
    alone = {name: tensor[1:2] for name, tensor in batch.items()}
    trimmed = trim(alone)
    assert trimmed["prompt_ids"].tolist() == [[9]]
    assert trimmed["completion_ids"].tolist() == [[8]]
    assert trimmed["advantages"].shape == (1, 1)


def test_a_batch_without_rows_trains_nothing_and_does_not_fail(agent, tmp_path):
    flat = [
        dataclasses.replace(
            g,
            trajectories_G=tuple(
                dataclasses.replace(t, reward=0.1, correct=False) for t in g.trajectories_G
            ),
        )
        for g in multi_turn_groups(agent, num_rollouts=2)
    ]
    add_adapter(agent)
    before = agent.engine.policy_version.weights
    train_logged(agent, flat, tmp_path)
    assert agent.engine.policy_version.weights == before


def test_the_private_methods_that_are_relied_on_are_as_they_were():
    from trl import GRPOTrainer

    signature = inspect.signature(GRPOTrainer._generate_and_score_completions)
    assert list(signature.parameters) == ["self", "inputs"]
    assert list(inspect.signature(GRPOTrainer._compute_loss).parameters) == [
        "self",
        "model",
        "inputs",
    ]
    source = inspect.getsource(GRPOTrainer._compute_loss)
    for name in ("old_per_token_logps", "tool_mask", "num_items_in_batch", "advantages"):
        assert f'"{name}"' in source


def test_training_on_logged_traces_moves_the_policy_and_is_saved(agent, tmp_path):
    from eapo_agents.policy.models import POLICY_FILE

    groups = usable_groups(agent, multi_turn_groups(agent))
    before = agent.engine.policy_version
    folder = train_logged(agent, groups, tmp_path)
    after = agent.engine.policy_version
    assert after.weights != before.weights
    assert after.step == before.step + 1
    assert (folder / POLICY_FILE).exists()
    assert (folder / "adapter_config.json").exists()


def test_every_logged_group_is_trained_on_once_where_they_fill_no_step(agent, tmp_path):
    """Three groups at two a step: two steps, the second with one group."""
    groups = multi_turn_groups(agent, num_problems=3, num_rollouts=2)
    seen = []
    train_logged(agent, groups, tmp_path, lambda step, metrics: seen.append(metrics["rollouts"]))
    assert sorted(seen) == [2, 4]
    assert agent.engine.policy_version.step == 2


@pytest.mark.long
def test_a_live_run_cut_off_goes_on_from_its_checkpoint_to_the_same_weights(
    agent, loaded_policy, renderer, recipe, tmp_path
):
    import copy

    from eapo_agents.policy.transformers_engine import TransformersEngine

    # the base never answers right: at a format reward of 1 the untrained model's rewards still
    # do not differ,
    # so hint-stripping is off and a task whose every answer differs in reward is made from F1 on
    # common words
    problems = [
        dataclasses.replace(p, grader="f1", answer="the problem is a number to solve")
        for p in load_problems("arithmetic", split="train", limit=8, seed=0)
    ]

    def run(folder, steps):
        fresh = dataclasses.replace(
            agent,
            recipe=recipe.model_copy(
                update={
                    "train": recipe.train.model_copy(update={"steps": steps, "learning_rate": 1e-3})
                }
            ),
            engine=TransformersEngine(
                copy.deepcopy(loaded_policy.model),
                name="small",
                stop_ids=sorted(renderer.stop_ids),
                base=loaded_policy.base,
            ),
        )
        with TraceStore.open(str(tmp_path / f"{folder}.db"), create=True) as store:
            store.start_run(
                "train",
                kind="train",
                recipe={},
                sampling=fresh.sampling,
                policy=fresh.engine.policy_version,
            )
            train_live(fresh, problems, store, tmp_path / folder, "train")
        return fresh.engine.policy_version

    whole = run("whole", 3)
    first = run("cut", 1)
    resumed = run("cut", 3)
    assert first.step == 1
    assert (resumed.step, resumed.weights) == (whole.step, whole.weights)
