"""Benchmarks by name: each in a module of its own."""

from __future__ import annotations

import difflib
from importlib import import_module

from eapo_agents.errors import BenchmarkError
from evals.benchmark import Benchmark

BENCHMARKS: dict[str, str] = {
    "aime24": "evals.benchmarks.aime24:AIME24",
    "aime25": "evals.benchmarks.aime25:AIME25",
    "aimo": "evals.benchmarks.aimo:AIMO",
    "math500": "evals.benchmarks.math500:MATH500",
    "gsm8k": "evals.benchmarks.gsm8k:GSM8K",
    "humaneval": "evals.benchmarks.humaneval:HUMANEVAL",
    "humanevalplus": "evals.benchmarks.humanevalplus:HUMANEVAL_PLUS",
    "mbppplus": "evals.benchmarks.mbppplus:MBPP_PLUS",
    "gpqa": "evals.benchmarks.gpqa:GPQA",
    "mmlu": "evals.benchmarks.mmlu:MMLU",
    "hle": "evals.benchmarks.hle:HLE",
    "hotpotqa": "evals.benchmarks.hotpotqa:DISTRACTOR",
    "hotpotqaclosed": "evals.benchmarks.hotpotqa:CLOSED_BOOK",
    "simpleqa": "evals.benchmarks.simpleqa:SIMPLEQA",
}
"""Name -> "module:object"."""
_ALIASES = {
    "aime2024": "aime24",
    "aime2025": "aime25",
    "aimo2": "aimo",
    "aimo2025": "aimo",
    "math": "math500",
    "gpqadiamond": "gpqa",
    "hotpotqadistractor": "hotpotqa",
    "hotpotqaclosedbook": "hotpotqaclosed",
    "hotpot": "hotpotqa",
    "evalplus": "humanevalplus",
    "evalplushumaneval": "humanevalplus",
    "evalplusmbpp": "mbppplus",
    "mbpp": "mbppplus",
}


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of that name; case, hyphens and underscores do not matter, and `+` is `plus`.

    Raises:
        BenchmarkError: there is none; lists the known ones.
    """
    plain = "".join(c for c in name.lower().replace("+", "plus") if c.isalnum())
    plain = _ALIASES.get(plain, plain)
    if plain not in BENCHMARKS:
        near = difflib.get_close_matches(plain, BENCHMARKS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise BenchmarkError(
            f"Unknown benchmark '{name}': use one of {', '.join(BENCHMARKS)}.{hint}"
        )
    module, name = BENCHMARKS[plain].split(":")
    found: Benchmark = getattr(import_module(module), name)
    return found
