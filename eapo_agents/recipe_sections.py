"""The sections of a recipe.

A section is the object that the code uses. Each setting has one default and one docstring, here or
where the section is defined; docs/recipes.md is made from them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from eapo_agents.experts.budget import BudgetLimits
from eapo_agents.experts.expert import CallSettings, ExpertSettings
from eapo_agents.mcp_servers import McpServer
from eapo_agents.policy.fresh import Architecture
from eapo_agents.policy.models import EMBEDDED
from eapo_agents.recipe_task import TaskSection
from eapo_agents.recipe_training import TrainSection
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget
from eapo_agents.settings import Options, OwnFunction, Settings
from eapo_agents.trl_fields import refuse_unusable
from eapo_agents.types import Sampling


class FreshSection(Settings):
    """A new model with random weights and its own tokenizer, for studies in minutes."""

    layers: int = Field(3, ge=1)
    """Decoder layers."""
    width: int = Field(96, ge=8)
    """Hidden size."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    vocabulary: int = Field(512, ge=300)
    """Tokens: bytes, special tokens and the most frequent pieces of the warm start's texts. Each
    digit is a token."""
    architecture: Architecture = "llama"
    """Architecture of the model, as transformers has it."""
    chat_template: str | None = None
    """Name of a chat template that TRL ships, such as `qwen3_5_think`, or a .jinja file: its form
    of calls is taught. What it writes about tools is long, so give a larger `vocabulary`. `null`: a
    plain template, whose calls are Hermes JSON."""


class EndpointSection(Settings):
    """An OpenAI-compatible endpoint whose model is the policy, untrained."""

    url: str
    """Its address, such as https://api.openai.com/v1 or http://localhost:11434/v1 (Ollama)."""
    model: str
    """The model's name there."""
    key_env: str | None = None
    """Environment variable that holds the key. `null`: none is sent."""
    extra_body: Options = Field(default_factory=dict)
    """Further fields of each request, such as `reasoning_effort: low`."""


class PolicyCallsSection(CallSettings):
    """How an API model is called, with `endpoint` or `chat_model`. docs/experts.md has the rest."""

    timeout_s: float = Field(600.0, gt=0)
    """Limit for one turn, including its retries but not its wait in the queue."""
    retries: int = Field(5, ge=0, le=10)
    """Further attempts after a transient failure."""


class PolicySection(Settings):
    """The policy and the engine that samples from it."""

    model: str = EMBEDDED
    """Model folder, GGUF file or cached model's name."""
    endpoint: EndpointSection | None = None
    """Ask a model behind an OpenAI-compatible endpoint instead: an API model, which is not
    trained."""
    chat_model: OwnFunction | None = None
    """`package.module:object`: ask this LangChain chat model instead, or the one that this function
    returns: an API model too."""
    calls: PolicyCallsSection = PolicyCallsSection()
    template: Options = Field(default_factory=dict)
    """Variables of the model's chat template, such as `enable_thinking: false`."""
    fresh: FreshSection | None = None
    """Make this model (`eapo warm-start`, `eapo train`, `eapo study`) instead of loading `model`.
    It is kept beside the policies that are trained from it."""
    adapter: str | None = None
    """Folder of a trained adapter to start from."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the weights."""
    device: str = "cpu"
    """Device of the embedded engine and of the trainer, such as `cpu` or `cuda`."""
    max_batch_size: int = Field(64, ge=1)
    """Most sequences that the embedded engine samples at once."""
    gather_timeout_s: float = Field(30.0, gt=0)
    """How long the embedded engine's batch waits for a rollout that an expert delays."""
    servers: list[str] = Field(default_factory=list)
    """vLLM servers that sample, such as http://127.0.0.1:8000 (`eapo serve`). None: the embedded
    engine samples, in this process."""
    server_key_env: str | None = None
    """Environment variable that holds the servers' key."""
    request_timeout_s: float = Field(600.0, gt=0)
    """A server that is silent for this long during a request counts as down."""
    server_wait_s: float = Field(300.0, ge=0)
    """How long work waits while all servers are down."""
    allow_midrollout_updates: bool = False
    """Allow weights to change mid-rollout. Each turn records the weights that sampled it."""

    @property
    def awaits_model(self) -> bool:
        """Whether the model is one that has to be made, and its folder is not named yet."""
        return self.fresh is not None and self.model == EMBEDDED

    @property
    def api_model(self) -> str | None:
        """The name of the API model that is the policy; None where its weights are here."""
        return self.endpoint.model if self.endpoint is not None else self.chat_model


