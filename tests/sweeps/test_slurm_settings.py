"""Settings of the SLURM launcher: read, checked, turned into sbatch's options; and what is said where there is none."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lora_xs.errors import UserError
from lora_xs.spec.sections import SlurmSpec
from lora_xs.sweeps.cluster import OURS, check_gpus, sbatch_options
from lora_xs.sweeps.launcher import split_launcher
from lora_xs.sweeps.manifest import Line, read_manifest
from lora_xs.sweeps.slurm import submit

SLURM = Path(__file__).resolve().parents[2] / "slurm"


def test_launcher_overrides_are_the_sweeps_and_threads_go_on_to_its_runs() -> None:
    settings, rest = split_launcher(
        ["task=reviews", "launcher=slurm", "launcher.slurm.partition=gpu", "launcher.threads=3", "seed=1"]
    )
    assert settings.name == "slurm" and settings.slurm is not None and settings.slurm.partition == "gpu"
    assert rest == ["task=reviews", "seed=1", "launcher.threads=3", "launcher.wait_policy=passive"]
    local, rest = split_launcher(["seed=1"])
    assert local.slurm is None and rest == ["seed=1", "launcher.wait_policy=passive"]


def test_the_example_asks_sbatch_for_what_it_says() -> None:
    settings, _ = split_launcher(["launcher=slurm_example"])
    assert settings.slurm is not None
    assert sbatch_options(settings.slurm) == {
        "partition": "gpu",
        "account": "my_project",
        "gres": "gpu:1",
        "constraint": "a100|h100",
        "mem": "48G",
        "cpus-per-task": "8",
        "mail-type": "FAIL",
    }


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["launcher=slurm", "launcher.slurm.partitoin=gpu"], "launcher.slurm.partitoin"),
        (["launcher=slurm", "+launcher.slurm.partitoin=gpu"], "did you mean launcher.slurm.partition"),
        (["launcher=slurm", "launcher.slurm.minutes=1:00:00"], "launcher.slurm.minutes"),
        (["launcher=slurm", "launcher.slurm.runs_per_task=0"], "runs_per_task=0 must be at least 1"),
        (["launcher=slurm", "launcher.slurm.max_requeues=-1"], "must not be negative"),
        (["launcher=slurm", "launcher.slurm.minutes=2"], "give more minutes"),
        (["launcher=local", "launcher.slurm.partition=gpu"], "launcher.slurm.partition"),
        (["launcher=slurm", "launcher.slurm=null"], "use launcher=slurm"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        split_launcher(overrides)


def test_extra_options_cannot_undo_the_launchers_own() -> None:
    for name in (*OURS, "mem", "Mail", "x y"):
        with pytest.raises(UserError, match="is set by the launcher or no long option"):
            sbatch_options(SlurmSpec(mem="1G", extra={name: "x"}))


@pytest.mark.parametrize(("gres", "enough"), [("gpu", 1), ("gpu:4", 4), ("gpu:h100:8", 8), ("shard:2", 9), (None, 9)])
def test_a_run_of_several_processes_needs_as_many_gpus(gres: str | None, enough: int) -> None:
    check_gpus(SlurmSpec(gres=gres), enough)
    if enough < 9:
        with pytest.raises(UserError, match=rf"give launcher\.slurm\.gres=gpu:{enough + 1} to these runs alone"):
            check_gpus(SlurmSpec(gres=gres), enough + 1)


def test_without_sbatch_the_manifests_are_left_with_the_command_to_submit_by_hand(
    tiny_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: None)
    settings, _ = split_launcher(["launcher=slurm", f"launcher.slurm.folder={tmp_path / 'sweeps'}"])
    runs = [Line(tiny_run(f"seed={seed}")) for seed in range(5)]
    with pytest.raises(UserError, match=r"by hand: sbatch --array=0-1 slurm/sweep\.sbatch ") as refused:
        submit(runs, settings, name="by_hand")
    manifest = next((tmp_path / "sweeps").rglob("*.jsonl"))
    assert f"{manifest} 2" in str(refused.value) and "\n" not in str(refused.value)
    assert [line.spec.signature for line in read_manifest(manifest)] == [run.spec.signature for run in runs]


def test_scripts_are_sound_shell() -> None:
    for name in ("sweep.sbatch", "slurm-local.sh"):
        subprocess.run(["bash", "-n", str(SLURM / name)], check=True)
