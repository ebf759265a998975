"""Whether verdicts depend on how busy the machine is: the same 1,000, without and with eight busy
processes on the cores that there are.

    python benchmarks/verdicts_under_load.py [--busy 8]

900 answers of mathematics (numbers, expressions, intervals; right and wrong; of five, one takes
long) and 100 programs (right, wrong, endless). One JSON line: verdicts that are equal, undecided in
one of both, and different, with the machine's load before.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from grading_properties import expressions, intervals, numbers

from eapo_agents.grading import grade
from eapo_agents.types import Problem

TEST = "def check(candidate):\n    assert candidate(30) == 832040\n"
PROGRAMS = (
    "def f(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a\n",
    "def f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\n",
    "def f(n):\n    return 832041\n",
    "def f(n):\n    while True:\n        pass\n",
)
SLOW = r"\boxed{(x+y+z)^{%d}}"


def answers() -> list[tuple[str, Problem]]:
    """Return what is graded: texts with their problems."""
    rng, found = random.Random(0), []
    kinds = (numbers, expressions, intervals)
    while len(found) < 890:
        for gold, text, _ in kinds[len(found) % 3](rng):
            found.append((text, Problem(id="m", question="", answer=gold, grader="math:lenient")))
    found = found[:890]
    for power in range(10):
        gold = f"(x+y+z)^{{{power + 10}}}+1"
        found.append(
            (SLOW % (power + 10), Problem(id="s", question="", answer=gold, grader="math"))
        )
    metadata = {"test": TEST, "entry_point": "f", "prompt": ""}
    problem = Problem(id="c", question="", answer="", grader="code", metadata=metadata)
    for number in range(100):
        # an endless program takes its whole limit: one in ten
        program = PROGRAMS[3] if number % 10 == 9 else PROGRAMS[number % 3]
        found.append((f"```python\n{program}```", problem))
    return found


def verdicts() -> tuple[list[str], float]:
    """Return the verdicts, and the seconds that they took."""
    began = time.perf_counter()
    found = [grade(text, problem) for text, problem in answers()]
    made = ["undecided" if g.undecided else str(g.score) for g in found]
    return made, round(time.perf_counter() - began, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", type=int, default=8)
    given = parser.parse_args()
    load = os.getloadavg()[0]
    idle, idle_s = verdicts()
    spin = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(spin) for _ in range(given.busy)]
    try:
        loaded, loaded_s = verdicts()
    finally:
        for process in busy:
            process.kill()
    pairs = list(zip(idle, loaded, strict=True))
    result = {
        "benchmark": "verdicts_under_load",
        "busy": given.busy,
        "load_before": round(load, 1),
        "verdicts": len(pairs),
        "equal": sum(a == b for a, b in pairs),
        "undecided": [idle.count("undecided"), loaded.count("undecided")],
        "different": sum(a != b and "undecided" not in (a, b) for a, b in pairs),
        "seconds": [idle_s, loaded_s],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
