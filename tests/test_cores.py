"""How a command shares the machine's cores with what else runs there."""

import os

import pytest

from eapo_agents.cli.main import _share_cores
from eapo_agents.runs.studies import num_threads


@pytest.mark.parametrize(
    ("cores", "at_once", "wanted", "threads"),
    [
        (8, 2, "", 4),
        (8, 3, "", 2),
        (2, 4, "", 1),
        (8, 2, "1", 1),
        (8, 2, "16", 4),
        (8, 2, "0", 1),
        (8, 2, "4,2", 4),
    ],
)
def test_a_job_has_its_share_of_the_cores_or_fewer(monkeypatch, cores, at_once, wanted, threads):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert num_threads(at_once) == threads


@pytest.mark.parametrize(
    ("given", "spins"),
    [
        ({}, "1000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, None),
    ],
)
def test_idle_threads_sleep_soon_unless_the_user_says_otherwise(monkeypatch, given, spins):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    _share_cores()
    assert os.environ.get("GOMP_SPINCOUNT") == spins
