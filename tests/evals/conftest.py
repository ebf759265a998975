"""What several files here use."""

import json

import pytest

from eapo_agents.cli.main import main
from eapo_agents.grading.code import use_sandbox


@pytest.fixture
def scoring_surroundings(monkeypatch, tmp_path):
    monkeypatch.setenv("EAPO_CACHE", str(tmp_path / "cache"))
    yield
    use_sandbox(None)


@pytest.fixture
def score(capsys, monkeypatch, scoring_surroundings):
    """`eapo score`: (exit status, its JSON or the last line of its error)."""

    def run(benchmark, gold, predictions, *more):
        arguments = ["score", "-b", benchmark, "--predictions", predictions, *more, "--json"]
        gold = ["--gold", gold] if gold is not None else []
        monkeypatch.setattr("sys.argv", ["eapo", *map(str, [*arguments, *gold])])
        capsys.readouterr()
        try:
            main()
        except SystemExit as exit_:
            captured = capsys.readouterr()
            assert captured.out == ""
            assert "Traceback" not in captured.err
            return int(exit_.code), captured.err.strip().splitlines()[-1]
        return 0, json.loads(capsys.readouterr().out)

    return run