class ExpertSection(ExpertSettings):
    """One expert, under its name."""

    kind: str
    """`openai-chat`, `transformers`, `reference`, `retrieval`, `solver`, `human`, `scripted`,
    `noisy`, `tool`, `mcp` or `package.module:function`: (name, **options) -> LangChain tool."""
    stored: bool | None = None
    """Store replies and reuse them. `null`: only those that cost money or time."""
    options: Options = Field(default_factory=dict)
    """Options of the kind; docs/experts.md lists them."""

    @property
    def urls(self) -> list[str]:
        """Where the expert is served, as its options say."""
        given = self.options.get("base_url") or []
        return [str(url) for url in given] if isinstance(given, list) else [str(given)]


class ConsultSection(Settings):
    """Experts, and when the policy may ask them."""

    experts: dict[str, ExpertSection] = Field(
        default_factory=lambda: {"solver": ExpertSection(kind="solver")}
    )
    """The experts, by name."""
    acceptance: AcceptanceSchedule = AcceptanceSchedule()
    """How often replies are accepted."""
    solo_share: float = Field(0.0, ge=0, le=1)
    """Share of each group's rollouts that run without experts. 1 is self-exploration."""
    turns: TurnBudget = TurnBudget()
    """How many turns a rollout may take."""
    max_queries: int = Field(3, ge=1)
    """K: most queries per turn."""
    routing: Literal["named", "round_robin", "cheapest", "by_task"] = "named"
    """Who picks the expert: the policy by name (`named`), or the pool (the others)."""
    ask_all: bool = False
    """Offer a tool that asks every expert at once."""
    quorum: int | None = Field(None, ge=1)
    """Replies that this tool waits for. `null`: all."""
    budget: BudgetLimits = BudgetLimits()
    """What a run may spend on experts."""
    expert_store: str | None = None
    """File of the ledger and the stored replies. `null`: experts.db beside the run's traces."""


class RolloutsSection(Settings):
    """How rollouts are run, by every command that runs many."""

    concurrency: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Rollouts in flight at once. `auto` follows the engine's capacity and the experts' limits."""
    rollout_timeout_s: float | None = Field(3600.0, gt=0)
    """Time limit for one rollout, which then counts as failed. `null` is no limit."""
    max_error_share: float = Field(0.1, ge=0, le=1)
    """Largest share of rollouts that may fail. Above it a command ends with exit status 3, and an
    evaluation gives no score."""
    retry_failed: Literal["infrastructure", "all", "never"] = "infrastructure"
    """Failed rollouts that run again when the command is repeated: those that a connection, a
    timeout or an expert that is down made fail, all, or none."""

    def at_once(self, auto: int) -> int:
        """Return how many rollouts run at once, where `auto` is so many."""
        return auto if self.concurrency == "auto" else self.concurrency


class CollectSection(Settings):
    """What `eapo collect` runs."""

    problems: int = Field(16, ge=1)
    """Most problems of the training split."""
    num_generations: int = Field(4, ge=1)
    """G: rollouts per problem."""


class WarmStartSection(Settings):
    """Scripted episodes that teach the tool-call format before anything else."""

    script: Literal["asking", "arithmetic", "operations"] = "asking"
    """`asking`, for any task: asking an expert the question, going on from its reply, and answering
    directly. `arithmetic`: the same with a problem's expression as the query and its worked steps
    after the reply. `operations`: also each operation by itself, with direct answers that are wrong
    (for a fresh model)."""
    asks: Literal["problem", "try"] = "problem"
    """What the experts are asked: the problem, or, with the scripts `arithmetic` and `operations`,
    the problem with a wrong answer, for an expert that judges it."""
    problems: int = Field(32, ge=1)
    """Most problems of the training split, or of `practice`."""
    practice: str | None = None
    """Other problems that the episodes are about, as `task.name` takes them: the training problems'
    answers are not shown then. `null`: the first training problems."""
    epochs: int = Field(1, ge=1)
    """Passes over the episodes."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate."""
    rows_per_step: int = Field(8, ge=1)
    """Rows per optimizer step."""
    warmup_steps: int = Field(2, ge=0)
    """Optimizer steps over which the learning rate rises."""
    lr_scheduler_type: Literal["linear", "cosine"] = "linear"
    """How the learning rate falls to 0."""
    like_lengths: bool = True
    """Put rows of similar length into one step, for less padding. Kinds of episodes differ in
    length, so a model that learns only from them needs them mixed."""


