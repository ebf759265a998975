"""Finds the tokens that end a turn: behind an answer, behind a call, and those with which a model
would begin to invent the reply."""

from __future__ import annotations

from eapo_agents.errors import ModelError
from eapo_agents.policy.drafting import SLOT, TOOL, Draft, Message, end_of_slot, reply, said
from eapo_agents.policy.protocols import Tokenizer
from eapo_agents.policy.template import Template


class Ends:
    """The ends of turns of one template."""

    def __init__(self, tokenizer: Tokenizer, template: Template, added: dict[str, int]) -> None:
        """Look at what the template writes behind answers and calls.

        Raises:
            ModelError: it never ends a turn.
        """
        self._tokenizer = tokenizer
        self._template = template
        form = template.format
        marks = "\n".join([*form.marks, *form.frames, *(m for pair in form.thoughts for m in pair)])
        self.own = {token: number for token, number in added.items() if token in marks}
        """Added tokens in which the model writes calls and thoughts."""
        eos = tokenizer.eos_token_id
        told = [added[end] for end in form.turn_ends if end in added]
        ids = set(added.values())
        own = set(self.own.values())
        first = self._after_answer()
        found = next((i for i in first if i in ids and (i not in own or i in told)), eos)
        found = next((added[frame] for frame in form.frames if added.get(frame) in first), found)
        end = told[0] if told else found
        if end is None:
            raise ModelError(
                "The policy's chat template never ends a turn: no special token follows it."
            )
        self.of_turn = int(end)
        opening = template.render([said("user", 0)])
        before = self._plain_ids(opening[: opening.index("EAPOSLOT0X")])
        # the end may be the next message's beginning, as in GLM
        begins = [i for i in before if i in ids][-1:]
        self.pure = frozenset({self.of_turn} - set(begins))
        """Those that are no part of the next message."""
        generation = self._plain_ids(opening[end_of_slot(opening, 0) :])
        replies = [] if told else [i for i in self._after_calls() if i in ids]
        closing = {added[mark] for mark in form.ends if mark in added}
        not_ends = (own | set(generation)) - {self.of_turn}
        found_stops = {self.of_turn, *told, *closing, *(i for i in replies if i not in not_ends)}
        self.stops = frozenset(found_stops | ({eos} if isinstance(eos, int) else set()))
        self.of_calls = int(
            told[-1] if told else next((i for i in replies if i in self.stops), self.of_turn)
        )
        """What the model writes behind its last call."""
        self.changes = bool(told) and self.of_turn not in first
        """Whether the template writes another end where the turn is history."""
        self.hidden = frozenset((set(tokenizer.all_special_ids) | self.stops) - (own - set(told)))
        """Tokens that are no part of a turn's text."""

    def _plain_ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(SLOT.sub("", text), add_special_tokens=False)

    def _after_answer(self) -> list[int]:
        frame = self._template.render(
            [said("user", 0), said("assistant", 1), said("user", 2)], generation_prompt=False
        )
        return self._plain_ids(frame[end_of_slot(frame, 1) : frame.index("EAPOSLOT2X")])

    def _after_calls(self) -> list[int]:
        """Return the tokens between a call and the reply to it."""
        if not self._template.has_calls:
            return []
        calls = self._template.calls(Draft(), [("0", "eapo_probe", {})])
        turn: Message = {"role": "assistant", "content": "", "tool_calls": calls}
        tools = [TOOL] if self._template.has_tools else None
        frame = self._template.tried([said("user", 0), turn, reply("EAPOSLOT2X", "0")], tools)
        if frame is None:
            return []
        stop = frame.index("EAPOSLOT2X")
        return self._plain_ids(
            frame[self._template.end_of_calls(frame, end_of_slot(frame, 0), stop) : stop]
        )
