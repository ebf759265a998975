"""Rows that begin alike as one sequence, in which what they share is computed once.

The rollouts of a group have the same prompt, and all prompts of a recipe begin with the same system
message and tools. Padded, a batch computes them once a row. Here a micro-batch is a tree, written
down as one sequence: each token sees its ancestors alone, at the position that it has in its row.

    rows     S S Q Q | a a a        sequence   S S Q  Q a a a  Q b b  R R  R c c
             S S Q Q | b b                           └─ a's ─┘ └ b's      └ c's
             S S R R R | c c

The last token of a prompt predicts the first of its completion, so each row has its own. Logprobs
are those of the padded rows up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from transformers import PretrainedConfig

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "smollm3", "olmo2", "granite", "phi3")
"""Model types that are known to give the same logprobs (tests/trainers/test_prefix_sharing.py):
attention over everything before, whose mask may be given."""
MOST_TOKENS = 8192
"""Of a sequence: its mask has the square of it."""
WORTHWHILE = 0.9
"""Share of the padded rows' cost up to which rows are packed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Rows as one sequence of L tokens. N is the completion tokens of all rows."""

    input_ids: torch.Tensor
    """(1, L)"""
    attention_mask: torch.Tensor
    """(1, 1, L, L), true where a token (third dimension) sees another."""
    position_ids: torch.Tensor
    """(1, L)"""
    shift_labels: torch.Tensor
    """(1, L): the token that each one predicts, -100 where none is scored."""
    places: torch.Tensor
    """(N,): where in the sequence a completion token is predicted."""
    rows: torch.Tensor
    """(N,): its row."""
    columns: torch.Tensor
    """(N,): its place in the row's completion."""

    def model_inputs(self) -> dict[str, torch.Tensor]:
        """Return what a forward pass is given."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
            "shift_labels": self.shift_labels,
        }

    def unpack(self, figures: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        """Return figures (1, L) of the sequence as figures (R, C) of the rows' completions, 0 where
        these are padding."""
        found = figures.new_zeros(shape)
        return found.index_put((self.rows, self.columns), figures[0, self.places])


Figures = tuple[torch.Tensor, torch.Tensor | None, object]
"""What TRL asks for: logprobs and entropies (R, C), and a loss of experts in the model's layers."""


def joined(parts: Sequence[Figures]) -> Figures:
    """Return the figures of several forward passes, one below the other. TRL asks for the loss of
    experts only where one pass is made."""
    entropies = [part[1] for part in parts if part[1] is not None]
    return torch.cat([part[0] for part in parts]), torch.cat(entropies) if entropies else None, None


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
    num_completion: int,
    config: PretrainedConfig,
) -> Packed | None:
    """Return padded rows as one sequence; None where the model cannot take it, where it would cost
    as much, and where nothing is scored.

    Args:
        input_ids: (R, P + C), prompts padded on the left, completions on the right.
        attention_mask: (R, P + C).
        num_completion: C.
        config: the model's.
    """
    if not can_share(config):
        return None
    width = config.get_text_config().hidden_size
    device = input_ids.device
    ids, seen = input_ids.cpu().numpy(), attention_mask.cpu().numpy().astype(bool)
    tree = _Tree()
    scored: list[tuple[int, int, int]] = []
    for row, (row_ids, row_seen) in enumerate(zip(ids, seen, strict=True)):
        prompt = row_ids[:-num_completion][row_seen[:-num_completion]].tolist()
        completion = row_ids[-num_completion:][row_seen[-num_completion:]].tolist()
        if not completion:  # a row of padding, or nothing to score
            continue
        place = tree.own(prompt[-1], tree.shared(prompt[:-1]))
        for column, token in enumerate(completion):
            scored.append((place, row, column))
            tree.labels[place] = token
            if column + 1 < len(completion):  # the last one predicts nothing
                place = tree.own(token, place)
    length = len(tree.tokens)
    padded = _cost(ids.shape[0], ids.shape[1], width)
    if not scored or length > MOST_TOKENS or _cost(1, length, width) > WORTHWHILE * padded:
        return None
    places, rows, columns = (
        torch.tensor(each, device=device) for each in zip(*scored, strict=True)
    )
    return Packed(
        input_ids=torch.tensor([tree.tokens], device=device),
        attention_mask=torch.from_numpy(tree.mask())[None, None].to(device),
        position_ids=torch.tensor([tree.depths], device=device),
        shift_labels=torch.tensor([tree.labels], device=device),
        places=places,
        rows=rows,
        columns=columns,
    )


class _Tree:
    """Tokens with their parents, each after its own."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []
        self.labels: list[int] = []
        self._children: dict[tuple[int, int], int] = {}

    def own(self, token: int, parent: int) -> int:
        """Add a token that no other row shares; return its place."""
        self.tokens.append(token)
        self.parents.append(parent)
        self.depths.append(self.depths[parent] + 1 if parent >= 0 else 0)
        self.labels.append(-100)
        return len(self.tokens) - 1

    def shared(self, tokens: list[int]) -> int:
        """Add what is not there yet of these tokens from the root on; return the last one's place,
        -1 where there are none."""
        place = -1
        for token in tokens:
            known = self._children.get((place, token))
            if known is None:
                known = self._children[place, token] = self.own(token, place)
            place = known
        return place

    def mask(self) -> np.ndarray:
        """Return (L, L): who sees whom."""
        length = len(self.tokens)
        found = np.zeros((length, length), dtype=bool)
        for place, parent in enumerate(self.parents):
            if parent >= 0:
                found[place] = found[parent]
            found[place, place] = True
        return found


def _cost(num_rows: int, length: int, width: int) -> float:
    """Return what rows cost, in tokens: a layer has about 24 width² operations a token, and its
    attention 4 width for each token that is looked at, masked or not."""
    return num_rows * length * (1 + length / (6 * width))
