"""Logprobs and entropies of the tokens that are scored, and of no others.

A vocabulary is large beside a small model: in SmolLM2-135M the logits of all positions take a
quarter of the forward pass, and nearly half of the backward pass. Only the tokens that the policy
sampled are trained, not the prompt and not the experts' replies. On a GPU, TRL leaves out positions
without a label; on a CPU it computes them all, so they are left out before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from trainers.prefix_sharing import Packed, as_padded, pack

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.nn import Module

Figures = tuple[torch.Tensor, torch.Tensor | None, object]
"""What TRL asks for: logprobs and entropies (R, C), and a loss of experts in the model's layers."""


def figures_of(
    model: Module,
    accelerator: Accelerator,
    rows: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    *,
    rows_at_once: int,
    entropy: bool,
) -> Figures:
    """Return logprobs, and entropies if they are asked for: 0 where nothing is scored. Rows that
    begin alike are one sequence where the model allows it and it costs less.

    Args:
        model: it has TRL's fused head.
        rows: token ids and attention mask (R, P + C), and which tokens are scored (R, C).
        rows_at_once: most rows of a forward pass.
    """
    inner = accelerator.unwrap_model(model)
    causal_lm = inner.get_base_model() if hasattr(inner, "peft_config") else inner
    found = []
    for first in range(0, len(rows[0]), rows_at_once):
        ids, mask, scored = (tensor[first : first + rows_at_once] for tensor in rows)
        packed = pack(ids, mask, scored, inner.config)
        is_padding = not scored.any()  # such a pass has a gradient too, of 0
        if packed is None:
            packed = as_padded(ids, mask, scored | is_padding)
        with accelerator.autocast():
            figures = _pass(model, causal_lm, packed, scored.shape)
        if is_padding:
            figures = (figures[0] * 0, None if figures[1] is None else figures[1] * 0)
        found.append(figures)
    logprobs, entropies = zip(*found, strict=True)
    return torch.cat(logprobs), torch.cat(entropies) if entropy else None, None


def _pass(
    model: Module, causal_lm: Module, packed: Packed, shape: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return logprobs (R, C) of one forward pass, and entropies if the model's head has them."""
    inputs = packed.model_inputs()
    if packed.input_ids.device.type != "cpu":
        found = model(**inputs, fused_lm_head=True)
        logprobs, entropies = found.log_probs[packed.places], found.entropy
        entropies = None if entropies is None else entropies[packed.places]
    else:
        labels = inputs.pop("shift_labels")[packed.places]
        with _only(packed.places, causal_lm):
            found = model(**inputs, shift_labels=labels[None], fused_lm_head=True)
        logprobs = found.log_probs[0]
        entropies = None if found.entropy is None else found.entropy[0]
    return packed.unpack(logprobs, shape), (
        None if entropies is None else packed.unpack(entropies, shape)
    )


@contextmanager
def _only(places: tuple[torch.Tensor, torch.Tensor], causal_lm: Module) -> Iterator[None]:
    """Let the model's backbone return the hidden states (1, N, H) of these places alone."""

    def keep(module: Module, given: object, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[places][None]
        return output

    backbone: Module = causal_lm.base_model  # type: ignore[assignment]
    hook = backbone.register_forward_hook(keep)
    try:
        yield
    finally:
        hook.remove()
