"""Puts a recipe's parts together: model, engine, policy, experts and the two graphs."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from eapo_agents.errors import UsageError
from eapo_agents.experts.budget import Budget
from eapo_agents.experts.expert import Expert
from eapo_agents.experts.kinds import make_expert
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.policy.api_model import ApiEngine, NotHere
from eapo_agents.policy.api_policy import api_policy, facts_of, reached_service
from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.policy.engine import Engine
from eapo_agents.policy.fresh import fresh_model_of
from eapo_agents.policy.models import (
    LoadedPolicy,
    identify_policy,
    is_adapter,
    load_policy,
    load_tokenizer,
)
from eapo_agents.policy.recorded_model import RecordedChatModel
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.policy.servers import ServerPool
from eapo_agents.policy.transformers_engine import TransformersEngine
from eapo_agents.policy.vllm_engine import VllmEngine
from eapo_agents.recipe import Recipe
from eapo_agents.recipe_file import load_recipe
from eapo_agents.recipe_rules import is_own
from eapo_agents.schedules import AcceptanceSchedule
from eapo_agents.secrets import read_key
from eapo_agents.tools import make_tools
from eapo_agents.types import PolicyVersion, Problem, Sampling
from graphs.builders import (
    GRAPHS,
    AnyGraph,
    Checkpointer,
    Parts,
    build_graph,
    find_function,
    takes_tools,
)
from graphs.first_prompt import prompt_of
from graphs.groups import Assistance
from graphs.rollout import first_messages

WORKFLOW = "workflow"

_loading = threading.Lock()


@dataclass(slots=True, kw_only=True)
class Agent:
    """A recipe's policy, ready to run in its graphs."""

    recipe: Recipe
    loaded: LoadedPolicy
    renderer: ChatRenderer
    engine: Engine
    pool: ExpertPool
    tools: Sequence[BaseTool] = ()
    """Ordinary tools, which stay where the experts are not."""
    _solo_prompts: dict[str, list[int]] = field(default_factory=dict)
    """Of a user's graph, by problem."""

    @property
    def model(self) -> Any:
        """The model to train: the embedded engine's own, or one that is loaded when it is first
        asked for."""
        if isinstance(self.engine, TransformersEngine):
            return self.engine.model
        if self.loaded.model is None:
            settings = self.recipe.policy
            self.loaded = load_policy(
                settings.model,
                adapter=settings.adapter,
                dtype=settings.dtype,
                device=own_device(settings.device),
            )
        return self.loaded.model

    @model.setter
    def model(self, model: Any) -> None:
        if isinstance(self.engine, TransformersEngine):
            self.engine.model = model
        else:
            self.loaded.model = model

    @property
    def samples_from_servers(self) -> bool:
        """Whether new weights have to be published."""
        return isinstance(self.engine, VllmEngine)

    def policy(self, sampling: Sampling, *, system_prompt: str = "") -> RecordedChatModel:
        """The policy as a chat model under these sampling settings. A system prompt begins
        conversations that have none.

        Raises:
            UsageError: an API model cannot sample like that.
        """
        if self.pool.policy is not None:
            model = api_policy(self.recipe, self.engine, self.pool, sampling)
            return model.model_copy(update={"system_prompt": system_prompt})
        return PolicyChatModel(
            engine=self.engine,
            renderer=self.renderer,
            sampling=sampling,
            system_prompt=system_prompt,
            allow_midrollout_updates=self.recipe.policy.allow_midrollout_updates,
        )

    @property
    def sampling(self) -> Sampling:
        """The recipe's settings for rollouts."""
        return self.recipe.sampling

    @property
    def assistance(self) -> Assistance:
        """Which rollouts of a group may ask, as the recipe has it."""
        consult = self.recipe.consult
        return Assistance(solo_share=consult.solo_share, acceptance=consult.acceptance)

    def graph(
        self,
        policy: RecordedChatModel,
        checkpointer: Checkpointer | None = None,
        *,
        acceptance: AcceptanceSchedule | None = None,
    ) -> AnyGraph:
        """Build the recipe's graph with experts, under its schedules or another acceptance
        schedule."""
        return self._build(policy, checkpointer, acceptance=acceptance)

    def solo_graph(
        self, policy: RecordedChatModel, checkpointer: Checkpointer | None = None
    ) -> AnyGraph:
        """Build the recipe's graph without experts."""
        return self._build(policy, checkpointer, with_experts=False)

    def solo_half(self, policy: RecordedChatModel) -> AnyGraph | None:
        """Build what a group's rollouts without experts run, where it has such rollouts and the
        graph is a user's.

        Raises:
            UsageError: the graph has no variant without experts.
        """
        recipe = self.recipe
        if not is_own(recipe.graph) or not recipe.consult.solo_share:
            return None
        if recipe.solo_graph is None and not takes_tools(GRAPHS.find(recipe.graph)):
            raise UsageError(
                f"consult.solo_share is {recipe.consult.solo_share:g}, and the graph "
                f"'{recipe.graph}' takes no experts (policy, tools), so that it is the same with "
                "and without them: let it take them, or name a solo_graph."
            )
        return self.solo_graph(policy)

    @property
    def inputs(self) -> Callable[[Problem], Any] | None:
        """Problem -> the graph's input, where the recipe names such a function."""
        return find_function(self.recipe.inputs, "inputs")

    @property
    def answer_of(self) -> Callable[[Any], str | None] | None:
        """Final state -> the answer, where the recipe names such a function."""
        return find_function(self.recipe.answer_of, "answer_of")

    def evaluated_graph(self, policy: RecordedChatModel) -> AnyGraph:
        """Build the graph that an evaluation runs: the one without experts, unless the recipe's is
        the baseline `workflow`, which always asks."""
        return self._build(policy, with_experts=self.recipe.graph == WORKFLOW)

    def _build(
        self,
        policy: RecordedChatModel,
        checkpointer: Checkpointer | None = None,
        *,
        with_experts: bool = True,
        acceptance: AcceptanceSchedule | None = None,
    ) -> AnyGraph:
        recipe, consult = self.recipe, self.recipe.consult
        parts = Parts(
            pool=self.pool,
            acceptance=acceptance or consult.acceptance,
            turns=consult.turns,
            max_queries=consult.max_queries,
            tools=self.tools,
        )
        named = recipe.solo_graph if not with_experts else None
        return build_graph(
            named or recipe.graph,
            policy,
            parts,
            {} if named else recipe.graph_options,
            with_experts=with_experts,
            checkpointer=checkpointer,
        )

    def solo_prompt(self, problem: Problem) -> list[int]:
        """Token ids of a problem's tool-free prompt: the first that the graph without experts
        shows."""
        messages = first_messages(self.recipe.task.system_prompt, problem.question)
        if not is_own(self.recipe.graph):
            return self.renderer.prompt(messages, [convert_to_openai_tool(t) for t in self.tools])
        if problem.id not in self._solo_prompts:
            given = self.inputs(problem) if self.inputs else {"messages": messages}
            self._solo_prompts[problem.id] = prompt_of(self.solo_graph, self.renderer, given)
        return self._solo_prompts[problem.id]


