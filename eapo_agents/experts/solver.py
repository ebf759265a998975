"""The solver: exact arithmetic with worked steps, for the arithmetic task."""

from __future__ import annotations

import re

from langchain_core.tools import BaseTool, StructuredTool

from eapo_agents.errors import ExpertError
from eapo_agents.tasks.arithmetic import worked_steps

_EXPRESSION = re.compile(r"[\d(-][\d\s.()+*/-]*[\d)]")


def expression_in(query: str) -> str:
    """Return the arithmetic in a question such as `What is 7 + 3 * 4?`, else the whole query."""
    found = _EXPRESSION.findall(query)
    return str(max(found, key=len)) if found else query


def solver_tool(name: str) -> BaseTool:
    """Make a tool that replies to `7 + 3 * 4` with `3 * 4 = 12. 7 + 12 = 19.`"""

    async def solve(query: str) -> str:
        try:
            steps, _ = worked_steps(expression_in(query))
        except ValueError as error:
            raise ExpertError(str(error)) from error
        return steps

    return StructuredTool.from_function(
        coroutine=solve, name=name, description="works out arithmetic step by step"
    )
