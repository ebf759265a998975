"""What `langgraph dev` and LangGraph Studio open (langgraph.json): the consult and the solo graph.

The recipe is `EAPO_RECIPE`, by default cpu-smol; a trained policy's folder is `EAPO_POLICY`. The
server brings its own checkpointer. The model is loaded when a graph is first wanted, once for both.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from functools import cache

from eapo_agents.recipe import load_recipe
from eapo_agents.schedules import AcceptanceSchedule
from graphs.agent import Agent, load_agent
from graphs.consult import Graph

_loading = threading.Lock()


async def consult() -> Graph:
    """The graph with experts, every reply let in."""
    agent = await asyncio.to_thread(_agent)
    let_in = AcceptanceSchedule(kind="constant")
    return agent.consult_graph(agent.policy(agent.sampling), acceptance=let_in)


async def solo() -> Graph:
    """The graph without experts."""
    agent = await asyncio.to_thread(_agent)
    return agent.solo_graph(agent.policy(agent.sampling))


def _agent() -> Agent:
    with _loading:
        return _load()


@cache
def _load() -> Agent:
    policy = os.environ.get("EAPO_POLICY")
    overrides = [f"policy.adapter={json.dumps(policy)}"] if policy else []
    return load_agent(load_recipe(os.environ.get("EAPO_RECIPE", "cpu-smol"), overrides))
