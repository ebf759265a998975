"""SIGTERM ends a command as Ctrl-C does: what has ended is kept, and the exit status is 130."""

from __future__ import annotations

import signal
from types import FrameType


def end_on_sigterm() -> None:
    """Let SIGTERM be an interrupt from now on, in the main thread."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, signal.SIG_DFL, None):
        raise KeyboardInterrupt  # shells start background jobs deaf to Ctrl-C
    signal.raise_signal(signal.SIGINT)
