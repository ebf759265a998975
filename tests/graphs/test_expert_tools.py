"""`ExpertPool.tools` in graphs of a user's own: whatever calls them, a call is a consultation with
a coin, limits and a row in the ledger. Real graphs, a scripted policy, scripted experts."""

import asyncio

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import StructuredTool, tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from eapo_agents.errors import BudgetError
from eapo_agents.experts.budget import Budget
from eapo_agents.experts.consulting import NOT_SENT, UNAVAILABLE
from eapo_agents.experts.expert import Expert
from eapo_agents.experts.kinds import make_expert
from eapo_agents.experts.pool import ALL, ANY, ExpertPool
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget
from eapo_agents.types import ConsultationStatus, Role
from graphs.consult import build_consult_graph
from graphs.rollout import RolloutPlan, run_group, run_rollouts

S = ConsultationStatus
HALF = AcceptanceSchedule(kind="constant", start=0.5)


def expert(name: str, reply: str | None = "take 3", delay_s: float = 0.0, **settings):
    options = {"default": reply, "delay_s": delay_s}
    return make_expert("scripted", name=name, options=options, **settings)


def ask(name: str = "a", query: str = "q") -> str:
    return format_call(name, {"query": query})


@tool
def search(query: str) -> str:
    """Search the web."""
    return f"found {query}"


def tool_node(tools):
    return ToolNode([*tools, search])


def catching(tools):
    return ToolNode(tools, handle_tool_errors=True)


def awaited(tools):
    """A node by hand that hands on the whole call."""
    by_name = {t.name: t for t in [*tools, search]}

    async def node(state):
        calls = state["messages"][-1].tool_calls
        return {"messages": await asyncio.gather(*(by_name[c["name"]].ainvoke(c) for c in calls))}

    return node


def blocking(tools):
    by_name = {t.name: t for t in [*tools, search]}

    def node(state):
        return {
            "messages": [by_name[c["name"]].invoke(c) for c in state["messages"][-1].tool_calls]
        }

    return node


def by_arguments(tools):
    """A node by hand that hands on the arguments alone, and writes the message itself."""
    by_name = {t.name: t for t in [*tools, search]}

    async def node(state):
        calls = state["messages"][-1].tool_calls
        replies = [await by_name[c["name"]].ainvoke(c["args"]) for c in calls]
        return {
            "messages": [
                ToolMessage(reply, tool_call_id=c["id"])
                for reply, c in zip(replies, calls, strict=True)
            ]
        }

    return node


def in_a_thread(tools):
    node = blocking(tools)

    async def threaded(state):
        return await asyncio.to_thread(node, state)

    return threaded


NODES = [tool_node, awaited, blocking, by_arguments, in_a_thread]


def agent(model, tools, node=tool_node):
    bound = model.bind_tools([*tools, search])

    async def think(state):
        return {"messages": [await bound.ainvoke(state["messages"])]}

    def further(state):
        return "tools" if state["messages"][-1].tool_calls else END

    graph = StateGraph(MessagesState).add_node("model", think).add_node("tools", node(tools))
    graph.add_edge(START, "model").add_conditional_edges("model", further, ["tools", END])
    return graph.add_edge("tools", "model").compile(name="own")


def inside(graph):
    """The graph as a sub-agent whose messages nobody keeps."""

    async def call(state):
        said = (await graph.ainvoke({"messages": state["messages"]}))["messages"][-1]
        return {"messages": [HumanMessage(said.text)]}

    return StateGraph(MessagesState).add_node("sub", call).add_edge(START, "sub").compile()


def rollouts(graph, model, problem, num=1, **options):
    run = run_group(graph, model, problem, num, system_prompt="", seed=0, **options)
    return asyncio.run(run).trajectories_G


def consultations(trajectory):
    return [c for turn in trajectory.turns for c in turn.consultations]


@pytest.mark.parametrize("node", NODES)
def test_a_call_is_a_consultation_of_its_turn_whatever_node_makes_it(scripted, problem, node):
    pool = ExpertPool([expert("a"), expert("broken", None, retries=0)])
    model = scripted([ask() + ask("search") + ask("broken"), "Answer: 3"])
    (found,) = rollouts(agent(model, pool.tools_under(), node), model, problem, global_step=2)
    assert found.error is None
    assert found.role is Role.OWN
    first, second = found.turns[0].consultations
    assert (first.slot, first.expert, first.reply, first.status) == (0, "a", "take 3", S.ACCEPTED)
    assert (second.slot, second.status, second.reply) == (2, S.FAILED, UNAVAILABLE)
    assert "No reply is scripted" in second.error
    assert [(row.expert, row.status) for _, row in pool.store.rows()] == [
        ("a", "accepted"),
        ("broken", "failed"),
    ]
    seen = model.renderer.tokenizer.decode(found.turns[1].context_ids)
    assert "take 3" in seen
    assert "found q" in seen
    assert UNAVAILABLE in seen
    assert "scripted" not in seen


