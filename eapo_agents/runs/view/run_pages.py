"""Values of the pages of runs: training, evaluation, samples, flips, ledger."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.errors import EapoError
from eapo_agents.runs.view.curves import HEIGHT, WIDTH, charts_of
from eapo_agents.runs.view.evaluations import (
    SAMPLES_OF_A_PAGE,
    VERDICTS,
    Flip,
    categories,
    compared,
    joined,
    samples_page,
)
from eapo_agents.runs.view.finding import PHASES, Kind, Place
from eapo_agents.runs.view.ledger import read_ledger
from eapo_agents.runs.view.site import NotFoundError, Site, Values
from eapo_agents.runs.view.training import interval_of, is_figure

if TYPE_CHECKING:
    from eapo_agents.runs.view.evaluations import Sample
    from eapo_agents.runs.view.training import Training
    from eapo_agents.store import RunInfo
    from evals.run_folder import Record

_MOST_OVERLAID = 7
_MOST_FLIPS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A finished phase of a demo."""

    name: str
    seconds: float | None
    score: float | None
    ci95: tuple[float, float] | None
    calls: float | None


def training(site: Site, place: Place, others: Sequence[str]) -> Values:
    """Return the values of a training run's page, with other runs' curves laid over its own."""
    run = read_training(site, place)
    laid_over: list[tuple[str, Training]] = []
    for key in dict.fromkeys(others):
        other = site.place(key)
        if other.kind is Kind.TRAINING and key != place.key and len(laid_over) < _MOST_OVERLAID:
            laid_over.append((key, read_training(site, other)))
    runs = [(place.key, run), *laid_over]
    infos, told = stored_runs(site, place)
    return {
        "run": run,
        "names": [name for name, _ in runs],
        "charts": charts_of(runs) if run.history or run.evals else [],
        "width": WIDTH,
        "height": HEIGHT,
        "infos": infos,
        "step_run": step_run(infos),
        "steps": [int(step["step"]) for step in reversed(run.history)],
        "beside": [p for p in site.beside(place) if p.key not in {n for n, _ in runs}][:100],
        "told": [text for text in (run.problem, told) if text],
    }


def read_training(site: Site, place: Place) -> Training:
    """Return a training run.

    Raises:
        NotFoundError: the place is something else.
    """
    if place.folder is None or place.kind is not Kind.TRAINING:
        raise NotFoundError(f"'{place.key}' is not a training run.")
    return site.trainings.read(place.folder)


def stored_runs(site: Site, place: Place) -> tuple[list[RunInfo], str]:
    """Return the runs of a place's store, and why there are none."""
    if place.store is None:
        return [], ""
    try:
        return site.store(place).runs(), ""
    except EapoError as error:
        return [], str(error)


def step_run(infos: Sequence[RunInfo]) -> str | None:
    """Return the run whose trajectories belong to training steps."""
    of_kind = [info.run_id for info in infos if info.kind == "train" and info.num_trajectories]
    return of_kind[-1] if of_kind else None


def place(site: Site, at: Place) -> Values:
    """Return the values of the page of a study, a demo or a trace store."""
    infos, told = stored_runs(site, at)
    inside = [
        site.line(other)
        for other in site.places().values()
        if other.key.startswith(f"{at.key}/") and at.kind is not Kind.STORE
    ]
    return {"infos": infos, "told": [told] if told else [], "inside": inside, "phases": phases(at)}


