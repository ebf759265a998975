"""`eapo serve`: one vLLM server: for training, for a trained policy, or for an expert."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from eapo_agents.cli import completion
from eapo_agents.cli.options import (
    DEFAULT_RECIPE,
    JsonOption,
    PolicyOption,
    RecipeOption,
    SetOption,
    resolved,
)
from eapo_agents.cli.serve_record import Record, serve_record
from eapo_agents.errors import ServerError, UsageError

if TYPE_CHECKING:
    from eapo_agents.recipe import Recipe
    from eapo_agents.serving.find_vllm import Vllm
    from eapo_agents.serving.server import ServerProcess, Serving

FOLLOW_S = 1.0
"""Seconds between two looks at a followed run."""


_Expert = Annotated[
    str | None,
    typer.Option(
        "--expert",
        help="Serve this expert of the recipe, or this model, instead.",
        autocompletion=completion.experts,
    ),
]
_KeepAdapter = Annotated[
    bool,
    typer.Option("--adapter", help="With --policy: serve base model and adapter, unmerged."),
]
_Follow = Annotated[
    Path | None,
    typer.Option("--follow", help="Restart with each full model that this run publishes."),
]
_Name = Annotated[str | None, typer.Option("--name", help="Name of the model for clients.")]
_Port = Annotated[
    int | None,
    typer.Option("--port", min=1, max=65535, help="Port; 8000 unless an expert names one."),
]
_Dtype = Annotated[
    str | None, typer.Option("--dtype", help="Type of the weights: float32, bfloat16 or auto.")
]
_MaxModelLen = Annotated[
    int | None,
    typer.Option("--max-model-len", min=1, help="Most tokens of prompt and answer together."),
]
_MaxLoraRank = Annotated[
    int | None,
    typer.Option(
        "--max-lora-rank",
        min=0,
        help="Highest rank of adapters; 0 for no adapters. Default: train.lora.r.",
    ),
]
_KeyEnv = Annotated[
    str | None,
    typer.Option("--key-env", help="Environment variable with the key that clients must send."),
]
_Timeout = Annotated[
    float, typer.Option("--timeout", help="Seconds that the server may take to become ready.")
]
_Record = Annotated[
    str | None,
    typer.Option(
        "--record",
        help="Serve the policy without vLLM and record what it samples into this trace store.",
    ),
]
_Idle = Annotated[
    float,
    typer.Option(
        "--idle", min=1, help="With --record: seconds without a request that end a session."
    ),
]
_RunId = Annotated[
    str | None, typer.Option("--run-id", help="With --record: name of the run in the store.")
]
_Extra = Annotated[list[str] | None, typer.Argument(help="Further options for vLLM, after --.")]


def serve(
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    policy: PolicyOption = None,
    expert: _Expert = None,
    keep_adapter: _KeepAdapter = False,
    follow: _Follow = None,
    name: _Name = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: _Port = None,
    dtype: _Dtype = None,
    max_model_len: _MaxModelLen = None,
    max_lora_rank: _MaxLoraRank = None,
    key_env: _KeyEnv = None,
    log: Annotated[Path | None, typer.Option("--log", help="File for the server's output.")] = None,
    timeout: _Timeout = 600.0,
    record: _Record = None,
    idle: _Idle = 600.0,
    run_id: _RunId = None,
    extra: _Extra = None,
    as_json: JsonOption = False,
) -> None:
    """Serve a model with vLLM, OpenAI-compatible: the recipe's model for training, or a trained
    policy (--policy), or an expert (--expert); or record what any client samples (--record).
    Ctrl-C stops it."""
    from eapo_agents.secrets import read_key
    from eapo_agents.serving.find_vllm import find_vllm

    if sum(given is not None for given in (policy, expert, follow)) > 1:
        raise UsageError("Only one of --policy, --expert and --follow can be used: drop the rest.")
    key = read_key(key_env, wanted_by="eapo serve") if key_env else None
    if record is not None:
        theirs: dict[str, object] = {
            "--expert": expert,
            "--follow": follow,
            "--adapter": keep_adapter or None,
        }
        theirs |= {"--dtype": dtype, "--max-model-len": max_model_len, "--log": log}
        theirs |= {"--max-lora-rank": max_lora_rank, "further options": extra or None}
        to = Record(
            store=record, run_id=run_id, name=name, host=host, port=port, key=key, idle_s=idle
        )
        serve_record(resolved(recipe, overrides, policy), to, theirs, as_json=as_json)
        return
    vllm = find_vllm()
    whole = resolved(recipe, overrides, None)
    serving = _serving(whole, expert, policy, keep_adapter, max_lora_rank)
    serving = replace(
        serving,
        host=host,
        port=port or serving.port,
        dtype=dtype or serving.dtype,
        max_model_len=max_model_len or serving.max_model_len,
        names=[name, *(n for n in serving.names if n != name)] if name else serving.names,
        extra=extra or (),
    )
    _run(vllm, serving, follow, log, key, timeout, as_json=as_json)


def _serving(
    recipe: Recipe,
    expert: str | None,
    policy: str | None,
    keep_adapter: bool,
    max_lora_rank: int | None,
) -> Serving:
    """Return what is to be served.

    Raises:
        UsageError: the recipe's policy is served elsewhere.
    """
    from eapo_agents.cli.progress import console

    if recipe.policy.api_model is not None and expert is None:
        raise UsageError(
            f"The recipe's policy is an API model, '{recipe.policy.api_model}', which is served "
            "elsewhere: name an expert (--expert), or a recipe whose model is here."
        )
    with console.status("Preparing the model ..."):
        if expert is not None:
            return _expert(recipe, expert)
        if policy is not None:
            return _trained(recipe, policy, keep_adapter)
        return _for_training(recipe, max_lora_rank)


def _run(
    vllm: Vllm,
    serving: Serving,
    follow: Path | None,
    log: Path | None,
    key: str | None,
    timeout_s: float,
    *,
    as_json: bool,
) -> None:
    from eapo_agents.cli.progress import console

    log = log or Path("runs") / "serve" / f"{serving.port}.log"
    current = _published(follow) if follow else None
    if current:
        serving = replace(serving, model=current["model"], names=[current["name"]])
    with _stopping_on_signals():
        server = _start(vllm, serving, log, key, timeout_s)
        try:
            _tell(serving, server, as_json=as_json)
            while server.is_running:
                time.sleep(FOLLOW_S)
                newest = _published(follow) if follow else None
                # the name is unchanged when a step did not change the weights
                if follow and newest and [newest["name"]] != serving.names:
                    serving = replace(serving, model=newest["model"], names=[newest["name"]])
                    with _restarting_alone(follow):
                        server.stop()
                        server = _start(vllm, serving, log, key, timeout_s)
                    console.print(f"Serves {newest['name']} now.", markup=False)
            raise ServerError(f"The server at {serving.url} has ended: {server.reason()}")
        finally:
            server.stop()


def _start(
    vllm: Vllm, serving: Serving, log: Path, key: str | None, timeout_s: float
) -> ServerProcess:
    from eapo_agents.cli.output import safe_text
    from eapo_agents.cli.progress import console
    from eapo_agents.serving.server import ServerProcess

    server = ServerProcess(vllm, serving, log, key)
    try:
        with console.status(f"Starting vLLM {vllm.version} (log: {log}) ...") as status:

            def on_wait(line: str) -> None:
                shown = safe_text(line)[: max(20, console.width - 30)]
                status.update(f"Starting vLLM {vllm.version}: [dim]{_plain(shown)}[/dim]")

            server.wait(timeout_s, on_wait)
    except BaseException:
        server.stop()
        raise
    return server


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def _tell(serving: Serving, server: ServerProcess, *, as_json: bool) -> None:
    from eapo_agents.cli.progress import console

    names = [*serving.names, *(name for name, _ in serving.adapters)]
    if as_json:
        facts = {"url": serving.url, "models": names, "pid": server.pid, "log": str(server.log)}
        print(json.dumps(facts), flush=True)
        return
    for line in (
        f"Serves {', '.join(names)} at {serving.url}/v1 (log: {server.log}).",
        f"Any OpenAI client: base_url={serving.url}/v1, model={names[0]}",
        f"Recipes: --set 'policy.servers=[{serving.url}]'" if serving.takes_adapters else "",
        "Ctrl-C stops it.",
    ):
        if line:
            console.print(line, markup=False, soft_wrap=True)


def _for_training(recipe: Recipe, max_lora_rank: int | None) -> Serving:
    """Serve the base model under the recipe's name for it; clients may load adapters."""
    from eapo_agents.policy.models import servable_folder
    from eapo_agents.serving.server import Serving

    lora = recipe.train.lora
    rank = max_lora_rank if max_lora_rank is not None else lora.r if lora else 0
    return Serving(
        model=servable_folder(recipe.policy.model),
        names=[recipe.policy.model],
        dtype=recipe.policy.dtype,
        lora_rank=rank or None,
        takes_adapters=rank > 0,
    )


