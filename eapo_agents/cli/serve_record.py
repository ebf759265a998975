"""`eapo serve --record`: what any client's agent samples, recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eapo_agents.errors import UsageError

if TYPE_CHECKING:
    from eapo_agents.recipe import Recipe
    from eapo_agents.runs.recorded_serving import RecordedServing
    from graphs.endpoint.sessions import Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Where to, and how."""

    store: str
    run_id: str | None
    name: str | None
    """Of the policy, for clients."""
    host: str
    port: int | None
    key: str | None
    idle_s: float


def serve_record(
    recipe: Recipe, wanted: Record, others: Mapping[str, object], *, as_json: bool
) -> None:
    """Serve the recipe's policy until a signal, and record it.

    Args:
        others: options of vLLM's servers, which have no effect here.

    Raises:
        UsageError: one of those is given.
    """
    from eapo_agents.cli.progress import TERMINAL
    from eapo_agents.runs.recorded_serving import RecordedServing, serve_recorded

    for option in (option for option, value in others.items() if value is not None):
        raise UsageError(f"{option} is of vLLM's servers, and --record serves without: drop one.")
    serving = RecordedServing(
        store=wanted.store,
        run_id=wanted.run_id or f"serve-{recipe.name}",
        model=wanted.name or recipe.name,
        host=wanted.host,
        port=wanted.port or 8000,
        key=wanted.key,
        idle_s=wanted.idle_s,
    )
    tally = serve_recorded(
        recipe,
        serving,
        on_ready=lambda: _tell(serving, as_json),
        on_ended=_tell_ended,
        progress=TERMINAL,
    )
    summary = {"store": serving.store, "run_id": serving.run_id, **tally.summary()}
    told = f"The run {serving.run_id} has {tally.rollouts} rollouts."
    print(json.dumps(summary) if as_json else told)


def _tell(serving: RecordedServing, as_json: bool) -> None:
    from eapo_agents.cli.progress import console

    url = f"http://{serving.host}:{serving.port}"
    if as_json:
        facts = {"url": url, "model": serving.model}
        facts |= {"store": serving.store, "run_id": serving.run_id}
        print(json.dumps(facts), flush=True)
        return
    console.print(
        f"Records into {serving.store}, run {serving.run_id}. Any OpenAI client: "
        f"base_url={url}/v1, model={serving.model}. Ctrl-C stops it.",
        markup=False,
        soft_wrap=True,
    )


def _tell_ended(session: Ended) -> None:
    from eapo_agents.cli.progress import console

    reward = "none" if session.reward is None else f"{session.reward:g}"
    why = f", {session.error}" if session.error else ""
    console.print(
        f"Session {session.session}: {session.turns} turns, reward {reward}{why}",
        markup=False,
        soft_wrap=True,
    )
