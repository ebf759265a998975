"""Values of the pages of rollouts: steps, groups, lists, conversations, tokens, search."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.errors import EapoError
from eapo_agents.runs.view.conversation import conversation_of, extracted_answer, sampled_tokens
from eapo_agents.runs.view.curves import facts_of
from eapo_agents.runs.view.evaluations import Sample, joined, unsealed
from eapo_agents.runs.view.finding import Kind, Place
from eapo_agents.runs.view.groups import GROUPS_OF_A_PAGE, GroupView, group_view, groups_page
from eapo_agents.runs.view.run_pages import stored_runs
from eapo_agents.runs.view.site import NotFoundError, Site, Values
from eapo_agents.runs.view.tokens import TOKENS_OF_A_PAGE, Asked, Rows, rows_of
from eapo_agents.types import RolloutGroup

if TYPE_CHECKING:
    from eapo_agents.runs.view.tokenizers import TokenTexts
    from eapo_agents.store import RunInfo
    from eapo_agents.store.briefs import Found
    from eapo_agents.store.browsing import StoreBrowser
    from eapo_agents.store.table_rows import StoredTrajectory

_TRAINED = ("train", "collect", "chat")
"""Kinds of runs whose rollouts are compared in groups."""
COLOURS = ("mask", "logprob", "advantage")
_HITS_OF_ONE, _HITS_OF_EACH = 100, 20
"""Hits that are shown of a run, alone and among others."""
_MOST_CONTEXT = 20_000
"""Tokens of a context that are shown as text."""


def is_trained(info: RunInfo) -> bool:
    """Return whether training may learn from a run's rollouts."""
    return info.kind in _TRAINED


def step(site: Site, key: str, run_id: str, number: int, page: int = 0) -> Values:
    """Return the values of a training step's page: its figures and its groups."""
    at = site.place(key)
    store = site.store(at)
    info = site.run_info(at, run_id)
    tallies = store.groups_of(run_id, step=number, page=page, size=GROUPS_OF_A_PAGE + 1)
    keys = [tally.name for tally in tallies[:GROUPS_OF_A_PAGE]]
    groups = groups_page(store, run_id, keys, site.recipe(info), trained=is_trained(info))
    figures: Mapping[str, float] = {}
    steps: list[int] = []
    if history := _history(site, at):
        steps = [int(one["step"]) for one in history]
        figures = next((one for one in history if int(one["step"]) == number), {})
    if number not in steps:
        steps = [int(tally.name) for tally in store.steps(run_id)]
    before = [one for one in steps if one < number]
    behind = [one for one in steps if one > number]
    if not groups and not figures:
        raise NotFoundError(f"The run '{run_id}' of '{key}' has no step {number}.")
    return {
        "place": at,
        "info": info,
        "step": number,
        "figures": figures,
        "facts": facts_of(figures),
        "groups": groups,
        "before": before[-1] if before else None,
        "behind": behind[0] if behind else None,
        "page": page,
        "more": len(tallies) > GROUPS_OF_A_PAGE,
    }


def _history(site: Site, at: Place) -> Sequence[Mapping[str, float]]:
    """Return the figures of a training's finished steps; none where it is no training."""
    if at.kind is not Kind.TRAINING or at.folder is None:
        return ()
    return site.trainings.read(at.folder).history


def group(site: Site, key: str, run_id: str, group_key: str) -> Values:
    """Return the values of a group's page: its rollouts side by side."""
    at = site.place(key)
    info = site.run_info(at, run_id)
    found = _group(site, at, info, group_key)
    ids = [stored.id for stored in found.rollouts]
    before, behind = site.store(at).groups_beside(found.rollouts)
    number = found.rollouts[0].trajectory.global_step
    return {
        "before": before,
        "behind": behind,
        "is_over": any(int(one["step"]) >= number for one in _history(site, at)),
        "place": at,
        "info": info,
        "group": found,
        "step": number,
        "tokens": {s.id: sampled_tokens(s.trajectory) for s in found.rollouts},
        "asked": site.store(at).consulted(ids),
        "failed": site.store(at).failed_attempts(run_id, group_key),
        "question": unsealed(found.problem.question),
        "gold": unsealed(found.problem.answer),
        "unsealed": unsealed,
    }


def _group(site: Site, at: Place, info: RunInfo, group_key: str) -> GroupView:
    rollouts = site.store(at).group(info.run_id, group_key)
    if not rollouts:
        raise NotFoundError(f"The run '{info.run_id}' of '{at.key}' has no group '{group_key}'.")
    return group_view(rollouts, site.recipe(info), trained=is_trained(info))


def rollouts(
    site: Site,
    key: str,
    run_id: str | None,
    *,
    verdict: str = "",
    role: str = "",
    asked: bool = False,
    before: int | None = None,
) -> Values:
    """Return the values of a page of a store's trajectories, the latest first."""
    from eapo_agents.store.briefs import Wanted
    from eapo_agents.store.browsing import PAGE

    at = site.place(key)
    store = site.store(at)
    info = site.run_info(at, run_id) if run_id else None
    wanted = Wanted(run_id=run_id, verdict=verdict, role=role, asked=asked, before=before)
    found = store.briefs(wanted, PAGE + 1)
    shown = found[:PAGE]
    return {
        "place": at,
        "info": info,
        "infos": stored_runs(site, at)[0],
        "shown": shown,
        "asked_of": store.consulted([brief.id for brief in shown]),
        "wanted": wanted,
        "next": shown[-1].id if len(found) > PAGE else None,
        "unsealed": unsealed,
    }


