"""What `eapo demo --quick` prints: a conversation before, the help as it fades, one after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from eapo_agents.cli.output import safe_text

if TYPE_CHECKING:
    from eapo_agents.runs.quick_demo import QuickDemo
    from eapo_agents.types import Trajectory
    from evals.results import Score

_BAR = 24
"""Characters of a bar of 100%."""


def lines(found: QuickDemo) -> Iterator[str]:
    """Return the lines of the whole look."""
    from evals.tables import difference_text

    training = found.training
    alone, helped, after = found.examples
    yield "EAPO in half a minute: a model of 0.4 million parameters is to work out a + b * c."
    yield ""
    yield "1. Before the training, alone, it does not know how:"
    yield from _conversation(alone)
    yield "   It may ask an expert, and knows how to go on from the reply:"
    yield from _conversation(helped)
    yield ""
    yield "2. In the training replies are withheld more and more often, and the weights take up"
    minutes = f"{training.seconds / 60:.0f} minutes"
    yield f"   what they said ({training.date}, {minutes} of one busy core):"
    yield ""
    yield f"   {'step':>6} {'replies accepted':>17} {'calls so far':>14}   right without help"
    for stretch in training.stretches:
        yield (
            f"   {stretch.step:>6} {stretch.accepted:>17.0%} {stretch.calls:>14,}   "
            f"{_bar(stretch.accuracy)}"
        )
    yield ""
    yield "3. After it, alone, with no expert in reach:"
    yield from _conversation(after)
    yield ""
    yield f"On {found.after.n} problems that it has not seen, run just now ({found.seconds:.0f} s):"
    yield f"   before, alone            {_score(found.before)}"
    yield f"   before, with the expert  {_score(found.helped)}"
    yield f"   after, alone             {_score(found.after)}"
    yield f"   after - before, alone    {difference_text(found.difference)}"
    yield ""
    yield "Go on:"
    yield "   eapo chat                 talk to the trained model; /solo switches its expert off"
    yield f"   {training.command}   the training itself"
    yield "   eapo demo                 the whole method on SmolLM2-135M"
    yield "   eapo init NAME            a project for a task and a model of your own"


def _conversation(trajectory: Trajectory) -> Iterator[str]:
    """Return the lines of a rollout: what is asked, what experts reply, what is answered."""
    yield f"      question  {safe_text(trajectory.problem.question)}"
    for turn in trajectory.turns:
        for consultation in turn.consultations:
            yield f"      model     asks {consultation.expert}: {safe_text(consultation.query)}"
            yield f"      {consultation.expert:<9} {safe_text(consultation.reply or '')}"
    verdict = f"(the answer is {safe_text(trajectory.problem.answer)})"
    yield f"      model     {safe_text(trajectory.turns[-1].text)}   {verdict}"


def _bar(share: float) -> str:
    return f"{'#' * round(_BAR * share):<{_BAR}} {share:.1%}"


def _score(score: Score) -> str:
    low, high = score.ci95
    return f"{score.score:>6.1%}  [{low:.1%}, {high:.1%}]"
