"""Limits that a process sets on itself before it runs anything, and cannot raise later."""

from __future__ import annotations

import _thread
import resource
import sys
from collections.abc import Mapping


def set_limits(limits: Mapping[str, int]) -> None:
    """Set memory_bytes, cpu_s, file_bytes and open_files (see eapo_agents.sandbox.Limits)."""
    wanted = {
        resource.RLIMIT_AS: limits["memory_bytes"],
        resource.RLIMIT_DATA: limits["memory_bytes"],
        resource.RLIMIT_STACK: limits["memory_bytes"],
        resource.RLIMIT_CPU: limits["cpu_s"],
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_NOFILE: limits["open_files"],
        resource.RLIMIT_CORE: 0,
    }
    for what, limit in wanted.items():
        _, hard = resource.getrlimit(what)
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        try:
            resource.setrlimit(what, (limit, limit))
        except (ValueError, OSError):  # macOS has no limit on the address space
            continue


def limit_threads(most: int) -> None:
    """Let Python start no more threads; what starts some by other means meets the harness."""
    start = _thread.start_new_thread

    def limited(*arguments: object, **named: object) -> int:
        if _thread._count() >= most:
            raise RuntimeError("can't start new thread")
        return start(*arguments, **named)  # type: ignore[call-overload, no-any-return]

    _thread.start_new_thread = limited
    if "threading" in sys.modules:
        sys.modules["threading"]._start_new_thread = limited  # type: ignore[attr-defined]
