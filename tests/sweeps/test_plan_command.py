"""`scripts/plan.py`: watching harms nothing, and two runs are compared key by key."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from planned_runs import Planned, checkpoint, hold, leave, planned, script
from rich.console import Console

from lora_xs.atomic import write_json
from lora_xs.errors import UserError
from lora_xs.sweeps.compare import compare, identity_of
from lora_xs.sweeps.devices import device_named
from lora_xs.sweeps.plan import Plan
from lora_xs.sweeps.watch import Watch, last_lines, picture, progress_of, remaining, watch

H100 = device_named("h100")


@pytest.fixture
def runs(tmp_path: Path) -> list[Planned]:
    base = planned(tmp_path, task="mrpc", rank="4")
    return [dataclasses.replace(base, spec=base.spec.replace(seed=seed)) for seed in range(4)]


def under_way(run: Planned, step: int) -> None:
    """A run that another machine trains: a lease, a checkpoint and two lines of metrics."""
    hold(run.spec.folder)
    checkpoint(run.spec.folder, step - 30)
    lines = [
        {"kind": "evaluation", "step": step - 10, "epoch": 1.0, "accuracy": 71.5},
        {"kind": "train", "step": step, "epoch": 1.2, "loss": 0.5},
    ]
    (run.spec.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "tr')


def text_of(plan: Plan) -> str:
    console = Console(width=120, file=io.StringIO())
    console.print(picture(plan))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_run_under_way_shows_step_epoch_and_score(runs: list[Planned]) -> None:
    under_way(runs[0], 140)
    plan = Watch("x", runs, H100).look()
    at = progress_of(plan.entries[0])
    assert (at.step, at.steps, at.epoch, at.score) == (140, 5750, 1.2, ("accuracy", 71.5))
    text = text_of(plan)
    assert "mrpc, 4, seed 0" in text and "140/5750" in text and "accuracy 71.50" in text


def test_what_is_left_shrinks_as_a_run_goes_on(runs: list[Planned]) -> None:
    under_way(runs[0], 140)
    sweep = Watch("x", runs[:1], H100)
    before = sweep.look().entries[0].left_hours
    (runs[0].spec.folder / "metrics.jsonl").write_text(json.dumps({"kind": "train", "step": 2875}) + "\n")
    after = sweep.look().entries[0].left_hours
    assert after == pytest.approx(before / 2, rel=0.1)


def test_the_end_is_told_from_what_is_left_and_how_many_run(runs: list[Planned]) -> None:
    sweep = Watch("x", runs, H100)
    assert remaining(sweep.look()).startswith("nothing is running; ")
    under_way(runs[0], 40)
    under_way(runs[1], 40)
    plan = sweep.look()
    hours = sum(entry.left_hours for entry in plan.entries)
    assert remaining(plan).startswith(f"about {hours / 2:.2f} h to go with 2 at once")
    for run in runs[:3]:
        (run.spec.folder / "lease.json").unlink(missing_ok=True)
        leave(run.spec, "finished")
    leave(runs[3].spec, "failed")
    assert remaining(sweep.look()) == "done: 3 finished, 0 diverged; 1 failed, see --retry"


def test_ctrl_c_stops_the_watching_and_nothing_else(runs: list[Planned], tmp_path: Path) -> None:
    under_way(runs[0], 140)

    def state() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    before, looked = state(), []
    sweep = Watch("x", runs, H100)

    def interrupted(seconds: float) -> None:
        looked.append(seconds)
        if len(looked) == 3:
            raise KeyboardInterrupt

    console = Console(width=120, file=io.StringIO(), force_terminal=True)
    plan = watch(sweep.look, console, 0.5, interrupted)
    assert plan.counts()["running"] == 1 and looked == [0.5] * 3
    assert isinstance(console.file, io.StringIO) and "the sweep goes on" in console.file.getvalue()
    assert state() == before


def test_watching_ends_by_itself_when_nothing_is_left_to_run(runs: list[Planned]) -> None:
    for run in runs[:3]:
        leave(run.spec, "finished")
    console = Console(width=120, file=io.StringIO(), force_terminal=True)
    plan = watch(Watch("x", runs, H100).look, console, 0.0, lambda _: leave(runs[3].spec, "diverged"))
    assert plan.counts()["finished"] == 3 and plan.counts()["diverged"] == 1


def test_lines_cut_by_the_window_or_a_kill_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert last_lines(file) == []
    file.write_text(
        "".join(json.dumps({"step": n, "pad": "x" * 500}) + "\n" for n in range(1000)) + '{"step": 1000, "p'
    )
    found = last_lines(file)
    assert found[-1]["step"] == 999 and 100 < len(found) < 140


Command = Callable[..., int]


@pytest.fixture
def command(runs: list[Planned], monkeypatch: pytest.MonkeyPatch) -> Command:
    for name, content in {
        "grid": {
            "load_experiment": lambda word: SimpleNamespace(name=Path(word).stem),
            "expand": lambda experiment, overrides=(): runs,
        },
        "launcher": {"split_launcher": lambda overrides: (SimpleNamespace(name="local"), list(overrides))},
    }.items():
        module = ModuleType(f"lora_xs.sweeps.{name}")
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return lambda *words: script("plan").main(list(words))


def test_status_looks_once_where_no_terminal_watches(
    command: Command, runs: list[Planned], capsys: pytest.CaptureFixture[str]
) -> None:
    under_way(runs[0], 140)
    assert command("status", "experiment=x", "--device", "h100") == 0
    assert "140/5750" in capsys.readouterr().out
    assert command("status", "experiment=x", "--json", "--only", "seed=0") == 0
    assert json.loads(capsys.readouterr().out)["counts"]["running"] == 1
    assert command("status", "experiment=/home/me/x.yaml", "--json") == 0
    assert json.loads(capsys.readouterr().out)["experiment"] == "x"
    runs.clear()
    assert command("status", "experiment=x") == 2
    assert capsys.readouterr().err == "error: experiment=x has no runs; its file says why\n"


def test_diff_names_the_keys_at_which_two_runs_differ(
    command: Command, runs: list[Planned], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = leave(runs[0].spec, "finished")
    rate = dataclasses.replace(runs[0].spec.trainer, learning_rate=5e-4)
    other = runs[0].spec.replace(seed=3, trainer=rate)
    write_json(other.folder / "spec.json", other.to_json())  # never started: no record
    assert compare(str(one), other.signature, tmp_path) == {"seed": (0, 3), "trainer.learning_rate": (1e-3, 5e-4)}
    assert command("diff", runs[0].spec.signature, str(other.folder), "--results", str(tmp_path)) == 0
    assert capsys.readouterr().out.splitlines() == ["seed: 0 → 3", "trainer.learning_rate: 0.001 → 0.0005"]
    assert command("diff", str(one), str(one)) == 0
    assert capsys.readouterr().out == "the same run\n"


def test_an_old_records_own_identity_is_compared_not_todays(runs: list[Planned]) -> None:
    folder = leave(runs[0].spec, "finished")
    content = json.loads((folder / "record.json").read_text())
    content["run"]["spec"]["protocol_version"] = 1
    write_json(folder / "record.json", content)
    assert identity_of(folder)["protocol_version"] == 1


def test_diff_says_which_run_it_cannot_find(command: Command, runs: list[Planned], tmp_path: Path) -> None:
    for name, message in {"nothing": "neither a folder nor a signature", "0123456789ab": "found none"}.items():
        with pytest.raises(UserError, match=message):
            compare(name, name, tmp_path)
    with pytest.raises(UserError, match="no record and no readable spec"):
        identity_of(tmp_path)
    assert command("diff", "nothing", "nothing") == 2