def _trained(recipe: Recipe, policy: str, keep_adapter: bool) -> Serving:
    """Serve a trained policy under the recipe's name and under that of its weights."""
    from eapo_agents.policy.models import (
        POLICY_FILE,
        identify_policy,
        is_adapter,
        servable_folder,
    )
    from eapo_agents.policy.vllm_engine import served_name
    from eapo_agents.serving.server import Serving
    from eapo_agents.types import PolicyVersion

    folder = Path(policy)
    if not (folder / POLICY_FILE).exists() and (folder / "policy" / POLICY_FILE).exists():
        folder = folder / "policy"  # --policy names the run's folder
    settings = recipe.policy
    known = identify_policy(settings.model, adapter=str(folder), dtype=settings.dtype)
    version = PolicyVersion(
        model=known.name, base=known.base, weights=known.weights, step=known.step
    )
    names = [recipe.name, served_name(version)]
    if keep_adapter and is_adapter(folder):
        rank = json.loads((folder / "adapter_config.json").read_text())["r"]
        return Serving(
            model=servable_folder(settings.model),
            names=[settings.model],
            dtype=settings.dtype,
            lora_rank=int(rank),
            adapters=[(name, str(folder.resolve())) for name in names],
        )
    return Serving(
        model=servable_folder(settings.model, str(folder)), names=names, dtype=settings.dtype
    )


