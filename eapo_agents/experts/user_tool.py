"""LangChain and MCP tools that the user already has, as experts."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence

from langchain_core.tools import BaseTool
from langchain_core.tools import tool as as_tool

from eapo_agents.errors import UsageError, innermost
from eapo_agents.registry import import_object
from eapo_agents.secrets import read_key


def langchain_tool(name: str, *, object: str, description: str | None = None) -> BaseTool:
    """Return the LangChain tool, or the plain function as one, that `object` names as
    "package.module:name".

    Raises:
        UsageError: there is no such object, or it is not a tool.
    """
    found = import_object(object, what=f"object of expert '{name}',")
    if not isinstance(found, BaseTool):
        if not callable(found):
            raise UsageError(
                f"'{object}' of expert '{name}' must be a LangChain tool or a function, got "
                f"{type(found).__name__}."
            )
        try:
            found = as_tool(found)
        except ValueError as error:
            raise UsageError(f"'{object}' of expert '{name}' cannot be a tool: {error}.") from error
    return _renamed(found, name, description)


def mcp_tool(
    name: str,
    *,
    tool: str,
    command: str | None = None,
    args: Sequence[str] = (),
    env: Sequence[str] = (),
    url: str | None = None,
    api_key_env: str | None = None,
    description: str | None = None,
) -> BaseTool:
    """Return a tool of an MCP server, which `command` starts or which listens at `url`.

    `env` names environment variables that the command gets. `api_key_env` names the one that is
    sent to the URL as a bearer token. Needs the extra `eapo-agents[mcp]`.

    Raises:
        UsageError: the adapter is not installed, or the server does not answer or has no such tool.
    """
    if (command is None) == (url is None):
        raise UsageError(f"The MCP expert '{name}' needs either command or url.")
    if command is not None:
        given = {key: read_key(key, wanted_by=f"Expert '{name}'") for key in env}
        kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        connection: dict[str, object] = {
            "transport": "stdio",
            "command": command,
            "args": list(args),
            "env": {**kept, **given},
        }
    else:
        connection = {"transport": "streamable_http", "url": url}
        if api_key_env:
            key = read_key(api_key_env, wanted_by=f"Expert '{name}'")
            connection["headers"] = {"Authorization": f"Bearer {key}"}
    tools = {found.name: found for found in _list_tools(name, connection)}
    if tool not in tools:
        raise UsageError(
            f"The MCP server of expert '{name}' has no tool '{tool}': it has "
            f"{', '.join(sorted(tools)) or 'none'}."
        )
    return _renamed(tools[tool], name, description)


def _list_tools(name: str, connection: Mapping[str, object]) -> list[BaseTool]:
    try:
        from langchain_mcp_adapters.client import MultiServerMCPClient
    except ImportError as error:
        raise UsageError(
            f"The MCP expert '{name}' needs the MCP adapter: pip install 'eapo-agents[mcp]'."
        ) from error
    outcome: list[list[BaseTool] | BaseException] = []

    async def ask() -> list[BaseTool]:
        async with asyncio.timeout(30):
            client = MultiServerMCPClient({name: connection})  # type: ignore[dict-item]
            return list(await client.get_tools())

    def run() -> None:
        try:
            outcome.append(asyncio.run(ask()))
        except BaseException as error:  # passed to the thread that waits
            outcome.append(error)

    # a separate thread, since the caller may be inside a running event loop
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    found = outcome[0]
    if isinstance(found, BaseException):
        raise UsageError(
            f"The MCP server of expert '{name}' does not answer: {_short(innermost(found))}."
        ) from found
    return found


def _short(error: BaseException) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _renamed(tool: BaseTool, name: str, description: str | None) -> BaseTool:
    return tool.model_copy(update={"name": name, "description": description or tool.description})
