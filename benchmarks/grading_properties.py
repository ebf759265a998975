"""How often a grader takes equal answers for unequal, or unequal ones for equal.

    python benchmarks/grading_properties.py [--rounds 10000] [--seed 0]

Random numbers, expressions, intervals, lists, sets and letters, each in a random way of writing it,
against the same answer and against another one; and 100 answers of each kind in every way of
announcing and dressing it (63, 49 and 44 ways). With EAPO_DATA
also the gold answers of MATH-500. One JSON line with the misses of each kind, their first examples,
and the CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

from eapo_agents.grading import grade
from eapo_agents.types import Problem

Pair = tuple[str, str, bool]
"""Gold answer, what a model wrote, whether it is right."""

ANNOUNCED = (
    r"\boxed{%s}",
    "The answer is $%s$.",
    r"The answer is \(%s\).",
    "**Answer:** $%s$",
    "<answer>%s</answer>",
    r"The final answer is $\boxed{%s}$. I hope it is correct.",
    "Hence\n\\[\n\\boxed{%s}\n\\]",
)
DRESSED = (
    "%s",
    r"\mathbf{%s}",
    r"\boldsymbol{%s}",
    r"\color{red}{%s}",
    r"\displaystyle %s",
    "{%s}",
    " %s ",
    r"%s\text{ cm}",
    "x = %s",
)
LETTERS = (
    "%s",
    "(%s)",
    "**%s**",
    "Answer: %s",
    "The answer is (%s).",
    r"\boxed{\text{%s}}",
    "Therefore, %s is the correct answer.",
    "Answer: %s, not E",
    "La respuesta correcta es %s.",
    "The answer must be %s.",
    "Option %s is right.",
)


def a_number(rng: random.Random) -> Fraction:
    kind = rng.randrange(3)
    if kind == 0:
        return Fraction(rng.randint(-(10**6), 10**6))
    if kind == 1:
        return Fraction(rng.randint(-999, 999), rng.randint(1, 99))
    return Fraction(rng.randint(-99999, 99999), 10 ** rng.randint(1, 4))


def written(value: Fraction, rng: random.Random) -> str:
    """Return a number in one of the ways to write it."""
    sign, top, bottom = "-" if value < 0 else "", abs(value.numerator), value.denominator
    ways = [rf"{sign}\frac{{{top}}}{{{bottom}}}", f"{sign}{top}/{bottom}"]
    ways += [rf"\frac{{{sign}{2 * top}}}{{{2 * bottom}}}", rf"{sign}\dfrac{{{top}}}{{{bottom}}}"]
    if bottom == 1:
        ways += [
            f"{sign}{top}",
            f"{sign}{top:,}",
            f"{sign}{top}.0",
            f"\u2212{top}" if sign else "0",
        ]
    elif 10**6 % bottom == 0:
        ways.append(f"{sign}{float(abs(value)):f}".rstrip("0"))
    if top > bottom > 1:
        ways.append(rf"{sign}{top // bottom}\frac{{{top % bottom}}}{{{bottom}}}")
    way = rng.choice(ways)
    return f"{sign}{top}" if way == "0" else way


def numbers(rng: random.Random) -> Iterator[Pair]:
    one, other = a_number(rng), a_number(rng)
    for value in (one, other):
        text = rng.choice(DRESSED) % written(value, rng)
        yield written(one, rng), rng.choice(ANNOUNCED) % text, value == one


def collections(rng: random.Random) -> Iterator[Pair]:
    kind = rng.choice(["%s", r"\{%s\}", "(%s)", "[%s]", "(%s]", "[%s)"])
    ordered = "(" in kind or "[" in kind
    values = sorted({a_number(rng) for _ in range(2 if ordered else rng.randint(2, 4))})
    if len(values) < 2:
        return
    gold = kind % ", ".join(rf"\frac{{{v.numerator}}}{{{v.denominator}}}" for v in values)
    wrong = [values[0] + rng.choice([1, -1, Fraction(1, 10**7)]), *values[1:]]
    for found in (values, wrong):
        given = found if ordered else rng.sample(found, len(found))
        text = kind % ", ".join(rf"\frac{{{v.numerator}}}{{{v.denominator}}}" for v in given)
        yield gold, rf"\boxed{{{text}}}", set(found) == set(values)


def an_expression(rng: random.Random) -> list[tuple[int, int, int]]:
    """Return a polynomial in x and y: (coefficient, power of x, power of y) of each term."""
    powers = rng.sample([(i, j) for i in range(4) for j in range(3)], rng.randint(2, 4))
    return [(rng.choice([-1, 1]) * rng.randint(1, 30), i, j) for i, j in powers]


def expression(terms: list[tuple[int, int, int]], rng: random.Random) -> str:
    """Return a polynomial with its terms in any order, whole, halved or as a factor of x."""
    way = rng.randrange(4)
    scale = 2 if way == 1 else 1
    parts = []
    for number, i, j in rng.sample(terms, len(terms)):
        shift = 1 if way == 2 else 0
        dot = rng.choice(["", r"\cdot ", "*"])
        x = "" if not i + shift else "x" if i + shift == 1 else rf"x^{{{i + shift}}}"
        y = "" if not j else "y" if j == 1 else f"y^{j}"
        letters = [letter for letter in (x, y) if letter]
        size = abs(number) * scale
        factors = ([str(size)] if size != 1 or not letters else []) + letters
        parts.append(("-" if number < 0 else "+") + dot.join(factors))
    body = "".join(parts).removeprefix("+")
    return {1: rf"\frac{{{body}}}{{2}}", 2: rf"\frac{{{body}}}{{x}}"}.get(way, body)


def expressions(rng: random.Random) -> Iterator[Pair]:
    terms = an_expression(rng)
    (number, i, j), *others = terms
    changed = rng.choice(
        [(-number, i, j), (number + rng.choice([31, 62]), i, j), (number, i + 4, j)]
    )
    for found in (terms, [changed, *others]):
        text = expression(found, rng)
        yield expression(terms, rng), rng.choice(ANNOUNCED) % text, found is terms


def an_interval(rng: random.Random) -> tuple[str, str, str, str]:
    low, high = sorted(rng.sample(range(-50, 50), 2))
    left, right = rng.choice("(["), rng.choice(")]")
    ends = rng.randrange(4)
    if ends == 0:
        return "(", r"-\infty", str(high), right
    if ends == 1:
        return left, str(low), r"\infty", ")"
    return left, rf"\frac{{{2 * low + 1}}}{{2}}", str(high), right


def interval(found: tuple[str, str, str, str], rng: random.Random) -> str:
    left, low, high, right = found
    below = {"(": "<", "[": r"\le ", ")": "<", "]": r"\le "}
    ways = [f"{left}{low},{high}{right}", rf"\left{left}{low}, {high}\right{right}"]
    ways.append(rf"x \in {left}{low},{high}{right}")
    if "infty" not in low + high:
        ways.append(f"{low}{below[left]}x{below[right]}{high}")
        ways.append(f"{'[' if left == '[' else ']'}{low},{high}{']' if right == ']' else '['}")
    return rng.choice(ways)


def intervals(rng: random.Random) -> Iterator[Pair]:
    one = an_interval(rng)
    other = an_interval(rng)
    for found in (one, other, ("[" if one[0] == "(" else "(", *one[1:])):
        gold = f"{one[0]}{one[1]},{one[2]}{one[3]}"
        yield gold, rng.choice(ANNOUNCED) % interval(found, rng), found == one


def in_every_way(rng: random.Random) -> Iterator[tuple[str, Pair]]:
    """Yield 100 answers of each kind in every way, with their grader."""
    for _ in range(100):
        low, high = sorted(rng.sample(range(99), 2))
        made = (written(a_number(rng), rng), expression(an_expression(rng), rng))
        for gold in (*made, f"({low},{high}]", rf"\{{{low}, {high}\}}"):
            for announced in ANNOUNCED:
                for dressed in DRESSED if gold in made else DRESSED[:-2]:
                    yield "math:lenient", (gold, announced % (dressed % gold), True)
        letter = rng.choice("ABCD")
        for way in LETTERS:
            for line in ("%s", "It was long.\n\n%s", "<think>A or C?</think>%s", "%s\n"):
                yield "choice:lenient", (letter, line % (way % letter), True)


def letters(rng: random.Random) -> Iterator[Pair]:
    gold = rng.choice("ABCD")
    for letter in (gold, rng.choice("ABCD")):
        yield gold, rng.choice(LETTERS) % letter, letter == gold


def misses(pairs: Iterator[Pair], grader: str) -> list[tuple[str, str, float]]:
    found = []
    for gold, text, right in pairs:
        metadata = {"choices": ["one", "two", "three", "four"]} if "choice" in grader else {}
        problem = Problem(id="p", question="q", answer=gold, grader=grader, metadata=metadata)
        score = grade(text, problem).score
        if score != float(right):
            found.append((gold, text, score))
    return found


def math500() -> Iterator[Pair]:
    file = Path(os.environ["EAPO_DATA"]) / "math500" / "test.jsonl"
    for line in file.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        for announced in (r"\boxed{%s}", "The answer is $%s$.", record["solution"]):
            text = announced % record["answer"] if announced.count("%s") == 1 else announced
            yield record["answer"], text, True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    kinds: dict[str, tuple[Callable[[random.Random], Iterator[Pair]], str]] = {
        "numbers": (numbers, "math:lenient"),
        "expressions": (expressions, "math:lenient"),
        "intervals": (intervals, "math:lenient"),
        "collections": (collections, "math:lenient"),
        "letters": (letters, "choice:lenient"),
    }
    result: dict[str, object] = {"benchmark": "grading_properties", **vars(given)}
    for name, (make, grader) in kinds.items():
        rng = random.Random(f"{given.seed}/{name}")
        pairs = [pair for _ in range(given.rounds) for pair in make(rng)]
        found = misses(iter(pairs), grader)
        result[name] = {"verdicts": len(pairs), "misses": len(found), "first": found[:5]}
    every = list(in_every_way(random.Random(f"{given.seed}/ways")))
    found = [miss for grader, pair in every for miss in misses(iter([pair]), grader)]
    result["every way"] = {"verdicts": len(every), "misses": len(found), "first": found[:5]}
    if "EAPO_DATA" in os.environ:
        pairs = list(math500())
        found = misses(iter(pairs), "math:lenient")
        result["math500"] = {"verdicts": len(pairs), "misses": len(found), "first": found[:5]}
    usage = resource.getrusage(resource.RUSAGE_SELF)
    result["own_cpu_s"] = round(usage.ru_utime + usage.ru_stime, 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
