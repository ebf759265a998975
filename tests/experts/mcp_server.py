"""A real MCP server, run by test_kinds: over stdio, or over HTTP at the port that it is given."""

import os
import sys

from mcp.server.fastmcp import Context, FastMCP

server = FastMCP("sums", port=int(sys.argv[1]) if sys.argv[1:] else 8000)


@server.tool()
def add(a: int, b: int) -> str:
    """adds two numbers"""
    return f"{a + b}"


@server.tool()
def whoami(context: Context) -> str:
    """tells what the caller has given away"""
    request = context.request_context.request
    told = request.headers.get("authorization", "") if request else " ".join(sorted(os.environ))
    return told or "nothing"


if __name__ == "__main__":
    server.run(transport="streamable-http" if sys.argv[1:] else "stdio")
