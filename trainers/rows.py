"""Trajectories to training rows: the one place that knows about masks.

A trajectory of two turns becomes one row by construction:

    turn 0   context [1, 5, 6]   completion [7, 8, 2]   logprobs [-.1, -.2, -.3]
    turn 1   context [9, 4]      completion [7, 2]      logprobs [-.4, -.5]      parent 0

    prompt_ids      [1, 5, 6]
    completion_ids  [  7,   8,   2, 9, 4,   7,   2]
    mask            [  1,   1,   1, 0, 0,   1,   1]     1 = sampled by the policy, trained
    logprobs        [-.1, -.2, -.3, 0, 0, -.4, -.5]     0 where the mask is 0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from eapo_agents.errors import TraceError
from eapo_agents.types import Trajectory, Turn

OffPolicy = Literal["ratio", "shaped", "uncertain"]
"""How tokens are weighted that the policy did not sample behind their prompt: see `off_policy`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRow:
    """One sequence to train on. All lists over the completion have the same length T."""

    prompt_ids: tuple[int, ...]
    completion_ids_T: tuple[int, ...]
    mask_T: tuple[int, ...]
    """1 on the policy's own tokens, 0 on what others wrote."""
    logprobs_T: tuple[float, ...] | None
    """The behaviour policy's, 0 where the mask is 0; None where the current policy is to stand in
    for it."""
    advantage: float
    """Of every token that is trained, unless `advantages_T` says it of each."""
    weight: float
    """Multiplies the row's tokens in the loss and in its normaliser: a trajectory of n rows has n
    rows of 1/n."""
    trajectory: Trajectory
    """What the row was made of: the first such trajectory where equal answers share a row."""
    advantages_T: tuple[float, ...] | None = None
    """Where turns differ in what they earned; 0 where the mask is 0."""
    teacher_ids: tuple[int, ...] | None = None
    """What stands before the completion for the teacher, in place of `prompt_ids`: with a reply
    for the teacher of self-distillation, the same for another model. None without a teacher."""
    off_policy: OffPolicy | None = None
    """Where the policy did not sample the row behind its prompt: how its tokens are weighted."""

    @property
    def num_trained(self) -> int:
        """Tokens that carry a gradient."""
        return sum(self.mask_T)


def trajectory_rows(
    trajectory: Trajectory,
    *,
    advantage: float,
    scripted: bool = False,
    of_turns: Sequence[float] | None = None,
) -> list[TrainingRow]:
    """Return one row for every branch of the turns, so that each sampled token is trained once.
    Rows without a trained token are left out.

    What another model sampled in the same run, or this one under another distribution, is not the
    policy's own: its mask is 0.

    Args:
        scripted: the trajectory was written by a script, to be imitated: its rows have no logprobs.
        of_turns: the advantage of each turn, where they differ.

    Raises:
        TraceError: a turn has no logprobs, or not one for each token.
    """
    own = [c for c in chains(trajectory.turns) if any(is_own(t, trajectory) for t in c.turns)]
    rows = [_chain_row(chain, trajectory, advantage, scripted, of_turns) for chain in own]
    trained = [row for row in rows if row.num_trained]
    return [replace(row, weight=1.0 / len(trained)) for row in trained]


def likelihood_row(
    trajectory: Trajectory,
    prompt_ids: Sequence[int],
    completion_ids: Sequence[int],
    *,
    advantage: float,
    weight: float = 1.0,
    logprobs: tuple[float, ...] | None = None,
) -> TrainingRow:
    """Return a row that trains all of a completion, after a prompt that it was perhaps not sampled
    behind."""
    return TrainingRow(
        prompt_ids=tuple(prompt_ids),
        completion_ids_T=tuple(completion_ids),
        mask_T=(1,) * len(completion_ids),
        logprobs_T=logprobs,
        advantage=advantage,
        weight=weight,
        trajectory=trajectory,
    )


