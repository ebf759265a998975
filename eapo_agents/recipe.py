"""Recipes: what a run does, as pydantic sections. `recipe_file` reads them from YAML; the resolved
recipe is printed and saved with the run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from eapo_agents.policy.models import EMBEDDED


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SamplingSection(_Section):
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(256, ge=1)


class FreshSection(_Section):
    """A new Llama of random weights with a tokenizer of its own, for studies in minutes."""

    layers: int = Field(3, ge=1)
    width: int = Field(96, ge=8)
    heads: int = Field(4, ge=1)
    vocabulary: int = Field(512, ge=300)
    """Tokens: bytes, special tokens and the commonest pieces of the warm start's texts. Digits are
    tokens of their own."""


class PolicySection(_Section):
    """The policy and the engine behind it."""

    model: str = EMBEDDED
    fresh: FreshSection | None = None
    """`eapo warm-start` and `eapo study` make this model, in place of `model`."""
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
    server_wait_s: float = Field(300.0, ge=0)
    """How long work waits for a server to come back while all are down."""
    allow_midrollout_updates: bool = False
    """Whether a rollout may go on with new weights in its middle. Its turns say which sampled
    them."""


class TaskSection(_Section):
    """Where the problems come from."""

    name: str = "arithmetic"
    """`arithmetic`, `gsm8k` or a JSONL file of id, question, answer, grader."""
    system_prompt: str = 'Solve the problem. End with "Answer: " and the answer.'
    format_reward: float = Field(0.1, ge=0, le=1)
    """Reward of a wrong answer in the right format (the paper's 0.1)."""
    answer_form: str = "Answer: {answer}"
    """How an answer ends, for experts' solutions that do not end so (distillation)."""


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
    """See `eapo_agents.schedules.AcceptanceSchedule`."""

    kind: Literal[
        "inverse", "inverse_sqrt", "linear", "cosine", "constant", "never", "adaptive"
    ] = "inverse"
    start: float = Field(1.0, ge=0, le=1)
    steps: int = Field(1, ge=1)
    target: float = Field(0.7, gt=0, le=1)
    per: Literal["reply", "turn", "rollout"] = "reply"
    """What one coin decides on."""


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
    solo_share: float = Field(0.0, ge=0, le=1)
    """Share of each group that rolls out without experts; 1 is self-exploration."""
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
    num_generations: int = Field(4, ge=1)
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

    hint_stripped_weight: float = Field(0.0, ge=0)
    rehearsal_weight: float = Field(0.0, ge=0)
    """Weight of the same likelihood on right trajectories as they were, alone or with the reply in
    sight: what is learned alone is not to cost the use of a reply, which is where it comes from."""
    solo_answer_weight: float = Field(0.0, ge=0)
    """Weight of the same likelihood on right answers of members that worked alone, put after the
    prompt that offers experts: what the policy can do alone it is not to ask. Needs a solo
    share."""
    solo_answer_min_accuracy: float = Field(1.0, gt=0, le=1)
    """Only in groups whose members succeed alone at least this often."""
    self_distillation_weight: float = Field(0.0, ge=0)
    """Weight of on-policy self-distillation: on what members sampled alone, the same weights with a
    reply in sight are the teacher (as in SDPO, by the sampled tokens' log-ratio). Needs a solo
    share, and a right, helped member in the group."""
    ratio: Literal["none", "importance"] = "none"
    """`none` makes it a likelihood term; `importance` weighs each token by how likely it is without
    the reply against with it, truncated at train.importance_ratio_cap."""
    max_solo_accuracy: float = Field(1.0, ge=0, le=1)
    """Groups whose members succeed alone more often than this need it no more."""
    min_answer_to_reply_ratio: float = Field(0.0, ge=0)
    """An answer that has fewer tokens than this for each token of the reply that helped it leaves
    out how it was come to, and nothing can be learned from that alone: the reply itself, ended in
    the task's form, takes its place. 0: always the policy's own words."""


class PenaltySection(_Section):
    """What consulting costs in reward. The paper mentions a penalty and gives no form; 0 is off."""

    per_call: float = Field(0.0, ge=0)
    """For every query, withheld or not: the policy decides on asking, not on the coin."""
    per_token: float = Field(0.0, ge=0)
    """For every token that an expert was paid for."""
    min_solo_accuracy: float = Field(0.0, ge=0, le=1)
    """Only in groups of which this share of the members without experts was right."""


class OverlongSection(_Section):
    """DAPO's soft punishment of long trajectories: nothing up to `tokens - buffer` sampled tokens,
    then falling to -1 at `tokens`, and -1 beyond."""

    tokens: int = Field(ge=1)
    buffer: int = Field(ge=1)


class ReplaySection(_Section):
    """Logged groups among a live run's: part of each step's groups are drawn from a store. Each row
    is weighted by its truncated importance ratio once the weights are no longer those that sampled
    it (decoupled: the clip is around the present weights)."""

    store: str
    run_id: str | None = None
    """One run of the store; by default all its collections."""
    share: float = Field(0.5, gt=0, lt=1)
    max_staleness: int | None = Field(None, ge=0)
    """Groups that more optimizer steps than this have gone by are drawn no longer."""


class TrainSection(_Section):
    """The optimiser and the loss; DAPO's settings by default."""

    method: Literal["rollouts", "distillation", "logged", "none"] = "rollouts"
    """What is learned from: the policy's rollouts; the first expert's own solutions; in a study
    also a collection that the untrained policy made before, or nothing."""
    expert_calls: int | None = Field(None, ge=1)
    """Distillation: after so many calls the solutions at hand are drawn again."""
    steps: int = Field(10, ge=1)
    problems_per_step: int = Field(8, ge=1)
    num_generations: int = Field(8, ge=2)
    """G: trajectories a problem."""
    learning_rate: float = Field(1e-5, gt=0)
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate goes after the warm-up: it stays, or falls to 0 by the last step."""
    warmup_steps: int = Field(0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    minibatches_per_step: int = Field(1, ge=1)
    """A step's rows are split into this many optimizer steps (minibatches). With 1 every gradient
    is on-policy."""
    gradient_accumulation_steps: int = Field(4, ge=1)
    """An optimizer step's rows are split into this many forward passes (gradient accumulation);
    more need less memory."""
    epsilon: float = Field(0.2, ge=0)
    epsilon_high: float = Field(0.28, ge=0)
    advantage: Literal["grpo", "dr_grpo", "rloo"] = "grpo"
    """Reward minus the group's mean, over its spread; without the spread (Dr. GRPO); or minus the
    mean of the others (RLOO)."""
    baseline: Literal["group", "condition"] = "group"
    """Whom a member is compared with: all of its group, or those that had experts as it had."""
    beta: float = Field(0.0, ge=0)
    """Weight of the divergence from the weights without the adapter, or those at the start."""
    replay: ReplaySection | None = None
    penalty: PenaltySection = PenaltySection()
    overlong: OverlongSection | None = None
    lora: LoraSection | None = LoraSection()
    """`null` trains all weights."""
    internalise: InternaliseSection = InternaliseSection()
    dynamic_sampling_retries: int = Field(1, ge=0)
    """Live: how often groups without spread of reward are joined by new problems, a step."""
    max_staleness: int = Field(0, ge=0)
    """Logged: traces of a policy more optimizer steps older than this are refused. Traces that are
    older at all are weighted by their truncated importance ratio."""
    epochs: int = Field(1, ge=1)
    """Logged: passes over the traces."""
    importance_ratio_cap: float = Field(2.0, gt=0)
    """Logged and older: the importance ratio is truncated here."""
    save_steps: int = Field(1, ge=1)
    report_to: list[str] = Field(default_factory=lambda: ["tensorboard"])


class WarmStartSection(_Section):
    """Scripted episodes that teach the tool-call format before anything else."""

    script: Literal["arithmetic", "operations"] = "arithmetic"
    """`arithmetic`: asking, using the reply, and answering at once. `operations`: also each
    operation by itself, and answering at once is wrong (for a fresh model)."""
    problems: int = Field(32, ge=1)
    epochs: int = Field(1, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    rows_per_step: int = Field(8, ge=1)
    warmup_steps: int = Field(2, ge=0)
    lr_scheduler_type: Literal["linear", "cosine"] = "linear"
    like_lengths: bool = True
    """Rows of like length share a step: less padding. Kinds of episodes differ in length, so a
    model that learns everything from them needs them mixed."""


class ExampleSection(_Section):
    """A question and an answer in the form that the task asks for."""

    question: str
    answer: str


class EvalSection(_Section):
    """Evaluation, tool-free but for the baselines' graphs."""

    graph: Literal["solo", "workflow", "leap"] = "solo"
    """What is evaluated: the policy alone; a fixed pipeline with every expert; or parallel paths
    that exchange summaries."""
    paths: int = Field(3, ge=1)
    """Of `leap`."""
    every: int | None = Field(None, ge=1)
    """Live training is evaluated after so many steps; not at all by default."""
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
        adaptive = self.consult.acceptance.kind == "adaptive"
        if adaptive and not (
            round(self.consult.solo_share * self.train.num_generations)
            and round(self.consult.solo_share * self.collect.num_generations)
        ):
            raise ValueError(
                "consult.acceptance.kind adaptive follows the members of a group without experts: "
                "set consult.solo_share so that there is at least one"
            )
        replay = self.train.replay
        if replay is not None and round(replay.share * self.train.problems_per_step) in (
            0,
            self.train.problems_per_step,
        ):
            raise ValueError(
                "train.replay.share must leave each step both live and logged groups: of "
                f"{self.train.problems_per_step} (train.problems_per_step), {replay.share} is all "
                "or none"
            )
        if self.train.beta and self.train.lora is None:
            raise ValueError(
                "train.beta is measured from the weights without the adapter: set train.lora, or "
                "beta 0"
            )
        num_rollouts = self.train.problems_per_step * self.train.num_generations
        num_passes = self.train.minibatches_per_step * self.train.gradient_accumulation_steps
        if num_rollouts % num_passes:
            raise ValueError(
                f"train.problems_per_step x train.num_generations ({num_rollouts}) must divide by "
                f"train.minibatches_per_step x train.gradient_accumulation_steps ({num_passes}): "
                "change one of them"
            )
        return self
