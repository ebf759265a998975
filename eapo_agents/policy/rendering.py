"""Renders messages as token ids: the model's chat template makes the frame, and outside text gets
no special tokens.

The template is rendered with placeholders in place of contents. Text of the template is tokenised
with special tokens, all other text without: an expert's `<|im_end|>` stays ten characters of text
and closes nothing. The same holds for every added token of the tokenizer, special or not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from eapo_agents.errors import ModelError, UsageError
from eapo_agents.policy.formats import HERMES, THOUGHT, Format, InvalidCall, ParsedCall, ParsedTurn
from eapo_agents.policy.outside_text import OutsideText
from eapo_agents.policy.protocols import Tokenizer
from eapo_agents.policy.template import (
    SLOT,
    TOOL,
    Draft,
    Message,
    Template,
    end_of_slot,
    short_id,
)

_ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One message of the template: its role and what it says."""

    role: str
    content: str
    message: BaseMessage | None = None


class ChatRenderer:
    """Renders chats for one tokenizer; the same messages give the same tokens."""

    def __init__(self, tokenizer: Tokenizer, template: Mapping[str, object] | None = None) -> None:
        """Examine the chat template.

        Args:
            template: variables of the chat template, such as `enable_thinking`.

        Raises:
            ModelError: the tokenizer has no chat template, or one that cannot be used.
            UsageError: the template does not use such a variable.
        """
        self.tokenizer = tokenizer
        written = getattr(tokenizer, "chat_template", None)
        if not written:
            raise ModelError(
                "The policy's tokenizer does not have a chat template, and a policy needs one: "
                "use an instruction-tuned model or put a chat_template into its "
                "tokenizer_config.json."
            )
        for name in template or ():
            if name not in str(written):
                raise UsageError(
                    f"policy.template.{name} has no effect: the model's chat template does not "
                    "use a variable of this name. Leave it out."
                )
        self.template = Template(tokenizer, template or {})
        self._outside = OutsideText(tokenizer)
        self.added = self._outside.added
        self._own_tokens = self._tokens_of_own()
        self.end_of_turn_id, self.stop_ids = self._find_ends()
        # frames repeat from prompt to prompt, contents mostly do not
        self._encode_frame = lru_cache(maxsize=4096)(self._encode_frame_uncached)

    @property
    def format(self) -> Format:
        """How the model writes calls and thoughts."""
        return self.template.format

    def prompt(
        self, messages: Sequence[BaseMessage], tools: Sequence[Mapping[str, object]]
    ) -> list[int]:
        """Return the whole conversation up to the policy's next token."""
        draft = Draft()
        template_tools = None
        section = ""
        if tools and self.template.has_tools:
            self._refuse_added_tokens(tools)  # they become part of the template's own text
            template_tools = list(tools)
        elif tools:
            section = tool_section(tools, self.format)
        parts = self._parts(messages, section)
        frame = self.template.render(self._written(parts, draft), template_tools)
        return self._encode(frame, draft)

    def continuation(
        self,
        messages: Sequence[BaseMessage],
        *,
        closed_by: int | None,
        after: AIMessage | None = None,
    ) -> list[int]:
        """Return the tokens behind a sampled completion: the end of its turn unless the policy
        sampled it, `messages`, and the start of the next turn.

        A stand-in conversation (user, assistant) is rendered in front of the messages, and what
        the template writes behind the stand-in's completion is cut out. So the frame between two
        turns is the template's own, whatever the conversation before looks like.

        Args:
            closed_by: the token with which the completion ended its turn; None if it did not.
            after: the turn whose completion it is, for its calls.
        """
        draft = Draft(["", ""])
        stand_in: Message = {"role": "assistant", "content": "EAPOSLOT1X"}
        calls = _calls_before(messages, after) if self.template.has_calls else []
        if calls:
            one_or_all = calls[: self.template.max_calls]
            stand_in["content"] = ""
            stand_in["tool_calls"] = self.template.calls(Draft(), one_or_all)
        parts = self._written(self._parts(messages), draft, after)
        tools = [TOOL] if calls and self.template.has_tools else None
        frame = self.template.render([_user(0), stand_in, *parts], tools)
        if calls:
            start = end_of_slot(frame, 0)
            first = next((m.start() for m in SLOT.finditer(frame, start)), len(frame))
            end = self.template.end_of_calls(frame, start, first)
            assert end > start, "the probe has read the template's calls"
        else:
            end = end_of_slot(frame, 1)
        return self._without_end(self._pieces(frame[end:], draft), closed_by)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens. Special tokens are left out, except for those that are part
        of the form in which the model writes calls and thoughts."""
        kept = [i for i in ids if i not in self._hidden]
        return str(self.tokenizer.decode(kept, skip_special_tokens=False))

    def parse(
        self,
        text: str,
        *,
        in_thought: bool = False,
        tools: Sequence[Mapping[str, object]] = (),
    ) -> ParsedTurn:
        """Split a decoded completion into its text, its thought and its calls."""
        turn = self.format.parse(text, in_thought=in_thought, tools=tools)
        limit = self.template.max_calls
        if limit is None or len(turn.calls) <= limit:
            return turn
        reason = "This model can write one call a turn: ask this in the next turn."
        more = [
            call if isinstance(call, InvalidCall) else _refused(call, self.format, reason)
            for call in turn.calls[limit:]
        ]
        return replace(turn, calls=(*turn.calls[:limit], *more))

    def in_thought(self, prompt_ids: Sequence[int]) -> bool:
        """Whether a prompt ends within a thought that it has opened."""
        opened = self.template.opened
        if not opened:
            return False
        end = self.tokenizer.decode(list(prompt_ids[-16:]), skip_special_tokens=False)
        return str(end).rstrip().endswith(opened)

    @property
    def begins_unsaid(self) -> bool:
        """Whether a turn may begin with what is no answer and has no mark: a thought that the
        prompt has opened, or the header of a message."""
        return bool(self.template.opened or self.format.turn_ends)

    def forgets(self, texts: Sequence[str], messages: Sequence[BaseMessage]) -> bool:
        """Whether the template leaves the thoughts of earlier turns out once these messages have
        come: then the tokens of those turns are not what the model sees.

        Args:
            texts: the decoded completions of the earlier turns.
        """
        asked = any(message.type == "human" for message in messages)
        if asked and self._end_changes:
            return True
        kept = (
            self.template.keeps_thought_before_user
            if asked
            else self.template.keeps_thought_before_reply
        )
        return not kept and any(self.format.has_thought(text) for text in texts)

    def encode_text(self, text: str) -> list[int]:
        """Return the tokens of outside text. None of them is an added token of the tokenizer,
        whatever the text holds."""
        return self._outside.encode(text)

    def encode_turn(self, text: str) -> list[int]:
        """Return the tokens of a text as the policy itself would write it, with its end of turn:
        the marks of its calls and thoughts are tokens where the tokenizer has such tokens."""
        ids: list[int] = []
        for piece, own in _split_at(text, self._own_tokens):
            ids += self._encode_frame(piece) if own else self.encode_text(piece)
        if ids and ids[-1] in self.stop_ids:
            return ids
        calls = self.format.parse(text).calls
        return [*ids, self._end_after_calls if calls else self.end_of_turn_id]

    def _encode_frame_uncached(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def _encode(self, frame: str, draft: Draft) -> list[int]:
        return [token for piece in self._pieces(frame, draft) for token in piece]

    def _pieces(self, frame: str, draft: Draft) -> list[Sequence[int]]:
        """Tokenise a rendered frame piece by piece, the contents in between.

        The strings of a call are part of the text around them, as the model writes it, unless
        they would make an added token.
        """
        for match in list(SLOT.finditer(frame)):
            number = int(match.group(1))
            text = draft.contents[number]
            if number in draft.inner and not SLOT.search(text):
                before, _, after = frame.partition(match.group())
                if not self._outside.would_be_added(before, text, after):
                    frame = before + text + after
        found: list[Sequence[int]] = []
        for index, piece in enumerate(SLOT.split(frame)):
            if index % 2:
                found.append(self.encode_text(draft.contents[int(piece)]))
            else:
                found.append(self._encode_frame(piece) if piece else ())
        return found

    def _without_end(self, pieces: list[Sequence[int]], closed_by: int | None) -> list[int]:
        """Leave out the end of a turn that the policy has sampled."""
        first = list(pieces[0])
        if closed_by is not None:
            end = next((n for n, token in enumerate(first) if token in self.stop_ids), None)
            ended = closed_by in (self.end_of_turn_id, self.tokenizer.eos_token_id)
            if end is not None and (
                first[end] == closed_by or (ended and first[end] in self._pure_ends)
            ):
                first = first[end + 1 :]
        return [*first, *(token for piece in pieces[1:] for token in piece)]

    def _parts(self, messages: Sequence[BaseMessage], section: str = "") -> list[_Part]:
        """Return messages in the roles that the template has."""
        parts: list[_Part] = []
        waiting: list[str] = []
        """Of the system, for the next message of the user."""
        for message in messages:
            role = self._role(message)
            part = _Part(role=role, content=_content(message), message=message)
            if role == "system" and not parts and not waiting and self.template.has_system:
                part = replace(part, content=_joined(part.content, section))
                section = ""
            elif role == "system" and not (parts and self.template.has_later_system):
                waiting.append(part.content)
                continue
            if section and not parts and role != "system":
                parts, waiting, section = self._opened(waiting, section)
            if waiting and role == "user":
                part = replace(part, content="\n\n".join([*waiting, part.content]))
                waiting = []
            if waiting and role == "assistant":
                self._add(parts, _Part(role="user", content="\n\n".join(waiting)))
                waiting = []
            self._add(parts, part)
        if section:
            parts, waiting, section = self._opened(waiting, section)
        if waiting:
            self._add(parts, _Part(role="user", content="\n\n".join(waiting)))
        return parts

    def _opened(self, waiting: list[str], section: str) -> tuple[list[_Part], list[str], str]:
        """Put the tools into a system message, or into what waits for the user's."""
        if self.template.has_system:
            return [_Part(role="system", content=section)], waiting, ""
        return [], [_joined("\n\n".join(waiting), section)], ""

    def _add(self, parts: list[_Part], part: _Part) -> None:
        last = parts[-1].role if parts else None
        joins = self.template.joins_replies if part.role == "tool" else self.template.alternates
        if joins and last == part.role and part.role in ("user", "tool"):
            parts[-1] = replace(parts[-1], content=f"{parts[-1].content}\n\n{part.content}")
        else:
            parts.append(part)

    def _role(self, message: BaseMessage) -> str:
        role = _ROLES.get(message.type)
        if role is None:
            raise UsageError(
                f"The policy reads {', '.join(_ROLES)} messages, got '{message.type}'."
            )
        return self.template.reply_role if role == "tool" else role

    def _written(
        self, parts: Sequence[_Part], draft: Draft, after: AIMessage | None = None
    ) -> list[Message]:
        """Return the template's messages, with placeholders for their contents."""
        turns = [after, *(part.message for part in parts)]
        names = {
            call["id"]: call["name"]
            for turn in turns
            if isinstance(turn, AIMessage)
            for call in turn.tool_calls
        }
        found: list[Message] = []
        for part in parts:
            if isinstance(part.message, AIMessage):
                found.append(self._turn(part.message, part.content, draft))
                continue
            written: Message = {"role": part.role, "content": part.content}
            if part.role == "tool":
                assert isinstance(part.message, ToolMessage)
                identity = part.message.tool_call_id
                written["content"] = self.template.reply_escape(part.content)
                written["tool_call_id"] = short_id(str(identity))
                written["name"] = part.message.name or names.get(identity) or "tool"
            written["content"] = draft.put(str(written["content"]))
            found.append(written)
        return found

    def _turn(self, message: AIMessage, text: str, draft: Draft) -> Message:
        """Return an assistant's message, with its calls and its thought."""
        content = draft.put(text)
        turn: Message = {"role": "assistant", "content": content}
        calls = [(str(c["id"]), c["name"], c["args"]) for c in message.tool_calls]
        limit = self.template.max_calls
        if calls and self.template.has_calls and (limit is None or len(calls) <= limit):
            turn["content"] = content if text else ""
            turn["tool_calls"] = self.template.calls(draft, calls)
        elif calls:
            written = self.format.render(
                [
                    ParsedCall(name=name, arguments=self._slotted(draft, arguments))
                    for _, name, arguments in calls
                ]
            )
            turn["content"] = f"{content}\n{written}" if text else written
        thought = message.additional_kwargs.get(THOUGHT)
        if isinstance(thought, str) and thought:
            self.template.add_thought(turn, draft.put(thought))
        return turn

    def _slotted(self, draft: Draft, arguments: Mapping[str, object]) -> dict[str, object]:
        slotted = self.template.slotted(draft, arguments)
        assert isinstance(slotted, dict)
        return slotted

    def _tokens_of_own(self) -> tuple[str, ...]:
        """Return the added tokens in which the model writes calls and thoughts."""
        form = self.format
        marks = "\n".join([*form.marks, *form.frames, *(m for pair in form.thoughts for m in pair)])
        return tuple(token for token in self.added if token in marks)

    def _find_ends(self) -> tuple[int, frozenset[int]]:
        """Find the token that ends an answer, and all that end a turn."""
        added = set(self.added.values())
        own = {self.added[token] for token in self._own_tokens}
        eos = self.tokenizer.eos_token_id
        first = self._after_answer(generation_prompt=False)
        told = [self.added[end] for end in self.format.turn_ends if end in self.added]
        special = set(self.tokenizer.all_special_ids)
        found = next((i for i in first if i in special), None)
        found = next((i for i in first if i in added), eos) if found is None else found
        end = told[0] if told else found
        if end is None:
            raise ModelError(
                "The policy's chat template never ends a turn: no special token follows it."
            )
        opening = self.template.render([_user(0)])
        before = self._plain_ids(opening[: opening.index("EAPOSLOT0X")])
        generation = self._plain_ids(opening[end_of_slot(opening, 0) :])
        # the end may be the next message's beginning, as in GLM
        begins = [i for i in before if i in added][-1:]
        self._pure_ends = frozenset({int(end)} - set(begins))
        after_calls = [] if told else self._after_calls()
        replies = [i for i in after_calls if i in added]
        closing = {self.added[mark] for mark in self.format.ends if mark in self.added}
        not_ends = (own | set(generation)) - {int(end)}
        stops = {int(end), *told, *closing, *(i for i in replies if i not in not_ends)}
        self._end_after_calls = int(
            told[-1] if told else next((i for i in replies if i in stops), end)
        )
        stops |= {eos} if isinstance(eos, int) else set()
        self._end_changes = bool(told) and int(end) not in first
        self._hidden = frozenset((special | stops) - (own - set(told)))
        return int(end), frozenset(stops)

    def _plain_ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(SLOT.sub("", text), add_special_tokens=False)

    def _after_answer(self, *, generation_prompt: bool) -> list[int]:
        frame = self.template.render(
            [_user(0), {"role": "assistant", "content": "EAPOSLOT1X"}, _user(2)],
            generation_prompt=generation_prompt,
        )
        return self._plain_ids(frame[end_of_slot(frame, 1) : frame.index("EAPOSLOT2X")])

    def _after_calls(self) -> list[int]:
        """Return the tokens between a call and the reply to it."""
        if not self.template.has_calls:
            return []
        calls = self.template.calls(Draft(), [("0", "eapo_probe", {})])
        turn: Message = {"role": "assistant", "content": "", "tool_calls": calls}
        reply = {"role": "tool", "name": "eapo_probe", "tool_call_id": short_id("0")}
        tools = [TOOL] if self.template.has_tools else None
        frame = self.template.tried([_user(0), turn, {**reply, "content": "EAPOSLOT2X"}], tools)
        if frame is None:
            return []
        stop = frame.index("EAPOSLOT2X")
        return self._plain_ids(
            frame[self.template.end_of_calls(frame, end_of_slot(frame, 0), stop) : stop]
        )

    def _refuse_added_tokens(self, tools: Sequence[Mapping[str, object]]) -> None:
        text = json.dumps(tools, ensure_ascii=False)
        for token in (*self.added, "EAPOSLOT"):
            if token in text:
                raise UsageError(
                    f"A tool's description must not contain the policy's special token {token}: "
                    "rename or drop it."
                )


