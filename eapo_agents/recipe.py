"""Recipes: one small YAML file a run, read into pydantic; the resolved recipe is printed and saved
with the run.

Every key is checked: an unknown one is refused with the known ones listed.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from eapo_agents.errors import RecipeError
from eapo_agents.policy.models import EMBEDDED


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SamplingSection(_Section):
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(256, ge=1)


class PolicySection(_Section):
    """The policy and the engine behind it."""

    model: str = EMBEDDED
    adapter: str | None = None
    """Folder of a trained adapter to start from."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "cpu"
    max_batch_size: int = Field(64, ge=1)
    gather_timeout_s: float = Field(30.0, gt=0)
    """How long a batch waits for a rollout that an expert holds up."""
    servers: list[str] = Field(default_factory=list)
    """vLLM servers that sample, such as http://127.0.0.1:8000 (`eapo serve`); none: the embedded
    engine, in this process."""
    server_key_env: str | None = None
    """Environment variable with the servers' key, where they want one."""
    request_timeout_s: float = Field(600.0, gt=0)
    """A server that is silent for so long in one request is taken to be down."""
    lost_after_s: float = Field(300.0, ge=0)
    """How long work waits for a server to come back while all are down."""
    mixed_versions: bool = False
    """Whether a rollout may go on with new weights in its middle. Its turns say which sampled
    them."""


class TaskSection(_Section):
    """Where the problems come from."""

    name: str = "arithmetic"
    """`arithmetic`, `gsm8k` or a JSONL file of id, question, answer, grader."""
    system_prompt: str = 'Solve the problem. End with "Answer: " and the answer.'
    format_reward: float = Field(0.1, ge=0, le=1)
    """Reward of a wrong answer in the right format (the paper's 0.1)."""


class PriceSection(_Section):
    """US dollars per million tokens."""

    input_usd: float = Field(ge=0)
    output_usd: float = Field(ge=0)


class ExpertSection(_Section):
    """One expert, by its name; `eapo_agents.experts.expert.Expert` says what each setting does."""

    kind: str
    """`openai-chat`, `transformers`, `solver`, `human`, `scripted`, `noisy`, `tool` or `mcp`."""
    timeout_s: float = Field(30.0, gt=0)
    queue_timeout_s: float = Field(600.0, gt=0)
    retries: int = Field(2, ge=0, le=10)
    concurrency: int | None = Field(None, ge=1)
    per_minute: float | None = Field(None, gt=0)
    price: PriceSection | None = None
    fallback: str | None = None
    tasks: list[str] = Field(default_factory=list)
    offered: bool = True
    stored: bool | None = None
    """Whether replies are stored and found again; by default those that cost money or time."""
    max_reply_chars: int = Field(20_000, ge=1)
    options: dict[str, Any] = Field(default_factory=dict)
    """What the kind takes."""


class BudgetSection(_Section):
    """What a run may spend on experts; it ends with exit status 4 when that is spent, and goes on
    when it is raised."""

    calls: int | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0)
    usd: float | None = Field(None, ge=0)


class AcceptanceSection(_Section):
    kind: Literal["inverse", "linear", "constant", "never"] = "inverse"
    start: float = Field(1.0, ge=0, le=1)
    steps: int = Field(1, ge=1)


class TurnsSection(_Section):
    start: int = Field(3, ge=1)
    end: int = Field(3, ge=1)
    steps: int = Field(1, ge=1)


class ConsultSection(_Section):
    """The consult graph."""

    experts: dict[str, ExpertSection] = Field(
        default_factory=lambda: {"solver": ExpertSection(kind="solver")}
    )
    acceptance: AcceptanceSection = AcceptanceSection()
    turns: TurnsSection = TurnsSection()
    max_queries: int = Field(3, ge=1)
    """K: the most queries that one turn may send."""
    routing: Literal["named", "round_robin", "cheapest", "by_task"] = "named"
    """Who picks the expert: the policy, by name, or the pool."""
    ask_all: bool = False
    """Offers a tool that asks every expert at once."""
    quorum: int | None = Field(None, ge=1)
    """Replies that the tool waits for; all by default."""
    budget: BudgetSection = BudgetSection()
    expert_store: str | None = None
    """File of the ledger and the stored replies; by default experts.db beside the run's traces."""


