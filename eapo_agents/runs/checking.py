"""The project's doctor: what would make a recipe's runs fail or mean nothing, before one begins."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

from eapo_agents.errors import EapoError, TaskError, UsageError, innermost
from eapo_agents.recipe import Recipe
from eapo_agents.recipe_rules import is_own
from eapo_agents.runs.forecast import collection_forecast
from eapo_agents.types import Problem

if TYPE_CHECKING:
    from eapo_agents.experts.pool import ExpertPool
    from trainers.dry_run import ModelSize

Verdict = Literal["ok", "warning", "blocking"]
_LOOKED_AT = 100
"""Problems whose gold answers are graded: enough to see a reward that does not fit."""
_JUDGED = 4
"""The same where a judge is paid."""
_GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found of one part of a project."""

    part: str
    verdict: Verdict
    says: str


def check(recipe: Recipe, *, ask_experts: bool = False) -> list[Finding]:
    """Look at a recipe's problems, reward, model, experts, memory, disk and size of a live run.

    Args:
        ask_experts: ask each expert one question too, which may cost money.
    """
    from trainers.dry_run import policy_size

    train: list[Problem] = []
    size = cache(lambda: policy_size(recipe))  # two parts look at it
    parts: list[tuple[str, Callable[[], Iterator[tuple[Verdict, str]]]]] = [
        ("problems", lambda: _problems(recipe, train)),
        ("reward", lambda: _reward(recipe, train, ask_experts)),
        ("model", lambda: _model(recipe, size)),
        ("experts", lambda: _experts(recipe, train, ask_experts)),
        ("disk", _disk),
        ("a live run", lambda: _run(recipe, size, train)),
    ]
    found = []
    for part, look in parts:
        try:
            found += [Finding(part=part, verdict=v, says=says) for v, says in look()]
        except EapoError as error:
            found.append(Finding(part=part, verdict="blocking", says=str(innermost(error))))
    return found


def _problems(recipe: Recipe, train: list[Problem]) -> Iterator[tuple[Verdict, str]]:
    """Fills `train` with the problems of the training split."""
    from eapo_agents.runs.loading import problems_of
    from graphs.builders import find_function

    train += problems_of(recipe, "train", None)
    held_out = problems_of(recipe, "heldout", None)
    needed = recipe.train.problems_per_step
    if len(train) < needed:
        raise TaskError(
            f"train.problems_per_step is {needed}, and the task '{recipe.task.name}' has "
            f"{len(train)} problems to train on: lower it, or add problems."
        )
    yield "ok", f"{len(train)} to train on, {len(held_out)} held out; no problem is in both"
    if len(held_out) < 50:
        yield (
            "warning",
            f"{len(held_out)} held-out problems make wide intervals: raise task.held_out, or "
            "give a file of its own",
        )
    inputs = find_function(recipe.inputs, "inputs")
    given = [p for p in train[:_LOOKED_AT] if inputs and _is_given_away(recipe, p, inputs)]
    if given:
        yield (
            "blocking",
            f"the gold answer is in what '{recipe.inputs}' gives the graph of {len(given)} "
            f"problems (first: {given[0].id}) and not in their question: leave it out",
        )
    shown = [p for p in train if _holds(p.question, p.answer)]
    if len(shown) > len(train) / 2:
        yield (
            "warning",
            f"the gold answer stands in the question of {len(shown)} of {len(train)} problems "
            f"(first: {shown[0].id}): right for choices, else the policy needs only copy it",
        )


def _is_given_away(recipe: Recipe, problem: Problem, inputs: Callable[[Problem], object]) -> bool:
    """Return whether a graph's input tells the gold answer, and the question does not."""
    try:
        given = str(inputs(problem))
    except Exception as error:  # a user's function may raise anything
        raise UsageError(
            f"The inputs '{recipe.inputs}' failed on problem '{problem.id}': "
            f"{type(error).__name__}: {error}"
        ) from error
    return not _holds(problem.question, problem.answer) and _holds(given, problem.answer)


def _holds(text: str, answer: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(answer.strip())}(?!\w)", text) is not None


