"""A `create_agent` agent whose experts fade while it trains, and whose search stays.

    eapo train --recipe cpu-smol+eapo --graph docs.examples.fading_expert:build --out runs/agent

`tools` are the recipe's experts. Their replies are accepted ever less often, and the policy learns
to do without. An evaluation runs the same agent with no experts. `with_search` has a tool of its
own beside them, which is there with experts and without.
"""

from collections.abc import Sequence

from langchain.agents import create_agent
from langchain.agents.middleware import ModelCallLimitMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool, tool
from langgraph.graph.state import CompiledStateGraph

MOST_TURNS = 3
PAGES = {
    "multiplication": "2 * 2 = 4, 3 * 3 = 9, 4 * 4 = 16, 5 * 5 = 25, 6 * 6 = 36, 7 * 7 = 49.",
    "precedence": "Multiply first, then add: 2 + 3 * 4 = 2 + 12 = 14.",
}


@tool
def search(query: str) -> str:
    """Search a handbook of arithmetic."""
    words = set(query.lower().split())
    found = [page for title, page in PAGES.items() if title in words]
    return "\n".join(found) or f"No page is about that. There are: {', '.join(PAGES)}."


def build(policy: BaseChatModel, tools: Sequence[BaseTool]) -> CompiledStateGraph:
    """Return an agent over any chat model, with experts or without."""
    limit = ModelCallLimitMiddleware(run_limit=MOST_TURNS, exit_behavior="end")
    return create_agent(policy, list(tools), middleware=[limit], name="fading-expert")


def with_search(policy: BaseChatModel, tools: Sequence[BaseTool]) -> CompiledStateGraph:
    """Return the same agent with a search that stays."""
    return build(policy, [search, *tools])