def load_agent(recipe: Recipe) -> Agent:
    """Loads the model and makes everything that the recipe names.

    Raises:
        ModelError: the model cannot be found or loaded, or is yet to be made.
        ServerError: the recipe's servers do not answer, or not as they should.
        UsageError: there is no such graph, or an expert does not fit.
    """
    for name in filter(None, (recipe.graph, recipe.solo_graph)):
        GRAPHS.find(name)
    for what in ("inputs", "answer_of"):
        find_function(getattr(recipe, what), what)
    settings = recipe.policy
    if settings.api_model is not None:
        return _api_agent(recipe, settings.api_model)
    pool = make_pool(recipe)
    tools = make_tools(recipe.tools, [tool.name for tool in pool.tools])
    if settings.awaits_model:
        settings = settings.model_copy(update={"model": fresh_model_of(settings.adapter)})
        recipe = recipe.model_copy(update={"policy": settings})
    tokenizer = load_tokenizer(settings.model)
    # before the weights: a template that cannot be used is told at once
    renderer = ChatRenderer(tokenizer, settings.template)
    if settings.servers:
        loaded = identify_policy(settings.model, adapter=settings.adapter, dtype=settings.dtype)
        engine: Engine = _connect(recipe, loaded, renderer)
        return Agent(
            recipe=recipe, loaded=loaded, renderer=renderer, engine=engine, pool=pool, tools=tools
        )
    loaded = load_policy(
        settings.model,
        adapter=settings.adapter,
        dtype=settings.dtype,
        device=own_device(settings.device),
        tokenizer=tokenizer,
    )
    engine = TransformersEngine(
        loaded.model,
        name=loaded.name,
        stop_ids=sorted(renderer.stop_ids),
        max_batch_size=settings.max_batch_size,
        gather_timeout_s=settings.gather_timeout_s,
        step=loaded.step,
        base=loaded.base,
    )
    return Agent(
        recipe=recipe, loaded=loaded, renderer=renderer, engine=engine, pool=pool, tools=tools
    )


