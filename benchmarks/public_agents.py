"""Agents of public packages around a scripted policy: what would be trained is what it was shown.

    pip install langgraph-supervisor langgraph-swarm deepagents
    python benchmarks/public_agents.py

Each is run twice. One line each: turns, how the run ended, completions that no row trains, and
trained ones that the engine was not shown. The command fails where there are such.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from typing import Any

from langchain.agents import create_agent
from langchain_core.tools import tool
from trained_pairs import KnowingEngine, trained
from transformers import AutoTokenizer

from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.policy.models import EMBEDDED, find_model
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.types import Problem, Sampling
from graphs.rollout import RolloutPlan, run_rollouts

PROBLEM = Problem(id="p", question="What is 7 + 3 * 4?", answer="19", grader="number")
ADD = format_call("add", {"a": 7, "b": 12})


@tool
def add(a: float, b: float) -> float:
    """Add two numbers."""
    return a + b


def supervisor(policy: PolicyChatModel) -> Any:
    from langgraph_supervisor import create_supervisor

    worker = create_agent(policy, [add], name="math", system_prompt="You are math.")
    return create_supervisor([worker], model=policy, prompt="You supervise.").compile()


def supervising(key: object, prompt: str) -> str:
    if "You are math." in prompt:
        return "It is 19." if "19.0" in prompt else ADD
    done = "It is 19." in prompt
    return "The answer is 19." if done else format_call("transfer_to_math", {})


def swarm(policy: PolicyChatModel) -> Any:
    from langgraph_swarm import create_handoff_tool, create_swarm

    to_bob = create_handoff_tool(agent_name="Bob")
    alice = create_agent(policy, [to_bob], system_prompt="You are Alice.", name="Alice")
    bob = create_agent(policy, [add], system_prompt="You are Bob.", name="Bob")
    return create_swarm([alice, bob], default_active_agent="Alice").compile()


def handing_over(key: object, prompt: str) -> str:
    if "You are Alice." in prompt:
        return format_call("transfer_to_bob", {})
    return "It is 19." if "19.0" in prompt else ADD


def deep(policy: PolicyChatModel) -> Any:
    from deepagents import create_deep_agent

    helper = {"name": "helper", "description": "adds", "system_prompt": "You are helper."}
    helpers = [{**helper, "tools": [add]}]
    return create_deep_agent(
        model=policy, tools=[add], system_prompt="Plan first.", subagents=helpers
    )


def planning(key: object, prompt: str) -> str:
    if "You are helper." in prompt:
        return "It is 19." if "19.0" in prompt else ADD
    if "It is 19." in prompt:
        return "The answer is 19."
    if "Updated todo list" in prompt:
        return format_call("task", {"description": "add", "subagent_type": "helper"})
    return format_call("write_todos", {"todos": [{"content": "add", "status": "pending"}]})


AGENTS: tuple[tuple[Callable[[PolicyChatModel], Any], Callable[[Any, str], str]], ...] = (
    (supervisor, supervising),
    (swarm, handing_over),
    (deep, planning),
)


def tried(
    build: Callable[[PolicyChatModel], Any],
    script: Callable[[Any, str], str],
    renderer: ChatRenderer,
) -> Iterator[tuple[str, bool]]:
    """Yield a line for each of two rollouts, and whether all is well."""
    engine = KnowingEngine(renderer, script)
    policy = PolicyChatModel(
        engine=engine, renderer=renderer, sampling=Sampling(max_new_tokens=400)
    )
    plan = RolloutPlan(problem=PROBLEM, rollouts=range(2))
    (group,) = asyncio.run(
        run_rollouts(build(policy), policy, [plan], system_prompt="", seed=0, global_step=1)
    )
    found = [pair for t in group.trajectories_G if not t.error for pair in trained(t)]
    missing, wrong = set(engine.seen) - set(found), set(found) - set(engine.seen)
    for t in group.trajectories_G:
        told = t.error or f"{len(t.turns)} turns, {t.stop_reason}, {t.answer!r}"
        yield f"{build.__name__}: {told}", t.error is None
    yield f"{build.__name__}: {len(missing)} missing, {len(wrong)} wrong", not missing and not wrong


def main() -> None:
    source = find_model(EMBEDDED)
    renderer = ChatRenderer(
        AutoTokenizer.from_pretrained(source.location, gguf_file=source.gguf_file)
    )
    fine = True
    for build, script in AGENTS:
        try:
            for line, well in tried(build, script, renderer):
                print(line)
                fine = fine and well
        except ImportError as error:
            print(f"{build.__name__}: not run ({error})")
    sys.exit(not fine)


if __name__ == "__main__":
    main()
