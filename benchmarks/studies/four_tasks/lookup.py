"""Two hops: the flag of the town in which somebody lives. Both facts stand in documents that only
an expert searches. A held-out question joins two facts, each of which is in training questions of
its own."""

from __future__ import annotations

import random
from collections.abc import Sequence

from words import names

from eapo_agents.types import Problem

COLOURS = ("red", "blue", "green", "black", "white", "pink", "gold", "brown")
PEOPLE = 100
TOWNS = 16


def _world(people: Sequence[str], towns: Sequence[str], seed: str) -> list[tuple[str, str, str]]:
    """Return (person, town, colour of its flag)."""
    draw = random.Random(seed)
    flags = {town: draw.choice(COLOURS) for town in towns}
    return [(person, town, flags[town]) for person in people for town in [draw.choice(towns)]]


def passage(person: str, town: str, colour: str) -> str:
    """Return what the documents say of somebody."""
    return f"{person} lives in {town}. The flag of {town} is {colour}."


def _problems(world: Sequence[tuple[str, str, str]], prefix: str) -> list[Problem]:
    """Return the questions of one hop and of two."""
    texts = sorted({f"The flag of {town} is {colour}." for _, town, colour in world})
    texts += [passage(*facts) for facts in world]
    found = []
    for person, town, colour in world:
        of_town = f"The flag of {town} is {colour}."
        for kind, question, answer in (
            ("home", f"Where does {person} live?", town),
            ("flag", f"What is the flag of {town}?", colour),
            ("both", f"What is the flag of the town where {person} lives?", colour),
        ):
            name = town if kind == "flag" else person
            solution = of_town if kind == "flag" else passage(person, town, colour)
            found.append(
                Problem(
                    id=f"{prefix}{kind}/{name}",
                    question=question,
                    answer=answer,
                    grader="exact",
                    metadata={"solution": f"{solution} Answer: {answer}", "documents": texts},
                )
            )
    return list({problem.id: problem for problem in found}.values())


class Lookup:
    """The task: half of the people's two-hop questions are held out."""

    def problems(self, split: str) -> list[Problem]:
        """Return the problems of a split."""
        world = _world(names(PEOPLE, "people"), names(TOWNS, "towns"), "world")
        held_out = {f"both/{person}" for person, _, _ in world[::2]}
        every = _problems(world, "")
        sides = {"train": False, "heldout": True}
        return [p for p in every if split == "all" or (p.id in held_out) == sides[split]]


class Practice:
    """Many small worlds of other people and towns, to learn how a passage is used."""

    def problems(self, split: str) -> list[Problem]:
        """Return them, whatever the split."""
        people, towns = names(900, "others"), names(400, "elsewhere")
        found = []
        for n in range(300):
            draw = random.Random(n)
            world = _world(people[3 * n : 3 * n + 3], draw.sample(towns, 3), f"practice {n}")
            found += list(_problems(world, f"practice/{n}/"))
        questions = {problem.question: problem for problem in found}
        return list(questions.values())
