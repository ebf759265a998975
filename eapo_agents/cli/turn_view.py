"""Shows a turn of the agent as it happens: the policy's text, the consultations side by side, the
answer.

Text from models and experts goes through `safe_text` and is never read as markup. A glyph and a
word show each state; colour only repeats it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from eapo_agents.cli.output import safe_text
from eapo_agents.cli.prose import Prose

if TYPE_CHECKING:
    from graphs.events import Asking, Ended, Event, Replied

WIDE = 100
"""Screen width in columns from which consultations stand side by side."""
REPLY_LINES = 8
THOUGHT_LINES = 4
TAIL_CHARS = 400
"""How much of the end of a reply is shown while it is being written."""
NO_ANSWER = {
    "length": "cut off at sampling.max_new_tokens",
    "turn_budget": "still asking in its last turn",
}
MARKS = {
    "accepted": ("✓", "green"),
    "withheld": ("∅", "magenta"),
    "failed": ("✗", "red"),
    "timeout": ("✗", "red"),
    "invalid": ("✗", "red"),
    "over_limit": ("✗", "red"),
}


def money(cost_usd: float | None) -> str:
    """Return a cost as text: "unpriced" when it is not known, never $0."""
    if cost_usd is None:
        return "unpriced"
    return "free" if cost_usd == 0 else f"${cost_usd:.4f}" if cost_usd < 1 else f"${cost_usd:.2f}"


@dataclass(slots=True)
class TurnView:
    """Prints events to a console."""

    console: Console
    _speaking: str | None = None
    _prose: Prose | None = None
    _asked: dict[int, tuple[Asking, float]] = field(default_factory=dict)
    _written: dict[int, str] = field(default_factory=dict)
    _replied: dict[int, Replied] = field(default_factory=dict)
    _live: Live | None = None

    def show(self, event: Event) -> None:
        """Show one event."""
        from graphs.events import Asking, Ended, ExpertWrote, Replied, Thought, Wrote

        match event:
            case Thought():
                self.close()
                self._show_thought(event.text)
            case Wrote():
                self._settle()
                self._write(event.text, event.turn)
            case Asking():
                self._end_line()
                self._asked[event.slot] = (event, time.monotonic())
                self._refresh()
            case ExpertWrote():
                written = self._written.get(event.slot, "") + event.text
                self._written[event.slot] = written[-TAIL_CHARS:]
            case Replied():
                self._replied[event.slot] = event
                self._refresh()
            case Ended():
                self.close()
                self._footer(event)

    def close(self) -> None:
        """Finish what is on the screen, whatever was happening."""
        self._settle()
        self._end_line()

    def _write(self, text: str, turn: str) -> None:
        if turn != self._speaking:
            self._end_line()
            self._speaking = turn
        if self._prose is None:
            self._prose = Prose(self.console, "policy")
        self._prose.write(text)

    def _show_thought(self, text: str) -> None:
        """Print how a thought begins, apart from the answer."""
        line = Text("thought ", style="bold dim")
        cut = _cut(safe_text(text), THOUGHT_LINES, self.console.width - 8, "")
        line.append(cut, style="not bold dim italic")
        self.console.print(line, soft_wrap=not self.console.is_terminal)

    def _end_line(self) -> None:
        if self._prose is not None:
            self._prose.end()
        self._speaking, self._prose = None, None

    def _refresh(self) -> None:
        if self.console.is_terminal:
            if self._live is None:
                self._live = Live(
                    get_renderable=self._under_way,
                    console=self.console,
                    transient=True,
                    refresh_per_second=8,
                )
                self._live.start()
        elif set(self._asked) == set(self._replied):
            self._settle()

    def _under_way(self) -> RenderableType:
        """Return one line per expert, however long the replies are."""
        lines = []
        for slot, (asking, since) in sorted(self._asked.items()):
            done = self._replied.get(slot)
            if done is None:
                head = Text(
                    f"… {safe_text(asking.expert)}  asking {time.monotonic() - since:.1f} s"
                )
            else:
                head = _headline(done)
            tail = _flat(self._written.get(slot, "")) if done is None else ""
            room = max(self.console.width - len(head.plain) - 4, 0)
            head.append(f"  {tail[-room:] if tail and room else _flat(asking.query)}", style="dim")
            head.truncate(self.console.width - 1, overflow="ellipsis")
            lines.append(head)
        return Group(*lines)

    def _settle(self) -> None:
        """Print the consultations in their final form."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        replied = [self._replied[slot] for slot in sorted(self._replied)]
        self._asked, self._written, self._replied = {}, {}, {}
        if not replied:
            return
        if self.console.is_terminal:
            self.console.print(_panels(replied, self.console.width))
        else:
            for one in replied:
                self.console.print(_headline(one), soft_wrap=True)
                self.console.print(Text(f"  asked   {_flat(one.query)}"), soft_wrap=True)
                self.console.print(Text(f"  {_outcome(one)}"), soft_wrap=True)

    def _footer(self, ended: Ended) -> None:
        turns = f"{ended.turns} turn{'' if ended.turns == 1 else 's'}"
        if not ended.answer.strip():
            why = NO_ANSWER.get(ended.stop_reason, "it wrote nothing")
            if ended.stop_reason == "length" and ended.sampled_tokens == 0:
                why = "the conversation no longer fits the model's context; /new begins another"
            self.console.print(Text(f"(no answer: {why})"), soft_wrap=True)
        tokens = "tokens not counted" if ended.sampled_tokens is None else ""
        facts = f"{ended.stop_reason} · {turns} · {tokens or f'{ended.sampled_tokens} tokens'}"
        if ended.cost_usd != 0:  # an API model's
            facts += f" · {money(ended.cost_usd)}"
        self.console.print(f"{facts} · {ended.seconds:.1f} s", style="dim", highlight=False)


