"""App. E and F on a tiny model: against numpy, at their ends, interrupted, and asked for what is not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import by_numpy
import pytest
import torch
from interrupted import Killed
from safetensors.torch import load_file

from lora_xs.adapters.svd import truncated_svd
from lora_xs.analysis import study as room
from lora_xs.analysis.finetuned import FineTuned, finished_run, rebuild
from lora_xs.analysis.projection import Projection, project
from lora_xs.analysis.record import find_analyses, read_analysis
from lora_xs.analysis.spectrum import Spectrum, keep_part
from lora_xs.analysis.study import Settings, Window
from lora_xs.errors import UserError
from lora_xs.lease import Lease, RunBusy
from lora_xs.records import Record

PATTERNS = {
    "query": r"bert\.encoder\.layer\.\d\.attention\.self\.query\.weight",
    "attention.output.dense": r"bert\.encoder\.layer\.\d\.attention\.output\.dense\.weight",
    "intermediate.dense": r"bert\.encoder\.layer\.\d\.intermediate\.dense\.weight",
    "output.dense": r"bert\.encoder\.layer\.\d\.output\.dense\.weight",
}
SIDE = 32  # of the tiny model: singular triplets of each of its matrices


def rebuilt(folder: Path) -> FineTuned:
    record, spec = finished_run(folder)
    return rebuild(folder, record, spec, which="best", rows=None, data=None)


def lines(folder: Path, name: str = "spectrum") -> list[dict]:
    """The points' lines, without what depends on the clock."""
    text = (folder / "analysis" / f"{name}.jsonl").read_text()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in text.splitlines()]


def test_the_weights_as_they_are_score_what_the_run_recorded(tuned_folder: Path, tuned_record: Record) -> None:
    scores = rebuilt(tuned_folder).scores()
    best = tuned_record.train["best"]
    assert best["matthews"] != 0 and scores["matthews"] == best["matthews"] and scores["loss"] == best["loss"]


def test_keeping_every_singular_value_is_exactly_the_fine_tuned_model(tuned_folder: Path, tuned_record: Record) -> None:
    record, _ = Spectrum().run(tuned_folder, Settings(fractions=(1.0,)))
    best = tuned_record.train["best"]
    assert len(record.points) == 6 * 3
    for point in record.points:
        assert (point["share"], point["triplets"]) == (1.0, SIDE)
        assert all(point["scores"][key] == best[key] for key in ("matthews", "loss"))
    tuned = rebuilt(tuned_folder)
    weight = tuned.weight(tuned.kinds["output.dense"][0])
    assert torch.allclose(keep_part(truncated_svd(weight, SIDE), slice(0, SIDE)), weight, atol=1e-5)


@pytest.mark.parametrize("module", PATTERNS)
def test_keeping_none_is_matrices_of_zeros(tuned_folder: Path, tiny_model: Path, tiny_data: Path, module: str) -> None:
    record, _ = Spectrum().run(tuned_folder, Settings(modules=(module,), fractions=(0.0,)))
    zeros = by_numpy.loss_with(tuned_folder, tiny_model, tiny_data, PATTERNS[module], lambda _, after: 0 * after)
    assert [point["subset"] for point in record.points] == ["top", "middle", "bottom"]
    for point in record.points:
        assert point["scores"]["loss"] == pytest.approx(zeros, abs=1e-5) and point["share"] == 0.0
        assert abs(point["scores"]["loss"] - record.unchanged["loss"]) > 1e-4


@pytest.mark.parametrize("module", ["query", "intermediate.dense", "output.dense"])
@pytest.mark.parametrize(
    ("study", "derived"), [(Spectrum(), by_numpy.kept), (Projection(), by_numpy.projected)], ids=["E", "F"]
)
def test_every_part_is_what_numpy_derives(
    tuned_folder: Path, tiny_model: Path, tiny_data: Path, study: room.Study, derived, module: str
) -> None:
    record, _ = study.run(tuned_folder, Settings(modules=(module,), fractions=(0.1, 0.5)))
    losses = set()
    for point in record.points:
        count = {0.1: 3, 0.5: 16}[point["retained_fraction"]]
        assert point["triplets"] == count
        change = derived(count, point["subset"])
        expected = by_numpy.loss_with(tuned_folder, tiny_model, tiny_data, PATTERNS[module], change)
        assert point["scores"]["loss"] == pytest.approx(expected, abs=3e-6)
        losses.add(round(expected, 6))
    assert len(losses) >= 5  # the parts can be told apart, but for two of the least


