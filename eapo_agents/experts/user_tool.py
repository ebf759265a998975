"""LangChain and MCP tools that the user already has, as experts."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.tools import BaseTool
from langchain_core.tools import tool as as_tool

from eapo_agents.errors import UsageError
from eapo_agents.mcp_servers import McpServer, server_tools
from eapo_agents.registry import import_object


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
    what = f"The MCP server of expert '{name}'"
    server = McpServer(
        command=command,
        args=list(args),
        env=list(env),
        url=url,
        api_key_env=api_key_env,
        only=[tool],
    )
    (found,) = server_tools(server, what)
    return _renamed(found, name, description)


def _renamed(tool: BaseTool, name: str, description: str | None) -> BaseTool:
    return tool.model_copy(update={"name": name, "description": description or tool.description})
