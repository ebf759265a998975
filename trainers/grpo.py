"""The thin subclass of TRL's GRPOTrainer that takes its batches from rollout groups.

Three private methods are replaced (TRL 1.16; the version range is pinned and a test guards the
contract). `_generate_and_score_completions` returns a batch made of `TrainingRow`s, live or logged
alike, with the behaviour policy's logprobs as `old_per_token_logps`, so that the clipped ratio is
that of the policy that sampled; `_prepare_inputs` splits it into micro-batches of rows of similar
length; `_get_per_token_logps_and_entropies` computes rows that begin alike as one sequence
(`prefix_sharing.py`), and the tokens that are trained alone (`scored_tokens.py`). The loss is TRL's
own, except that the ratio of likelihood rows is held at 1, and that the divergence from
the reference weighs as its row does.

R is rows of a batch, padding rows included; C is tokens of a completion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import add_fused_lm_head, use_adapter

from eapo_agents.policy.protocols import Tokenizer
from trainers.batches import micro_batches, pad_rows, trim, widest_of_all_processes
from trainers.mismatch import Mismatch
from trainers.objective import Objective
from trainers.off_policy import kinds_of, token_factors
from trainers.prefix_sharing import can_share
from trainers.rows import TrainingRow
from trainers.scored_tokens import Figures, figures_of
from trainers.sources import RolloutSource, group_metrics, merge_metrics
from trainers.trl_parts import BetaOfRows, EpochSampler

if TYPE_CHECKING:
    from torch.nn import Module

Tensors = dict[str, torch.Tensor]
ROW_LOSSES = ("grpo", "sapo", "luspo", "dr_grpo")
"""TRL's losses that are means over the rows of a micro-batch."""
TOKEN_LOSSES = ("bnpo",)
"""TRL's losses that are means over the tokens of a micro-batch."""
MOST_NATS = 5.0
"""Limit on the advantage that a teacher gives: one token must not outweigh a whole answer."""


class _Item(TypedDict):
    """A row of the dataset that TRL draws from."""

    prompt: str
    item: int
    """Number of a problem or group in the source."""


