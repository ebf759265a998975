"""No key leaves a tool of the user's: not by its error or its reply, not into the graph that Studio
shows, its events and stream, the ledger, stored replies or a rollout's record."""

import asyncio
import base64
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import quote

import pyarrow as pa
import pytest
from langchain_core.tracers.langchain import wait_for_all_tracers
from langsmith.utils import get_env_var

from eapo_agents import secrets
from eapo_agents.policy.scripted import ScriptedEngine
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.recipe_file import load_recipe
from eapo_agents.schedules import AcceptanceSchedule
from eapo_agents.secrets import read_key
from eapo_agents.tools import make_tools, use_tool
from graphs.agent import Agent, make_pool
from graphs.failures import describe

KEY = 'sk-pl/an+ted"-0123456789'
FORMS = {
    "as it is": KEY,
    "percent": quote(KEY, safe=""),
    "JSON": json.dumps(KEY)[1:-1],
    "base64": base64.b64encode(f"me:{KEY}".encode()).decode(),
}
CORES = {**FORMS, "base64": base64.b64encode(f"me:{KEY}".encode()).decode()[4:-4]}
"""What must not be found anywhere."""
TOOLS = """
from langchain_core.tools import tool

FORMS = {forms!r}


@tool
def vault(query: str) -> str:
    \"\"\"Look something up.\"\"\"
    if query.startswith("raise "):
        raise ValueError(f"401 for {{FORMS[query[6:]]}}: not allowed")
    return f"It is {{FORMS[query]}} there."
"""


@pytest.fixture
def planted(monkeypatch, tmp_path):
    monkeypatch.setattr(secrets, "_known", {})
    monkeypatch.setenv("VAULT_KEY", KEY)
    read_key("VAULT_KEY", wanted_by="A test")
    (tmp_path / "vault_tools.py").write_text(TOOLS.format(forms=FORMS))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("vault_tools", None)


@pytest.fixture
def opened(renderer, planted, tmp_path):
    """An agent as Studio opens it, whose scripted policy asks the vault and answers."""

    def make(query):
        recipe = load_recipe(
            "cpu-smol",
            [
                "train.report_to=[]",
                "sampling.max_new_tokens=400",
                "consult.turns={start: 3, end: 3}",
                "consult.experts={vault: {kind: tool, retries: 0, options: "
                "{object: 'vault_tools:vault'}}}",
            ],
        )

        def write(key, prompt):
            return format_call("vault", {"query": query}) if key.turn == 0 else "Answer: 1"

        pool = make_pool(recipe)
        pool.open(tmp_path / "experts.db", "run")
        engine = ScriptedEngine(renderer, write)
        agent = Agent(recipe=recipe, loaded=None, renderer=renderer, engine=engine, pool=pool)
        policy = agent.policy(agent.sampling, system_prompt="Be exact.")
        return agent.graph(policy, acceptance=AcceptanceSchedule(kind="constant")), pool

    return make


ASKED = {"messages": [{"role": "user", "content": "What is in it?"}]}
MODES = ["values", "updates", "messages", "custom", "tasks", "debug"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("query", ["{}", "raise {}"])
def test_no_key_is_in_what_studio_shows_nor_in_the_ledger(opened, tmp_path, form, query):
    graph, pool = opened(query.format(form))

    async def everything():
        shown = [part async for part in graph.astream(ASKED, stream_mode=MODES)]
        return shown, [event async for event in graph.astream_events(ASKED, version="v2")]

    shown, events = asyncio.run(everything())
    rows = [row for _, row in pool.store.rows()]
    pool.store.close()
    raised = query.startswith("raise")
    assert [row.status for row in rows] == ["failed" if raised else "accepted"] * 2
    assert all("[key]" in (row.error or "") for row in rows) == raised
    if not raised:
        assert "[key]" in repr(shown)
    for place in (repr(shown), repr(events), repr(rows)):
        assert CORES[form] not in place
    for file in tmp_path.glob("experts.db*"):
        assert CORES[form].encode() not in file.read_bytes()


def test_a_tool_that_stays_says_no_key_either(planted):
    (vault,) = make_tools(["vault_tools:vault"])
    for form in FORMS:
        for query in (form, f"raise {form}"):
            call = {"name": "vault", "args": {"query": query}, "id": "1", "type": "tool_call"}
            said = asyncio.run(use_tool([vault], call)).text
            assert "[key]" in said
            assert CORES[form] not in said


@pytest.mark.parametrize("form", FORMS)
def test_the_record_of_a_failed_rollout_has_no_key(planted, form):
    said = describe(RuntimeError(f"401 for {FORMS[form]}"))
    assert said.startswith("RuntimeError: 401 for ")
    assert CORES[form] not in said


class Uploads(BaseHTTPRequestHandler):
    """Keeps what LangSmith's client sends."""

    bodies: ClassVar[list[bytes]] = []

    def do_POST(self):
        self.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self.send_response(202)
        self.end_headers()

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


@pytest.fixture
def langsmith(monkeypatch):
    """LangSmith's own client, tracing to a server here."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Uploads)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Uploads.bodies.clear()
    get_env_var.cache_clear()
    for name, value in {
        "LANGSMITH_TRACING": "true",
        "LANGSMITH_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "LANGSMITH_API_KEY": "ls-none",
    }.items():
        monkeypatch.setenv(name, value)
    yield Uploads.bodies
    server.shutdown()
    get_env_var.cache_clear()


def test_what_is_traced_has_no_key(opened, langsmith):
    for query in ("as it is", "raise as it is"):
        graph, pool = opened(query)
        asyncio.run(graph.ainvoke(ASKED))
        pool.store.close()
    wait_for_all_tracers()
    sent = b"".join(map(unpacked, langsmith))
    assert sent.count(b"vault") > 1
    assert json.dumps(KEY)[1:-1].encode() not in sent
    assert KEY.encode() not in sent


def unpacked(body):
    for magic, codec in ((b"\x28\xb5\x2f\xfd", "zstd"), (b"\x1f\x8b", "gzip")):
        if body.startswith(magic):
            return pa.CompressedInputStream(pa.py_buffer(body), codec).read()
    return body
