"""The pool: who is asked, who instead, and how calls overlap."""

import asyncio
import sqlite3
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.tools import tool

from eapo_agents.errors import StoreError, UsageError
from eapo_agents.experts.breaker import CircuitBreaker
from eapo_agents.experts.call_store import CallSite, CallStore, LedgerRow
from eapo_agents.experts.costs import costs
from eapo_agents.experts.expert import Expert
from eapo_agents.experts.kinds import make_expert
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.experts.usage import Price
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget
from eapo_agents.types import ConsultationStatus
from graphs.consult import build_consult_graph
from graphs.rollout import run_group

S = ConsultationStatus


@tool
def sum_of(a: int, b: int) -> int:
    """adds"""
    return a + b


def expert(name, reply="reply", delay_s=0.0, **settings):
    options = {"default": reply, "delay_s": delay_s}
    return make_expert("scripted", name=name, options=options, **settings)


def ask(pool, name, site=CallSite()):  # noqa: B008  # frozen
    return asyncio.run(pool.ask(name, {"query": "q"}, site))


def test_round_robin_goes_round_and_is_a_function_of_names():
    pool = ExpertPool([expert(n, reply=n) for n in "abc"], routing="round_robin")
    assert [tool.name for tool in pool.tools] == ["expert"]
    texts = [ask(pool, "expert", CallSite(rollout=n)).text for n in range(6)]
    assert texts == ["a", "b", "c", "a", "b", "c"]


def test_the_cheapest_that_takes_calls_is_asked():
    pool = ExpertPool(
        [
            expert("dear", reply="dear", price=Price(input_usd=5, output_usd=9)),
            expert("cheap", reply=None, price=Price(input_usd=1, output_usd=1)),
        ],
        routing="cheapest",
    )
    assert ask(pool, "expert").status is S.FAILED
    pool._callers["cheap"]._endpoints[0].breaker.failed(at_once=True)
    assert ask(pool, "expert").text == "dear"


def test_by_task_the_problem_picks_its_expert():
    pool = ExpertPool(
        [expert("m", reply="m", tasks=["math"]), expert("g", reply="g")], routing="by_task"
    )
    assert ask(pool, "expert", CallSite(problem_id="math/3")).text == "m"
    assert ask(pool, "expert", CallSite(problem_id="gsm8k/test/3")).text == "g"


def test_all_are_asked_at_once_and_one_failure_is_no_failure_of_all():
    pool = ExpertPool(
        [expert("a", "A", 0.3), expert("b", None), expert("c", "C", 0.3)], ask_all=True
    )
    started = time.perf_counter()
    answer = ask(pool, "all_experts")
    assert time.perf_counter() - started < 0.55
    assert answer.text == "[a] A\n[c] C"
    assert answer.answered_by == "a, c"
    nobody = ExpertPool([expert("a", None), expert("b", None)], ask_all=True)
    assert ask(nobody, "all_experts").status is S.FAILED


def test_fallbacks_follow_one_another_and_never_in_a_circle():
    pool = ExpertPool(
        [
            expert("a", None, fallback="b"),
            expert("b", None, fallback="c"),
            expert("c", "C", fallback="a"),
            expert("d", None, fallback="e"),
            expert("e", None, fallback="d"),
        ]
    )
    assert (ask(pool, "a").text, ask(pool, "a").answered_by) == ("C", "c")
    assert "; then e: " in ask(pool, "d").error


@pytest.mark.parametrize(
    ("experts", "options", "says"),
    [
        ([expert("a"), expert("a")], {}, "different names"),
        ([expert("a")], {"routing": "best"}, "Unknown routing"),
        ([expert("a", fallback="b")], {}, "must be another expert"),
        ([expert("a", fallback="a")], {}, "must be another expert"),
        ([expert("a")], {"ask_all": True, "quorum": 2}, "The quorum"),
        ([expert("all_experts")], {"ask_all": True}, "pool's own names"),
        ([expert("expert")], {"routing": "cheapest"}, "pool's own names"),
        ([], {"ask_all": True}, "needs an expert"),
        (
            [make_expert("human", name="h", options={}), expert("a", fallback="h")],
            {},
            "by name only",
        ),
        ([make_expert("human", name="h", options={})], {"routing": "by_task"}, "by name only"),
        ([expert("a"), Expert(tool=sum_of)], {"ask_all": True}, "'sum_of' takes a, b"),
        ([Expert(tool=sum_of)], {"routing": "cheapest"}, "'sum_of' takes a, b"),
    ],
)
def test_a_pool_that_does_not_fit_is_refused(experts, options, says):
    with pytest.raises(UsageError, match=says):
        ExpertPool(experts, **options)


def test_a_long_reply_is_cut_and_a_broken_character_replaced():
    pool = ExpertPool([expert("a", "x" * 50, max_reply_chars=10), expert("b", "a\ud800b")])
    assert ask(pool, "a").text == "x" * 10 + " [cut]"
    assert ask(pool, "b").text == "a?b"


def test_the_circuit_opens_tries_once_and_closes():
    now = [0.0]
    breaker = CircuitBreaker(failures=2, cooldown_s=10, clock=lambda: now[0])
    breaker.failed()
    breaker.succeeded()
    breaker.failed()
    assert breaker.open_for_s() == 0
    breaker.failed()
    assert breaker.open_for_s() == 10
    now[0] = 11
    assert breaker.open_for_s() == 0
    breaker.start()
    assert breaker.open_for_s() > 0  # one tries, the others wait
    breaker.failed()
    assert breaker.open_for_s() == 10
    now[0] = 30
    breaker.start()
    breaker.abandoned()
    assert breaker.open_for_s() == 0
    breaker.start()
    breaker.succeeded()
    assert breaker.open_for_s() == 0


