"""Experts behind real HTTP: a server that misbehaves in every way that services do."""

import asyncio
import time

import pytest

from eapo_agents.errors import BudgetError, UsageError
from eapo_agents.experts.budget import Budget
from eapo_agents.experts.call_store import CallSite, CallStore
from eapo_agents.experts.consulting import UNAVAILABLE
from eapo_agents.experts.costs import costs
from eapo_agents.experts.kinds import make_expert
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.experts.usage import Price
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget
from eapo_agents.types import ConsultationStatus
from graphs.consult import build_consult_graph
from graphs.rollout import run_group

S = ConsultationStatus
PRICE = Price(input_usd=100.0, output_usd=200.0)
COST = (10 * 100 + 5 * 200) / 1e6
KEY = "sk-planted-4f1d9c"


def expert(url, name="a", **settings):
    options = {"model": "m", "base_url": url, **settings.pop("options", {})}
    settings = {"timeout_s": 3.0, "price": PRICE, "stored": False, **settings}
    return make_expert("openai-chat", name=name, options=options, **settings)


def ask(pool, query="q", name="a"):
    return asyncio.run(pool.ask(name, {"query": query}, CallSite()))


@pytest.fixture(scope="module", autouse=True)
def _imported(faulty):
    """The first call imports the SDK, which is no part of what the others measure."""
    ask(ExpertPool([expert(faulty.url("ok"))]))


def test_a_reply_comes_with_tokens_and_cost(faulty):
    answer = ask(ExpertPool([expert(faulty.url("ok"))]))
    assert (answer.status, answer.text) == (S.ACCEPTED, "reply to q")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (10, 5)
    assert answer.cost_usd == pytest.approx(COST)
    unpriced = ask(ExpertPool([expert(faulty.url("ok"), price=None)]))
    assert unpriced.cost_usd is None


@pytest.mark.parametrize(
    ("fault", "attempts", "says"),
    [
        ("500", 3, "HTTP 500"),
        ("429", 3, "HTTP 429"),
        ("cut", 3, "connection failed"),
        ("reset", 3, "connection failed"),
        ("bad_json", 3, "cannot be read"),
        ("html", 3, "not a chat completion"),
        ("null", 3, "not a chat completion"),
        ("latin1", 3, "cannot be read"),
        ("huge", 1, "longer than 4,000,000 bytes"),
        ("redirect", 1, "redirects are not followed"),
        ("401", 1, "HTTP 401"),
        ("400", 1, "HTTP 400"),
        ("empty", 1, "is empty"),
    ],
)
def test_what_may_pass_is_tried_again_and_what_will_not_is_not(
    faulty, monkeypatch, fault, attempts, says
):
    monkeypatch.setattr("eapo_agents.experts.calling._FIRST_WAIT_S", 0.01)
    before = faulty.counts()
    answer = ask(ExpertPool([expert(faulty.url(fault))]))
    after = faulty.counts()
    assert answer.status is S.FAILED
    assert says in answer.error
    assert answer.attempts == attempts == after[fault] - before.get(fault, 0)
    assert answer.text == ""
    assert after.get("elsewhere", 0) == 0


def test_a_server_that_hangs_is_left_at_the_timeout(faulty):
    answer = ask(ExpertPool([expert(faulty.url("hang"), timeout_s=0.4)]))
    assert answer.status is S.TIMEOUT
    assert 0.4 <= answer.latency_s < 0.8
    assert "No reply within 0.4 s" in answer.error


def test_nobody_listening_is_a_failure(faulty):
    answer = ask(ExpertPool([expert("http://127.0.0.1:9/v1", retries=0)]))
    assert answer.status is S.FAILED
    assert "connection failed" in answer.error


def test_two_failures_and_then_a_reply(faulty, monkeypatch):
    monkeypatch.setattr("eapo_agents.experts.calling._FIRST_WAIT_S", 0.01)
    answer = ask(ExpertPool([expert(faulty.url("flaky"))]), query="two failures")
    assert (answer.status, answer.text, answer.attempts) == (S.ACCEPTED, "at last", 3)


def test_retry_after_is_heeded_and_not_waited_for_beyond_the_timeout(faulty):
    waited = ask(ExpertPool([expert(faulty.url("wait"))]), query="waits")
    assert waited.accepted
    assert 1.0 <= waited.latency_s < 1.6
    hurried = ask(ExpertPool([expert(faulty.url("wait"), timeout_s=0.8)]), query="hurries")
    assert hurried.status is S.FAILED  # a wait of a second could only end in a timeout
    assert hurried.latency_s < 0.5


def test_another_endpoint_is_asked_at_once_when_one_fails(faulty):
    pool = ExpertPool([expert([faulty.url("500"), faulty.url("ok")])])
    answers = [ask(pool, query=f"endpoint {n}") for n in range(4)]
    assert all(answer.accepted for answer in answers)
    # a wait would be of 0.25 s at least, each time; a busy machine delays some of them
    again = [answer.latency_s for answer in answers if answer.attempts == 2]
    assert again
    assert min(again) < 0.25


