"""A local transformers model as an expert, in this process. Calls are gathered into batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from langchain_core.tools import BaseTool, StructuredTool

from eapo_agents.errors import ExpertError
from eapo_agents.experts.thoughts import open_thought, split_thought
from eapo_agents.experts.usage import Usage
from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.models import find_model
from eapo_agents.types import Sampling

if TYPE_CHECKING:
    from eapo_agents.policy.rendering import ChatRenderer
    from eapo_agents.policy.transformers_engine import TransformersEngine


def transformers_tool(
    name: str,
    *,
    model: str,
    adapter: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    system_prompt: str = "",
    temperature: float = 0.0,
    top_p: float = 1.0,
    max_tokens: int = 512,
    seed: int = 0,
    description: str | None = None,
) -> BaseTool:
    """Make a tool that asks a model, which is loaded at the first query.

    The same query gets the same reply, since its random numbers are a function of seed and query.

    Raises:
        ModelError: there is no such model folder.
    """
    find_model(model)
    sampling = Sampling(temperature=temperature, top_p=top_p, max_new_tokens=max_tokens)
    load = cache(_loader(model, adapter, dtype, device))

    async def ask(query: str) -> tuple[str, Usage]:
        renderer, engine = load()
        messages: list[BaseMessage] = [SystemMessage(system_prompt)] if system_prompt else []
        prompt_ids = renderer.prompt([*messages, HumanMessage(query)], [])
        key = RolloutKey(seed=seed, problem_id=query, step=0, rollout=0, turn=0)
        completion = await engine.generate(prompt_ids, sampling, key)
        # a template may open the thought in the prompt, as R1's does
        opened = open_thought(renderer.decode(prompt_ids[-16:]))
        said = split_thought(opened + renderer.decode(completion.completion_ids))
        usage = Usage(
            prompt_tokens=len(prompt_ids),
            completion_tokens=len(completion.completion_ids),
            thought=said.thought,
        )
        answer = said.answer.strip()
        if not answer:
            error = ExpertError(
                "The model wrote a thought and no answer."
                if said.thought
                else "The model wrote nothing."
            )
            error.usage = usage
            raise error
        return answer, usage

    return StructuredTool.from_function(
        coroutine=ask,
        name=name,
        description=description or f"the model {model.rstrip('/').rpartition('/')[2]}",
        response_format="content_and_artifact",
    )


def _loader(
    model: str, adapter: str | None, dtype: str, device: str
) -> Callable[[], tuple[ChatRenderer, TransformersEngine]]:
    """Return a function that loads the model; PyTorch is imported when it is called."""

    def load() -> tuple[ChatRenderer, TransformersEngine]:
        from eapo_agents.policy.models import load_policy
        from eapo_agents.policy.rendering import ChatRenderer
        from eapo_agents.policy.transformers_engine import TransformersEngine

        loaded = load_policy(model, adapter=adapter, dtype=dtype, device=device)
        renderer = ChatRenderer(loaded.tokenizer)
        engine = TransformersEngine(
            loaded.model, name=model, stop_ids=sorted(renderer.stop_ids), base=loaded.base
        )
        return renderer, engine

    return load
