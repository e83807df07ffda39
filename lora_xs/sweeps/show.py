"""A plan on the terminal: states an arm and in all, what is to be run, what it costs, and on what that rests."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lora_xs.sweeps.cost import ASSUMPTIONS, assumed_rows
from lora_xs.sweeps.plan import Choice, Entry, Plan, totals
from lora_xs.sweeps.state import STATES

COLOURS = {"finished": "green", "running": "cyan", "partial": "yellow", "failed": "red", "diverged": "magenta"}
ERRORS, WIDE = 5, 130


def print_plan(plan: Plan, choice: Choice, console: Console) -> None:
    """Print the whole plan."""

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, soft_wrap=True)

    console.print(state_table(plan))
    for entry in [entry for entry in plan.entries if entry.state in ("failed", "diverged")][:ERRORS]:
        say(f"  {entry.state}: {escape(str(entry.run.spec.folder))}: {escape(entry.error or 'no reason kept')}")
    for signature, reason in list(choice.blocked.items())[:ERRORS]:
        say(f"  blocked: {signature} {reason}; see --retry")
    say(f"whole experiment   {_cost_line(plan.everything, whole=True)}")
    say(f"to be run now      {_cost_line(choice.runs, whole=False)}", style="bold")
    say(f"on {plan.device.name}: {plan.device.memory_gib:.0f} GiB; {escape(plan.device.source)}", style="dim")
    for line in plan.calibration.in_words(plan.device, [entry.run.spec for entry in plan.entries]):
        say(escape(line), style="dim")
    guessed = sorted({entry.run.spec.task.name for entry in plan.entries if assumed_rows(entry.run.spec)})
    if guessed:
        say(f"rows never measured, their costs are guesses: {', '.join(guessed)}", style="yellow")
    for line in ASSUMPTIONS:
        say(f"  {escape(line)}", style="dim")


def console_of_output() -> Console:
    """Standard output; a pipe gets lines wide enough for the table."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(width=WIDE, highlight=False)


def state_table(plan: Plan) -> Table:
    """Arms down, states across, a line of totals."""
    table = Table(title=plan.name, title_justify="left", box=None, pad_edge=False)
    table.add_column("arm", no_wrap=True, overflow="ellipsis")
    for name in (*STATES, "hours left", "GiB"):
        table.add_column(name, justify="right", no_wrap=True, min_width=max(len(name), 5))
    for arm, entries in plan.arms().items():
        table.add_row(escape(arm), *_numbers(entries))
    table.add_section()
    table.add_row("all", *_numbers(plan.entries), style="bold")
    return table


def _numbers(entries: Sequence[Entry]) -> list[str]:
    counts = {state: sum(entry.state == state for entry in entries) for state in STATES}
    shown = [
        f"[{COLOURS[state]}]{n}[/]" if n and state in COLOURS else str(n) if n else "·" for state, n in counts.items()
    ]
    total = totals(entries)
    return [*shown, f"{total['gpu_hours']:.2f}", f"{total['peak_gib']:.1f}"]


def _cost_line(entries: Sequence[Entry], whole: bool) -> str:
    total = totals(entries, whole=whole)
    return (
        f"{total['runs']:>5} runs  {total['gpu_hours']:.2f} device hours  {total['flops']:.2e} FLOPs  peak memory "
        f"{total['peak_gib']:.1f} GiB  disk {size(total['disk_mib'])} (+ {size(total['scratch_mib'])} of checkpoints "
        "at most for each run that is under way)"
    )


def size(mib: float) -> str:
    """MiB as people read them."""
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.1f} MiB"
