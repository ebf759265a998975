"""Who may look, that nothing is written, and that the command ends as others do."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import httpx2
import pytest

from eapo_agents.runs.lock import locked
from eapo_agents.store import TraceStore
from eapo_agents.types import PolicyVersion, Sampling

POLICY = PolicyVersion(model="small", base="base", weights="weights", step=0)


def test_without_the_token_nobody_sees_anything(viewed):
    for path in ("/", "/run?at=runs/train", "/static/view.js", "/?token=wrong", "/?token="):
        answer = httpx2.get(f"{viewed.base}{path}")
        assert answer.status_code == 403
        assert "runs" not in answer.text.lower().replace("eapo view", "")


def test_the_token_becomes_a_cookie_that_scripts_and_other_sites_do_not_get(viewed):
    answer = httpx2.get(f"{viewed.url}&at=runs%2Ftrain")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/?at=runs%2Ftrain"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_a_redirect_never_leads_to_another_machine(viewed):
    token = viewed.url.partition("token=")[2]
    for path in ("//evil.example/x", "/\\evil.example", "//evil.example//"):
        answer = httpx2.get(f"{viewed.base}{path}?token={token}")
        assert re.match(r"/[^/\\]", answer.headers["location"]), answer.headers["location"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "", "127.0.0.1", "[::1]"])
def test_other_names_of_this_machine_are_refused(viewed, host):
    answer = viewed.client.get(viewed.base, headers={"host": host})
    assert answer.status_code == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_it_can_only_be_looked_at(viewed, method):
    assert viewed.client.request(method, viewed.base).status_code == 405


def test_a_browser_may_load_nothing_from_elsewhere(viewed):
    for path in ("/", "/static/view.css", "/nothing", "/run?at=none"):
        headers = viewed.client.get(f"{viewed.base}{path}").headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self';")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    refused = httpx2.get(viewed.base)
    assert "content-security-policy" in refused.headers


def facts_of(folder):
    """Name, size and time of each file. Every reader of a database notes itself in SQLite's -shm
    file, whose time follows when the system likes."""
    return {
        str(file): (file.stat().st_size, not file.name.endswith("-shm") and file.stat().st_mtime_ns)
        for file in sorted(folder.rglob("*"))
    }


def test_looking_at_runs_changes_no_file_and_makes_none(viewed, runs):
    before = facts_of(runs)
    for path in ("/", "/search?q=answer", "/ledger?at=runs/train", "/rollouts?at=runs/train"):
        assert viewed.client.get(f"{viewed.base}{path}").status_code == 200
    assert facts_of(runs) == before


def test_what_a_run_commits_is_seen_while_it_writes(tmp_path, view, trajectory):
    folder = tmp_path / "runs" / "train"
    folder.mkdir(parents=True)
    steps = folder / "steps.jsonl"
    steps.write_text('{"step": 1, "reward": 0.25}\n')
    with locked(folder), TraceStore.open(folder / "traces.db", create=True) as store:
        facts = {"kind": "train", "recipe": {}, "sampling": Sampling(), "policy": POLICY}
        store.start_run("train", **facts)
        store.append(trajectory(()), run_id="train", group_key="1/p0")
        viewed = view(tmp_path / "runs")
        page = viewed.page("/run", at="runs/train")
        assert "state running" in page
        assert re.search(r'data-live-ms="\d+"', page)
        assert "of 1" not in page
        assert "no step" not in page
        step = viewed.page("/step", at="runs/train", run="train", step=1)
        assert "0.25" in step
        assert "data-live-ms" in step
        # its step has ended: nothing is added to the group
        assert "data-live-ms" not in viewed.page(
            "/group", at="runs/train", run="train", group="1/p0"
        )
        with steps.open("a") as more:
            more.write('{"step": 2, "reward": 0.75}\n')
        store.append(trajectory((), global_step=2), run_id="train", group_key="2/p0")
        store.append(trajectory((), global_step=3), run_id="train", group_key="3/p0")
        assert "step 2: 0.75" in viewed.page("/run", at="runs/train")
        assert "data-live-ms" not in viewed.page("/step", at="runs/train", run="train", step=1)
        for path, what in (("/step", {"step": 3}), ("/group", {"group": "3/p0"})):
            assert "data-live-ms" in viewed.page(path, at="runs/train", run="train", **what)
        assert "2/p0" in viewed.page("/step", at="runs/train", run="train", step=2).replace(
            "%2F", "/"
        )
        # the writer is not held up: a checkpoint of its log finds nobody reading
        store.append(trajectory((), rollout=1), run_id="train", group_key="1/p0")
    assert "state interrupted" in viewed.page("/run", at="runs/train")
    assert "data-live-ms" not in viewed.page("/step", at="runs/train", run="train", step=3)
    (folder / "train.json").write_text(json.dumps({"seconds": 2.0}))
    finished = viewed.page("/run", at="runs/train")
    assert "state finished" in finished
    assert "data-live-ms" not in finished


def test_a_collections_page_follows_it_while_a_process_works_on_it(tmp_path, view, trajectory):
    with TraceStore.open(tmp_path / "traces.db", create=True) as store:
        facts = {"kind": "collect", "recipe": {}, "sampling": Sampling(), "policy": POLICY}
        store.start_run("c", **facts)
        store.append(trajectory(()), run_id="c", group_key="1/p0")
        viewed = view(tmp_path / "traces.db")
        page = {"at": "traces.db", "run": "c", "group": "1/p0"}
        assert store.claim("c", "1/p0")
        assert "data-live-ms" in viewed.page("/group", **page)
        store.release("c", "1/p0")
        assert "data-live-ms" not in viewed.page("/group", **page)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_130_and_frees_the_port(tmp_path, number, unused_tcp_port):
    words = [sys.executable, "-m", "eapo_agents.cli.main", "view", str(tmp_path), "--no-open"]
    server = subprocess.Popen(
        [*words, "--port", str(unused_tcp_port), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        told = json.loads(server.stdout.readline())
        assert told["url"].startswith(f"http://127.0.0.1:{unused_tcp_port}/?token=")
        assert httpx2.get(told["url"], follow_redirects=False).status_code == 303
        os.kill(server.pid, number)
        began = time.monotonic()
        out, errors = server.communicate(timeout=60)
    finally:
        server.kill()
    assert time.monotonic() - began < 30
    assert (server.returncode, out) == (130, ""), errors
    assert "Traceback" not in errors
    with socket.socket() as at:
        at.bind(("127.0.0.1", unused_tcp_port))


def test_a_port_that_is_taken_is_said(run_view):
    with socket.socket() as at:
        at.bind(("127.0.0.1", 0))
        at.listen()
        status, _, told = run_view(".", "--port", at.getsockname()[1], "--no-open")
    assert status == 2
    assert "another --port" in told


def test_a_folder_that_is_not_there_is_said(run_view, tmp_path):
    status, _, told = run_view(tmp_path / "none", "--no-open")
    assert status == 2
    assert told.startswith("eapo: There is no '")
    assert told.count("\n") == 1


def test_an_export_replaces_its_own_files_only(run_view, runs, tmp_path):
    file = tmp_path / "run.html"
    status, out, told = run_view(runs / "train", "--export", file, "--rollouts", 2, "--json")
    assert status == 0, told
    assert json.loads(out) == {"file": str(file), "rollouts": 2}
    page = file.read_text()
    assert page.count('class="exported-rollout"') == 2
    assert 'class="tokens"' in page
    assert run_view(runs / "train", "--export", file)[0] == 0
    other = tmp_path / "other.html"
    other.write_text("<!doctype html>\nmine")
    status, _, told = run_view(runs / "train", "--export", other)
    assert (status, other.read_text()) == (2, "<!doctype html>\nmine")
    assert "--force" in told
    assert run_view(runs / "train", "--export", other, "--force")[0] == 0
    assert list(tmp_path.glob(".*.tmp")) == []


@pytest.fixture
def run_view(capsys, monkeypatch):
    """Runs `eapo view` in this process: (exit status, stdout, stderr)."""
    from eapo_agents.cli.main import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["eapo", "view", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
