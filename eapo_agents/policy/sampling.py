"""Draws tokens from logits with random numbers that depend on the request and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from eapo_agents.policy.batching import Request
from eapo_agents.schedules import counter_key


class BatchSampler:
    """Samples one token per row and step, by inverse transform of that row's own uniform numbers.

    The numbers come from a Philox generator keyed by the request, one per position. Neither the
    other rows of the batch nor the order of arrival changes them.

    Inverse transform: with probabilities (0.2, 0.5, 0.3) the cumulative sums are (0.2, 0.7, 1.0),
    and a uniform number of 0.4 draws token 1, the first whose sum exceeds it. `torch.multinomial`
    would do the same from a generator that all rows share, so that a row's tokens would depend on
    its company.
    """

    def __init__(self, requests: Sequence[Request], device: torch.device) -> None:
        settings = [request.sampling for request in requests]
        self._greedy = torch.tensor([s.temperature == 0 for s in settings], device=device)
        self._temperature = torch.tensor([s.temperature or 1.0 for s in settings], device=device)
        self._top_p = torch.tensor([s.top_p for s in settings], device=device)
        uniforms = np.stack([_uniforms(request) for request in requests])
        # a float32 can round up to 1, which would draw the last token of the vocabulary
        self._uniforms = (
            torch.tensor(uniforms, dtype=torch.float32).clamp(max=1 - 2**-24).to(device)
        )

    def sample(self, logits: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens and their logprobs, both of shape (B,), from logits of shape (B, V).

        The logprobs are those of the distribution that was sampled: after temperature and top-p.
        Greedy rows report the logprob at temperature 1.
        """
        # in float32 even for a bfloat16 model: a sum over the vocabulary needs the digits
        logprobs = (logits.float() / self._temperature[:, None]).log_softmax(-1)
        if bool((self._top_p < 1).any()):
            logprobs = _truncate(logprobs, self._top_p)
        cumulative = logprobs.exp().cumsum(-1)
        # rounding leaves the last sum a little off 1: scaled by it, no number falls behind the end
        threshold = self._uniforms[:, step : step + 1] * cumulative[:, -1:]
        drawn = torch.searchsorted(cumulative, threshold, right=True).squeeze(1)
        drawn = drawn.clamp(max=logits.shape[1] - 1)
        tokens = torch.where(self._greedy, logprobs.argmax(-1), drawn)
        return tokens, logprobs.gather(1, tokens[:, None]).squeeze(1)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows of the batch, in this order."""
        rows_B = torch.tensor(rows, device=self._greedy.device)
        self._greedy = self._greedy[rows_B]
        self._temperature = self._temperature[rows_B]
        self._top_p = self._top_p[rows_B]
        self._uniforms = self._uniforms[rows_B]


def _uniforms(request: Request) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the request's uniform numbers, one per token that it may sample."""
    key = request.key
    counter = (key.seed, key.problem_id, key.step, key.rollout, key.turn)
    branch = (key.branch,) if key.branch else ()
    philox = np.random.Philox(key=counter_key("token", *counter, *branch))
    return np.random.Generator(philox).random(request.sampling.max_new_tokens)


def _truncate(logprobs: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Keep the smallest set of tokens whose probability reaches `top_p`, and renormalise."""
    ordered, order = logprobs.sort(dim=-1, descending=True)
    # the probability of all tokens in front of this one: the first token is always kept, and so is
    # the one that crosses `top_p`
    before = ordered.exp().cumsum(-1) - ordered.exp()
    dropped = torch.zeros_like(before, dtype=torch.bool).scatter(1, order, before >= top_p[:, None])
    return logprobs.masked_fill(dropped, -torch.inf).log_softmax(-1)
