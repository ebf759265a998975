"""A collection on a disk that fills up: one sentence, and the same command ends it."""

import json
import os

from eapo_agents.policy.fresh import make_model
from eapo_agents.store import TraceStore

RECIPE = """
name: small
policy: {model: MODEL}
sampling: {max_new_tokens: 16}
rollouts: {concurrency: 8}
collect: {problems: 3, num_generations: 8}
"""


def test_a_collection_stops_with_one_sentence_and_continues_once_there_is_room(
    run_command, small_disk, tmp_path
):
    model, recipe = tmp_path / "model", tmp_path / "small.yaml"
    texts = ["What is 3 + 4? Answer: 7"] * 20
    make_model(model, texts, layers=1, width=32, heads=2, vocabulary=300, seed=0)
    recipe.write_text(RECIPE.replace("MODEL", str(model)))
    store = small_disk / "t.db"
    # a store and a ledger find room, a few rollouts too
    ballast, disk = small_disk / "ballast", os.statvfs(small_disk)
    with ballast.open("ab") as opened:
        opened.write(b"x" * (disk.f_bavail * disk.f_frsize - 450_000))
    command = ["collect", "--recipe", str(recipe), "--store", str(store), "--json"]
    status, out, err = run_command(*command)
    assert (status, out) == (2, "")
    assert f"eapo: The store '{store}' cannot be used (database or disk is full)" in err
    assert "Traceback" not in err
    ballast.unlink()
    status, out, err = run_command(*command)
    assert status == 0, err
    with TraceStore.open(store) as opened:
        kept = opened.have("collect-small")
    assert sum(len(rollouts) for rollouts in kept.values()) == json.loads(out)["rollouts"] == 24