def test_projection_on_all_of_w_gives_the_fine_tuned_weights_of_square_matrices(tuned_folder: Path) -> None:
    tuned = rebuilt(tuned_folder)
    seen = set()
    for names in tuned.kinds.values():
        for name in names:
            base, weight = tuned.base[name], tuned.weight(name)
            svd = truncated_svd(base, SIDE)
            error = (base + project(weight - base, svd, slice(0, SIDE)) - weight).abs().max()
            seen.add(base.shape[0] == base.shape[1])
            if base.shape[0] == base.shape[1]:
                assert error < 1e-5 and (weight - base).abs().max() > 1e-3
            else:  # what of the change lies outside W's column or row space is left out
                assert error > 1e-4
    assert seen == {True, False}
    record, _ = Projection().run(tuned_folder, Settings(modules=("query",), fractions=(1.0,)))
    assert record.points[0]["scores"]["loss"] == pytest.approx(record.unchanged["loss"], abs=1e-5)
    assert record.points[0]["share"] == pytest.approx(1.0, abs=1e-5)


def test_the_changed_weights_come_back_bit_for_bit(tuned_folder: Path) -> None:
    tuned = rebuilt(tuned_folder)
    before = {name: tensor.clone() for name, tensor in tuned.model.state_dict().items()}
    (name, *_) = tuned.kinds["value"]
    with pytest.raises(RuntimeError, match="in between"), tuned.replaced({name: torch.zeros(SIDE, SIDE)}):
        assert not tuned.weight(name).any()
        raise RuntimeError("in between")
    assert all(torch.equal(tensor, before[name]) for name, tensor in tuned.model.state_dict().items())
    on_disk = load_file(tuned_folder / "adapter" / "best" / "model.safetensors")
    assert torch.equal(tuned.weight(name), on_disk[f"{name}.weight"])


@pytest.mark.parametrize("passes", [1, 2, 5])
def test_a_killed_analysis_goes_on_to_the_same_file(
    tuned_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: int
) -> None:
    whole = shutil.copytree(tuned_folder, tmp_path / "whole")
    settings = Settings(modules=("query", "output.dense"), fractions=(0.0, 0.5, 1.0))
    expected, _ = Spectrum().run(whole, settings)
    usual, calls = FineTuned.scores, []

    def scores(tuned: FineTuned) -> dict:
        calls.append(1)
        if len(calls) == passes + 1:
            raise Killed
        return usual(tuned)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(FineTuned, "scores", scores)
        Spectrum().run(tuned_folder, settings)
    assert read_analysis(tuned_folder / "analysis" / "spectrum.json") is None
    with open(tuned_folder / "analysis" / "spectrum.jsonl", "ab") as file:
        file.write(b'{"module": "query", "retained_fra')  # the kill came in the middle of a line
    scored = len(calls)
    with monkeypatch.context() as patch:
        patch.setattr(FineTuned, "scores", lambda tuned: (calls.append(1), usual(tuned))[1])
        found, already = Spectrum().run(tuned_folder, settings)
    assert not already and lines(tuned_folder) == lines(whole)
    # as they are, and two times: nothing kept, three halves
    assert len(calls) - scored == 1 + 2 * 4 - (passes - 1), "what was scored is not scored again"
    strip = [{k: v for k, v in point.items() if k != "seconds"} for point in expected.points]
    assert [{k: v for k, v in point.items() if k != "seconds"} for point in found.points] == strip
    assert (found.unchanged, found.settings) == (expected.unchanged, expected.settings)


