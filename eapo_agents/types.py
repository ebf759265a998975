"""The nouns: plain data on the standard library, shared by graphs, trainers and evals.

A trajectory of two turns with two consultations, as it is stored (token ids shortened):

    Turn 0  context_ids    = [1, 9690, ..., 520, 198]      system, experts, question, turn start
            completion_ids = [44, 42, ..., 2]              two tool calls, end of turn
    Turn 1  context_ids    = [198, 1, 8, ..., 520, 198]    the two replies, turn start
            completion_ids = [20, 1672, ..., 2]            the answer, end of turn

The prompt of turn 1 is `context_0 completion_0 context_1`: each token is stored once, and nothing
is ever rendered or tokenised a second time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, TypeVar

Number = TypeVar("Number", int, float)
FORMAT_VERSION = 2
"""Version of the record below. A reader refuses another one."""


class Role(StrEnum):
    """What a trajectory is for in training."""

    CONSULT = "consult"
    """Our consult graph, with its experts."""
    SOLO = "solo"
    """Tool-free: the solo graph, or another graph without its experts."""
    EXPERT = "expert"
    """An expert's own solution, logged by distillation: the policy sampled none of it."""
    OWN = "own"
    """A user's graph, or one of the baseline graphs (workflow, leap)."""


class StopReason(StrEnum):
    """Why a trajectory ended."""

    ANSWERED = "answered"
    """The policy ended a turn without asking anybody."""
    TURN_BUDGET = "turn_budget"
    """The policy was still asking in its last turn; those queries were not sent."""
    LENGTH = "length"
    """A completion reached `max_new_tokens` without an end of turn."""
    EMPTY = "empty"
    """The policy ended its turn without writing anything."""
    ERROR = "error"
    """The rollout failed; `Trajectory.error` says how. It is never scored."""


class ConsultationStatus(StrEnum):
    """What became of one query."""

    ACCEPTED = "accepted"
    """The expert answered and the policy saw the reply."""
    WITHHELD = "withheld"
    """The expert was not called: the coin fell against it before the call, or a person refused it
    (`Consultation.error` says so then)."""
    FAILED = "failed"
    """The expert raised; the policy saw a notice."""
    TIMEOUT = "timeout"
    """The expert did not answer in time; the policy saw a notice."""
    INVALID = "invalid"
    """The call could not be sent: broken JSON, unknown expert, wrong arguments."""
    OVER_LIMIT = "over_limit"
    """The query was beyond the K that one turn may send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One question with its gold answer."""

    id: str
    question: str
    answer: str
    grader: str
    """Name of a grader in `eapo_agents.grading`."""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How completions are sampled."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}
    """How a recipe checks it: a dataclass has no other way to say so."""

    temperature: float = 1.0
    """Divides the logits; 0 is greedy."""
    top_p: float = 1.0
    """Nucleus of the distribution; 1 is all of it."""
    max_new_tokens: int = 256
    """Most tokens per completion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    """Which weights sampled a trajectory."""

    model: str
    """Name for people, as the recipe gave it."""
    base: str
    """Fingerprint of the base weights."""
    weights: str
    """Fingerprint of base and adapter together; equal fingerprints mean equal weights."""
    step: int
    """Optimizer steps since the base weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consultation:
    """One query of one turn and what became of it."""

    slot: int
    """Position among the turn's calls, from 0."""
    expert: str
    query: str
    reply: str
    """What the policy saw: the reply, or the notice that took its place."""
    status: ConsultationStatus
    rho: float
    """Probability of acceptance at that moment."""
    u: float
    """The coin, drawn from [0, 1) before any call; accepted when u < rho."""
    latency_s: float = 0.0
    tokens: int = 0
    """Tokens that the expert was paid for (0 where it counts none)."""
    cost_usd: float = 0.0
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Billed:
    """What the service of an API model counted for one turn, over all its attempts."""

    prompt_tokens: int | None
    """Tokens of the whole prompt. None where the service did not say."""
    completion_tokens: int | None
    """Tokens that it wrote, its thought included. None likewise."""
    cost_usd: float | None
    """None where neither the service nor the recipe has a price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One sampled completion and what was put before it. Several turns may have the same parent.

    A turn of an API model has no tokens: its `billed` says so, and what its service counted.
    """

    context_ids: tuple[int, ...]
    """Tokens added since the parent's last sampled token; the whole prompt where `parent` is
    None."""
    completion_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    """Log-probability of each completion token under the sampling distribution (after temperature
    and top-p), or None where nothing was sampled (scripted) or the engine does not tell."""
    parent: int | None
    """Index of the turn whose tokens come before `context_ids`; None starts a new row."""
    text: str
    """The completion decoded, special tokens left out."""
    finish_reason: str
    """`stop` (the policy ended its turn) or `length`."""
    consultations: tuple[Consultation, ...] = ()
    policy: PolicyVersion | None = None
    """The weights that sampled it, where they are not the trajectory's own: they changed in the
    middle, or another model wrote this turn."""
    sampling: Sampling | None = None
    """How it was sampled, where that is not the trajectory's own sampling."""
    id: str = ""
    """Name within the trajectory. Empty where none was recorded: format 1 had none."""
    billed: Billed | None = None
    """Of a turn that an API model wrote: `context_ids` and `completion_ids` are empty then."""

    @property
    def num_sampled(self) -> int | None:
        """Tokens of the completion; None where only a service could count them and did not."""
        return len(self.completion_ids) if self.billed is None else self.billed.completion_tokens

    @property
    def cost_usd(self) -> float | None:
        """What a service billed for it; nothing where it was sampled here."""
        return 0.0 if self.billed is None else self.billed.cost_usd


def total_known(values: Iterable[Number | None]) -> Number | None:
    """Return the sum of figures, such as tokens or dollars; None if one is not known."""
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) if len(known) == len(found) else None


def has_no_tokens(turns: Iterable[Turn]) -> bool:
    """Return whether API models wrote all of the turns, so that nothing can be trained on them."""
    return all(turn.billed is not None for turn in turns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """One run of a graph on one problem."""

    problem: Problem
    graph: str
    """Name of the graph, for people; `role` is what training goes by."""
    role: Role
    turns: tuple[Turn, ...]
    stop_reason: StopReason
    answer: str | None
    """The last completion's text where the policy answered; graders extract from it."""
    reward: float | None
    """None until scored, and for ever where it cannot be scored. None is not 0."""
    correct: bool | None
    error: str | None
    policy: PolicyVersion
    """The weights that sampled its first turn, and the others unless a turn says otherwise."""
    sampling: Sampling
    seed: int
    rollout: int
    """Index within its group, from 0."""
    global_step: int
    """Training step s (from 1) whose schedules applied; 0 outside training."""
    duration_s: float = 0.0
    reward_parts: Mapping[str, float] = field(default_factory=dict)
    """Parts of the reward by name, before they are weighed; none where it is one number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutGroup:
    """The G trajectories of one problem at one step."""

    problem: Problem
    trajectories_G: tuple[Trajectory, ...]
