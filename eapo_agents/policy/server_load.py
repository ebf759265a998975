"""How busy vLLM servers are, by their own metrics."""

from __future__ import annotations

import re

from eapo_agents.errors import ServerError
from eapo_agents.policy.engine import EngineLoad
from eapo_agents.policy.servers import ServerPool

_WAITING = re.compile(r"^vllm:num_requests_waiting(?:\{.*\})? (\S+)$", re.M)
_CACHE = re.compile(r"^vllm:(?:gpu|kv)_cache_usage_perc(?:\{.*\})? (\S+)$", re.M)


def load_of(pool: ServerPool) -> EngineLoad | None:
    """Ask every server that is up for its /metrics; return all requests that wait and the fullest
    cache, or None where no server tells."""
    waiting: list[float] = []
    cache: list[float] = []
    for server in pool.up:
        try:
            _, text = pool.ask(server, "/metrics")
        except ServerError:
            continue
        waiting += map(float, _WAITING.findall(str(text)))
        cache += map(float, _CACHE.findall(str(text)))
    if not waiting:
        return None
    return EngineLoad(waiting=round(sum(waiting)), cache_used=max(cache, default=0.0))
