"""Runs the command in this process, as its entry point does."""

import pytest

from eapo_agents.cli.main import main


@pytest.fixture
def run_command(capsys, monkeypatch):
    """Runs `eapo` with these arguments; returns (exit status, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["eapo", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
