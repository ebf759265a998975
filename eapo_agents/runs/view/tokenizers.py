"""The tokenizer of a stored run, if it is on this machine. Nothing is asked over the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, RLock, Thread
from typing import TYPE_CHECKING, Any

from eapo_agents.errors import EapoError
from eapo_agents.runs.view.training import section

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

    from eapo_agents.policy.protocols import Tokenizer
    from eapo_agents.policy.rendering import ChatRenderer

_FILE = "tokenizer.json"
_PARTS = 4
"""A model's folder is also looked for below the run's own parents, by the end of its path: runs are
moved with their models."""
_LOADING = RLock()
"""transformers must not be imported by two threads at once: its lazy modules fail then."""
_PENDING = 8
"""Tokens that may make one character together."""


@dataclass(slots=True)
class TokenTexts:
    """Says what token ids stand for."""

    location: str
    backend: Backend
    template: Mapping[str, object]
    _renderer: ChatRenderer | None = None
    _is_warming: bool = False
    _warmed: Event = field(default_factory=Event)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the text of each token. A character of several tokens stands at the last of
        them; the others are empty."""
        found: list[str] = []
        begin = shown = 0
        for number in range(len(ids)):
            before = self._text(ids[begin:shown])
            now = self._text(ids[begin : number + 1])
            if now.endswith("\ufffd") and number + 1 - shown < _PENDING and number + 1 < len(ids):
                found.append("")
                continue
            found.append(now[len(before) :])
            begin, shown = shown, number + 1
        return found

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of all of them."""
        return self._text(ids)

    def _text(self, ids: Sequence[int]) -> str:
        known = self.backend.get_vocab_size(with_added_tokens=True)
        try:
            return str(self.backend.decode([i for i in ids if i < known], False))
        except (OverflowError, TypeError, ValueError):  # ids of another model
            return ""

    @property
    def renderer(self) -> ChatRenderer:
        """Return what renders prompts; it takes seconds to load.

        Raises:
            ModelError: the model has no chat template that can be used.
        """
        with _LOADING:
            if self._renderer is None:
                from eapo_agents.policy.rendering import ChatRenderer
                from eapo_agents.runs.loading import quiet_libraries

                quiet_libraries()
                self._renderer = ChatRenderer(_load(self.location), self.template)
            return self._renderer

    def warm(self) -> None:
        """Load what renders prompts in the background: who reads a rollout may want its rows."""
        if not self._is_warming:
            self._is_warming = True
            Thread(target=self._warm, daemon=True).start()

    def is_warm(self, patience_s: float) -> bool:
        """Return whether prompts can be rendered at once, or could not ever, after waiting for it
        for some seconds."""
        self.warm()
        return self._warmed.wait(patience_s)

    def _warm(self) -> None:
        try:
            with suppress(EapoError):
                _ = self.renderer
        finally:
            self._warmed.set()


@dataclass(slots=True)
class TokenizerShelf:
    """Finds tokenizers, and keeps them."""

    _kept: dict[str, TokenTexts | None] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def of_run(self, recipe: Mapping[str, Any], folder: Path | None) -> TokenTexts | None:
        """Return the tokenizer of a run's policy; None where it is not on this machine.

        Args:
            recipe: as the run's record has it.
            folder: of the run.
        """
        policy = section(recipe, "policy")
        name = policy.get("model")
        if not isinstance(name, str) or not name:
            return None
        template = policy.get("template")
        with self._lock:
            key = f"{name}\n{folder}"
            if key not in self._kept:
                variables = template if isinstance(template, Mapping) else {}
                self._kept[key] = _find(name, folder, variables)
            return self._kept[key]


def _find(name: str, folder: Path | None, template: Mapping[str, object]) -> TokenTexts | None:
    from tokenizers import Tokenizer as Backend

    for place in _folders(name, folder):
        if (place / _FILE).is_file():
            try:
                backend = Backend.from_file(str(place / _FILE))
            except Exception:  # the library raises bare Exception for a file that it cannot read
                continue
            return TokenTexts(location=str(place), backend=backend, template=template)
    return None


def _folders(name: str, folder: Path | None) -> list[Path]:
    path = Path(name).expanduser()
    found = [path] if path.is_absolute() or path.is_dir() else []
    if folder is not None:
        here = folder.absolute()
        ends = [Path(*path.parts[-n:]) for n in range(min(_PARTS, len(path.parts)), 0, -1)]
        found += [
            parent / end for parent in [here, *list(here.parents)[:_PARTS]] for end in ends if end
        ]
        found += [here / "policy"]
    return found + _cached(name)


def _cached(name: str) -> list[Path]:
    """Return the folder of the hub's files or of the small model's package, if they are here."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    from eapo_agents.policy.models import find_model

    try:
        source = find_model(name)
        if source.gguf_file is not None:
            with _LOADING:
                from eapo_agents.runs.loading import quiet_libraries

                quiet_libraries()
                return [Path(source.loadable())]
        found = try_to_load_from_cache(source.location, _FILE)
    except (HFValidationError, EapoError, ImportError, OSError, ValueError, KeyError):
        return []
    return [Path(found).parent] if isinstance(found, str) else []


def _load(location: str) -> Tokenizer:
    from eapo_agents.policy.models import load_tokenizer

    return load_tokenizer(location)