class ExampleSection(Settings):
    """A question with an answer in the form that the task asks for."""

    question: str
    """The question."""
    answer: str
    """The answer."""


class EvalSection(Settings):
    """Evaluation. Tool-free, except for the baseline graph `workflow`."""

    every: int | None = Field(None, ge=1)
    """Training steps between evaluations of a live run. `null`: none."""
    problems: int = Field(300, ge=1)
    """Most problems of the held-out split."""
    samples: int = Field(1, ge=1)
    """Samples per problem."""
    greedy: bool = True
    """Also answer each problem once at temperature 0."""
    temperature: float = Field(1.0, gt=0)
    """Temperature of the samples."""
    max_new_tokens: int = Field(64, ge=1)
    """Most tokens per completion."""
    base_examples: list[ExampleSection] = Field(default_factory=list)
    """Shown before each problem when the demo evaluates the base model, which has not been taught
    the answer's form."""


def _kind_of_tool(given: object) -> str:
    return "mcp" if isinstance(given, dict | McpServer) else "name"


OneTool = Annotated[
    Annotated[str, Tag("name")] | Annotated[McpServer, Tag("mcp")], Discriminator(_kind_of_tool)
]
"""A tool by its name, or an MCP server."""


class RecipeSections(Settings):
    """Everything that a recipe can say. `eapo_agents.recipe.Recipe` adds the rules."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    """Name of the recipe, for people and for run folders."""
    seed: int = Field(0, ge=0)
    """Seed of every random number."""
    graph: str = "consult"
    """The LangGraph graph that every command runs: `consult`, `solo`, `hinted`,
    `critique`, `workflow`, `leap` or
    `package.module:function`: (policy) or (policy, tools) -> compiled graph. `tools` are the
    experts and the recipe's tools; without experts, the tools alone."""
    graph_options: Options = Field(default_factory=dict)
    """Keyword arguments of the graph's builder, such as `paths` of `leap`, `expert` and
    `shown_as` of `hinted`."""
    tools: list[OneTool] = Field(default_factory=list)
    """Ordinary tools, which the policy has with and without experts, in training and evaluation:
    `calculator`, `python` (in the sandbox), `try_actions` (of `gymnasium:ID` and
    `openenv:URL`), `package.module:object` (a LangChain tool, a function, or a list of these), or a
    mapping: an MCP server."""
    solo_graph: OwnFunction | None = None
    """`package.module:function`: (policy) -> compiled graph. What a graph of your own is without
    experts. `null`: the same builder, with no tools."""
    inputs: OwnFunction | None = None
    """`package.module:function`: problem -> the input of a graph of your own, such as fields of the
    problem's metadata. `null`: the system prompt and the question, as `messages`."""
    answer_of: OwnFunction | None = None
    """`package.module:function`: the final state of a graph of your own -> the answer as text, or
    None. `null`: the structured response as JSON, where there is one, else the last message."""
    policy: PolicySection = PolicySection()
    sampling: Sampling = Sampling()
    """How rollouts are sampled."""
    task: TaskSection = TaskSection()
    consult: ConsultSection = ConsultSection()
    warm_start: WarmStartSection | None = None
    rollouts: RolloutsSection = RolloutsSection()
    collect: CollectSection = CollectSection()
    train: TrainSection = TrainSection()
    trl: Annotated[Options, AfterValidator(refuse_unusable)] = Field(default_factory=dict)
    """Further fields of TRL's GRPOConfig, passed through: `loss_type`, `optim`, ..."""
    eval: EvalSection = EvalSection()
