"""A throw-away SLURM for the tests of its launcher, the sweep they submit, and questions to the cluster."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lora_xs.spec import RunSpec
from lora_xs.spec.compose import compose_spec
from lora_xs.sweeps.manifest import Line
from lora_xs.sweeps.queued import job_of
from lora_xs.sweeps.slurm import Submission

PATH = os.environ["PATH"] + os.pathsep + "/usr/sbin"  # where the daemons are
REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = ["launcher=slurm", "launcher.threads=1", "launcher.slurm.cpus_per_task=1", "launcher.slurm.minutes=20",
            "launcher.slurm.mem=100M", "launcher.slurm.runs_per_task=2"]  # fmt: skip
LONG = ["trainer.epochs=25", "trainer.checkpoint_seconds=0.3", "evaluation.every=end"]


def until(holds: Callable[[], object], what: str, seconds: float = 300) -> None:
    """Wait until `holds()`."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s: {what}\n{ask('squeue', '--array')}"
        time.sleep(0.1)


def ask(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout


def state(job: str) -> dict[str, str]:
    """JobState, ExitCode, Restarts, … of a job as `scontrol show job` has them."""
    return dict(re.findall(r"(\w+)=(\S*)", ask("scontrol", "--oneliner", "show", "job", job)))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running one-node cluster; its folder."""
    missing = [name for name in ("sbatch", "slurmctld", "slurmd", "munged") if not shutil.which(name, path=PATH)]
    if missing:
        pytest.skip(f"{missing[0]} is not installed (apt-get install --no-install-recommends slurm-wlm munge)")
    if os.geteuid() != 0:
        pytest.skip("the throw-away cluster needs root")
    pytest.importorskip("submitit")
    folder = tmp_path_factory.mktemp("slurm")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1] - 1
    environment = {**os.environ, "SLURM_LOCAL_PORT": str(port), "SLURM_LOCAL_CPUS": "2", "PATH": PATH}
    script = str(REPOSITORY / "slurm" / "slurm-local.sh")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        started = subprocess.run([script, "start", str(folder)], env=environment, timeout=60, capture_output=True)
        assert started.returncode == 0, started.stderr.decode()
        yield folder
    finally:
        subprocess.run([script, "stop", str(folder)], env=environment, timeout=90, check=False)
        del os.environ["SLURM_CONF"]


class Sweep:
    """The runs of the eventful sweep, below `results`."""

    def __init__(self, results: Path, model: Path, data: Path) -> None:
        self.results, self.common = results, [
            "task=glue/cola", "model=minilm", f"model.path={model}", f"results={results}", "rank=4",
            "trainer.epochs=2", "trainer.batch_size=16", "trainer.learning_rate=1e-2",
            "trainer.head_learning_rate=1e-2", "launcher.threads=1",
        ]  # fmt: skip
        data_root = f"data.root={data}"
        self.parent_words = [data_root, *LONG]
        self.parent = self.spec(*self.parent_words)
        self.broken = self.spec(data_root, "start_from=" + str(results / f"s0-{'0' * 12}"))
        self.long = self.spec(data_root, *LONG, "seed=1")
        self.other = self.spec(data_root, "seed=2")
        self.child = self.spec(data_root, f"start_from={self.parent.folder}")
        self.orphan = self.spec(data_root, f"start_from={self.broken.folder}")

    def spec(self, *overrides: str) -> RunSpec:
        return compose_spec([*self.common, *overrides])

    def lines(self) -> list[Line]:
        alone = [Line(spec) for spec in (self.parent, self.broken, self.long, self.other)]
        child, orphan = Line(self.child, (self.parent.signature,)), Line(self.orphan, (self.broken.signature,))
        return [*alone, child, orphan]


def job(submission: Submission, spec: RunSpec) -> str:
    """The id of the task that has `spec`."""
    for array in submission.arrays:
        if spec.signature in array.runs:
            return job_of(array.job, array.runs.index(spec.signature) % array.tasks, array.tasks)
    raise KeyError(spec.signature)


def checkout(folder: Path) -> Path:
    """A git repository with this repository's code, committed."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("lora_xs", "configs"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    for words in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "all"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True)
    return folder
