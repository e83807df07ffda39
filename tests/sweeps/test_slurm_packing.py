"""Manifests, and which runs share a task: needs are exact, nothing is lost, nothing is there twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_xs.errors import UserError
from lora_xs.sweeps.manifest import Line, parse_slice, read_manifest, take_slice, write_manifest
from lora_xs.sweeps.packing import pack


@pytest.fixture
def runs(tiny_run) -> list[Line]:
    """Seven runs: two that others need, one that needs the first, two that need both, two alone."""
    specs = [tiny_run(f"seed={seed}") for seed in range(7)]
    first, second = specs[0].signature, specs[1].signature
    needs = [(), (), (first,), (first, second), (second, first), (), ()]
    return [Line(spec, need) for spec, need in zip(specs, needs, strict=True)]


def test_a_manifest_gives_back_its_runs_and_its_slices_cover_each_once(runs: list[Line], tmp_path: Path) -> None:
    file = tmp_path / "manifest.jsonl"
    write_manifest(file, runs)
    lines = read_manifest(file)
    assert lines == runs
    slices = [take_slice(lines, *parse_slice(f"{i}/3")) for i in range(3)]
    assert sorted(line.spec.seed for part in slices for line in part) == list(range(7))
    assert [line.spec.seed for line in slices[1]] == [1, 4]


def test_a_malformed_line_is_named(runs: list[Line], tmp_path: Path) -> None:
    file = tmp_path / "manifest.jsonl"
    write_manifest(file, runs[:1])
    file.write_text(file.read_text() + '{"spec": {}}\n')
    with pytest.raises(UserError, match=r"manifest\.jsonl:2"):
        read_manifest(file)
    for wrong in ("3/3", "1", "-1/2", "0/0"):
        with pytest.raises(UserError, match="0 ≤ I < N"):
            parse_slice(wrong)


def test_every_run_waits_for_exactly_the_tasks_of_its_needs(runs: list[Line]) -> None:
    arrays = pack(runs, runs_per_task=4, most_tasks=10)
    place = {
        run.spec.seed: (number, position % array.tasks)
        for number, array in enumerate(arrays)
        for position, run in enumerate(array.runs)
    }
    assert sorted(place) == list(range(7))
    waits = {run.spec.seed: set(array.after) for array in arrays for run in array.runs}
    both = {place[0], place[1]}
    assert waits == {0: set(), 1: set(), 2: {place[0]}, 3: both, 4: both, 5: set(), 6: set()}
    sharing = [seed for seed in place if seed > 1 and place[seed] in both]
    assert place[0] != place[1] and not sharing, "a run that others need must have a task of its own"
    assert place[3] == place[4] and place[5] == place[6], "short runs share a task"


def test_arrays_stay_within_the_clusters_limit(tiny_run) -> None:
    runs = [Line(tiny_run(f"seed={seed}")) for seed in range(11)]
    arrays = pack(runs, runs_per_task=2, most_tasks=2)
    assert [(len(array.runs), array.tasks) for array in arrays] == [(4, 2), (4, 2), (3, 2)]


def test_a_need_may_be_finished_or_queued_but_not_unknown(runs: list[Line]) -> None:
    child = runs[2:3]
    need = child[0].needs[0]
    with pytest.raises(UserError, match=f"needs the run {need}"):
        pack(child, runs_per_task=1, most_tasks=9)
    assert pack(child, runs_per_task=1, most_tasks=9, finished=need.__eq__)[0].after_jobs == ()
    assert pack(child, runs_per_task=1, most_tasks=9, queued={need: "7_1"})[0].after_jobs == ("7_1",)


def test_runs_that_need_each_other_are_refused(tiny_run) -> None:
    one, other = tiny_run("seed=1"), tiny_run("seed=2")
    circle = [Line(one, (other.signature,)), Line(other, (one.signature,))]
    with pytest.raises(UserError, match="need each other"):
        pack(circle, runs_per_task=1, most_tasks=9)
