"""The models that are on this machine or served to it."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from eapo_agents.policy.models import EMBEDDED, find_model
from eapo_agents.policy.servers import ServerPool
from eapo_agents.policy.shipped import TRAINED
from eapo_agents.policy.vllm_api import served_models


def local_models(servers: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Return names, and where each model is.

    Raises:
        ServerError: a server does not answer.
    """
    found = [(TRAINED, "comes with the package")]
    if find_model(EMBEDDED).gguf_file is not None:
        found.append((EMBEDDED, "embedded"))
    found += [(name, "hub cache") for name in _in_the_cache()]
    if servers:
        pool = ServerPool(list(servers))
        for server in pool.servers:
            found += [(name, server.url) for name in served_models(pool, server)]
    return found


def _in_the_cache() -> list[str]:
    """Return the names of the hub's models with a configuration, in order."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return []
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    return sorted(
        repository.repo_id
        for repository in repositories
        if repository.repo_type == "model"
        and any(
            Path(file.file_path).name == "config.json"
            for revision in repository.revisions
            for file in revision.files
        )
    )
