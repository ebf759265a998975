"""Likelihood rows: what the policy learns from text that it did not sample in the row's context.

Hint-stripped answers, rehearsed trajectories, solo answers where experts are offered,
self-distillation, and solutions of an expert; the replies that stand in for answers which skip the
working, and how a reply that is only a part becomes a solution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from eapo_agents.grading import LENIENT, grade
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.policy.tool_calls import InvalidCall, ParsedCall, parse_turn
from eapo_agents.rewards import Reward, score_text, scored
from eapo_agents.types import ConsultationStatus, Problem, Role, RolloutGroup, Trajectory, Turn
from graphs.groups import solo_success
from trainers.rows import TrainingRow, likelihood_row, trajectory_rows

CallsOf = Callable[[str], Sequence[ParsedCall | InvalidCall]]
"""A turn's text -> the calls in it, in the policy's own form."""
HERMES_CALLS: CallsOf = lambda text: parse_turn(text).calls  # noqa: E731  # a default


def hint_stripped_rows(
    groups_P: Sequence[RolloutGroup],
    solo_prompt: Callable[[Problem], Sequence[int]],
    *,
    weight: float,
    ratio: bool = False,
    stand_in: Callable[[Trajectory], Sequence[int] | None] = lambda trajectory: None,
    calls_of: CallsOf = HERMES_CALLS,
) -> list[TrainingRow]:
    """Return hint-stripped rows: the answer that a reply helped to, as if the policy had found it
    without help.

    Of every correct trajectory in which a reply was accepted, the last completion (the policy's own
    sampled tokens) is put after the tool-free prompt of the problem; consultation and reply are
    gone. In a user's graph, turns that called other tools stay in between (see `_unhelped`). Equal
    answers to one problem are one row that weighs as many. The behaviour policy never
    saw that context, so its logprobs do not apply: `logprobs_T` is None, which makes the row
    a likelihood term of weight `weight`. With `ratio` every answer is a row and keeps the logprobs
    that it had with the reply in sight, for the ratio of the one to the other. What `stand_in`
    gives for a trajectory takes its answer's place, without logprobs.
    """
    found: dict[tuple[str, tuple[int, ...], tuple[int, ...], int], list[Trajectory]] = {}
    for number, trajectory in enumerate(_trajectories(groups_P)):
        if not trajectory.correct or (kept := _unhelped(trajectory, calls_of)) is None:
            continue
        theirs = stand_in(trajectory)
        keeps_ratio = ratio and theirs is None
        answer = trajectory.turns[-1].completion_ids if theirs is None else tuple(theirs)
        # a row that keeps its logprobs is one of its own
        key = (trajectory.problem.id, kept, answer, number if keeps_ratio else -1)
        found.setdefault(key, []).append(trajectory)
    return [
        likelihood_row(
            alike[0],
            (*solo_prompt(alike[0].problem), *kept),
            answer,
            advantage=weight,
            weight=float(len(alike)),
            logprobs=alike[0].turns[-1].logprobs if number >= 0 else None,
        )
        for (_, kept, answer, number), alike in found.items()
    ]


def num_help_not_apart(groups_P: Sequence[RolloutGroup], calls_of: CallsOf = HERMES_CALLS) -> int:
    """Return how many right trajectories with an accepted reply give no hint-stripped row, since
    help cannot be told from the rest."""
    return sum(
        bool(trajectory.correct)
        and any(map(_was_accepted, trajectory.turns))
        and _unhelped(trajectory, calls_of) is None
        for trajectory in _trajectories(groups_P)
    )


def rehearsal_rows(groups_P: Sequence[RolloutGroup], *, weight: float) -> list[TrainingRow]:
    """Return right trajectories as they were sampled, as likelihood terms."""
    return [
        replace(row, logprobs_T=None)
        for trajectory in _trajectories(groups_P)
        if trajectory.correct and trajectory.role is not Role.EXPERT
        for row in trajectory_rows(trajectory, advantage=weight)
    ]


def self_distillation_rows(
    groups_P: Sequence[RolloutGroup], *, weight: float, calls_of: CallsOf = HERMES_CALLS
) -> list[TrainingRow]:
    """Return self-distillation rows: answers of solo rollouts, right or wrong, for the policy that
    has a reply in sight to judge.

    The teacher's context is what stood before the answer of the group's first right rollout that a
    reply helped; groups without one give no rows. Nor do solo rollouts of several rows: the teacher
    would judge what was sampled behind another prompt.
    """
    rows = []
    for group in groups_P:
        right = (t for t in group.trajectories_G if t.correct)
        helped = next((t for t in right if _unhelped(t, calls_of) is not None), None)
        if helped is None:
            continue
        *before, last = _line(helped)
        seen = [token for turn in before for token in (*turn.context_ids, *turn.completion_ids)]
        teacher_ids = (*seen, *last.context_ids)
        for trajectory in group.trajectories_G:
            if trajectory.role is Role.SOLO and trajectory.reward is not None:
                found = _one_row(trajectory, weight)
                if found is not None:
                    rows.append(replace(found, logprobs_T=None, teacher_ids=teacher_ids))
    return rows


def _one_row(trajectory: Trajectory, weight: float) -> TrainingRow | None:
    """Return a trajectory's row; None where some of it stands behind another prompt than the
    first."""
    rows = trajectory_rows(trajectory, advantage=weight)
    whole = len(rows) == 1 and rows[0].prompt_ids == trajectory.turns[0].context_ids
    return rows[0] if whole else None


def _line(trajectory: Trajectory) -> list[Turn]:
    """Return the turns that lead from the first prompt to the last completion; none where that
    stands behind another prompt, as in a graph that rewrites its history."""
    turns = trajectory.turns
    index: int | None = len(turns) - 1 if turns else None
    found: list[Turn] = []
    while index is not None:
        found.append(turns[index])
        if index and turns[index].parent is None:
            return []
        index = turns[index].parent
    return found[::-1]


def _unhelped(trajectory: Trajectory, calls_of: CallsOf) -> tuple[int, ...] | None:
    """Return the tokens between the first prompt and the last completion without those of
    consultations; None where no reply was accepted, or where help cannot be told from the rest.

    A turn that asked experts goes, with their replies. A turn that asked none stays, with what its
    tools said:

        turn 0  context [1, 5]  completion [7, 2]  calls a search
        turn 1  context [9, 4]  completion [8, 2]  asks an expert
        turn 2  context [6, 4]  completion [3, 2]  the answer
        kept    [7, 2, 9, 4]                       the answer then follows them

    In a user's graph help cannot be told from the rest where the answer stands behind another
    prompt than the first, a sub-agent was helped, a node asked by itself, or one turn called an
    expert and another tool.
    """
    line = _line(trajectory)
    if not any(_was_accepted(turn) for turn in line[:-1]):
        return None
    if trajectory.role is Role.OWN and not _help_is_apart(trajectory, line[:-1], calls_of):
        return None
    if any(len(calls_of(turn.text)) > len(turn.consultations) > 0 for turn in line[:-1]):
        return None  # one turn called an expert and a tool
    kept: list[int] = []
    for turn, following in pairwise(line):
        if not turn.consultations:
            kept += (*turn.completion_ids, *following.context_ids)
    return tuple(kept)


def solo_answer_rows(
    groups_P: Sequence[RolloutGroup], *, weight: float, min_solo_accuracy: float
) -> list[TrainingRow]:
    """Return answers of solo rollouts, put after the prompt that offers experts, as likelihood
    terms: what the policy can do without help it does not ask for.

    Right answers only, of groups whose solo rollouts are right at least so often and of which a
    rollout had experts. Equal answers of a group are one row that weighs as many.
    """
    rows = []
    for group in groups_P:
        with_experts = (Role.CONSULT, Role.OWN)
        offered = [t for t in group.trajectories_G if t.role in with_experts and t.turns]
        if not offered or (solo_success(group.trajectories_G) or 0.0) < min_solo_accuracy:
            continue
        found: dict[tuple[int, ...], list[TrainingRow]] = {}
        for trajectory in group.trajectories_G:
            if trajectory.role is Role.SOLO and trajectory.correct:
                own = _one_row(trajectory, weight)
                if own is not None:
                    found.setdefault(own.completion_ids_T, []).append(own)
        prompt_ids = offered[0].turns[0].context_ids
        rows += [
            replace(alike[0], prompt_ids=prompt_ids, logprobs_T=None, weight=float(len(alike)))
            for alike in found.values()
        ]
    return rows


def solution_rows(
    groups_P: Sequence[RolloutGroup], solo_prompt: Callable[[Problem], Sequence[int]]
) -> list[TrainingRow]:
    """Return distillation's rows: an expert's right solutions after the tool-free prompt, as
    likelihood terms."""
    return [
        likelihood_row(t, solo_prompt(t.problem), t.turns[-1].completion_ids, advantage=1.0)
        for t in _trajectories(groups_P)
        if t.role is Role.EXPERT and t.correct
    ]


def _trajectories(groups_P: Sequence[RolloutGroup]) -> list[Trajectory]:
    return [trajectory for group in groups_P for trajectory in group.trajectories_G]


def _help_is_apart(trajectory: Trajectory, before: Sequence[Turn], calls_of: CallsOf) -> bool:
    """Return whether each turn before the answer either asked experts and did nothing else, or
    called none of them, and no other turn asked any."""
    on_line = {id(turn) for turn in before}
    experts = {c.expert for turn in trajectory.turns for c in turn.consultations}
    for turn in trajectory.turns:
        calls = calls_of(turn.text)
        if turn.consultations:
            if id(turn) not in on_line or len(calls) != len(turn.consultations):
                return False
        elif id(turn) in on_line and any(getattr(call, "name", None) in experts for call in calls):
            return False  # the graph kept the call from the expert, such as by a limit
    return True


def _was_accepted(turn: Turn) -> bool:
    return any(c.status is ConsultationStatus.ACCEPTED for c in turn.consultations)


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """Trajectory -> the token ids of the right answer that a reply gives, where the policy's own
    answer is too short beside it; None where it is not, or no accepted reply is right."""

    renderer: ChatRenderer
    answer_form: str
    min_answer_to_reply_ratio: float
    """Tokens of the policy's answer for each token of the reply."""
    reward: Reward = score_text
    """Tells which replies are right."""

    def __call__(self, trajectory: Trajectory) -> tuple[int, ...] | None:
        if not self.min_answer_to_reply_ratio:
            return None
        num_own = len(trajectory.turns[-1].completion_ids)
        for turn in trajectory.turns:
            for consultation in turn.consultations:
                if consultation.status is not ConsultationStatus.ACCEPTED:
                    continue
                num_theirs = len(self.renderer.encode_text(consultation.reply))
                if num_own >= self.min_answer_to_reply_ratio * num_theirs:
                    continue
                text = in_form(
                    consultation.reply, trajectory.problem, self.answer_form, self.reward
                )
                if scored(self.reward, text, trajectory.problem)[1]:
                    return tuple(self.renderer.encode_answer(text))
        return None


