"""The first prompt that a user's graph shows the policy, found by running it that far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from eapo_agents.errors import UsageError
from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.policy.engine import Cohort, Completion, NoCohort, RolloutKey
from eapo_agents.policy.recording import recording
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.types import PolicyVersion, Sampling
from graphs.fill import run_to_end
from graphs.running import invoke
from graphs.state import AnyGraph, RolloutContext

_NOBODY = PolicyVersion(model="", base="", weights="", step=0)


class _Shown(BaseException):
    """The prompt is known. No node catches this, as it may catch an error."""


class _Looking:
    """An engine that keeps the first prompt, and samples nothing."""

    policy_version = _NOBODY

    def __init__(self) -> None:
        self.first: list[int] | None = None

    async def generate(
        self,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        key: RolloutKey,
        *,
        on_token: Callable[[int], None] | None = None,
    ) -> Completion:
        self.first = self.first or list(prompt_ids)
        raise _Shown

    @contextmanager
    def cohort(self, num_rollouts: int) -> Iterator[Cohort]:
        yield NoCohort()


def prompt_of(
    build: Callable[[PolicyChatModel], AnyGraph], renderer: ChatRenderer, given: Any
) -> list[int]:
    """Return the token ids of the first prompt that a graph shows for an input.

    Raises:
        UsageError: the graph does not get as far as that.
    """
    engine = _Looking()
    graph = build(PolicyChatModel(engine=engine, renderer=renderer, sampling=Sampling()))

    async def look() -> None:
        key = RolloutKey(seed=0, problem_id="", step=0, rollout=0, turn=0)
        try:
            with recording(key):
                await invoke(graph, given, RolloutContext())
        except _Shown:
            return
        except Exception as error:
            if engine.first is None:
                raise UsageError(
                    f"The graph '{graph.name}' fails before it calls the policy, so that its "
                    f"prompt is not known: {type(error).__name__}: {error}"
                ) from error

    run_to_end(look())
    if engine.first is None:
        raise UsageError(f"The graph '{graph.name}' never calls the policy.")
    return engine.first
