"""Parts that TRL's trainer is given in the place of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.utils.data import Sampler
from trl.trainer.utils import RepeatSampler


class BetaOfRows(float):
    """TRL's `beta`, with each row's weight in it. TRL multiplies the divergence of every token by
    `beta`, and would count a trajectory of n rows n times."""

    def __new__(cls, beta: float, weights: torch.Tensor) -> BetaOfRows:
        return super().__new__(cls, beta)

    def __init__(self, beta: float, weights: torch.Tensor) -> None:
        """Take the weights (R, 1)."""
        self._of_rows = beta * weights

    def __mul__(self, divergence: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return self._of_rows * divergence


class EpochSampler(Sampler[int]):
    """A sampler whose order in an epoch is the one that a run has which was never cut off."""

    def __init__(self, sampler: RepeatSampler, epoch: Callable[[], int]) -> None:
        self._sampler = sampler
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[int]:
        generator = self._sampler.generator
        generator.manual_seed(self._sampler.seed)
        for _ in range(self._epoch()):
            torch.randperm(self._sampler.num_samples, generator=generator)
        return iter(self._sampler)
