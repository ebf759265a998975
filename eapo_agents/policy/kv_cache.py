"""Key-value cache for batched decoding: grows in place, splits into rows, and joins rows again.

transformers' `DynamicCache` copies the whole cache at every token, while a batch here reserves its
room once. Rows are kept between the turns of a rollout, so that a turn costs only the tokens that
it adds.

A batch of rows with 3 and 5 tokens is padded on the left, so that the next token of every row is
written into the same column:

    keys, values   . . a b c  |  d      mask   0 0 1 1 1  |  1      (. is padding)
                   v w x y z  |  u             1 1 1 1 1  |  1
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from eapo_agents.policy.protocols import CausalModel


class _GrowingLayer(DynamicLayer):  # type: ignore[misc]  # transformers is checked as untyped
    """One layer's keys and values, shape (B, heads, length, head_dim), with room to grow.

    `keys` and `values`, which attention reads, are views of the first `length` columns of a larger
    buffer. A new token is written behind them and the views grow: nothing is copied.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, room: int) -> None:
        super().__init__()
        self._store(keys, values, room)

    def _store(self, keys: torch.Tensor, values: torch.Tensor, room: int) -> None:
        """Copy keys and values into new buffers with `room` free columns."""
        batch, heads, length, head_dim = keys.shape
        self._key_room = keys.new_empty(batch, heads, length + room, head_dim)
        self._value_room = values.new_empty(batch, heads, length + room, head_dim)
        self._key_room[:, :, :length] = keys
        self._value_room[:, :, :length] = values
        self._show(length)
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def _show(self, length: int) -> None:
        self.keys = self._key_room[:, :, :length]
        self.values = self._value_room[:, :, :length]

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *args: object,
        **kwargs: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append new columns; attention calls this for each layer in a forward pass."""
        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        if end > self._key_room.shape[2]:
            # at least 64, so that many single tokens do not each copy the buffer
            self._store(self.keys, self.values, room=max(64, end - start))
        self._key_room[:, :, start:end] = key_states
        self._value_room[:, :, start:end] = value_states
        self._show(end)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return int(self.keys.shape[2])

    def select(self, rows_B: torch.Tensor, room: int) -> None:
        """Make a new batch of these rows, some perhaps several times."""
        self._store(self.keys[rows_B], self.values[rows_B], room)

    def shrink(self, order: Sequence[int]) -> None:
        """Keep row `order[i]` at place i; copy only rows that change their place."""
        for place, row in enumerate(order):
            if place != row:
                self._key_room[place] = self._key_room[row]
                self._value_room[place] = self._value_room[row]
        self._key_room = self._key_room[: len(order)]
        self._value_room = self._value_room[: len(order)]
        self._show(self.keys.shape[2])


@dataclass(frozen=True, slots=True)
class CachedRow:
    """One sequence's cache: `tokens` and, per layer, keys and values of shape (heads, length,
    head_dim), without padding."""

    tokens: tuple[int, ...]
    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]


class BatchCache:
    """The cache of one batch, left-padded, with its attention mask (1 for a token)."""

    def __init__(self, rows: Sequence[CachedRow | None], model: CausalModel, room: int) -> None:
        """Join rows; None is a sequence of which nothing is cached yet."""
        width = max((len(row.tokens) for row in rows if row), default=0)
        self.mask = torch.zeros(len(rows), width, dtype=torch.long, device=model.device)
        for index, row in enumerate(rows):
            if row:
                self.mask[index, width - len(row.tokens) :] = 1
        config = model.config
        head_dim = getattr(config, "head_dim", None) or (
            config.hidden_size // config.num_attention_heads
        )
        shape = (len(rows), config.num_key_value_heads, width, head_dim)
        layers = []
        for layer in range(config.num_hidden_layers):
            keys = torch.zeros(shape, dtype=model.dtype, device=model.device)
            values = torch.zeros_like(keys)
            for index, row in enumerate(rows):
                if row:
                    keys[index, :, width - len(row.tokens) :] = row.layers[layer][0]
                    values[index, :, width - len(row.tokens) :] = row.layers[layer][1]
            layers.append(_GrowingLayer(keys, values, room))
        self.cache = DynamicCache()
        self.cache.layers = layers

    def extend_mask(self, new_mask: torch.Tensor) -> None:
        """Append the mask of the tokens that are fed next, shape (B, new tokens)."""
        self.mask = torch.cat([self.mask, new_mask], dim=1)

    def select(self, rows: Sequence[int], room: int) -> None:
        """Make a new batch of these rows, some perhaps several times, with room for `room` more
        tokens."""
        rows_B = torch.tensor(rows, device=self.mask.device)
        self.mask = self.mask[rows_B]
        for layer in self.cache.layers:
            layer.select(rows_B, room)

    def shrink(self, kept: Sequence[int]) -> list[int]:
        """Keep these rows (ascending) and return their new order.

        Rows at the end fill the gaps of dropped ones, so that most rows stay where they are. Kept
        rows [0, 2, 4] of 5 become [0, 4, 2]: only row 4 is copied.
        """
        size = len(kept)
        holes = sorted(set(range(size)) - set(kept))
        order = list(range(size))
        for hole, row in zip(holes, (row for row in kept if row >= size), strict=True):
            order[hole] = row
        self.mask = self.mask[torch.tensor(order, device=self.mask.device)]
        for layer in self.cache.layers:
            layer.shrink(order)
        return order

    def row(self, index: int, tokens: tuple[int, ...]) -> CachedRow:
        """Return a copy of one sequence; `tokens` are those that the mask marks, in order."""
        # Found once for all layers: a GPU is waited for each time that a mask becomes columns.
        # Selecting copies, so the row does not keep the whole batch in memory.
        held = self.mask[index].nonzero()[:, 0]
        return CachedRow(
            tokens=tokens,
            layers=tuple(
                (layer.keys[index].index_select(1, held), layer.values[index].index_select(1, held))
                for layer in self.cache.layers
            ),
        )


class RowStore:
    """The most recently used rows, up to a number of tokens."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._num_tokens = 0
        self._rows: OrderedDict[Hashable, CachedRow] = OrderedDict()

    def put(self, key: Hashable, row: CachedRow) -> None:
        """Keep a row and drop the least recently used ones beyond the limit."""
        self.take(key)
        self._rows[key] = row
        self._num_tokens += len(row.tokens)
        while self._num_tokens > self._max_tokens:
            _, dropped = self._rows.popitem(last=False)
            self._num_tokens -= len(dropped.tokens)

    def take(self, key: Hashable) -> CachedRow | None:
        """Remove and return the row, or None."""
        row = self._rows.pop(key, None)
        if row is not None:
            self._num_tokens -= len(row.tokens)
        return row

    def clear(self) -> None:
        self._rows.clear()
        self._num_tokens = 0
