"""The solver: exact arithmetic with worked steps, for the arithmetic task."""

from __future__ import annotations

from langchain_core.tools import BaseTool, StructuredTool

from eapo_agents.errors import ExpertError
from eapo_agents.tasks.arithmetic import worked_steps


def solver_tool(name: str) -> BaseTool:
    """`7 + 3 * 4` -> `3 * 4 = 12. 7 + 12 = 19.`"""

    async def solve(query: str) -> str:
        try:
            steps, _ = worked_steps(query)
        except ValueError as error:
            raise ExpertError(str(error)) from error
        return steps

    return StructuredTool.from_function(
        coroutine=solve, name=name, description="works out arithmetic step by step"
    )
