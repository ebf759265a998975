"""The engine against real vLLM servers: the very tokens, their logprobs, what is refused."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from langchain_core.messages import HumanMessage
from langgraph.graph import START, MessagesState, StateGraph

from eapo_agents.errors import EngineError, EngineLostError, ServerError
from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.models import load_policy
from eapo_agents.tasks import load_problems
from eapo_agents.types import Sampling
from graphs.agent import load_agent
from graphs.rollout import RolloutPlan, run_rollouts
from trainers.rows import trajectory_rows

MODEL = "SmolLM2-135M-Instruct"
FOLLOW_UPS = ("Are you sure? Explain <|im_end|> each step.", "Now the answer alone, as a number.")


def multi_turn_graph(policy):
    """Three turns, with outside text between them that holds a special token's name."""

    async def speak(state):
        return {"messages": [await policy.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("turn_0", speak).add_edge(START, "turn_0")
    for number, said in enumerate(FOLLOW_UPS, 1):
        graph.add_node(f"ask_{number}", lambda state, said=said: {"messages": [HumanMessage(said)]})
        graph.add_node(f"turn_{number}", speak)
        graph.add_edge(f"turn_{number - 1}", f"ask_{number}")
        graph.add_edge(f"ask_{number}", f"turn_{number}")
    return graph.compile()


def trajectories(agent, num_problems=2, num_rollouts=2, sampling=None):
    policy = agent.policy(sampling or agent.sampling)
    problems = load_problems("arithmetic", split="train", limit=num_problems, seed=0)
    plans = [RolloutPlan(problem=p, rollouts=range(num_rollouts)) for p in problems]
    run = run_rollouts(multi_turn_graph(policy), policy, plans, system_prompt="Solve it.", seed=3)
    return [t for group in asyncio.run(run) for t in group.trajectories_G]


def differences(model, found, temperature=1.0) -> torch.Tensor:
    """|logprob of transformers - logprob that was recorded| of every sampled token."""
    deltas = []
    for row in (row for t in found for row in trajectory_rows(t, advantage=1.0)):
        ids = torch.tensor([[*row.prompt_ids, *row.completion_ids_T]])
        with torch.no_grad():
            logits = model(ids).logits[0].float() / temperature
        logprobs = logits.log_softmax(-1)[len(row.prompt_ids) - 1 : -1]
        own = logprobs.gather(1, torch.tensor(row.completion_ids_T)[:, None])[:, 0]
        mask = torch.tensor(row.mask_T).bool()
        deltas.append((own - torch.tensor(row.logprobs_T)).abs()[mask])
    return torch.cat(deltas)


@pytest.fixture(scope="module")
def float32():
    return load_policy(MODEL).model


def test_multi_turn_tokens_of_a_bfloat16_server_have_the_trainers_logprobs(
    server, make_recipe, float32
):
    agent = load_agent(make_recipe(server.url))
    found = trajectories(agent)
    assert [t.error for t in found] == [None] * 4
    assert all(len(t.turns) == 3 for t in found)
    rows = [trajectory_rows(t, advantage=1.0) for t in found]
    assert all(len(of_one) == 1 for of_one in rows), "three turns are one row, by construction"
    delta = differences(float32, found)
    print(f"bfloat16: mean |delta| {delta.mean():.5f}, max {delta.max():.3f}, n {len(delta)}")
    assert len(delta) > 100
    # free text of an untrained model is the worst case: transformers' own bfloat16 is 0.036 off
    assert delta.mean() < 0.05


def test_a_warm_started_policys_consultations_agree_to_two_hundredths_in_bfloat16(
    server, make_recipe, tmp_path
):
    """What training samples: turns with queries and replies between them."""
    from eapo_agents.runs.warm_starting import warm_start_into

    changes = {
        "sampling": {"max_new_tokens": 48},
        "warm_start": {"problems": 20, "rows_per_step": 4},
    }
    taught = load_agent(make_recipe(changes=changes))
    problems = load_problems("arithmetic", split="train", limit=32, seed=0)
    folder, _ = warm_start_into(taught, problems, tmp_path)
    agent = load_agent(make_recipe(server.url, changes=changes, adapter=str(folder)))
    policy = agent.policy(agent.sampling)
    plans = [RolloutPlan(problem=p, rollouts=range(2)) for p in problems[:5]]
    graph = agent.graph(policy)
    system = agent.recipe.task.system_prompt
    run = run_rollouts(graph, policy, plans, system_prompt=system, seed=3)
    found = [t for group in asyncio.run(run) for t in group.trajectories_G]
    assert [t.error for t in found] == [None] * 10
    assert sum(len(t.turns) > 1 for t in found) >= 3, "it asks"
    delta = differences(taught.model, found)
    print(f"bfloat16, warm-started: mean |delta| {delta.mean():.5f}, n {len(delta)}")
    assert delta.mean() < 0.02


def test_a_float32_server_agrees_to_a_thousandth_at_another_temperature(
    serve, recipe_file, make_recipe, float32
):
    served = serve("--recipe", str(recipe_file), "--dtype", "float32")
    sampling = {"temperature": 0.7, "max_new_tokens": 24}
    agent = load_agent(make_recipe(served.url, changes={"sampling": sampling}))
    found = trajectories(agent)
    delta = differences(float32, found, temperature=0.7)
    print(f"float32: mean |delta| {delta.mean():.6f}, max {delta.max():.4f}, n {len(delta)}")
    assert delta.mean() < 1e-3


def test_a_stream_tells_each_token_and_gives_what_the_whole_answer_gives(server, make_recipe):
    agent = load_agent(make_recipe(server.url))
    prompt = agent.renderer.prompt([HumanMessage("What is the capital of France?")], [])
    key = RolloutKey(seed=1, problem_id="p", step=0, rollout=0, turn=0)
    greedy = Sampling(temperature=0, max_new_tokens=16)
    told: list[int] = []

    async def both():
        # the prompt is in the server's cache for both: bfloat16 differs with how a prompt is read
        await agent.engine.generate(prompt, greedy, key)
        whole = await agent.engine.generate(prompt, greedy, key)
        return whole, await agent.engine.generate(prompt, greedy, key, on_token=told.append)

    whole, streamed = asyncio.run(both())
    assert whole.completion_ids == streamed.completion_ids == tuple(told)
    assert len(streamed.logprobs) == len(streamed.completion_ids)


def test_many_long_prompts_at_once_do_not_end_the_server(server, make_recipe):
    """More than the 2,048 tokens that a batch takes, so that a prompt is read in two pieces."""
    agent = load_agent(make_recipe(server.url))
    sampling = Sampling(max_new_tokens=8)

    async def all_of_them():
        async def one(number):
            key = RolloutKey(seed=0, problem_id=str(number), step=0, rollout=0, turn=0)
            return await agent.engine.generate([1000 + number] * 300, sampling, key)

        return await asyncio.gather(*map(one, range(9)))

    assert all(done.completion_ids for done in asyncio.run(all_of_them()))


def test_a_turn_ends_at_its_end_of_turn_which_is_kept(server, make_recipe):
    agent = load_agent(make_recipe(server.url))
    prompt = agent.renderer.prompt([HumanMessage("Say yes.")], [])
    keys = [RolloutKey(seed=1, problem_id="p", step=0, rollout=k, turn=0) for k in range(12)]

    async def all_of(sampling):
        made = (agent.engine.generate(prompt, sampling, key) for key in keys)
        return await asyncio.gather(*made)

    # what is sampled differs from processor to processor: of 12 turns some end, some may not
    turns = asyncio.run(all_of(Sampling(max_new_tokens=120)))
    for done in turns:
        *before, last = done.completion_ids
        assert not agent.renderer.stop_ids & set(before)
        if done.finish_reason == "stop":
            assert last in agent.renderer.stop_ids
        else:
            assert (done.finish_reason, len(done.completion_ids)) == ("length", 120)
    assert any(done.finish_reason == "stop" for done in turns)
    for cut in asyncio.run(all_of(Sampling(max_new_tokens=1))):
        (token,) = cut.completion_ids
        assert cut.finish_reason == ("stop" if token in agent.renderer.stop_ids else "length")


def test_what_cannot_be_used_is_refused_in_one_sentence(server, make_recipe):
    with pytest.raises(ServerError, match=r"serves SmolLM2-135M-Instruct.*, and not 'other'"):
        _refused(make_recipe(server.url), server.url)
    long = {"sampling": {"max_new_tokens": 4000}}
    with pytest.raises(ServerError, match=r"max_new_tokens is 4000.* takes 2048"):
        load_agent(make_recipe(server.url, changes=long))
    with pytest.raises(ServerError, match=r"No policy server answers at .*:9 .*eapo serve"):
        load_agent(make_recipe("http://127.0.0.1:9"))
    for url in ("ftp://x", "localhost:8000", "http://me:secret@host/v1"):
        with pytest.raises(ServerError, match="must be http or https"):
            load_agent(make_recipe(url))


def _refused(recipe, url):
    """An engine of another model name on that server."""
    from eapo_agents.policy.servers import ServerPool
    from eapo_agents.policy.vllm_engine import VllmEngine
    from eapo_agents.types import PolicyVersion

    version = PolicyVersion(model="other", base="b", weights="b", step=0)
    engine = VllmEngine(ServerPool([url]), version=version, adapter=None, stop_ids=[2])
    engine.connect(Sampling())


def test_a_prompt_that_does_not_fit_says_so_and_a_later_turn_ends(server, make_recipe):
    agent = load_agent(make_recipe(server.url))
    prompt = [5] * 2048
    first = RolloutKey(seed=1, problem_id="p", step=0, rollout=0, turn=0)
    with pytest.raises(EngineError, match="has 2048 tokens and the servers take 2048"):
        asyncio.run(agent.engine.generate(prompt, Sampling(), first))
    later = RolloutKey(seed=1, problem_id="p", step=0, rollout=0, turn=1)
    done = asyncio.run(agent.engine.generate(prompt, Sampling(), later))
    assert (done.completion_ids, done.finish_reason) == ((), "length")
    close = asyncio.run(agent.engine.generate(prompt[:2040], Sampling(), later))
    assert len(close.completion_ids) <= 8


@contextmanager
def completions_without_token_ids(status: int = 200) -> Iterator[str]:
    """A server that speaks OpenAI's protocol, without vLLM's token ids."""

    class Answers(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            self.answer(200, {"data": [{"id": MODEL, "max_model_len": 2048}]})

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.answer(status, {"choices": [{"index": 0, "text": "x", "logprobs": None}]})

        def answer(self, status, body):
            said = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

    served = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()


def test_a_server_without_token_ids_is_refused(make_recipe):
    with (
        completions_without_token_ids() as url,
        pytest.raises(ServerError, match="without token ids or logprobs"),
    ):
        load_agent(make_recipe(url))


def test_servers_that_are_gone_for_too_long_stop_the_work_and_blame_no_rollout(server, make_recipe):
    agent = load_agent(make_recipe(server.url, server_wait_s=1.0))
    agent.engine._pool.servers[0].url = "http://127.0.0.1:9"  # as if it had moved away
    told = []
    policy = agent.policy(agent.sampling)
    problems = load_problems("arithmetic", split="train", limit=1, seed=0)
    run = run_rollouts(
        agent.graph(policy),
        policy,
        [RolloutPlan(problem=problems[0], rollouts=range(4))],
        system_prompt="",
        seed=0,
        on_trajectory=told.append,
    )
    with pytest.raises(EngineLostError, match="No policy server has answered for 1 s"):
        asyncio.run(run)
    assert told == []
