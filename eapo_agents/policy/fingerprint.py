"""Fingerprints of weights: equal fingerprints mean equal weights, whatever the folder is called.

The digest covers each tensor's name, shape and up to 4,096 evenly spaced elements, so that any
optimizer step changes it and a large model still takes seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch

from eapo_agents.policy.protocols import CausalModel

_SAMPLES = 4096


def base_fingerprint(model: CausalModel) -> str:
    """Return the fingerprint of a model without its adapter. Tied tensors count once."""
    return _digest(
        (_plain(name), parameter)
        for name, parameter in model.named_parameters()
        if "lora_" not in name
    )


def policy_fingerprint(model: CausalModel, base: str) -> str:
    """Return the fingerprint of base and adapter together.

    An adapter that changes nothing, whose B matrices are 0, has the base's fingerprint.
    """
    adapter = [(name, p) for name, p in model.named_parameters() if "lora_" in name]
    if not adapter:
        return base_fingerprint(model)
    if not any(bool(p.any()) for name, p in adapter if "lora_B" in name):
        return base
    # the adapter's name ("default") is not a property of the weights
    return _digest(((_plain(name), p) for name, p in adapter), seed=base)


def saved_fingerprint(folder: Path, base: str) -> str:
    """Return what `policy_fingerprint` returned for the model that was saved into `folder`, whole
    or as an adapter on the model of fingerprint `base`."""
    adapter = folder / "adapter_model.safetensors"
    if not adapter.exists():
        from transformers import AutoModelForCausalLM

        return base_fingerprint(AutoModelForCausalLM.from_pretrained(str(folder), dtype="auto"))
    from safetensors.torch import load_file

    named = list(load_file(str(adapter)).items())
    if not any(bool(p.any()) for name, p in named if "lora_B" in name):
        return base
    return _digest(((_plain(name), p) for name, p in named), seed=base)


def _plain(name: str) -> str:
    """Return a parameter's name without what PEFT adds to it."""
    for part in ("base_model.model.", ".base_layer", ".default"):
        name = name.replace(part, "")
    return name


def _digest(named: Iterable[tuple[str, torch.Tensor]], seed: str = "") -> str:
    digest = hashlib.blake2b(seed.encode(), digest_size=8)
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        flat = tensor.detach().flatten()
        flat = flat[:: max(1, flat.numel() // _SAMPLES)].cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
