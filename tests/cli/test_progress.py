"""Progress in a pipe."""

import json
import time

from eapo_agents.cli import progress
from eapo_agents.cli.progress import TerminalProgress


def test_in_a_silence_the_last_count_is_told_again(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SILENCE_S", 0.1)
    told: list[dict] = []
    with TerminalProgress(events=True).bar("Train (steps)", 6) as bar:
        bar.at(2, note="reward 0.50")
        begun = time.monotonic()
        while len(told) < 2 and time.monotonic() - begun < 60:
            time.sleep(0.1)
            told += [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(e["done"], e["total"], e["note"]) for e in told[:2]] == [(2, 6, "reward 0.50")] * 2
    capsys.readouterr()
    time.sleep(1.5)
    assert not capsys.readouterr().err, "nothing is told after the end"


def test_the_time_left_is_told_when_a_twentieth_of_this_calls_work_is_done(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    with TerminalProgress(events=True).bar("Answers", 200) as bar:
        time.sleep(1.1)  # no line before
        for done in (100, 101, 104, 105):  # an earlier call did a hundred
            bar.at(done)
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [e["left_s"] is None for e in told[:4]] == [True, True, True, False]
