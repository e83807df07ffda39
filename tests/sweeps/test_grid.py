"""The grid of an experiment's file: products, starts, overrides, signatures once, and every mistake as one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lora_xs.errors import UserError
from lora_xs.spec import RunSpec
from lora_xs.spec.compose import compose_spec
from lora_xs.sweeps.composing import settled, spec_of
from lora_xs.sweeps.grid import Experiment, cells, expand, load_experiment, unique

HEAD = "title: a\nsource: ours\npublished: []\naggregate: {statistic: mean, of: last, seeds: [0, 3]}\n"
AXES = """\
axes:
  task: task=glue/{}
  rank: rank={}
  init: {random: [init=random], bottom: [init=svd_w_bottom, init.std=1e-4]}
"""
GRID = HEAD + "common: [method=lora_xs, trainer.epochs=2]\n" + AXES
STARTED = """\
arms:
  - over: {task: [rte, mrpc], rank: [4, 8]}
    with: [trainer.learning_rate=2e-3]
    start: {over: {task: mnli}, with: [trainer.learning_rate=5e-4]}
  - {over: {task: cola, init: [random, bottom], rank: 4}, cell: {model: tiny}, seeds: [7]}
"""
Write = Callable[..., Experiment]


@pytest.fixture
def written(tmp_path: Path) -> Write:
    def write(text: str, name: str = "mine") -> Experiment:
        file = tmp_path / f"{name}.yaml"
        file.write_text(text, encoding="utf-8")
        return load_experiment(str(file))

    return write


def by_train_py(overrides: tuple[str, ...]) -> RunSpec:
    return compose_spec(overrides)


def test_an_arm_is_the_product_of_its_axes_and_seeds(written: Write) -> None:
    runs = [run for run in expand(written(GRID + STARTED)) if "role" not in run.cell]
    assert [(run.cell, run.spec.seed) for run in runs[:3]] == [
        ({"task": "rte", "rank": "4"}, 0),
        ({"task": "rte", "rank": "4"}, 3),
        ({"task": "rte", "rank": "8"}, 0),
    ]
    assert len(runs) == 2 * 2 * 2 + 2
    spec = runs[2].spec
    assert (spec.task.name, spec.rank, spec.trainer.epochs, spec.trainer.learning_rate) == ("glue/rte", 8, 2, 2e-3)
    assert runs[-1].cell == {"task": "cola", "init": "bottom", "rank": "4", "model": "tiny"}
    assert (runs[-1].spec.init.part, runs[-1].spec.init.std, runs[-1].spec.seed) == ("bottom", 1e-4, 7)


def test_a_started_run_comes_after_the_one_run_it_needs(written: Write) -> None:
    runs = expand(written(GRID + STARTED))
    starts = {run.spec.signature: run for run in runs if run.cell.get("role") == "start"}
    assert len(starts) == 2 * 2  # a rank and seed each: both tasks share it
    seen = set()
    for run in runs:
        assert set(run.needs) <= seen
        seen.add(run.spec.signature)
        if run.needs:
            start = starts[run.needs[0]].spec
            assert (start.task.name, start.rank, start.seed) == ("glue/mnli", run.spec.rank, run.spec.seed)
            assert start.trainer.learning_rate == 5e-4
            assert run.spec.start_from.run == str(start.folder)
            assert run.spec.start_from.content == f"run {start.signature}"
            assert run.spec.trainer.warmup_ratio == 0.0  # the code's reading for started runs
    assert sum(bool(run.needs) for run in runs) == 8


@pytest.mark.parametrize("results", ["/a,b/[c]", "/it's/a b", "/{d}"])
def test_a_start_is_found_below_any_results_folder(written: Write, results: str) -> None:
    quoted = results.replace("'", "\\'")
    runs = expand(written(GRID + STARTED), [f"results='{quoted}'", "seed=0"])
    starts = {run.spec.signature: str(run.spec.folder) for run in runs}
    started = [run for run in runs if run.needs]
    assert len(started) == 4
    for run in started:
        assert run.spec.start_from.run == starts[run.needs[0]] and run.spec.start_from.run.startswith(results)
        assert by_train_py(run.overrides) == run.spec.replace(logger=by_train_py(run.overrides).logger)


def test_overrides_win_and_reach_the_starts(written: Write) -> None:
    runs = expand(written(GRID + STARTED), ["task.train_rows=64", "trainer.learning_rate=1e-2", "results=elsewhere"])
    assert {(run.spec.task.train_rows, run.spec.trainer.learning_rate) for run in runs} == {(64, 1e-2)}
    assert {Path(run.spec.start_from.run).parts[0] for run in runs if run.spec.start_from.run} == {"elsewhere"}
    alone = expand(written(GRID + STARTED), ["seed=5"])
    assert {run.spec.seed for run in alone} == {5} and len(alone) == 2 + 4 + 2


@pytest.mark.parametrize("override", ["task=glue/sst2", "rank=8", "rank.r=8", "init.std=1e-5", "init=svd_w"])
def test_what_an_axis_varies_is_not_overridden(written: Write, override: str) -> None:
    with pytest.raises(UserError, match=r"is what its axis \w+ varies; choose among its runs with --only"):
        expand(written(GRID + STARTED), [override])


def test_a_signature_is_planned_once_but_every_cell_is_known(written: Write) -> None:
    twice = GRID + "arms: [{over: {task: cola, rank: 4}}, {over: {task: cola, rank: [4, 8]}, cell: {model: tiny}}]\n"
    twice = twice.replace("  init: {random: [init=random], bottom: [init=svd_w_bottom, init.std=1e-4]}\n", "")
    experiment = written(twice)
    assert (len(list(cells(experiment))), len(expand(experiment))) == (6, 4)
    assert unique([*expand(experiment), *expand(experiment)]) == expand(experiment)


def test_cells_may_be_taken_from_another_experiment(written: Write, tmp_path: Path) -> None:
    other = written(GRID + STARTED, "other")
    take = f"arms: [{{take: {tmp_path}/other.yaml, where: {{task: rte}}, keep: [rank], seeds: [3]}}]\n"
    taken = expand(written(HEAD + take))
    assert [run.cell for run in taken if run.needs] == [{"rank": "4"}, {"rank": "8"}]
    assert len(taken) == 4
    assert {run.spec.signature for run in taken} <= {run.spec.signature for run in expand(other)}


SAMPLES = (
    ("task=glue/mrpc", "method=lora_xs", "rank=16", "seed=3", "trainer.learning_rate=1e-3"),
    ("method=lora", "task=math/metamathqa", "protocol=lora_sb", "model=gemma2-9b", "rank=32", "trainer=bf16"),
    ("task=math/gsm8k_train", "task.tests=[word_problems]", "evaluation.max_new_tokens=64"),
    ("init=random", "method=lora_xs", "rank=4", "logger.group='a, b'"),
    ("task=commonsense/all", "task.tests=[boolq]", "evaluation=end", "evaluation.max_new_tokens={boolq: 4}"),
    ("method=lora_sb", "rank.r=17", "+init.noise=1e-2", "init.matrix=update_noise"),
    ("task=glue/rte", "start_from=results/runs/x/s0-0123456789ab", "seed=${rank.r}"),
)


@pytest.mark.parametrize("overrides", SAMPLES, ids=lambda overrides: overrides[0])
def test_the_cheap_way_gives_the_run_of_train_py(overrides: tuple[str, ...]) -> None:
    cheap = spec_of(overrides)
    assert cheap == by_train_py(overrides)
    assert cheap.signature == by_train_py(overrides).signature


def test_of_two_overrides_of_a_key_the_later_stays() -> None:
    overrides = ("task=glue/mrpc", "rank=4", "seed=1", "task=glue/rte", "rank.r=8")
    assert settled(overrides) == ("seed=1", "task=glue/rte", "rank.r=8")
    assert spec_of(overrides) == by_train_py(settled(overrides))


def test_every_run_tells_the_command_that_trains_it(written: Write) -> None:
    for run in expand(written(GRID + STARTED))[::5]:
        assert by_train_py(run.overrides).signature == run.spec.signature


MISTAKES = {
    "unknown key titel; did you mean title": GRID.replace("title:", "titel:") + "arms: []\n",
    "the key arms is missing": GRID,
    "statistic: 'meen' is not allowed; choose one of median, mean": HEAD.replace("mean,", "meen,") + "arms: []\n",
    r"seeds\[1\]: '-3' must be a whole number": HEAD.replace("3]", "-3]") + "arms: []\n",
    "average: 'yes' must be true or false": HEAD.replace("]}", "], average: yes}") + "arms: []\n",
    "average goes with arms that vary task": HEAD.replace("]}", "], average: true}") + "arms: []\n",
    "the key title stands there twice": "title: b\n" + HEAD + "arms: []\n",
    "rate has no line in `axes`": GRID + "arms: [{over: {rate: 3}}]\n",
    r"arms\[0\]: over: init=top is not among the axis's values random, bottom": GRID + "arms: [{over: {init: top}}]\n",
    "axes: no arm varies rank": GRID + "arms: [{over: {task: rte, init: random}}]\n",
    "rank: '16' has no key={}; give it as a template": HEAD + "axes: {rank: 16}\narms: []\n",
    r"common\[0\]: 'fast' is no override": HEAD + "common: [fast]\narms: []\n",
    "task is an axis; name it in `over`": GRID + "arms: [{over: {rank: 4}, cell: {task: rte}}]\n",
    "start: over: task is no coordinate of this arm": GRID + "arms: [{over: {rank: 4}, start: {over: {task: mnli}}}]\n",
    "must be values that differ": GRID + "arms: [{over: {rank: [4, 4]}}]\n",
    "the key reason is missing": "title: a\nsource: b\nkind: reference\npublished: []\n",
    "is no YAML": HEAD + "arms: [\n",
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_in_a_file_names_file_key_and_mend(written: Write, message: str) -> None:
    with pytest.raises(UserError, match=message) as mistake:
        written(MISTAKES[message])
    assert "mine.yaml" in str(mistake.value) and "\n" not in str(mistake.value)


def test_a_refused_run_names_its_cell(written: Write) -> None:
    experiment = written(HEAD + "axes:\n  rank: rank.r={}\narms: [{over: {rank: [4, 4000]}}]\n")
    with pytest.raises(UserError, match=r"experiment mine: arms\[0\] at rank=4000: rank.r=4000 is above 384"):
        expand(experiment)
    with pytest.raises(UserError, match=r"trainer\.lr"):
        expand(experiment, ["trainer.lr=3"])
    with pytest.raises(UserError, match="force=true is not a property of a run"):
        expand(experiment, ["force=true"])
    with pytest.raises(UserError, match=r"data\.root= has no value"):
        settled(["task=reviews", "data.root="])


def test_what_cannot_be_taken_is_said(written: Write, tmp_path: Path) -> None:
    written(GRID + STARTED, "other")
    for arm, message in {
        "{take: nowhere}": "experiment=nowhere is unknown",
        f"{{take: {tmp_path}/other.yaml, where: {{task: sst2}}}}": "no run of other is at",
        f"{{take: {tmp_path}/other.yaml, keep: [lr]}}": "keep: lr is no coordinate of other",
        f"{{take: {tmp_path}/mine.yaml}}": "takes runs from elsewhere itself",
    }.items():
        experiment = written(HEAD + f"arms: [{arm}]\n")
        with pytest.raises(UserError, match=message):
            expand(experiment)


def test_an_unknown_experiment_is_answered_with_near_names() -> None:
    with pytest.raises(UserError, match="did you mean table01_glue"):
        load_experiment("table1_glue")
