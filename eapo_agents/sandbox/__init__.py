"""A sandbox for code that models write."""

from eapo_agents.sandbox.isolation import Isolation, Limits, find_isolation
from eapo_agents.sandbox.pool import Sandbox
from eapo_agents.sandbox.run import (
    LOST,
    Inputs,
    Outcome,
    Sample,
    Verdict,
    reference_values,
    run_inputs,
    run_program,
)

__all__ = [
    "LOST",
    "Inputs",
    "Isolation",
    "Limits",
    "Outcome",
    "Sample",
    "Sandbox",
    "Verdict",
    "find_isolation",
    "reference_values",
    "run_inputs",
    "run_program",
]
