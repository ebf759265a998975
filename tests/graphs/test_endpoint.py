"""The endpoint that records: real HTTP, the openai SDK, and traces that train. The policy is
scripted, or a tiny real one."""

import json
import threading
import time
from contextlib import contextmanager
from urllib.parse import quote

import httpx
import openai
import pydantic_ai
import pytest
import uvicorn
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from trained_pairs import KnowingEngine, trained

from eapo_agents.errors import UsageError
from eapo_agents.policy.fresh import make_model
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.recipe_file import load_recipe
from eapo_agents.runs import train
from eapo_agents.runs.recorded_serving import RecordedServing, make_endpoint, refuse_open_host
from eapo_agents.store import TraceStore
from eapo_agents.tasks import load_problems
from eapo_agents.types import Role, StopReason
from graphs.agent import Agent, load_agent, make_pool
from trainers.doctor import examine
from trainers.warm_start_episodes import script_texts

SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Search.",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
    },
}
ASK = format_call("solver", {"query": "7 + 3 * 4"})
SOLO = ("consult.experts={}", "consult.solo_share=0", "train.report_to=[]")


@pytest.fixture
def serve(renderer, tmp_path):
    """serve(script, *settings) -> context: (openai client, engine, path of the store)."""

    @contextmanager
    def make(script, *settings, agent=None, key=None, idle_s=600.0):
        if agent is None:
            recipe = load_recipe("cpu-smol", ["train.report_to=[]", *settings])
            agent = Agent(
                recipe=recipe,
                loaded=None,
                renderer=renderer,
                engine=KnowingEngine(renderer, script),
                pool=make_pool(recipe),
            )
        path = tmp_path / "traces.db"
        wanted = RecordedServing(
            store=str(path), run_id="r", model="m", host="127.0.0.1", port=0, key=key, idle_s=idle_s
        )
        with TraceStore.open(path, create=True) as store:
            app = make_endpoint(agent, store, wanted).app()
            server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
            thread = threading.Thread(target=server.run)
            thread.start()
            while not server.started:
                time.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            url = f"http://127.0.0.1:{port}"
            try:
                with openai.OpenAI(
                    base_url=f"{url}/v1", api_key=key or "none", max_retries=0
                ) as client:
                    yield client, agent.engine, path
            finally:
                server.should_exit = True
                thread.join()

    return make


def reward(client, name, **given):
    return client.post(f"/sessions/{name}/reward", body=given, cast_to=httpx.Response).json()


def trajectories(path):
    with TraceStore.open(path) as store:
        return [stored.trajectory for stored in store.trajectories("r")]


