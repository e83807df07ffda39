"""Parts of the report by themselves: costs beside estimates, what is kept, what sorts, what a mistake says."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from figure_material import published_material, run_material
from report_reader import REPOSITORY, report_script
from synthetic import record_of

from lora_xs.records import Record
from lora_xs.reporting.figures.files import save_png
from lora_xs.reporting.figures.raster import png_of
from lora_xs.reporting.html.anchors import Anchors, slug
from lora_xs.reporting.html.costs import costs_of, estimated_hours
from lora_xs.reporting.html.drawing import draw, draw_all
from lora_xs.reporting.html.grid import Box
from lora_xs.reporting.html.kept import place_of
from lora_xs.reporting.html.ledger import error_words, flat, relative
from lora_xs.reporting.planned import planned_runs
from lora_xs.spec import RunSpec
from lora_xs.sweeps.cost import estimate
from lora_xs.sweeps.devices import devices

WHOLE = Path(__file__).resolve().parents[2] / "results" / "part.html"


@pytest.fixture(scope="module")
def planned() -> RunSpec:
    from lora_xs.sweeps.grid import cells, load_experiment

    return next(run.spec for run in cells(load_experiment("mini_math")) if run.spec.method.name == "lora")


def measured(spec: RunSpec, hours: float) -> Record:
    """A finished record as the runner writes one: the spec's identity, without what cannot change a result."""
    from lora_xs.spec.identity import plain

    identity = {"protocol_version": 2, **plain(spec, identity_only=True)}
    run = {"signature": spec.signature, "seed": 0, "spec": json.loads(json.dumps(identity)), "seconds": 3600 * hours}
    train = {"seconds": {"training": 3000.0 * hours, "adapter": 2.0}, "peak_memory_mib": 1000.0, "tokens": 10}
    hardware = {"cpu": "a processor", "gpu": None}
    return Record("finished", run, train, {"hardware": hardware, "threads": {"torch": 2}, "world_size": 1})


def test_hours_taken_stand_beside_those_a_plan_would_have_said(planned: RunSpec) -> None:
    record = measured(planned, 0.5)
    two_threads = planned.replace(launcher=dataclasses.replace(planned.launcher, threads=2))
    assert estimated_hours(record) == pytest.approx(estimate(two_threads, devices()["cpu2"]).gpu_hours)
    record.environment["hardware"] = {"gpu": "a card of no known make"}
    assert estimated_hours(record) is None


def test_a_record_without_a_whole_spec_has_no_estimate() -> None:
    (run, *_) = planned_runs("demo")
    assert estimated_hours(record_of(run, {})) is None


def test_costs_are_medians_the_highest_memory_and_sums_of_hours(tmp_path: Path) -> None:
    runs = [
        {"train": {"seconds": {"training": seconds, "adapter": 1.0}, "peak_memory_mib": memory}}
        for seconds, memory in ((10.0, 100.0), (30.0, 300.0), (20.0, 200.0))
    ]
    material = run_material(tmp_path, {"lora": runs, "lora_xs": [{}, {}]})
    for place, record in enumerate(material.records.values(), start=1):
        record.run["seconds"] = 3600.0 * place
    costs = costs_of(material)
    assert costs is not None and costs.hours == 6.0
    ((row,),) = (body.rows for body in costs.grid.bodies)
    assert [box.text for box in row] == [
        "LoRA, rank 8", "3", "20.0", "1.00", "6.000", "–", "–", "300", "–", "–", "–",
    ]  # fmt: skip
    assert costs_of(run_material(tmp_path / "none", {"lora": [{}]})) is None


def test_figures_are_kept_until_a_number_a_loss_or_the_code_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_XS_CACHE", str(tmp_path / "cache"))
    material = published_material("table06_runtime", "part")
    first = draw_all([material], 1)
    monkeypatch.setattr("lora_xs.reporting.html.drawing.draw", lambda one: pytest.fail("drawn again"))
    assert draw_all([material], 1) == first
    place = place_of(material)
    assert place is not None and place.is_file()
    assert place_of(published_material("table06_runtime", "full")) != place
    folder = tmp_path / "run"
    folder.mkdir()
    with_run = dataclasses.replace(material, folders={"abc": folder})
    before = place_of(with_run)
    (folder / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "loss": 1.0}\n')
    assert place_of(with_run) != before
    place.write_text("[{")  # cut short: drawn again
    monkeypatch.undo()
    monkeypatch.setenv("LORA_XS_CACHE", str(tmp_path / "cache"))
    assert draw_all([material], 1) == first


