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
START_S = 240.0
ASKING = """
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.policy.scripted import ScriptedEngine
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.recipe_file import load_recipe
from eapo_agents.schedules import AcceptanceSchedule
from eapo_agents.types import Sampling
from graphs.agent import load_agent


def build(policy, tools):
    # a model this small never asks by itself
    async def think(state):
        said = await policy.bind_tools(tools).ainvoke(state["messages"])
        name, query = ("me", "well?") if "person" in str(state) else ("solver", "7 + 3 * 4")
        call = {"name": name, "args": {"query": query}, "id": "c", "type": "tool_call"}
        return {"messages": [said.model_copy(update={"tool_calls": [call]})]}

    graph = StateGraph(MessagesState).add_node("think", think).add_node("tools", ToolNode(tools))
    return graph.add_edge(START, "think").add_edge("think", "tools").compile()


agent = load_agent(load_recipe("recipe.yaml", ["graph=asking:build"]))
graph = agent.graph(agent.policy(agent.sampling))


def script(key, prompt):
    asks = format_call("solver", {"query": "1 + 1"}) + format_call("me", {"query": "well?"})
    return asks if key.turn % 2 == 0 else "So it is."


ours = load_agent(load_recipe("recipe.yaml"))
writer = PolicyChatModel(
    engine=ScriptedEngine(ours.renderer, script),
    renderer=ours.renderer,
    sampling=Sampling(max_new_tokens=200),
)
reviewed = ours.graph(writer, acceptance=AcceptanceSchedule(kind="constant"))
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
    config["graphs"]["reviewed"] = "./asking.py:reviewed"
    (folder / "langgraph.json").write_text(json.dumps(config))
    (folder / "asking.py").write_text(ASKING)
    for name in ("pyproject.toml", "README.md", "graphs", "eapo_agents"):
        (folder / name).symlink_to(ROOT / name)
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"name: studio\npolicy: {{model: {saved_model}}}\nsampling: {{max_new_tokens: 8}}\n"
        "task: {name: arithmetic, system_prompt: Be exact.}\n"
        "consult: {experts: {solver: {kind: solver}, me: {kind: human}}}\n"
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
    assert set(assistants) == {"agent", "solo", "asking", "reviewed"}
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


def waiting_in(client, thread):
    state = client.threads.get_state(thread)
    found = [one for task in state["tasks"] for one in task["interrupts"]]
    return {one["value"]["action_requests"][0]["name"]: one for one in found}


def test_a_person_is_asked_by_an_interrupt_and_the_run_resumes_with_the_reply(client):
    thread = client.threads.create()["thread_id"]
    said = {"messages": [{"role": "user", "content": "Ask the person."}]}
    client.runs.wait(thread, "asking", input=said)
    asked = waiting_in(client, thread)["me"]["value"]
    assert asked["action_requests"][0]["args"] == {"query": "well?"}
    assert asked["review_configs"] == [
        {"action_name": "me", "allowed_decisions": ["respond", "reject"]}
    ]
    decisions = {"decisions": [{"type": "respond", "message": "my word"}]}
    state = client.runs.wait(thread, "asking", command={"resume": decisions})
    reply = state["messages"][-1]
    assert (reply["type"], reply["content"]) == ("tool", "my word")
    assert reply["artifact"]["status"] == "accepted"


@pytest.mark.parametrize(
    ("decision", "query", "status"),
    [
        ({"type": "approve"}, "1 + 1", "accepted"),
        (
            {"type": "edit", "edited_action": {"name": "solver", "args": {"query": "2 + 2"}}},
            "2 + 2",
            "accepted",
        ),
        ({"type": "reject", "message": "not now"}, "1 + 1", "withheld"),
    ],
)
def test_calls_wait_for_decisions_where_the_context_says_so(client, decision, query, status):
    thread = client.threads.create()["thread_id"]
    said = {"messages": [{"role": "user", "content": "What is 1 + 1?"}]}
    client.runs.wait(thread, "reviewed", input=said, context={"review": True})
    waiting = waiting_in(client, thread)
    assert set(waiting) == {"solver", "me"}
    # without the context: what waits for a decision is not sent all the same
    resume = {
        waiting["solver"]["id"]: {"decisions": [decision]},
        waiting["me"]["id"]: {"decisions": [{"type": "reject"}]},
    }
    state = client.runs.wait(thread, "reviewed", command={"resume": resume})
    solver, me = (m["artifact"] for m in state["messages"] if m["type"] == "tool")
    assert (solver["query"], solver["status"]) == (query, status)
    assert (solver["error"] or "").endswith("not now" if status == "withheld" else "")
    assert (me["status"], me["error"]) == ("failed", "A person refused it.")
    assert state["messages"][-1]["content"] == "So it is."


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
