"""LangGraph's development server opens our graphs as they are: a real server, called through the
SDK."""

import os
import shutil
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

pytestmark = pytest.mark.skipif(
    not LANGGRAPH.exists(), reason="needs .venv-studio, which `make studio-env` makes"
)


@pytest.fixture(scope="module")
def client(saved_model, tmp_path_factory):
    """Works in a folder of its own, since the server keeps its state beside langgraph.json."""
    folder = tmp_path_factory.mktemp("studio")
    shutil.copy(ROOT / "langgraph.json", folder)
    for name in ("pyproject.toml", "README.md", "graphs", "eapo_agents"):
        (folder / name).symlink_to(ROOT / name)
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"name: studio\npolicy: {{model: {saved_model}}}\nsampling: {{max_new_tokens: 8}}\n"
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
    assert set(assistants) == {"agent", "solo"}
    for assistant in assistants.values():
        schemas = client.assistants.get_schemas(assistant["assistant_id"])
        assert "messages" in schemas["input_schema"]["properties"]
        assert "stop_reason" in schemas["output_schema"]["properties"]
        assert "rho" in schemas["context_schema"]["properties"]


@pytest.mark.parametrize("graph", ["agent", "solo"])
def test_a_conversation_of_two_questions(client, graph):
    thread = client.threads.create()["thread_id"]
    for number in (1, 2):
        said = {"messages": [{"role": "user", "content": f"What is {number} + 1?"}]}
        state = client.runs.wait(thread, graph, input=said, context={"seed": number})
        types = [message["type"] for message in state["messages"]]
        assert types.count("human") == number
        assert types[-1] == "ai"
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
