"""Warm start: scripted episodes teach the tool-call format, by plain likelihood."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers import (
    DataCollatorForSeq2Seq,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from eapo_agents.types import Trajectory
from graphs.agent import Agent
from trainers.prefix_sharing import Row, pack_rows
from trainers.rows import trajectory_rows
from trainers.weight_sync import Publisher

if TYPE_CHECKING:
    from transformers import PretrainedConfig


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
            warmup_steps=settings.warmup_steps,
            lr_scheduler_type=settings.lr_scheduler_type,
            weight_decay=0.0,
            train_sampling_strategy="group_by_length" if settings.like_lengths else "random",
            save_strategy="no",
            report_to=[],
            logging_strategy="no",
            disable_tqdm=True,
            seed=agent.recipe.seed,
            use_cpu=agent.recipe.policy.device == "cpu",
        ),
        train_dataset=Dataset.from_dict(data),
        data_collator=SharingCollator(
            DataCollatorForSeq2Seq(agent.loaded.tokenizer, label_pad_token_id=-100),
            agent.model.config,
        ),
        callbacks=[_Progress(on_step)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    publisher = Publisher(agent, folder, trainer.accelerator, trainer.save_model)
    publisher.publish(agent.loaded.step + trainer.state.global_step)


@dataclass(frozen=True, slots=True)
class SharingCollator:
    """Makes a batch in which what rows begin with alike is computed once (`prefix_sharing`)."""

    padded: DataCollatorForSeq2Seq
    """Makes the others."""
    config: PretrainedConfig

    def __call__(self, features: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        """Return what the model is given: `labels` are what is trained, as the trainer counts it,
        and `shift_labels` where they stand, of the places `logits_to_keep`."""
        rows = []
        for number, row in enumerate(features):
            first = next((n for n, label in enumerate(row["labels"]) if label != -100), 0)
            ids, labels = row["input_ids"], row["labels"]
            trained = [label != -100 for label in labels[first:]]
            rows.append(Row(ids[:first], ids[first:], number, trained))
        longest = max(len(row["input_ids"]) for row in features)
        packed = pack_rows(rows, self.config, padded=(len(rows), longest))
        if packed is None:
            padded: dict[str, torch.Tensor] = self.padded(features)
            return padded
        inputs = packed.model_inputs()
        # a vocabulary's logits only where something is trained, in any of the sequences
        kept = (inputs["shift_labels"] != -100).any(0).nonzero()[:, 0]
        labels_kept = inputs["shift_labels"][:, kept]
        return inputs | {
            "shift_labels": labels_kept,
            "labels": labels_kept,
            "logits_to_keep": kept,
        }


class _Progress(TrainerCallback):  # type: ignore[misc]  # transformers' callback is untyped
    def __init__(self, on_step: Callable[[int, int], None]) -> None:
        self._on_step = on_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._on_step(state.global_step, state.max_steps)
