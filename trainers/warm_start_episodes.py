"""Scripted episodes of a warm start: a scripted policy runs in the real graphs with the real
experts, so that the policy imitates exactly what the graphs render.

What they may contain: calls, what a reply says or a problem's `solution` after a reply, and bare
gold answers of training problems. No script but `operations` shows working without a reply before
it, so the policy learns to ask and to answer in the form, not to solve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.utils.function_calling import convert_to_openai_tool

from eapo_agents.errors import RecipeError, TraceError
from eapo_agents.experts.consulting import UNAVAILABLE, current_consulting
from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.formats import HERMES, ParsedCall
from eapo_agents.policy.fresh import tokenizer_for
from eapo_agents.policy.rendering import ChatRenderer, tool_section
from eapo_agents.policy.scripted import ScriptedEngine
from eapo_agents.progress import SILENT, Progress
from eapo_agents.recipe import Recipe
from eapo_agents.rewards import reward_of, scored
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget, counter_key
from eapo_agents.tasks.arithmetic import make_problem, worked_steps
from eapo_agents.tools import make_tools
from eapo_agents.types import ConsultationStatus, Problem, Trajectory
from graphs.agent import Agent, make_pool
from graphs.consult import build_consult_graph
from graphs.fill import run_to_end
from graphs.rollout import RolloutPlan, first_messages, run_rollouts
from graphs.solo import build_solo_graph
from trainers.likelihood import in_form, worked_answer

_ACCEPTANCES: tuple[Literal["constant", "never"] | None, ...] = ("constant", "never", None)
"""Every reply accepted, every reply withheld, and the tool-free graph."""
_LONGEST = 1 << 20
"""A script is not cut off; where rollouts would be, that is said."""
_WRONG_ANSWERS = 4
"""Different wrong answers per problem: a single one would be learned by heart."""
_FURTHEST_OFF = 9


def refuse_misfit(recipe: Recipe, problems: Sequence[Problem]) -> None:
    """Raise RecipeError if the recipe's script cannot be played with these problems."""
    settings = recipe.warm_start
    if settings is None or settings.script == "asking":
        return
    without = [problem.id for problem in problems if "expression" not in problem.metadata]
    if without:
        raise RecipeError(
            f"warm_start.script '{settings.script}' needs problems with an expression, and "
            f"{len(without)} of the task '{recipe.task.name}' have none (the first is "
            f"'{without[0]}'): use warm_start.script=asking, which fits every task."
        )


def scripted_episodes(
    agent: Agent, problems: Sequence[Problem], progress: Progress = SILENT
) -> list[Trajectory]:
    """Return the episodes of the recipe's script.

    Raises:
        RecipeError: the script does not fit the task, or no expert can be asked by a query.
        TraceError: an episode failed, or its answer counts as wrong.
    """
    refuse_misfit(agent.recipe, problems)
    settings = agent.recipe.warm_start
    if settings is None or settings.script == "asking":
        episodes = _asking(agent, problems, progress)
    elif settings.script == "operations":
        episodes = _operations(agent, problems)
    else:
        episodes = _arithmetic(agent, problems)
    most = agent.sampling.max_new_tokens
    lengths = [len(turn.completion_ids) for episode in episodes for turn in episode.turns]
    cut = sum(length > most for length in lengths)
    if cut:
        progress.warn(
            f"{cut} of {len(lengths)} scripted turns have more tokens than rollouts may write: the "
            f"longest has {max(lengths)}, and sampling.max_new_tokens is {most}. Raise it."
        )
    return episodes


def script_texts(
    recipe: Recipe, problems: Sequence[Problem], chat_template: str | None = None
) -> list[str]:
    """Return the texts of the episodes, for a tokenizer that is made before they are run.

    Args:
        chat_template: the text of one: then they are whole conversations as it writes them.

    Raises:
        ModelError: the chat template cannot be used.
    """
    pool = make_pool(recipe)
    tools = [convert_to_openai_tool(t) for t in (*pool.tools, *make_tools(recipe.tools))]
    section = tool_section(tools)
    prompt = recipe.task.system_prompt
    frame = [prompt, f"{prompt}\n{section}", section, UNAVAILABLE]
    renderer = None
    if chat_template is not None:
        renderer = ChatRenderer(tokenizer_for(chat_template)[0], recipe.policy.template)
    texts = []
    for problem in problems:
        query, working = problem.question, str(problem.metadata.get("solution", ""))
        answer = recipe.task.answer_form.format(answer=problem.answer)
        if "expression" in problem.metadata:
            query = str(problem.metadata["expression"])
            working, _ = worked_steps(query)
        call = ParsedCall(name=pool.tools[0].name, arguments={"query": query})
        last = f"{working} {answer}".strip()
        if renderer is None:
            texts += [problem.question, HERMES.render([call]), last, *frame]
        else:
            asked = first_messages(prompt, problem.question)
            texts += _conversations(renderer, asked, tools, call, working, last)
    return texts


