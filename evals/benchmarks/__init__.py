"""Benchmarks by name: each in its own module."""

from __future__ import annotations

from eapo_agents.errors import BenchmarkError
from eapo_agents.registry import Registry
from evals.benchmark import Benchmark

BENCHMARKS = Registry[Benchmark](
    "benchmark",
    {
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
    },
    accept=lambda found: found if isinstance(found, Benchmark) else None,
    rule="an evals.benchmark.Benchmark",
    error=BenchmarkError,
)
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


def is_benchmark(name: str) -> bool:
    """Return whether `find_benchmark` finds it."""
    return _plain(name) in BENCHMARKS


def find_benchmark(name: str) -> Benchmark:
    """Return the benchmark of that name: a short one, or `package.module:object`. In a short name
    case, hyphens and underscores do not matter, and `+` is `plus`.

    Raises:
        BenchmarkError: there is none.
    """
    return BENCHMARKS.find(name if ":" in name else _plain(name))


def _plain(name: str) -> str:
    plain = "".join(c for c in name.lower().replace("+", "plus") if c.isalnum())
    return _ALIASES.get(plain, plain)