def test_a_picture_of_few_colours_keeps_every_colour_near_its_own() -> None:
    import io

    import numpy as np
    from PIL import Image

    from lora_xs.reporting.figures.index import draw_figures
    from lora_xs.reporting.figures.raster import DPI
    from lora_xs.reporting.figures.style import styled

    (picture,) = draw_figures(published_material("table13_init_grid_mrpc", "full"))
    whole = io.BytesIO()
    with styled():
        picture.figure.savefig(whole, format="png", dpi=DPI)
    true, small = (
        np.asarray(Image.open(file).convert("RGB")).astype(int) for file in (whole, io.BytesIO(png_of(picture)))
    )
    assert np.abs(true - small).max() <= 24
    assert len(png_of(picture)) < 0.5 * len(whole.getvalue())


def test_the_words_for_those_who_cannot_see_a_figure_say_what_is_missing() -> None:
    (one,) = draw(published_material("table06_runtime", "none"))
    assert "LoRA-XS Table 6" in one.alt and "Ours: not run" in one.alt
    assert (one.width, one.height) == (980, one.height) and one.height > 100


@pytest.mark.parametrize(
    ("text", "sort", "apart"),
    [
        ("94.72 ± 0.20 (n=5)", "94.7215", False),
        ("−0.80", "-0.8", False),
        ("1,234", "1234", False),
        ("355000K", "355000000", True),
        ("78.42G", "78420000000", True),
        ("3/5", "3", True),
        ("missing (0/3)", "", True),
    ],
)
def test_a_number_is_told_apart_only_where_its_text_does_not_begin_with_it(text: str, sort: str, apart: bool) -> None:
    assert Box(text, "ours", sort).sorts_apart is apart
    assert Box(text, "ours", sort, marks="1").sorts_apart  # "94.7¹" is not 94.71


def test_anchors_are_unique_and_without_markup() -> None:
    anchors = Anchors()
    assert slug("a b/<c>") == "a-b-c"
    assert [anchors.new(["t", "x y"]), anchors.new(["t", "x/y"]), anchors.new(["<>"])] == ["t--x-y", "t--x-y-2", "x"]


def test_folders_are_told_from_the_results_folder_and_no_higher(tmp_path: Path) -> None:
    folder = tmp_path / "secret" / "results" / "math" / "s0-1"
    assert relative(folder, [tmp_path / "secret" / "results"]) == "results/math/s0-1"
    assert list(flat({"b": {"c": [1, 2]}, "a": None})) == [("b.c", "1, 2")]


def test_an_error_is_told_as_people_say_it() -> None:
    assert error_words({"what": "one answer for all", "step": 12}) == "one answer for all, at step 12"
    assert error_words({"what": "nan at optimiser step 12", "step": 12}) == "nan at optimiser step 12"
    assert error_words({"what": "cut"}) == error_words("cut") == "cut" and error_words(None) == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["experiment=table01_gleu"], "experiment=table01_gleu is unknown; did you mean table01_glue"),
        (["results=/nowhere/at/all"], "no such folder"),
        (["runs"], "'runs' is nothing this command takes"),
        (["statistic=mean"], "'statistic=mean' is nothing this command takes"),
        (["processes=none"], "processes=none is no count"),
    ],
)
def test_mistakes_of_the_report_are_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report_script().main([*words, f"to={tmp_path / 'x.html'}"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and message in captured.err and captured.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_page_goes_to_a_file_and_a_part_of_it_beside_the_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, message in (
        (["experiment=demo"], "experiment= makes a part of the page, which would replace the whole; add to=FILE"),
        (
            ["experiment=demo", f"to={WHOLE}"],
            f"to={WHOLE}: a part's tables and claims would replace the whole ones there",
        ),
        (["experiment=demo", f"to={tmp_path}"], f"to={tmp_path} is a folder; name the file in it"),
    ):
        assert report_script().main([*words, "results=/nowhere"]) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith(f"error: {message}") and captured.err.count("\n") == 1


def test_a_pdf_of_other_numbers_goes_and_one_of_the_same_stays(tmp_path: Path) -> None:
    png, pdf = tmp_path / "a.png", tmp_path / "a.pdf"
    png.write_bytes(b"old")
    pdf.touch()
    save_png("a", b"old", tmp_path)
    assert pdf.is_file()
    save_png("a", b"new", tmp_path)
    assert png.read_bytes() == b"new" and not pdf.exists()


def test_the_report_needs_no_torch(tmp_path: Path) -> None:
    code = "import sys; from report_reader import report_script; assert report_script().main(sys.argv[1:]) == 0;"
    code += "assert not {'torch', 'transformers', 'datasets', 'peft'} & set(sys.modules)"
    (tmp_path / "runs").mkdir()
    words = ["experiment=demo", f"results={tmp_path / 'runs'}", f"to={tmp_path / 'x.html'}"]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{Path(__file__).parent}"}
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
