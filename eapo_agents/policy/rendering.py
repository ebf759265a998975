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
from dataclasses import replace
from functools import lru_cache

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from eapo_agents.errors import ModelError, UsageError
from eapo_agents.policy.conversation import Conversation
from eapo_agents.policy.drafting import SLOT, TOOL, Draft, Message, end_of_slot, said
from eapo_agents.policy.ends import Ends
from eapo_agents.policy.formats import HERMES, Format, InvalidCall, ParsedCall, ParsedTurn
from eapo_agents.policy.outside_text import OutsideText
from eapo_agents.policy.protocols import Tokenizer
from eapo_agents.policy.template import Template


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
        self._conversation = Conversation(self.template)
        self._ends = Ends(tokenizer, self.template, self.added)
        self.end_of_turn_id = self._ends.of_turn
        self.stop_ids = self._ends.stops
        """Tokens that end a turn."""
        # frames repeat from prompt to prompt, contents mostly do not
        self._encode_frame = lru_cache(maxsize=4096)(self._encode_frame_uncached)
        self._before_answer, self._last_of_prompt = self._find_begin_of_turn()

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
        parts = self._conversation.parts(messages, section)
        frame = self.template.render(self._conversation.written(parts, draft), template_tools)
        return [token for piece in self._pieces(frame, draft, first=True) for token in piece]

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
        parts = self._conversation.written(self._conversation.parts(messages), draft, after)
        tools = [TOOL] if calls and self.template.has_tools else None
        frame = self.template.render([said("user", 0), stand_in, *parts], tools)
        if calls:
            start = end_of_slot(frame, 0)
            first = next((m.start() for m in SLOT.finditer(frame, start)), len(frame))
            end = self.template.end_of_calls(frame, start, first)
            assert end > start, "the probe has read the template's calls"
        else:
            end = end_of_slot(frame, 1)
        return self._without_end(self._pieces(frame[end:], draft, first=False), closed_by)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens. Special tokens are left out, except for those that are part
        of the form in which the model writes calls and thoughts."""
        kept = [i for i in ids if i not in self._ends.hidden]
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
        if asked and self._ends.changes:
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

    def encode_turn(self, text: str, *, in_thought: bool = False) -> list[int]:
        """Return the tokens of a text as the policy itself would write it, with its end of turn:
        the marks of its calls and thoughts are tokens where the tokenizer has such tokens.

        Args:
            in_thought: whether the prompt has opened a thought. A text without thoughts closes it.
        """
        calls = self.format.parse(text).calls
        begin = self._begin_of_answer(in_thought, calls=bool(calls))
        if not self.format.has_thought(text) and not text.startswith(begin):
            text = begin + text
        ids: list[int] = []
        for piece, own in _split_at(text, tuple(self._ends.own)):
            ids += self._encode_frame(piece) if own else self._encode_own(piece, ids)
        if ids and ids[-1] in self.stop_ids:
            return ids
        return [*ids, self._ends.of_calls if calls else self.end_of_turn_id]

    def encode_answer(self, text: str) -> list[int]:
        """Return the tokens of an answer from outside in the place of the policy's own: what
        begins one, the text without any mark, and the end of the turn."""
        begin = self._begin_of_answer(bool(self.template.opened), calls=False)
        own = self._encode_frame(begin) if begin else ()
        return [*own, *self._encode_own(text, own), self.end_of_turn_id]

    def _begin_of_answer(self, in_thought: bool, *, calls: bool) -> str:
        close = next((c for o, c in self.format.thoughts if o == self.template.opened), "")
        if in_thought and close:
            return f"{close}\n\n"
        return "" if calls else self.format.answer_opening

    def _encode_own(self, text: str, before: Sequence[int]) -> list[int]:
        """Return the tokens of a text in the policy's own turn, behind those of the turn that are
        there already."""
        if not self._outside.opens_with_space:
            return self.encode_text(text)
        if before:
            return self._encode_content(text, before[-1])
        return self._encode_content(self._before_answer + text, self._last_of_prompt)

    def _find_begin_of_turn(self) -> tuple[str, int]:
        """Return the space that the template writes before an answer, if it does, and the last
        token of a prompt."""
        prompt = self.template.render([said("user", 0)])
        turn = [said("user", 0), said("assistant", 1)]
        whole = self.template.tried(turn, generation_prompt=False) or ""
        has_space = whole.startswith(f"{prompt} EAPOSLOT1X")
        return " " if has_space else "", self._encode_frame(prompt)[-1]

    def _encode_content(self, text: str, after: int | None) -> list[int]:
        """Return the tokens of outside text where it stands: behind this token, or first of all."""
        begins = after is None or (
            self._outside.opens_after_added and after in self._outside.added_ids
        )
        return self._outside.encode(text, within=not begins)

    def _encode_frame_uncached(self, text: str, first: bool = True) -> tuple[int, ...]:
        if first or not self._outside.opens_with_space:
            return tuple(self.tokenizer.encode(text, add_special_tokens=False))
        end = self._outside.before_added(text)
        head = self._outside.encode(text[:end], within=True)
        return (*head, *self.tokenizer.encode(text[end:], add_special_tokens=False))

    def _pieces(self, frame: str, draft: Draft, *, first: bool) -> list[Sequence[int]]:
        """Tokenise a rendered frame piece by piece, the contents in between.

        The strings of a call are part of the text around them, as the model writes it, unless
        they would make an added token. The space before a content is the beginning of its first
        word, as it is where the whole text is tokenised.

        Args:
            first: whether the frame begins the text that the model sees.
        """
        for match in list(SLOT.finditer(frame)):
            number = int(match.group(1))
            text = draft.contents[number]
            if number in draft.inner and not SLOT.search(text):
                before, _, after = frame.partition(match.group())
                if not self._outside.would_be_added(before, text, after):
                    frame = before + text + after
        pieces = SLOT.split(frame)
        found: list[Sequence[int]] = []
        last = None if first else -1
        space = ""
        for index, piece in enumerate(pieces):
            if index % 2:
                text = space + draft.contents[int(piece)]
                found.append(self._encode_content(text, last))
            else:
                content = draft.contents[int(pieces[index + 1])] if index + 1 < len(pieces) else ""
                moved = piece.endswith(" ") and content[:1].strip() != ""
                space = " " if moved else ""
                text = piece[:-1] if moved else piece
                found.append(self._encode_frame(text, last is None) if text else ())
            last = found[-1][-1] if found[-1] else last
        return found

    def _without_end(self, pieces: list[Sequence[int]], closed_by: int | None) -> list[int]:
        """Leave out the end of a turn that the policy has sampled."""
        first = list(pieces[0])
        if closed_by is not None:
            end = next((n for n, token in enumerate(first) if token in self.stop_ids), None)
            ended = closed_by in (self.end_of_turn_id, self.tokenizer.eos_token_id)
            if end is not None and (
                first[end] == closed_by or (ended and first[end] in self._ends.pure)
            ):
                first = first[end + 1 :]
        return [*first, *(token for piece in pieces[1:] for token in piece)]

    def _refuse_added_tokens(self, tools: Sequence[Mapping[str, object]]) -> None:
        text = json.dumps(tools, ensure_ascii=False)
        for token in (*self.added, "EAPOSLOT"):
            if token in text:
                raise UsageError(
                    f"A tool's description must not contain the policy's special token {token}: "
                    "rename or drop it."
                )


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
