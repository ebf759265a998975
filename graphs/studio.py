"""What `langgraph dev` and LangGraph Studio open (langgraph.json): the recipe's graph, with experts
and without.

The recipe is `EAPO_RECIPE`, by default cpu-smol; a trained policy's folder is `EAPO_POLICY`. The
server imports this file once for each graph when it starts, and brings its own checkpointer; the
model is loaded once.
"""

from __future__ import annotations

from eapo_agents.recipe_rules import is_own
from eapo_agents.schedules import AcceptanceSchedule
from graphs.agent import agent_of_environment

_agent = agent_of_environment()
# In a graph of yours, a sub-agent may have a conversation without a system prompt of its own.
_own = is_own(_agent.recipe.graph)
_prompt = "" if _own else _agent.recipe.task.system_prompt
_policy = _agent.policy(_agent.sampling, system_prompt=_prompt)

graph = _agent.graph(_policy, acceptance=AcceptanceSchedule(kind="constant"))
"""The recipe's graph with experts. Every reply is accepted."""
solo = _agent.solo_graph(_policy)
"""The recipe's graph without experts."""
