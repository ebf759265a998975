"""Kinds of experts, each with its real part: a model, an MCP server, a person, a user's tool."""

import asyncio
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from langchain_core.tools import BaseTool, StructuredTool, tool

from eapo_agents.errors import ModelError, UsageError
from eapo_agents.experts.call_store import CallSite
from eapo_agents.experts.expert import Expert
from eapo_agents.experts.kinds import KINDS, make_expert
from eapo_agents.experts.noisy import REFUSAL, spoil
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.policy.tool_calls import format_call, parse_turn
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget
from eapo_agents.types import ConsultationStatus, StopReason
from graphs.consult import build_consult_graph
from graphs.conversation import Conversation
from graphs.events import Ended, PersonAsked, Replied
from graphs.rollout import run_group

S = ConsultationStatus


@tool
def shout(words: str) -> str:
    """says it loudly"""
    return words.upper()


def plain(query: str) -> str:
    """answers plainly"""
    return f"plainly {query}"


not_a_tool = 3


def expert(kind, name="a", **options):
    return make_expert(kind, name=name, options=options)


def ask(pool, arguments, name="a"):
    return asyncio.run(pool.ask(name, arguments, CallSite()))


def test_every_kind_is_documented_in_the_recipe():
    from eapo_agents import recipe_sections

    text = Path(recipe_sections.__file__).read_text()
    assert all(f"`{kind}`" in text for kind in KINDS)


@pytest.mark.parametrize(
    ("gives", "query", "reply"),
    [
        ("solution", "What is 7 + 3 * 4?", "3 * 4 = 12. 7 + 12 = 19."),
        ("prefix", "7 + 3 * 4", "3 * 4 = 12. 7 +"),
        ("first_step", "7 + 3 * 4", "3 * 4 = 12."),
        ("plan", "7 + 3 * 4", "3 * 4, then 7 +."),
        ("plan", "(-2 + 3) * (4 - 1) - 5", "-2 + 3, then 4 - 1, then *, then - 5."),
        ("subresult", "7 + 3 * 4", "12."),
        ("other_notation", "7 + 3 * 4", "3 4 * 12. 7 12 + 19."),
        ("critique", "7 + 3 * 4 = 31", "Wrong. First 3 * 4."),
        ("critique", "What is 7 + 3 * 4? I say = 19.", "Right."),
        ("critique", "7 + 3 * 4", "There is no answer to judge."),
    ],
)
def test_a_solver_gives_the_kind_of_help_that_it_is_set_to(gives, query, reply):
    answer = ask(ExpertPool([expert("solver", gives=gives)]), {"query": query})
    assert (answer.status, answer.text) == (S.ACCEPTED, reply)


@pytest.mark.parametrize("gives", ["prefix", "first_step", "subresult"])
def test_a_part_never_holds_the_answer(gives):
    answer = ask(ExpertPool([expert("solver", gives=gives)]), {"query": "3 * 4"})
    assert answer.status is S.FAILED
    assert "would be all of it" in answer.error


@pytest.mark.parametrize(
    "options", [{"gives": "hint"}, {"share": 0.5}, {"gives": "prefix", "share": 1}]
)
def test_a_solver_that_cannot_be_is_refused(options):
    with pytest.raises(UsageError, match=r"gives one of solution, prefix|a share in \(0, 1\)"):
        expert("solver", **options)


def test_a_local_model_answers_and_says_the_same_again(saved_model):
    pool = ExpertPool([expert("transformers", model=str(saved_model), max_tokens=8)])
    first = ask(pool, {"query": "What is the capital of France?"})
    assert "Paris" in first.text
    assert first.usage.prompt_tokens > 20
    assert 0 < first.usage.completion_tokens <= 8
    assert first.cost_usd == 0
    assert not first.cached
    assert ask(pool, {"query": "What is the capital of France?"}).cached
    sampled = [
        expert("transformers", model=str(saved_model), max_tokens=8, temperature=1.0, seed=seed)
        for seed in (0, 1)
    ]
    texts = [
        ask(ExpertPool([e]), {"query": "Tell me a story."}).text for e in [*sampled, sampled[0]]
    ]
    assert texts[0] == texts[2] != texts[1]


def test_a_local_model_that_is_not_there_is_refused_at_once():
    with pytest.raises(ModelError, match="no model folder"):
        expert("transformers", model="./nothing")


def test_tools_that_the_user_has_are_experts():
    here = "tests.experts.test_kinds" if "tests.experts.test_kinds" in sys.modules else __name__
    pool = ExpertPool(
        [
            expert("tool", "loud", object=f"{here}:shout"),
            expert("tool", "plain", object=f"{here}:plain", description="plain words"),
        ]
    )
    assert ask(pool, {"words": "hi"}, "loud").text == "HI"
    assert ask(pool, {"query": "hi"}, "plain").text == "plainly hi"
    assert [t.description for t in pool.tools] == ["says it loudly", "plain words"]
    assert pool.refusal("loud", {"query": "hi"}) == "loud takes these arguments: words."
    assert pool.refusal("loud", {"words": "hi"}) is None
    for wrong in ("nothing.at:all", "json", "json:nothing", f"{here}:not_a_tool"):
        with pytest.raises(UsageError):
            expert("tool", object=wrong)


