"""What is drawn is what the cells say: every artist's numbers are read back from the figure."""

from __future__ import annotations

import json
import random
import statistics
from pathlib import Path
from typing import Any

import pytest
from figure_material import published_material, run_material

from lora_xs.reporting.cells import Behind, Cell, Reading
from lora_xs.reporting.figures.adapter_bytes import adapter_bytes
from lora_xs.reporting.figures.against_setting import rates
from lora_xs.reporting.figures.bars import bars
from lora_xs.reporting.figures.comparison import comparison
from lora_xs.reporting.figures.costs import costs
from lora_xs.reporting.figures.curves import epoch_curves, loss_curves
from lora_xs.reporting.figures.efficiency import efficiency
from lora_xs.reporting.figures.learning_curves import POSITION, learning_curves
from lora_xs.reporting.figures.overview import overview
from lora_xs.reporting.figures.rate_grids import bounds, rate_grids
from lora_xs.reporting.figures.retention import projection, retention
from lora_xs.reporting.figures.scatter import Point, front
from lora_xs.reporting.figures.trajectories import running_mean
from lora_xs.reporting.material import Material

BOTH = (True, False)


def drawn(axes: Any, gid: str) -> set[tuple[float, ...]]:
    """The y values of all lines that are marked `gid`."""
    return {tuple(map(float, line.get_ydata())) for line in axes.get_lines() if line.get_gid() == gid}


def value(cell: Cell, ours: bool) -> float | None:
    if ours:
        return cell.ours
    return cell.published.value if cell.published is not None else None


def by_title(figure: Any) -> dict[str, Any]:
    return {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_title(loc="left")}


@pytest.mark.parametrize("fill", ["none", "part", "full"])
def test_figure_1_holds_every_average_at_its_parameters(fill: Any) -> None:
    material = published_material("figure01_parameter_efficiency", fill)
    (picture,) = efficiency(material)
    (axes,) = picture.figure.axes
    averages = [cell for cell in material.cells if cell.place["task"] == "avg"]
    for ours in BOTH:
        points = set()
        for line in axes.get_lines():
            if line.get_gid() == ("ours" if ours else "published") and line.get_marker() != "None":
                points |= set(zip(map(float, line.get_xdata()), map(float, line.get_ydata()), strict=True))
        wanted = set()
        for cell in averages:
            number = value(cell, ours)
            if cell.place["method"] == "full_ft" or number is None or cell.published is None:
                continue
            printed = float(cell.published.facts["trainable_params"].removesuffix("K")) * 1000
            wanted.add((float(cell.parameters or 0) if ours else printed, number))
        assert points == wanted
    levels = [line.get_ydata()[0] for line in axes.get_lines() if line.get_marker() == "None" and line.get_gid()]
    full = next(cell for cell in averages if cell.place["method"] == "full_ft")
    assert {full.published.value if full.published else None} <= set(levels)


def test_the_front_is_what_nothing_beats() -> None:
    dice = random.Random(3)
    for lower in BOTH:
        points = [Point("lora", "8", dice.randint(1, 9), dice.randint(1, 9), None, True) for _ in range(30)]
        found = front(points, lower)

        def beats(one: Point, other: Point, lower: bool = lower) -> bool:
            gain = (other.score - one.score) if lower else (one.score - other.score)
            dearer = (one.cost or 0) - (other.cost or 0)
            return (gain > 0 and dearer <= 0) or (gain == 0 and dearer < 0)

        unbeaten = {(p.cost, p.score) for p in points if not any(beats(q, p) for q in points)}
        assert {(p.cost, p.score) for p in found} == unbeaten
        assert [p.cost for p in found] == sorted(p.cost or 0 for p in found)


@pytest.mark.parametrize("fill", ["none", "part"])
def test_a_heat_map_writes_every_cell_where_its_rates_are(fill: Any) -> None:
    material = published_material("table14_init_grid_cola", fill)
    (picture,) = rate_grids(material)
    rates = ("0.0005", "0.001", "0.005")
    labels = {"random": "Random", "svd_random": "SVD of random", "svd_w": "SVD of W"}
    panels = by_title(picture.figure)
    for cell in material.cells:
        where = (rates.index(cell.place["classifier_lr"]), rates.index(cell.place["lr"]))
        for ours in BOTH:
            axes = panels[f"{labels[cell.place['init']]}: {'ours' if ours else 'published'}"]
            words = next(text.get_text() for text in axes.texts if text.get_position() == where)
            number = value(cell, ours)
            assert words.splitlines()[0] == ("not run" if number is None else f"{number:.2f}"), (cell.place, ours)
            if ours and cell.status == "partial":
                assert words.splitlines()[-1] == f"{cell.n}/{cell.planned}"


