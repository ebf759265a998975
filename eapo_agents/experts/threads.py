"""Calls tools, blocking ones in a thread of their own."""

from __future__ import annotations

from langchain_core.messages import ToolCall
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool, Tool

from eapo_agents.threads import in_thread


async def invoke(tool: BaseTool, call: ToolCall) -> object:
    """Return the tool's reply to a call. Cancelling stops the wait; a blocking tool runs on.

    Its run reports to no callback, event stream or tracer: what it says or raises may hold a key.
    The graph's own node shows the reply without.
    """
    from langsmith.run_helpers import tracing_context

    silent: RunnableConfig = {"callbacks": []}
    with tracing_context(enabled=False):
        if not _blocks(tool):
            return await tool.ainvoke(call, silent)
        return await in_thread(lambda: tool.invoke(call, silent))


def _blocks(tool: BaseTool) -> bool:
    """Whether the tool has only a synchronous implementation."""
    if isinstance(tool, StructuredTool | Tool):
        return tool.coroutine is None
    return type(tool)._arun is BaseTool._arun