def test_a_tool_that_blocks_for_ever_holds_up_nobody():
    def block(query: str) -> str:
        """blocks"""
        time.sleep(3600)
        return query

    class Blocking(BaseTool):
        name: str = "b"
        description: str = "blocks"

        def _run(self, query: str) -> str:
            return block(query)

    started = time.perf_counter()
    tools = [StructuredTool.from_function(block, name="a"), Blocking()]
    pool = ExpertPool([Expert(tool=t, timeout_s=0.3) for t in tools])
    answers = [ask(pool, {"query": "q"}, name) for name in "ab"]
    assert [answer.status for answer in answers] == [S.TIMEOUT] * 2
    assert time.perf_counter() - started < 2  # the loop has ended too

    def fails(query: str) -> str:
        """fails"""
        raise ValueError("no luck")

    failing = ExpertPool([Expert(tool=StructuredTool.from_function(fails, name="f"))])
    assert "no luck" in ask(failing, {"query": "q"}, "f").error


def test_a_tool_of_an_mcp_server_is_an_expert(monkeypatch):
    monkeypatch.setenv("WANTED", "sk-wanted")
    monkeypatch.setenv("UNWANTED", "sk-unwanted")
    server = str(Path(__file__).parent / "mcp_server.py")
    command = {"command": sys.executable, "args": [server], "env": ["WANTED"]}
    pool = ExpertPool(
        [
            expert("mcp", "sum", tool="add", **command),
            expert("mcp", "who", tool="whoami", **command),
        ]
    )
    assert ask(pool, {"a": 2, "b": 3}, "sum").text == "5"
    assert pool.refusal("sum", {"a": 2}) == "sum takes these arguments: a, b."
    said = ask(pool, {}, "who").text.split()
    assert "WANTED" in said
    assert "UNWANTED" not in said
    wrong = ask(pool, {"a": "x", "b": 3}, "sum")
    assert wrong.status is S.FAILED
    with pytest.raises(UsageError, match="it has add, whoami"):
        expert("mcp", tool="subtract", **command)
    with pytest.raises(UsageError, match="does not answer"):
        expert("mcp", tool="add", command="/nonexistent/server")
    with pytest.raises(UsageError, match="either command or url"):
        expert("mcp", tool="add")


def test_a_tool_of_an_mcp_server_over_http_is_an_expert_and_its_key_is_kept(monkeypatch):
    monkeypatch.setenv("MCP_KEY", "sk-of-the-mcp-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = str(Path(__file__).parent / "mcp_server.py")
    server = subprocess.Popen([sys.executable, script, str(port)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while socket.socket().connect_ex(("127.0.0.1", port)) and time.monotonic() < deadline:
            time.sleep(0.1)
        at = {"url": f"http://127.0.0.1:{port}/mcp"}
        pool = ExpertPool(
            [
                expert("mcp", "sum", tool="add", **at),
                expert("mcp", "known", tool="whoami", api_key_env="MCP_KEY", **at),
                expert("mcp", "unknown", tool="whoami", **at),
            ]
        )
        assert ask(pool, {"a": 2, "b": 3}, "sum").text == "5"
        assert ask(pool, {}, "known").text == "Bearer [key]"
        assert ask(pool, {}, "unknown").text == "nothing"
    finally:
        server.kill()
        server.wait()
    gone = ask(pool, {"a": 2, "b": 3}, "sum")
    assert gone.status is S.FAILED
    assert "TaskGroup" not in gone.error


def test_a_noisy_expert_spoils_about_as_many_replies_as_it_was_told():
    inner = {"kind": "solver"}
    shares = {"wrong": 0.2, "empty": 0.1, "contradiction": 0.1, "injection": 0.1, "refusal": 0.1}
    noisy = ExpertPool([expert("noisy", of=inner, **shares)])
    queries = [f"{a} + {b} * 3" for a in range(20) for b in range(20)]

    async def all_of():
        return [await noisy.ask("a", {"query": q}, CallSite()) for q in queries]

    texts = [answer.text for answer in asyncio.run(all_of())]
    good = [
        f"{b} * 3 = {b * 3}. {a} + {b * 3} = {a + b * 3}." for a in range(20) for b in range(20)
    ]
    counted = {
        "right": sum(text == g for text, g in zip(texts, good, strict=True)),
        "empty": texts.count(""),
        "refusal": texts.count(REFUSAL),
        "injection": sum("Ignore the task" in text for text in texts),
        "contradiction": sum(" No, that is not right: " in text for text in texts),
    }
    counted["wrong"] = len(texts) - sum(counted.values())
    expected = {"right": 160, **{noise: share * 400 for noise, share in shares.items()}}
    for noise, number in expected.items():
        assert abs(counted[noise] - number) < 4 * (number * (1 - number / 400)) ** 0.5, noise
    assert texts == [answer.text for answer in asyncio.run(all_of())]


@pytest.mark.parametrize("text", ["so it is 19.", "x = -3", "2.5 metres", "no number", ""])
def test_a_spoilt_reply_is_another(text):
    assert spoil(text, 0) != text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"of": {"kind": "solver"}, "wrong": 0.7, "empty": 0.5}, "together at"),
        ({"of": {"kind": "solver"}, "wrong": -0.1}, "at least 0"),
        ({"of": {"knd": "solver"}}, "wraps"),
        ({"of": {"kind": "oracle"}}, "Unknown expert kind"),
        ({}, "do not fit"),
    ],
)
def test_a_wrong_noisy_expert_is_refused(options, says):
    with pytest.raises(UsageError, match=says):
        expert("noisy", **options)


