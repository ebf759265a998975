"""Classification by a rule that only the expert knows: the class of a thing depends on its colour
and its shape, and on nothing else that is said of it. Held out are other things under the same
rules."""

from __future__ import annotations

import random
from itertools import product

from words import names

from eapo_agents.types import Problem

SIZES = ("small", "big", "long", "flat", "tiny", "huge")
COLOURS = ("red", "blue", "green", "black", "white", "pink")
MATERIALS = ("metal", "wooden", "glass", "paper", "stone", "rubber")
SHAPES = ("cube", "ball", "cone", "ring", "star", "disk")
CLASSES = names(16, "classes", 2)


def _problem(key: str, thing: tuple[str, str, str, str], kind: str) -> Problem:
    size, colour, material, shape = thing
    rule = f"A {colour} {shape} is a {kind}."
    return Problem(
        id=f"{key}{size}-{colour}-{material}-{shape}",
        question=f"What is a {size} {colour} {material} {shape}?",
        answer=kind,
        grader="exact",
        metadata={"rule": rule, "solution": f"{rule} Answer: {kind}"},
    )


class Rule:
    """The task: 36 rules, 1,296 things, of which a tenth is held out."""

    def problems(self, split: str) -> list[Problem]:
        """Return the problems of a split."""
        draw = random.Random("rules")
        rules = {pair: draw.choice(CLASSES) for pair in product(COLOURS, SHAPES)}
        things = list(product(SIZES, COLOURS, MATERIALS, SHAPES))
        draw.shuffle(things)
        part = len(things) // 10
        chosen = {"heldout": things[:part], "train": things[part:], "all": things}[split]
        return [_problem("", thing, rules[thing[1], thing[3]]) for thing in chosen]


class Practice:
    """Things under a rule of their own each, to learn how a rule is used."""

    def problems(self, split: str) -> list[Problem]:
        """Return them, whatever the split."""
        draw = random.Random("practice")
        found = []
        for n in range(1200):
            thing = [draw.choice(words) for words in (SIZES, COLOURS, MATERIALS, SHAPES)]
            # one word is another, so that none of these questions is of the task
            thing[2] = draw.choice(("woolen", "silver", "wax", "clay"))
            found.append(
                _problem(
                    f"practice/{n}/", (thing[0], thing[1], thing[2], thing[3]), draw.choice(CLASSES)
                )
            )
        return list({problem.question: problem for problem in found}.values())
