"""`eapo chat` in a real terminal, killed and resumed, and in a pipe. The policy is scripted
(scripted_chat.py); graph, experts, threads and store are real."""

import json
import os
import re
import shlex
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

    def __init__(self, folder, model, columns, *arguments, shell=False, **environment):
        self.screen = pyte.Screen(columns, 60)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        # a width that the test's own runner was given is not this screen's
        own = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        command = [sys.executable, str(SCRIPT), str(model), "-r", "r.yaml", *arguments]
        started = ["bash", "--norc", "--noprofile", "-i"] if shell else command
        self.process = pexpect.spawn(
            started[0],
            started[1:],
            cwd=folder,
            dimensions=(60, columns),
            env={**own, "TERM": "xterm-256color", "HF_HUB_OFFLINE": "1", **environment},
            timeout=300,
        )
        if shell:
            self.say(shlex.join(command))

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


@pytest.mark.long
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


@pytest.mark.long
def test_calls_are_approved_what_is_typed_ahead_is_kept_and_the_conversation_is_changed(
    folder, saved_model
):
    (folder / "notes.txt").write_text("a word of mine\n")
    (folder / "picture").write_bytes(b"\x89PNG\0")
    (folder / "huge.txt").write_text("x" * 70_000)
    options = ("--ask", "--experts", "solver,slow")
    chat = Terminal(folder, saved_model, 80, *options, shell=True)  # for Ctrl-Z
    chat.until("experts: solver, slow · thread", "each call approved by you")
    chat.say("solver, slow -> 7 + 3")
    chat.until("The policy wants to ask 'solver': 7 + 3", "Enter sends it, e edits, n refuses)>")
    chat.say("what")
    chat.until("That is not one of these")
    chat.say("e")
    chat.until("query> 7 + 3")
    chat.say(" * 4")
    chat.until("The policy wants to ask 'slow': 7 + 3")
    chat.say("n")
    chat.until("reason (Enter for none)>")
    chat.say("too slow")
    shown = chat.until("answered · 2 turns", "not asked. A person refused it: too slow")
    assert "asked 7 + 3 * 4" in shown
    chat.say("/ask")
    chat.until("is sent at once")

    chat.say("slow -> a")
    chat.until("… slow  asking")
    chat.process.send("solver -> 1 + 1\rhalf a quest")
    chat.process.send("\x1a")
    chat.until("]+  Stopped")
    chat.say("fg")
    shown = chat.until("1 + 1 = 2.", "> half a quest")  # asked as soon as the answer was there
    assert "a slow reply" in shown
    chat.say("ion?")
    chat.until("policy  Well, so be it. Answer: 16")  # half a question?

    chat.say("what says @notes.txt?")
    chat.until("in the question: notes.txt: 15 characters", "policy  Well, so be it. Answer: 47")
    for name, why in (
        ("missing.txt", "There is no file 'missing.txt'"),
        ("picture", "is not a text in UTF-8"),
        ("huge.txt", "is larger than 64 KiB"),
    ):
        chat.say(f"what says @{name} ?")
        chat.until(why)
    chat.say("/undo")
    chat.until("Taken back: what says notes.txt? notes.txt: a word of mine")
    chat.say("show markdown?")
    shown = chat.until("answered · 1 turn", "• one", "margin of the screen.")
    assert "It is bold, 2*3*4 = 24 and x² ≤ 1/2, <b>as it is</b>." in shown
    assert re.search(r"These words .* broken (at|at the)\n *(the )?margin of the screen", shown)
    chat.say("/budget calls 4")
    chat.until("4 at most")
    chat.say("solver -> 2 + 2")
    chat.until("100% of the budget is spent: 4 of 4 calls.")
    chat.say("/exprt")
    chat.until("did you mean /export?")
    shown = chat.until("· thread ")
    chat.say("/fork")
    copied = re.search(r"This is (\w{8}), a copy of", chat.until("which stays as it is."))[1]
    chat.say("/export talk.json")
    chat.until("Written to talk.json")
    chat.say("/quit")
    chat.until(f"Continue with `eapo chat --thread {copied}`.")
    chat.say("exit")
    chat.process.expect(pexpect.EOF)

    talk = json.loads((folder / "talk.json").read_text())
    assert talk["thread"] == copied
    consulted = [m["consultation"] for m in talk["messages"] if "consultation" in m]
    assert [(c["expert"], c["query"], c["status"], c["error"]) for c in consulted] == [
        ("solver", "7 + 3 * 4", "accepted", None),
        ("slow", "7 + 3", "withheld", "A person refused it: too slow"),
        ("slow", "a", "accepted", None),
        ("solver", "1 + 1", "accepted", None),
        ("solver", "2 + 2", "accepted", None),
    ]
    assert not any("notes.txt" in m["content"] for m in talk["messages"])


@pytest.mark.long
def test_with_forget_nothing_is_kept_and_nothing_is_continued(folder, saved_model):
    def run(*words):
        return subprocess.run(
            [sys.executable, str(SCRIPT), str(saved_model), "-r", "r.yaml", "--forget", *words],
            input="solver -> 7 + 3 * 4\n",
            capture_output=True,
            text=True,
            cwd=folder,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            timeout=120,
        )

    before = sorted(folder.rglob("*"))
    result = run()
    assert result.stdout == "Well, so be it. Answer: 19\n"
    assert "Continue with" not in result.stderr
    assert sorted(folder.rglob("*")) == before
    for words in (["--continue"], ["--set", "consult.expert_store=kept.db"]):
        result = run(*words)
        assert (result.returncode, "--forget keeps nothing" in result.stderr) == (2, True)


def test_in_a_pipe_stdout_has_only_the_answers(folder, saved_model):
    said = "solver -> 7 + 3 * 4\n\nhello?\n/experts\n/nothing\n/title My  sums\n/threads\n"
    said += "/search SUMS\nme -> who?\n/rate x\n"
    result = subprocess.run(
        [sys.executable, str(SCRIPT), str(saved_model), "-r", "r.yaml"],
        input=said,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "Well, so be it. Answer: 19",
        "Well, so be it. Answer: 6",
    ]
    assert "\x1b" not in result.stderr
    assert "✓ solver  accepted" in result.stderr
    assert "There is no command '/nothing'" in result.stderr
    assert re.search(r"2 questions  My sums", result.stderr)
    assert "title: My sums" in result.stderr
    assert "nobody can be asked here" in result.stderr
    assert "/rate takes a reward from 0 to 1" in result.stderr
