"""Rows that begin alike as one sequence, in which what they share is computed once.

The rollouts of a group have the same prompt, and all prompts of a recipe begin with the same system
message and tools. Padded, a batch computes them once a row. Here its rows are a few trees, each
written down as one sequence: a token sees its ancestors alone, at the position that it has in its
row.

    rows     S S Q Q | a a a        sequence   S S Q  Q a a a  Q b b  R R  R c c
             S S Q Q | b b                           └─ a's ─┘ └ b's      └ c's
             S S R R R | c c

The last token of a prompt predicts the first of its completion, so each row has its own. Logprobs
are those of the padded rows up to rounding. Attention over a sequence computes what is masked too,
so that there are more trees where the model is narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from transformers import PretrainedConfig

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "smollm3", "olmo2", "granite", "phi3")
"""Model types that are known to give the same logprobs (tests/trainers/test_prefix_sharing.py):
attention over everything before, whose mask may be given."""
MOST_SEEN = 1 << 28
"""Entries of a batch's masks, a byte each."""
WORTHWHILE = 0.9
"""Share of the padded rows' cost up to which rows are packed."""


class Row(NamedTuple):
    """Tokens that may be shared, tokens that may be scored, which of these are (all where it is
    None), and the row's number in its batch."""

    prompt: list[int]
    completion: list[int]
    number: int
    scored: list[bool] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Rows as B sequences of at most L tokens. N is the scored tokens of all rows."""

    input_ids: torch.Tensor
    """(B, L)"""
    attention_mask: torch.Tensor
    """(B, 1, L, L), true where a token (third dimension) sees another; (B, L) where rows are as
    they were padded."""
    position_ids: torch.Tensor | None
    """(B, L); None where the model counts them."""
    shift_labels: torch.Tensor
    """(B, L): the token that each one predicts, -100 where none is scored."""
    places: tuple[torch.Tensor, torch.Tensor]
    """Sequence and place in it (N,) where a scored token is predicted."""
    rows: tuple[torch.Tensor, torch.Tensor]
    """Its row and its place in the row's completion (N,)."""

    def model_inputs(self) -> dict[str, torch.Tensor]:
        """Return what a forward pass is given."""
        inputs = {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "shift_labels": self.shift_labels,
        }
        return inputs if self.position_ids is None else inputs | {"position_ids": self.position_ids}

    def unpack(self, figures: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        """Return figures (N,) of the scored tokens as figures (R, C) of the rows' completions, 0
        where nothing is scored."""
        return figures.new_zeros(shape).index_put(self.rows, figures)


def can_share(config: PretrainedConfig) -> bool:
    """Return whether a model of this configuration gives the same logprobs for packed rows."""
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None) or ()
    windowed = getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True)
    return bool(
        text.model_type in FAMILIES
        and text._attn_implementation == "sdpa"  # others take no such mask
        and not windowed
        and all(kind == "full_attention" for kind in kinds)
    )


def pack(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    scored: torch.Tensor,
    config: PretrainedConfig,
) -> Packed | None:
    """Return padded rows as few sequences; None where `pack_rows` does.

    Args:
        input_ids: (R, P + C), prompts padded on the left, completions on the right.
        attention_mask: (R, P + C).
        scored: (R, C), true for the completion tokens whose figures are asked for.
        config: the model's.
    """
    if not can_share(config):
        return None
    rows = []
    ids, seen = input_ids.cpu().numpy(), attention_mask.cpu().numpy().astype(bool)
    wanted = scored.cpu().numpy()
    begin = ids.shape[1] - wanted.shape[1]
    for number, (row_ids, row_seen, row_wanted) in enumerate(zip(ids, seen, wanted, strict=True)):
        prompt = row_ids[:begin][row_seen[:begin]].tolist()
        completion = row_ids[begin:][row_seen[begin:]].tolist()
        if completion and row_wanted.any():  # else it is padding, or has nothing to score
            rows.append(Row(prompt, completion, number, row_wanted[row_seen[begin:]].tolist()))
    return pack_rows(rows, config, padded=ids.shape, device=input_ids.device)


def as_padded(
    input_ids: torch.Tensor, attention_mask: torch.Tensor, scored: torch.Tensor
) -> Packed:
    """Return rows as they were padded, each a sequence of its own; see `pack`."""
    rows, columns = scored.nonzero(as_tuple=True)
    places = columns + input_ids.shape[1] - scored.shape[1] - 1
    labels = torch.full_like(input_ids, -100)
    labels[rows, places] = input_ids[rows, places + 1]
    return Packed(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=None,
        shift_labels=labels,
        places=(rows, places),
        rows=(rows, columns),
    )


