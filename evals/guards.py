"""Guard rails: typical failures of such training, found in its figures.

Each guard looks at the latest steps of a history that `eapo train` keeps (one compares them with
the first), and reports in one sentence what it found. None stops a run: the user judges the
figures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from eapo_agents.types import ConsultationStatus, Problem, Trajectory

History = Sequence[Mapping[str, float]]
WINDOW = 10
"""Number of steps that a finding is based on."""
SHORTEST = 3
"""Steps of the shortest run that is judged, once it has ended."""
MIN_ENTROPY = 0.01
"""Nats per token. Below it, sampling is nearly greedy."""
ALL_ASK, NEVER_ASK = 0.98, 0.01
CLOSED = 0.05
"""Acceptance probability below which almost every reply is withheld."""
MAX_MISMATCH = 0.05
MIN_SPREAD = 0.1
COPIED = 0.5
FIRST, MIN_HELPED, ACCEPTING = 5, 0.2, 0.3
"""First steps that the latest are compared with, accuracy that they must have, acceptance."""
FALL = 0.05
"""Accuracy that counts as lost, and reward as gained."""

HEALTHY: Mapping[str, tuple[float | None, float | None, str]] = {
    "entropy": (MIN_ENTROPY, None, "nats a token; below it, groups hardly differ"),
    "nonzero_variance_groups": (MIN_SPREAD, None, "share of the groups that teach something"),
    "consultation_rate": (NEVER_ASK, None, "share of the rollouts that ask, while experts help"),
    "copied": (None, COPIED, "share of the helped answers that repeat an expert's words"),
    "train_inference_mismatch": (None, MAX_MISMATCH, "gap of the logprobs of engine and trainer"),
    "unscored": (None, 0.0, "rollouts without a reward, in a step"),
    "experts/failed": (None, 0.0, "calls that failed, in a step"),
    "left_out/helped_answers": (None, 0.0, "right answers with help that give no row, in a step"),
}
"""Figure -> least and most that is healthy, and what it is. A guard rail looks at more than one
figure where one alone does not tell."""


def healthy_range(name: str) -> str:
    """Return a figure's healthy range as text; empty where it has none."""
    least, most, _ = HEALTHY.get(name, (None, None, ""))
    if least is not None:
        return f"healthy from {least:g}"
    return "" if most is None else f"healthy up to {most:g}"


def healthy_figures(history: History) -> dict[str, float]:
    """Return the figures that have a healthy range: their means over the last steps, where they
    tell something. Without rollouts groups have no spread, and where no reply is accepted any more
    nobody need ask."""
    last = list(history)[-WINDOW:]
    means = {name: mean for name in HEALTHY if (mean := _mean(last, name)) is not None}
    helped = _mean(last, "helped/rollouts")
    if not helped or (_mean(last, "rho") or 0.0) <= CLOSED:
        means.pop("consultation_rate", None)
    if not helped and not _mean(last, "solo/rollouts"):
        means.pop("nonzero_variance_groups", None)
    return means


def is_healthy(name: str, value: float) -> bool:
    """Return whether a figure is within its healthy range."""
    least, most, _ = HEALTHY[name]
    return (least is None or value >= least) and (most is None or value <= most)


def findings(
    history: History, evals: Sequence[Mapping[str, object]] = (), *, ended: bool = False
) -> list[str]:
    """Return one sentence for each guard rail that was crossed.

    Args:
        ended: whether no more steps follow. Then a run of fewer than `WINDOW` steps is judged by
            those that it has.
    """
    if len(history) < (SHORTEST if ended else WINDOW):
        return []
    last = list(history)[-WINDOW:]
    found = [guard(last) for guard in _GUARDS]
    if len(history) >= WINDOW:  # these compare the latest steps with earlier ones
        found += [_help_unused(history), _reward_up_accuracy_down(history, evals)]
    return [sentence for sentence in found if sentence]


def _mean(steps: History, name: str) -> float | None:
    values = [step[name] for step in steps if step.get(name) is not None]
    return sum(values) / len(values) if values else None


def _entropy(last: History) -> str | None:
    entropy = _mean(last, "entropy")
    if entropy is None or entropy >= MIN_ENTROPY:
        return None
    return (
        f"Entropy collapse: {entropy:.4f} nats a token over the last {len(last)} steps, so groups "
        "hardly differ: lower the learning rate, or raise epsilon_high."
    )


def _asking_without_effect(last: History) -> str | None:
    rate, rho = _mean(last, "consultation_rate"), _mean(last, "rho")
    if rate is None or rho is None or rate < ALL_ASK or rho > CLOSED:
        return None
    return (
        f"All ask: {rate:.0%} of the rollouts consult, but rho is {rho:.2f}, so that asking has no "
        "effect. Let rho fall more slowly, or train on hint-stripped rows (train.internalise) and "
        "on solo answers (train.internalise.solo_answer_weight)."
    )


def _never_asking(last: History) -> str | None:
    rate, accuracy = _mean(last, "consultation_rate"), _mean(last, "solo/accuracy")
    helped = _mean(last, "helped/rollouts")
    if not helped or rate is None or rate > NEVER_ASK or (accuracy or 0.0) > 0.5:
        return None
    return (
        f"Nobody asks: {rate:.0%} of the rollouts that may consult do, though few problems are "
        "solved solo: teach asking in the warm start, or remove the penalty on calls."
    )


