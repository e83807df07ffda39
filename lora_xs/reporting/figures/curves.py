"""Curves of runs: the training loss from the first step (LoRA-SB Figure 2), and validation scores after each epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_xs.evaluation.direction import LOWER_IS_BETTER
from lora_xs.records import Record
from lora_xs.reporting.cells import Behind
from lora_xs.reporting.figures.panels import spare, titled
from lora_xs.reporting.figures.picture import Picture
from lora_xs.reporting.figures.style import LOOKS, SPARE, Look, finish, hatch_off, label_edges, new_figure, styled
from lora_xs.reporting.figures.trajectories import Band, band, draw_bands, scores
from lora_xs.reporting.labels import metric_label, named
from lora_xs.reporting.losses import Trajectory, training_losses
from lora_xs.reporting.material import Material

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = ("model", "task")
SEEDS = "a band spans the seeds, the line is their mean"


@dataclass(frozen=True)
class Panel:
    """The bands of one model and task. missing: series whose runs left no curve."""

    title: str
    metric: str
    bands: tuple[Band, ...]
    missing: tuple[str, ...]
    methods: tuple[str, ...]  # of each band: its look


def loss_curves(material: Material) -> list[Picture]:
    """The training loss, a band over seeds for each cell; none without runs, the papers print no such numbers."""

    def losses(run: Behind, record: Record) -> Trajectory:
        return training_losses(material.folders[run.signature]) if run.signature in material.folders else {}

    panels = panels_of(material, losses)
    words = f"Training loss against optimiser steps; {SEEDS}, after a running mean over 1/25 of the steps"
    return _pictures(material, panels, "loss", "optimiser step", "training loss (nats)", words)


def epoch_curves(material: Material) -> list[Picture]:
    """Validation scores after each epoch, a band over seeds for each cell; none without runs."""

    def validation(run: Behind, record: Record) -> Trajectory:
        start = [record.train["start"]] if record.train.get("start") else []
        return scores([*start, *record.train.get("evaluations", ())], record.run["spec"]["task"]["main_metric"])

    panels = panels_of(material, validation)
    return _pictures(material, panels, "epochs", "epoch", "", f"Validation score against epochs; {SEEDS}")


def panels_of(material: Material, read: Callable[[Behind, Record], Trajectory]) -> list[Panel]:
    """The bands of all cells, a panel a model and task."""
    trained = material.trained
    found = []
    for where in dict.fromkeys(tuple(run.cell.get(key, "") for key in PANELS) for run in trained):
        inside = [run for run in trained if tuple(run.cell.get(key, "") for key in PANELS) == where]
        bands, missing, metrics, methods = [], [], [], []
        for cell in dict.fromkeys(tuple(run.cell.items()) for run in inside):
            runs = [run for run in inside if tuple(run.cell.items()) == cell]
            records = [(run, material.records[run.signature]) for run in runs if run.signature in material.records]
            finished = [(run, record) for run, record in records if record.scored]
            name = ", ".join(named(key, value) for key, value in cell if key not in PANELS and value)
            one = band(name, [read(run, record) for run, record in finished], len(runs))
            metrics += [record.run["spec"]["task"]["main_metric"] for _, record in finished]
            diverged = len(records) - len(finished)
            if one is None:
                missing.append(name + (f" ({diverged} diverged)" if diverged else ""))
            else:
                bands.append(one)
                methods.append(dict(cell).get("method") or dict(cell).get("init", ""))
        metric = metrics[0] if metrics else ""
        found.append(Panel(titled(PANELS, where), metric, tuple(bands), tuple(missing), tuple(methods)))
    return found if any(panel.bands for panel in found) else []


def _pictures(material: Material, panels: Sequence[Panel], kind: str, x: str, y: str, words: str) -> list[Picture]:
    if not panels:
        return []
    caption = f"{material.heading}. {words}."
    return [Picture(f"{material.name}-{kind}", kind, material.name, caption, _draw(material, panels, kind, x, y))]


def _draw(material: Material, panels: Sequence[Panel], kind: str, x: str, y: str) -> Figure:
    from matplotlib.ticker import MaxNLocator

    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with styled():
        figure, axes = new_figure(rows, columns, 3.4 if rows == 1 else 0.7 + 2.7 * rows)
        for one, panel in zip(axes.flat, panels, strict=False):
            one.set_title(panel.title)
            one.set_ylabel(y or _score(panel.metric))
            looks = _looks(panel)
            draw_bands(one, panel.bands, looks, smooth=kind == "loss")
            one.xaxis.set_major_locator(MaxNLocator(integer=True))
            if panel.bands:
                names = [_counted(one_band) for one_band in panel.bands]
                lines = [line for line in one.get_lines() if line.get_gid() == "ours"]
                one.legend(lines, names, ncols=2 if len(names) > 6 else 1, fontsize=6)
            else:
                hatch_off(one, "not run")
        spare(list(axes.flat)[len(panels) :])
        label_edges(axes, x)
        missing = [f"{panel.title}: {name}" if panel.title else name for panel in panels for name in panel.missing]
        shown = "; ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
        seeds = "Ours alone: the papers print no numbers for these curves."
        finish(figure, material.heading, [seeds, *([f"Not run: {shown}."] if missing else [])], material.synthetic)
    return figure


def _looks(panel: Panel) -> dict[str, Look]:
    """A method's own look where it has one series here; further series of it take spare ones."""
    used: dict[str, Look] = {}
    spares = [look for look in SPARE]
    for one, method in zip(panel.bands, panel.methods, strict=True):
        own = LOOKS.get(method)
        if own is None or own in used.values():
            taken = {(look.colour, look.marker) for look in used.values()}
            own = next((look for look in spares if (look.colour, look.marker) not in taken), SPARE[0])
        used[one.series] = own
    return used


def _counted(band: Band) -> str:
    return band.series if band.seeds == band.planned else f"{band.series} ({band.seeds}/{band.planned})"


def _score(metric: str) -> str:
    return f"{metric_label(metric)} (nats)" if metric in LOWER_IS_BETTER else f"{metric_label(metric)} (points)"
