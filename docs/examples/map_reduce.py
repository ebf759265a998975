"""A map-reduce graph: several attempts side by side, and one answer made of them.

    eapo train --recipe cpu-smol --graph docs.examples.map_reduce:build \\
        --set graph_options.attempts=3 --out runs/map-reduce

Each attempt and the answer are turns of one trajectory: all of them are trained, and the trajectory
weighs as one. An attempt may ask the recipe's experts once.
"""

import operator
from collections.abc import Sequence
from typing import Annotated

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.tools import BaseTool
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Send
from typing_extensions import TypedDict

ADVICE = "Somebody says: {reply}\nNow solve the problem."
REDUCE = "{question}\nAttempts:\n{attempts}\nGive the final answer."


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    attempts: Annotated[list[tuple[int, str]], operator.add]


class Attempt(TypedDict):
    number: int
    messages: list[AnyMessage]


def build(
    policy: BaseChatModel, tools: Sequence[BaseTool], attempts: int = 3
) -> CompiledStateGraph:
    """Return the graph over any chat model, with experts or without."""
    by_name = {tool.name: tool for tool in tools}
    asking = policy.bind_tools(list(tools)) if tools else policy

    async def attempt(state: Attempt) -> dict:
        tried = await asking.ainvoke(state["messages"])
        for call in tried.tool_calls[:1]:
            if call["name"] in by_name:
                reply = await by_name[call["name"]].ainvoke(call)
                advice = HumanMessage(ADVICE.format(reply=reply.text))
                tried = await policy.ainvoke([*state["messages"], advice])
        return {"attempts": [(state["number"], tried.text)]}

    async def reduce(state: State) -> dict:
        tried = "\n".join(f"{number + 1}. {text}" for number, text in sorted(state["attempts"]))
        *before, asked = state["messages"]
        said = HumanMessage(REDUCE.format(question=asked.text, attempts=tried))
        return {"messages": [await policy.ainvoke([*before, said])]}

    def spread(state: State) -> list[Send]:
        sent = {"messages": state["messages"]}
        return [Send("attempt", {"number": number, **sent}) for number in range(attempts)]

    graph = StateGraph(State)
    graph.add_node("attempt", attempt, input_schema=Attempt).add_node("reduce", reduce)
    graph.add_conditional_edges(START, spread, ["attempt"]).add_edge("attempt", "reduce")
    return graph.compile(name="map-reduce")
