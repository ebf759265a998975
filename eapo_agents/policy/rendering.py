"""Renders messages as token ids: the model's chat template makes the frame, and outside text gets
no special tokens.

The template is rendered with placeholders in place of contents. Text of the template is tokenised
with special tokens, all other text without: an expert's `<|im_end|>` stays ten characters of text
and closes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from eapo_agents.errors import ModelError, UsageError
from eapo_agents.policy.protocols import Tokenizer
from eapo_agents.policy.tool_calls import format_call

_SLOT = re.compile(r"EAPOSLOT(\d+)X")
_ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}


@dataclass(frozen=True, slots=True)
class _Part:
    """One message: its role in the template, and the content that replaces its placeholder."""

    role: str
    content: str


class ChatRenderer:
    """Renders chats for one tokenizer; the same messages give the same tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Examine the chat template.

        Raises:
            ModelError: the tokenizer has no chat template, or its template never ends a turn.
        """
        self.tokenizer = tokenizer
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError(
                "The policy's tokenizer does not have a chat template, and a policy needs one: "
                "use an instruction-tuned model or put a chat_template into its "
                "tokenizer_config.json."
            )
        self._special = sorted(t for t in tokenizer.all_special_tokens if t)
        self.end_of_turn_id = self._find_end_of_turn()
        self._tool_role = self._find_tool_role()
        self._has_tool_section = self._find_tool_section()
        # frames repeat from prompt to prompt, contents mostly do not
        self._encode_frame = lru_cache(maxsize=4096)(self._encode_frame_uncached)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a turn."""
        eos = self.tokenizer.eos_token_id
        return frozenset({self.end_of_turn_id} | ({eos} if isinstance(eos, int) else set()))

    def prompt(
        self, messages: Sequence[BaseMessage], tools: Sequence[Mapping[str, object]]
    ) -> list[int]:
        """Return the whole conversation up to the policy's next token."""
        parts = self._parts(messages)
        template_tools = None
        if tools:
            if self._has_tool_section:
                self._refuse_special_tokens(tools)  # they become part of the template's own text
                template_tools = list(tools)
            else:
                parts = _with_tool_section(parts, tools)
        return self._encode(self._template(parts, tools=template_tools), parts)

    def continuation(self, messages: Sequence[BaseMessage], *, turn_closed: bool) -> list[int]:
        """Return the tokens behind a sampled completion: the end of its turn unless the policy
        sampled it (`turn_closed`), `messages`, and the start of the next turn.

        A stand-in conversation (user, assistant) is rendered in front of the messages, and what
        the template writes behind the stand-in's completion is cut out. So the frame between two
        turns is the template's own, whatever the conversation before looks like.
        """
        parts = [_Part("user", ""), _Part("assistant", ""), *self._parts(messages)]
        frame = self._template(parts)
        tail = frame[_end_of_slot(frame, 1) :]
        ids = self._encode(tail, parts)
        return ids[1:] if turn_closed and ids[:1] == [self.end_of_turn_id] else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def encode_text(self, text: str) -> list[int]:
        """Return the tokens of outside text. None of them is special, whatever the text holds."""
        if not text:
            return []
        # JSON can carry a lone surrogate, which no tokenizer accepts
        text = text.encode("utf-8", "replace").decode("utf-8")
        return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    def _encode_frame_uncached(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def _encode(self, frame: str, parts: Sequence[_Part]) -> list[int]:
        """Tokenise a rendered frame piece by piece and put the contents in between."""
        ids: list[int] = []
        for index, piece in enumerate(_SLOT.split(frame)):
            if index % 2:
                ids.extend(self.encode_text(parts[int(piece)].content))
            elif piece:
                ids.extend(self._encode_frame(piece))
        return ids

    def _template(
        self,
        parts: Sequence[_Part],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        generation_prompt: bool = True,
    ) -> str:
        messages = [
            {"role": part.role, "content": f"EAPOSLOT{index}X"} for index, part in enumerate(parts)
        ]
        text = self.tokenizer.apply_chat_template(
            messages, tools=tools, tokenize=False, add_generation_prompt=generation_prompt
        )
        return str(text)

    def _parts(self, messages: Sequence[BaseMessage]) -> list[_Part]:
        return [_Part(self._role(message), _content(message)) for message in messages]

    def _role(self, message: BaseMessage) -> str:
        role = _ROLES.get(message.type)
        if role is None:
            raise UsageError(
                f"The policy reads {', '.join(_ROLES)} messages, got '{message.type}'."
            )
        return self._tool_role if role == "tool" else role

    def _find_end_of_turn(self) -> int:
        """Return the first special token behind an assistant's content, else the end of text."""
        frame = self._template(
            [_Part("user", ""), _Part("assistant", ""), _Part("user", "")], generation_prompt=False
        )
        ids = self.tokenizer.encode(frame[_end_of_slot(frame, 1) :], add_special_tokens=False)
        special = set(self.tokenizer.all_special_ids)
        found = next((i for i in ids if i in special), self.tokenizer.eos_token_id)
        if found is None:
            raise ModelError(
                "The policy's chat template never ends a turn: no special token follows it."
            )
        return int(found)

    def _find_tool_role(self) -> str:
        """Return `tool` if the template knows it; many older ones know only user and assistant."""
        try:
            frame = self._template([_Part("user", ""), _Part("assistant", ""), _Part("tool", "")])
        except Exception:  # templates raise whatever their authors chose
            return "user"
        return "tool" if "EAPOSLOT2X" in frame else "user"

    def _find_tool_section(self) -> bool:
        """Whether the template itself describes tools in the Hermes style that the parser reads."""
        tool = {"type": "function", "function": {"name": "eapo_probe", "parameters": {}}}
        frame = self._template([_Part("user", "")], tools=[tool])
        return "eapo_probe" in frame and "<tool_call>" in frame

    def _refuse_special_tokens(self, tools: Sequence[Mapping[str, object]]) -> None:
        text = json.dumps(tools, ensure_ascii=False)
        for token in self._special:
            if token in text:
                raise UsageError(
                    f"A tool's description must not contain the policy's special token {token}: "
                    "rename or drop it."
                )


def _end_of_slot(frame: str, slot: int) -> int:
    marker = f"EAPOSLOT{slot}X"
    return frame.rindex(marker) + len(marker)


def _content(message: BaseMessage) -> str:
    text = message.text
    if isinstance(message, AIMessage) and message.tool_calls:
        calls = "\n".join(format_call(c["name"], c["args"]) for c in message.tool_calls)
        return f"{text}\n{calls}" if text else calls
    if isinstance(message, ToolMessage) and not text:
        return json.dumps(message.content, ensure_ascii=False)
    return text


def _with_tool_section(parts: list[_Part], tools: Sequence[Mapping[str, object]]) -> list[_Part]:
    section = tool_section(tools)
    if parts and parts[0].role == "system":
        return [_Part("system", f"{parts[0].content}\n{section}"), *parts[1:]]
    return [_Part("system", section), *parts]


def tool_section(tools: Sequence[Mapping[str, object]]) -> str:
    """Describe the tools, one short line each. The section ends the system prompt if the chat
    template does not describe tools itself."""
    described = [_described(tool) for tool in tools]
    lines = [f"- {name}({', '.join(names)}): {about}" for name, names, about in described]
    name, names, _ = described[0]
    example = format_call(name, dict.fromkeys(names, "..."))
    return "Experts you can ask:\n" + "\n".join(lines) + f"\nTo ask, write {example}"


def _described(tool: Mapping[str, object]) -> tuple[str, list[str], str]:
    """Return name, names of the arguments, and description of a tool in OpenAI's format."""
    function = tool["function"]
    assert isinstance(function, Mapping)
    arguments = function.get("parameters", {}).get("properties", {})
    return function["name"], list(arguments), function.get("description", "")
