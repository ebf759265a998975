"""Expert text as an answer of the policy: solutions in the form that the task asks for, and replies
that stand in for answers which leave out how they were come to."""

from __future__ import annotations

from dataclasses import dataclass, replace

from eapo_agents.grading import LENIENT
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.rewards import score_text
from eapo_agents.types import ConsultationStatus, Problem, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """Trajectory -> the token ids of the right answer that a reply gives, where the policy's own is
    too short beside it; None where it is not, or no accepted reply is right."""

    renderer: ChatRenderer
    answer_form: str
    min_answer_to_reply_ratio: float
    """Tokens of the policy's answer for each token of the reply."""

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
                text = in_form(consultation.reply, trajectory.problem, self.answer_form)
                if score_text(text, trajectory.problem)[1]:
                    return (*self.renderer.encode_text(text), self.renderer.end_of_turn_id)
        return None


def in_form(text: str, problem: Problem, answer_form: str) -> str:
    """A solution; where it is right but does not end in the form that the task asks for, with that
    end."""
    if score_text(text, problem)[1]:
        return text
    lenient = problem.grader.removesuffix(LENIENT) + LENIENT
    loosely = replace(problem, grader=lenient)
    if not score_text(text, loosely)[1]:
        return text
    return f"{text.rstrip()} {answer_form.format(answer=problem.answer)}"
