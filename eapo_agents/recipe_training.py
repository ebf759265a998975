"""The sections of a recipe that say how the policy is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from eapo_agents.settings import Settings


class LoraSection(Settings):
    """The LoRA adapter that is trained."""

    r: int = Field(16, ge=1)
    """Rank."""
    alpha: int = Field(32, ge=1)
    """Scaling: the update is multiplied by alpha / r."""
    target_modules: str | list[str] = "all-linear"
    """Layers that get an adapter."""


class InternaliseSection(Settings):
    """Likelihood terms that move what replies taught into the weights. Not in the paper; a weight
    of 0 switches a term off."""

    hint_stripped_weight: float = Field(0.0, ge=0)
    """Weight of hint-stripped rows: the answer that the policy gave after an accepted reply, on
    right rollouts, after the prompt without experts."""
    ratio: Literal["none", "importance"] = "none"
    """How tokens of hint-stripped rows are weighted. `none`: equally. `importance`: by how likely a
    token is without the reply compared with it, truncated at train.importance_ratio_cap."""
    max_solo_accuracy: float = Field(1.0, ge=0, le=1)
    """Groups with a higher solo accuracy give no hint-stripped rows."""
    min_answer_to_reply_ratio: float = Field(0.0, ge=0)
    """Answers shorter than this fraction of the reply (in tokens) skip the working; train on the
    reply instead. 0: always on the answer."""
    rehearsal_weight: float = Field(0.0, ge=0)
    """Weight of the likelihood of right rollouts as they were, solo or with the reply. It keeps the
    use of replies from being forgotten."""
    solo_answer_weight: float = Field(0.0, ge=0)
    """Weight of the likelihood of right solo answers after the prompt that offers experts. It ends
    the asking where the policy can do without."""
    solo_answer_min_accuracy: float = Field(1.0, gt=0, le=1)
    """Only groups with at least this solo accuracy give such rows."""
    self_distillation_weight: float = Field(0.0, ge=0)
    """Weight of on-policy self-distillation. The teacher of a solo rollout is the policy itself
    with a reply in its context (as in SDPO, by the log-ratio of the sampled tokens)."""


class OffPolicySection(Settings):
    """Rows that the policy did not sample behind the prompt that they are trained behind: rollouts
    whose hint is taken away, solutions of an expert. Not in the paper."""

    hints: Literal["kept", "ratio", "shaped"] = "kept"
    """What rollouts of the graphs `hinted` and `critique` with an accepted reply are trained
    behind. `kept`: as they were sampled. Otherwise their last turn, behind the tool-free prompt,
    each token weighted by how likely it is there compared with before, truncated at
    train.importance_ratio_cap (`ratio`), or by gamma (`shaped`)."""
    solutions: Literal["none", "rollout", "likelihood"] = "none"
    """Live: mix the first expert's right solutions into the groups, each problem's asked for once.
    `rollout`: a solution is compared with the group's rollouts, its tokens weighted by gamma.
    `likelihood`: it is imitated beside the policy gradient, tokens weighted by p (1 - p)."""
    solution_weight: float = Field(1.0, gt=0)
    """Weight of solutions that are imitated (`likelihood`)."""
    gamma: float = Field(0.1, gt=0)
    """Shaping: a token of probability p has the weight gamma p / (p + gamma)^2. The smaller, the
    more weight have tokens that are unlikely."""


class TeacherSection(Settings):
    """A model here that judges each token of the policy's rollouts: on-policy distillation. It has
    the policy's tokenizer."""

    model: str
    """Model folder, GGUF file or cached model's name."""
    adapter: str | None = None
    """Folder of a trained policy on that model."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of its weights."""
    weight: float = Field(1.0, gt=0)
    """Weight of its judgement beside the policy gradient."""
    reward: bool = False
    """Learn from the task's reward too."""


class PenaltySection(Settings):
    """What consulting costs in reward. The paper mentions a penalty and gives no form; 0 is off."""

    per_call: float = Field(0.0, ge=0)
    """Cost of every query, accepted or withheld: the policy decides on asking, not on the coin."""
    per_token: float = Field(0.0, ge=0)
    """Cost of every token that an expert was paid for."""
    min_solo_accuracy: float = Field(0.0, ge=0, le=1)
    """Only groups with at least this solo accuracy are penalised."""


class OverlongSection(Settings):
    """DAPO's soft punishment of long rollouts: nothing up to `tokens - buffer` sampled tokens, then
    a fall to -1 at `tokens`, and -1 beyond."""

    tokens: int = Field(ge=1)
    """Sampled tokens from which the punishment is -1."""
    buffer: int = Field(ge=1)
    """Tokens over which it falls."""


class ReplaySection(Settings):
    """Logged groups in a live run: some groups of each step are drawn from a store. Rows of older
    weights are weighted by their truncated importance ratio."""

    store: str
    """Trace store to draw from."""
    run_id: str | None = None
    """One run of the store. `null`: all its collections."""
    share: float = Field(0.5, gt=0, lt=1)
    """Share of each step's groups that is drawn."""
    max_staleness: int | None = Field(None, ge=0)
    """Groups older than this many optimizer steps are not drawn. `null` is no limit."""


