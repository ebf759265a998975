"""`eapo traces`: look into a trace store, examine it, export it, convert it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eapo_agents.cli.traces_exchange import export_to, import_traces
from eapo_agents.errors import TraceError, UsageError

if TYPE_CHECKING:
    from eapo_agents.store import RunInfo, StoredTrajectory, TraceStore
    from trainers.doctor import Report

app = typer.Typer(
    help="Look into a trace store, examine it, export it, convert it.", no_args_is_help=True
)

SEARCH_S = 60.0
"""How long a search may take."""
StoreArgument = Annotated[str, typer.Argument(help="Trace store: a file, or an SQLAlchemy URL.")]
RunOption = Annotated[str | None, typer.Option("--run-id", help="Only this run.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("ls")
def list_trajectories(
    store: StoreArgument,
    run_id: RunOption = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Trajectories shown, the latest.")
    ] = 20,
    as_json: JsonOption = False,
) -> None:
    """List the runs, and the latest trajectories."""
    with _open(store) as opened:
        runs = [_run_facts(run) for run in opened.runs() if run_id in (None, run.run_id)]
        _refuse_unknown(opened, run_id)
        latest = [_brief(stored) for stored in opened.trajectories(run_id, latest=limit)]
    if as_json:
        _print_json({"runs": runs, "trajectories": latest})
        return
    # 80 columns: times to the minute, and enough of the weights to tell them apart
    brief = [
        {
            **run,
            "created_at": str(run["created_at"])[5:16],
            "weights": str(run["weights"])[:8],
        }
        for run in runs
    ]
    _print_table("Runs", brief)
    _print_table(f"Trajectories (the latest {len(latest)})", latest)


@app.command()
def show(
    store: StoreArgument,
    trajectory: Annotated[int, typer.Argument(help="Number of a trajectory, as `ls` gives it.")],
    as_json: JsonOption = False,
) -> None:
    """Show one trajectory, turn by turn."""
    from eapo_agents.store.export import as_record

    with _open(store) as opened:
        stored = opened.trajectory(trajectory)
    if as_json:
        _print_json(as_record(stored))
        return
    found = stored.trajectory
    _print(f"{stored.run_id} / {stored.group_key} / rollout {found.rollout}")
    _print(f"policy {found.policy.model}, weights {found.policy.weights}, step {found.policy.step}")
    _print(f"question  {found.problem.question}\ngold      {found.problem.answer}")
    for index, turn in enumerate(found.turns):
        tokens = f"{len(turn.context_ids)} + {len(turn.completion_ids)} tokens"
        if turn.billed is not None:
            counted = "not counted" if turn.num_sampled is None else f"{turn.num_sampled} written"
            tokens = f"an API model's, {counted}"
        _print(f"\nturn {index} ({tokens}, {turn.finish_reason})\n{turn.text}")
        for c in turn.consultations:
            _print(f"  {c.expert or '?'}: {c.status.value}, u {c.u:.3f}, rho {c.rho:.3f}")
            _print(f"    asked   {c.query}\n    replied {c.reply}")
            if c.error:
                _print(f"    error   {c.error}")
    _print(f"\n{found.stop_reason.value}, reward {found.reward}, correct {found.correct}")
    for name, value in found.reward_parts.items():
        _print(f"  {name}: {value:g}")
    if found.error:
        _print(f"error {found.error}")


@app.command()
def search(
    store: StoreArgument,
    text: Annotated[str, typer.Argument(help="What to look for, in any case.")],
    run_id: RunOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most trajectories shown.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Find a text in questions, answers, turns, queries and replies, the latest first."""
    from contextlib import closing

    from eapo_agents.store.browsing import StoreBrowser

    if not text.strip():
        raise UsageError("A search needs a text, such as: eapo traces search STORE triangle.")
    with closing(StoreBrowser.look_into(store)) as opened:
        _refuse_unknown(opened, run_id)
        found = opened.search(text, run_id=run_id, limit=limit, seconds=SEARCH_S)
    hits = [
        {
            "id": hit.brief.id,
            "run_id": hit.brief.run_id,
            "group_key": hit.brief.group_key,
            "rollout": hit.brief.rollout,
            "where": hit.where,
            "text": "".join(hit.snippet),
        }
        for hit in found.hits
    ]
    if as_json:
        _print_json({"hits": hits, "searched": found.searched, "whole": found.whole})
        return
    for hit in hits:
        said = " ".join(str(hit["text"]).split())
        _print(f"{hit['id']}  {hit['run_id']}  {hit['where']}: {said}")
    whole = "" if found.whole else " There may be more: raise --limit, or name a run."
    _print(f"{len(hits)} trajectories hold '{text}', of {found.searched} searched.{whole}")


