"""The engine for training at scale: vLLM servers over HTTP, token ids in and out.

Requests are `/v1/completions` with the prompt as token ids. The sampled ids come back with their
logprobs under the sampling distribution, and nothing is tokenised twice. New weights reach the
servers as LoRA adapters, or as whole models, under a name that holds their fingerprint. So the
weights that a request names are the weights that sample it, whichever server takes it and whatever
is published meanwhile.

Requests carry no seed. Kernels depend on what else is in the batch, so a seed would not make
rollouts repeatable. It would also cost fast sampling on GPUs, and it ends vLLM 0.32 on a CPU, where
a seeded prompt that is read in several pieces raises in the engine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from eapo_agents.errors import EngineError, ServerError
from eapo_agents.policy.engine import Cohort, Completion, EngineLoad, NoCohort, RolloutKey
from eapo_agents.policy.server_load import load_of
from eapo_agents.policy.servers import Answer, Server, ServerPool
from eapo_agents.policy.vllm_api import (
    check_answers,
    load_adapter,
    sampled,
    served_models,
    serves,
    unload_adapter,
)
from eapo_agents.types import PolicyVersion, Sampling

KEPT_VERSIONS = 2
"""Adapters that stay loaded: the present one, and the one before it, which rollouts under way may
still use."""


def served_name(version: PolicyVersion) -> str:
    """Return a version's name on the servers: the base model's, with the fingerprint of the weights
    if they are other ones."""
    if version.weights == version.base:
        return version.model
    return f"{version.model}@{version.weights}"


class VllmEngine:
    """Samples from vLLM servers that all have the same base model."""

    def __init__(
        self,
        pool: ServerPool,
        *,
        version: PolicyVersion,
        adapter: Path | None,
        stop_ids: Sequence[int],
        allow_midrollout_updates: bool = False,
    ) -> None:
        """Take servers without asking them anything: see `connect`.

        Args:
            version: the weights to sample from.
            adapter: their folder, if they are an adapter on the base model. The servers must see it
                under the same path.
            stop_ids: tokens that end a turn.
            allow_midrollout_updates: whether a rollout continues with new weights. Otherwise it
                keeps the weights of its first turn.
        """
        self._pool = pool
        pool.on_return = self._prepare
        self._base_name = version.model
        self._version = version
        self._stop_ids = frozenset(stop_ids)
        self._mixed_versions = allow_midrollout_updates
        self._adapters: dict[str, Path] = {served_name(version): adapter} if adapter else {}
        self._pins: dict[tuple[int, str, int, int], PolicyVersion] = {}
        self._trl_names: dict[str, str] = {}
        self._live = 0

    @property
    def policy_version(self) -> PolicyVersion:
        return self._version

    def connect(self, sampling: Sampling) -> None:
        """Check every server: model, token ids, room for a completion, logprobs of the distribution
        that is sampled. Servers that do not answer count as down if others do answer.

        Raises:
            ServerError: no server answers, or one cannot be used.
        """
        silent: ServerError | None = None
        for server in self._pool.servers:
            try:
                self._pool.ask(server, "/health")
            except ServerError as error:
                server.down, silent = "it does not answer", error
                continue
            self._prepare(server)
            check_answers(
                self._pool, server, served_name(self._version), min(self._stop_ids), sampling
            )
        if silent and not self._pool.up:
            raise silent

    async def generate(
        self,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        key: RolloutKey,
        *,
        on_token: Callable[[int], None] | None = None,
    ) -> Completion:
        """See `Engine.generate`. A later turn that leaves no room for an answer gives an empty
        completion.

        Raises:
            EngineError: the first prompt of a run does not fit, or the servers refuse the request.
            EngineLostError: no server has been up for too long.
        """
        version = self._version_for(key)
        room = self._room(len(prompt_ids), key)
        if room <= 0:
            return Completion(
                completion_ids=(), logprobs=(), finish_reason="length", policy=version
            )
        name = self._name(version)
        ids: list[int] = []
        logprobs: list[float] = []

        def reload(server: Server) -> None:
            self._load(server, name)

        def take(piece: Answer) -> None:
            new_ids, new_logprobs = sampled(piece)
            ids.extend(new_ids)
            logprobs.extend(new_logprobs)
            if on_token is not None:
                for token in new_ids:
                    on_token(token)

        body = self._request(name, prompt_ids, sampling, room)
        group = (key.problem_id, key.step)
        if on_token is None:
            take(await self._pool.complete(body, group=group, reload=reload))
        else:
            await self._pool.stream(body, take, group=group, reload=reload)
        if not ids:
            raise EngineError("The policy server sampled nothing: look at its log.")
        return Completion(
            completion_ids=tuple(ids),
            logprobs=tuple(logprobs),
            finish_reason="stop" if ids[-1] in self._stop_ids else "length",
            policy=version,
        )

    def _request(
        self, name: str, prompt_ids: Sequence[int], sampling: Sampling, room: int
    ) -> dict[str, object]:
        """Return the body of a request for one completion."""
        return {
            "model": name,
            "prompt": list(prompt_ids),
            "max_tokens": min(sampling.max_new_tokens, room),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            # without a value vLLM takes the one of the model folder's generation_config.json, which
            # must not decide how a policy samples
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            # a turn ends at the stop tokens and nowhere else
            "ignore_eos": True,
            "stop_token_ids": sorted(self._stop_ids),
            "logprobs": 0,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }

    @property
    def max_batch_size(self) -> int | None:
        """None: servers make their batches themselves, as their cache allows."""
        return None

    async def load(self) -> EngineLoad | None:
        """Return how busy the servers are by their own metrics, None where none tells it."""
        return await asyncio.to_thread(load_of, self._pool)

    @contextmanager
    def cohort(self, num_rollouts: int) -> Iterator[Cohort]:
        """Keep the weights of rollouts until no cohort is left; the servers make the batches."""
        self._live += 1
        try:
            yield NoCohort()
        finally:
            self._live -= 1
            if not self._live:
                self._pins.clear()

    def publish(self, version: PolicyVersion, adapter: Path) -> float:
        """Load an adapter onto every server that is up, sample from it from now on, and unload the
        oldest one. Return the seconds that this took.

        Raises:
            ServerError: a server refuses the adapter, and says why.
        """
        started = time.perf_counter()
        self._adapters[served_name(version)] = adapter
        try:
            for server in self._pool.up:
                self._load(server, served_name(version))
        except ServerError:
            del self._adapters[served_name(version)]
            raise
        self._version = version
        for name in list(self._adapters)[:-KEPT_VERSIONS]:
            del self._adapters[name]
            for server in self._pool.up:
                unload_adapter(self._pool, server, name)
        return time.perf_counter() - started

    def switch(self, version: PolicyVersion, timeout_s: float) -> float:
        """Wait until every server serves these weights under their name, as after a restart with
        a whole new model, and sample from them. Return the seconds that this took.

        Raises:
            ServerError: a server still does not serve them after `timeout_s`.
        """
        started = time.perf_counter()
        name = served_name(version)
        while waiting := [s for s in self._pool.servers if not serves(self._pool, s, name)]:
            if time.perf_counter() - started > timeout_s:
                raise ServerError(
                    f"The server {waiting[0].url} does not serve '{name}' after {timeout_s:g} s: "
                    "start it with `eapo serve --follow`, which restarts it with new weights."
                )
            time.sleep(0.5)
        for server in self._pool.servers:
            server.down = None
        self._version = version
        return time.perf_counter() - started

    def use(self, version: PolicyVersion, adapter: Path | None) -> None:
        """Sample from weights that another process has published."""
        if adapter is not None:
            self._adapters[served_name(version)] = adapter
        self._version = version

    def follow_trl(self, step: int, adapter: str | None = None) -> None:
        """Sample from the weights that TRL's asynchronous trainer has put on the servers as version
        `step`. They have the base model's name if TRL sends weights by NCCL, and are called
        `adapter-vSTEP` if it publishes adapters (TRL calls the adapter `trl-policy`)."""
        version = replace(self._version, weights=f"trl-{step}", step=step)
        self._trl_names[version.weights] = f"{adapter}-v{step}" if adapter else self._base_name
        self._version = version

    def _name(self, version: PolicyVersion) -> str:
        return self._trl_names.get(version.weights) or served_name(version)

    def _version_for(self, key: RolloutKey) -> PolicyVersion:
        """Return the weights for a request: those of the rollout's first turn, unless they may
        change mid-rollout or the request belongs to no rollout."""
        if self._mixed_versions or not key.problem_id or not self._live:
            return self._version
        rollout = (key.seed, key.problem_id, key.step, key.rollout)
        return self._pins.setdefault(rollout, self._version)

    def _room(self, num_prompt: int, key: RolloutKey) -> int:
        """Return how many tokens fit behind the prompt on every server."""
        lengths = [server.max_length for server in self._pool.servers if server.max_length]
        if not lengths:
            return num_prompt + 1  # unknown: the server refuses what does not fit
        room = min(lengths) - num_prompt
        if room <= 0 and key.turn == 0:
            raise EngineError(
                f"The prompt has {num_prompt} tokens and the servers take {min(lengths)} with the "
                "answer: shorten it, or serve with a larger --max-model-len."
            )
        return room

    def _prepare(self, server: Server) -> None:
        """Make sure that a server has the weights that are sampled."""
        server.loaded.clear()
        served = served_models(self._pool, server)
        name = self._name(self._version)
        if self._base_name not in served and name not in served:
            raise ServerError(
                f"The server {server.url} serves {', '.join(sorted(served)) or 'nothing'}, and not "
                f"'{self._base_name}': start it with `eapo serve --recipe` of this recipe, or name "
                "its model in policy.model."
            )
        lengths = [int(length) for m in served.values() if (length := m.get("max_model_len"))]
        server.max_length = min(lengths) if lengths else 0
        for adapter in self._adapters:
            self._load(server, adapter)
        if name not in self._adapters and name not in served:
            raise ServerError(
                f"The server {server.url} serves '{self._base_name}', but not its weights "
                f"{self._version.weights}, which are a whole model: start it with `eapo serve "
                "--policy` of that model."
            )

    def _load(self, server: Server, name: str) -> None:
        load_adapter(self._pool, server, name, self._adapters.get(name))