def test_a_row_that_the_paper_left_out_is_a_gap_of_the_published_map() -> None:
    (picture,) = rate_grids(published_material("table25_singular_values_qnli", "full"))
    words = [text.get_text() for axes in picture.figure.axes for text in axes.texts]
    assert words.count("not\nprinted") == 1


def test_a_collapsed_run_does_not_stretch_the_colours() -> None:
    assert bounds([94.0, 94.1, 94.2, 94.3, 94.4, 94.5, 94.6, 50.9]) == (94.0, 94.6)
    assert bounds([1.0]) == (1.0, 2.0)
    assert bounds([60.0, 70.0, 80.0, 90.0]) == (60.0, 90.0)


@pytest.mark.parametrize("fill", ["part"])
@pytest.mark.parametrize("name", ["table09_singular_value_retention_sst2", "table11_delta_projection"])
def test_retention_lines_are_the_cells_of_a_module_and_subset(name: str, fill: Any) -> None:
    material = published_material(name, fill)
    (picture,) = retention(material) if "retention" in name else projection(material)
    panels = by_title(picture.figure)
    tasks = {"mrpc": "MRPC, ", "sst2": "SST-2, ", "mnli": "MNLI, "} if name.startswith("table11") else {"sst2": ""}
    for task, title in tasks.items():
        for module in {cell.place["module"] for cell in material.cells}:
            for ours in BOTH:
                inside = [c for c in material.cells if (c.place["task"], c.place["module"]) == (task, module)]
                lines = [
                    tuple(
                        number
                        for cell in sorted(inside, key=lambda c: float(c.place["retained_fraction"]))
                        if cell.place["subset"] == subset and (number := value(cell, ours)) is not None
                    )
                    for subset in ("top", "middle", "bottom")
                ]
                assert drawn(panels[title + module], "ours" if ours else "published") == {x for x in lines if x}


def test_learning_curves_are_the_printed_moments_with_their_spread() -> None:
    material = published_material("table16_init_learning_curve", "full")
    (picture,) = learning_curves(material)
    axes = by_title(picture.figure)["CoLA, rank 20"]
    for ours in BOTH:
        wanted = set()
        for init in ("random", "svd_w"):
            place = {"task": "cola", "rank": "20", "init": init}
            cells = {c.place["when"]: c for c in material.cells if place.items() <= c.place.items()}
            wanted.add(tuple(value(cells[when], ours) for when in POSITION))
        assert drawn(axes, "ours" if ours else "published") == wanted


@pytest.mark.parametrize("fill", ["none", "part"])
@pytest.mark.parametrize(("name", "draw"), [("table06_runtime", bars), ("sb_table04_decomposed_matrix", comparison)])
def test_bars_are_as_long_as_the_cells(name: str, draw: Any, fill: Any) -> None:
    material = published_material(name, fill)
    (picture,) = draw(material)
    for ours in BOTH:
        kind = "ours" if ours else "published"
        found = sorted(box.get_width() for axes in picture.figure.axes for box in axes.patches if box.get_gid() == kind)
        wanted = sorted(number for cell in material.cells if (number := value(cell, ours)) is not None)
        assert found == pytest.approx(wanted)
    words = [text.get_text() for axes in picture.figure.axes for text in axes.texts]
    assert words.count("not run") == sum(cell.ours is None for cell in material.cells)


def lines_of(losses: dict[int, float]) -> str:
    return "".join(json.dumps({"kind": "train", "step": step, "loss": loss}) + "\n" for step, loss in losses.items())


def test_loss_curves_are_means_and_bands_over_seeds_and_say_who_is_missing(tmp_path: Path) -> None:
    seeds = [{step: 2.0 - 0.1 * step + 0.3 * seed for step in range(1, 11)} for seed in range(3)]
    material = run_material(
        tmp_path,
        {
            "lora_xs": [{"lines": lines_of(losses)} for losses in seeds],
            "lora": [{"lines": lines_of(seeds[0]) + '{"kind": "train", "st'}, {}, {"status": "diverged"}],
            "lora_sb": [{}, {}],
        },
    )
    (picture,) = loss_curves(material)
    (axes,) = picture.figure.axes
    mean = tuple(statistics.fmean(losses[step] for losses in seeds) for step in range(1, 11))
    found = sorted(drawn(axes, "ours"))
    assert found == [pytest.approx(tuple(seeds[0].values())), pytest.approx(mean)]
    (band,) = [one for one in axes.collections if one.get_gid() == "band"]
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((1.0, 2.5))
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["LoRA-XS, rank 8", "LoRA, rank 8 (1/3)"]
    (notes,) = [text.get_text() for text in picture.figure.texts if text.get_gid() == "notes"]
    assert "Not run: LoRA-SB, rank 8." in notes


