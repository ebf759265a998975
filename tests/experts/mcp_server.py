"""A real MCP server over stdio, run by test_kinds."""

import os

from mcp.server.fastmcp import FastMCP

server = FastMCP("sums")


@server.tool()
def add(a: int, b: int) -> str:
    """adds two numbers"""
    return f"{a + b}"


@server.tool()
def whoami() -> str:
    """tells what the environment holds"""
    return " ".join(sorted(os.environ))


if __name__ == "__main__":
    server.run()
