"""A store on a real PostgreSQL server, started here, with several collectors writing at once."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from eapo_agents.errors import StoreError
from eapo_agents.store import TraceStore
from eapo_agents.store.briefs import Wanted
from eapo_agents.store.browsing import StoreBrowser
from eapo_agents.store.pulse import SILENT_S, Pulse, is_alive
from eapo_agents.types import Consultation, ConsultationStatus, PolicyVersion, Sampling, Turn

RECIPE = """
name: pg
policy: {model: SmolLM2-135M-Instruct}
sampling: {max_new_tokens: 4}
rollouts: {concurrency: 4}
collect: {problems: 12, num_generations: 2}
"""


def collector(database: str, recipe: Path, shard: str | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "eapo_agents.cli.main", "collect", "--json"]
    command += ["--recipe", str(recipe), "--store", database, "--run-id", "together"]
    command += ["--shard", shard] if shard else []
    return subprocess.Popen(
        command, cwd=recipe.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_four_collectors_write_one_store_and_one_is_killed(database, saved_model, tmp_path):
    recipe = tmp_path / "pg.yaml"
    recipe.write_text(RECIPE.replace("SmolLM2-135M-Instruct", str(saved_model)))
    running = [collector(database, recipe) for _ in range(4)]
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with TraceStore.open(database) as store:
                if store.have("together"):
                    break
        except Exception:  # nothing is there yet
            pass
        time.sleep(0.2)
    running[0].kill()
    for process in running:
        process.wait(900)
    # what the killed one had claimed is free again, since its process is gone
    last = collector(database, recipe)
    _, errors = last.communicate(timeout=900)
    assert last.returncode == 0, errors
    with TraceStore.open(database) as store:
        found = [stored.trajectory for stored in store.trajectories("together")]
    assert len(found) == 24
    assert len({(t.problem.id, t.rollout) for t in found}) == 24
    assert [t.error for t in found] == [None] * 24
    for process in running[1:]:
        assert process.returncode == 0, process.stderr.read()


def test_a_process_of_another_machine_lives_while_its_pulse_does(database):
    from sqlalchemy import create_engine, text

    with TraceStore.open(database, create=True):
        pass
    engine = create_engine(database)
    owner = "another-machine:123:456.00"
    pulse = Pulse(engine, owner)
    with engine.begin() as connection:
        assert is_alive(connection, owner)
        assert is_alive(connection, "unheard-of:1:1.00"), "nothing tells otherwise"
    pulse.stop()
    with engine.begin() as connection:
        statement = "UPDATE processes SET seen_at = seen_at - :silent WHERE owner = :owner"
        connection.execute(text(statement), {"silent": SILENT_S + 1, "owner": owner})
        assert not is_alive(connection, owner)
    engine.dispose()


def test_a_claim_of_a_silent_machine_is_taken_over(database, trajectory):
    from sqlalchemy import create_engine, text

    with TraceStore.open(database, create=True) as store:
        engine = create_engine(database)
        with engine.begin() as connection:
            for owner, age in (("gone:1:1.00", SILENT_S + 1), ("there:1:1.00", 0)):
                group = owner.split(":")[0]
                connection.execute(
                    text(
                        "INSERT INTO processes VALUES (:owner, "
                        "extract(epoch from clock_timestamp()) - :age)"
                    ),
                    {"owner": owner, "age": age},
                )
                connection.execute(
                    text("INSERT INTO claims VALUES ('r', :group, :owner)"),
                    {"group": group, "owner": owner},
                )
        assert store.claim("r", "gone")
        assert not store.claim("r", "there")
        engine.dispose()


def test_a_store_that_is_looked_at_is_the_same_as_in_a_file_and_cannot_be_written(
    database, tmp_path, trajectory
):
    version = PolicyVersion(model="small", base="base", weights="weights", step=0)
    asked = Consultation(
        slot=0,
        expert="solver",
        query="Wie spät? ÄRGER",
        reply="100%_",
        status=ConsultationStatus.ACCEPTED,
        rho=1.0,
        u=0.5,
    )
    turn = Turn(
        context_ids=(1,),
        completion_ids=(2,),
        logprobs=(-0.5,),
        parent=None,
        text="",
        finish_reason="stop",
        consultations=(asked,),
    )
    seen = []
    for at in (database, tmp_path / "t.db"):
        with TraceStore.open(at, create=True) as store:
            facts = {"recipe": {}, "sampling": Sampling(), "policy": version}
            store.start_run("looked at", kind="train", **facts)
            for step in (1, 11):
                for rollout in range(3):
                    one = trajectory((turn,), rollout=rollout, global_step=step)
                    store.append(one, run_id="looked at", group_key=f"{step}/p0")
        with StoreBrowser.look_into(at) as store:
            first = store.first_ids("looked at", 1)[0]
            seen.append(
                {
                    "steps": [(t.name, t.num, t.correct) for t in store.steps("looked at")],
                    "groups": [t.name for t in store.groups_of("looked at", step=1)],
                    "all groups": [t.name for t in store.groups_of("looked at")],
                    "asked": len(store.briefs(Wanted(run_id="looked at", asked=True))),
                    "solo": len(store.briefs(Wanted(run_id="looked at", role="solo"))),
                    "found": [h.snippet for h in store.search("ärger", run_id="looked at").hits],
                    "literally": len(store.search("0%_", run_id="looked at").hits),
                    "next": store.neighbours(store.trajectory(first))[1] - first,
                    "consulted": store.consulted([first])[first],
                    "problems": [p.id for p in store.problems_of_run("looked at")],
                }
            )
            with pytest.raises(StoreError):
                store.append(trajectory(()), run_id="looked at", group_key="9/p0")
    assert seen[0] == seen[1]
    assert seen[0]["groups"] == ["1/p0"]
    assert (seen[0]["asked"], seen[0]["solo"], seen[0]["literally"]) == (6, 0, 6)
    assert len(seen[0]["found"]) == 6
