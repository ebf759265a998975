"""How often a grader takes equal answers for unequal, or unequal ones for equal.

    python benchmarks/grading_properties.py [--rounds 10000] [--seed 0] [--kinds numbers,sets]

Kinds: numbers, expressions, intervals, sets, choices, and the `number` grader on numbers. A round
is a random answer: itself in one of its ways of writing, announced in one of twenty ways, which
must be right; and another answer, mostly a close one, which must be wrong. Then `--in-all` answers
of each kind in every way of writing, and with EAPO_DATA (kind math500) the gold answers and the
reference solutions of MATH-500. One JSON line for each kind and run with its misses, the first of
them, and the CPU time of this process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

from grading_ways import KINDS, Kind

from eapo_agents.grading import grade
from eapo_agents.types import Problem

Pair = tuple[str, str, str, bool]
"""Grader, gold answer, what a model wrote, whether it is right."""
_TRIES = 50


def in_a_way(kind: Kind, value: object, rng: random.Random) -> str:
    """Return an answer in one of its ways, announced."""
    for _ in range(_TRIES):
        written = rng.choice(list(kind.ways.values()))(value, rng)
        if written is not None:
            return announced(kind, written, rng)
    raise ValueError(f"no way to write {value}")


def announced(kind: Kind, written: str, rng: random.Random) -> str:
    return rng.choice(kind.announced).replace("%s", written)


def pairs(kind: Kind, rounds: int, rng: random.Random) -> Iterator[Pair]:
    """Yield an equal and an unequal answer each round."""
    for _ in range(rounds):
        value = kind.make(rng)
        gold = kind.gold(value)
        yield kind.grader, gold, in_a_way(kind, value, rng), True
        yield kind.grader, gold, in_a_way(kind, kind.other(value, rng), rng), False


def in_every_way(kind: Kind, num_answers: int, rng: random.Random) -> Iterator[Pair]:
    """Yield answers in every way of writing that they have."""
    for _ in range(num_answers):
        value = kind.make(rng)
        for way in kind.ways.values():
            if (written := way(value, rng)) is not None:
                yield kind.grader, kind.gold(value), announced(kind, written, rng), True


def misses(graded: Iterator[Pair]) -> tuple[int, list[tuple[str, str, float]]]:
    """Return how many verdicts were given, and the wrong ones: (gold, text, score)."""
    found, num_verdicts = [], 0
    for grader, gold, text, right in graded:
        metadata = {"choices": ["one", "two", "three", "four"]} if "choice" in grader else {}
        problem = Problem(id="p", question="q", answer=gold, grader=grader, metadata=metadata)
        score = grade(text, problem).score
        num_verdicts += 1
        if score != float(right):
            found.append((gold, text, score))
    return num_verdicts, found


def math500() -> Iterator[Pair]:
    file = Path(os.environ["EAPO_DATA"]) / "math500" / "test.jsonl"
    for line in file.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        for form in (r"\boxed{%s}", "The answer is $%s$.", record["solution"]):
            text = form % record["answer"] if form.count("%s") == 1 else form
            yield "math:lenient", record["answer"], text, True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--in-all", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", help="some of the kinds, with commas between")
    given = parser.parse_args()
    known = [*KINDS, *(["math500"] if "EAPO_DATA" in os.environ else [])]
    for name in given.kinds.split(",") if given.kinds else known:
        runs = {"all": math500()} if name == "math500" else {}
        if kind := KINDS.get(name):
            rng = random.Random(f"{given.seed}/{name}")
            runs["pairs"] = pairs(kind, given.rounds, rng)
            runs["every way"] = in_every_way(kind, given.in_all, rng)
        for run, graded in runs.items():
            began = time.process_time()
            num_verdicts, found = misses(graded)
            line = {"kind": name, "run": run, "seed": given.seed, "verdicts": num_verdicts}
            if kind:
                line["ways"] = f"{len(kind.ways)} x {len(kind.announced)}"
            line |= {"misses": len(found), "first": found[:5]}
            line["own_cpu_s"] = round(time.process_time() - began, 1)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
