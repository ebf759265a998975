"""The human expert: the graph stops at `interrupt` and continues with the person's reply."""

from __future__ import annotations

from langchain_core.tools import BaseTool, StructuredTool
from langgraph.types import interrupt

from eapo_agents.errors import ExpertError


def human_tool(name: str, *, description: str = "asks a person") -> BaseTool:
    """Make a tool that asks a person; its graph needs a checkpointer.

    The interrupt's value is `{"expert": ..., "query": ...}`. Resume it with the text of the reply.
    """

    async def ask(query: str) -> str:
        reply = str(interrupt({"expert": name, "query": query})).strip()
        if not reply:
            raise ExpertError("The person gave no reply.")
        return reply

    return StructuredTool.from_function(coroutine=ask, name=name, description=description)