def in_form(text: str, problem: Problem, answer_form: str, reward: Reward = score_text) -> str:
    """Return a solution. Where it is right but does not end in the form that the task asks for, add
    that end."""
    if scored(reward, text, problem)[1]:
        return text
    lenient = problem.grader.removesuffix(LENIENT) + LENIENT
    loosely = replace(problem, grader=lenient)
    if not scored(reward, text, loosely)[1]:
        return text
    return f"{text.rstrip()} {answer_form.format(answer=problem.answer)}"


def worked_answer(problem: Problem, answer_form: str, reward: Reward = score_text) -> str:
    """Return the problem's `solution` in the task's form where it has one that is right, else its
    gold answer alone in that form."""
    solution = str(problem.metadata.get("solution", ""))
    written = in_form(solution, problem, answer_form, reward) if solution else ""
    if written and scored(reward, written, problem)[1]:
        return written
    return answer_form.format(answer=problem.answer)


def completed(
    reply: str,
    problem: Problem,
    answer_form: str,
    reward: Reward = score_text,
    *,
    by: Literal["answer", "solution"],
) -> str:
    """Return a reply as a solution: as it is (in the task's form) where it is right, else followed
    by the rest, so that help which is only a part ends in the answer too.

        reply "First the product."   by answer    "First the product. Answer: 19"
                                     by solution  "First the product. 3 * 4 = 12. ... Answer: 19"

    A solution that begins with the reply is not preceded by it. A reply that has a wrong answer in
    the task's form is a wrong solution, not a part of one: it is returned as it is.

    Args:
        by: what follows: the gold answer alone, or the problem's `solution` where it has one.
    """
    text = in_form(reply, problem, answer_form, reward)
    if scored(reward, text, problem)[1] or grade(reply, problem).formatted:
        return text
    if by == "answer":
        return f"{reply.rstrip()} {answer_form.format(answer=problem.answer)}"
    rest = worked_answer(problem, answer_form, reward)
    if " ".join(rest.split()).startswith(" ".join(reply.split())):
        return rest
    return f"{reply.rstrip()} {rest}"
