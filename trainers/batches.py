"""Training rows as the tensors that TRL's loss takes, and their split into micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from accelerate.utils import gather_object

from trainers.prefix_sharing import num_common
from trainers.rows import TrainingRow

Sizes = list[tuple[int, int]]
"""Prompt and completion length of each row."""
WORTH_TOGETHER = 0.8
"""Share of the tokens up to which rows are put together by their prompts, not by their lengths."""


def pad_rows(
    rows: Sequence[TrainingRow], *, multiple: int, pad_id: int, at_least: int = 1
) -> dict[str, torch.Tensor]:
    """Rows as TRL's batch: prompts (R, P) left-padded, completions (R, C) right-padded.

    R is padded to a multiple of `multiple` with rows whose masks are 0, since TRL drops what does
    not divide; to `at_least` rows where another process has so many, since TRL gathers a figure of
    each.
    """
    num_rows = -(-max(1, at_least, len(rows)) // multiple) * multiple
    width_p = max((len(row.prompt_ids) for row in rows), default=1)
    width_c = max((len(row.completion_ids_T) for row in rows), default=1)
    batch = {
        "prompt_ids": torch.full((num_rows, width_p), pad_id),
        "prompt_mask": torch.zeros(num_rows, width_p, dtype=torch.long),
        "completion_ids": torch.full((num_rows, width_c), pad_id),
        "completion_mask": torch.zeros(num_rows, width_c, dtype=torch.long),
        "tool_mask": torch.zeros(num_rows, width_c, dtype=torch.long),
        "old_per_token_logps": torch.zeros(num_rows, width_c),
        "advantages": torch.zeros(num_rows, width_c),
        "weights": torch.zeros(num_rows),
    }
    # a padding row needs one attended token, or its softmax has nothing to attend to
    batch["prompt_mask"][len(rows) :, -1] = 1
    for index, row in enumerate(rows):
        num_p, num_c = len(row.prompt_ids), len(row.completion_ids_T)
        batch["prompt_ids"][index, width_p - num_p :] = _tensor(row.prompt_ids, np.int64)
        batch["prompt_mask"][index, width_p - num_p :] = 1
        batch["completion_ids"][index, :num_c] = _tensor(row.completion_ids_T, np.int64)
        batch["completion_mask"][index, :num_c] = 1
        batch["tool_mask"][index, :num_c] = _tensor(row.mask_T, np.int64)
        if row.logprobs_T is not None:
            batch["old_per_token_logps"][index, :num_c] = _tensor(row.logprobs_T, np.float32)
        batch["advantages"][index, :num_c] = (
            row.advantage if row.advantages_T is None else _tensor(row.advantages_T, np.float32)
        )
        batch["weights"][index] = row.weight
    return batch


def _tensor(values: Sequence[float], dtype: type[np.generic]) -> torch.Tensor:
    return torch.from_numpy(np.array(values, dtype=dtype))  # three times as fast as torch.tensor


def micro_batches(
    batch: dict[str, torch.Tensor],
    *,
    updates: int,
    passes: int,
    widest: Callable[[Sizes], Sizes] = lambda sizes: sizes,
    shares: bool = False,
) -> list[dict[str, torch.Tensor]]:
    """Splits a step's rows into `updates` x `passes` micro-batches, update by update.

    Which rows make an optimizer step is chance; within one, rows of like length come together, as
    many as keep the largest micro-batch small: padding is computed like any token. Where prompts
    are computed once (`shares`) and much of them is common, rows that begin alike come together.
    The loss is a sum over rows with one normaliser, so that it is the same however they are split.

    Args:
        widest: own sizes -> the largest that any process has, row by row: the micro-batches of all
            processes must have the same number of rows.
    """
    num_rows = len(batch["prompt_ids"])
    length = (batch["prompt_mask"].sum(1), batch["completion_mask"].sum(1))
    order = torch.randperm(num_rows, device=length[0].device)
    found = []
    for part in order.chunk(updates):
        part = part[(length[0] + length[1])[part].argsort(descending=True, stable=True)]
        sizes = [(int(length[0][row]), int(length[1][row])) for row in part]
        tokens = padded_tokens
        if shares:
            alike, shared = _by_prompt(batch, part)
            pays = sum(rest for _, rest in shared) <= WORTH_TOGETHER * sum(map(sum, sizes))
            # all processes or none
            if not widest([(int(not pays), 0)])[0][0]:
                part, sizes, tokens = alike, shared, tree_tokens
        start = 0
        for count in balanced_counts(widest(sizes), passes, tokens):
            rows = part[start : start + count]
            start += count
            found.append(
                trim({name: value[rows] if value.dim() else value for name, value in batch.items()})
            )
    return found


def _by_prompt(batch: dict[str, torch.Tensor], part: torch.Tensor) -> tuple[torch.Tensor, Sizes]:
    """Return rows in the order of their prompts, and what each costs as a micro-batch's first row
    and behind the row before it."""
    prompts = {
        row: batch["prompt_ids"][row][batch["prompt_mask"][row] > 0].tolist()
        for row in part.tolist()
    }
    rows = sorted(prompts, key=prompts.__getitem__)
    sizes, before = [], list[int]()
    for row in rows:
        own = int(batch["completion_mask"][row].sum())
        common = num_common(before, prompts[row])
        sizes.append((len(prompts[row]) + own, len(prompts[row]) - common + own))
        before = prompts[row]
    return torch.tensor(rows, device=part.device), sizes


def widest_of_all_processes(sizes: Sizes) -> Sizes:
    """The largest that any training process has, row by row."""
    return [
        (max(num_p for num_p, _ in row), max(num_c for _, num_c in row))
        for row in zip(*gather_object([sizes]), strict=True)
    ]


def padded_tokens(sizes: Sizes) -> int:
    """Return the tokens of a micro-batch, padding counted."""
    return (max(p for p, _ in sizes) + max(c for _, c in sizes)) * len(sizes)


def tree_tokens(sizes: Sizes) -> int:
    """Return the tokens of a micro-batch in which what rows have in common is one, from their sizes
    as the first row and behind another."""
    return sizes[0][0] + sum(behind for _, behind in sizes[1:])


def balanced_counts(
    sizes: Sizes, parts: int, tokens: Callable[[Sizes], int] = padded_tokens
) -> list[int]:
    """How many rows, in this order, make each of `parts` micro-batches, so that the largest has the
    fewest tokens.

    Args:
        sizes: of each row, as `tokens` takes them; at least `parts` rows.
    """

    def filled(budget: int) -> list[int] | None:
        counts: list[int] = []
        rows = 0
        for index in range(len(sizes)):
            # each part that is still to come needs a row
            left = len(sizes) - index
            full = tokens(sizes[index - rows : index + 1]) > budget
            if rows and (full or left <= parts - len(counts) - 1):
                counts.append(rows)
                rows = 0
            rows += 1
            if tokens(sizes[index + 1 - rows : index + 1]) > budget or len(counts) >= parts:
                return None
        return [*counts, rows] if len(counts) == parts - 1 else None

    low, high = 1, max(tokens(sizes), padded_tokens(sizes))
    while low < high:
        middle = (low + high) // 2
        if filled(middle) is None:
            low = middle + 1
        else:
            high = middle
    found = filled(low)
    assert found is not None
    return found


def trim(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Cuts the columns that are padding in every row: prompts on the left, completions on the
    right."""
    num_p = max(1, int(inputs["prompt_mask"].sum(1).max()))
    num_c = max(1, int(inputs["completion_mask"].sum(1).max()))
    trimmed = dict(inputs)
    for name in ("prompt_ids", "prompt_mask"):
        trimmed[name] = inputs[name][:, -num_p:]
    of_tokens = ("completion_ids", "completion_mask", "tool_mask", "old_per_token_logps")
    for name in (*of_tokens, "ref_per_token_logps"):
        if name in inputs:
            trimmed[name] = inputs[name][:, :num_c]
    if inputs["advantages"].dim() == 2:
        trimmed["advantages"] = inputs["advantages"][:, :num_c]
    return trimmed
