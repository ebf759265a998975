"""Child processes that must not outlive their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Have this process get SIGTERM once its parent, process `parent`, ends, even by kill -9.

    To be called in a new process. Outside Linux the parent is checked only once, now.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before prctl was called
        os.kill(os.getpid(), signal.SIGTERM)
