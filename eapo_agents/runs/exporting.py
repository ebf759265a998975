"""A trained policy as a folder for others: weights, tokenizer, template, a model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.errors import UsageError
from eapo_agents.files import whole_folder, write_atomically
from eapo_agents.policy.models import POLICY_FILE, is_adapter, public_name
from eapo_agents.progress import SILENT, Progress
from eapo_agents.recipe import Recipe
from eapo_agents.recipe_file import load_recipe, to_yaml
from eapo_agents.runs.folder import RECIPE, RESULT
from eapo_agents.runs.loading import quiet_libraries
from eapo_agents.runs.model_card import Card, write_card

if TYPE_CHECKING:
    from eapo_agents.policy.models import LoadedPolicy
    from evals.run_folder import Results


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was exported."""

    folder: str
    kind: str
    """`model`: the weights in whole; `adapter`: to be put on the base model."""
    weights: str
    evaluations: int
    """Figures in the model card."""


def export(
    run: Path,
    to: Path,
    *,
    as_adapter: bool = False,
    evaluations: Sequence[Path] = (),
    progress: Progress = SILENT,
) -> Exported:
    """Write the policy of a run as a folder that transformers and vLLM open, with a model card.

    Args:
        run: folder of a training run or a warm start, or the `policy` folder in it.
        to: a folder that is not there yet, or is empty.
        as_adapter: write the adapter alone.
        evaluations: folders of evaluations of this policy, for the card.

    Raises:
        UsageError: no finished run, a target that holds something, or an evaluation of other
            weights.
    """
    run = run.parent if run.name == "policy" and not (run / RECIPE).exists() else run
    recipe, policy = _run_of(run)
    if as_adapter and not is_adapter(policy):
        raise UsageError(f"The policy of '{run}' is a whole model: leave --adapter out.")
    if as_adapter and recipe.policy.fresh is not None:
        raise UsageError(
            f"The policy of '{run}' is an adapter on a model that its recipe made, which nobody "
            "else has: leave --adapter out."
        )
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"'{to}' holds something already: name a new folder.")
    results = [_results(folder) for folder in evaluations]
    with progress.status(f"Loading {recipe.policy.model} ..."):
        quiet_libraries()
        loaded = _load(recipe, policy)
    for folder, found in zip(evaluations, results, strict=True):
        if found.policy.weights != loaded.weights:
            raise UsageError(
                f"'{folder}' evaluates other weights ({found.policy.weights}) than those of "
                f"'{run}' ({loaded.weights}): evaluate this policy, or leave it out."
            )
    card = Card.of(run, recipe, loaded, results, is_adapter=as_adapter)
    with progress.status(f"Writing {to} ..."), whole_folder(to) as folder:
        _write_weights(loaded, recipe, policy, folder, as_adapter)
        write_atomically(folder / RECIPE, to_yaml(_without_paths(recipe)))
        write_card(card, folder)
    return Exported(
        folder=str(to),
        kind="adapter" if as_adapter else "model",
        weights=loaded.weights,
        evaluations=sum(len(found.results) for found in results),
    )


def _run_of(run: Path) -> tuple[Recipe, Path]:
    policy = run / "policy"
    if not (run / RECIPE).exists():
        raise UsageError(
            f"'{run}' is no run (it has no {RECIPE}): give the --out folder of `eapo train` or "
            "`eapo warm-start`."
        )
    trains = (run / "steps.jsonl").exists()
    if not (policy / POLICY_FILE).exists() or (trains and not (run / RESULT).exists()):
        raise UsageError(
            f"The run in '{run}' is not finished: run its command again, which continues."
        )
    return load_recipe(run / RECIPE), policy


def _results(folder: Path) -> Results:
    from evals.run_folder import read_results, read_settings

    read_settings(folder)
    found = read_results(folder)
    if found is None or found.missing:
        raise UsageError(
            f"The evaluation in '{folder}' is not finished: run its command again, which continues."
        )
    return found


def _load(recipe: Recipe, policy: Path) -> LoadedPolicy:
    from eapo_agents.policy.fresh import fresh_model_of
    from eapo_agents.policy.models import load_policy

    settings = recipe.policy
    model = fresh_model_of(str(policy)) if settings.awaits_model else settings.model
    return load_policy(model, adapter=str(policy), dtype=settings.dtype)


def _without_paths(recipe: Recipe) -> Recipe:
    """Return a recipe without the places of models on this machine."""
    named = {"adapter": None, "model": public_name(recipe.policy.model)}
    return recipe.model_copy(update={"policy": recipe.policy.model_copy(update=named)})


def _write_weights(
    loaded: LoadedPolicy, recipe: Recipe, policy: Path, folder: Path, as_adapter: bool
) -> None:
    from transformers import GenerationConfig

    from eapo_agents.policy.rendering import ChatRenderer

    loaded.tokenizer.save_pretrained(str(folder))
    if as_adapter:
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copyfile(policy / file, folder / file)
        config = json.loads((folder / "adapter_config.json").read_text())
        # where the base lay on this machine tells others nothing
        config["base_model_name_or_path"] = public_name(loaded.name)
        write_atomically(folder / "adapter_config.json", json.dumps(config, indent=1) + "\n")
        return
    merged = loaded.model.merge_and_unload() if is_adapter(policy) else loaded.model
    merged.generation_config = GenerationConfig(
        eos_token_id=sorted(ChatRenderer(loaded.tokenizer, recipe.policy.template).stop_ids),
        pad_token_id=loaded.tokenizer.pad_token_id,
        do_sample=True,
        temperature=recipe.eval.temperature,
        max_new_tokens=recipe.eval.max_new_tokens,
    )
    merged.save_pretrained(str(folder))