def _reward(recipe: Recipe, train: Sequence[Problem], ask: bool) -> Iterator[tuple[Verdict, str]]:
    """Grades gold answers, and answers to other problems, in the form that the task asks for."""
    from eapo_agents.rewards import reward_of, scored
    from eapo_agents.tasks import environments, openenv, verifiers
    from graphs.agent import make_pool

    form, judge = recipe.task.answer_form, recipe.task.judge
    if judge is not None and not ask:
        yield "ok", f"the judge '{judge.expert}' is asked only with --ask"
        return
    reward = reward_of(recipe, make_pool(recipe) if judge is not None else None)
    looked_at = train[: _LOOKED_AT if judge is None else _JUDGED]
    if not looked_at:
        return
    by_environments = {environments.GRADER, openenv.GRADER, verifiers.GRADER}
    if all(problem.grader in by_environments for problem in looked_at):
        yield "ok", "an environment scores answers, so that there are no gold answers to grade"
        return

    def rights(pairs: Sequence[tuple[Problem, str]]) -> list[Problem]:
        return [p for p, a in pairs if scored(reward, form.format(answer=a), p)[1]]

    right = {p.id for p in rights([(p, p.answer) for p in looked_at])}
    wrong = [p for p in looked_at if p.id not in right]
    if wrong:
        example = form.format(answer=wrong[0].answer)
        yield (
            "blocking",
            f"{len(wrong)} of {len(looked_at)} gold answers do not count as right (first: "
            f"{wrong[0].id}, as {example!r}): change task.answer_form, task.reward, or the "
            "problems' grader or answer",
        )
    others = [(p, q.answer) for p, q in pairwise(looked_at)]
    others = [(p, answer) for p, answer in others if answer.strip() != p.answer.strip()]
    passed = rights(others)
    if others and len(passed) > len(others) / 10:
        yield (
            "blocking",
            f"{len(passed)} of {len(others)} answers to another problem count as right (first: "
            f"{passed[0].id}): a policy would learn to write anything; make task.reward stricter",
        )
    elif not wrong:
        yield "ok", f"{len(right)} gold answers are right, answers to other problems are not"


def _model(recipe: Recipe, size: Callable[[], ModelSize]) -> Iterator[tuple[Verdict, str]]:
    from eapo_agents.policy.models import reach_model
    from trainers.dry_run import training_bytes

    policy = recipe.policy
    if policy.api_model is not None:
        from eapo_agents.policy.api_policy import reached_service

        reached_service(policy)
        yield "warning", f"'{policy.api_model}' is an API model: it can be asked, not trained"
        return
    if policy.awaits_model:
        yield "ok", "made anew by `eapo warm-start` or `eapo train`"
    else:
        reach_model(policy.model)
    has = psutil.virtual_memory().total / _GIB
    needs = training_bytes(recipe, size()) / _GIB
    said = f"{size().parameters:,} weights, {needs:.1f} GiB to train without activations"
    if policy.device == "cpu" and needs > has:
        yield (
            "blocking",
            f"{said}, and this machine has {has:.0f} GiB: take a smaller model, train.lora, or "
            "more processes",
        )
    else:
        yield "ok", said


def _experts(recipe: Recipe, train: Sequence[Problem], ask: bool) -> Iterator[tuple[Verdict, str]]:
    from eapo_agents.tools import make_tools
    from graphs.agent import make_pool

    pool = make_pool(recipe)
    for tool in make_tools(recipe.tools, [tool.name for tool in pool.tools]):
        yield "ok", f"'{tool.name}' (a tool that stays)"
    for expert in pool.experts:
        if expert.interactive:
            yield "blocking", f"'{expert.name}' is a person, who cannot be asked in training"
        elif expert.price is None and recipe.consult.budget.calls is None:
            yield (
                "warning",
                f"'{expert.name}' has no price and the run no budget: give it price, or set "
                "consult.budget.calls",
            )
        else:
            yield "ok", f"'{expert.name}' ({expert.kind})"
    if ask and train:
        yield from _asked(pool, train[0])


def _asked(pool: ExpertPool, problem: Problem) -> Iterator[tuple[Verdict, str]]:
    import asyncio

    from eapo_agents.experts.call_store import CallSite
    from eapo_agents.experts.consulting import Consulting, consulting

    async def ask(name: str) -> tuple[Verdict, str]:
        with consulting(Consulting(problem_id=problem.id, problem=problem)):
            answer = await pool.ask(name, {"query": problem.question}, CallSite())
        if not answer.accepted:
            return "blocking", f"'{name}' failed: {answer.error}"
        return "ok", f"'{name}' replied in {answer.latency_s:.1f} s: {answer.text[:60]!r}"

    for expert in pool.experts:
        if not expert.interactive and list(expert.tool.args) == ["query"]:
            yield asyncio.run(ask(expert.name))


def _disk() -> Iterator[tuple[Verdict, str]]:
    free = shutil.disk_usage(Path.cwd()).free / _GIB
    yield ("ok" if free > 2 else "warning"), f"{free:.0f} GiB free here"


def _run(
    recipe: Recipe, size: Callable[[], ModelSize], train: Sequence[Problem]
) -> Iterator[tuple[Verdict, str]]:
    from trainers.dry_run import plan

    if recipe.policy.api_model is not None:
        collected = collection_forecast(recipe, train[: recipe.collect.problems], step=1)
        yield "ok", f"none. A collection: {collected.told(recipe)}"
        return
    if is_own(recipe.graph):
        yield "ok", f"how often '{recipe.graph}' calls the policy is known only when it runs"
        return
    planned, budget = plan(recipe, 1, size()), recipe.consult.budget
    limit = f" (the budget ends it at {budget.calls:,})" if budget.calls is not None else ""
    yield (
        "ok",
        f"{planned.steps} steps, {planned.rollouts:,} rollouts, at most "
        f"{planned.sampled_tokens_at_most:,} sampled tokens and about "
        f"{planned.expert_calls_at_most:,} expert calls{limit}",
    )
