"""What a run with an API model as policy may cost, told before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eapo_agents.recipe import Recipe
from eapo_agents.recipe_rules import is_own
from eapo_agents.types import Problem, total_known

if TYPE_CHECKING:
    from evals.conditions import Condition, Part

_CHARS_A_TOKEN = 4
"""Of English, in the tokenizers of today."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Bounds, before anything is asked."""

    rollouts: int
    calls_at_most: int | None
    """None where a graph of a user's decides how often it calls the policy."""
    written_at_most: int | None
    """Tokens that the model writes."""
    read_first: int
    """Tokens, about, that the first call of each rollout reads."""

    def told(self, recipe: Recipe) -> str:
        """Return it as a sentence, with its price where that is known."""
        calls, written = self.calls_at_most, self.written_at_most
        name = recipe.policy.api_model
        most = "as many calls as its graph makes" if calls is None else f"at most {calls:,} calls"
        said = f"The policy is the API model '{name}': {self.rollouts:,} rollouts, {most}"
        said += f"; they read about {self.read_first:,} tokens in their first turns"
        said += "" if written is None else f" and write at most {written:,} tokens"
        budget = [f"{n:g} {what}" for what, n in _limits(recipe)]
        limits = f" The budget ends it at {', '.join(budget)}." if budget else ""
        price = recipe.policy.calls.price
        if price is None:
            ask = "" if budget else "; set it, or limit consult.budget"
            return f"{said}. Its price is not known (policy.calls.price){ask}.{limits}"
        said += f": about ${price.input_usd * self.read_first / 1e6:.2f}"
        if written is not None:
            said += f" and at most ${price.output_usd * written / 1e6:.2f}"
        return f"{said}; later turns read more.{limits}"


def collection_forecast(recipe: Recipe, problems: Sequence[Problem], step: int) -> Forecast:
    """Return what a collection of these problems may take."""
    return _forecast(
        problems,
        samples=recipe.collect.num_generations,
        calls=_calls(recipe, recipe.graph, step),
        longest=recipe.sampling.max_new_tokens,
        more_chars=len(recipe.task.system_prompt),
    )


def evaluation_forecast(recipe: Recipe, parts: Sequence[Part]) -> Forecast:
    """Return what an evaluation may take."""
    found = [_part_forecast(recipe, part, c) for part in parts for c in part.conditions]
    return Forecast(
        rollouts=sum(one.rollouts for one in found),
        calls_at_most=total_known(one.calls_at_most for one in found),
        written_at_most=total_known(one.written_at_most for one in found),
        read_first=sum(one.read_first for one in found),
    )


def _part_forecast(recipe: Recipe, part: Part, condition: Condition) -> Forecast:
    from evals.conditions import ASSISTED

    benchmark, graph = part.benchmark, condition.graph
    if graph == "consult" and condition.name != ASSISTED:
        graph = "solo"
    shown = [benchmark.system_prompt, *(text for pair in benchmark.examples for text in pair)]
    return _forecast(
        part.loaded.problems,
        samples=condition.samples,
        calls=_calls(recipe, graph, step=0),
        longest=condition.sampling.max_new_tokens,
        more_chars=sum(map(len, shown)),
    )


def _forecast(
    problems: Sequence[Problem], *, samples: int, calls: int | None, longest: int, more_chars: int
) -> Forecast:
    rollouts = len(problems) * samples
    chars = samples * sum(len(problem.question) + more_chars for problem in problems)
    most = None if calls is None else rollouts * calls
    return Forecast(
        rollouts=rollouts,
        calls_at_most=most,
        written_at_most=None if most is None else most * longest,
        read_first=chars // _CHARS_A_TOKEN,
    )


def _calls(recipe: Recipe, graph: str, step: int) -> int | None:
    """Return how often one rollout calls the policy at most."""
    if is_own(graph):
        return None
    if graph == "leap":
        paths = recipe.graph_options.get("paths", 3)
        return 3 * paths if isinstance(paths, int) else None
    if graph == "critique":
        return 2
    tools = recipe.tools and graph in ("consult", "solo")
    asks = tools or (graph == "consult" and recipe.consult.experts)
    return recipe.consult.turns.turns(step) if asks else 1


def _limits(recipe: Recipe) -> list[tuple[str, float]]:
    budget = recipe.consult.budget
    found = [("calls", budget.calls), ("tokens", budget.tokens), ("US dollars", budget.usd)]
    return [(what, limit) for what, limit in found if limit is not None]