def test_a_finished_analysis_is_shown_and_more_fractions_are_added(
    tuned_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(modules=("query",), fractions=(0.5,))
    first, already = Spectrum().run(tuned_folder, settings, command="python scripts/analyse.py spectrum")
    assert not already and [f.name for f in find_analyses(tuned_folder)] == ["spectrum"]
    assert first.environment["versions"]["torch"] == torch.__version__
    assert len(first.environment["model"]["files"]["model.safetensors"]) == 64
    with monkeypatch.context() as patch:
        patch.setattr(room, "rebuild", lambda *_, **__: pytest.fail("the weights were read again"))
        assert Spectrum().run(tuned_folder, settings) == (first, True)
    more, already = Spectrum().run(tuned_folder, Settings(modules=("query",), fractions=(0.5, 0.25)))
    assert not already and more.settings["fractions"] == [0.25, 0.5] and len(more.points) == 6
    assert [p for p in more.points if p["retained_fraction"] == 0.5] == first.points


def test_fewer_rows_and_other_weights_are_files_of_their_own(tuned_folder: Path) -> None:
    common = {"modules": ("query",), "fractions": (0.5,)}
    Spectrum().run(tuned_folder, Settings(rows=7, **common))
    last, _ = Spectrum().run(tuned_folder, Settings(which="last", **common))
    assert {f.name for f in (tuned_folder / "analysis").glob("*.json")} == {"spectrum-7rows.json", "spectrum-last.json"}
    record, _ = finished_run(tuned_folder)
    assert last.unchanged["loss"] == record.train["last"]["loss"]


def test_points_of_weights_that_were_trained_again_are_dropped(tuned_folder: Path) -> None:
    settings = Settings(modules=("query",), fractions=(0.5,))
    Spectrum().run(tuned_folder, settings)
    content = json.loads((tuned_folder / "record.json").read_text())
    content["run"]["started"] = "2001-01-01T00:00:00+00:00"
    (tuned_folder / "record.json").write_text(json.dumps(content))
    again, already = Spectrum().run(tuned_folder, settings)
    assert not already and again.run["started"] == content["run"]["started"]
    assert len(lines(tuned_folder)) == 1 + 3


def test_another_process_is_not_disturbed(tuned_folder: Path) -> None:
    with Lease(tuned_folder / "analysis"), pytest.raises(RunBusy):
        Spectrum().run(tuned_folder, Settings())


def test_mistakes_are_named(trained: Callable[[str], Path], tuned_folder: Path, tmp_path: Path) -> None:
    def asked(folder: Path, **settings) -> None:
        Spectrum().run(folder, Settings(**settings))

    with pytest.raises(UserError, match="holds no run; give the folder of a finished run"):
        asked(tmp_path / "nothing")
    with pytest.raises(UserError, match="method=lora_xs; the analyses are of all weights"):
        asked(trained("lora_xs"))
    with pytest.raises(UserError, match="--modules q_proj: this model has none; choose from query, key, value"):
        asked(tuned_folder, modules=("q_proj",))
    with pytest.raises(UserError, match=r"--fractions 1\.5: a fraction of the singular values is from 0 to 1"):
        asked(tuned_folder, fractions=(0.1, 1.5))
    (tuned_folder / "adapter" / "last" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no model\.safetensors; git keeps no weights"):
        asked(tuned_folder, which="last")
    (tuned_folder / "record.json").rename(tuned_folder / "attempt.json")
    with pytest.raises(UserError, match=r"is not finished; `train\.py` goes on with it"):
        asked(tuned_folder)


def test_other_rows_than_the_runs_are_refused_and_moved_ones_found(
    tuned_folder: Path, tiny_data: Path, tmp_path: Path
) -> None:
    settings = Settings(modules=("query",), fractions=(0.5,))
    moved = shutil.copytree(tiny_data, tmp_path / "moved")
    expected, _ = Spectrum().run(tuned_folder, settings, data=str(moved))
    assert len(expected.points) == 3
    file = moved / "glue" / "cola" / "validation.jsonl"
    file.write_text(file.read_text().replace("cat", "dog", 1))
    with pytest.raises(UserError, match="its data is not what lies here now"):
        Projection().run(tuned_folder, settings, data=str(moved))


@pytest.mark.parametrize(
    ("fraction", "subset", "expected"),
    [
        (0.1, "top", (0, 102)), (0.1, "middle", (461, 102)), (0.1, "bottom", (922, 102)), (0.9, "top", (0, 922)),
        (0.0, "bottom", (0, 0)), (1.0, "middle", (0, 1024)), (0.01, "bottom", (1014, 10)), (1e-6, "top", (0, 1)),
    ],
)  # fmt: skip
def test_a_window_is_the_nearest_whole_number_of_triplets(fraction: float, subset: str, expected: tuple) -> None:
    window = Window.of(fraction, subset, 1024)
    assert (window.first, window.count) == expected
