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

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from eapo_agents.errors import TraceError
from eapo_agents.types import ConsultationStatus, Problem, RolloutGroup, Trajectory, Turn
from graphs.groups import solo_success
from graphs.rollout import SOLO

ADVANTAGE_EPSILON = 1e-4
"""Added to the spread of a group, as TRL does."""
EXPERT = "expert"
"""Names what an expert wrote by itself, where a trajectory names its graph."""


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
    weight: float
    """Multiplies the row's tokens in the loss and in its normaliser: a trajectory of n rows has n
    rows of 1/n."""
    trajectory: int
    """Position of the trajectory among those that the rows were made of."""
    teacher_ids: tuple[int, ...] | None = None
    """What stands before the completion for the teacher of self-distillation, in place of
    `prompt_ids`; None where there is no teacher."""

    @property
    def num_trained(self) -> int:
        """Tokens that carry a gradient."""
        return sum(self.mask_T)


def trajectory_rows(
    trajectory: Trajectory, *, advantage: float, position: int = 0, scripted: bool = False
) -> list[TrainingRow]:
    """One row for every unbroken run of turns. Rows without a sampled token are left out.

    `scripted` says that the trajectory was written by a script, to be imitated: its rows have no
    logprobs.

    Raises:
        TraceError: a turn has no logprobs, or not one for each token.
    """
    chains = _chains(trajectory.turns)
    rows = [_chain_row(chain, advantage, 1.0 / len(chains), position, scripted) for chain in chains]
    return [row for row in rows if row.num_trained]


def _chains(turns: Sequence[Turn]) -> list[list[Turn]]:
    """Splits turns into rows: a turn continues the row that ends with its parent; without one it
    starts a new row."""
    chains: list[list[Turn]] = []
    chain_of: dict[int, list[Turn]] = {}
    for index, turn in enumerate(turns):
        if turn.parent is None:
            chain = [turn]
            chains.append(chain)
        else:
            chain = chain_of.pop(turn.parent, [])
            if not chain:
                raise TraceError(
                    f"Turn {index} continues turn {turn.parent}, which is no open end of a row: "
                    "the trace is broken or forks; leave it out."
                )
            chain.append(turn)
        chain_of[index] = chain
    return chains


def _chain_row(
    chain: Sequence[Turn], advantage: float, weight: float, position: int, scripted: bool
) -> TrainingRow:
    ids: list[int] = []
    mask: list[int] = []
    logprobs: list[float] = []
    for number, turn in enumerate(chain):
        sampled = (0.0,) * len(turn.completion_ids) if scripted else turn.logprobs
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
        ids += turn.completion_ids
        mask += [1] * len(turn.completion_ids)
        logprobs += sampled
    return TrainingRow(
        prompt_ids=chain[0].context_ids,
        completion_ids_T=tuple(ids),
        mask_T=tuple(mask),
        logprobs_T=None if scripted else tuple(logprobs),
        advantage=advantage,
        weight=weight,
        trajectory=position,
    )


def group_advantages(rewards_G: Sequence[float | None], kind: str = "grpo") -> list[float | None]:
    """Advantages over the scored members; None stays None and counts for nothing.

    A group with fewer than two scores, or without spread, gives zeros.

    Args:
        kind: `grpo` (r - mean) / (std + 1e-4), with the sample standard deviation, as in TRL;
            `dr_grpo` r - mean (Liu et al. 2025); `rloo` r - mean of the others (Ahmadian et al.
            2024).
    """
    scored = [reward for reward in rewards_G if reward is not None]
    if len(scored) < 2 or math.isclose(max(scored), min(scored), abs_tol=1e-9):
        return [None if reward is None else 0.0 for reward in rewards_G]
    mean = statistics.fmean(scored)
    match kind:
        case "dr_grpo":
            scale = 1.0
        case "rloo":
            scale = len(scored) / (len(scored) - 1)
        case _:
            scale = 1.0 / (statistics.stdev(scored) + ADVANTAGE_EPSILON)
    return [None if reward is None else (reward - mean) * scale for reward in rewards_G]


def has_spread(group: RolloutGroup) -> bool:
    """Whether its members' rewards differ."""
    return any(group_advantages([t.reward for t in group.trajectories_G]))


def group_rows(
    groups_P: Sequence[RolloutGroup],
    advantages_of: Callable[[RolloutGroup], Sequence[float | None]] | None = None,
) -> list[TrainingRow]:
    """The group-relative rows; trajectories without a score or without an advantage give none.

    Args:
        advantages_of: group -> one advantage a member; GRPO's by default.
    """
    rows = []
    position = 0
    for group in groups_P:
        advantages_G = (
            advantages_of(group)
            if advantages_of
            else group_advantages([t.reward for t in group.trajectories_G])
        )
        for trajectory, advantage in zip(group.trajectories_G, advantages_G, strict=True):
            if advantage:
                rows += trajectory_rows(trajectory, advantage=advantage, position=position)
            position += 1
    return rows


