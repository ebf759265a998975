"""Serves the view on this machine until Ctrl-C."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Thread

from eapo_agents.errors import ServerError, UsageError

HOST = "127.0.0.1"
_TOKEN_BYTES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Where the view is."""

    url: str
    """With the token that lets in."""
    num_places: int
    """Runs and stores that were found."""


def serve_view(
    roots: Sequence[str],
    *,
    port: int | None = None,
    on_ready: Callable[[Served], None] = lambda served: None,
) -> None:
    """Serve what folders hold until a signal. Nothing in them is changed.

    Args:
        roots: folders, trace stores, or URLs of stores.
        port: where to listen; by default a free one.
        on_ready: told the address when it can be opened.

    Raises:
        UsageError: a folder is not there, or a package is missing.
        ServerError: the port is taken.
        KeyboardInterrupt: the signal has come, and the server has ended.
    """
    try:
        import uvicorn

        from eapo_agents.runs.view.app import make_app, preload
    except ImportError as error:
        raise UsageError(
            f"`eapo view` needs the package {error.name}: pip install 'eapo-agents[serve]'."
        ) from error
    from eapo_agents.runs.view.site import Site

    site = Site(roots)
    num_places = len(site.places())
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    with _listening(port) as at:
        own_port = int(at.getsockname()[1])
        url = f"http://{HOST}:{own_port}/?token={token}"

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                on_ready(Served(url=url, num_places=num_places))
                Thread(target=preload, daemon=True).start()

        config = uvicorn.Config(
            make_app(site, token=token, port=own_port),
            log_level="error",
            lifespan="off",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
        Server(config).run(sockets=[at])  # it ends what it does, and hands the signal on


def _listening(port: int | None) -> socket.socket:
    """Return a socket at a port of this machine, a free one by default.

    Raises:
        ServerError: the port cannot be had.
    """
    at = socket.socket(socket.AF_INET)
    at.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        at.bind((HOST, port or 0))
    except OSError as error:
        at.close()
        raise ServerError(
            f"The view cannot listen at {HOST}, port {port} ({error.strerror}): give another "
            "--port, or none for a free one."
        ) from error
    return at