def _api_agent(recipe: Recipe, name: str) -> Agent:
    """The agent of a recipe whose policy is an API model, looked at."""
    pool = make_pool(recipe, reached_service(recipe.policy))
    return Agent(
        recipe=recipe,
        loaded=NotHere(name),  # type: ignore[arg-type]  # whoever uses it is told so
        renderer=NotHere(name),  # type: ignore[arg-type]
        engine=ApiEngine(name, facts_of(recipe.policy)),
        pool=pool,
        tools=make_tools(recipe.tools, [tool.name for tool in pool.tools]),
    )


def own_device(device: str) -> str:
    """`cuda` as the GPU of this process, where `accelerate launch` started several."""
    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if device == "cuda" and rank is not None else device


def _connect(recipe: Recipe, loaded: LoadedPolicy, renderer: ChatRenderer) -> VllmEngine:
    """The engine over the recipe's servers, looked at."""
    settings = recipe.policy
    key = (
        read_key(settings.server_key_env, wanted_by="policy.servers")
        if settings.server_key_env
        else None
    )
    pool = ServerPool(
        settings.servers,
        key=key,
        request_timeout_s=settings.request_timeout_s,
        server_wait_s=settings.server_wait_s,
    )
    version = PolicyVersion(
        model=loaded.name, base=loaded.base, weights=loaded.weights, step=loaded.step
    )
    engine = VllmEngine(
        pool,
        version=version,
        adapter=Path(settings.adapter)
        if settings.adapter and is_adapter(settings.adapter)
        else None,
        stop_ids=sorted(renderer.stop_ids),
        allow_midrollout_updates=settings.allow_midrollout_updates,
    )
    engine.connect(recipe.sampling)
    return engine


def agent_of_environment() -> Agent:
    """The agent of the recipe `EAPO_RECIPE` (cpu-smol by default) and of the trained policy in
    `EAPO_POLICY`, loaded once a process."""
    with _loading:
        return _load(os.environ.get("EAPO_RECIPE", "cpu-smol"), os.environ.get("EAPO_POLICY"))


@cache
def _load(recipe: str, policy: str | None) -> Agent:
    overrides = [f"policy.adapter={json.dumps(policy)}"] if policy else []
    return load_agent(load_recipe(recipe, overrides))


def _stored(recipe: Recipe, name: str) -> bool | None:
    """Whether an expert's replies are stored; a judge's are, unless the recipe says otherwise."""
    stored, judge = recipe.consult.experts[name].stored, recipe.task.judge
    return True if stored is None and judge is not None and judge.expert == name else stored


def make_pool(recipe: Recipe, policy: Expert | None = None) -> ExpertPool:
    """The recipe's experts, and the service of an API model that is the policy.

    Raises:
        UsageError: an expert, the routing or the budget does not fit, or a key is not set.
    """
    consult = recipe.consult
    return ExpertPool(
        [
            make_expert(name=name, **{**dict(section), "stored": _stored(recipe, name)})
            for name, section in consult.experts.items()
        ],
        routing=consult.routing,
        ask_all=consult.ask_all,
        quorum=consult.quorum,
        budget=Budget(**consult.budget.model_dump()),
        policy=policy,
    )
