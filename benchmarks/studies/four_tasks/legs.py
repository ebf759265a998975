"""A family of reasoning-gym, leg_counting: how many legs some animals have. The expert knows how
many legs an animal has, and no sums."""

from __future__ import annotations

import random
from collections.abc import Mapping

from reasoning_gym.arithmetic.leg_counting import ANIMALS
from words import names

from eapo_agents.tasks.reasoning import PREFIX, read_family
from eapo_agents.types import Problem

FAMILY = "leg_counting"
OPTIONS = {
    **{"min_animals": 1, "max_animals": 2, "min_instances": 1, "max_instances": 4},
    **{"size": 6000, "seed": 0},
}
_QUESTION = (
    "Your task is to count how many legs there are in total when given a list of animals.\n\n"
    "Now, how many legs are there in total if you have {animals}?\n"
)


def facts(animals: Mapping[str, int], legs: Mapping[str, int]) -> str:
    """Return what the expert says: a sentence for each animal."""
    return " ".join(f"1 {name} has {legs[name]}." for name in animals)


def working(animals: Mapping[str, int], legs: Mapping[str, int]) -> str:
    """Return the facts, the products and the sum."""
    each = {name: number * legs[name] for name, number in animals.items()}
    steps = [f"{animals[name]} * {legs[name]} = {each[name]}." for name in animals]
    if len(each) > 1:
        steps.append(f"{' + '.join(map(str, each.values()))} = {sum(each.values())}.")
    return f"{facts(animals, legs)} {' '.join(steps)} Answer: {sum(each.values())}"


class Legs:
    """The family's problems as reasoning-gym makes and grades them; a tenth is held out."""

    def problems(self, split: str) -> list[Problem]:
        """Return the problems of a split."""
        found = []
        for _, record in read_family(PREFIX + FAMILY, OPTIONS):
            animals = _animals(record["question"])
            found.append(
                Problem(
                    id=record["id"],
                    question=record["question"],
                    answer=record["answer"],
                    grader=record["grader"],
                    metadata={
                        **{key: record[key] for key in ("family", "options", "number")},
                        "facts": facts(animals, ANIMALS),
                    },
                )
            )
        random.Random("split").shuffle(found)
        part = len(found) // 10
        return {"heldout": found[:part], "train": found[part:], "all": found}[split]


def _animals(question: str) -> dict[str, int]:
    """`..., if you have 3 ants, 1 dog?` -> {ant: 3, dog: 1}."""
    listed = question.rpartition("if you have ")[2].strip().rstrip("?").split(", ")
    pairs = [item.split(" ", 1) for item in listed]
    return {name if name in ANIMALS else name[:-1]: int(number) for number, name in pairs}


class Practice:
    """The same questions about invented animals, to learn how such facts are used."""

    def problems(self, split: str) -> list[Problem]:
        """Return them, whatever the split."""
        draw = random.Random("practice")
        known = sorted(set(ANIMALS.values()))
        found = {}
        for name in names(1200, "animals"):
            first = name.lower()
            second = draw.choice(names(300, "others")).lower()
            animals = {first: draw.randint(1, 4)}
            if draw.random() < 0.7:
                animals[second] = draw.randint(1, 4)
            legs = {animal: draw.choice(known) for animal in animals}
            listed = ", ".join(f"{n} {animal}{'s' * (n > 1)}" for animal, n in animals.items())
            question = _QUESTION.format(animals=listed)
            solution = working(animals, legs)
            found[question] = Problem(
                id=f"practice/{first}",
                question=question,
                answer=solution.rpartition("Answer: ")[2],
                grader="exact",
                metadata={"facts": facts(animals, legs), "solution": solution},
            )
        return list(found.values())