class CollectSection(_Section):
    """What `eapo collect` runs."""

    problems: int = Field(16, ge=1)
    rollouts: int = Field(4, ge=1)
    """G: trajectories a problem."""
    concurrency: int = Field(64, ge=1)
    """Rollouts in flight at once."""
    max_error_share: float = Field(0.1, ge=0, le=1)
    """More failed rollouts than this end in exit status 3."""


class LoraSection(_Section):
    r: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    target_modules: str | list[str] = "all-linear"


class InternaliseSection(_Section):
    """Hint-stripped rows: what the policy wrote after an accepted reply, on rewarded trajectories,
    trained as if it had come to it alone. Not in the paper; weight 0 switches it off."""

    weight: float = Field(0.0, ge=0)


class TrainSection(_Section):
    """The optimiser and the loss; DAPO's settings by default."""

    steps: int = Field(10, ge=1)
    problems_per_step: int = Field(8, ge=1)
    rollouts: int = Field(8, ge=2)
    """G: trajectories a problem."""
    learning_rate: float = Field(1e-5, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate goes after the warm-up: it stays, or falls to 0 by the last step."""
    warmup_steps: int = Field(0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    updates_per_step: int = Field(1, ge=1)
    """A step's rows are split into this many optimizer steps (minibatches). With 1 every gradient
    is on-policy."""
    forward_passes: int = Field(4, ge=1)
    """An optimizer step's rows are split into this many forward passes (gradient accumulation);
    more need less memory."""
    epsilon_low: float = Field(0.2, ge=0)
    epsilon_high: float = Field(0.28, ge=0)
    lora: LoraSection | None = LoraSection()
    """`null` trains all weights."""
    internalise: InternaliseSection = InternaliseSection()
    max_redraws: int = Field(1, ge=0)
    """Live: how often groups without spread of reward are joined by new problems, a step."""
    max_staleness: int = Field(0, ge=0)
    """Logged: traces of a policy more optimizer steps older than this are refused. Traces that are
    older at all are weighted by their truncated importance ratio."""
    epochs: int = Field(1, ge=1)
    """Logged: passes over the traces."""
    importance_cap: float = Field(2.0, gt=0)
    """Logged and older: the importance ratio is truncated here."""
    save_steps: int = Field(1, ge=1)
    report_to: list[str] = Field(default_factory=lambda: ["tensorboard"])


class WarmStartSection(_Section):
    """Scripted episodes that teach the tool-call format before anything else."""

    script: Literal["arithmetic"] = "arithmetic"
    problems: int = Field(32, ge=1)
    epochs: int = Field(1, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    rows_per_step: int = Field(8, ge=1)


class ExampleSection(_Section):
    """A question and an answer in the form that the task asks for."""

    question: str
    answer: str


class EvalSection(_Section):
    """Tool-free evaluation."""

    problems: int = Field(300, ge=1)
    samples: int = Field(1, ge=1)
    """Sampled answers a problem."""
    greedy: bool = True
    temperature: float = Field(1.0, gt=0)
    max_new_tokens: int = Field(64, ge=1)
    concurrency: int = Field(128, ge=1)
    base_examples: list[ExampleSection] = Field(default_factory=list)
    """Shown before each problem when the demo evaluates the base model, which nothing else has
    taught the answer's form."""


class Recipe(_Section):
    """A run, whole."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    seed: int = Field(0, ge=0)
    policy: PolicySection = PolicySection()
    sampling: SamplingSection = SamplingSection()
    task: TaskSection = TaskSection()
    consult: ConsultSection = ConsultSection()
    warm_start: WarmStartSection | None = None
    collect: CollectSection = CollectSection()
    train: TrainSection = TrainSection()
    eval: EvalSection = EvalSection()

    @model_validator(mode="after")
    def _rollouts_can_be_trained_on(self) -> Recipe:
        if self.sampling.temperature == 0:
            raise ValueError("sampling.temperature must be above 0: greedy rollouts have no spread")
        if self.sampling.top_p != 1:
            raise ValueError(
                "sampling.top_p must be 1: the trainer's ratio is over the whole distribution"
            )
        num_rollouts = self.train.problems_per_step * self.train.rollouts
        num_passes = self.train.updates_per_step * self.train.forward_passes
        if num_rollouts % num_passes:
            raise ValueError(
                f"train.problems_per_step x train.rollouts ({num_rollouts}) must divide by "
                f"train.updates_per_step x train.forward_passes ({num_passes}): change one of them"
            )
        return self


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe file, or a shipped recipe's name, and applies `key.sub=value` overrides.

    Raises:
        RecipeError: one sentence that names the key, the rule and what was given.
    """
    file = _find(path)
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"The recipe '{file}' cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"The recipe '{file}' is not YAML: {_one_line(error)}.") from error
    if not isinstance(data, dict):
        raise RecipeError(
            f"The recipe '{file}' must be a mapping of keys, got {type(data).__name__}."
        )
    for override in overrides:
        _apply(data, override)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"In the recipe '{file}', {_explain(error)}") from error


