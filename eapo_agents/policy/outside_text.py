"""Tokenises text from outside without any added token of the tokenizer, special or not."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
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
        self.added_ids = frozenset(self.added.values())
        longest_first = sorted(self.added, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._longest = max(map(len, self.added), default=0)
        facts = json.loads(tokenizer.backend_tokenizer.to_str())
        self.opens_with_space = _without_first_space(facts) != facts
        """Whether the tokenizer puts a space before a text, as those of the sentencepiece family
        do."""
        self.opens_after_added = self.opens_with_space and self._has_space_after_added()
        """Whether it does so behind each added token, too."""

    def would_be_added(self, before: str, text: str, after: str) -> bool:
        """Whether a text makes an added token where it stands, alone or with its neighbours."""
        before, after = before[-self._longest :], after[: self._longest]
        end = len(before) + len(text)
        return any(
            found.start() < end and found.end() > len(before)
            for found in self._pattern.finditer(before + text + after)
        )

    def before_added(self, text: str) -> int:
        """Return where the first added token of a text begins; its length for none."""
        found = self._pattern.search(text)
        return found.start() if found else len(text)

    def encode(self, text: str, *, within: bool = False) -> list[int]:
        """Return the tokens of a text, none of them added.

        Args:
            within: the text stands behind other text, so that no space is put before it.

        Raises:
            ModelError: the tokenizer has no other tokens for it.
        """
        if not text:
            return []
        # JSON can carry a lone surrogate, which no tokenizer accepts
        text = text.encode("utf-8", "replace").decode("utf-8")
        within = within and self.opens_with_space
        if not within:
            ids = self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
            if self.added_ids.isdisjoint(ids):
                return ids
        ids = self._encode_plain(text, within)
        if not self.added_ids.isdisjoint(ids):  # it is in the vocabulary that text is made of, too
            ids = []
            for piece in self._apart(text):
                ids += self._encode_plain(piece, within or bool(ids))
        if not self.added_ids.isdisjoint(ids):
            raise ModelError(
                "The policy's tokenizer writes the characters of a special token in no other way, "
                "so that text from outside could pass for it: use another tokenizer."
            )
        return ids

    def _encode_plain(self, text: str, within: bool) -> list[int]:
        backend = self._plain_within if within and self.opens_with_space else self._plain
        return list(backend.encode(text, add_special_tokens=False).ids)

    def _has_space_after_added(self) -> bool:
        for token, number in self.added.items():
            ids = self._tokenizer.encode(f"{token}a", add_special_tokens=False)
            if ids[0] == number:
                return ids[1:] != self._encode_plain("a", within=True)
        return False

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
        return _made(self._plain_facts())

    @cached_property
    def _plain_within(self) -> Backend:
        """The same, which puts no space before a text."""
        return _made(_without_first_space(self._plain_facts()))

    def _plain_facts(self) -> dict[str, object]:
        facts = json.loads(self._tokenizer.backend_tokenizer.to_str())
        kept = [one for one in facts["added_tokens"] if one["content"] not in self.added]
        return {**facts, "added_tokens": kept, "post_processor": None}


def _made(facts: Mapping[str, object]) -> Backend:
    from tokenizers import Tokenizer as Made

    return Made.from_str(json.dumps(facts))


def _without_first_space(facts: Mapping[str, object]) -> dict[str, object]:
    """Return a tokenizer's facts without what puts a space before a text."""
    return {
        **facts,
        "normalizer": _without_prefix(facts["normalizer"]),
        "pre_tokenizer": _without_prefix(facts["pre_tokenizer"]),
    }


def _without_prefix(part: object) -> object:
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    if kind == "Sequence":
        lists = {key: inner for key, inner in part.items() if isinstance(inner, list)}
        kept = {
            key: [_without_prefix(one) for one in inner if not _only_prepends(one)]
            for key, inner in lists.items()
        }
        return {**part, **kept}
    if _only_prepends(part):
        return None
    if kind == "Metaspace":
        return {**part, "prepend_scheme": "never"}
    return {**part, "add_prefix_space": False} if "add_prefix_space" in part else part


def _only_prepends(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "Prepend"
