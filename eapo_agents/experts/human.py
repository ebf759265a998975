"""The human expert: the graph stops at `interrupt` and continues with the person's reply."""

from __future__ import annotations

from langchain_core.tools import BaseTool, StructuredTool

from eapo_agents.errors import ExpertError
from eapo_agents.experts.review import OF_A_PERSON, REJECT, Action, decide, refused_because


def human_tool(name: str, *, description: str = "asks a person") -> BaseTool:
    """Make a tool that asks a person; its graph needs a checkpointer.

    The interrupt has the form of `review`. Resume it with a decision `respond` or `reject`, or with
    the text of the reply.
    """

    async def ask(query: str) -> str:
        action = Action(
            name=name,
            arguments={"query": query},
            description=f"The policy asks you, its expert '{name}': {query}",
            allowed=OF_A_PERSON,
        )
        decision = decide(action, lambda edited: None)
        if decision.type == REJECT:
            raise ExpertError(refused_because(decision.message))
        reply = decision.message.strip()
        if not reply:
            raise ExpertError("The person gave no reply.")
        return reply

    return StructuredTool.from_function(coroutine=ask, name=name, description=description)
