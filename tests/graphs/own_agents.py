"""Graphs of a user's own, as a recipe names them: `own_agents:build`."""

from dataclasses import dataclass

from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import interrupt
from typing_extensions import TypedDict


@tool
def search(query: str) -> str:
    """Search."""
    return f"found {query}"


def _compiled(policy, tools, **options):
    bound = policy.bind_tools(tools) if tools else policy

    async def think(state):
        return {"messages": [await bound.ainvoke(state["messages"])]}

    def further(state):
        return "tools" if state["messages"][-1].tool_calls else END

    graph = StateGraph(MessagesState, options.pop("context_schema", None))
    graph.add_node("think", think).add_node("tools", ToolNode(tools))
    graph.add_edge(START, "think").add_edge("tools", "think")
    return graph.add_conditional_edges("think", further, ["tools", END]).compile(**options)


def build(policy, tools, name="agent"):
    return _compiled(policy, tools, name=name)


def searching(policy, tools):
    return _compiled(policy, [search, *tools], name="searching")


def alone(policy):
    return _compiled(policy, [], name="alone")


def short(policy, tools):
    return _compiled(policy, tools).with_config(recursion_limit=4)


@dataclass
class Needy:
    user: str


class NeedyDict(TypedDict):
    user: str


def needy(policy):
    return _compiled(policy, [], context_schema=Needy)


def needy_dict(policy):
    return _compiled(policy, [], context_schema=NeedyDict)


def approving(policy, tools):
    """Asks a person before it answers."""

    async def ask(state):
        return {"messages": [("human", f"approved: {interrupt({'approve': 'answer?'})}")]}

    agent = alone(policy)
    graph = StateGraph(MessagesState).add_node("ask", ask).add_node("agent", agent)
    return graph.add_edge(START, "ask").add_edge("ask", "agent").compile()


def with_hint(problem):
    return {"messages": [("human", f"{problem.question} Hint: {problem.metadata['expression']}")]}


def in_capitals(state):
    return state["messages"][-1].text.upper()


def as_number(state):
    return 19


def stop_reasons(policy, tools):
    """A state of its own in which `stop_reason` means something else."""

    class State(MessagesState):
        stop_reason: str

    async def think(state):
        return {"messages": [await policy.ainvoke(state["messages"])], "stop_reason": "bored"}

    graph = StateGraph(State).add_node("think", think).add_edge(START, "think")
    return graph.add_edge("think", END).compile()


def needs_year(problem):
    return {"messages": [("user", problem.metadata["year"])]}
