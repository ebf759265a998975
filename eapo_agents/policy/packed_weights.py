"""Linear layers as oneDNN has them, for as long as a CPU samples.

A decoding step multiplies a few rows by every weight. PyTorch's own product (MKL's) puts each of
them into another order first, each time: with three rows that takes most of the step. Here the
weights are put in order once, and a LoRA adapter, which PEFT computes beside its layer by two more
products and a sum, is added to them before. That is a second copy of the weights. The trainer's own
are not touched: PEFT's merging would take the adapter out again by subtraction, and leave the
rounding of each step in them.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch

from eapo_agents.policy.protocols import CausalModel

MOST_BYTES = 2 << 30
"""Of the second copy. A larger model's memory may be all that there is."""

Forward = Callable[..., torch.Tensor]


class PackedWeights:
    """The layers of a model with their weights in order."""

    def __init__(self) -> None:
        self._forwards: list[Forward] = []
        self._key: object = None

    def clear(self) -> None:
        """Forget the weights: to be called after each change. Most changes are noticed by
        themselves, but a fused optimizer's step counts as none in the tensors that it writes."""
        self._forwards.clear()
        self._key = None

    @contextmanager
    def applied(self, model: CausalModel) -> Iterator[None]:
        """Let the model's layers compute with packed weights, where they can."""
        layers = _layers(model) if _has_onednn() else []
        key = [_state(layer) for layer in layers]
        if key != self._key:
            self.clear()  # not both copies at once
            self._forwards = [_packed(layer) for layer in layers]
            self._key = key
        try:
            for layer, forward in zip(layers, self._forwards, strict=True):
                layer.forward = forward
            yield
        finally:
            for layer in layers:
                layer.__dict__.pop("forward", None)


@cache
def _has_onednn() -> bool:
    """Return whether this PyTorch has the two operators, which its compiler uses likewise."""
    return (
        platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _layers(model: Any) -> list[Any]:
    """Return the linear layers in float32 on a CPU, those with a plain adapter as one layer; none
    where their copy is too large."""
    peft: Any = sys.modules.get("peft")
    adapted = peft.tuners.lora.Linear if peft else None  # without it there is no adapter
    found: list[Any] = []
    inside: set[int] = set()  # of a layer that is found
    for module in model.modules():  # a layer comes before what is in it
        if id(module) in inside or "forward" in module.__dict__:
            continue
        if type(module) is adapted and _is_plain(module):
            inside.update(map(id, module.modules()))
        elif type(module) is not torch.nn.Linear:
            continue
        if all(w.dtype == torch.float32 and w.device.type == "cpu" for w in _weights(module)):
            found.append(module)
    size = sum(_weights(layer)[0].nbytes for layer in found)
    return found if size <= MOST_BYTES else []


def _is_plain(layer: Any) -> bool:
    """Return whether a layer with adapters is its weight and the sum of theirs, no more."""
    return (
        type(layer.base_layer) is torch.nn.Linear
        and not layer.disable_adapters
        and not layer.merged
        and not layer.fan_in_fan_out
        and not any(name in layer.lora_variant or layer.lora_bias[name] for name in _active(layer))
    )


def _active(layer: Any) -> list[str]:
    if type(layer) is torch.nn.Linear:
        return []
    return [name for name in layer.active_adapters if name in layer.lora_A]


def _weights(layer: Any) -> list[torch.Tensor]:
    """Return the layer's weight, and down and up of its adapters."""
    pairs = [(layer.lora_A[name].weight, layer.lora_B[name].weight) for name in _active(layer)]
    return [getattr(layer, "base_layer", layer).weight, *(w for pair in pairs for w in pair)]


def _state(layer: Any) -> tuple[object, ...]:
    """Return what is another after most changes in place, and with another tensor."""
    scalings = [layer.scaling[name] for name in _active(layer)]
    return (id(layer), *scalings, *((id(w), w._version) for w in _weights(layer)))


@torch.no_grad()
def _packed(layer: Any) -> Forward:
    weight, *adapters = _weights(layer)
    names = _active(layer)
    for name, down, up in zip(names, adapters[::2], adapters[1::2], strict=True):
        weight = torch.addmm(weight, up, down, alpha=layer.scaling[name])
    # the second number is how many rows to expect: the order is the same for all
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, 32)
    return partial(_linear, packed, getattr(layer, "base_layer", layer).bias)


def _linear(packed: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return product
