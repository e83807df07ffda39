"""One run over two processes is the run of one: same batches, losses, weights and scores; and it never hangs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from interrupted import killed_at
from same_runs import assert_same_run, spec_of

from lora_xs.command import main
from lora_xs.errors import UserError
from lora_xs.records import read_attempt, read_record
from lora_xs.runner import run
from lora_xs.training.batches import BatchOrder, WeightedOrder
from lora_xs.training.shares import MicroBatches, ScoredRows

SCRIPT = Path(__file__).with_name("runs_of_ranks.py")
LABELS = ("lora_xs", "lora", "lora_sb", "full_ft")


def test_two_processes_are_one_run_for_labels_and_responses_whatever_the_method(
    still_overrides: list[str], decoder_overrides: list[str], tmp_path: Path
) -> None:
    settings = [[*still_overrides, f"method={method}"] for method in LABELS]
    settings[0].append("init.std=0.1")
    decoder_overrides = [*decoder_overrides, "evaluation.generation_tokens=1"]  # a batch a question
    settings += [[*decoder_overrides, "trainer.loss=tokens"],
                 [*decoder_overrides, "trainer.loss=micro_batches", "trainer.loss_rows=2", "method=lora_sb",
                  "init.samples=5", "init.batch_size=2"]]  # fmt: skip
    rates = ["trainer.learning_rate=1e-3"]
    alone = [spec_of(*s, *rates, f"results={tmp_path}/one") for s in settings]
    split = ["trainer.processes=2", "trainer.device_batch_size=2", "evaluation.batch_size=8"]
    together = [spec_of(*s, *rates, f"results={tmp_path}/two", *split) for s in settings]
    assert [s.signature for s in alone] == [s.signature for s in together]
    plan = tmp_path / "specs.json"
    plan.write_text(json.dumps([spec.to_json() for spec in together]))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    started = subprocess.Popen([*torchrun, str(SCRIPT), str(plan)], stderr=subprocess.PIPE)
    for spec in alone:
        run(spec)
    _, errors = started.communicate(timeout=200)
    assert started.returncode == 0, errors.decode()[-2000:]
    assert Path(f"{plan}.0").read_text() == Path(f"{plan}.1").read_text()
    for one, two in zip(alone, together, strict=True):
        assert_same_run(one, two)
        record = read_record(two.folder)
        assert record.environment["world_size"] == 2
        assert not list(two.folder.glob("checkpoints")) and not (two.folder / "lease.json").exists()
    tests = [read_record(spec.folder).train["tests"]["word_problems"] for spec in (alone[4], together[4])]
    assert tests[0]["scores"] == tests[1]["scores"] and tests[0]["tokens"] == tests[1]["tokens"]
    answers = [(s.folder / "generations" / "word_problems.jsonl").read_text() for s in (alone[4], together[4])]
    assert answers[0] == answers[1] and len(answers[0].splitlines()) == 4  # three batches, shared by two


@pytest.mark.parametrize(("rows", "batch", "held", "ranks"), [(33, 16, 3, 2), (7, 4, 2, 3), (5, 5, 5, 4), (1, 8, 8, 2)])
def test_shares_hold_every_row_of_every_step_once_and_all_take_equally_many_passes(
    rows: int, batch: int, held: int, ranks: int
) -> None:
    lengths = [3 + row % 5 for row in range(rows)]
    order = WeightedOrder(lengths, [2] * rows, batch, 0, None)
    shares = [list(MicroBatches(order, held, rank, ranks)) for rank in range(ranks)]
    assert {len(share) for share in shares} == {len(MicroBatches(order, held, 0, ranks))}
    assert all(len(micro) <= held for share in shares for micro in share)
    at, passes = 0, [-(-len(step) // (held * ranks)) for step in order.batches()]
    for step, count in zip(order.batches(), passes, strict=True):
        found = [row for share in shares for micro in share[at : at + count] for row in micro]
        assert sorted(found) == sorted(step)  # each with its weight
        at += count
    alone = BatchOrder(lengths, batch, 0)
    assert [row for micro in MicroBatches(alone, held, 0, 1) for row in micro] == list(alone)


@pytest.mark.parametrize(("rows", "held", "ranks"), [(37, 8, 2), (2, 4, 3), (9, 3, 3)])
def test_every_row_is_scored_once(rows: int, held: int, ranks: int) -> None:
    shares = [list(ScoredRows(rows, held, rank, ranks)) for rank in range(ranks)]
    assert {len(share) for share in shares} == {len(ScoredRows(rows, held, 0, ranks))}
    assert sorted(row for share in shares for batch in share for row in batch) == list(range(rows))
    assert [row for batch in ScoredRows(rows, held, 0, 1) for row in batch] == list(range(rows))


def test_the_command_starts_its_processes_and_goes_on_where_one_process_stood(
    decoder_overrides: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = [*decoder_overrides, "task.tests=[]"]
    undisturbed = spec_of(*settings, f"results={tmp_path}/whole")
    run(undisturbed)
    words = [*settings, f"results={tmp_path}/both", "trainer=ddp2", "trainer.checkpoint_seconds=0"]
    both = spec_of(*words)
    with killed_at(3):
        run(spec_of(*words, "trainer.processes=1"))
    assert main(words) == 0
    assert capfd.readouterr().out.splitlines()[-1] == str(both.folder)
    assert_same_run(undisturbed, both)
    assert "process 1" not in (both.folder / "log.txt").read_text()
    assert main(words) == 0 and "already finished" in capfd.readouterr().out


def wait_for(what, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.02)


def started(words: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(SCRIPT.parents[2] / "train.py"), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ranks_of(parent: int) -> list[int]:
    """The processes that `parent` started, in the order of their numbers."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes through /proc")
