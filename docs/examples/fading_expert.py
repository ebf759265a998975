"""A `create_agent` agent whose experts fade while it trains.

    eapo train --recipe cpu-smol --set graph=docs.examples.fading_expert:build --out runs/agent

`tools` are the recipe's experts: their replies are accepted ever less often, and the policy learns
to do without. An evaluation runs the same agent with no experts.
"""

from collections.abc import Sequence

from langchain.agents import create_agent
from langchain.agents.middleware import ModelCallLimitMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool
from langgraph.graph.state import CompiledStateGraph

MOST_TURNS = 3


def build(policy: BaseChatModel, tools: Sequence[BaseTool]) -> CompiledStateGraph:
    """Return an agent over any chat model, with experts or without."""
    limit = ModelCallLimitMiddleware(run_limit=MOST_TURNS, exit_behavior="end")
    return create_agent(policy, list(tools), middleware=[limit], name="fading-expert")