def phases(at: Place) -> list[Phase]:
    """Return the finished phases of a demo with their figures."""
    if at.kind is not Kind.DEMO or at.folder is None:
        return []
    try:
        found = json.loads((at.folder / PHASES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [
        _phase(str(name), facts)
        for name, facts in (found.items() if isinstance(found, dict) else ())
        if isinstance(facts, dict)
    ]


def _phase(name: str, facts: Mapping[str, object]) -> Phase:
    scores = facts.get("scores")
    first = next(iter(scores.values()), None) if isinstance(scores, dict) else None
    score = first if isinstance(first, dict) else {}
    return Phase(
        name=name,
        seconds=_number(facts.get("seconds")),
        score=_number(score.get("score")),
        ci95=interval_of(score.get("ci95")),
        calls=_number(facts.get("expert_calls")),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and is_figure(value) else None


def evaluation(site: Site, at: Place) -> Values:
    """Return the values of an evaluation's page."""
    folder = _folder(at)
    found = site.evaluations.read(folder)
    store = site.store_if_any(at)
    infos, told = stored_runs(site, at)
    sampled = sum(info.num_trajectories for info in infos)
    parts = {}
    for key in found.scores:
        name, of_key = categories(site.evaluations.items(folder, key), store, key)
        if name:
            parts[key] = (name, of_key)
    return {
        "run": found,
        "infos": infos,
        "parts_of": parts,
        "sampled": sampled,
        "told": [text for text in (found.problem, told) if text],
        "beside": [other for other in site.beside(at) if _shares_a_key(site, other, found.keys)],
    }


def _shares_a_key(site: Site, other: Place, keys: Sequence[str]) -> bool:
    return bool(set(site.evaluations.read(_folder(other)).keys) & set(keys))


def _folder(at: Place) -> Path:
    if at.folder is None or at.kind is not Kind.EVALUATION:
        raise NotFoundError(f"'{at.key}' is not an evaluation.")
    return at.folder


def samples(
    site: Site, key: str, of: str, *, verdict: str = "", wanted: str = "", page: int = 0
) -> Values:
    """Return the values of a page of samples.

    Args:
        of: the benchmark and condition, such as `gsm8k solo`.
    """
    at = site.place(key)
    folder = _folder(at)
    run = site.evaluations.read(folder)
    of = of or next(iter(run.keys), "")
    if of not in run.keys:
        raise NotFoundError(f"'{key}' has no result '{of}': it has {', '.join(run.keys)}.")
    verdict = verdict if verdict in VERDICTS else ""
    found = samples_page(
        site.evaluations.items(folder, of),
        site.store_if_any(at),
        of,
        verdict=verdict,
        wanted=wanted,
        page=page,
    )
    return {
        "place": at,
        "run": run,
        "of": of,
        "found": found,
        "verdict": verdict,
        "wanted": wanted,
        "page": page,
        "num_pages": max(1, -(-found.num // SAMPLES_OF_A_PAGE)),
    }


def flips(site: Site, key_a: str, key_b: str, of: str, *, only: str = "") -> Values:
    """Return the values of the page that compares two evaluations, problem by problem."""
    places = [site.place(key_a), site.place(key_b)]
    folders = [_folder(at) for at in places]
    comparison, told = compared(folders[0], folders[1])
    keys = list(comparison.benchmarks) if comparison is not None else []
    of = of if of in keys else next(iter(keys), "")
    shown: list[Flip] = []
    if comparison is not None and of:
        found = comparison.benchmarks[of]
        ids = [(one, True) for one in found.gained] if only != "lost" else []
        ids += [(one, False) for one in found.lost] if only != "gained" else []
        sides = [
            _first_samples(site, at, folder, of, [one for one, _ in ids[:_MOST_FLIPS]])
            for at, folder in zip(places, folders, strict=True)
        ]
        shown = [
            Flip(problem_id=one, gained=gained, a=sides[0].get(one), b=sides[1].get(one))
            for one, gained in ids[:_MOST_FLIPS]
        ]
    return {
        "a": places[0],
        "b": places[1],
        "comparison": comparison,
        "told": told,
        "of": of,
        "only": only,
        "shown": shown,
    }


def _first_samples(
    site: Site, at: Place, folder: Path, of: str, ids: Sequence[str]
) -> dict[str, Sample]:
    """Return problem -> its first sample in a run."""
    wanted = set(ids)
    records: dict[str, Record] = {}
    for record in site.evaluations.items(folder, of):
        problem_id = str(record.get("id"))
        if problem_id in wanted:
            records.setdefault(problem_id, record)
    found = joined(list(records.values()), site.store_if_any(at), of)
    return {sample.problem_id: sample for sample in found}


def ledger(site: Site, key: str, *, expert: str = "", status: str = "") -> Values:
    """Return the values of the page on what experts have cost.

    Raises:
        NotFoundError: there is no ledger.
    """
    at = site.place(key)
    if at.ledger is None:
        raise NotFoundError(f"'{key}' has no expert ledger: no expert was asked.")
    found = read_ledger(at.ledger, expert=expert, status=status)
    return {"place": at, "ledger": found, "expert": expert, "status": status}
