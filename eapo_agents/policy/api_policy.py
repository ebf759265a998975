"""An API model as a recipe describes it: its service, reached, and its policy."""

from __future__ import annotations

from collections.abc import Mapping

from langchain_core.language_models import BaseChatModel

from eapo_agents.errors import UsageError
from eapo_agents.experts.expert import Expert
from eapo_agents.experts.kinds import secret_in
from eapo_agents.experts.openai_chat import check_url
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.policy.api_model import ApiChatModel
from eapo_agents.policy.api_services import (
    chat_model_tool,
    endpoint_tool,
    find_chat_model,
    reach_endpoint,
    unfollowed,
)
from eapo_agents.policy.engine import Engine
from eapo_agents.recipe import Recipe
from eapo_agents.recipe_sections import PolicySection
from eapo_agents.secrets import read_key
from eapo_agents.types import Sampling

_NO_LIMIT = 10**9
"""Characters of a turn, which `max_new_tokens` limits."""


def reached_service(policy: PolicySection) -> Expert:
    """Return the service of an API model, after a look at it.

    Raises:
        UsageError: its settings do not fit, or its key is not set.
        ServerError: nothing answers there, or the key is refused.
    """
    endpoint = policy.endpoint
    if endpoint is None:
        assert policy.chat_model is not None
        tool = chat_model_tool(policy.chat_model)
    else:
        check_url(endpoint.url, "policy.endpoint.url")
        if secret := secret_in(endpoint.extra_body):
            raise UsageError(
                f"policy.endpoint.extra_body must not hold a key ('{secret}'), since recipes are "
                "printed and saved: put it into an environment variable and name that in key_env."
            )
        key = endpoint.key_env and read_key(endpoint.key_env, wanted_by="policy.endpoint")
        reach_endpoint(endpoint.url, key)
        tool = endpoint_tool(endpoint.url, endpoint.model, key, endpoint.extra_body)
    # no `identity`: a turn is a sample of its own, and is never taken from the stored replies
    return Expert(
        tool=tool,
        kind="policy",
        max_reply_chars=_NO_LIMIT,
        **{name: getattr(policy.calls, name) for name in type(policy.calls).model_fields},
    )


def facts_of(policy: PolicySection) -> Mapping[str, object]:
    """Return what makes an API model this one: a run has one only."""
    endpoint = policy.endpoint
    if endpoint is None:
        return {"chat_model": policy.chat_model}
    return endpoint.model_dump(exclude={"key_env"})


def api_policy(
    recipe: Recipe, engine: Engine, pool: ExpertPool, sampling: Sampling
) -> ApiChatModel:
    """Return the policy that asks the pool's service.

    Raises:
        UsageError: the model cannot sample like that.
    """
    takes_tools, name = True, recipe.policy.chat_model
    if name is not None:
        model = find_chat_model(name)
        takes_tools = type(model).bind_tools is not BaseChatModel.bind_tools
        if sampling.temperature == 0 and "temperature" in unfollowed(model):
            raise UsageError(
                f"Greedy answers are wanted, and '{name}' has no field `temperature` to set: set "
                "eval.greedy=false, and the temperature where the model is made."
            )
    return ApiChatModel(
        engine=engine, ask=pool.ask_policy, sampling=sampling, takes_tools=takes_tools
    )
