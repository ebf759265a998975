"""vLLM's HTTP interface: what we ask a server besides completions, and how its answers are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

from eapo_agents.errors import EngineError, ServerError
from eapo_agents.policy.servers import Answer, Server, ServerPool, told_error
from eapo_agents.types import Sampling

_LOWEST_LOGPROB = -9999.0
"""vLLM's number for minus infinity."""


class ServedModel(TypedDict):
    """One entry of `/v1/models`."""

    id: str
    max_model_len: int | None


def served_models(pool: ServerPool, server: Server) -> dict[str, ServedModel]:
    """Return the models and adapters of a server by name.

    Raises:
        ServerError: the server does not answer, or is not vLLM.
    """
    status, found = pool.ask(server, "/v1/models")
    try:
        if status != 200:
            raise TypeError(status)
        models = cast(dict[str, list[ServedModel]], found)["data"]
        return {str(model["id"]): model for model in models}
    except (LookupError, TypeError) as error:
        said = told_error(found) or "an answer without models"
        raise ServerError(
            f"{server.url} does not report which models it serves (HTTP {status}: {said}): name a "
            "vLLM server in policy.servers, and its key's variable in policy.server_key_env."
        ) from error


def serves(pool: ServerPool, server: Server, name: str) -> bool:
    """Whether a server answers and has a model of that name."""
    try:
        return name in served_models(pool, server)
    except ServerError:
        return False


def load_adapter(pool: ServerPool, server: Server, name: str, adapter: Path | None) -> None:
    """Load an adapter onto a server, unless the server has it.

    Raises:
        ServerError: the server refuses it, or there is no adapter of that name.
    """
    if adapter is None:
        raise ServerError(
            f"The server {server.url} no longer serves '{name}', and this process has no adapter "
            "of that name: start the server as before."
        )
    if name in served_models(pool, server):
        return
    body = {"lora_name": name, "lora_path": str(adapter.resolve())}
    status, found = pool.ask(server, "/v1/load_lora_adapter", body)
    said = told_error(found)
    if status == 200 or "already" in said:
        server.loaded.add(name)
        return
    if status == 404 and said in ("", "Not Found"):
        why = "it takes no adapters while it runs: start it with `eapo serve`"
    elif "rank" in said:
        why = f"{said}: serve with a larger --max-lora-rank, or train with a smaller lora.r"
    elif "No adapter found" in said:
        why = f"it does not see the folder {adapter}: servers and trainer must share it"
    else:
        why = said or f"HTTP {status}"
    raise ServerError(f"The server {server.url} does not take the adapter '{name}': {why}.")


def unload_adapter(pool: ServerPool, server: Server, name: str) -> None:
    """Unload an adapter that this process has loaded."""
    if name in server.loaded:
        server.loaded.discard(name)
        # whatever it answers: an adapter that is gone already is as good
        pool.ask(server, "/v1/unload_lora_adapter", {"lora_name": name})


def check_answers(
    pool: ServerPool, server: Server, name: str, token: int, sampling: Sampling
) -> None:
    """Sample one token behind `token`: token ids and logprobs must come back, and the logprobs must
    be those at the recipe's temperature.

    At temperature T the distance between the best and the fifth logprob is that at temperature 1,
    divided by T. A server that reports logprobs at temperature 1 shows the same distance twice.

    Raises:
        ServerError: training could not use the server's answers.
    """
    if server.max_length and sampling.max_new_tokens >= server.max_length:
        raise ServerError(
            f"sampling.max_new_tokens is {sampling.max_new_tokens}, and {server.url} takes "
            f"{server.max_length} tokens with the prompt: lower it, or serve with a larger "
            "--max-model-len."
        )
    given: dict[str, object] = {"model": name, "prompt": [token], "max_tokens": 1, "logprobs": 5}
    given |= {"return_token_ids": True, "top_p": 1.0, "temperature": 1.0}
    top = _top_logprobs(pool, server, given)
    if sampling.temperature not in (0.0, 1.0):
        tempered = _top_logprobs(pool, server, {**given, "temperature": sampling.temperature})
        spread, tempered_spread = top[0] - top[-1], tempered[0] - tempered[-1]
        expected = spread / sampling.temperature
        if abs(tempered_spread - expected) > abs(tempered_spread - spread):
            raise ServerError(
                f"The server {server.url} reports logprobs at temperature 1, not at "
                f"{sampling.temperature:g}, at which it samples, and training needs those: start "
                "it with `eapo serve`, or with --logprobs-mode processed_logprobs."
            )


def _top_logprobs(pool: ServerPool, server: Server, given: Mapping[str, object]) -> list[float]:
    status, found = pool.ask(server, "/v1/completions", given)
    if status != 200:
        raise ServerError(
            f"The server {server.url} refuses a completion (HTTP {status}: {told_error(found)}): "
            "is it vLLM's OpenAI-compatible server?"
        )
    try:
        answer = cast(Answer, found)
        sampled(answer)
        top = (answer["choices"][0]["logprobs"] or {})["top_logprobs"][0]
        # a sixth is the drawn token, if it is not among the best five
        return sorted(map(float, top.values()), reverse=True)[:5]
    except (EngineError, LookupError, TypeError, AttributeError) as error:
        raise ServerError(
            f"The server {server.url} answers without token ids or logprobs, and training needs "
            "the very tokens that were sampled: use vLLM 0.22 or later (`eapo serve`)."
        ) from error


def sampled(found: Answer) -> tuple[list[int], list[float]]:
    """Return token ids and their logprobs from an answer or a piece of one.

    Raises:
        EngineError: they are missing or do not match.
    """
    try:
        choices = found["choices"]
        if not choices:
            return [], []
        ids = choices[0]["token_ids"]
        logprobs = (choices[0]["logprobs"] or {}).get("token_logprobs", [])
        if ids is None or len(ids) != len(logprobs):
            raise TypeError("no token ids")
        return [int(token) for token in ids], [
            max(_LOWEST_LOGPROB, float(logprob)) for logprob in logprobs
        ]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise EngineError(
            "The policy server answers without token ids or their logprobs: use vLLM 0.22 or later."
        ) from error