class TrainSection(Settings):
    """The method, the optimizer and the loss. Defaults are DAPO's."""

    method: Literal["rollouts", "distillation", "logged", "none"] = "rollouts"
    """What the policy learns from: its own rollouts, the first expert's solutions, logged rollouts
    (`--from-traces`, or a study's collection), or nothing."""
    expert_calls: int | None = Field(None, ge=1)
    """Most expert calls of the training, which is then continued to its end. Distillation draws
    again from the solutions at hand; off_policy.solutions gives the other problems none; of
    rollouts, all further replies are withheld."""
    complete_replies: Literal["none", "answer", "solution"] = "none"
    """Solutions: what follows a reply that is not a right solution, before it is learned
    from. `none`: nothing, and it is left out. `answer`: the gold answer in the task's form.
    `solution`: the problem's `solution`, where it has one, else the gold answer. A reply with a
    wrong answer in the task's form is not completed."""
    distillation_share: float = Field(0.0, ge=0, lt=1)
    """Live: this share of the steps, the first ones, is distillation; the others learn from
    rollouts."""
    steps: int = Field(10, ge=1)
    """Training steps."""
    problems_per_step: int = Field(8, ge=1)
    """Problems (groups) per training step."""
    num_generations: int = Field(8, ge=2)
    """G: rollouts per problem."""
    learning_rate: float = Field(1e-5, gt=0)
    """Peak learning rate."""
    logged_learning_rate: float | None = Field(None, gt=0)
    """Logged: the peak learning rate, where it is another than that of live training."""
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate after the warm-up: constant, or falling to 0 by the last step."""
    warmup_steps: int = Field(0, ge=0)
    """Optimizer steps over which the learning rate rises."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    minibatches_per_step: int = Field(1, ge=1)
    """Optimizer steps per training step. With 1, every gradient is on-policy."""
    gradient_accumulation_steps: int = Field(4, ge=1)
    """Forward passes per optimizer step. More need less memory."""
    epsilon: float = Field(0.2, ge=0)
    """Lower clip of the probability ratio: 1 - epsilon."""
    epsilon_high: float = Field(0.28, ge=0)
    """Upper clip of the probability ratio: 1 + epsilon_high."""
    advantage: str = "grpo"
    """`grpo`: reward minus the group's mean, divided by its standard deviation. `dr_grpo`: without
    the division. `rloo`: reward minus the mean of the others. Or `package.module:function`: the
    group's rewards -> one advantage each."""
    baseline: Literal["group", "condition"] = "group"
    """What a rollout is compared with: its whole group, or only the rollouts that had experts (or
    had none) as it did."""
    turn_discount: float = Field(1.0, gt=0, le=1)
    """What a turn earns of the rollout's advantage, to the power of the turns that follow it. 1:
    all turns earn the same."""
    beta: float = Field(0.0, ge=0)
    """Weight of the KL divergence from the weights without the adapter, or those at the start."""
    replay: ReplaySection | None = None
    """Mix logged groups into a live run."""
    penalty: PenaltySection = PenaltySection()
    """What consulting costs in reward."""
    overlong: OverlongSection | None = None
    """Punish long rollouts."""
    lora: LoraSection | None = LoraSection()
    """The adapter that is trained. `null` trains all weights."""
    internalise: InternaliseSection = InternaliseSection()
    """Likelihood terms beside the policy gradient."""
    off_policy: OffPolicySection = OffPolicySection()
    """Rollouts whose hint is taken away, and solutions of an expert among the rollouts."""
    teacher: TeacherSection | None = None
    """A model that judges each token of the rollouts (on-policy distillation)."""
    dynamic_sampling_retries: int = Field(1, ge=0)
    """Live: how many times per step groups whose rewards are all equal are replaced by new
    problems."""
    skip_settled: float = Field(0.0, ge=0, le=1)
    """Live: probability that a problem is passed over whose last group in this run had equal
    rewards, such as all right or none. Another takes its place."""
    max_staleness: int = Field(0, ge=0)
    """Logged: rollouts of a policy older than this many optimizer steps are refused. Older ones
    that are allowed are weighted by their truncated importance ratio."""
    epochs: int = Field(1, ge=1)
    """Logged: passes over the traces."""
    importance_ratio_cap: float = Field(2.0, gt=0)
    """Importance ratios are truncated here."""
    save_steps: int = Field(1, ge=1)
    """Training steps between checkpoints."""
    report_to: list[str] = Field(default_factory=lambda: ["tensorboard"])
    """Where TRL reports metrics: `tensorboard`, or what the extra `trackers` brings, `wandb`,
    `mlflow` and `trackio`."""

    @property
    def distillation_steps(self) -> int:
        """The number of first steps that are distillation, in a live run."""
        return round(self.distillation_share * self.steps)
