"""The embedded engine: a transformers model in this process, on a CPU or one GPU.

The model object is the trainer's own, so no weights are copied: after an optimizer step the trainer
calls `weights_changed`.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from eapo_agents.errors import EngineError
from eapo_agents.policy.batching import Batcher, Request
from eapo_agents.policy.engine import Cohort, Completion, EngineLoad, RolloutKey
from eapo_agents.policy.fingerprint import base_fingerprint, policy_fingerprint
from eapo_agents.policy.kv_cache import BatchCache, CachedRow, RowStore
from eapo_agents.policy.packed_weights import PackedWeights
from eapo_agents.policy.protocols import CausalModel
from eapo_agents.policy.sampling import BatchSampler
from eapo_agents.types import PolicyVersion, Sampling

MIN_SHARED_PREFIX = 16
"""Shorter common prefixes of a batch are not worth a separate forward pass."""
PREFILL_TOKENS = {"cpu": 1024}
"""Tokens of prompts, padding among them, that one forward pass takes, by the kind of device. On a
CPU more of them give layers' results of a hundred megabytes, whose memory the system hands out
and takes back each time (a third of the time of 8,000 tokens)."""
_PREFILL_TOKENS = 16_384
"""On any other device: there, small passes leave it idle."""


class _Row:
    """A request of the running batch with its tokens so far."""

    def __init__(self, request: Request, max_length: int) -> None:
        self.request = request
        self.limit = min(request.sampling.max_new_tokens, max_length - len(request.prompt_ids))
        self.tokens: list[int] = []
        self.logprobs: list[float] = []


class TransformersEngine:
    """Samples from a transformers causal language model, many requests at a time."""

    def __init__(
        self,
        model: CausalModel,
        *,
        name: str,
        stop_ids: Sequence[int],
        max_batch_size: int = 64,
        gather_timeout_s: float = 30.0,
        cached_tokens: int = 16_384,
        step: int = 0,
        base: str | None = None,
    ) -> None:
        """Take a model (plain or with a PEFT adapter) whose weights others may train.

        Args:
            name: `PolicyVersion.model` of the completions.
            stop_ids: tokens that end a turn.
            cached_tokens: how many tokens' keys and values are kept between the turns of rollouts.
            step: optimizer steps behind the weights.
            base: fingerprint of the base weights, if the caller knows it.
        """
        self.model = model
        self._packed = PackedWeights()
        self._name = name
        self._stop_ids = frozenset(stop_ids)
        self._rows = RowStore(cached_tokens)
        self._base = base or base_fingerprint(model)
        self._max_length = int(model.config.max_position_embeddings)
        self.max_batch_size: int | None = max_batch_size
        self._batcher = Batcher(
            self._run_batch, max_batch_size=max_batch_size, gather_timeout_s=gather_timeout_s
        )
        self.weights_changed(step)

    @property
    def policy_version(self) -> PolicyVersion:
        return self._version

    def weights_changed(self, step: int) -> None:
        """Note a change of the model's weights; to be called after every one."""
        self._rows.clear()  # computed with the old weights
        self._packed.clear()
        self._version = PolicyVersion(
            model=self._name,
            base=self._base,
            weights=policy_fingerprint(self.model, self._base),
            step=step,
        )

    async def generate(
        self,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        key: RolloutKey,
        *,
        on_token: Callable[[int], None] | None = None,
    ) -> Completion:
        """See `Engine.generate`. A prompt that leaves no room for an answer gives an empty
        completion."""
        return await self._batcher.submit(
            Request(prompt_ids=tuple(prompt_ids), sampling=sampling, key=key, on_token=on_token)
        )

    async def load(self) -> EngineLoad | None:
        """Return None: a batch is as large as it is."""
        return None

    @contextmanager
    def cohort(self, num_rollouts: int) -> Iterator[Cohort]:
        with self._batcher.cohort(num_rollouts) as cohort:
            yield cohort
        if not self._batcher.num_live:
            self._rows.clear()
            _return_freed_memory()

    def _run_batch(self, requests: Sequence[Request]) -> list[Completion]:
        """Sample a batch; a prompt that fills the model's length gets an empty completion."""
        fitting = [r for r in requests if len(r.prompt_ids) < self._max_length]
        was_training = self.model.training
        self.model.eval()
        try:
            with self._packed.applied(self.model), torch.inference_mode():
                sampled = dict(zip(map(id, fitting), self._sample(fitting), strict=True))
        finally:
            self.model.train(was_training)
        nothing = Completion(
            completion_ids=(), logprobs=(), finish_reason="length", policy=self._version
        )
        return [sampled.get(id(request), nothing) for request in requests]

    def _sample(self, requests: Sequence[Request]) -> list[Completion]:
        if not requests:
            return []
        batch, logits = self._prefill(requests)
        sampler = BatchSampler(requests, logits.device)
        rows = [_Row(request, self._max_length) for request in requests]
        active = rows
        for step in range(max(row.limit for row in rows)):
            if self._batcher.stopping:
                raise EngineError("The program is ending, so this batch was given up.")
            tokens, logprobs = sampler.sample(logits, step)
            going = self._append(active, tokens.tolist(), logprobs.tolist(), batch)
            if not going:
                break
            if len(going) < len(active):
                # finished rows leave at once, so that the last long answers run as a small batch;
                # cache, sampler and tokens all take the same new order
                order = batch.shrink(going)
                active = [active[position] for position in order]
                sampler.keep(order)
                tokens = tokens[torch.tensor(order, device=tokens.device)]
            batch.extend_mask(batch.mask.new_ones(len(active), 1))
            logits = self._forward(batch, tokens[:, None])
        return [
            Completion(
                completion_ids=tuple(row.tokens),
                logprobs=tuple(row.logprobs),
                finish_reason="stop" if row.tokens[-1] in self._stop_ids else "length",
                policy=self._version,
            )
            for row in rows
        ]

    def _append(
        self,
        active: Sequence[_Row],
        tokens: Sequence[int],
        logprobs: Sequence[float],
        batch: BatchCache,
    ) -> list[int]:
        """Append a token to each row and return the positions of rows that are not finished."""
        going = []
        for position, row in enumerate(active):
            token = tokens[position]
            row.tokens.append(token)
            row.logprobs.append(logprobs[position])
            if row.request.abandoned.is_set():
                continue
            if row.request.on_token is not None:
                row.request.on_token(token)
            if token in self._stop_ids or len(row.tokens) == row.limit:
                self._remember(row, batch, position)
            else:
                going.append(position)
        return going

    def _prefill(self, requests: Sequence[Request]) -> tuple[BatchCache, torch.Tensor]:
        """Feed the prompts and return the batch with the logits behind each.

        Equal prompts (the rollouts of a group in their first turn) are fed once and copied, a
        common prefix (the system prompt) is fed once, and tokens of earlier turns are not fed
        again: their rows come out of the store. Many tokens are fed in several passes.
        """
        prompts: list[tuple[int, ...]] = []
        rows: list[CachedRow | None] = []
        slot_of: dict[tuple[int, ...], int] = {}
        slots = []
        for request in requests:
            slot = slot_of.setdefault(request.prompt_ids, len(prompts))
            # taken out in any case: a rollout that rewrote its history never uses the row again
            row = self._rows.take(_rollout(request))
            usable = row and request.prompt_ids[: len(row.tokens)] == row.tokens
            if slot == len(prompts):
                prompts.append(request.prompt_ids)
                rows.append(row if usable else None)
            slots.append(slot)
        self._share_prefix(prompts, rows)
        new_tokens = [
            prompt[len(row.tokens) if row else 0 :]
            for prompt, row in zip(prompts, rows, strict=True)
        ]
        room = min(256, max(r.sampling.max_new_tokens for r in requests))
        passes = self._passes([len(tokens) for tokens in new_tokens])
        if len(passes) == 1:
            batch = BatchCache(rows, self.model, room=0)
            logits = self._feed(batch, new_tokens)
            batch.select(slots, room)
        else:
            behind: dict[int, torch.Tensor] = {}
            for part in passes:
                batch = BatchCache([rows[index] for index in part], self.model, room=0)
                behind |= zip(part, self._feed(batch, [new_tokens[i] for i in part]), strict=True)
                for place, index in enumerate(part):
                    rows[index] = batch.row(place, prompts[index])
            logits = torch.stack([behind[index] for index in range(len(prompts))])
            batch = BatchCache([rows[slot] for slot in slots], self.model, room)
        return batch, logits[torch.tensor(slots, device=logits.device)]

    def _passes(self, lengths: Sequence[int]) -> list[list[int]]:
        """Divide prompts into forward passes: those of like length together, so that padding is
        little, and no more tokens than `PREFILL_TOKENS`."""
        most = PREFILL_TOKENS.get(self.model.device.type, _PREFILL_TOKENS)
        if len(lengths) * max(lengths) <= most:
            return [list(range(len(lengths)))]
        passes: list[list[int]] = []
        for index in sorted(range(len(lengths)), key=lengths.__getitem__):
            # sorted, so this prompt is the longest of its pass so far
            if not passes or (len(passes[-1]) + 1) * lengths[index] > most:
                passes.append([])
            passes[-1].append(index)
        return passes

    def _share_prefix(
        self, prompts: Sequence[tuple[int, ...]], rows: list[CachedRow | None]
    ) -> None:
        """Feed the common prefix of the prompts without a row, and make it the row of each."""
        fresh = [index for index, row in enumerate(rows) if row is None]
        if len(fresh) < 2:
            return
        prefix = _common_prefix([prompts[index] for index in fresh])
        # at least one token of each prompt is left to feed, since its logits are needed
        prefix = prefix[: min(len(prompts[index]) for index in fresh) - 1]
        if len(prefix) < MIN_SHARED_PREFIX:
            return
        batch = BatchCache([None], self.model, room=0)
        self._feed(batch, [prefix])
        shared = batch.row(0, tuple(prefix))
        for index in fresh:
            rows[index] = shared

    def _feed(self, batch: BatchCache, new_tokens_B: Sequence[Sequence[int]]) -> torch.Tensor:
        """Feed tokens of different lengths, left-padded; return the logits behind the last, shape
        (B, V)."""
        width = max(map(len, new_tokens_B))
        input_ids = torch.zeros(len(new_tokens_B), width, dtype=torch.long)
        mask = torch.zeros_like(input_ids)
        for index, tokens in enumerate(new_tokens_B):
            input_ids[index, width - len(tokens) :] = torch.tensor(tokens)
            mask[index, width - len(tokens) :] = 1
        batch.extend_mask(mask.to(batch.mask.device))
        return self._forward(batch, input_ids.to(batch.mask.device))

    def _forward(self, batch: BatchCache, input_ids: torch.Tensor) -> torch.Tensor:
        # a token's position counts the real tokens of its row; the padding at its left has none
        positions = (batch.mask.cumsum(1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        output = self.model(
            input_ids=input_ids,
            attention_mask=batch.mask,
            position_ids=positions,
            past_key_values=batch.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def _remember(self, row: _Row, batch: BatchCache, position: int) -> None:
        """Keep the sequence for the rollout's next turn, without the last token, which was not
        fed."""
        held = row.request.prompt_ids + tuple(row.tokens[:-1])
        self._rows.put(_rollout(row.request), batch.row(position, held))


def _rollout(request: Request) -> tuple[int, str, int, int]:
    """Return what all turns of a rollout share."""
    key = request.key
    return (key.seed, key.problem_id, key.step, key.rollout)


def _return_freed_memory() -> None:
    """Give freed memory back to the system. Rollouts free gigabytes in small blocks on the engine's
    thread; glibc would keep them there, and a small machine would run out in the trainer's."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _common_prefix(prompts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    first, last = min(prompts), max(prompts)  # sorted, so what these two share, all between them do
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), None)
    return first[: len(first) if same is None else same]
