"""A policy that follows a script, for warm starts, demonstrations and tests. Nothing is sampled, so
its turns carry no logprobs and reinforcement learning refuses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from eapo_agents.policy.engine import Cohort, Completion, NoCohort, RolloutKey
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.types import PolicyVersion, Sampling

Script = Callable[[RolloutKey, str], str]
"""(which completion, the prompt as text) -> the text to write, without its end of turn."""


class ScriptedEngine:
    """Writes the script's text in the tokens of a real tokenizer."""

    def __init__(self, renderer: ChatRenderer, script: Script) -> None:
        self._renderer = renderer
        self._script = script

    @property
    def policy_version(self) -> PolicyVersion:
        return PolicyVersion(model="scripted", base="scripted", weights="scripted", step=0)

    async def generate(
        self,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        key: RolloutKey,
        *,
        on_token: Callable[[int], None] | None = None,
    ) -> Completion:
        text = self._script(key, self._renderer.tokenizer.decode(list(prompt_ids)))
        in_thought = self._renderer.in_thought(prompt_ids)
        ids = tuple(self._renderer.encode_turn(text, in_thought=in_thought))
        whole = len(ids) <= sampling.max_new_tokens
        if on_token is not None:
            for token in ids[: sampling.max_new_tokens]:
                on_token(token)
        return Completion(
            completion_ids=ids[: sampling.max_new_tokens],
            logprobs=None,
            finish_reason="stop" if whole else "length",
            policy=self.policy_version,
        )

    @contextmanager
    def cohort(self, num_rollouts: int) -> Iterator[Cohort]:
        yield NoCohort()