def hint_stripped_rows(
    groups_P: Sequence[RolloutGroup],
    solo_prompt: Callable[[Problem], Sequence[int]],
    *,
    weight: float,
    ratio: bool = False,
    stand_in: Callable[[Trajectory], Sequence[int] | None] = lambda trajectory: None,
) -> list[TrainingRow]:
    """Hint-stripped rows: the answer that a reply helped to, as if the policy had come to it alone.

    Of every correct trajectory in which a reply was accepted, the last completion (the policy's own
    sampled tokens) is put after the tool-free prompt of the problem; consultation and reply are
    gone. Equal answers to one problem are one row that weighs as many. The behaviour policy never
    saw that context, so its logprobs do not apply: `logprobs_T` is None, which makes the row
    a likelihood term of weight `weight`. With `ratio` every answer is a row and keeps the logprobs
    that it had with the reply in sight, for the ratio of the one to the other. What `stand_in`
    gives for a trajectory takes its answer's place, without logprobs.
    """
    position = -1
    problems: dict[str, Problem] = {}
    found: dict[tuple[str, tuple[int, ...], int], list[int]] = {}
    logprobs: dict[int, tuple[float, ...] | None] = {}
    for group in groups_P:
        for trajectory in group.trajectories_G:
            position += 1
            if not trajectory.correct or not _was_helped(trajectory):
                continue
            problems[trajectory.problem.id] = trajectory.problem
            last = trajectory.turns[-1]
            theirs = stand_in(trajectory)
            own = ratio and theirs is None
            completion_ids = last.completion_ids if theirs is None else tuple(theirs)
            key = (trajectory.problem.id, completion_ids, position if own else 0)
            found.setdefault(key, []).append(position)
            logprobs[position] = last.logprobs if own else None
    return [
        TrainingRow(
            prompt_ids=tuple(solo_prompt(problems[problem_id])),
            completion_ids_T=completion_ids,
            mask_T=(1,) * len(completion_ids),
            logprobs_T=logprobs[positions[0]],
            advantage=weight,
            weight=float(len(positions)),
            trajectory=positions[0],
        )
        for (problem_id, completion_ids, _), positions in found.items()
    ]


def rehearsal_rows(groups_P: Sequence[RolloutGroup], *, weight: float) -> list[TrainingRow]:
    """Right trajectories as they were sampled, as likelihood terms."""
    trajectories = [t for group in groups_P for t in group.trajectories_G]
    return [
        replace(row, logprobs_T=None)
        for position, trajectory in enumerate(trajectories)
        if trajectory.correct and trajectory.graph != EXPERT
        for row in trajectory_rows(trajectory, advantage=weight, position=position)
    ]


def self_distillation_rows(groups_P: Sequence[RolloutGroup], *, weight: float) -> list[TrainingRow]:
    """Self-distillation: answers that members sampled alone, right or wrong, for the policy that
    has a reply in sight to judge.

    The teacher's context is what stood before the answer of the group's first right, helped member;
    groups without one give no rows.
    """
    rows = []
    position = 0
    for group in groups_P:
        members = group.trajectories_G
        helped = next((t for t in members if t.correct and _was_helped(t)), None)
        for index, trajectory in enumerate(members):
            if helped is None or trajectory.graph != SOLO or trajectory.reward is None:
                continue
            found = trajectory_rows(trajectory, advantage=weight, position=position + index)
            teacher_ids = _before_the_answer(helped)
            rows += [replace(row, logprobs_T=None, teacher_ids=teacher_ids) for row in found]
        position += len(members)
    return rows


def _before_the_answer(trajectory: Trajectory) -> tuple[int, ...]:
    """Every token of the last row, up to the last completion."""
    *before, last = _chains(trajectory.turns)[-1]
    seen = [token for turn in before for token in (*turn.context_ids, *turn.completion_ids)]
    return (*seen, *last.context_ids)


def solo_answer_rows(
    groups_P: Sequence[RolloutGroup], *, weight: float, min_solo_accuracy: float
) -> list[TrainingRow]:
    """Answers that members gave alone, put after the prompt that offers experts, as likelihood
    terms: what can be done alone is not asked.

    Right answers only, of groups whose members succeed alone at least so often and of which a
    member had experts. Equal answers of a group are one row that weighs as many.
    """
    rows = []
    position = 0
    for group in groups_P:
        members = group.trajectories_G
        offered = next((t for t in members if t.graph not in (SOLO, EXPERT) and t.turns), None)
        if offered is not None and (solo_success(members) or 0.0) >= min_solo_accuracy:
            found: dict[tuple[int, ...], list[int]] = {}
            for index, trajectory in enumerate(members):
                if trajectory.graph == SOLO and trajectory.correct:
                    answer = trajectory.turns[-1].completion_ids
                    found.setdefault(answer, []).append(position + index)
            rows += [
                TrainingRow(
                    prompt_ids=offered.turns[0].context_ids,
                    completion_ids_T=answer,
                    mask_T=(1,) * len(answer),
                    logprobs_T=None,
                    advantage=weight,
                    weight=float(len(positions)),
                    trajectory=positions[0],
                )
                for answer, positions in found.items()
            ]
        position += len(members)
    return rows


def solution_rows(
    groups_P: Sequence[RolloutGroup], solo_prompt: Callable[[Problem], Sequence[int]]
) -> list[TrainingRow]:
    """Distillation: an expert's right solutions after the tool-free prompt, as likelihood terms."""
    trajectories = [t for group in groups_P for t in group.trajectories_G]
    return [
        TrainingRow(
            prompt_ids=tuple(solo_prompt(trajectory.problem)),
            completion_ids_T=trajectory.turns[-1].completion_ids,
            mask_T=(1,) * len(trajectory.turns[-1].completion_ids),
            logprobs_T=None,
            advantage=1.0,
            weight=1.0,
            trajectory=position,
        )
        for position, trajectory in enumerate(trajectories)
        if trajectory.graph == EXPERT and trajectory.correct
    ]


def _was_helped(trajectory: Trajectory) -> bool:
    return any(
        consultation.status is ConsultationStatus.ACCEPTED
        for turn in trajectory.turns[:-1]
        for consultation in turn.consultations
    )
