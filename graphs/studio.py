"""What `langgraph dev` and LangGraph Studio open (langgraph.json): the consult and the solo graph.

The recipe is `EAPO_RECIPE`, by default cpu-smol; a trained policy's folder is `EAPO_POLICY`. The
server imports this file once for each graph when it starts, and brings its own checkpointer; the
model is loaded once.
"""

from __future__ import annotations

from eapo_agents.schedules import AcceptanceSchedule
from graphs.agent import agent_of_environment

_agent = agent_of_environment()
_policy = _agent.policy(_agent.sampling)

consult = _agent.consult_graph(_policy, acceptance=AcceptanceSchedule(kind="constant"))
"""The graph with experts, every reply let in."""
solo = _agent.solo_graph(_policy)
"""The graph without experts."""
