"""A GGUF file as a plain folder: transformers takes half a minute to read one, and a second to read
the folder. So the file is read once, and the folder is kept with the user's other caches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from eapo_agents.errors import ModelError
from eapo_agents.files import cache_folder, whole_folder

_WRITING = Lock()


def plain_folder(file: Path) -> Path:
    """Return the folder with the model and the tokenizer of a GGUF file, in float32. It is written
    where it is not there yet: about five times the file.

    The folder is known by what is in the file and by transformers' version, which reads it. So
    environments share it, and a changed file or reader makes a new one.

    Raises:
        OSError, ValueError, KeyError: the file is no model.
        ModelError: the folder cannot be written.
    """
    import transformers

    with file.open("rb") as content:
        digest = hashlib.file_digest(content, partial(hashlib.blake2b, digest_size=12)).hexdigest()
    folder = cache_folder() / "models" / f"gguf-{digest}-transformers-{transformers.__version__}"
    with _WRITING:  # of this process; of others, the first one to end is kept
        if not folder.is_dir():
            _write(file, folder)
    return folder


def _write(file: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_kept(file, folder, error) from error
    logging.disable_progress_bar()
    options = {"gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **options)
    with _no_conversion_bar():
        model = AutoModelForCausalLM.from_pretrained(file.parent, dtype="float32", **options)
    _forget_quantisation(model)
    try:
        with whole_folder(folder, first_stays=True) as unfinished:
            model.save_pretrained(str(unfinished))
            tokenizer.save_pretrained(str(unfinished))
    except Exception as error:  # safetensors has errors of its own for a full disk
        raise _not_kept(file, folder, error) from error


def _not_kept(file: Path, folder: Path, error: Exception) -> ModelError:
    return ModelError(
        f"The model of '{file.name}' is kept as a plain folder in '{folder.parent}', which cannot "
        f"be written ({error}): make room there, or name another folder in EAPO_CACHE."
    )


@contextmanager
def _no_conversion_bar() -> Iterator[None]:
    """Hide the bar of the GGUF conversion, which transformers' own switch leaves on."""
    from transformers import modeling_gguf_pytorch_utils as gguf

    shown = gguf.tqdm
    gguf.tqdm = partial(shown, disable=True)
    try:
        yield
    finally:
        gguf.tqdm = shown


def _forget_quantisation(model: Any) -> None:
    """Remove the marks of quantisation: loading has dequantised the weights, but `save_pretrained`
    would refuse a model that still has the marks."""
    for mark in ("hf_quantizer", "is_quantized", "quantization_method"):
        if hasattr(model, mark):
            delattr(model, mark)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