def test_a_step_that_was_written_twice_counts_once_and_seeds_share_their_steps(tmp_path: Path) -> None:
    twice = lines_of({1: 9.0, 2: 8.0}) + lines_of({2: 1.0, 3: 1.0})
    material = run_material(tmp_path, {"lora_xs": [{"lines": twice}, {"lines": lines_of({2: 3.0, 3: 5.0, 4: 7.0})}]})
    (picture,) = loss_curves(material)
    (line,) = [one for one in picture.figure.axes[0].get_lines() if one.get_gid() == "ours"]
    assert list(line.get_xdata()) == [2, 3] and list(line.get_ydata()) == [2.0, 3.0]


def test_the_running_mean_keeps_both_ends_and_the_mean_of_a_line() -> None:
    values = [float(n) for n in range(100)]
    assert running_mean(values) == pytest.approx(values)  # a window that is even on both sides leaves a line a line
    assert running_mean([5.0, 1.0]) == [5.0, 1.0]


def test_epoch_curves_begin_at_the_start_where_it_was_scored(tmp_path: Path) -> None:
    train = {"start": {"epoch": 0.0, "response_loss": 3.0}, "evaluations": [{"epoch": 1.0, "response_loss": 2.0}]}
    (picture,) = epoch_curves(run_material(tmp_path, {"lora_xs": [{"train": train}]}))
    assert drawn(picture.figure.axes[0], "ours") == {(3.0, 2.0)}


def test_costs_are_medians_of_runs_and_bytes_are_the_saved_files(tmp_path: Path) -> None:
    def run(seconds: float, mebibytes: float, size: int, loss: float) -> dict[str, Any]:
        train = {"seconds": {"training": seconds}, "peak_memory_mib": mebibytes, "adapter_bytes": size}
        return {"train": {**train, "best": {"response_loss": loss}}}

    runs = {"lora": [run(10, 900, 4000, 1.2), run(30, 700, 4000, 1.4), run(20, 800, 4000, 1.3)], "lora_xs": [{}]}
    material = run_material(tmp_path, runs)
    (picture,) = costs(material)
    widths = [[box.get_width() for box in axes.patches] for axes in picture.figure.axes]
    assert widths == [[20], [800]]
    assert [text.get_text() for text in picture.figure.axes[0].texts].count("not run") == 1
    (picture,) = adapter_bytes(material)
    (line,) = [one for one in picture.figure.axes[0].get_lines() if one.get_gid() == "ours"]
    assert list(line.get_xdata()) == [4000] and list(line.get_ydata()) == [1.3]


def own_cell(values: list[float], planned: int = 3, parameters: int = 0, **place: str) -> Cell:
    """A cell of ours with a reading a seed; its runs are named by where it is."""
    names = [f"{'-'.join(place.values())}-{seed}" for seed in range(planned)]
    readings = tuple(Reading(name, seed, value) for seed, (name, value) in enumerate(zip(names, values, strict=False)))
    return Cell(place, None, readings, planned, metric="pearson", parameters=parameters, signatures=tuple(names))


def own_material(cells: list[Cell], overrides: tuple[str, ...] = ()) -> Material:
    runs = [Behind(s, int(s[-1]), cell.place, overrides) for cell in cells for s in cell.signatures]
    return Material("mini", "a title", "ours", tuple(cells), tuple(runs))


def marked(axes: Any, gid: str) -> list[tuple[float, float]]:
    """The points of all lines that are marked `gid`."""
    return sorted(
        (float(x), float(y))
        for line in axes.get_lines()
        if line.get_gid() == gid
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    )