def _copying(last: History) -> str | None:
    copied, rho = _mean(last, "copied"), _mean(last, "rho")
    if copied is None or copied < COPIED:
        return None
    return (
        f"Copying: {copied:.0%} of the helped answers repeat an expert's words, at rho "
        f"{rho or 0.0:.2f}: check that the policy can work without them (tool-free accuracy)."
    )


def _dead_groups(last: History) -> str | None:
    spread = _mean(last, "nonzero_variance_groups")
    rolls_out = _mean(last, "solo/rollouts") or _mean(last, "helped/rollouts")
    if spread is None or spread >= MIN_SPREAD or not _mean(last, "reward") or not rolls_out:
        return None
    return (
        f"Dead groups: in {1 - spread:.0%} of the groups all rewards are equal: choose easier or "
        "harder problems, raise train.num_generations, or set train.dynamic_sampling_retries."
    )


def _left_out(last: History) -> str | None:
    tokens, sampled = _mean(last, "left_out/tokens"), _mean(last, "sampled_tokens")
    answers = _mean(last, "left_out/helped_answers")
    if answers:
        return (
            f"Left out: {answers:.1f} right answers with help a step give no hint-stripped row, "
            "since the help in them cannot be told from the rest (docs/graphs.md says when)."
        )
    if tokens and sampled:
        return (
            f"Left out: {tokens / sampled:.0%} of the sampled tokens are not trained: they are of "
            "another model, temperature or top_p."
        )
    return None


def _mismatch(last: History) -> str | None:
    mismatch = _mean(last, "train_inference_mismatch")
    if mismatch is None or mismatch <= MAX_MISMATCH:
        return None
    return (
        f"Train-inference mismatch: the logprobs of engine and trainer differ by {mismatch:.3f}: "
        "use the trainer's dtype for sampling, and check that the servers have the new weights."
    )


def _help_unused(history: History) -> str | None:
    first, last = (_mean(part, "helped/accuracy") for part in (history[:FIRST], history[-WINDOW:]))
    rho = _mean(history[-WINDOW:], "rho")
    if first is None or last is None or rho is None:
        return None
    if rho < ACCEPTING or first < MIN_HELPED or last > first / 2:
        return None
    return (
        f"Help is no longer used: rollouts that may ask were right in {first:.0%} at first and are "
        f"in {last:.0%} now, at rho {rho:.2f}: begin again with a lower train.learning_rate, a "
        "longer train.warmup_steps, or more train.internalise.rehearsal_weight."
    )


def _reward_up_accuracy_down(history: History, evals: Sequence[Mapping[str, object]]) -> str | None:
    if len(evals) < 2:
        return None
    accuracies = [_accuracy(entry) for entry in evals]
    best = max(range(len(accuracies)), key=lambda index: accuracies[index])
    lost = accuracies[best] - accuracies[-1]
    since = [step for step in history if step["step"] > float(str(evals[best]["step"]))]
    if lost < FALL or len(since) < 2 * WINDOW:
        return None
    before, after = _mean(since[:WINDOW], "reward"), _mean(since[-WINDOW:], "reward")
    if before is None or after is None or after < before + FALL:
        return None
    return (
        f"Reward up, accuracy down: tool-free accuracy fell from {accuracies[best]:.0%} to "
        f"{accuracies[-1]:.0%} while the reward rose from {before:.2f} to {after:.2f}: the policy "
        "learns to depend on its experts."
    )


def _accuracy(entry: Mapping[str, object]) -> float:
    scores = entry["scores"]
    assert isinstance(scores, Mapping)
    return float(next(iter(scores.values()))["score"])


_GUARDS: tuple[Callable[[History], str | None], ...] = (
    _entropy,
    _asking_without_effect,
    _never_asking,
    _copying,
    _dead_groups,
    _left_out,
    _mismatch,
)


def leaked_problems(evaluated: Sequence[Problem], trained: Sequence[Problem]) -> list[str]:
    """Return the ids of evaluation problems whose question is a training problem's too."""
    known = {_plain(problem.question) for problem in trained}
    return [problem.id for problem in evaluated if _plain(problem.question) in known]


def leaked_consultations(evaluated: Sequence[Problem], trajectories: Iterable[Trajectory]) -> int:
    """Return how many accepted replies of a training run ask or answer an evaluation problem: its
    question word for word, or its expression if the task has those. A withheld reply teaches
    nothing."""
    wanted = [_plain(problem.question) for problem in evaluated]
    wanted += [
        _plain(str(problem.metadata["expression"]))
        for problem in evaluated
        if "expression" in problem.metadata
    ]
    if not wanted:
        return 0
    # with digits around it, it would be part of another number
    pattern = re.compile(rf"(?<!\d)(?:{'|'.join(map(re.escape, wanted))})(?!\d)")
    return sum(
        pattern.search(_plain(f"{consultation.query} ; {consultation.reply}")) is not None
        for trajectory in trajectories
        for turn in trajectory.turns
        for consultation in turn.consultations
        if consultation.status is ConsultationStatus.ACCEPTED
    )


def leak_findings(leaks: Mapping[str, object]) -> list[str]:
    """Return sentences for what `leaked_problems` and `leaked_consultations` found in a run."""
    found = []
    problems, consultations = leaks.get("problems"), leaks.get("consultations")
    if isinstance(problems, list) and problems:
        found.append(
            f"Leak: {len(problems)} evaluation problems are training problems too (first: "
            f"{problems[0]}): accuracy on them measures memory."
        )
    if consultations:
        found.append(
            f"Leak: {consultations} replies that the training accepted ask or answer an evaluation "
            "problem."
        )
    return found


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
