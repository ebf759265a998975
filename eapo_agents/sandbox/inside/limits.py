"""Limits that a process sets on itself before it runs anything, and cannot raise later."""

from __future__ import annotations

import resource
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
