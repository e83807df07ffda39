"""Figures come out for any amount of evidence, say what is missing, look ours or published, and are the same twice."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from figure_material import published_material, run_material
from figures_command import figures_script

from lora_xs.reporting.figures.files import save, write_index
from lora_xs.reporting.figures.index import FIGURES, WITHOUT, draw_figures
from lora_xs.reporting.figures.picture import Picture
from lora_xs.reporting.figures.style import LOOKS, SPARE
from lora_xs.sweeps.experiment_file import experiment_names, load_experiment

ONE_OF_EACH = {
    "figure01_parameter_efficiency": ["efficiency"],
    "table04_init_summary": ["variants"],
    "table05_svd_overhead": ["bars"],
    "table10_singular_value_retention_mnli": ["spectrum"],
    "table11_delta_projection": ["projection"],
    "table13_init_grid_mrpc": ["grid"],
    "table16_init_learning_curve": ["learning"],
    "sb_table01_math": ["efficiency"],
    "sb_table_v4_init_samples": ["samples"],
}
"""An experiment a kind of figure that published numbers alone suffice for."""
SOME = ("figure01_parameter_efficiency", "table05_svd_overhead", "sb_table_v4_init_samples")


def texts(picture: Picture, gid: str) -> list[str]:
    return [text.get_text() for text in picture.figure.texts if text.get_gid() == gid]


def test_every_experiment_has_figures_or_is_known_to_have_none() -> None:
    assert set(FIGURES) | set(WITHOUT) == set(experiment_names())
    assert not set(FIGURES) & set(WITHOUT)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_published_numbers_alone_some_runs_and_all_runs_make_a_figure_that_says_so(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a layout that does not fit is a warning
        for fill, words in (("none", "not run"), ("part", "in part"))[: 1 + (name in SOME)]:
            pictures = draw_figures(published_material(name, fill))  # type: ignore[arg-type]
            assert [picture.kind for picture in pictures] == ONE_OF_EACH[name]
            assert all(words in texts(picture, "notes")[0] for picture in pictures)
        for picture in draw_figures(published_material(name, "full")):
            assert not any("Ours" in note for note in texts(picture, "notes"))
            assert not texts(picture, "synthetic")


def test_nothing_published_and_nothing_run_makes_no_figure() -> None:
    unpublished = [name for name in FIGURES if not load_experiment(name).published]
    assert len(unpublished) >= 7
    for name in unpublished:
        assert draw_figures(published_material(name, "none")) == []


def test_published_is_hollow_and_dashed_ours_filled_and_solid() -> None:
    for name in (
        "figure01_parameter_efficiency",
        "table16_init_learning_curve",
        "table08_singular_value_retention_mrpc",
    ):
        (picture,) = draw_figures(published_material(name, "full"))
        lines = [line for axes in picture.figure.axes for line in axes.get_lines() if line.get_marker() != "None"]
        ours = [line for line in lines if line.get_gid() == "ours"]
        theirs = [line for line in lines if line.get_gid() == "published"]
        assert ours and theirs
        assert all(line.get_markerfacecolor() == "white" and line.is_dashed() for line in theirs)
        assert all(line.get_markerfacecolor() == line.get_color() and not line.is_dashed() for line in ours)
        (legend,) = picture.figure.legends
        assert {"ours (filled, solid)", "published (hollow, dashed)"} <= {t.get_text() for t in legend.get_texts()}
    (picture,) = draw_figures(published_material("table06_runtime", "full"))
    boxes = picture.figure.axes[0].patches
    assert {box.get_facecolor()[:3] for box in boxes if box.get_gid() == "published"} == {(1.0, 1.0, 1.0)}
    assert (1.0, 1.0, 1.0) not in {box.get_facecolor()[:3] for box in boxes if box.get_gid() == "ours"}


def test_no_two_series_of_a_kind_share_colour_and_marker_or_a_marker_alone() -> None:
    methods = ("lora_xs", "lora_sb", "lora", "vera", "rslora", "pissa", "full_ft", "head_only", "dora", "lora_pro")
    for group in (methods, ("top", "middle", "bottom"), ("svd_w", "random", "svd_random")):
        assert len({LOOKS[one].marker for one in group}) == len(group)
        assert len({LOOKS[one].hatch for one in group}) == len(group)
    assert len({look.marker for look in SPARE}) == len(SPARE)


def test_synthetic_records_are_marked_across_the_figure(tmp_path: Path) -> None:
    (picture,) = draw_figures(published_material("table06_runtime", "full", synthetic=True))
    assert texts(picture, "synthetic") == ["SYNTHETIC"]


def test_files_are_vector_with_embedded_truetype_and_the_same_bytes_twice(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        for picture in draw_figures(published_material("table06_runtime", "part")):
            save(picture, tmp_path / folder)
    names = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert names == ["table06_runtime-bars.pdf", "table06_runtime-bars.png"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    pdf = (tmp_path / "one" / names[0]).read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf and b"/CreationDate" not in pdf
    assert b"/Subtype /Image" not in pdf
    assert (tmp_path / "one" / names[1]).read_bytes().startswith(b"\x89PNG")


def test_a_user_s_matplotlibrc_changes_nothing(tmp_path: Path) -> None:
    import matplotlib

    def picture() -> bytes:
        (one,) = draw_figures(published_material("table06_runtime", "part"))
        return save(one, tmp_path, ["png"])[0].read_bytes()

    plain = picture()
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "savefig.dpi": 50, "pdf.fonttype": 3}):
        assert picture() == plain


def test_a_figure_that_is_no_longer_drawn_is_removed_and_others_stay(tmp_path: Path) -> None:
    losses = "".join(json.dumps({"kind": "train", "step": n, "loss": 1.0}) + "\n" for n in range(3))
    train = {"seconds": {"training": 5.0}}
    material = run_material(tmp_path, {"lora": [{"lines": losses, "train": train}]})
    drawn = {"mini_math": draw_figures(material)}
    other = {"table06_runtime": draw_figures(published_material("table06_runtime", "none"))}
    folder = tmp_path / "figures"
    for picture in [*drawn["mini_math"], *other["table06_runtime"]]:
        save(picture, folder, ["png"])
    assert write_index(folder, {**drawn, **other}) == []
    removed = write_index(folder, {"mini_math": []})
    assert sorted(file.name for file in removed) == ["mini_math-costs.png", "mini_math-loss.png"]
    assert sorted(file.name for file in folder.iterdir()) == ["index.json", "table06_runtime-bars.png"]
    entry = json.loads((folder / "index.json").read_text())["table06_runtime-bars"]
    assert entry["experiment"] == "table06_runtime" and "seconds of training" in entry["caption"]


def test_the_command_draws_what_it_is_asked_for_and_refuses_in_a_line(tmp_path: Path, capsys: Any) -> None:
    script = figures_script()
    (tmp_path / "runs").mkdir()
    asked = ["experiment=table06_runtime", "--results", str(tmp_path / "runs"), "--to", str(tmp_path / "figures")]
    assert script.main([*asked, "seed=0"]) == 0
    assert "table06_runtime: table06_runtime-bars" in capsys.readouterr().out
    assert {file.suffix for file in (tmp_path / "figures").iterdir()} == {".png", ".pdf", ".json"}
    for words, complaint in (
        ([*asked, "--format", "gif"], "--format 'gif' is unknown"),
        (["seed=0"], "seed=0 goes with one experiment"),
        (["table06_runtime"], "'table06_runtime' is no override"),
        (["experiment=table06"], "table06"),
        ([*asked[:1], "--results", str(tmp_path / "nowhere")], "no such folder"),
    ):
        assert script.main(words) == 2
        said = capsys.readouterr().err
        assert complaint in said and said.count("\n") == 1


def test_drawing_needs_no_torch() -> None:
    code = (
        "import sys, lora_xs.reporting.figures.index; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