class EapoTrainer(GRPOTrainer):  # type: ignore[misc]  # TRL ships no types
    """GRPO/DAPO on rollout groups from a `RolloutSource`."""

    beta: float

    def __init__(
        self,
        *,
        model: Module,
        tokenizer: Tokenizer,
        args: GRPOConfig,
        source: RolloutSource,
        objective: Objective,
        fresh_from: Callable[[], int],
        importance_ratio_cap: float,
        teacher: Module | None = None,
        on_step: Callable[[int, dict[str, float]], None] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        """Take a model (with or without adapter) and TRL's own arguments.

        Args:
            objective: what is learned from the groups.
            fresh_from: returns a number of optimizer steps. Rows that were sampled by weights with
                fewer are weighted by their truncated importance ratio.
            importance_ratio_cap: where that ratio is truncated.
            teacher: judges tokens in place of the policy with a reply in its context.
            on_step: called with each training step's number and metrics.
        """
        self._source = source
        self._objective = objective
        self._fresh_from = fresh_from
        self._first_step = fresh_from()
        self._importance_cap = importance_ratio_cap
        self._teacher = teacher
        self._on_step = on_step
        self._loss_inputs: Tensors | None = None
        self._buffered_inputs: list[Tensors] | None
        self._mismatch = Mismatch()
        self._unreported: tuple[int, dict[str, float]] | None = None
        dataset = Dataset.from_dict(
            {"prompt": [""] * len(source), "item": list(range(len(source)))}
        )
        super().__init__(
            model=model,
            args=args,
            reward_funcs=_rewards_ride_on_the_trajectories,
            train_dataset=dataset,
            processing_class=tokenizer,
            callbacks=list(callbacks),
        )
        if teacher is not None:  # it gives logprobs as TRL has the policy give them
            has_adapter = hasattr(teacher, "peft_config")
            base = teacher.get_base_model() if has_adapter else teacher  # type: ignore[operator]
            fp32 = args.cast_lm_head_to_fp32
            add_fused_lm_head(base, temperature=self.temperature, cast_lm_head_to_fp32=fp32)
        # our loss is normalised by num_items_in_batch already; transformers must not do it again
        self.model_accepts_loss_kwargs = False

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler[int]:
        """Return TRL's sampler, with the order of each epoch a function of the epoch. TRL's own
        continues its generator, so that a run resumed in its second epoch repeats the first."""
        sampler = super()._get_train_sampler(dataset)
        updates = self.args.steps_per_generation // self.args.gradient_accumulation_steps
        per_epoch = max(1, len(sampler.data_source) // sampler.batch_size * updates)
        return EpochSampler(sampler, lambda: self.state.global_step // per_epoch)

    def _prepare_inputs(self, generation_batch: list[_Item]) -> Tensors:
        """Do what TRL does, but split a step's rows as `micro_batches` does."""
        passes = self.args.steps_per_generation
        buffered: list[Tensors] | None = self._buffered_inputs
        if self._step % passes == 0 or buffered is None:
            batch = self._generate_and_score_completions(generation_batch)
            buffered = micro_batches(
                batch,
                updates=passes // self.args.gradient_accumulation_steps,
                passes=self.args.gradient_accumulation_steps,
                widest=widest_of_all_processes,
                shares=can_share(self.accelerator.unwrap_model(self.model).config),
            )
            self._buffered_inputs = buffered
        inputs: Tensors = buffered[self._step % passes]
        return inputs

    def create_model_card(self, *args: object, **kwargs: object) -> None:
        """Write none: TRL's would name no base model. `eapo export` writes ours."""

    def _save(self, output_dir: str | None = None, state_dict: Tensors | None = None) -> None:
        super()._save(output_dir, state_dict)
        # PEFT's empty form
        (Path(output_dir or str(self.args.output_dir)) / "README.md").unlink(missing_ok=True)

    def _generate_and_score_completions(self, inputs: list[_Item]) -> Tensors:
        # TRL repeats each item G times; the source returns whole groups
        items = list(dict.fromkeys(row["item"] for row in inputs))
        # global_step counts optimizer steps, and a training step has several
        updates = self.args.steps_per_generation // self.args.gradient_accumulation_steps
        step = self.state.global_step // updates + 1
        # the problems of other processes, which dynamic sampling must not draw here
        elsewhere = set(gather_object(items)) - set(items)
        groups = self._source.groups(items, step, elsewhere)
        told = group_metrics(groups) | self._objective.left_out(groups)
        metrics = merge_metrics(gather_object([told]))
        self._unreported = (step, metrics)
        self._mismatch = Mismatch(passes_left=self.args.gradient_accumulation_steps)
        return self._batch(
            self._objective.relative_rows(groups), self._objective.likelihood_rows(groups)
        )

    def _batch(self, relative: Sequence[TrainingRow], likelihood: Sequence[TrainingRow]) -> Tensors:
        """Return both kinds of rows as one batch of TRL's."""
        rows = [*relative, *likelihood]
        # All processes have equally many rows: TRL gathers figures of each row, and a process with
        # fewer would wait for ever. Rows that are only padding have masks of 0.
        tensors = pad_rows(
            rows,
            multiple=self.args.steps_per_generation,
            pad_id=self._tokenizer.pad_token_id,
            at_least=max(gather_object([len(rows)])),
        )
        tensors = {name: tensor.to(self.accelerator.device) for name, tensor in tensors.items()}
        row_weights = tensors.pop("weights")[:, None]
        weights = row_weights * tensors["tool_mask"]
        is_likelihood = torch.zeros(len(weights), 1, dtype=torch.bool, device=weights.device)
        is_likelihood[len(relative) : len(rows)] = True
        counted = row_weights if self.loss_type in ROW_LOSSES else weights
        total, share = self._normalisers(counted, is_likelihood)
        advantages = tensors["advantages"] * weights * share

        # Rows of other weights, of another context or of an expert get a factor of the advantage,
        # such as the truncated ratio. Their old logprobs become today's: TRL's clip is then around
        # today's policy, not around one that the row is already far from.
        first = self._fresh_from()
        kinds = kinds_of(relative, likelihood, first)
        is_moved = torch.zeros_like(is_likelihood)
        is_moved[: len(rows), 0] = torch.tensor([kind is not None for kind in kinds]).bool()
        old = tensors["old_per_token_logps"]
        current = self._current_logps(tensors, is_moved[:, 0])
        factors = token_factors(
            kinds, current, old, ratio_cap=self._importance_cap, gamma=self._objective.gamma
        )
        tensors["old_per_token_logps"] = torch.where(is_moved, current, old)
        tensors["advantages"] = advantages * factors * self._teachers_view(tensors, rows)

        # what `_get_per_token_logps_and_entropies` needs to know of each row in the loss
        tensors["is_likelihood"] = is_likelihood
        tensors["is_relative"] = ~is_moved & ~is_likelihood
        # Only rows of today's weights measure the engine. Later passes over a log would measure how
        # far the weights have moved.
        unmoved = first - self._first_step == self.state.global_step
        tensors["is_fresh"] = tensors["is_relative"] & unmoved
        tensors["num_items_in_batch"] = total
        if self.beta:
            tensors["row_weights"] = row_weights * share
            everything = torch.ones(len(weights), dtype=torch.bool, device=weights.device)
            with self._reference() as model:
                reference = self._current_logps(tensors, everything, model)
            tensors["ref_per_token_logps"] = reference
        return tensors

    def _normalisers(
        self, counted: torch.Tensor, is_likelihood: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return TRL's one normaliser of the loss, and factors (R, 1) that correct for it.

        Each term is to be a mean over its own tokens (or rows), of all processes: the policy
        gradient's, and beside it the likelihood's. TRL divides both by one number. So that number
        is the policy gradient's, and likelihood rows are scaled by the quotient of the two.

        Args:
            counted: the weight of each token (R, C), or of each row (R, 1).
        """
        is_one = is_likelihood.float()
        sums = torch.stack([(counted * (1 - is_one)).sum(), (counted * is_one).sum()])
        count = self.accelerator.gather(sums[None]).sum(0)
        # without a policy gradient (distillation), the likelihood's own number is left
        total = count[0] if count[0] > 0 else count[1]
        return total, torch.where(is_likelihood, total / count[1].clamp(min=1e-9), 1.0)

    def _teachers_view(self, tensors: Tensors, rows: Sequence[TrainingRow]) -> torch.Tensor:
        """Return by how many nats the teacher finds each sampled token likelier than the student
        does (R, C), limited to `MOST_NATS`; 1 in rows without a teacher. As an advantage on the
        student's own samples it lowers the divergence from student to teacher."""
        view = torch.ones_like(tensors["old_per_token_logps"])
        # all processes or none: the forward passes below wait for each other
        if not any(gather_object([any(row.teacher_ids is not None for row in rows)])):
            return view
        wanted = torch.zeros(len(view), dtype=torch.bool, device=view.device)
        wanted[: len(rows)] = torch.tensor([row.teacher_ids is not None for row in rows])
        seen = [replace(row, prompt_ids=row.teacher_ids or row.prompt_ids) for row in rows]
        pad_id = self._tokenizer.pad_token_id
        taught = pad_rows(seen, multiple=1, pad_id=pad_id, at_least=len(view))
        taught = {name: tensor.to(view.device) for name, tensor in taught.items()}
        theirs = self._current_logps(taught, wanted, self._teacher)
        gap = theirs - self._current_logps(tensors, wanted)
        return torch.where(wanted[:, None], gap.clamp(-MOST_NATS, MOST_NATS), view)

    @contextmanager
    def _reference(self) -> Iterator[Module]:
        """Give the model that the divergence is measured from: TRL's copy of an adapter that was
        trained before, else the base model."""
        model = self.accelerator.unwrap_model(self.model)
        with use_adapter(model, adapter_name="ref" if "ref" in model.peft_config else None):
            yield self.model

    def _current_logps(
        self, tensors: Tensors, wanted_R: torch.Tensor, model: Module | None = None
    ) -> torch.Tensor:
        """Return logprobs (R, C) of the wanted rows under today's weights, or another model's; 0 in
        the others."""
        logps = torch.zeros_like(tensors["old_per_token_logps"])
        rows = wanted_R.nonzero()[:, 0]
        # a sharded model needs as many forward passes on every rank: one with fewer repeats rows
        most = int(self.accelerator.gather(torch.tensor([len(rows)], device=rows.device)).max())
        if not most:
            return logps
        asked = torch.cat([rows, rows.new_zeros(most - len(rows))])
        some = trim({name: tensor[asked] for name, tensor in tensors.items() if tensor.dim()})
        width = some["completion_ids"].shape[1]
        with torch.no_grad():
            found, _, _ = self._get_per_token_logps_and_entropies(
                self.model if model is None else model,
                torch.cat([some["prompt_ids"], some["completion_ids"]], dim=1),
                torch.cat([some["prompt_mask"], some["completion_mask"]], dim=1),
                width,
                scored=some["completion_mask"] * some["tool_mask"],
                batch_size=max(1, len(tensors["prompt_ids"]) // self.args.steps_per_generation),
            )
        logps[rows, :width] = found[: len(rows)]
        return logps

    def _compute_loss(self, model: Module, inputs: Tensors) -> torch.Tensor:
        self._loss_inputs = trim(inputs)
        if self.beta:
            self.beta = BetaOfRows(self.beta, inputs["row_weights"])
        try:
            loss: torch.Tensor = super()._compute_loss(model, self._loss_inputs)
            loss = loss * self._share_of_step(self._loss_inputs)
        finally:
            self._loss_inputs = None
            self.beta = float(self.beta)
        self._mismatch.passes_left -= 1
        if self._mismatch.passes_left == 0:
            self._report_step()
        return loss

    def _share_of_step(self, inputs: Tensors) -> torch.Tensor | float:
        """Return the factor of TRL's mean over a micro-batch. Micro-batches differ in size and have
        rows of padding, so that the mean of their means is not the mean of the optimizer step."""
        if self.loss_type in ROW_LOSSES:
            here: torch.Tensor | float = float(len(inputs["prompt_ids"]))
        elif self.loss_type in TOKEN_LOSSES:
            here = (inputs["completion_mask"] * inputs["tool_mask"]).sum()
        else:
            return 1.0
        # of the whole batch, as in the losses that TRL normalises in this way itself
        num_shares = self.args.steps_per_generation * self.accelerator.num_processes
        scale: torch.Tensor = here * num_shares / inputs["num_items_in_batch"].clamp(min=1e-9)
        return scale

    def _get_per_token_logps_and_entropies(
        self,
        model: Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        scored: torch.Tensor | None = None,
        **options: object,
    ) -> Figures:
        """Do what TRL does for the tokens that are scored (those of the loss, if `scored` (R, C) is
        None), with what rows share computed once. In the loss, also set the old logprobs of
        likelihood rows to today's: their ratio is then 1 in each update, and their gradient that of
        the likelihood. Before the first update, what the other rows differ by is the engine's
        doing, and is counted.
        """
        inputs = self._loss_inputs
        if scored is None:
            assert inputs is not None
            scored = inputs["completion_mask"] * inputs["tool_mask"]
        found: Figures
        if any(value for name, value in options.items() if name != "compute_entropy"):
            found = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, **options
            )
        else:
            found = figures_of(
                model,
                self.accelerator,
                (input_ids, attention_mask, scored.bool()),
                rows_at_once=batch_size or len(input_ids),
                entropy=bool(options.get("compute_entropy")),
            )
        if inputs is not None:
            present, old = found[0].detach(), inputs["old_per_token_logps"]
            if self._mismatch.passes_left > 0:
                fresh = inputs["tool_mask"] * inputs["is_fresh"]
                sampled = inputs["tool_mask"] * inputs["is_relative"]
                self._mismatch.add(present - old, fresh)
                assert found[1] is not None  # the loss asks for it
                self._mismatch.add_entropy(found[1].detach(), sampled)
            inputs["old_per_token_logps"] = torch.where(inputs["is_likelihood"], present, old)
        return found

    def _report_step(self) -> None:
        """Log a step's rollouts, with the mismatch between the engine that sampled them and the
        trainer's logprobs, after the first update has computed those."""
        if self._unreported is None:
            return
        step, metrics = self._unreported
        self._unreported = None
        total, count, largest, entropy, num_entropy = self.accelerator.gather(
            self._mismatch.figures(self.accelerator.device)[None]
        ).T
        if count.sum() > 0:
            metrics["train_inference_mismatch"] = float(total.sum() / count.sum())
            metrics["train_inference_mismatch_max"] = float(largest.max())
        if num_entropy.sum() > 0:
            metrics["entropy"] = float(entropy.sum() / num_entropy.sum())
        for name, value in metrics.items():
            self._metrics["train"][f"eapo/{name}"].append(float(value))
        if self._on_step and self.accelerator.is_main_process:
            self._on_step(step, metrics)


def _rewards_ride_on_the_trajectories(**kwargs: object) -> list[float]:
    raise AssertionError("TRL asked for rewards, but trajectories carry their own.")
