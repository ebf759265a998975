"""LangGraph's development server opens our graphs as they are: a real server, called through the
SDK."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from langgraph_sdk import get_sync_client

ROOT = Path(__file__).parents[2]
LANGGRAPH = ROOT / ".venv-studio" / "bin" / "langgraph"
START_S = 90.0
ASKING = """
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from eapo_agents.recipe_file import load_recipe
from graphs.agent import load_agent


def build(policy, tools):
    # a model this small never asks by itself
    call = {"name": "solver", "args": {"query": "7 + 3 * 4"}, "id": "c", "type": "tool_call"}

    async def think(state):
        said = await policy.bind_tools(tools).ainvoke(state["messages"])
        return {"messages": [said.model_copy(update={"tool_calls": [call]})]}

    graph = StateGraph(MessagesState).add_node("think", think).add_node("tools", ToolNode(tools))
    return graph.add_edge(START, "think").add_edge("think", "tools").compile()


agent = load_agent(load_recipe("recipe.yaml", ["graph=asking:build"]))
graph = agent.graph(agent.policy(agent.sampling))
"""

pytestmark = pytest.mark.skipif(
    not LANGGRAPH.exists(), reason="needs .venv-studio, which `make studio-env` makes"
)


@pytest.fixture(scope="module")
def client(saved_model, tmp_path_factory):
    """Works in a folder of its own, since the server keeps its state beside langgraph.json."""
    folder = tmp_path_factory.mktemp("studio")
    config = json.loads((ROOT / "langgraph.json").read_text())
    config["graphs"]["asking"] = "./asking.py:graph"
    (folder / "langgraph.json").write_text(json.dumps(config))
    (folder / "asking.py").write_text(ASKING)
    for name in ("pyproject.toml", "README.md", "graphs", "eapo_agents"):
        (folder / name).symlink_to(ROOT / name)
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"name: studio\npolicy: {{model: {saved_model}}}\nsampling: {{max_new_tokens: 8}}\n"
        "task: {name: arithmetic, system_prompt: Be exact.}\n"
        "consult: {experts: {solver: {kind: solver}}}\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = ["--no-browser", "--no-reload", "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        **os.environ,
        "EAPO_RECIPE": str(recipe),
        "HF_HUB_OFFLINE": "1",
        "LANGGRAPH_CLI_NO_ANALYTICS": "1",
        "LANGSMITH_TRACING": "false",
        "PYTHONPATH": str(folder),
    }
    log = folder / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [str(LANGGRAPH), "dev", *flags],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_S
        while True:
            try:
                with urllib.request.urlopen(f"{url}/ok", timeout=1):
                    break
            except OSError:
                if time.monotonic() > deadline or server.poll() is not None:
                    pytest.fail(f"langgraph dev did not start:\n{log.read_text()[-3000:]}")
                time.sleep(0.3)
        yield get_sync_client(url=url)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_both_graphs_are_there_with_their_schemas(client):
    assistants = {a["graph_id"]: a for a in client.assistants.search()}
    assert set(assistants) == {"agent", "solo", "asking"}
    for assistant in (assistants["agent"], assistants["solo"]):
        schemas = client.assistants.get_schemas(assistant["assistant_id"])
        assert "messages" in schemas["input_schema"]["properties"]
        assert "stop_reason" in schemas["output_schema"]["properties"]
        assert "rho" in schemas["context_schema"]["properties"]


def test_an_expert_is_asked_in_a_graph_of_ones_own(client):
    said = {"messages": [{"role": "user", "content": "What is 7 + 3 * 4?"}]}
    state = client.runs.wait(None, "asking", input=said)
    reply = state["messages"][-1]
    assert (reply["type"], reply["content"]) == ("tool", "3 * 4 = 12. 7 + 12 = 19.")
    assert reply["artifact"]["status"] == "accepted"


@pytest.mark.parametrize("graph", ["agent", "solo"])
def test_a_conversation_of_two_questions_after_the_recipe_s_system_prompt(client, graph, renderer):
    thread = client.threads.create()["thread_id"]
    for number in (1, 2):
        said = {"messages": [{"role": "user", "content": f"What is {number} + 1?"}]}
        state = client.runs.wait(thread, graph, input=said, context={"seed": number})
        types = [message["type"] for message in state["messages"]]
        assert types.count("human") == number
        assert types[-1] == "ai"
        shown = state["messages"][1]["additional_kwargs"]["eapo"]["context_ids"]
        assert "Be exact." in renderer.tokenizer.decode(shown)
        assert state["messages"][-1]["additional_kwargs"]["eapo"]["logprobs"]
        assert state["stop_reason"] in ("answered", "length", "turn_budget", "empty")


def test_the_policy_s_text_is_streamed_as_it_is_sampled(client):
    said = {"messages": [{"role": "user", "content": "Tell me a story."}]}
    stream = client.runs.stream(None, "solo", input=said, stream_mode="messages-tuple")
    pieces = [
        part.data[0]["content"]
        for part in stream
        if part.event == "messages" and part.data[0]["type"] == "AIMessageChunk"
    ]
    assert len(pieces) > 3
