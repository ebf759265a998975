"""A family of reasoning-gym, leg_counting: how many legs some animals have. The expert knows how
many legs one has, and no products."""

from __future__ import annotations

import random

from reasoning_gym.arithmetic.leg_counting import ANIMALS
from words import names

from eapo_agents.tasks.reasoning import PREFIX, read_family
from eapo_agents.types import Problem

FAMILY = "leg_counting"
OPTIONS = {
    **{"min_animals": 1, "max_animals": 1, "min_instances": 1, "max_instances": 12},
    **{"size": 6000, "seed": 0},
}
_QUESTION = (
    "Your task is to count how many legs there are in total when given a list of animals.\n\n"
    "Now, how many legs are there in total if you have {animal}?\n"
)


def fact(animal: str, legs: int) -> str:
    """Return what the expert says."""
    return f"1 {animal} has {legs}."


class Legs:
    """The family's problems as reasoning-gym makes and grades them; a fifth is held out."""

    def problems(self, split: str) -> list[Problem]:
        """Return the problems of a split."""
        found = []
        for _, record in read_family(PREFIX + FAMILY, OPTIONS):
            animal, _ = _counted(record["question"])
            found.append(
                Problem(
                    id=record["id"],
                    question=record["question"],
                    answer=record["answer"],
                    grader=record["grader"],
                    metadata={
                        **{key: record[key] for key in ("family", "options", "number")},
                        "fact": fact(animal, ANIMALS[animal]),
                    },
                )
            )
        random.Random("split").shuffle(found)
        part = len(found) // 5
        return {"heldout": found[:part], "train": found[part:], "all": found}[split]


def _counted(question: str) -> tuple[str, int]:
    """`..., if you have 3 ants?` -> (ant, 3)."""
    number, _, name = question.rpartition("if you have ")[2].strip().rstrip("?").partition(" ")
    return name if name in ANIMALS else name[:-1], int(number)


class Practice:
    """The same questions about invented animals, to learn how such a fact is used."""

    def problems(self, split: str) -> list[Problem]:
        """Return them, whatever the split."""
        draw = random.Random("practice")
        known = sorted(set(ANIMALS.values()))
        found = []
        for name in names(2000, "animals"):
            animal, number, legs = name.lower(), draw.randint(1, 12), draw.choice(known)
            said, answer = fact(animal, legs), str(number * legs)
            found.append(
                Problem(
                    id=f"practice/{animal}",
                    question=_QUESTION.format(animal=f"{number} {animal}{'s' * (number > 1)}"),
                    answer=answer,
                    grader="exact",
                    metadata={
                        "fact": said,
                        "solution": f"{said} {number} * {legs} = {answer}. Answer: {answer}",
                    },
                )
            )
        return found
