"""A rollout as a conversation: its turns with thoughts, calls and consultations, and their tree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from eapo_agents.errors import EapoError, TraceError
from eapo_agents.experts.thoughts import split_thought
from eapo_agents.policy.formats import FAMILIES, HERMES, InvalidCall, ParsedCall, ParsedTurn
from eapo_agents.runs.view.evaluations import unsealed
from eapo_agents.types import Consultation, Trajectory, Turn

_LANE, _LINE = 16, 22
"""Width of a branch and height of a turn in the drawing of the tree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallView:
    """A call that a turn made."""

    name: str
    arguments: Sequence[tuple[str, str]]
    """Name and value; JSON where the value is not text."""
    problem: str = ""
    """Why it cannot be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnView:
    """A turn for a page."""

    number: int
    turn: Turn
    row: int | None
    """Number of the training row that it is in, from 0."""
    begins_row: bool
    """Whether it begins one: another turn has continued its parent, or it has none."""
    thought: str
    content: str
    calls: Sequence[CallView]
    """Those that were no consultations: calls of ordinary tools."""
    is_own: bool
    """Whether it is the trajectory's own model and sampling, so that it may be trained."""

    @property
    def consultations(self) -> Sequence[Consultation]:
        """Return what it asked experts."""
        return self.turn.consultations


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A turn in the drawing of the tree."""

    number: int
    x: int
    y: int
    parent: tuple[int, int] | None
    """Where its parent is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A rollout's turns."""

    turns: Sequence[TurnView]
    tree: Sequence[Node]
    """Empty where the turns are one line."""
    width: int
    height: int
    told: str = ""
    """What is wrong with the turns."""


def conversation_of(trajectory: Trajectory) -> Conversation:
    """Return a trajectory's turns as a page shows them."""
    from trainers.rows import chains, is_own

    row_of: dict[int, int] = {}
    told = ""
    try:
        number_of = {id(turn): number for number, turn in enumerate(trajectory.turns)}
        for row, chain in enumerate(chains(trajectory.turns)):
            row_of |= {number_of[id(turn)]: row for turn in chain.turns}
    except TraceError as error:
        told = str(error)
    turns = []
    seen: set[int] = set()
    for number, turn in enumerate(trajectory.turns):
        parsed = _parsed(turn)
        in_row = row_of.get(number)
        turns.append(
            TurnView(
                number=number,
                turn=turn,
                row=in_row,
                begins_row=in_row is not None and in_row not in seen,
                thought=parsed.thinking,
                content=parsed.content,
                calls=_calls(parsed, turn),
                is_own=is_own(turn, trajectory),
            )
        )
        seen |= {in_row} if in_row is not None else set()
    tree = _tree(trajectory.turns, row_of) if len(seen) > 1 else []
    return Conversation(
        turns=turns,
        tree=tree,
        width=_LANE * (len(seen) + 1) + 60,
        height=_LINE * (len(turns) + 1),
        told=told,
    )


def _parsed(turn: Turn) -> ParsedTurn:
    """Return a turn split at its thoughts and calls, in whichever form it has them."""
    text = unsealed(turn.text)
    found = HERMES.parse(text)
    if found.calls:
        return found
    asked = {c.expert for c in turn.consultations}
    for family in FAMILIES:
        try:
            other = family.parse(text)
        except (EapoError, ValueError):
            continue
        names = {call.name for call in other.calls if isinstance(call, ParsedCall)}
        if asked and names & asked:
            return other
    if found.thinking:
        return found
    said = split_thought(text)
    return ParsedTurn(content=said.answer, calls=(), thinking=said.thought)


def _calls(parsed: ParsedTurn, turn: Turn) -> list[CallView]:
    """Return the calls that no consultation stands for."""
    experts = {c.expert for c in turn.consultations}
    found = []
    for call in parsed.calls:
        if isinstance(call, InvalidCall):
            if not turn.consultations:
                found.append(CallView(name="", arguments=[("", call.text)], problem=call.reason))
        elif call.name not in experts:
            arguments = [(name, _as_text(value)) for name, value in call.arguments.items()]
            found.append(CallView(name=call.name, arguments=arguments))
    return found


def _as_text(value: object) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _tree(turns: Sequence[Turn], row_of: dict[int, int]) -> list[Node]:
    def place(number: int) -> tuple[int, int]:
        return _LANE * (row_of[number] + 1), _LINE * (number + 1)

    return [
        Node(
            number=number,
            x=place(number)[0],
            y=place(number)[1],
            parent=None if turn.parent is None else place(turn.parent),
        )
        for number, turn in enumerate(turns)
    ]


def sampled_tokens(trajectory: Trajectory) -> int | None:
    """Return how many tokens were sampled; None where a service did not count them."""
    from eapo_agents.types import total_known

    return total_known(turn.num_sampled for turn in trajectory.turns)


def extracted_answer(trajectory: Trajectory) -> tuple[str | None, str]:
    """Return the answer that the problem's grader reads, and why there is none.

    Graders that start another process or are a user's are not asked.
    """
    from eapo_agents.grading import LENIENT, SLOW, grade

    problem = trajectory.problem
    name = problem.grader.removesuffix(LENIENT)
    if trajectory.answer is None:
        return None, "there is no answer"
    if name in SLOW and name != "math":
        return None, f"the grader '{name}' runs programs, which a page does not"
    if name in SLOW or ":" in name:
        return _boxed(trajectory.answer)
    try:
        found = grade(trajectory.answer, problem)
    except (EapoError, ValueError) as error:
        return None, str(error)
    return found.extracted, "" if found.extracted is not None else found.note or "not in the form"


def _boxed(text: str) -> tuple[str | None, str]:
    from eapo_agents.grading import extract_answer

    try:
        found = extract_answer(text)
    except (EapoError, ValueError, TypeError):
        return None, ""
    return (found, "") if isinstance(found, str) else (None, "")