def _panels(replied: Sequence[Replied], width: int) -> RenderableType:
    beside = len(replied) if width >= WIDE else 1
    panel_width = width // beside - 1
    made = [_panel(one, panel_width) for one in replied]
    return Columns(made, padding=(0, 1), expand=False) if beside > 1 else Group(*made)


def _panel(one: Replied, width: int) -> Panel:
    _, colour = MARKS.get(one.status, ("?", "default"))
    body = Text()
    body.append(f"asked {_flat(one.query)}\n", style="dim")
    body.append(_cut(_outcome(one), REPLY_LINES, width - 4))
    return Panel(
        body,
        title=_headline(one),
        title_align="left",
        subtitle=Text(f"coin {one.u:.2f}, rho {one.rho:.2f}", style="dim"),
        subtitle_align="right",
        border_style=colour,
        width=width,
    )


def _headline(one: Replied) -> Text:
    mark, colour = MARKS.get(one.status, ("?", "default"))
    line = Text(f"{mark} ", style=colour)
    line.append(safe_text(one.expert), style="bold")
    line.append(f"  {one.status.replace('_', ' ')}", style=colour)
    if one.answered_by and one.answered_by != one.expert:
        line.append(f" by {safe_text(one.answered_by)}")
    if one.status in ("accepted", "failed", "timeout"):
        line.append(f"  {one.latency_s:.2f} s")
        if one.status == "accepted":
            line.append(f"  {'stored' if one.cached else money(one.cost_usd)}")
        if one.attempts > 1:
            line.append(f"  {one.attempts} attempts")
    return line


def _outcome(one: Replied) -> str:
    if one.status == "accepted":
        return safe_text(one.reply) or "(an empty reply)"
    if one.status == "withheld":
        why = f". {safe_text(one.error)}" if one.error else ": the coin withheld the reply"
        return f"not asked{why}"
    return safe_text(one.error or one.reply)


def _flat(text: str) -> str:
    return " ".join(safe_text(text).split())


def _cut(text: str, num_lines: int, width: int, where: str = ": /history shows all") -> str:
    """Return the first lines of a text, counted as a screen of that width shows them."""
    lines = text.splitlines() or [""]
    kept: list[str] = []
    room = num_lines * max(width, 1)
    for index, line in enumerate(lines):
        if len(kept) == num_lines or room <= 0:
            kept.append(f"… {len(lines) - index} more lines{where}")
            break
        kept.append(line if len(line) <= room else f"{line[:room]} …")
        room -= max(len(line), width)
    return "\n".join(kept)


def screen() -> Console:
    """Return the console for turns: stdout if it is a terminal, else stderr. Then stdout has only
    the answer."""
    return Console(stderr=not sys.stdout.isatty(), highlight=False)


def table_of(rows: Sequence[Mapping[str, object]], title: str | None = None) -> RenderableType:
    """Return a plain table, a column for each key of the first row."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    names = list(rows[0]) if rows else ["none"]
    for name in names:
        # the last column takes the room that is left
        table.add_column(name, overflow="fold", no_wrap=name != names[-1])
    for row in rows:
        table.add_row(*(Text(safe_text(str(value))) for value in row.values()))
    return table