def agent_loop(client, question, streamed, headers):
    """An agent as people write them with the SDK: it runs its tool until there is an answer."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
    while True:
        if streamed:
            with client.chat.completions.stream(
                model="m", messages=messages, tools=[SEARCH], extra_headers=headers
            ) as stream:
                stream.until_done()
                said = stream.get_final_completion().choices[0].message
        else:
            said = (
                client.chat.completions.create(
                    model="m", messages=messages, tools=[SEARCH], extra_headers=headers
                )
                .choices[0]
                .message
            )
        messages.append(said.model_dump(exclude_none=True, exclude={"parsed", "parsed_arguments"}))
        if not said.tool_calls:
            return said.content
        for call in said.tool_calls:
            found = f"found {json.loads(call.function.arguments)['query']}"
            messages.append({"role": "tool", "tool_call_id": call.id, "content": found})


def searching(key, prompt):
    if "found second" in prompt:
        return "It is 19."
    second = "found first" in prompt
    return f"I look. {format_call('search', {'query': 'second' if second else 'first'})}"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("headers", [{}, {"X-Eapo-Session": "mine"}])
def test_an_agent_of_the_openai_sdk_gives_a_trace_token_for_token(serve, streamed, headers):
    with serve(searching, *SOLO) as (client, engine, path):
        assert agent_loop(client, "What is it?", streamed, headers) == "It is 19."
        if headers:
            told = reward(client, "mine", reward=0.75)
            assert (told["turns"], told["reward"], told["correct"]) == (3, 0.75, True)
    (found,) = trajectories(path)  # without a header it ends with the endpoint
    assert (found.role, found.stop_reason) == (Role.OWN, StopReason.ANSWERED)
    assert (found.answer, found.reward) == ("It is 19.", 0.75 if headers else None)
    assert [turn.parent for turn in found.turns] == [None, 0, 1]
    assert trained(found) == engine.seen


def test_an_agent_of_another_framework_gives_a_trace_token_for_token(serve):
    with serve(searching, *SOLO) as (client, engine, path):
        provider = OpenAIProvider(base_url=str(client.base_url), api_key="none")
        agent = pydantic_ai.Agent(
            OpenAIChatModel("m", provider=provider), system_prompt="Be brief."
        )

        @agent.tool_plain
        def search(query: str) -> str:
            """Search."""
            return f"found {query}"

        assert agent.run_sync("What is it?").output == "It is 19."
    (found,) = trajectories(path)
    assert [turn.parent for turn in found.turns] == [None, 0, 1]
    assert trained(found) == engine.seen


def test_the_task_scores_a_session_on_one_of_its_problems(serve):
    problem = load_problems("arithmetic", split="train", limit=1, seed=0)[0]
    with serve(lambda key, prompt: f"Answer: {problem.answer}", *SOLO) as (client, _, path):
        for headers in ({"X-Eapo-Problem": quote(problem.id)}, {}):
            asked = "Go." if headers else f" {problem.question}\n"
            said = client.chat.completions.with_raw_response.create(
                model="m", messages=[{"role": "user", "content": asked}], extra_headers=headers
            )
            assert reward(client, said.headers["x-eapo-session"])["reward"] == 1.0
    one, other = trajectories(path)
    assert one.problem.id == other.problem.id == problem.id
    assert (one.rollout, other.rollout) == (0, 1)


def test_experts_of_the_recipe_are_asked_behind_the_endpoint(serve):
    def script(key, prompt):
        if "found it" in prompt:
            return "It is 19."
        if "7 + 12 = 19" in prompt:
            return format_call("search", {"query": "it"})
        return f"I ask. {ASK}"

    always = "consult.acceptance={kind: constant, start: 1}", "consult.turns={start: 3, end: 3}"
    with serve(script, *always) as (client, engine, path):
        headers = {"X-Eapo-Session": "s"}
        assert agent_loop(client, "What is 7 + 3 * 4?", False, headers) == "It is 19."
        assert reward(client, "s", reward=1)["turns"] == 3
    (found,) = trajectories(path)
    assert [[c.expert for c in turn.consultations] for turn in found.turns] == [["solver"], [], []]
    assert trained(found) == engine.seen


def test_a_call_that_cannot_be_read_and_a_call_beyond_the_turns_are_told(serve):
    def script(key, prompt):
        return "<tool_call>{nonsense</tool_call>" if "broken" in prompt else ASK

    one_turn = "consult.turns={start: 1, end: 1}", "train.internalise={}"
    with serve(script, *one_turn) as (client, _, _):
        said = [
            client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": asked}]
            ).choices[0]
            for asked in ("broken", "ask")
        ]
    assert "nonsense" in said[0].message.content
    assert (said[0].finish_reason, said[1].finish_reason) == ("stop", "length")


def test_several_choices_are_branches_of_one_session(serve):
    with serve(lambda key, prompt: f"It is {key.branch % 7}", *SOLO) as (client, engine, path):
        headers = {"X-Eapo-Session": "s"}
        asked = [{"role": "user", "content": "Well?"}]
        said = client.chat.completions.create(
            model="m", messages=asked, n=3, temperature=0.5, extra_headers=headers
        )
        assert len(said.choices) == 3
        reward(client, "s", reward=0)
    (found,) = trajectories(path)
    assert [turn.parent for turn in found.turns] == [None] * 3
    assert found.sampling.temperature == 0.5
    assert sorted(trained(found)) == sorted(engine.seen)


@pytest.mark.parametrize(
    ("request_", "rule"),
    [
        ({"stop": ["x"]}, "'stop': .*the policy ends its turns itself"),
        ({"tool_choice": "required"}, "'tool_choice': .*cannot be forced"),
        ({"temperature": -1}, "'temperature': .*greater than or equal to 0"),
        ({"logit_bias": {"5": 1}}, "'logit_bias': .*another distribution"),
        ({"reasoning_effort": "low"}, "'reasoning_effort' is not followed here"),
        ({"n": 1000}, "'n': .*less than or equal to 64"),
        ({"messages": []}, "'messages': .*at least 1"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "without a tool_call_id"),
        ({"messages": [{"role": "system", "content": "x"}]}, "begins with a message of the user"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "reads text"),
        ({"model": "other"}, "no model 'other'"),
        ({"tools": [{"type": "function", "function": {"name": "solver"}}]}, "'solver' is an exp"),
    ],
)
def test_what_cannot_be_followed_is_refused(serve, request_, rule):
    with serve(lambda key, prompt: "no") as (client, engine, path):
        given = {"model": "m", "messages": [{"role": "user", "content": "q"}]} | request_
        with pytest.raises(openai.APIStatusError, match=rule) as told:
            client.post("/chat/completions", body=given, cast_to=httpx.Response)
        assert told.value.status_code in (400, 404)
        assert engine.seen == []
    assert trajectories(path) == []


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[]", 400), (b"[" * 100_000, 400), (b" " * (33 * 1024 * 1024), 413)],
)
def test_hostile_bodies_are_refused(serve, body, status):
    with serve(lambda key, prompt: "no", *SOLO) as (client, _, _):
        url = f"{client.base_url}chat/completions"
        assert httpx.post(url, content=body).status_code == status


def test_sessions_and_problems_that_there_are_not(serve):
    with serve(lambda key, prompt: "no", *SOLO) as (client, _, _):
        messages = [{"role": "user", "content": "q"}]
        for name, given, status in (
            ("nobody", {"reward": 1}, 404),
            ("s", {"reward": "much"}, 400),
            ("s", {"reward": float("nan")}, 400),
            ("s", {"reward": 1}, 200),
            ("s", {"reward": 1}, 409),
        ):
            if status == 400:
                headers = {"X-Eapo-Session": "s"}
                client.chat.completions.create(model="m", messages=messages, extra_headers=headers)
            url = f"{client.base_url}sessions/{name}/reward"
            found = httpx.post(url, content=json.dumps(given))
            assert found.status_code == status, found.text
        for header in ({"X-Eapo-Session": "s"}, {"X-Eapo-Problem": "no/such"}):
            with pytest.raises(openai.APIStatusError, match=r"has ended|has no problem"):
                client.chat.completions.create(model="m", messages=messages, extra_headers=header)


def test_a_session_that_nobody_goes_on_with_ends(serve, monkeypatch):
    monkeypatch.setattr("graphs.endpoint.app._LOOK_S", 0.02)
    with serve(lambda key, prompt: "no", *SOLO, idle_s=0.05) as (client, _, path):
        asked = [{"role": "user", "content": "q"}]
        client.chat.completions.create(model="m", messages=asked)
        until = time.monotonic() + 60
        while not trajectories(path):
            assert time.monotonic() < until
            time.sleep(0.02)
    assert len(trajectories(path)) == 1


def test_only_who_has_the_key_comes_in_and_no_web_page(serve):
    with serve(lambda key, prompt: "no", *SOLO, key="secret") as (client, _, _):
        assert [model.id for model in client.models.list()] == ["m"]
        assert httpx.get(f"{client.base_url}models").status_code == 401
    with serve(lambda key, prompt: "no", *SOLO) as (client, _, _):
        url = f"{client.base_url}models"
        assert httpx.get(url).status_code == 200
        assert httpx.get(url, headers={"Origin": "https://evil.example"}).status_code == 403
        assert httpx.get(url, headers={"Host": "evil.example:80"}).status_code == 403
    with pytest.raises(UsageError, match=r"other machines can reach.*--key-env"):
        refuse_open_host("0.0.0.0", None)


def test_a_policy_trains_on_what_was_recorded(serve, tmp_path):
    problems = load_problems("arithmetic", split="train", limit=8, seed=0)
    make_model(
        tmp_path / "tiny",
        script_texts(load_recipe("scale-model"), problems),
        layers=1,
        width=32,
        heads=2,
        vocabulary=320,
        seed=0,
    )
    settings = [
        f"policy={{model: {tmp_path / 'tiny'}, fresh: null}}",
        "sampling.max_new_tokens=6",
        "train={steps: 1, problems_per_step: 1, num_generations: 2, report_to: [], "
        "minibatches_per_step: 1, gradient_accumulation_steps: 1}",
        *SOLO[:1],
    ]
    agent = load_agent(load_recipe("scale-model", settings))
    with serve(None, agent=agent) as (client, _, path):
        for number in range(4):
            headers = {"X-Eapo-Session": f"s{number}"}
            messages = [{"role": "user", "content": "What is 2 + 3?"}]
            said = client.chat.completions.create(
                model="m", messages=messages, extra_headers=headers
            )
            messages.append({"role": "assistant", "content": said.choices[0].message.content})
            messages.append({"role": "user", "content": "Sure?"})
            client.chat.completions.create(model="m", messages=messages, extra_headers=headers)
            reward(client, f"s{number}", reward=number % 2)
    with TraceStore.open(path) as store:
        (group,) = store.groups("r")
    report = examine([group])
    assert (report.num_trajectories, report.num_blocked) == (4, 0)
    trained = train(agent.recipe, tmp_path / "out", from_traces=str(path))
    assert trained.steps == 1
