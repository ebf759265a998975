"""MCP servers: their tools, as experts (`kind: mcp`) and as tools that stay (`tools:`).

Needs the extra `eapo-agents[mcp]`. Each call opens a session: a command is started for it and ends
with it, so that no state of one rollout reaches another.
"""

from __future__ import annotations

import asyncio
import os
import threading

from langchain_core.tools import BaseTool
from pydantic import Field, model_validator

from eapo_agents.errors import UsageError, innermost
from eapo_agents.registry import did_you_mean
from eapo_agents.secrets import read_key
from eapo_agents.settings import Settings

_ANSWER_S = 30.0
"""How long a server may take to start and to list its tools."""


class McpServer(Settings):
    """An MCP server whose tools stay."""

    command: str | None = None
    """The command that starts it, which speaks over standard input and output."""
    args: list[str] = Field(default_factory=list)
    """The command's arguments."""
    env: list[str] = Field(default_factory=list)
    """Names of environment variables that the command gets, beside PATH and HOME."""
    url: str | None = None
    """Instead of a command: where it listens (streamable HTTP)."""
    api_key_env: str | None = None
    """Environment variable with the key that is sent to the URL as a bearer token."""
    only: list[str] = Field(default_factory=list)
    """Which of its tools. None named: all."""

    @model_validator(mode="after")
    def _has_one_place(self) -> McpServer:
        if (self.command is None) == (self.url is None):
            raise ValueError("an MCP server needs either command or url")
        if self.url is not None and (self.args or self.env):
            raise ValueError("args and env are a command's, and this MCP server has a url")
        if self.command is not None and self.api_key_env is not None:
            raise ValueError("api_key_env is sent to a url: name a command's keys in env")
        return self

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"'{self.url or ' '.join([str(self.command), *self.args])}'"


def server_tools(server: McpServer, what: str = "") -> list[BaseTool]:
    """Return the tools of a server, in the order of `only` where that names some.

    Args:
        what: who names it, for messages: "The MCP server of expert 'a'".

    Raises:
        UsageError: the adapter is not installed, a key is not set, or the server does not answer or
            has no such tool.
    """
    what = what or f"The MCP server {server.where} in tools"
    tools = {found.name: found for found in _listed(what, _connection(server, what))}
    for name in server.only:
        if name not in tools:
            raise UsageError(
                f"{what} has no tool '{name}': it has {', '.join(sorted(tools)) or 'none'}. "
                f"{did_you_mean(name, tools)}".rstrip()
            )
    return [tools[name] for name in server.only or tools]


def _connection(server: McpServer, what: str) -> dict[str, object]:
    if server.command is not None:
        given = {key: read_key(key, wanted_by=what) for key in server.env}
        kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        return {
            "transport": "stdio",
            "command": server.command,
            "args": list(server.args),
            "env": {**kept, **given},
        }
    connection: dict[str, object] = {"transport": "streamable_http", "url": server.url}
    if server.api_key_env:
        key = read_key(server.api_key_env, wanted_by=what)
        connection["headers"] = {"Authorization": f"Bearer {key}"}
    return connection


def _listed(what: str, connection: dict[str, object]) -> list[BaseTool]:
    try:
        from langchain_mcp_adapters.client import MultiServerMCPClient
    except ImportError as error:
        raise UsageError(
            f"{what} needs the MCP adapter: pip install 'eapo-agents[mcp]'."
        ) from error
    outcome: list[list[BaseTool] | BaseException] = []

    async def ask() -> list[BaseTool]:
        async with asyncio.timeout(_ANSWER_S):
            client = MultiServerMCPClient({"server": connection})  # type: ignore[dict-item]
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
        raise UsageError(f"{what} does not answer: {_short(innermost(found))}.") from found
    return found


def _short(error: BaseException) -> str:
    return str(error).rstrip(".") or type(error).__name__
