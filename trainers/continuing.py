"""How a training run ends early, and continues.

An interrupt (Ctrl-C, SIGTERM) during rollouts drops the step, one during optimization lets the step
end; then a checkpoint is written, whatever `train.save_steps` says. The same where the experts'
budget is spent or the engine is lost. A run that is killed with -9 has no such checkpoint: it
repeats the steps since its last one with the rollouts that are stored, which the same weights
sampled, and so comes to what an unbroken run comes to.
"""

from __future__ import annotations

import json
import random
import signal
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from eapo_agents.errors import BudgetError, EngineLostError
from eapo_agents.types import RolloutGroup
from trainers.grpo import EapoTrainer
from trainers.sources import RolloutSource

ENDED_EARLY = (KeyboardInterrupt, BudgetError, EngineLostError)
"""What ends a run whose last step is whole."""


class Interrupts(TrainerCallback):  # type: ignore[misc]  # transformers' callback is untyped
    """Holds interrupts back while weights change."""

    def __init__(self) -> None:
        self.pending = False
        self.between_steps = False
        """Whether what ended the run did so between two steps."""
        self._random: _RandomState | None = None

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Only note an interrupt, except in `let_through`. A second one is not held back."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before or signal.SIG_DFL)

    @contextmanager
    def let_through(self) -> Iterator[None]:
        """Raise KeyboardInterrupt for one that comes, or has come."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            if self.pending:
                raise KeyboardInterrupt
            yield
        except KeyboardInterrupt:
            self.pending = True
            raise
        finally:
            signal.signal(signal.SIGINT, before or signal.SIG_DFL)

    def interruptible(self, after_step: Callable[[int], None]) -> Callable[[int], None]:
        """Return `after_step`, which an interrupt may end: its step is whole, and it is told again
        when the run continues."""

        def told(step: int) -> None:
            try:
                with self.let_through():
                    after_step(step)
            except ENDED_EARLY:
                self.between_steps = True
                raise

        return told

    def restore_random(self) -> None:
        """Put the random numbers back to where the last step left them."""
        if self._random is not None:
            self._random.restore()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._random = _RandomState()
        if self.pending:
            control.should_save = True
            control.should_training_stop = True

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.pending:
            raise KeyboardInterrupt
        self.pending = True


class InterruptibleSource:
    """A `RolloutSource` whose rollouts can be interrupted."""

    def __init__(self, source: RolloutSource, interrupts: Interrupts) -> None:
        self._source = source
        self._interrupts = interrupts

    def __len__(self) -> int:
        return len(self._source)

    def groups(
        self, items: Sequence[int], step: int, elsewhere: Collection[int] = ()
    ) -> list[RolloutGroup]:
        """Return the source's groups."""
        try:
            with self._interrupts.let_through():
                return self._source.groups(items, step, elsewhere)
        except ENDED_EARLY:
            self._interrupts.between_steps = True
            raise


class _RandomState:
    """Where the generators of Python, NumPy and torch are."""

    def __init__(self) -> None:
        self._python = random.getstate()
        self._numpy = np.random.get_state()
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def restore(self) -> None:
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)


def train_on(trainer: EapoTrainer, interrupts: Interrupts, folder: Path) -> bool:
    """Train from the folder's last checkpoint to the end; return whether that was the end already.

    Raises:
        KeyboardInterrupt, BudgetError, EngineLostError: the run ended early. Its last whole step
            has a checkpoint.
    """
    checkpoint = last_whole_checkpoint(folder)
    # several processes would have to agree on which step is the last
    alone = trainer.accelerator.num_processes == 1
    trainer.add_callback(_NothingMore())
    try:
        with interrupts.held_back() if alone else nullcontext():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except _NothingLeftError:
        return True
    except ENDED_EARLY:
        step = trainer.state.global_step
        saved = last_whole_checkpoint(folder)
        if interrupts.between_steps and alone and step and _step_of(saved) < step:
            interrupts.restore_random()
            trainer._save_checkpoint(trainer.model, trial=None)
        raise
    if interrupts.pending and trainer.state.global_step < trainer.state.max_steps:
        raise KeyboardInterrupt
    return False


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Return the latest checkpoint that was written to its end: its last file is the trainer's
    state."""
    whole = []
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            state = json.loads((checkpoint / "trainer_state.json").read_text())
        except (OSError, ValueError):
            continue
        whole.append((int(state["global_step"]), checkpoint))
    return max(whole)[1] if whole else None


def _step_of(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


class _NothingLeftError(Exception):
    """The checkpoint is that of a finished run."""


class _NothingMore(TrainerCallback):  # type: ignore[misc]  # transformers' callback is untyped
    """Ends the training of a finished run before its first step: the trainer would look at the
    number of steps only after one more."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            raise _NothingLeftError
