"""The human expert: the graph stops at `interrupt` and goes on with what the person replied."""

from __future__ import annotations

from langchain_core.tools import BaseTool, StructuredTool
from langgraph.types import interrupt

from eapo_agents.errors import ExpertError


def human_tool(name: str, *, description: str = "asks a person") -> BaseTool:
    """Needs a graph with a checkpointer; the interrupt's value is `{"expert": ..., "query": ...}`
    and it is resumed with the reply's text."""

    async def ask(query: str) -> str:
        reply = str(interrupt({"expert": name, "query": query})).strip()
        if not reply:
            raise ExpertError("The person gave no reply.")
        return reply

    return StructuredTool.from_function(coroutine=ask, name=name, description=description)
