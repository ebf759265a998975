"""A LangGraph agent that knows nothing of eapo-agents, traced and trained on.

It tries the problem, has a sub-agent check the try, replaces its history with a summary, and
answers. Run it with `python docs/examples/own_graph.py cpu-smol runs/own`.
"""

import sys
from pathlib import Path
from typing import Annotated

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, HumanMessage, RemoveMessage
from langgraph.graph import START, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES, add_messages
from langgraph.graph.state import CompiledStateGraph
from typing_extensions import TypedDict


class State(TypedDict):
    question: str
    messages: Annotated[list[AnyMessage], add_messages]


def build(model: BaseChatModel) -> CompiledStateGraph:
    """Return the agent over any LangChain chat model."""

    async def speak(state: State) -> dict:
        return {"messages": [await model.ainvoke(state["messages"])]}

    checker = StateGraph(State).add_node("check", speak).add_edge(START, "check").compile()

    async def check(state: State) -> dict:
        attempt = state["messages"][-1].text
        doubt = HumanMessage(f"{state['question']}\nSomebody says: {attempt}\nIs that right?")
        verdict = (await checker.ainvoke({"messages": [doubt]}))["messages"][-1].text
        summary = f"{state['question']}\nA try: {attempt}\nA check: {verdict}\nAnswer now."
        return {"messages": [RemoveMessage(REMOVE_ALL_MESSAGES), HumanMessage(summary)]}

    graph = StateGraph(State)
    graph.add_sequence([("attempt", speak), ("check", check), ("answer", speak)])
    return graph.add_edge(START, "attempt").compile(name="try-check-answer")


def question_of(problem) -> dict:
    return {"question": problem.question, "messages": [HumanMessage(problem.question)]}


def main(recipe: str, folder: str) -> None:
    from eapo_agents.recipe_file import load_recipe
    from eapo_agents.store import TraceStore
    from eapo_agents.tasks import load_problems
    from graphs.agent import load_agent
    from graphs.collect import trace
    from trainers.run import train_traced

    agent = load_agent(load_recipe(recipe))
    graph = build(agent.policy(agent.sampling))
    problems = load_problems(agent.recipe.task.name, split="train", limit=8, seed=0)
    with TraceStore.open(Path(folder) / "traces.db", create=True) as store:
        trace(agent, graph, problems, store, run_id="own", inputs=question_of)
        train_traced(agent, store, "own", Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