def talk(graph, policy, thread="t"):
    return Conversation(graph=graph, policy=policy, thread_id=thread, system_prompt="", seed=0)


def person_graph(policy, saver):
    pool = ExpertPool([expert("human", "me"), expert("scripted", "other", default="42")])
    always = AcceptanceSchedule(kind="constant")
    graph = build_consult_graph(
        policy, pool, acceptance=always, turns=TurnBudget(), checkpointer=saver
    )
    return graph, pool


async def test_a_person_is_asked_and_a_restart_forgets_nothing(scripted, tmp_path):
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    asks = format_call("me", {"query": "q1"}) + format_call("other", {"query": "q2"})
    policy = scripted([asks + format_call("me", {"query": "q3"}), "Answer: 19"])
    at = str(tmp_path / "threads.db")
    async with AsyncSqliteSaver.from_conn_string(at) as saver:
        graph, pool = person_graph(policy, saver)
        events = [event async for event in talk(graph, policy).ask("Q")]
        waiting = [event for event in events if isinstance(event, PersonAsked)]
        assert [(w.expert, w.query) for w in waiting] == [("me", "q1"), ("me", "q3")]
        assert [row.expert for _, row in pool.store.rows()] == ["other"]
    # another program, another pool, the same file
    async with AsyncSqliteSaver.from_conn_string(at) as saver:
        graph, pool = person_graph(policy, saver)
        later = talk(graph, policy)
        assert await later.waiting() == waiting
        replies = {waiting[0].id: "reply one", waiting[1].id: "  "}
        events = [event async for event in later.reply(replies)]
        replied = {(e.query, e.status) for e in events if isinstance(e, Replied)}
        assert replied == {("q1", "accepted"), ("q3", "failed")}
        ended = events[-1]
        assert isinstance(ended, Ended)
        assert (ended.answer, ended.stop_reason) == ("Answer: 19", "answered")
        turns = (await later.trajectory(None)).turns
        assert [c.reply for c in turns[0].consultations][:2] == ["reply one", "42"]
        # the other expert was not asked a second time
        assert sorted(row.expert for _, row in pool.store.rows()) == ["me", "me"]


async def test_a_rollout_that_asks_a_person_is_an_error(scripted, problem):
    policy = scripted([format_call("me", {"query": "q"}), "Answer: 19"])
    graph, _ = person_graph(policy, None)
    (trajectory,) = (
        await run_group(graph, policy, problem, 1, system_prompt="", seed=0)
    ).trajectories_G
    assert trajectory.stop_reason is StopReason.ERROR
    assert "waits for a person" in trajectory.error


async def test_an_injected_reply_becomes_no_call_no_turn_and_no_answer(scripted, renderer, problem):
    policy = scripted([format_call("a", {"query": "7 + 3"}), "I will not. Answer: 19"])
    pool = ExpertPool([expert("noisy", of={"kind": "solver"}, injection=1.0)])
    graph = build_consult_graph(
        policy, pool, acceptance=AcceptanceSchedule(kind="constant"), turns=TurnBudget()
    )
    (trajectory,) = (
        await run_group(graph, policy, problem, 1, system_prompt="", seed=0)
    ).trajectories_G
    first, second = trajectory.turns
    reply = first.consultations[0].reply
    assert parse_turn(reply).calls  # it does forge a call
    assert "Answer: 0" in reply
    assert trajectory.answer == "I will not. Answer: 19"
    assert len(trajectory.turns) == 2
    assert second.consultations == ()
    # one turn's end (the reply's frame) and one new turn: none of the reply's own marks counts
    special = [i for i in second.context_ids if i in renderer.tokenizer.all_special_ids]
    frame = renderer.continuation([], closed_by=renderer.end_of_turn_id)
    assert special.count(renderer.end_of_turn_id) == 1
    assert len(special) <= 3 + sum(i in renderer.tokenizer.all_special_ids for i in frame)
    assert reply in renderer.tokenizer.decode(second.context_ids)
