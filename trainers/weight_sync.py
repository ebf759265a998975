"""New weights for whoever samples: the embedded engine shares the trainer's, servers get them.

A LoRA adapter is written beside the run and loaded by name while the servers serve. A whole model
is written too, and the servers of `eapo serve --follow` restart with it, one after another. Both
must see the run's folder under the same path.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list

from eapo_agents.files import write_atomically
from eapo_agents.policy.fingerprint import saved_fingerprint
from eapo_agents.policy.models import is_adapter
from eapo_agents.policy.transformers_engine import TransformersEngine
from eapo_agents.policy.vllm_engine import KEPT_VERSIONS, VllmEngine, served_name
from graphs.agent import Agent

PUBLISHED = "published"
CURRENT = "current.json"
"""Names the folder and the served name of the newest whole model."""
_SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)


class Publisher:
    """Tells an agent's engine of the trainer's weights."""

    def __init__(
        self,
        agent: Agent,
        folder: Path,
        accelerator: Accelerator,
        save_sharded: Callable[[str], None],
    ) -> None:
        """Publishes under `folder`.

        Args:
            save_sharded: the trainer's own way to write a model that is spread over processes;
                called on all of them.
        """
        self._agent = agent
        self._folder = folder / PUBLISHED
        self._accelerator = accelerator
        self._save_sharded = save_sharded
        self.seconds = 0.0
        """What the last publication took, from the first byte written to the last server."""

    def publish(self, step: int) -> None:
        """Makes the present weights those of the next rollouts. All processes call it."""
        engine = self._agent.engine
        if isinstance(engine, TransformersEngine):
            engine.weights_changed(step)
        elif isinstance(engine, VllmEngine):
            self._publish(engine, step)

    def _publish(self, engine: VllmEngine, step: int) -> None:
        folder = (self._folder / f"step-{step}").resolve()
        main = self._accelerator.is_main_process
        model: Any = self._accelerator.unwrap_model(self._agent.model)
        if self._accelerator.distributed_type in _SHARDED:
            self._save_sharded(str(folder))
        elif main:
            folder.mkdir(parents=True, exist_ok=True)
            model.save_pretrained(str(folder))
        told: list[Any] = [None]
        if main:
            told = [self._tell_servers(engine, folder, step)]
        if self._accelerator.num_processes > 1:
            told = broadcast_object_list(told, from_process=0)
        if isinstance(told[0], Exception):
            raise told[0]
        engine.use(told[0], folder if is_adapter(folder) else None)

    def _tell_servers(self, engine: VllmEngine, folder: Path, step: int) -> Any:
        """The version that is served now, or what went wrong, which every process must raise."""
        base = self._agent.loaded.base
        try:
            version = replace(
                engine.policy_version, weights=saved_fingerprint(folder, base), step=step
            )
            if version.weights == base:  # nothing to load: the base model as it is
                return version
            if is_adapter(folder):
                self.seconds = engine.publish(version, folder)
            else:
                self.seconds = self._restart_servers(engine, version, folder)
            for old in self._folders()[:-KEPT_VERSIONS]:
                shutil.rmtree(old, ignore_errors=True)
            return version
        except Exception as error:
            return error

    def _restart_servers(self, engine: VllmEngine, version: Any, folder: Path) -> float:
        save_tokenizer = self._agent.loaded.tokenizer.save_pretrained
        save_tokenizer(str(folder))
        current = {"model": str(folder), "name": served_name(version), "step": version.step}
        write_atomically(self._folder / CURRENT, json.dumps(current) + "\n")
        return engine.switch(version, self._agent.recipe.policy.server_wait_s)

    def _folders(self) -> list[Path]:
        found = self._folder.glob("step-*")
        return sorted(found, key=lambda folder: int(folder.name.partition("-")[2]))