def test_the_least_busy_endpoint_is_asked_first(faulty):
    before = faulty.counts()
    pool = ExpertPool([expert([faulty.url("hang"), faulty.url("ok")], timeout_s=0.5, retries=0)])

    async def both():
        site = CallSite()
        return await asyncio.gather(*(pool.ask("a", {"query": str(n)}, site) for n in range(2)))

    answers = asyncio.run(both())
    assert [answer.status for answer in answers] == [S.TIMEOUT, S.ACCEPTED]
    assert faulty.counts()["hang"] - before.get("hang", 0) == 1


def test_an_endpoint_that_keeps_failing_is_left_alone(faulty):
    before = faulty.counts()
    pool = ExpertPool([expert(faulty.url("500"), retries=0)])
    answers = [ask(pool, query=f"again {n}") for n in range(15)]
    assert faulty.counts()["500"] - before.get("500", 0) == 10
    assert "gets no calls" in answers[-1].error
    assert answers[-1].attempts == 0
    wrong_key = ExpertPool([expert(faulty.url("401"))])
    assert [ask(wrong_key, query=str(n)).attempts for n in range(3)] == [1, 0, 0]


def test_a_fallback_answers_in_its_place(faulty):
    pool = ExpertPool(
        [
            expert(faulty.url("401"), fallback="b"),
            expert(faulty.url("ok"), name="b", offered=False),
        ]
    )
    answer = ask(pool)
    assert (answer.status, answer.answered_by) == (S.ACCEPTED, "b")
    assert [tool.name for tool in pool.tools] == ["a"]
    assert [row.expert for _, row in pool.store.rows()] == ["a", "b"]


def test_a_quorum_does_not_wait_for_the_rest(faulty):
    pool = ExpertPool(
        [
            expert(faulty.url("hang"), name="a"),
            expert(faulty.url("ok"), name="b"),
            expert(faulty.url("ok"), name="c"),
        ],
        ask_all=True,
        quorum=2,
    )
    answer = ask(pool, name="all_experts")
    assert answer.text == "[b] reply to q\n[c] reply to q"
    assert answer.latency_s < 1
    assert answer.cost_usd == pytest.approx(2 * COST)
    statuses = {row.expert: row.status for _, row in pool.store.rows()}
    assert statuses == {"a": "cancelled", "b": "accepted", "c": "accepted"}


def test_a_stored_reply_costs_nothing_and_equal_calls_in_flight_are_one(faulty, tmp_path):
    def pool(run_id):
        made = ExpertPool([expert(faulty.url("ok"), stored=True)])
        made.open(tmp_path / "experts.db", run_id)
        return made

    before = faulty.counts()
    first = pool("one")

    async def eight():
        site = CallSite()
        return await asyncio.gather(*(first.ask("a", {"query": "same"}, site) for _ in range(8)))

    answers = asyncio.run(eight())
    assert {answer.text for answer in answers} == {"reply to same"}
    assert sum(answer.cached for answer in answers) == 7
    again = ask(pool("two"), query="same")
    assert (again.text, again.cached, again.cost_usd) == ("reply to same", True, 0.0)
    assert faulty.counts()["ok"] - before.get("ok", 0) == 1
    assert CallStore(tmp_path / "experts.db").spent("two") == (0, 0, 0.0)


def test_a_failure_is_shared_by_equal_calls_in_flight_and_never_stored(faulty):
    pool = ExpertPool([expert(faulty.url("hang"), stored=True, timeout_s=0.4)])

    async def four():
        site = CallSite()
        return await asyncio.gather(*(pool.ask("a", {"query": "q"}, site) for _ in range(4)))

    started = time.perf_counter()
    answers = asyncio.run(four())
    assert time.perf_counter() - started < 0.8
    assert [answer.status for answer in answers] == [S.TIMEOUT] * 4
    assert sum(answer.attempts for answer in answers) == 1
    assert ask(pool).attempts == 1


def test_the_budget_stops_before_the_call(faulty):
    before = faulty.counts()
    pool = ExpertPool([expert(faulty.url("ok"))], budget=Budget(calls=2))
    for n in range(2):
        assert ask(pool, query=str(n)).accepted
    with pytest.raises(BudgetError, match="2 of 2 calls"):
        ask(pool, query="3")
    assert faulty.counts()["ok"] - before.get("ok", 0) == 2
    money = ExpertPool([expert(faulty.url("ok"))], budget=Budget(usd=1.5 * COST))
    assert [ask(money, query=str(n)).accepted for n in range(2)] == [True, True]
    with pytest.raises(BudgetError, match="US dollars"):
        ask(money, query="3")
    with pytest.raises(UsageError, match="needs a price"):
        ExpertPool([expert(faulty.url("ok"), price=None)], budget=Budget(usd=1))


