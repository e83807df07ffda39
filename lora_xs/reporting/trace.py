"""The runs behind each cell of a table: signature, value, folder, and the command that runs one again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

from lora_xs.errors import UserError
from lora_xs.records import Record
from lora_xs.reporting.analysed import COUNTED
from lora_xs.reporting.bootstrap import LEVEL, interval
from lora_xs.reporting.cell_text import number_text, text_of
from lora_xs.reporting.cells import AVERAGED, SETTING, Behind, Cell
from lora_xs.reporting.evidence import Evidence
from lora_xs.reporting.published import same
from lora_xs.reporting.table import Table


def trace(table: Table, evidence: Evidence, only: str = "") -> Iterator[str]:
    """Lines of text, a paragraph a cell. only: `key=value,…`, cells at these coordinates; a key twice means either.

    A finished run is run again elsewhere, on the threads it had: the same number, to the bit on a machine of its kind.
    Raises UserError where `only` names no cell.
    """
    runs = {run.signature: run for run in table.runs}
    for cell in chosen(table.cells, only):
        text = text_of(cell)
        yield f"{table.name}: {', '.join(f'{key}={value}' for key, value in cell.place.items())}"
        bounds = interval([reading.value for reading in cell.readings], cell.statistic)
        between = f", {LEVEL:g} % of resamples in " + "…".join(number_text(b, cell) for b in bounds) if bounds else ""
        source = f" ({cell.published.source})" if cell.published is not None else ""
        yield f"  ours {text.ours}{between} | published {text.published}{source} | {text.comparison or cell.status}"
        if cell.allowed is not None and cell.metric != SETTING:
            yield f"  tolerance: {cell.allowed.words}"
        if cell.reason is not None:
            yield f"  {cell.reason}"
        yield from (_run_line(signature, runs, cell, evidence) for signature in cell.signatures)
        again = next((one for one in cell.signatures if one not in evidence.records), next(iter(cell.signatures), None))
        if again in runs:
            yield from _commands(runs[again], runs, evidence.records.get(again))
            for name in table.experiment.analyses:
                yield f"  then  python scripts/analyse.py {name} {again}"
        yield ""


def chosen(cells: Sequence[Cell], only: str) -> list[Cell]:
    """The cells at `only`'s coordinates. Raises UserError for what is no key=value, and where no cell is."""
    wanted: dict[str, list[str]] = {}
    for part in only.split(",") if only else ():
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--only {only}: {part!r} is no key=value; for example --only task=mrpc,rank=16")
        wanted.setdefault(key.strip(), []).append(value.strip())
    found = [cell for cell in cells if _is_there(cell.place, wanted)]
    if not found:
        known = {key: list(dict.fromkeys(c.place[key] for c in cells if key in c.place)) for key in wanted}
        hints = "; ".join(
            f"{key} is one of {', '.join(v)}" if v else f"no cell has a {key}" for key, v in known.items()
        )
        raise UserError(f"--only {only}: no cell is there; {hints}")
    return found


def _is_there(place: Mapping[str, str], wanted: Mapping[str, Sequence[str]]) -> bool:
    return all(key in place and any(same(place[key], value) for value in values) for key, values in wanted.items())


def _run_line(signature: str, runs: Mapping[str, Behind], cell: Cell, evidence: Evidence) -> str:
    seed = f" seed {runs[signature].seed}" if signature in runs else ""
    values = {reading.signature: number_text(reading.value, cell) for reading in cell.readings}
    if cell.metric == SETTING:
        return f"  {signature}{seed}: planned with {values[signature]}"
    if signature == COUNTED:
        return "  counted from the architecture: python scripts/analyse.py cost"
    record = evidence.records.get(signature)
    if record is None:
        return f"  {signature}{seed}: missing"
    found = values.get(signature, "in the average" if cell.metric == AVERAGED else "no such number")
    found = (found + " (collapsed)" if record.collapsed else found) if record.scored else "diverged"
    return f"  {signature}{seed}: {found}, {evidence.folders[signature]}"


def _commands(run: Behind, runs: Mapping[str, Behind], record: Record | None) -> Iterator[str]:
    for needed in run.needs:
        if needed in runs:
            yield f"  first {shlex.join(['python', 'train.py', *runs[needed].overrides])}"
    words = ["python", "train.py", *run.overrides]
    if record is None:
        yield f"  again {shlex.join(words)}"
        return
    there = record.environment
    if "threads" in there:
        words.append(f"launcher.threads={there['threads']['torch']}")
    if there.get("data", {}).get("source") == "local":
        words.append("data.root=<folder>")
    yield f"  again {shlex.join([*words, 'results=/tmp/again'])}"
    if "versions" in there:
        changed = " with changes" if there.get("dirty") else ""
        versions = ", ".join(f"{name} {there['versions'].get(name)}" for name in ("torch", "transformers", "peft"))
        parts = there["hardware"]
        hardware = parts["gpu"] or " ".join(filter(None, (parts["cpu"], parts.get("instructions"))))
        yield f"  it ran at commit {(there.get('commit') or 'unknown')[:12]}{changed}, {versions}, {hardware}"
