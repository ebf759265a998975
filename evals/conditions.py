"""Under which conditions a benchmark is answered."""

from __future__ import annotations

from dataclasses import dataclass, replace

from eapo_agents.types import Sampling
from evals.benchmark import Benchmark, Loaded

SOLO, ASSISTED, GREEDY = "solo", "assisted", "greedy"
BASELINES = ("workflow", "leap")
"""Graphs that are evaluated as they are, under their own name."""
UNASSISTED = (SOLO, *BASELINES)
"""Graphs that have no variant in which the policy may ask experts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One way of answering a benchmark."""

    name: str
    """`solo`, `greedy`, `assisted` (every expert's reply is accepted), or a baseline graph's."""
    graph: str
    """The recipe's graph. Solo and greedy answers are those of its tool-free variant."""
    samples: int
    """Answers of each problem."""
    sampling: Sampling

    @property
    def asks_experts(self) -> bool:
        """Whether experts may be called."""
        return self.name == ASSISTED or self.graph == "workflow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A benchmark with its problems, and the conditions under which they are answered."""

    benchmark: Benchmark
    loaded: Loaded
    conditions: tuple[Condition, ...]

    def key(self, condition: Condition) -> str:
        """Return the name of a result, such as `gsm8k solo`."""
        return f"{self.benchmark.name} {condition.name}"

    def num_answers(self, condition: Condition) -> int:
        """Return how many answers a whole run has."""
        return len(self.loaded.problems) * condition.samples


def conditions_of(
    benchmark: Benchmark, graph: str, *, assisted: bool = False
) -> tuple[Condition, ...]:
    """Return how a recipe's graph answers a benchmark: by its protocol, greedily too where it asks
    for that, and with every expert's help where that is wanted."""
    usual = Condition(
        name=graph if graph in BASELINES else SOLO,
        graph=graph,
        samples=benchmark.samples,
        sampling=Sampling(
            temperature=benchmark.temperature,
            top_p=benchmark.top_p,
            max_new_tokens=benchmark.max_new_tokens,
        ),
    )
    found = [usual]
    if benchmark.greedy and benchmark.temperature > 0:
        name = GREEDY if usual.name == SOLO else f"{usual.name} {GREEDY}"
        sampling = replace(usual.sampling, temperature=0.0, top_p=1.0)
        found.append(replace(usual, name=name, samples=1, sampling=sampling))
    if assisted:
        longest = benchmark.max_assisted_tokens or benchmark.max_new_tokens
        sampling = replace(usual.sampling, max_new_tokens=longest)
        found.append(replace(usual, name=ASSISTED, sampling=sampling))
    return tuple(found)