def test_concurrency_and_rate_are_limited(faulty):
    pool = ExpertPool([expert(faulty.url("hang"), concurrency=2, timeout_s=0.3)])

    async def six():
        site = CallSite()
        return await asyncio.gather(*(pool.ask("a", {"query": str(n)}, site) for n in range(6)))

    started = time.perf_counter()
    answers = asyncio.run(six())
    assert 0.9 <= time.perf_counter() - started < 1.5  # three pairs, one after another
    assert {answer.status for answer in answers} == {S.TIMEOUT}
    slow = ExpertPool([expert(faulty.url("ok"), per_minute=300)])
    started = time.perf_counter()
    for n in range(6):
        assert ask(slow, query=str(n)).accepted
    assert 0.3 <= time.perf_counter() - started < 2.5
    full = ExpertPool(
        [expert(faulty.url("hang"), concurrency=1, timeout_s=1.0, queue_timeout_s=0.2)]
    )

    async def two():
        site = CallSite()
        return await asyncio.gather(*(full.ask("a", {"query": str(n)}, site) for n in range(2)))

    assert "No place in the queue" in asyncio.run(two())[1].error


@pytest.mark.long
async def test_a_thousand_consultations_with_faults_all_end_and_the_ledger_adds_up(
    faulty, scripted, problem, monkeypatch
):
    monkeypatch.setattr("eapo_agents.experts.calling._FIRST_WAIT_S", 0.05)
    timeout_s, rollouts = 6.0, 334
    pool = ExpertPool([expert(faulty.url("mix"), timeout_s=timeout_s, concurrency=40)])

    def script(key, prompt):
        if key.turn:
            return "Answer: 19"
        return "".join(format_call("a", {"query": f"{key.rollout} {n}"}) for n in range(3))

    policy = scripted(script)
    graph = build_consult_graph(
        policy, pool, acceptance=AcceptanceSchedule(kind="constant"), turns=TurnBudget()
    )
    group = await run_group(graph, policy, problem, rollouts, system_prompt="", seed=0)
    asked = [c for t in group.trajectories_G for turn in t.turns for c in turn.consultations]
    assert all(t.correct for t in group.trajectories_G)
    assert len(asked) == 3 * rollouts
    rows = [row for _, row in pool.store.rows()]
    assert len(rows) == len(asked)
    counts = faulty.counts()
    accepted = [c for c in asked if c.status is S.ACCEPTED]
    # on a busy machine a call may time out before the server reads it, or before its reply is read
    late = sum(c.status is S.TIMEOUT for c in asked)
    attempts = sum(row.attempts for row in rows)
    assert attempts > 1000
    assert attempts - late <= counts["mix"] <= attempts
    assert counts["mix/ok"] - late <= len(accepted) <= counts["mix/ok"]
    assert len(accepted) > 0.8 * len(asked)  # 70% of the requests are answered; retries do more
    (line,) = costs(pool.store.rows())
    assert line.statuses == {
        status.value: n
        for status in ConsultationStatus
        if (n := sum(c.status is status for c in asked))
    }
    assert line.tokens == 15 * len(accepted) == sum(c.tokens for c in asked)
    assert line.cost_usd == pytest.approx(COST * len(accepted))
    assert sum(c.cost_usd for c in asked) == pytest.approx(line.cost_usd)
    assert {c.reply for c in asked if c.status is not S.ACCEPTED} == {UNAVAILABLE}
    assert max(row.latency_s for row in rows) < 2 * timeout_s  # a busy machine wakes late
    assert counts.get("elsewhere", 0) == 0


def test_a_key_never_leaves_the_environment(faulty, tmp_path, monkeypatch):
    monkeypatch.setenv("PLANTED", KEY)
    options = {"api_key_env": "PLANTED"}
    pool = ExpertPool(
        [
            expert(faulty.url("echo"), stored=True, options=options),
            expert(faulty.url("echo_error"), name="b", options=options),
        ]
    )
    pool.open(tmp_path / "experts.db", "run")
    echoed, refused = ask(pool), ask(pool, name="b")
    assert echoed.text == "your key is Bearer [key]"
    assert "wrong key Bearer [key]" in refused.error
    for file in tmp_path.iterdir():
        assert KEY.encode() not in file.read_bytes()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"base_url": "ftp://x/v1"}, "must be an http or https URL"),
        ({"base_url": "localhost:8000"}, "must be an http or https URL"),
        ({"base_url": "http://me:secret@x/v1"}, "must not hold a user, password"),
        ({"base_url": []}, "empty list"),
        ({"base_url": "http://x/v1", "api_key": "sk-1"}, "must not hold a key"),
        ({"base_url": "http://x/v1", "extra_body": {"token": "1"}}, "must not hold a key"),
        ({"base_url": "http://x/v1", "api_key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE"),
        ({"base_url": "http://x/v1", "temprature": 1}, "do not fit"),
        ({}, "OPENAI_API_KEY"),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(options, says, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UsageError, match=says) as refused:
        make_expert("openai-chat", name="a", options={"model": "m", **options})
    assert "secret" not in str(refused.value).replace("secret@x", "")


def test_no_key_is_sent_to_a_url_that_asks_for_none(faulty, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert KEY not in ask(ExpertPool([expert(faulty.url("echo"))])).text
