"""What competitions of mathematics share: a problem, an integer or expression, a boxed answer."""

from __future__ import annotations

from evals.benchmark import Record

PROMPT = "{question}\n\nReason step by step, and put your final answer within \\boxed{{}}."
"""The instruction that DeepSeek-R1's model card recommends for mathematics, in substance."""


def first_of(record: Record, *names: str) -> str:
    """Return the first of these fields that the record has.

    Raises:
        KeyError: it has none of them.
    """
    for name in names:
        if record.get(name) is not None:
            return str(record[name])
    raise KeyError(f"none of {', '.join(names)}")
