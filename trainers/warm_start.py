"""Warm start: a few scripted episodes teach the tool-call format, by plain likelihood.

The episodes are run, not written: a scripted policy goes through the real graphs with the real
experts, so that what is imitated is exactly what the graphs render. Three kinds in equal parts:
asking and using the reply, asking in vain and answering at once, and answering at once in the
tool-free graph. No kind shows the policy working a problem out alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import (
    DataCollatorForSeq2Seq,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from eapo_agents.errors import TraceError
from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.scripted import ScriptedEngine
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget
from eapo_agents.tasks.arithmetic import worked_steps
from eapo_agents.types import Problem, Trajectory
from graphs.agent import Agent
from graphs.consult import UNAVAILABLE, build_consult_graph
from graphs.rollout import RolloutPlan, run_rollouts
from graphs.solo import build_solo_graph
from trainers.publishing import Publisher
from trainers.rows import trajectory_rows


def scripted_episodes(agent: Agent, problems: Sequence[Problem]) -> list[Trajectory]:
    """Three episodes a problem, run through the graphs."""
    expert = agent.pool.tools[0].name
    by_id = {problem.id: problem for problem in problems}

    def script(key: RolloutKey, prompt: str) -> str:
        problem = by_id[key.problem_id]
        expression = str(problem.metadata["expression"])
        if expert not in prompt or UNAVAILABLE in prompt:
            return f"Answer: {problem.answer}"
        if key.turn == 0:
            return format_call(expert, {"query": expression})
        return f"{worked_steps(expression)[0]} Answer: {problem.answer}"

    policy = PolicyChatModel(
        engine=ScriptedEngine(agent.renderer, script),
        renderer=agent.renderer,
        sampling=agent.sampling,
    )
    turns = TurnBudget(start=2, end=2)
    graphs = [
        build_consult_graph(
            policy, agent.pool, acceptance=AcceptanceSchedule(kind=kind), turns=turns
        )
        for kind in ("constant", "never")
    ]
    episodes = []
    for graph in (*graphs, build_solo_graph(policy)):
        groups = asyncio.run(
            run_rollouts(
                graph,
                policy,
                [RolloutPlan(problem=problem, rollouts=[0]) for problem in problems],
                system_prompt=agent.recipe.task.system_prompt,
                seed=agent.recipe.seed,
            )
        )
        episodes += [trajectory for group in groups for trajectory in group.trajectories_G]
    wrong = [t for t in episodes if not t.correct]
    if wrong:
        raise TraceError(
            f"{len(wrong)} of {len(episodes)} scripted episodes came out wrong (first: "
            f"{wrong[0].problem.id}, "
            f"{wrong[0].error or wrong[0].stop_reason}): the script does not fit the task."
        )
    return episodes


def warm_start(
    agent: Agent,
    episodes: Sequence[Trajectory],
    folder: Path,
    on_step: Callable[[int, int], None],
) -> None:
    """Trains the agent's model on the episodes; the engine knows its new weights afterwards.

    `on_step` is told (steps done, steps in all).
    """
    settings = agent.recipe.warm_start
    assert settings is not None
    rows = [
        row
        for episode in episodes
        for row in trajectory_rows(episode, advantage=1.0, scripted=True)
    ]
    data: dict[str, list[Any]] = {"input_ids": [], "labels": [], "attention_mask": []}
    for row in rows:
        ids = [*row.prompt_ids, *row.completion_ids_T]
        trained = [
            token if kept else -100
            for token, kept in zip(row.completion_ids_T, row.mask_T, strict=True)
        ]
        data["input_ids"].append(ids)
        data["labels"].append([-100] * len(row.prompt_ids) + trained)
        data["attention_mask"].append([1] * len(ids))
    trainer = Trainer(
        model=agent.model,
        args=TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=settings.rows_per_step,
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            warmup_steps=2,
            weight_decay=0.0,
            # episodes differ much in length: like with like, or most of a batch is padding
            train_sampling_strategy="group_by_length",
            save_strategy="no",
            report_to=[],
            logging_strategy="no",
            disable_tqdm=True,
            seed=agent.recipe.seed,
            use_cpu=agent.recipe.policy.device == "cpu",
        ),
        train_dataset=Dataset.from_dict(data),
        data_collator=DataCollatorForSeq2Seq(agent.loaded.tokenizer, label_pad_token_id=-100),
        callbacks=[_Progress(on_step)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    publisher = Publisher(agent, folder, trainer.accelerator, trainer.save_model)
    publisher.publish(agent.loaded.step + trainer.state.global_step)


class _Progress(TrainerCallback):  # type: ignore[misc]  # transformers' callback is untyped
    def __init__(self, on_step: Callable[[int, int], None]) -> None:
        self._on_step = on_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._on_step(state.global_step, state.max_steps)
