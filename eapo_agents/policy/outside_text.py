"""Tokenises text from outside without any added token of the tokenizer, special or not."""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import TYPE_CHECKING

from eapo_agents.errors import ModelError
from eapo_agents.policy.protocols import Tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend


class OutsideText:
    """Encodes text so that `<|im_end|>` or `</tool_response>` are characters."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.added: dict[str, int] = {
            str(token): number
            for number, token in tokenizer.added_tokens_decoder.items()
            # runs of spaces are tokens that plain text has
            if len(str(token).strip()) > 1
        }
        """Added tokens and their ids."""
        self._ids = frozenset(self.added.values())
        longest_first = sorted(self.added, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._longest = max(map(len, self.added), default=0)

    def would_be_added(self, before: str, text: str, after: str) -> bool:
        """Whether a text makes an added token where it stands, alone or with its neighbours."""
        before, after = before[-self._longest :], after[: self._longest]
        end = len(before) + len(text)
        return any(
            found.start() < end and found.end() > len(before)
            for found in self._pattern.finditer(before + text + after)
        )

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, none of them added.

        Raises:
            ModelError: the tokenizer has no other tokens for it.
        """
        if not text:
            return []
        # JSON can carry a lone surrogate, which no tokenizer accepts
        text = text.encode("utf-8", "replace").decode("utf-8")
        ids = self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        if self._ids.isdisjoint(ids):
            return ids
        ids = self._encode_plain(text)
        if not self._ids.isdisjoint(ids):  # it is in the vocabulary that text is made of, too
            ids = [token for piece in self._apart(text) for token in self._encode_plain(piece)]
        if not self._ids.isdisjoint(ids):
            raise ModelError(
                "The policy's tokenizer writes the characters of a special token in no other way, "
                "so that text from outside could pass for it: use another tokenizer."
            )
        return ids

    def _encode_plain(self, text: str) -> list[int]:
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def _apart(self, text: str) -> list[str]:
        """Cut a text within each added token, character by character."""
        pieces: list[str] = []
        position = 0
        for found in self._pattern.finditer(text):
            pieces += [text[position : found.start()], *found.group()]
            position = found.end()
        return [piece for piece in [*pieces, text[position:]] if piece]

    @cached_property
    def _plain(self) -> Backend:
        """The tokenizer without its added tokens. Made when a text first needs it."""
        from tokenizers import Tokenizer as Made

        facts = json.loads(self._tokenizer.backend_tokenizer.to_str())
        kept = [one for one in facts["added_tokens"] if one["content"] not in self.added]
        return Made.from_str(json.dumps({**facts, "added_tokens": kept, "post_processor": None}))