@app.command()
def stats(store: StoreArgument, run_id: RunOption = None, as_json: JsonOption = False) -> None:
    """Count what the runs hold: rewards, stop reasons, consultations, tokens, errors."""
    from eapo_agents.store.statistics import stats_of

    with _open(store) as opened:
        _refuse_unknown(opened, run_id)
        wanted = [run for run in opened.runs() if run_id in (None, run.run_id)]
        counted = [stats_of(run, opened.trajectories(run.run_id)) for run in wanted]
    if as_json:
        _print_json({"runs": counted})
        return
    for facts in counted:
        _print(f"{facts['run_id']} ({facts['kind']})")
        for key, value in list(facts.items())[2:]:
            shown = f"{value:.4g}" if isinstance(value, float) else value
            if isinstance(value, dict):
                shown = ", ".join(f"{name} {count}" for name, count in value.items()) or "none"
            _print(f"  {key:18} {shown}")


@app.command()
def doctor(store: StoreArgument, run_id: RunOption = None, as_json: JsonOption = False) -> None:
    """Examine traces before training, and name what training leaves out; exit status 5 where
    nothing is left."""
    from dataclasses import asdict

    from eapo_agents.errors import DoctorError

    with _open(store) as opened:
        _refuse_unknown(opened, run_id)
        from trainers.doctor import examine

        wanted = [
            run.run_id
            for run in opened.runs()
            if run.run_id == run_id or (run_id is None and run.kind != "eval")
        ]
        reports = {name: examine(list(opened.groups(name))) for name in wanted}
    if as_json:
        _print_json({"runs": {name: asdict(report) for name, report in reports.items()}})
    else:
        for name, report in reports.items():
            _print(
                f"{name}: {report.num_groups} groups, {report.num_trajectories} trajectories, "
                f"{report.num_tokens} sampled tokens, {report.num_unscored} unscored, "
                f"{report.num_without_spread} groups without spread of reward, "
                f"{report.num_several_rows} trajectories of several rows, "
                f"{report.num_tokens_left_out} tokens of another model or temperature"
            )
            for finding in report.blocking:
                _print(
                    f"  LEFT OUT {finding.name} ({finding.count}): {_some(finding.trajectories)}"
                )
                _print(f"    {finding.message}")
    # failed rollouts are no traces, and nothing of theirs is left to train on either way
    spoilt = [r for r in reports.values() if r.num_blocked and r.num_blocked == r.num_sampled]
    if spoilt:
        finding = spoilt[0].blocking[0]
        raise DoctorError(f"Nothing is left to train on: {finding.name}. {finding.message}")
    if not as_json:
        _print(_verdict(list(reports.values())))


def _verdict(reports: Sequence[Report]) -> str:
    if not reports:
        return "There is no training run."
    if all(report.num_without_spread == report.num_groups for report in reports):
        return (
            "The policy gradient has nothing to learn from: a group needs rewards that differ, and "
            "no group has."
        )
    left_out = sum(report.num_blocked for report in reports)
    if left_out:
        return f"{left_out} trajectories are left out; nothing blocks training on the others."
    return "Nothing blocks training on these traces."


def _some(names: Sequence[str]) -> str:
    shown = "; ".join(names[:20])
    return f"{shown}; and {len(names) - 20} more (--json names all)" if len(names) > 20 else shown


