"""The scripted expert: fixed replies, delays and failures, for demonstrations and tests."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from langchain_core.tools import BaseTool, StructuredTool

from eapo_agents.errors import ExpertError


def scripted_tool(
    name: str,
    *,
    replies: Mapping[str, str] | None = None,
    default: str | None = None,
    delay_s: float = 0.0,
    description: str = "answers from a fixed script",
) -> BaseTool:
    """Make a tool that replies with `replies[query]`, else `default`, and fails without either."""
    known = dict(replies or {})

    async def answer(query: str) -> str:
        await asyncio.sleep(delay_s)
        reply = known.get(query, default)
        if reply is None:
            raise ExpertError(f"No reply is scripted for '{query[:80]}'.")
        return reply

    return StructuredTool.from_function(coroutine=answer, name=name, description=description)
