"""A disk that is really full: one sentence, nothing half, and a store that continues."""

import itertools
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from eapo_agents.errors import StoreError, is_full_disk
from eapo_agents.experts.call_store import CallSite, CallStore, LedgerRow
from eapo_agents.experts.usage import Usage
from eapo_agents.store import TraceStore
from eapo_agents.types import PolicyVersion, Sampling, Turn

POLICY = PolicyVersion(model="m", base="b", weights="w", step=0)


def until_full(step: Callable[[int], object]) -> tuple[int, str]:
    """Return how many steps went well, and what the first that did not said."""
    for number in itertools.count():
        try:
            step(number)
        except StoreError as error:
            return number, str(error)
    raise AssertionError


def turn(num_tokens: int) -> Turn:
    return Turn(
        context_ids=(1,) * num_tokens,
        completion_ids=(2,) * num_tokens,
        logprobs=(-0.5,) * num_tokens,
        parent=None,
        text="",
        finish_reason="stop",
    )


@pytest.mark.parametrize("num_tokens", [50, 4_000, 30_000])
def test_a_store_on_a_full_disk_says_so_and_continues_once_there_is_room(
    small_disk, trajectory, num_tokens
):
    whole = trajectory((turn(num_tokens),))
    file = small_disk / "t.db"
    with TraceStore.open(file, create=True) as store:
        facts = {"kind": "collect", "recipe": {}, "sampling": Sampling(), "policy": POLICY}
        store.start_run("run", **facts)
        num_kept, refusal = until_full(
            lambda number: store.append(whole, run_id="run", group_key=str(number))
        )
        assert re.search(f"{file}.*full", refusal)
        assert "\n" not in refusal
        assert len(store.have("run")) == num_kept
        (small_disk / "ballast").unlink()
        assert store.append(whole, run_id="run", group_key=str(num_kept))
        assert len([s for s in store.trajectories() if s.trajectory == whole]) == num_kept + 1
    with TraceStore.open(file) as again:
        assert len(again.have("run")) == num_kept + 1


@pytest.mark.parametrize("num_chars", [10, 20_000, 400_000])
def test_a_ledger_on_a_full_disk_says_so_and_continues_once_there_is_room(small_disk, num_chars):
    file = small_disk / "experts.db"
    row = LedgerRow(expert="e", status="accepted", attempts=1)
    ledger = CallStore(file)

    def record(number: int) -> None:
        reply = (str(number), "x" * num_chars, Usage())
        ledger.record("run", CallSite(rollout=number), row, reply)

    num_kept, refusal = until_full(record)
    assert re.search(f"{file}.*full", refusal)
    assert ledger.spent("run")[0] == num_kept
    assert ledger.reply(str(num_kept)) is None
    (small_disk / "ballast").unlink()
    record(num_kept)
    assert ledger.spent("run")[0] == num_kept + 1
    assert ledger.reply(str(num_kept)) is not None
    ledger.close()


def test_stores_are_not_half_made_on_a_disk_without_any_room(small_disk):
    filler: Path = small_disk / "filler"
    with filler.open("wb", buffering=0) as opened, suppress(OSError):
        while opened.write(b"x" * 4096):
            pass
    for make in (lambda f: TraceStore.open(f, create=True), CallStore):
        with pytest.raises(StoreError, match=r"new\.db"):
            make(small_disk / "new.db")
    filler.unlink()
    TraceStore.open(small_disk / "new.db", create=True).close()


def test_a_library_that_finds_the_disk_full_is_understood(small_disk):
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    big = {"weights": torch.zeros(1_000_000)}
    for save in (save_file, torch.save):
        with pytest.raises((OSError, RuntimeError, SafetensorError)) as refusal:
            save(big, str(small_disk / "weights"))
        assert is_full_disk(refusal.value), refusal.value
    assert not is_full_disk(PermissionError(13, "Permission denied"))
