"""The model card of an exported policy: what it is, how it was trained, what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import eapo_agents
from eapo_agents.files import write_atomically
from eapo_agents.policy.models import is_hub_name, licence_of, public_name
from eapo_agents.recipe import Recipe
from eapo_agents.runs.folder import RESULT, STEPS, read_history

if TYPE_CHECKING:
    from eapo_agents.policy.models import LoadedPolicy
    from evals.results import Score
    from evals.run_folder import Results

_FRESH = "a fresh model that the recipe made"
_PAPER = "https://arxiv.org/abs/2509.23730"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a model card says."""

    name: str
    recipe: Recipe
    base: str
    """Name of the base model, without a path of this machine."""
    licence: str | None
    is_adapter: bool
    weights: str
    step: int
    costs: Mapping[str, float] = field(default_factory=dict)
    """Of the training; empty for a warm start alone."""
    scores: Sequence[Score] = ()

    @classmethod
    def of(
        cls,
        run: Path,
        recipe: Recipe,
        loaded: LoadedPolicy,
        results: Sequence[Results],
        *,
        is_adapter: bool,
    ) -> Card:
        """Return the card of a run's policy."""
        return cls(
            name=recipe.name,
            recipe=recipe,
            base=public_name(loaded.name) if recipe.policy.fresh is None else _FRESH,
            licence=licence_of(loaded.name),
            is_adapter=is_adapter,
            weights=loaded.weights,
            step=loaded.step,
            costs=_costs(run),
            scores=[score for found in results for score in found.results.values()],
        )


def write_card(card: Card, folder: Path) -> None:
    """Write README.md, with the metadata that the hub reads."""
    text = f"---\n{_metadata(card)}\n---\n\n{_text(card)}"
    write_atomically(folder / "README.md", text)


def _metadata(card: Card) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    figures = [
        EvalResult(
            task_type="text-generation",
            dataset_type=score.benchmark,
            dataset_name=score.title,
            metric_type=score.metric,
            metric_value=round(score.score, 4),
        )
        for score in card.scores
    ]
    data = ModelCardData(
        base_model=card.base if is_hub_name(card.base) else None,
        license=card.licence,
        library_name="peft" if card.is_adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["eapo", "reinforcement-learning", "eapo-agents"],
        model_name=card.name,
        eval_results=figures or None,
    )
    return str(data.to_yaml())


def _text(card: Card) -> str:
    recipe = card.recipe
    what = "a LoRA adapter on" if card.is_adapter else "trained from"
    licence = card.licence or "not known here: see the base model"
    lines = [
        f"# {card.name}",
        "",
        f"A policy {what} {card.base} by EAPO, Expert-Assisted Policy Optimization "
        f"([Song et al.]({_PAPER})), with eapo-agents {eapo_agents.__version__}. It was trained "
        "with experts that it could ask, and is meant to be used without them.",
        "",
        "## Training",
        "",
        "| | |",
        "| --- | --- |",
        f"| task | {_cell(recipe.task.name)} |",
        f"| graph | {_cell(recipe.graph)} |",
        f"| method | {recipe.train.method}, advantage {recipe.train.advantage} |",
        f"| experts | {_cell(', '.join(recipe.consult.experts) or 'none')} |",
        f"| seed | {recipe.seed} |",
        f"| optimizer steps | {card.step} |",
        *(f"| {name} | {value:,.10g} |" for name, value in card.costs.items()),
        f"| weights | {card.weights} |",
        f"| licence of the base model | {_cell(licence)} |",
        "",
        "`recipe.yaml` has every setting.",
        "",
        "## Evaluation",
        "",
        *_figures(card),
        "",
        "## Use",
        "",
        *_use(card),
        "",
    ]
    return "\n".join(lines)


def _figures(card: Card) -> list[str]:
    if not card.scores:
        return ["None was given: `eapo export --eval FOLDER` puts figures here."]
    rows = [
        f"| {_cell(s.title)} | {s.condition} | {s.metric} | {s.score:.1%} | "
        f"[{s.ci95[0]:.1%}, {s.ci95[1]:.1%}] | {s.n} | {s.samples} |"
        for s in card.scores
    ]
    return [
        "Without experts, unless the condition is `assisted`.",
        "",
        "| problems | condition | metric | score | 95% interval | n | samples |",
        "| --- | --- | --- | ---: | --- | ---: | ---: |",
        *rows,
    ]


def _use(card: Card) -> list[str]:
    prompt = card.recipe.task.system_prompt
    system = [{"role": "system", "content": prompt}] if prompt else []
    messages = json.dumps([*system, {"role": "user", "content": "..."}], ensure_ascii=False)
    loading = (
        ["from peft import AutoPeftModelForCausalLM as Model"]
        if card.is_adapter
        else ["from transformers import AutoModelForCausalLM as Model"]
    )
    return [
        "```python",
        *loading,
        "from transformers import AutoTokenizer",
        "",
        'folder = "."',
        "model, tokenizer = Model.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)",
        f"messages = {messages}",
        "prompt = tokenizer.apply_chat_template(",
        '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True',
        ")",
        "said = model.generate(**prompt)[0, prompt.input_ids.shape[1] :]",
        "answer = tokenizer.decode(said, skip_special_tokens=True)",
        "```",
    ]


def _costs(run: Path) -> dict[str, float]:
    """Return what the training cost, as far as the run says."""
    if not (run / RESULT).exists():
        return {}
    told = json.loads((run / RESULT).read_text())
    history = read_history(run) if (run / STEPS).exists() else []
    wanted = {
        "rollouts": told.get("rollouts"),
        "tokens sampled": told.get("sampled_tokens"),
        "expert calls": told.get("expert_calls"),
        "expert calls withheld": told.get("expert_calls_withheld"),
        "tokens of experts": sum(step.get("expert_tokens") or 0 for step in history),
        "price of experts in US dollars": sum(step.get("expert_usd") or 0 for step in history),
        "seconds": told.get("seconds"),
    }
    return {name: float(value) for name, value in wanted.items() if value is not None}


def _cell(text: str) -> str:
    """Return a text that stays in its cell of a table."""
    return " ".join(text.replace("|", "\\|").split())
