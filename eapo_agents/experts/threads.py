"""Calls tools that block, each in a thread of its own.

LangChain would run them in the event loop's executor, and a loop that ends waits for its executor:
one tool that hangs would hang the program, whatever its timeout.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from contextvars import copy_context
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool, Tool


async def invoke(tool: BaseTool, call: dict[str, Any]) -> Any:
    """The tool's reply to a tool call; cancelling leaves a blocking tool to itself."""
    if not _blocks(tool):
        return await tool.ainvoke(call)
    loop = asyncio.get_running_loop()
    reply: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if reply.done():
            return  # nobody waits any more
        if error is not None:
            reply.set_exception(error)
        else:
            reply.set_result(result)

    def run() -> None:
        result, failure = None, None
        try:
            result = tool.invoke(call)
        except BaseException as error:  # told to the loop's thread
            failure = error
        with suppress(RuntimeError):  # the loop may have ended meanwhile
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=copy_context().run, args=(run,), daemon=True).start()
    return await reply


def _blocks(tool: BaseTool) -> bool:
    if isinstance(tool, StructuredTool | Tool):
        return tool.coroutine is None
    return type(tool)._arun is BaseTool._arun