def _conversations(
    renderer: ChatRenderer,
    asked: Sequence[BaseMessage],
    tools: Sequence[Mapping[str, object]],
    call: ParsedCall,
    working: str,
    last: str,
) -> list[str]:
    """Return a problem's conversations with the expert, accepted and withheld, and without it."""
    turn = AIMessage(
        "", tool_calls=[{"name": call.name, "args": dict(call.arguments), "id": "call"}]
    )
    texts = []
    for reply in (working, UNAVAILABLE, None):
        ids = renderer.prompt(asked, [] if reply is None else tools)
        if reply is not None:
            ids += renderer.encode_turn(
                renderer.format.render([call]), in_thought=renderer.in_thought(ids)
            )
            sent = ToolMessage(reply, tool_call_id="call", name=call.name)
            ids += renderer.continuation([sent], closed_by=ids[-1], after=turn)
        ids += renderer.encode_turn(last, in_thought=renderer.in_thought(ids))
        texts.append(renderer.tokenizer.decode(ids))
    return texts


def _asking(agent: Agent, problems: Sequence[Problem], progress: Progress) -> list[Trajectory]:
    """Return three kinds in equal parts, on any task: asking an expert the question and going on
    from the reply; asking, and answering at once when the reply is withheld; answering at once in
    the tool-free graph. Experts that take a query are asked in turn."""
    experts = [tool.name for tool in agent.pool.tools if list(tool.args) == ["query"]]
    if not experts:
        raise RecipeError(
            "warm_start.script 'asking' asks experts that take one argument, query, and none of "
            f"{', '.join(tool.name for tool in agent.pool.tools) or 'no expert'} does: offer such "
            "an expert, or leave the warm start out."
        )
    expert_of = {p.id: experts[n % len(experts)] for n, p in enumerate(problems)}

    def write(problem: Problem, key: RolloutKey, has_help: bool) -> str:
        rollout = current_consulting()
        sent = rollout.last_sent if rollout else None
        if sent is None or sent.status is not ConsultationStatus.ACCEPTED:
            return _bare(agent, problem)
        return _after_reply(agent, problem, sent.reply)

    def ask(problem: Problem) -> str:
        asked: dict[str, object] = {"query": problem.question}
        call = ParsedCall(name=expert_of[problem.id], arguments=asked)
        return agent.renderer.format.render([call])

    with progress.bar("Warm start (episodes)", len(_ACCEPTANCES) * len(problems)) as bar:
        episodes = [
            episode
            for acceptance in _ACCEPTANCES
            for episode in _run(
                agent,
                problems,
                write,
                ask=ask,
                acceptance=acceptance,
                on_trajectory=lambda _: bar.step(),
            )
        ]
    _refuse_wrong(episodes)
    _tell_failures(episodes, len(problems), progress)
    return episodes


def _tell_failures(episodes: Sequence[Trajectory], num_asked: int, progress: Progress) -> None:
    """Tell of experts that failed: their episodes are as those whose reply is withheld.

    Raises:
        TraceError: all of them failed, so nothing shows how a reply is used.
    """
    failures = (ConsultationStatus.FAILED, ConsultationStatus.TIMEOUT)
    failed = [c for t in episodes for c in t.turns[0].consultations if c.status in failures]
    if len(failed) == num_asked:
        raise TraceError(f"Every expert failed in the warm start (first: {failed[0].error}).")
    if failed:
        progress.warn(
            f"{len(failed)} of {num_asked} questions of the warm start had no reply (first: "
            f"{failed[0].error}): their episodes show an expert that is unavailable."
        )


def _after_reply(agent: Agent, problem: Problem, reply: str) -> str:
    """Return what is written after a reply: the reply in the task's form where it is right, else
    the problem's own solution, else the bare answer."""
    form, reward = agent.recipe.task.answer_form, reward_of(agent.recipe, agent.pool)
    written = in_form(reply, problem, form, reward)
    if reply and scored(reward, written, problem)[1]:
        return written
    return worked_answer(problem, form, reward)


def _bare(agent: Agent, problem: Problem) -> str:
    return agent.recipe.task.answer_form.format(answer=problem.answer)