@pytest.mark.parametrize("node", NODES)
def test_the_coin_falls_before_the_call_and_alike_in_every_node(scripted, problem, node):
    def statuses(node):
        pool = ExpertPool([expert("a")])
        model = scripted([ask() * 2, ask(), "Answer: 3"])
        graph = agent(model, pool.tools_under(HALF), node)
        found = [consultations(t) for t in rollouts(graph, model, problem, 12, global_step=3)]
        flat = [c for each in found for c in each]
        assert all(c.status is (S.ACCEPTED if c.u < c.rho else S.WITHHELD) for c in flat)
        called = [row for _, row in pool.store.rows() if row.attempts]
        assert len(called) == sum(c.status is S.ACCEPTED for c in flat)
        return [[(c.u, c.rho, c.status, c.reply) for c in each] for each in found]

    found = statuses(node)
    assert found == statuses(awaited)
    assert {len(each) for each in found} == {3}
    assert len({u for each in found for u, *_ in each}) == 36
    assert {S.ACCEPTED, S.WITHHELD} == {status for each in found for _, _, status, _ in each}


@pytest.mark.parametrize(("per", "num_coins"), [("reply", 3), ("turn", 2), ("rollout", 1)], ids=str)
def test_one_coin_decides_for_a_reply_a_turn_or_a_rollout(scripted, problem, per, num_coins):
    pool = ExpertPool([expert("a")])
    model = scripted([ask() * 2, ask(), "Answer: 3"])
    graph = agent(model, pool.tools_under(HALF.model_copy(update={"per": per})))
    (found,) = rollouts(graph, model, problem)
    assert len({c.u for c in consultations(found)}) == num_coins


def test_one_coin_per_rollout_is_the_consult_graph_s(scripted, problem):
    per = HALF.model_copy(update={"per": "rollout"})
    pool = ExpertPool([expert("a")])
    model = scripted([ask(), "Answer: 3"])
    turns = TurnBudget(start=3, end=3)
    ours = build_consult_graph(model, pool, acceptance=per, turns=turns)
    own = agent(model, pool.tools_under(per))
    found = [
        [c.u for t in rollouts(graph, model, problem, 5) for c in consultations(t)]
        for graph in (ours, own)
    ]
    assert found[0] == found[1]


def test_the_consultations_of_a_sub_agent_whose_messages_are_dropped_are_kept(scripted, problem):
    pool = ExpertPool([expert("a")])
    model = scripted([ask(), "Answer: 3"])
    (found,) = rollouts(inside(agent(model, pool.tools)), model, problem)
    assert [c.reply for c in found.turns[0].consultations] == ["take 3"]


def test_a_query_that_no_turn_wrote_is_the_turn_s_before_it(scripted, problem):
    pool = ExpertPool([expert("a")])
    (helper,) = pool.tools_under(HALF)
    model = scripted(["a try", "Answer: 3"])

    async def think(state):
        return {"messages": [await model.ainvoke(state["messages"])]}

    async def critic(state):
        replies = await asyncio.gather(*(helper.ainvoke(text) for text in ("x", "y", "x")))
        return {"messages": [HumanMessage(" ".join(replies))]}

    graph = StateGraph(MessagesState)
    graph.add_sequence([("before", critic), ("try", think), ("critic", critic), ("end", think)])
    graph = graph.add_edge(START, "before").compile()
    found = [rollouts(graph, model, problem)[0] for _ in range(2)]
    for trajectory in found:
        assert [len(turn.consultations) for turn in trajectory.turns] == [6, 0]
        asked = trajectory.turns[0].consultations
        assert [c.slot for c in asked] == list(range(6))
        assert len({c.u for c in asked}) == 6
    assert [c.u for c in consultations(found[0])] == [c.u for c in consultations(found[1])]


def test_of_many_queries_in_a_turn_only_k_are_sent_and_other_tools_do_not_count(scripted, problem):
    pool = ExpertPool([expert("a"), expert("b")])
    model = scripted([ask("search") * 3 + ask("a") + ask("b") + ask("a"), "Answer: 3"], 4000)
    (found,) = rollouts(agent(model, pool.tools_under(max_queries=2)), model, problem)
    statuses = [c.status for c in found.turns[0].consultations]
    assert statuses == [S.ACCEPTED, S.ACCEPTED, S.OVER_LIMIT]
    assert found.turns[0].consultations[2].reply == NOT_SENT


def test_calls_that_do_not_fit_are_told_to_the_policy(scripted, problem):
    pool = ExpertPool([expert("a")])
    model = scripted([format_call("a", {"wrong": 1}), "Answer: 3"])
    (found,) = rollouts(agent(model, pool.tools), model, problem)
    (asked,) = found.turns[0].consultations
    assert (asked.status, asked.reply) == (S.INVALID, "a takes these arguments: query.")