def _expert(recipe: Recipe, named: str) -> Serving:
    """Serve an expert of the recipe at the port of its base_url, or any model."""
    from eapo_agents.policy.models import servable_folder
    from eapo_agents.serving.server import Serving

    section = recipe.consult.experts.get(named)
    if section is None:
        return Serving(model=servable_folder(named), names=[named])
    options = section.options
    if section.kind != "openai-chat" or "model" not in options:
        raise UsageError(
            f"The expert '{named}' is of kind {section.kind}: only openai-chat experts are served; "
            "name one of those, or a model."
        )
    model = str(options["model"])
    url = urlsplit(section.urls[0]) if section.urls else None
    serving = Serving(model=servable_folder(model), names=[model])
    return replace(serving, port=url.port) if url and url.port else serving


def _published(run: Path) -> dict[str, str] | None:
    """Return the model that a training run published last; None before its first."""
    try:
        found: dict[str, str] = json.loads((run / "published" / "current.json").read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UsageError(
            f"'{run}/published/current.json' cannot be read ({error}): run the training again."
        ) from error
    return found


@contextmanager
def _restarting_alone(run: Path) -> Iterator[None]:
    """Let servers that follow one run restart one after another, so that some always serve."""
    with (run / "published" / "restart.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _stopping_on_signals() -> Iterator[None]:
    """Handle SIGTERM as Ctrl-C: stop the server, so that it is not left behind."""
    from eapo_agents.cli.progress import console

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        console.print(f"Stopped (process {os.getpid()}).", markup=False)
    finally:
        signal.signal(signal.SIGTERM, before)
