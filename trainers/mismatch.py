"""How far the engine's logprobs are from the trainer's, for the report of a step."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(slots=True)
class Mismatch:
    """|logprob of the trainer - logprob of the engine| over sampled tokens, under the same weights:
    what kernels and number formats cause."""

    passes_left: int = 0
    """Forward passes until the weights change."""
    total: float = 0.0
    count: float = 0.0
    largest: float = 0.0
    entropy: float = 0.0
    """Summed over the tokens, in nats."""
    num_entropy: float = 0.0

    def add(self, difference: torch.Tensor, mask: torch.Tensor) -> None:
        """Count the tokens where the mask is 1."""
        found = difference.abs() * mask
        self.total += float(found.sum())
        self.count += float(mask.sum())
        self.largest = max(self.largest, float(found.max()))

    def add_entropy(self, entropy: torch.Tensor, mask: torch.Tensor) -> None:
        """Count the policy's entropy at the tokens where the mask is 1."""
        self.entropy += float((entropy * mask).sum())
        self.num_entropy += float(mask.sum())

    def figures(self, device: torch.device) -> torch.Tensor:
        """Return total, count, largest, entropy and its count, shape (5,)."""
        figures = [self.total, self.count, self.largest, self.entropy, self.num_entropy]
        return torch.tensor(figures, device=device)
