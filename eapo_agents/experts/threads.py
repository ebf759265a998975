"""Calls blocking tools, each in its own thread.

LangChain would run them in the event loop's executor. A loop that ends waits for its executor, so
one tool that hangs would hang the program whatever its timeout.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from contextvars import copy_context

from langchain_core.messages import ToolCall
from langchain_core.tools import BaseTool, StructuredTool, Tool


async def invoke(tool: BaseTool, call: ToolCall) -> object:
    """Return the tool's reply to a call. Cancelling stops the wait; a blocking tool runs on."""
    if not _blocks(tool):
        return await tool.ainvoke(call)
    loop = asyncio.get_running_loop()
    reply: asyncio.Future[object] = loop.create_future()

    def settle(result: object, error: BaseException | None) -> None:
        if reply.done():
            return  # cancelled: nobody waits any longer
        if error is not None:
            reply.set_exception(error)
        else:
            reply.set_result(result)

    def run() -> None:
        result, failure = None, None
        try:
            result = tool.invoke(call)
        except BaseException as error:  # passed to the loop's thread
            failure = error
        with suppress(RuntimeError):  # the loop may have ended meanwhile
            loop.call_soon_threadsafe(settle, result, failure)

    # a daemon: a tool that hangs must not keep the program from ending
    threading.Thread(target=copy_context().run, args=(run,), daemon=True).start()
    return await reply


def _blocks(tool: BaseTool) -> bool:
    """Whether the tool has only a synchronous implementation."""
    if isinstance(tool, StructuredTool | Tool):
        return tool.coroutine is None
    return type(tool)._arun is BaseTool._arun