def pack_rows(
    rows: Sequence[Row],
    config: PretrainedConfig,
    *,
    padded: tuple[int, ...],
    device: torch.device | None = None,
) -> Packed | None:
    """Return rows as few sequences; None where the model cannot take them, where there are none or
    one has no prompt, and where they would cost as much as padded.

    Args:
        config: the model's.
        padded: how many rows of how many tokens they are otherwise.
    """
    if not rows or not can_share(config) or not all(row.prompt for row in rows):
        return None
    width = config.get_text_config().hidden_size
    rows = sorted(rows, key=lambda row: row.prompt)  # those that begin alike come together
    trees = _trees(rows, width, WORTHWHILE * _cost(padded[0], padded[1], width))
    return None if trees is None else _packed(trees, device)


def _trees(rows: Sequence[Row], width: int, most: float) -> list[_Tree] | None:
    """Return the rows as the trees that cost least, of one large and ever smaller ones; None where
    all cost more than `most`."""
    found: list[_Tree] | None = None
    size = len(rows)
    while size:
        tried = [_Tree(rows[first : first + size]) for first in range(0, len(rows), size)]
        longest = max(len(tree.tokens) for tree in tried)
        if len(tried) * longest**2 <= MOST_SEEN:
            cost = _cost(len(tried), longest, width)
            if cost < most:
                found, most = tried, cost
            elif found is not None:
                break  # even smaller ones share even less
        size //= 2
    return found


def _packed(trees: Sequence[_Tree], device: torch.device | None) -> Packed:
    shape = (len(trees), max(len(tree.tokens) for tree in trees))
    ids, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    labels = np.full(shape, -100)
    mask = np.zeros((*shape, shape[1]), dtype=bool)
    mask[:, range(shape[1]), range(shape[1])] = True  # of padding too: it needs one to look at
    scored = []
    for number, tree in enumerate(trees):
        length = len(tree.tokens)
        ids[number, :length] = tree.tokens
        positions[number, :length] = tree.depths
        labels[number, :length] = tree.labels
        tree.write_mask(mask[number])
        scored += [(number, *each) for each in tree.scored]
    sequences, places, rows, columns = torch.tensor(scored, device=device).T
    return Packed(
        input_ids=torch.from_numpy(ids).to(device),
        attention_mask=torch.from_numpy(mask)[:, None].to(device),
        position_ids=torch.from_numpy(positions).to(device),
        shift_labels=torch.from_numpy(labels).to(device),
        places=(sequences, places),
        rows=(rows, columns),
    )


class _Tree:
    """Rows in order of their prompts as tokens, each behind the one that it follows."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.tokens: list[int] = []
        self.depths: list[int] = []
        self.labels: list[int] = []
        self.pieces: list[tuple[int, int, int]] = []
        """Begin and end of tokens that follow one another, and the place that the first follows; -1
        where it begins the tree."""
        self.scored: list[tuple[int, int, int]] = []
        """Where a scored token is predicted, its row, and its place in the completion."""
        before: list[int] = []  # tokens that the row before shares, and their places
        places: list[int] = []
        for row in rows:
            shared = row.prompt[:-1]
            # in order, the row before has as much in common with this one as any, or a token less
            same = num_common(before, shared)
            before, places = shared, places[:same]
            places += self._append(shared[same:], places, [-100] * (len(shared) - same))
            own = [row.prompt[-1], *row.completion[:-1]]  # the last one predicts nothing
            wanted = row.scored or [True] * len(own)
            labels = [
                t if is_wanted else -100
                for t, is_wanted in zip(row.completion, wanted, strict=True)
            ]
            predicting = self._append(own, places, labels)
            self.scored += [
                (place, row.number, column)
                for column, (place, is_wanted) in enumerate(zip(predicting, wanted, strict=True))
                if is_wanted
            ]

    def _append(self, tokens: Sequence[int], behind: Sequence[int], labels: Sequence[int]) -> range:
        """Add tokens behind those of these places; return theirs."""
        begin = len(self.tokens)
        end = begin + len(tokens)
        if tokens:
            self.pieces.append((begin, end, behind[-1] if behind else -1))
        self.tokens += tokens
        self.depths += range(len(behind), len(behind) + len(tokens))
        self.labels += labels
        return range(begin, end)

    def write_mask(self, mask: np.ndarray) -> None:
        """Mark in (L, L) who sees whom."""
        for begin, end, parent in self.pieces:
            if parent >= 0:
                mask[begin:end, : parent + 1] = mask[parent, : parent + 1]
            mask[begin:end, begin:end] = np.tri(end - begin, dtype=bool)


def num_common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two texts begin with alike."""
    both = zip(one, other, strict=False)
    shorter = min(len(one), len(other))
    return next((place for place, (a, b) in enumerate(both) if a != b), shorter)


def _cost(num_sequences: int, length: int, width: int) -> float:
    """Return what sequences cost, in tokens: a layer has about 24 width² operations a token, and
    its attention 4 width for each token that is looked at, masked or not."""
    return num_sequences * length * (1 + length / (6 * width))
