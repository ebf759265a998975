"""What happens after optimizer steps: weights are published, and whoever waits is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback


class WeightsChanged(TrainerCallback):  # type: ignore[misc]  # transformers' callback is untyped
    """Publishes the weights at the start, since a checkpoint may have been loaded, and after every
    so many optimizer steps."""

    def __init__(self, publish: Callable[[int], None], every: int) -> None:
        self._publish = publish
        self._every = every

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._publish(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self._every == 0:
            self._publish(state.global_step)


class AfterStepCallback(TrainerCallback):  # type: ignore[misc]  # transformers' callback is untyped
    """Tells a step's end, after its weights have been published. The step at which a run continues
    is told again: what is done after it may have been cut off."""

    def __init__(self, after_step: Callable[[int], None], minibatches_per_step: int) -> None:
        self._after_step = after_step
        self._minibatches = minibatches_per_step

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step:
            self.on_step_end(args, state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self._minibatches == 0:
            self._after_step(state.global_step // self._minibatches)
