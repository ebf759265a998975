"""Traces as TRL's conversational datasets: prompt and completion for SFT, chosen and rejected for
DPO.

The prompt is the tool-free one and the completion the policy's last turn, so that what is trained
is the policy alone, also on answers that an expert helped to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from eapo_agents.types import RolloutGroup, StopReason, Trajectory

Row = dict[str, object]


def sft_rows(groups: Iterable[RolloutGroup], system_prompt: str) -> Iterator[Row]:
    """Yield one row for each different right answer: {prompt, completion}."""
    for group in groups:
        for text in _answers(group, right=True):
            yield {"prompt": _prompt(group, system_prompt), "completion": [_said(text)]}


def dpo_rows(groups: Iterable[RolloutGroup], system_prompt: str) -> Iterator[Row]:
    """Yield right and wrong answers of one problem, paired in order: {prompt, chosen, rejected}."""
    for group in groups:
        pairs = zip(_answers(group, right=True), _answers(group, right=False), strict=False)
        for chosen, rejected in pairs:
            yield {
                "prompt": _prompt(group, system_prompt),
                "chosen": [_said(chosen)],
                "rejected": [_said(rejected)],
            }


def _answers(group: RolloutGroup, *, right: bool) -> list[str]:
    """Return different answers, in the order of their rollouts."""
    found = [
        trajectory.answer or ""
        for trajectory in group.trajectories_G
        if _is_answered(trajectory) and trajectory.correct is right
    ]
    return list(dict.fromkeys(found))


def _is_answered(trajectory: Trajectory) -> bool:
    return trajectory.answer is not None and trajectory.stop_reason is StopReason.ANSWERED


def _prompt(group: RolloutGroup, system_prompt: str) -> list[Mapping[str, str]]:
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return [*system, {"role": "user", "content": group.problem.question}]


def _said(text: str) -> Mapping[str, str]:
    return {"role": "assistant", "content": text}