LONG = ("trainer.epochs=400", "trainer.checkpoint_seconds=0", "evaluation=end")


@linux
def test_a_stop_reaches_all_processes_at_one_step_and_a_death_ends_the_run(
    decoder_overrides: list[str], tmp_path: Path
) -> None:
    words = [*decoder_overrides, "task.tests=[]", *LONG, f"results={tmp_path}", "trainer=ddp2"]
    spec = spec_of(*words)
    first = started(words)
    wait_for(lambda: list(spec.folder.glob("checkpoints/step-*")))
    ranks = ranks_of(first.pid)
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait(60) == 128 + signal.SIGTERM
    assert read_attempt(spec.folder).status == "cancelled"
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks) and len(ranks) == 2
    stopped_at = max(int(p.name.removeprefix("step-")) for p in spec.folder.glob("checkpoints/step-*"))

    again = started(words)
    wait_for(lambda: (spec.folder / "checkpoints" / f"step-{stopped_at + 3:08d}").exists() or again.poll() is not None)
    os.kill(ranks_of(again.pid)[1], signal.SIGKILL)
    assert again.wait(100) == 1
    attempt = read_attempt(spec.folder)
    assert attempt.status == "failed" and not (spec.folder / "lease.json").exists()
    assert "process 1 of 2 was ended by SIGKILL" in again.stderr.read().decode()


def test_processes_that_cannot_be_one_run_are_refused(
    still_overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = f"results={tmp_path}"
    with pytest.raises(UserError, match=r"trainer.processes=17 is more than the trainer.batch_size=16 rows"):
        spec_of(*still_overrides, results, "trainer.processes=17")
    with pytest.raises(UserError, match="needs several processes"):
        run(spec_of(*still_overrides, results, "trainer.sharding=fsdp"))
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match=r"trainer\.processes=2, but this is one of 3"):
        run(spec_of(*still_overrides, results, "trainer=ddp2"))
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="WORLD_SIZE=3 is set but LOCAL_RANK is not"):
        run(spec_of(*still_overrides, results))
    for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=r"trainer\.sharding=fsdp needs GPUs"):
        run(spec_of(*still_overrides, results, "trainer=fsdp2"))
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="this machine has 1 GPUs"):
        run(spec_of(*still_overrides, results, "trainer=ddp2"))


def test_one_process_uses_one_gpu_of_several(tiny_run, tmp_path: Path) -> None:
    from lora_xs.training.arguments import one_device, training_arguments

    arguments = training_arguments(tiny_run(), tmp_path)
    arguments._n_gpu = 2  # what the library sets where it sees two
    assert one_device(arguments).train_batch_size == arguments.per_device_train_batch_size
