"""Devices that a recipe names, as torch has them here."""

from __future__ import annotations

import torch

from eapo_agents.errors import ModelError


def refuse_device(device: str) -> None:
    """Refuse a device that torch cannot use here.

    Raises:
        ModelError: there is none of that name.
    """
    try:
        if torch.device(device).type == "meta":
            raise RuntimeError("its tensors hold no numbers")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        raise ModelError(
            f"torch {torch.__version__} cannot compute on '{device}' here: set policy.device to "
            f"{' or '.join(['cpu', *gpus])}, or install a build of torch for it."
        ) from error