def rollout(site: Site, key: str, number: int) -> Values:
    """Return the values of a rollout's page: the conversation and what it earned."""
    at, store, stored, info = _stored(site, key, number)
    found = _group(site, at, info, stored.group_key)
    trajectory = stored.trajectory
    before, behind = store.neighbours(stored)
    extracted, why = extracted_answer(trajectory)
    texts = site.tokenizers.of_run(info.recipe, at.folder or _beside(at))
    if texts is not None and is_trained(info):
        texts.warm()
    return {
        "place": at,
        "info": info,
        "stored": stored,
        "t": trajectory,
        "earned": found.of(number),
        "group": found,
        "graded": graded(site, at, stored),
        "conversation": conversation_of(trajectory),
        "contexts": _contexts(stored, texts),
        "extracted": None if extracted is None else unsealed(extracted),
        "not_extracted": why,
        "before": before,
        "behind": behind,
        "sampled": sampled_tokens(trajectory),
        "recipe": site.recipe(info),
        "unsealed": unsealed,
    }


def graded(site: Site, at: Place, stored: StoredTrajectory) -> Sample | None:
    """Return an evaluation's verdict on one of its rollouts; None where there is none."""
    if at.kind is not Kind.EVALUATION or at.folder is None:
        return None
    place = (stored.trajectory.problem.id, stored.trajectory.rollout)
    for record in site.evaluations.items(at.folder, stored.run_id):
        if (record.get("id"), record.get("rollout")) == place:
            return joined([record], None, stored.run_id)[0]
    return None


def tokens(
    site: Site,
    key: str,
    number: int,
    *,
    colour: str,
    start: int = 0,
    patience_s: float | None = None,
) -> Values:
    """Return the values of the page with a rollout's training rows, token by token.

    Args:
        patience_s: after so long, rows that are not ready are left for the next time.
    """
    at, store, stored, info = _stored(site, key, number)
    rows = token_rows(site, at, info, stored, start, patience_s)
    before, behind = store.neighbours(stored)
    longest = max((row.num_tokens for row in rows.rows), default=0)
    return {
        "place": at,
        "info": info,
        "stored": stored,
        "t": stored.trajectory,
        "rows": rows,
        "colour": colour if colour in COLOURS else COLOURS[0],
        "colours": COLOURS,
        "start": start,
        "next": start + TOKENS_OF_A_PAGE if start + TOKENS_OF_A_PAGE < longest else None,
        "page_size": TOKENS_OF_A_PAGE,
        "before": before,
        "behind": behind,
    }


def token_rows(
    site: Site,
    at: Place,
    info: RunInfo,
    stored: StoredTrajectory,
    start: int = 0,
    patience_s: float | None = None,
) -> Rows:
    """Return a rollout's training rows."""
    found = _group(site, at, info, stored.group_key)
    mine = next(one for one in found.rollouts if one.id == stored.id)
    strongest = [abs(one.advantage or 0.0) for one in found.earned]
    return rows_of(
        Asked(
            trajectory=mine.trajectory,
            group=RolloutGroup(
                problem=found.problem,
                trajectories_G=tuple(one.trajectory for one in found.rollouts),
            ),
            earned=found.of(stored.id),
            recipe=site.recipe(info),
            is_training=is_trained(info),
            texts=site.tokenizers.of_run(info.recipe, at.folder or _beside(at)),
            strongest=max(strongest, default=0.0),
            start=start,
            patience_s=patience_s,
        )
    )


def _stored(
    site: Site, key: str, number: int
) -> tuple[Place, StoreBrowser, StoredTrajectory, RunInfo]:
    at = site.place(key)
    store = site.store(at)
    try:
        stored = store.trajectory(number)
    except EapoError as error:
        raise NotFoundError(f"'{key}' has no rollout {number}.") from error
    return at, store, stored, site.run_info(at, stored.run_id)


def _beside(at: Place) -> Path | None:
    return Path(at.store).parent if at.store is not None and at.is_file else None


def _contexts(stored: StoredTrajectory, texts: TokenTexts | None) -> list[str | None]:
    """Return the text of the tokens that stand before each turn; None where it is not known."""
    if texts is None:
        return [None for _ in stored.trajectory.turns]
    return [texts.text(turn.context_ids[:_MOST_CONTEXT]) for turn in stored.trajectory.turns]


def search(site: Site, text: str, key: str) -> Values:
    """Return the values of the page with what a search found: in one place, or in all of them."""
    text = text.strip()[:200]
    places = list(site.places().values())
    at = site.place(key) if key else None
    # a study's arms are below it
    wanted = [p for p in places if at is None or p == at or p.key.startswith(f"{at.key}/")]
    limit = _HITS_OF_ONE if sum(p.store is not None for p in wanted) == 1 else _HITS_OF_EACH
    found: list[tuple[Place, Found]] = []
    told: list[str] = []
    left = 5.0
    for one in wanted if text else []:
        if left <= 0:
            told.append("The time for a search is over: search one run to search more of it.")
            break
        began = time.monotonic()
        try:
            store = site.store_if_any(one)
            hits = None if store is None else store.search(text, limit=limit, seconds=min(left, 2))
        except EapoError as error:
            told.append(str(error))
            continue
        if hits is not None and (hits.hits or not hits.whole):
            found.append((one, hits))
        left -= time.monotonic() - began
    return {
        "text": text,
        "place": at,
        "found": found,
        "num": sum(len(hits.hits) for _, hits in found),
        "more": any(not hits.whole for _, hits in found),
        "told": told,
        "unsealed": unsealed,
    }
