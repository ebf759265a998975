"""`python -m eapo_agents.grading.math_process`: compares answers with math-verify, one per line.

It writes a line "ready". Then it reads {"gold", "answer"} and writes {"equal", "readable"} or
{"gold_unreadable": true}, again and again.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from functools import lru_cache

from eapo_agents.grading.mathematics import simplify

_MEMORY_BYTES = 2 << 30


@lru_cache(maxsize=2048)
def _parsed(text: str) -> list[object]:
    from math_verify import parse

    # no timeouts here: the caller kills this process when it is late
    found: list[object] = parse(f"${text.strip().strip('$')}$", parsing_timeout=None)
    return found or parse(f"${simplify(text)}$", parsing_timeout=None)


def _reply(gold: str, answer: str) -> dict[str, bool]:
    from math_verify import verify

    try:
        wanted = _parsed(gold)
    except Exception:
        wanted = None
    if not wanted:
        return {"gold_unreadable": True}
    try:
        given = _parsed(answer)
        equal = bool(given) and verify(wanted, given, timeout_seconds=None)
    except Exception:  # sympy raises anything on what policies write
        return {"equal": False, "readable": False}
    return {"equal": bool(equal), "readable": bool(given)}


def main() -> None:
    """Answer until the input ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not look like a reply
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _reply("1", "2")  # loads sympy
    out.write("ready\n")
    out.flush()
    while True:
        line = sys.stdin.readline()
        if not line:
            return
        message = json.loads(line)
        out.write(json.dumps(_reply(message["gold"], message["answer"])) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