def _user(slot: int) -> Message:
    return {"role": "user", "content": f"EAPOSLOT{slot}X"}


def _joined(text: str, section: str) -> str:
    return f"{text}\n{section}" if text and section else text or section


def _split_at(text: str, marks: Sequence[str]) -> list[tuple[str, bool]]:
    """Split a text at marks: pieces, and whether each is a mark."""
    if not marks:
        return [(text, False)]
    pattern = "|".join(map(re.escape, sorted(marks, key=len, reverse=True)))
    return [(piece, n % 2 == 1) for n, piece in enumerate(re.split(f"({pattern})", text)) if piece]


def _refused(call: ParsedCall, form: Format, reason: str) -> InvalidCall:
    return InvalidCall(text=form.render([call]), reason=reason)


def _calls_before(
    messages: Sequence[BaseMessage], after: AIMessage | None
) -> list[tuple[str, str, Mapping[str, object]]]:
    """Return the calls that messages reply to (id, name, no arguments), in the order written."""
    replies = [m for m in messages if isinstance(m, ToolMessage)]
    if after is not None:
        named = {str(call["id"]): call["name"] for call in after.tool_calls}
    else:
        named = {}
    calls = dict.fromkeys([*named, *(str(m.tool_call_id) for m in replies)]) if replies else {}
    own = {str(m.tool_call_id): m.name for m in replies}
    found = [(one, named.get(one) or own.get(one) or "tool") for one in calls]
    return [(one, name if name.isidentifier() else "tool", {}) for one, name in found]


def _content(message: BaseMessage) -> str:
    text = message.text
    if isinstance(message, ToolMessage) and not text:
        return json.dumps(message.content, ensure_ascii=False)
    return text


def tool_section(tools: Sequence[Mapping[str, object]], form: Format = HERMES) -> str:
    """Describe the tools, one short line each. The section ends the system prompt if the chat
    template does not describe tools itself."""
    described = [_described(tool) for tool in tools]
    lines = [f"- {name}({', '.join(names)}): {about}" for name, names, about in described]
    name, names, _ = described[0]
    example = form.render([ParsedCall(name=name, arguments=dict.fromkeys(names, "..."))])
    return "Experts you can ask:\n" + "\n".join(lines) + f"\nTo ask, write {example}"


def _described(tool: Mapping[str, object]) -> tuple[str, list[str], str]:
    """Return name, names of the arguments, and description of a tool in OpenAI's format."""
    function = tool["function"]
    assert isinstance(function, Mapping)
    arguments = function.get("parameters", {}).get("properties", {})
    return function["name"], list(arguments), function.get("description", "")