@pytest.mark.parametrize(
    "node", [tool_node, lambda tools: ToolNode(tools, handle_tool_errors=True)]
)
@pytest.mark.parametrize("in_rollouts", [True, False])
def test_a_spent_budget_ends_the_run_though_a_node_handles_errors(
    scripted, problem, node, in_rollouts
):
    pool = ExpertPool([expert("a"), expert("slow", delay_s=0.05)], budget=Budget(calls=1))
    model = scripted([ask("slow") + ask(), ask(), "Answer: 3"])
    graph = agent(model, pool.tools, node)
    if in_rollouts:
        with pytest.raises(BudgetError, match="budget is spent: 1 of 1 calls"):
            rollouts(graph, model, problem)
        assert [row.status for _, row in pool.store.rows()] == ["accepted"]
    else:
        run = graph.ainvoke({"messages": [HumanMessage("q")]})
        if node is tool_node:
            with pytest.raises(BudgetError):
                asyncio.run(run)
        else:
            asyncio.run(run)
    assert pool.budget.spent_calls == 1


@pytest.mark.parametrize("node", [tool_node, blocking])
def test_a_slow_expert_is_a_notice_in_time(scripted, problem, node):
    pool = ExpertPool([expert("slow", delay_s=30, timeout_s=0.05, retries=0)])
    model = scripted([ask("slow"), "Answer: 3"])
    (found,) = rollouts(agent(model, pool.tools, node), model, problem)
    assert [(c.status, c.reply) for c in consultations(found)] == [(S.TIMEOUT, UNAVAILABLE)]


def test_routing_and_asking_all_are_tools_too(scripted, problem):
    pool = ExpertPool(
        [expert("a", "from a"), expert("b", "from b")], routing="round_robin", ask_all=True
    )
    model = scripted([ask(ANY) + ask(ALL), ask(ANY), "Answer: 3"])
    (found,) = rollouts(agent(model, pool.tools), model, problem)
    replies = [c.reply for c in consultations(found)]
    assert replies == ["from a", "[a] from a\n[b] from b", "from b"]


def test_a_paid_reply_is_stored_and_used_again(scripted, problem):
    made = []

    async def adviser(query: str) -> str:
        """Advise."""
        made.append(query)
        return "take 3"

    pool = ExpertPool(
        [Expert(tool=StructuredTool.from_function(coroutine=adviser), identity={"kind": "x"})]
    )
    model = scripted([ask("adviser"), ask("adviser"), "Answer: 3"])
    for trajectory in rollouts(agent(model, pool.tools), model, problem, 3):
        assert [c.reply for c in consultations(trajectory)] == ["take 3", "take 3"]
    assert made == ["q"]


def test_a_rollout_s_own_probability_comes_first_and_without_one_the_step_s(scripted, problem):
    pool = ExpertPool([expert("a")])
    model = scripted([ask(), "Answer: 3"])
    graph = agent(model, pool.tools_under(AcceptanceSchedule()))
    for step, rho in ((1, 1.0), (4, 0.25)):
        (found,) = rollouts(graph, model, problem, global_step=step)
        assert [c.rho for c in consultations(found)] == [rho]


def test_a_plain_thread_that_does_not_say_whose_it_is_is_an_error_of_the_rollout(scripted, problem):
    import threading

    pool = ExpertPool([expert("a")])
    model = scripted([ask(), "Answer: 3"])

    def node(tools):
        def lost(state):
            failures = []

            def work():
                try:
                    tools[0].invoke(state["messages"][-1].tool_calls[0])
                except Exception as error:
                    failures.append(error)

            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            raise failures[0]

        return lost

    (found,) = rollouts(agent(model, pool.tools, node), model, problem)
    assert "it is not known by which" in found.error
    assert list(pool.store.rows()) == []


def test_a_tool_looks_to_the_policy_as_the_expert_s_own_does():
    from langchain_core.tools import Tool

    @tool
    def two(query: str, depth: int = 2) -> str:
        """Look twice."""
        return query

    for own in (two, search):
        (offered,) = ExpertPool([Expert(tool=own)]).tools
        assert convert_to_openai_tool(offered) == convert_to_openai_tool(own)
    simple = Tool(name="simple", func=lambda text: text, description="d")
    (offered,) = ExpertPool([Expert(tool=simple)]).tools
    parameters = convert_to_openai_tool(offered)["function"]["parameters"]
    assert parameters["required"] == ["tool_input"]
    assert asyncio.run(offered.ainvoke({"tool_input": "x"})) == "x"
    assert asyncio.run(offered.ainvoke("x")) == "x"


def test_two_rollouts_at_once_do_not_mix(scripted, problem):
    pool = ExpertPool([expert("a", delay_s=0.01)])
    model = scripted(lambda key, prompt: ask(query=f"r{key.rollout}") if not key.turn else "3")
    graph = agent(model, pool.tools)
    plan = RolloutPlan(problem=problem, rollouts=range(8))
    (group,) = asyncio.run(run_rollouts(graph, model, [plan], system_prompt="", seed=0))
    for number, trajectory in enumerate(group.trajectories_G):
        assert [c.query for c in consultations(trajectory)] == [f"r{number}"]