def test_a_method_of_several_ranks_is_a_line_a_rank_and_what_has_no_rate_is_told() -> None:
    scores = {("4", "1e-3"): 50.0, ("4", "1e-2"): 40.0, ("8", "1e-3"): 60.0, ("8", "1e-2"): 70.0}
    cells = [own_cell([v], 1, task="stsb", method="lora_xs", rank=r, lr=lr) for (r, lr), v in scores.items()]
    cells += [own_cell([30.0], 1, task="stsb", method="lora", rank="8", lr="1e-3")]
    cells += [
        own_cell([v], 1, task="stsb", method="head_only", head_lr=lr) for lr, v in (("1e-2", 20.0), ("1e-1", 22.0))
    ]
    (picture,) = rates(own_material(cells, ("task.train_rows=1000",)))
    (axes,) = picture.figure.axes
    assert drawn(axes, "ours") == {(50.0, 40.0), (60.0, 70.0), (30.0,)}
    assert marked(axes, "best") == [(0.001, 30.0), (0.001, 50.0), (0.01, 70.0)]
    assert [text.get_text() for text in axes.texts if text.get_gid() == "end"] == ["rank 4", "rank 8"]
    assert axes.get_title(loc="left") == "STS-B, 1,000 training rows, one seed"
    (notes,) = [text.get_text() for text in picture.figure.texts if text.get_gid() == "notes"]
    assert notes == "Not drawn, without LR: head only, 22.00 at its best (head LR 1e-1)."


def test_whiskers_of_ours_end_at_the_lowest_and_the_highest_seed() -> None:
    cells = [own_cell([80.0, 20.0, 82.0], task="stsb", method="pissa", rank="8", lr="1e-3")]
    for picture in (*rates(own_material(cells)), *bars(own_material(cells))):
        (axes,) = picture.figure.axes
        (ends,) = [one for one in axes.collections if type(one).__name__ == "LineCollection"]
        reach = {float(value) for path in ends.get_paths() for point in path.vertices for value in point}
        assert {20.0, 82.0} <= reach and max(reach) == 82.0


def glue(task: str, **found: list[float]) -> list[Cell]:
    """Cells of a task: LoRA and PiSSA train as many parameters, LoRA-XS fewer, full fine-tuning all."""
    counts = {"lora": 200_000, "pissa": 200_000, "lora_xs": 6_000, "full_ft": 22_000_000, "head_only": 0}
    return [own_cell(found.get(one, []), parameters=count, task=task, method=one) for one, count in counts.items()]


def test_the_overview_is_of_the_tasks_that_every_method_ran() -> None:
    whole = {"lora": [70.0, 72.0, 71.0], "pissa": [75.0, 10.0, 74.0], "lora_xs": [60.0], "full_ft": [80.0, 81.0]}
    (picture,) = overview(own_material([*glue("stsb", **whole, head_only=[20.0]), *glue("cola", lora=[1.0])]))
    (axes,) = picture.figure.axes
    points = marked(axes, "ours")
    assert [y for _, y in points] == [60.0, 71.0, 74.0]
    assert points[0][0] == 6_000 and points[1][0] < 200_000 < points[2][0] < 1.3 * points[1][0]
    assert [y for _, y in marked(axes, "seeds")] == [60.0, 70.0, 71.0, 72.0, 74.0, 75.0]
    assert {y for _, y in marked(axes, "level")} == {80.5} and axes.get_ylim()[0] > 20.0
    (title,) = [text.get_text() for text in picture.figure.texts if text.get_gid() == "title"]
    assert title == "MiniLM on STS-B: score against trained parameters"
    (notes,) = [text.get_text() for text in picture.figure.texts if text.get_gid() == "notes"]
    assert "1 to 3 seeds each. STS-B alone; not run by every method: CoLA." in notes
    assert "The head alone, no adapter: 20.0, below the axis." in notes and "PiSSA at 10.0" in notes


def test_the_overview_of_all_tasks_has_a_seed_s_mean_over_them() -> None:
    tasks = {"cola": 40.0, "rte": 60.0, "mrpc": 80.0, "stsb": 80.0}
    methods = ("lora", "pissa", "lora_xs", "full_ft", "head_only")
    cells = [c for task, at in tasks.items() for c in glue(task, **{one: [at, at + 1, at + 2] for one in methods})]
    (picture,) = overview(own_material(cells))
    assert "MiniLM on four GLUE tasks: mean score against trained parameters" in picture.caption
    assert "mean over CoLA, RTE, MRPC, STS-B" in picture.caption and "not run" not in picture.caption
    assert {y for _, y in marked(picture.figure.axes[0], "seeds")} == {65.0, 66.0, 67.0}
    assert overview(own_material(glue("cola"))) == []
