"""What is trained of random graphs is what the engine was shown: a small part of
benchmarks/random_graphs.py, which docs/log.md tells of."""

import random_graphs as fuzz


def test_of_two_hundred_graphs_no_row_is_wrong_and_few_are_refused():
    renderer = fuzz.small_renderer()
    found = {seed: fuzz.tried(seed, renderer) for seed in range(20_000, 20_200)}
    assert {seed: outcome.wrong for seed, outcome in found.items() if outcome.wrong} == {}
    refused = [reason for outcome in found.values() for reason in outcome.refused]
    assert all("thread without a context" in reason for reason in refused)
    assert len(refused) <= 0.03 * sum(outcome.num_rollouts for outcome in found.values())
    assert sum(outcome.num_pairs for outcome in found.values()) > 1000


def test_it_notices_rows_behind_another_prompt(monkeypatch):
    renderer = fuzz.small_renderer()
    monkeypatch.setattr("trainers.rows.is_own", lambda turn, trajectory: True)
    found = [fuzz.tried(seed, renderer) for seed in range(20)]
    assert any("not shown" in wrong for outcome in found for wrong in outcome.wrong)