def graph_of(policy, pool, turns=3):
    return build_consult_graph(
        policy,
        pool,
        acceptance=AcceptanceSchedule(kind="constant"),
        turns=TurnBudget(start=turns, end=turns),
    )


async def test_three_experts_of_a_second_take_little_more_than_one(scripted, problem):
    pool = ExpertPool([expert(name, delay_s=1.0) for name in "abc"])
    calls = "".join(format_call(name, {"query": "q"}) for name in "abc")
    policy = scripted([calls, "Answer: 19"])
    graph = graph_of(policy, pool)
    await run_group(graph, policy, problem, 1, system_prompt="", seed=0)  # imports, templates
    group = await run_group(graph, policy, problem, 1, system_prompt="", seed=1)
    (trajectory,) = group.trajectories_G
    assert [c.status for c in trajectory.turns[0].consultations] == [S.ACCEPTED] * 3
    assert trajectory.duration_s <= 1.2


async def test_64_rollouts_take_little_more_than_the_slowest_chain(scripted, problem):
    pool = ExpertPool([expert("a", delay_s=1.0)])
    policy = scripted([format_call("a", {"query": "q"})] * 2 + ["Answer: 19"])
    graph = graph_of(policy, pool)
    started = time.perf_counter()
    group = await run_group(graph, policy, problem, 64, system_prompt="", seed=0)
    assert all(t.correct for t in group.trajectories_G)
    # two consultations of a second; 128 s one after another, so that a busy machine has room
    assert time.perf_counter() - started <= 20


async def test_the_ledger_is_used_outside_the_event_loops_thread(scripted, problem, tmp_path):
    """Studio's server refuses what blocks its loop, so an expert could not be asked there."""
    pool = ExpertPool([expert("solver", stored=True)])
    pool.open(tmp_path / "experts.db", "served")
    calls = "".join(format_call("solver", {"query": query}) for query in ("a", "b", "b", "c"))
    seen = []

    def watch(frame, event, what):
        if event == "c_call" and isinstance(getattr(what, "__self__", None), sqlite3.Connection):
            seen.append(what.__name__)

    policy = scripted([calls, "Answer: 19"])
    graph = graph_of(policy, pool, turns=2)
    sys.setprofile(watch)
    try:
        group = await run_group(graph, policy, problem, 2, system_prompt="", seed=0)
    finally:
        sys.setprofile(None)
    asked = [c.status for t in group.trajectories_G for c in t.turns[0].consultations]
    assert asked == [S.ACCEPTED, S.ACCEPTED, S.ACCEPTED, S.OVER_LIMIT] * 2
    rows = [row for _, row in pool.store.rows("served")]
    # of each query one call is made, whoever asks first
    assert sorted(row.attempts for row in rows) == [0] * 6 + [1, 1]
    assert not seen


def test_the_ledger_is_summed_by_expert_and_by_step(tmp_path):
    store = CallStore(tmp_path / "experts.db")
    for step in (1, 2):
        for n in range(4):
            accepted = LedgerRow(
                expert="a",
                status="accepted",
                attempts=1,
                prompt_tokens=10,
                completion_tokens=5,
                cost_usd=0.5,
                latency_s=n,
            )
            store.record("run", CallSite(global_step=step), accepted)
        store.record("run", CallSite(global_step=step), LedgerRow(expert="a", status="withheld"))
    unpriced = LedgerRow(expert="b", status="accepted", attempts=2, cost_usd=None)
    store.record("other", CallSite(), unpriced)
    a, b = (line.summary() for line in costs(store.rows()))
    assert (a["calls"], a["withheld"], a["tokens"], a["cost_usd"]) == (8, 2, 120, 4.0)
    assert (a["p50_s"], a["acceptance"]) == (1.5, 0.8)
    assert (b["cost_usd"], b["unpriced_calls"], b["attempts"]) == (None, 1, 2)
    by_step = costs(store.rows("run"), by_step=True)
    assert [(line.global_step, line.calls) for line in by_step] == [(1, 4), (2, 4)]
    assert store.spent("run") == (8, 120, 4.0)
    assert store.runs() == ["run", "other"]


def test_many_may_open_a_new_ledger_at_once_and_every_row_is_there(tmp_path):
    def write(number):
        store = CallStore(tmp_path / f"{number % 5}.db")
        for _ in range(20):
            store.record("run", CallSite(), LedgerRow(expert="a", status="accepted", attempts=1))
        store.close()

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(write, range(40)))
    assert [CallStore(tmp_path / f"{n}.db").spent("run")[0] for n in range(5)] == [160] * 5


def test_a_file_that_is_no_ledger_is_refused_and_left_alone(tmp_path):
    import sqlite3

    with pytest.raises(StoreError, match="There is no expert ledger"):
        CallStore(tmp_path / "missing.db", create=False)
    (tmp_path / "a_file").touch()
    with pytest.raises(StoreError, match="cannot be opened"):
        CallStore(tmp_path / "a_file" / "experts.db")
    (tmp_path / "text.db").write_text("no database, but some text that is long enough to be one")
    with pytest.raises(StoreError, match="cannot be opened"):
        CallStore(tmp_path / "text.db")
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE mine (x)")
    with pytest.raises(StoreError, match="is not an expert ledger"):
        CallStore(tmp_path / "other.db")
    with sqlite3.connect(tmp_path / "newer.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="it says 99"):
        CallStore(tmp_path / "newer.db")