def fixed_part(recipe: Recipe) -> dict[str, Any]:
    """What may not change while a run goes on. Its length may, and what experts may cost and how
    they and the policy's servers are reached."""
    fixed = recipe.model_dump(mode="json")
    del fixed["train"]["steps"], fixed["consult"]["budget"], fixed["consult"]["expert_store"]
    for setting in _SERVERS:
        del fixed["policy"][setting]
    for expert in fixed["consult"]["experts"].values():
        for setting in _REACHING:
            del expert[setting]
        for option in ("base_url", "api_key_env"):
            expert["options"].pop(option, None)
    return fixed


_SERVERS = ("servers", "server_key_env", "request_timeout_s", "lost_after_s")
_REACHING = ("queue_timeout_s", "retries", "concurrency", "per_minute", "price", "stored")


def to_yaml(recipe: Recipe) -> str:
    """The resolved recipe, every setting written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _find(path: str | Path) -> Path:
    file = Path(path)
    if file.exists():
        return file
    folder = Path("recipes")
    if file.suffix == "" and (folder / f"{file}.yaml").exists():
        return folder / f"{file}.yaml"
    known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none here"
    raise RecipeError(
        f"There is no recipe '{path}': give a YAML file, or the name of one in ./recipes ({known})."
    )


def _apply(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError(f"An override must read key.sub=value, got '{override}'.")
    *parents, last = key.split(".")
    section = data
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise RecipeError(f"The override '{override}' does not fit: '{parent}' is no section.")
    try:
        section[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"The override '{override}' has no YAML value.") from error


def _explain(error: ValidationError) -> str:
    # a misspelt key is also a missing one: what was written helps more than what was not
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _known_keys(first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}."
        return f"there is no key '{key}': {hint}"
    where = f"'{key}': " if key else ""
    given = "" if isinstance(first["input"], dict) else f", got {first['input']!r}"
    return f"{where}{first['msg'].removeprefix('Value error, ')}{given}."


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    section: Any = Recipe
    for part in location:
        fields = getattr(section, "model_fields", {})
        annotation = fields[part].annotation if part in fields else ExpertSection
        options = [annotation, *getattr(annotation, "__args__", ())]
        section = next((o for o in options if hasattr(o, "model_fields")), section)
    return sorted(section.model_fields)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