@app.command()
def export(
    store: StoreArgument,
    file: Annotated[Path, typer.Argument(help="A .parquet or .jsonl file to write.")],
    run_id: RunOption = None,
    form: Annotated[
        str,
        typer.Option(
            "--as", help="trajectories; or sft or dpo: TRL's datasets of tool-free answers."
        ),
    ] = "trajectories",
    to: Annotated[
        str | None,
        typer.Option("--to", help="langsmith or langfuse: traces of that platform's form, JSONL."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write trajectories, or answers for TRL's SFT or DPO, to Parquet or JSONL."""
    from eapo_agents.store.export import export as write

    if to is not None:
        with _open(store) as opened:
            _refuse_unknown(opened, run_id)
            export_to(opened, file, run_id, form, to, as_json=as_json)
        return
    if form not in ("trajectories", "sft", "dpo"):
        raise UsageError(f"--as must be trajectories, sft or dpo, got '{form}'.")
    with _open(store) as opened:
        _refuse_unknown(opened, run_id)
        if form == "trajectories":
            num_rows = write(opened.trajectories(run_id), file)
        else:
            num_rows = _export_answers(opened, run_id, form, file)
    what = "trajectories" if form == "trajectories" else "rows"
    if as_json:
        _print_json({"file": str(file), what: num_rows})
    else:
        _print(f"{num_rows} {what} in {file}")


app.command("import")(import_traces)


@app.command()
def convert(
    store: StoreArgument,
    new: Annotated[str, typer.Argument(help="The new store: a new file, or a URL.")],
    as_json: JsonOption = False,
) -> None:
    """Write a store of an older format into a new store. The old one stays as it is."""
    from eapo_agents.store.convert import convert as write

    num_trajectories = write(store, new)
    if as_json:
        _print_json({"store": new, "trajectories": num_trajectories})
    else:
        _print(f"{num_trajectories} trajectories in {new}")


def _export_answers(opened: TraceStore, run_id: str | None, form: str, file: Path) -> int:
    """Answers of training runs and collections: evaluations are not to be trained on."""
    from eapo_agents.store.export import export_rows
    from eapo_agents.store.pairs import dpo_rows, sft_rows

    make = sft_rows if form == "sft" else dpo_rows
    rows = [
        row
        for run in opened.runs()
        if run.kind in ("collect", "train") and run_id in (None, run.run_id)
        for row in make(opened.groups(run.run_id), run.system_prompt)
    ]
    if not rows:
        raise TraceError(
            f"There is nothing to export as {form}: it takes collections or training runs with "
            + ("right answers." if form == "sft" else "right and wrong answers to one problem.")
        )
    return export_rows(rows, file)


def _open(store: str) -> TraceStore:
    from eapo_agents.store import TraceStore

    return TraceStore.open(store)


def _refuse_unknown(opened: TraceStore, run_id: str | None) -> None:
    from eapo_agents.errors import StoreError

    known = [run.run_id for run in opened.runs()]
    if run_id is not None and run_id not in known:
        raise StoreError(f"The store has no run '{run_id}': it has {', '.join(known) or 'none'}.")


def _run_facts(run: RunInfo) -> dict[str, str | int]:
    return {
        "run_id": run.run_id,
        "kind": run.kind,
        "created_at": run.created_at,
        "policy": run.policy.model,
        "weights": run.policy.weights,
        "trajectories": run.num_trajectories,
    }


def _brief(stored: StoredTrajectory) -> dict[str, object]:
    found = stored.trajectory
    consultations = [c for turn in found.turns for c in turn.consultations]
    return {
        "id": stored.id,
        "run_id": stored.run_id,
        "group_key": stored.group_key,
        "rollout": found.rollout,
        "turns": len(found.turns),
        "asked": len(consultations),
        "accepted": sum(c.status.value == "accepted" for c in consultations),
        "stop_reason": found.stop_reason.value,
        "reward": found.reward,
    }


def _print(text: str) -> None:
    from eapo_agents.cli.output import safe_text

    print(safe_text(text))


def _print_json(value: Mapping[str, object]) -> None:
    import json

    print(json.dumps(value))


def _print_table(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from eapo_agents.cli.output import safe_text

    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in rows[0] if rows else ["none"]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(safe_text(str(value))) for value in row.values()))
    Console().print(table)
