"""The policy behind an OpenAI-compatible endpoint that records what it samples."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from eapo_agents.errors import ServerError, UsageError
from eapo_agents.progress import SILENT, Progress
from eapo_agents.recipe import Recipe
from eapo_agents.runs.collection import Tally, tally_of
from eapo_agents.runs.folder import expert_file, store_folder
from eapo_agents.runs.loading import load_agent, problems_of, refuse_people, refuse_untrained

if TYPE_CHECKING:
    from eapo_agents.store import TraceStore
    from graphs.agent import Agent
    from graphs.endpoint.app import Endpoint
    from graphs.endpoint.sessions import Ended

_GRACE_S = 30
"""Seconds that answers in progress have to end, once a signal has come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedServing:
    """What `serve_recorded` is to do."""

    store: str
    run_id: str
    model: str
    """Name of the policy for clients."""
    host: str
    port: int
    key: str | None
    idle_s: float


def serve_recorded(
    recipe: Recipe,
    wanted: RecordedServing,
    *,
    on_ready: Callable[[], None] = lambda: None,
    on_ended: Callable[[Ended], None] = lambda ended: None,
    progress: Progress = SILENT,
) -> Tally:
    """Serve until a signal; return what the store holds then.

    Args:
        on_ready: called when clients may come.
        on_ended: called with each session that is put into the store.

    Raises:
        UsageError: other machines could come without a key, or a package is missing.
        ServerError: the port is taken.
    """
    refuse_untrained(recipe)
    refuse_open_host(wanted.host, wanted.key)
    try:
        import uvicorn
    except ImportError as error:
        raise UsageError(
            "`eapo serve --record` needs the package uvicorn: pip install 'eapo-agents[serve]'."
        ) from error
    from eapo_agents.store import TraceStore

    agent = load_agent(recipe, progress)
    refuse_people(agent.pool, "serve --record")
    with TraceStore.open(wanted.store, create=True) as store:
        endpoint = make_endpoint(agent, store, wanted, on_ended)

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                on_ready()

        config = uvicorn.Config(
            endpoint.app(), log_level="error", lifespan="on", timeout_graceful_shutdown=_GRACE_S
        )
        with _bound(wanted.host, wanted.port) as at, suppress(KeyboardInterrupt):
            Server(config).run(sockets=[at])  # it ends what it does, and hands the signal on
        return tally_of(store, wanted.run_id)


def make_endpoint(
    agent: Agent,
    store: TraceStore,
    wanted: RecordedServing,
    on_ended: Callable[[Ended], None] = lambda ended: None,
) -> Endpoint:
    """Return the endpoint of an agent's policy. Its sessions become rollouts of a run of the
    store."""
    from eapo_agents.rewards import reward_of
    from graphs.endpoint.answering import Answering
    from graphs.endpoint.app import Endpoint
    from graphs.endpoint.sessions import STEP, Sessions

    recipe, consult = agent.recipe, agent.recipe.consult
    store.start_run(
        wanted.run_id,
        kind="collect",
        recipe=recipe.model_dump(mode="json"),
        sampling=agent.sampling,
        policy=agent.engine.policy_version,
    )
    agent.pool.open(expert_file(recipe, store_folder(wanted.store)), wanted.run_id)
    sessions = Sessions(
        store=store,
        run_id=wanted.run_id,
        reward=reward_of(recipe, agent.pool),
        problems=problems_of(recipe, "train", None),
        seed=recipe.seed,
        engine=agent.engine,
        sampling=agent.sampling,
        idle_s=wanted.idle_s,
        on_ended=on_ended,
    )
    tools = agent.pool.tools_under(consult.acceptance, consult.max_queries)
    answering = Answering(
        policy=agent.policy(agent.sampling),
        sessions=sessions,
        experts={tool.name: tool for tool in tools},
        max_turns=consult.turns.turns(STEP),
    )
    return Endpoint(answering=answering, model=wanted.model, key=wanted.key)


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket at an address.

    Raises:
        ServerError: it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    at = socket.socket(family)
    at.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        at.bind((host, port))
    except OSError as error:
        at.close()
        raise ServerError(
            f"The endpoint cannot listen at {host}, port {port} ({error.strerror}): give another "
            "--port."
        ) from error
    return at


def refuse_open_host(host: str, key: str | None) -> None:
    """Raise UsageError where other machines could come without a key."""
    if key is not None or host == "localhost":
        return
    try:
        alone = ip_address(host).is_loopback
    except ValueError:
        alone = False
    if not alone:
        raise UsageError(
            f"At '{host}' other machines can reach the policy: name the environment variable of a "
            "key that clients must send (--key-env), or listen at 127.0.0.1."
        )
