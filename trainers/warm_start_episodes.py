"""Scripted episodes of a warm start: a scripted policy runs in the real graphs with the real
experts, so that the policy imitates exactly what the graphs render."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from langchain_core.utils.function_calling import convert_to_openai_tool

from eapo_agents.errors import TraceError
from eapo_agents.experts.consulting import UNAVAILABLE
from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.rendering import tool_section
from eapo_agents.policy.scripted import ScriptedEngine
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.recipe import Recipe
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget, counter_key
from eapo_agents.tasks.arithmetic import make_problem, worked_steps
from eapo_agents.types import Problem, Trajectory
from graphs.agent import Agent, make_pool
from graphs.consult import build_consult_graph
from graphs.fill import run_to_end
from graphs.rollout import RolloutPlan, run_rollouts
from graphs.solo import build_solo_graph

Script = Callable[[RolloutKey, str], str]
_WRONG_ANSWERS = 4
"""Different wrong answers per problem: a single one would be learned by heart."""
_FURTHEST_OFF = 9


def scripted_episodes(agent: Agent, problems: Sequence[Problem]) -> list[Trajectory]:
    """Return the episodes of the recipe's script.

    Raises:
        TraceError: the script does not fit the task.
    """
    settings = agent.recipe.warm_start
    if settings is not None and settings.script == "operations":
        return _operations(agent, problems)
    return _arithmetic(agent, problems)


def script_texts(recipe: Recipe, problems: Sequence[Problem]) -> list[str]:
    """Return the texts of the episodes, for a tokenizer that is made before they are run."""
    pool = make_pool(recipe)
    section = tool_section([convert_to_openai_tool(tool) for tool in pool.tools])
    prompt = recipe.task.system_prompt
    frame = [prompt, f"{prompt}\n{section}", section, UNAVAILABLE]
    texts = []
    for problem in problems:
        expression = str(problem.metadata["expression"])
        steps, value = worked_steps(expression)
        query = format_call(pool.tools[0].name, {"query": expression})
        texts += [problem.question, query, f"{steps} Answer: {value}", *frame]
    return texts


def _arithmetic(agent: Agent, problems: Sequence[Problem]) -> list[Trajectory]:
    """Return three kinds in equal parts: asking and using the reply; asking, and answering at once
    when the reply is withheld; answering at once in the tool-free graph. None shows how to work a
    problem out."""

    def script(problem: Problem, key: RolloutKey, has_help: bool) -> str:
        steps, value = worked_steps(str(problem.metadata["expression"]))
        return f"{steps} Answer: {value}" if has_help else f"Answer: {problem.answer}"

    episodes = [
        episode
        for acceptance in ("constant", "never", None)
        for episode in _run(agent, problems, script, acceptance=acceptance)
    ]
    _refuse_wrong(episodes)
    return episodes


def _operations(agent: Agent, problems: Sequence[Problem]) -> list[Trajectory]:
    """Return episodes for a model that knows nothing: each operation by itself with its step;
    asking, and restating the steps of the reply; answering at once and wrongly, solo or after a
    withheld reply. So it can do each operation and can use a hint, but it does not decompose."""
    singles = sorted({p for problem in problems for p in _operations_in(problem)})

    def right(problem: Problem, key: RolloutKey, has_help: bool) -> str:
        steps, value = worked_steps(str(problem.metadata["expression"]))
        return f"{steps} Answer: {value}"

    def wrong(problem: Problem, key: RolloutKey, has_help: bool) -> str:
        draw = counter_key("wrong", key.seed, problem.id, key.rollout) % (2 * _FURTHEST_OFF)
        off = draw - _FURTHEST_OFF if draw < _FURTHEST_OFF else draw - _FURTHEST_OFF + 1
        return f"Answer: {int(problem.answer) + off}"

    shown = _run(agent, [make_problem(single) for single in singles], right, acceptance=None)
    helped = _run(agent, problems, right, acceptance="constant")
    _refuse_wrong([*shown, *helped])
    withheld = _run(agent, problems, wrong, acceptance="never", times=_WRONG_ANSWERS)
    solo = _run(agent, problems, wrong, acceptance=None, times=_WRONG_ANSWERS)
    # repeated until single operations are 40% of all episodes
    others = [*helped * _WRONG_ANSWERS, *withheld, *solo]
    repeats = max(1, round(0.4 / 0.6 * len(others) / len(shown)))
    return [*shown * repeats, *others]


def _operations_in(problem: Problem) -> list[str]:
    """`7 + 3 * 4` -> [`3 * 4`, `7 + 12`]."""
    steps, _ = worked_steps(str(problem.metadata["expression"]))
    return [step.partition(" = ")[0] for step in steps.split(". ")]


def _run(
    agent: Agent,
    problems: Sequence[Problem],
    write: Callable[[Problem, RolloutKey, bool], str],
    *,
    acceptance: Literal["constant", "never"] | None,
    times: int = 1,
) -> list[Trajectory]:
    """Run a script in the consult graph, where it asks first, under this acceptance schedule. None
    is the tool-free graph."""
    expert = agent.pool.tools[0].name
    by_id = {problem.id: problem for problem in problems}

    def script(key: RolloutKey, prompt: str) -> str:
        problem = by_id[key.problem_id]
        if acceptance is not None and key.turn == 0:
            return format_call(expert, {"query": str(problem.metadata["expression"])})
        return write(problem, key, acceptance == "constant")

    policy = PolicyChatModel(
        engine=ScriptedEngine(agent.renderer, script),
        renderer=agent.renderer,
        sampling=agent.sampling,
    )
    graph = (
        build_solo_graph(policy)
        if acceptance is None
        else build_consult_graph(
            policy,
            agent.pool,
            acceptance=AcceptanceSchedule(kind=acceptance),
            turns=TurnBudget(start=2, end=2),
        )
    )
    groups = run_to_end(
        run_rollouts(
            graph,
            policy,
            [RolloutPlan(problem=problem, rollouts=range(times)) for problem in problems],
            system_prompt=agent.recipe.task.system_prompt,
            seed=agent.recipe.seed,
        )
    )
    episodes = [trajectory for group in groups for trajectory in group.trajectories_G]
    failed = [episode for episode in episodes if episode.error]
    if failed:
        raise TraceError(f"A scripted episode failed: {failed[0].error}")
    return episodes


def _refuse_wrong(episodes: Sequence[Trajectory]) -> None:
    wrong = [t for t in episodes if not t.correct]
    if wrong:
        raise TraceError(
            f"{len(wrong)} of {len(episodes)} scripted episodes are wrong (first: "
            f"{wrong[0].problem.id}, {wrong[0].error or wrong[0].stop_reason}): the script does "
            "not fit the task. Choose another warm_start.script."
        )
