"""`eapo chat` in a real terminal, killed and resumed, and in a pipe. The policy is scripted
(scripted_chat.py); graph, experts, threads and store are real."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pyte
import pytest

from eapo_agents.experts.call_store import CallStore
from eapo_agents.store import TraceStore

SCRIPT = Path(__file__).parent / "scripted_chat.py"
COLOUR = re.compile(rb"\x1b\[(?:\d+;)*(?:3|4|9|10)\d[;m]")
HOSTILE = r"red \e[31m and a bell \a and </b>[bold] text"
RECIPE = f"""
name: chat
sampling: {{max_new_tokens: 400}}
task: {{system_prompt: Solve it.}}
consult:
  experts:
    solver: {{kind: solver}}
    slow: {{kind: scripted, options: {{default: a slow reply, delay_s: 1.5}}}}
    late: {{kind: scripted, timeout_s: 0.5, options: {{default: x, delay_s: 9}}}}
    bad: {{kind: scripted, options: {{default: "{HOSTILE}"}}}}
    me: {{kind: human}}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE)
    return tmp_path


class Terminal:
    """A session on its own screen."""

    def __init__(self, folder, model, columns, *arguments, **environment):
        self.screen = pyte.Screen(columns, 60)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        # a width that the test's own runner was given is not this screen's
        own = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        self.process = pexpect.spawn(
            sys.executable,
            [str(SCRIPT), str(model), "-r", "r.yaml", *arguments],
            cwd=folder,
            dimensions=(60, columns),
            env={**own, "TERM": "xterm-256color", "HF_HUB_OFFLINE": "1", **environment},
            timeout=60,
        )

    def lines(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display if line.strip())

    def until(self, *texts: str, within_s: float = 40.0) -> str:
        """Waits until all the texts are on the screen at once; returns it."""
        deadline = time.monotonic() + within_s
        while not all(text in (shown := self.lines()) for text in texts):
            try:
                data = self.process.read_nonblocking(65536, timeout=0.2)
            except (pexpect.TIMEOUT, pexpect.EOF) as error:
                if isinstance(error, pexpect.EOF) or time.monotonic() > deadline:
                    raise AssertionError(f"{texts} did not come; there is:\n{shown}") from None
                continue
            self.raw += data
            self.stream.feed(data)
            # a terminal answers when it is asked where its cursor stands
            if b"\x1b[6n" in data:
                self.process.send(f"\x1b[{self.screen.cursor.y + 1};{self.screen.cursor.x + 1}R")
        return shown

    def say(self, line: str) -> None:
        self.process.send(line + "\r")


def test_a_session_is_stopped_killed_resumed_and_rated(folder, saved_model):
    chat = Terminal(folder, saved_model, 80)
    shown = chat.until("experts: solver, slow, late, bad, me", "spent 0 calls · thread")
    thread = re.search(r"spent 0 calls · thread ([0-9a-f]{8})", shown).group(1)
    chat.say("solver, late, bad -> 7 + 3 * 4")
    shown = chat.until("answered · 2 turns")
    assert "policy  I had better ask." in shown
    assert "<tool_call>" not in shown
    assert "✓ solver  accepted" in shown
    assert "3 * 4 = 12. 7 + 12 = 19." in shown
    assert "✗ late  timeout" in shown
    assert "No reply within 0.5 s." in shown
    assert "coin 0." in shown
    assert "rho 1.00" in shown
    # what an expert writes moves no cursor and colours nothing
    assert "red \ufffd[31m and a bell \ufffd and </b>[bold] text" in shown
    assert b"\x07" not in chat.raw
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.index("solver  accepted") < shown.index("late  timeout") < shown.index("bad  acc")
    chat.say("slow -> a")
    chat.until("… slow  asking")
    chat.process.send("\x03")
    chat.until("Stopped. /again asks the question again.")
    chat.say("/again")
    chat.until("✓ slow  accepted")
    chat.say("/frobnicate")
    chat.until("There is no command '/frobnicate'")
    chat.say("/rho 2")
    chat.until("from 0 to 1, got 2")
    chat.say("me -> nobody replies")
    chat.until("? me is asked: nobody replies", "reply>")
    chat.process.send("\x03")
    chat.until("Stopped. /again asks the question again.\n>")
    chat.say("me -> what now?")
    chat.until("? me is asked: what now?", "reply>")
    chat.process.kill(9)
    chat.process.wait()

    chat = Terminal(folder, saved_model, 200, "--thread", thread, NO_COLOR="1")
    chat.until("A person was asked and has not replied yet.", "? me is asked: what now?")
    chat.say("the person's word")
    shown = chat.until("the person's word", "answered · 2 turns")
    chat.say("/rate 0.75")
    chat.until("with reward 0.75", "/again gives another answer to rate")
    chat.say("solver, bad -> 1 + 1")
    shown = chat.until("1 + 1 = 2.", "bad  accepted")
    rows = [line for line in shown.splitlines() if "solver  accepted  0" in line]
    assert any("bad  accepted" in row for row in rows)  # side by side, in the end
    chat.say("/solo")
    chat.until("now answers without experts")
    chat.say("/experts")
    chat.until("takes calls", "withheld")
    chat.say("/graph")
    chat.until("| consult |")
    chat.say("/quit")
    chat.until(f"Continue with `eapo chat --thread {thread}`.")
    chat.process.expect(pexpect.EOF)
    chat.process.close()
    assert chat.process.exitstatus == 0
    assert not COLOUR.search(chat.raw)

    with TraceStore.open(folder / "runs" / "traces.db") as store:
        (kept,) = store.trajectories()
    assert kept.trajectory.reward == 0.75
    statuses = [c.status.value for t in kept.trajectory.turns for c in t.consultations]
    assert statuses == ["accepted", "timeout", "accepted", "accepted", "accepted"]
    ledger = [row for _, row in CallStore(folder / "runs" / "experts.db").rows(f"chat-{thread}")]
    assert [(row.expert, row.status) for row in ledger[3:6]] == [
        ("slow", "cancelled"),
        ("slow", "accepted"),
        ("me", "accepted"),
    ]


def test_in_a_pipe_stdout_has_only_the_answers(folder, saved_model):
    said = "solver -> 7 + 3 * 4\n\nhello?\n/experts\n/nothing\nme -> who?\n/rate x\n"
    result = subprocess.run(
        [sys.executable, str(SCRIPT), str(saved_model), "-r", "r.yaml"],
        input=said,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "Well, so be it. Answer: 19",
        "Well, so be it. Answer: 6",
    ]
    assert "\x1b" not in result.stderr
    assert "✓ solver  accepted" in result.stderr
    assert "There is no command '/nothing'" in result.stderr
    assert "nobody can be asked here" in result.stderr
    assert "/rate takes a reward from 0 to 1" in result.stderr