@dataclass(slots=True)
class Chain:
    """The turns of one row."""

    turns: list[Turn]
    before: tuple[int, ...] = ()
    """Tokens of the turns in front of them, where the row branches off another one. That row
    trains them, so here they are context."""


def chains(turns: Sequence[Turn]) -> list[Chain]:
    """Split a tree of turns into rows. A turn continues the row that ends with its parent. Where
    another turn has continued that already, it starts a new row behind the same tokens; without a
    parent it starts a row of its own. Each turn is in one row.

    Raises:
        TraceError: a turn's parent is not a turn before it.
    """
    found: list[Chain] = []
    open_chain: dict[int, Chain] = {}
    for index, turn in enumerate(turns):
        if turn.parent is not None and not 0 <= turn.parent < index:
            raise TraceError(
                f"Turn {index} continues turn {turn.parent}, which does not come before it: the "
                "trace is broken; leave it out."
            )
        chain = None if turn.parent is None else open_chain.pop(turn.parent, None)
        if chain is None:
            chain = Chain([], _tokens_until(turns, turn.parent))
            found.append(chain)
        chain.turns.append(turn)
        open_chain[index] = chain
    return found


def _tokens_until(turns: Sequence[Turn], last: int | None) -> tuple[int, ...]:
    """Return the tokens of a turn and of all that it continues."""
    parts: list[tuple[int, ...]] = []
    while last is not None:
        parts += [turns[last].completion_ids, turns[last].context_ids]
        last = turns[last].parent
    return tuple(token for part in reversed(parts) for token in part)


def _chain_row(
    chain: Chain,
    trajectory: Trajectory,
    advantage: float,
    scripted: bool,
    of_turns: Sequence[float] | None,
) -> TrainingRow:
    number_of = {id(turn): number for number, turn in enumerate(trajectory.turns)}
    advantages: list[float] = []
    ids: list[int] = []
    mask: list[int] = []
    logprobs: list[float] = []
    for number, turn in enumerate(chain.turns):
        own = is_own(turn, trajectory)
        no_logprobs = (0.0,) * len(turn.completion_ids)
        sampled = turn.logprobs if own and not scripted else no_logprobs
        if sampled is None or len(sampled) != len(turn.completion_ids):
            raise TraceError(
                "A trace has no logprob for each sampled token, and the ratio needs the behaviour "
                "policy's own: "
                "collect with an engine that returns them (scripted and chat-only engines do not)."
            )
        if number:
            ids += turn.context_ids
            mask += [0] * len(turn.context_ids)
            logprobs += [0.0] * len(turn.context_ids)
            advantages += [0.0] * len(turn.context_ids)
        ids += turn.completion_ids
        mask += [int(own)] * len(turn.completion_ids)
        logprobs += sampled
        earned = of_turns[number_of[id(turn)]] if of_turns is not None and own else 0.0
        advantages += [earned] * len(turn.completion_ids)
    return TrainingRow(
        prompt_ids=(*chain.before, *chain.turns[0].context_ids),
        completion_ids_T=tuple(ids),
        mask_T=tuple(mask),
        logprobs_T=None if scripted else tuple(logprobs),
        advantage=advantage,
        weight=1.0,
        trajectory=trajectory,
        advantages_T=None if of_turns is None else tuple(advantages),
    )


def is_own(turn: Turn, trajectory: Trajectory) -> bool:
    """Return whether the trajectory's own model sampled a turn, under the trajectory's own
    temperature and top-p: the ratio is that of one distribution. How long it may be does not
    matter."""
    if turn.policy is not None and turn.policy.base != trajectory.policy.base:
        return False
    here, own = turn.sampling or trajectory.sampling, trajectory.sampling
    return (here.temperature, here.top_p) == (own.temperature, own.top_p)


def num_left_out(trajectory: Trajectory) -> int:
    """Return how many sampled tokens are not trained: another model's, or another temperature's."""
    return sum(len(t.completion_ids) for t in trajectory.turns if not is_own(t, trajectory))