def _arithmetic(agent: Agent, problems: Sequence[Problem]) -> list[Trajectory]:
    """Return three kinds in equal parts: asking and using the reply; asking, and answering at once
    when the reply is withheld; answering at once in the tool-free graph. None shows how to work a
    problem out."""

    def script(problem: Problem, key: RolloutKey, has_help: bool) -> str:
        steps, value = worked_steps(str(problem.metadata["expression"]))
        return f"{steps} Answer: {value}" if has_help else f"Answer: {problem.answer}"

    ask = _asked_expression(agent)
    episodes = [
        episode
        for acceptance in _ACCEPTANCES
        for episode in _run(agent, problems, script, ask=ask, acceptance=acceptance)
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
        return f"Answer: {_wrong_answer(problem, key.seed, key.rollout)}"

    ask = _asked_expression(agent)
    shown = _run(agent, [make_problem(single) for single in singles], right, acceptance=None)
    helped = _run(agent, problems, right, ask=ask, acceptance="constant")
    _refuse_wrong([*shown, *helped])
    withheld = _run(agent, problems, wrong, ask=ask, acceptance="never", times=_WRONG_ANSWERS)
    solo = _run(agent, problems, wrong, acceptance=None, times=_WRONG_ANSWERS)
    # repeated until single operations are 40% of all episodes
    others = [*helped * _WRONG_ANSWERS, *withheld, *solo]
    repeats = max(1, round(0.4 / 0.6 * len(others) / len(shown)))
    return [*shown * repeats, *others]


def _wrong_answer(problem: Problem, seed: int, rollout: int) -> str:
    draw = counter_key("wrong", seed, problem.id, rollout) % (2 * _FURTHEST_OFF)
    off = draw - _FURTHEST_OFF if draw < _FURTHEST_OFF else draw - _FURTHEST_OFF + 1
    return str(int(problem.answer) + off)


def _asked_expression(agent: Agent) -> Callable[[Problem], str]:
    """Return what asks the first expert a problem's expression, with a wrong answer where the
    recipe says so."""
    settings = agent.recipe.warm_start
    tries = settings is not None and settings.asks == "try"

    def ask(problem: Problem) -> str:
        query = str(problem.metadata["expression"])
        if tries:
            query = f"{query} = {_wrong_answer(problem, agent.recipe.seed, 0)}"
        asked: dict[str, object] = {"query": query}
        call = ParsedCall(name=agent.pool.tools[0].name, arguments=asked)
        return agent.renderer.format.render([call])

    return ask


def _operations_in(problem: Problem) -> list[str]:
    """`7 + 3 * 4` -> [`3 * 4`, `7 + 12`]."""
    steps, _ = worked_steps(str(problem.metadata["expression"]))
    return [step.partition(" = ")[0] for step in steps.split(". ")]


def _run(
    agent: Agent,
    problems: Sequence[Problem],
    write: Callable[[Problem, RolloutKey, bool], str],
    *,
    ask: Callable[[Problem], str] | None = None,
    acceptance: Literal["constant", "never"] | None,
    times: int = 1,
    on_trajectory: Callable[[Trajectory], None] = lambda trajectory: None,
) -> list[Trajectory]:
    """Run a script in the consult graph, where it asks first, under this acceptance schedule. None
    is the tool-free graph."""
    by_id = {problem.id: problem for problem in problems}

    def script(key: RolloutKey, prompt: str) -> str:
        problem = by_id[key.problem_id]
        if acceptance is not None and ask is not None and key.turn == 0:
            return ask(problem)
        return write(problem, key, acceptance == "constant")

    policy = PolicyChatModel(
        engine=ScriptedEngine(agent.renderer, script),
        renderer=agent.renderer,
        sampling=replace(agent.sampling, max_new_tokens=_LONGEST),
    )
    graph = (
        build_solo_graph(policy, tools=agent.tools, turns=TurnBudget(start=2, end=2))
        if acceptance is None
        else build_consult_graph(
            policy,
            agent.pool,
            acceptance=AcceptanceSchedule(kind=acceptance),
            turns=TurnBudget(start=2, end=2),
            tools=agent.tools,
        )
    )
    groups = run_to_end(
        run_rollouts(
            graph,
            policy,
            [RolloutPlan(problem=problem, rollouts=range(times)) for problem in problems],
            system_prompt=agent.recipe.task.system_prompt,
            seed=agent.recipe.seed,
            reward=reward_of(agent.recipe, agent.pool),
            on_trajectory=on_trajectory,
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
            f"{wrong[0].problem.id}, {wrong[0].stop_reason}: {wrong[0].answer!r}): a gold answer "
            "in task.answer_form must count as right. Change the form, or warm_start.script."
        )
