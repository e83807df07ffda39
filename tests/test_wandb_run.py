"""wandb, the real client: offline, and against a stand-in for its server. One run a RunSpec, whatever happens to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wandb_server import KEY, StandIn

from lora_xs import preparation
from lora_xs.errors import UserError
from lora_xs.ingredients import Ingredients
from lora_xs.records import Record, read_attempt, read_record
from lora_xs.runner import run
from lora_xs.spec import canonical_json
from lora_xs.spec.sections import LoggerSpec
from lora_xs.sweeps.grid import expand, load_experiment
from lora_xs.sweeps.warm import Warm
from lora_xs.training import loggers, milestones, wandb_run

wandb = pytest.importorskip("wandb", reason="the wandb extra is not installed")
get_core_path = pytest.importorskip("wandb.util").get_core_path

OFTEN = ["logger=wandb", "logger.group=mine", "trainer.log_steps=1", "trainer.checkpoint_seconds=0"]


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nobody is logged in, and no service process, which remembers that, outlives the test."""
    wandb.teardown()
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name, value in {"NETRC": tmp_path / "netrc", "WANDB_CONFIG_DIR": tmp_path / "config", "NO_PROXY": "*"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody there
    monkeypatch.setattr(wandb_run, "_unanswered", None)
    yield
    wandb.teardown()
    for name in ("WANDB_SILENT", "WANDB_ERROR_REPORTING", "WANDB_SERVICE"):
        os.environ.pop(name, None)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The stand-in, and an account there."""
    with StandIn() as stand_in:
        monkeypatch.setenv("WANDB_BASE_URL", stand_in.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield stand_in
        wandb.teardown()


def segments(folder: Path) -> list[list[dict[str, Any]]]:
    """The records of every offline file of a run's folder, oldest first, read by wandb's own inspector."""
    files = sorted((folder / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    # what `wandb leet inspect --json <file>` runs, without paying for its imports
    inspect = [get_core_path(), "leet", "inspect", "--no-observability", "--json", "--run-file"]
    texts = [subprocess.run([*inspect, f, f.parent], capture_output=True, text=True, check=True).stdout for f in files]
    return [[json.loads(line) for line in text.splitlines()] for text in texts]


def only(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in records if record["type"] == kind]


def rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The history, without what wandb adds."""
    return [plain(record["item"]) for record in only(records, "history")]


def sent(values: dict[str, Any]) -> dict[str, Any]:
    """What of a summary wandb uploads: it leaves out what is None."""
    return {key: value for key, value in values.items() if value is not None}


def plain(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.startswith("_")}


def history(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl as wandb should have it."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in line.items() if k not in ("kind", "step") and v is not None} for line in lines]
    return [
        {"optimiser_step": line["step"]} | {f"{line['kind']}/{key}": value for key, value in row.items()}
        for line, row in zip(lines, kept, strict=True)
    ]


def summary(record: Record) -> dict[str, Any]:
    """The record's `train` block, its status and time: written down here once more, not taken from the code."""
    train = {key: value for key, value in record.train.items() if key != "evaluations"}
    rest = {"status": record.status, "error": record.run["error"], "run_seconds": record.run["seconds"]}
    return json.loads(json.dumps({**train, **rest}))


def merged(records: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """All updates of the config or summary of one file, dotted keys unfolded, without what wandb adds."""
    content: dict[str, Any] = {}
    for record in only(records, kind):
        content |= record.get("update", {})
    return {key: value for key, value in content.items() if not key.startswith("_")}


def service() -> int:
    """The process id of wandb's service, a child of this process."""
    children = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return next(int(line.split()[0]) for line in children.stdout.splitlines() if "wandb-core" in line)


def tensors(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in (folder / "adapter").rglob("*.safetensors")}


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, event: Any) -> None:
    """Let `event` happen when optimiser step `step` ends."""
    usual = milestones.Milestones.on_step_end

    def on_step_end(callback, args, state, control, **rest):
        if state.global_step == step:
            event()
        return usual(callback, args, state, control, **rest)

    monkeypatch.setattr(milestones.Milestones, "on_step_end", on_step_end)


def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_offline_run_holds_spec_history_and_record_and_changes_no_bit(
    tiny_run, tmp_path, server, monkeypatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    spec = tiny_run(*OFTEN, "trainer.epochs=1")
    record = run(spec)
    (records,) = segments(spec.folder)
    (started,) = only(records, "run")
    assert (started["run_id"], started["run_group"], started["project"]) == (spec.signature, "mine", "lora_xs")
    assert started["resume"] and "host" not in started
    assert merged(records, "config") == {**json.loads(canonical_json(spec)), "signature": spec.signature}
    assert rows(records) == history(spec.folder) and len(history(spec.folder)) == 7
    assert merged(records, "summary") == summary(record)
    assert [exited.get("exit_code", 0) for exited in only(records, "exit")] == [0]
    bare = tiny_run(
        "trainer.log_steps=1", "trainer.epochs=1", "trainer.checkpoint_seconds=0", f"results={tmp_path}/bare"
    )
    run(bare)
    assert tensors(bare.folder) == tensors(spec.folder)
    assert (bare.folder / "metrics.jsonl").read_text() == (spec.folder / "metrics.jsonl").read_text()
    written = "".join(f.read_text("latin-1") for f in (spec.folder / "wandb").rglob("*.wandb"))
    assert KEY not in written and str(tmp_path) not in written
    wandb.teardown()
    assert server.requests == 0, "an offline run uses no network"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_the_parts_of_a_killed_run_are_one_run_once_synced(tiny_run, tmp_path, server, monkeypatch) -> None:
    spec = tiny_run(*OFTEN, "logger.mode=offline", "trainer.epochs=1")
    child = os.fork()
    if child == 0:
        at_step(monkeypatch, 5, lambda: os.kill(os.getpid(), signal.SIGKILL))
        run(spec)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    record = run(spec)
    first, second = segments(spec.folder)
    assert rows(first) + rows(second) == history(spec.folder)
    assert len(rows(first)) == 4 and not only(first, "exit")
    runs = [str(folder) for folder in Path(spec.results).rglob("wandb") if folder.is_dir()]
    sync = [sys.executable, "-m", "wandb", "sync", *runs]
    subprocess.run(sync, check=True, capture_output=True, timeout=60, cwd=tmp_path)  # it keeps its log there
    (stored,) = server.runs.values()
    assert list(server.runs) == [spec.signature]
    assert [plain(row) for row in stored["rows"]] == history(spec.folder)
    assert [row["_step"] for row in stored["rows"]] == list(range(7))
    assert plain(stored["summary"]) == sent(summary(record)) and stored["group"] == "mine" and stored["exit"] == 0
    assert stored["config"]["trainer"]["value"] == json.loads(canonical_json(spec))["trainer"]


def test_online_a_run_that_was_stopped_goes_on_in_the_same_one(tiny_run, server, monkeypatch) -> None:
    spec = tiny_run(*OFTEN, "trainer.epochs=1")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        at_step(patch, 4, interrupt)
        run(spec)
    attempt = read_attempt(spec.folder)
    stored = server.runs[spec.signature]
    assert attempt is not None and stored["summary"]["status"] == "cancelled"
    assert stored["exit"] == 1 and stored["preempted"]
    record = run(spec)
    assert list(server.runs) == [spec.signature] and stored["group"] == "mine" and stored["exit"] == 0
    assert [plain(row) for row in stored["rows"]] == history(spec.folder)
    assert plain(stored["summary"]) == sent(summary(record))
    assert stored["config"]["signature"]["value"] == spec.signature
    assert not list((spec.folder / "wandb").glob("offline-run-*"))


@pytest.mark.parametrize(("status", "code"), [("finished", 0), ("diverged", 3), ("failed", 1), ("cancelled", 1)])
def test_the_outcome_is_in_the_summary_and_the_exit_code(tiny_run, status: Any, code: int) -> None:
    spec = tiny_run("logger=wandb")
    spec.folder.mkdir(parents=True)
    logger = loggers.open_logger(spec, spec.folder)
    assert logger is not None
    record = Record(status, {"error": {"what": "nothing", "step": 3}, "seconds": 1.5}, {"best": {"matthews": 7.5}})
    logger.finish(record)
    (records,) = segments(spec.folder)
    assert merged(records, "summary") == summary(record)
    assert [exited.get("exit_code", 0) for exited in only(records, "exit")] == [code]
    assert bool(only(records, "preempting")) == (status == "cancelled"), "it goes on later"


def test_a_forced_run_is_another_and_the_old_one_is_gone(tiny_run) -> None:
    spec = tiny_run("logger=wandb", "trainer.log_steps=1", "trainer.max_steps=2")
    run(spec)
    run(spec, force=True)
    (records,) = segments(spec.folder)
    assert only(records, "run")[0]["run_id"] == f"{spec.signature}-2"
    assert rows(records) == history(spec.folder)


@pytest.mark.parametrize(
    ("mode", "variable", "key", "resolved"),
    [
        ("offline", "online", True, "offline"),
        ("online", "disabled", True, "online"),
        ("auto", "offline", True, "offline"),
        ("auto", "online", True, "online"),
        ("auto", "disabled", True, "disabled"),
        ("auto", None, True, "online"),
        ("auto", None, False, "offline"),
        ("auto", "dryrun", False, "offline"),
    ],
)
def test_the_spec_wins_over_the_environment_and_auto_follows_it(
    monkeypatch, mode: Any, variable: str | None, key: bool, resolved: str
) -> None:
    if variable is not None:
        monkeypatch.setenv("WANDB_MODE", variable)
    if key:
        Path(os.environ["NETRC"]).write_text(f"machine 127.0.0.1:9 login user password {KEY}\n")
    assert wandb_run.resolve_mode(LoggerSpec(name="wandb", mode=mode)) == resolved


def test_online_without_a_key_is_refused_before_anything_is_read(tiny_run, monkeypatch) -> None:
    def read(*_: object) -> None:
        raise AssertionError("rows are read")

    monkeypatch.setattr(Ingredients, "rows", read)
    with pytest.raises(UserError, match="wandb login"):
        run(tiny_run("logger=wandb", "logger.mode=online"))
    monkeypatch.setenv("WANDB_MODE", "shared")
    with pytest.raises(UserError, match="WANDB_MODE=shared"):
        run(tiny_run("logger=wandb"))


def test_a_disabled_wandb_leaves_nothing(tiny_run, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    spec = tiny_run("logger=wandb")
    spec.folder.mkdir(parents=True)
    loggers.check_logger(spec)
    assert loggers.open_logger(spec, spec.folder) is None and not list(spec.folder.iterdir())


def test_a_server_that_does_not_answer_makes_the_run_an_offline_one(tiny_run, monkeypatch, caplog) -> None:
    monkeypatch.setattr(wandb_run, "INIT_TIMEOUT", 1.0)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        for seed in range(2):
            spec = tiny_run("logger=wandb", f"seed={seed}")
            spec.folder.mkdir(parents=True)
            logger = loggers.open_logger(spec, spec.folder)
            assert logger is not None
            logger.history([{"kind": "train", "step": 1, "epoch": 1, "loss": 0.5}])
            logger.finish(None)
            (records,) = segments(spec.folder)
            assert rows(records) == [{"optimiser_step": 1, "train/epoch": 1, "train/loss": 0.5}]
            tried = list((spec.folder / "wandb").glob("run-*"))
            assert len(tried) == (1 if seed == 0 else 0), "the second run does not wait for the same server"
    assert caplog.text.count("logger=wandb is offline, `wandb sync` uploads it later") == 1


def test_a_server_that_is_gone_at_the_end_is_not_waited_for(tiny_run, server, monkeypatch, caplog) -> None:
    monkeypatch.setattr(wandb_run, "FINISH_TIMEOUT", 1.0)
    spec = tiny_run("logger=wandb")
    spec.folder.mkdir(parents=True)
    logger = loggers.open_logger(spec, spec.folder)
    assert logger is not None and spec.signature in server.runs
    server.shutdown()
    server.server_close()
    logger.history([{"kind": "train", "step": 1, "epoch": 1, "loss": 0.5}])
    logger.finish(None)
    assert "logger=wandb failed and is off" in caplog.text


@pytest.mark.parametrize("trouble", ["service killed", "folder removed"])
def test_wandb_can_break_in_mid_run_and_the_next_run_has_it_again(tiny_run, monkeypatch, trouble: str) -> None:
    short = [*OFTEN, "logger.mode=offline", "trainer.max_steps=3"]
    spec, warm = tiny_run(*short), Warm(10**9)

    def happen() -> None:
        if trouble == "folder removed":
            shutil.rmtree(spec.folder / "wandb")
        else:
            os.kill(service(), signal.SIGKILL)
            time.sleep(0.2)

    with monkeypatch.context() as patch:
        at_step(patch, 2, happen)
        assert warm.run(spec).status == "finished"
    assert "logger=wandb failed and is off" in (spec.folder / "log.txt").read_text()
    after = tiny_run(*short, "seed=1")
    assert warm.run(after).status == "finished"
    (records,) = segments(after.folder)
    assert rows(records) == history(after.folder) and only(records, "exit")


def test_runs_of_one_process_are_runs_of_their_own_each_closed(tiny_run, monkeypatch) -> None:
    warm = Warm(10**9)
    specs = [tiny_run(*OFTEN, "logger.mode=offline", "trainer.max_steps=2", f"seed={seed}") for seed in range(2)]
    with monkeypatch.context() as patch:
        at_step(patch, 1, interrupt)
        with pytest.raises(KeyboardInterrupt):
            warm.run(specs[0])
    used = {service()}
    for spec in specs:
        warm.run(spec)
        used.add(service())
    assert len(used) == 1, "one service process for all"
    for spec in specs:
        parts = segments(spec.folder)
        assert len(parts) == (2 if spec is specs[0] else 1) and all(only(part, "exit") for part in parts)
        assert {only(part, "run")[0]["run_id"] for part in parts} == {spec.signature}
        assert [row for part in parts for row in rows(part)] == history(spec.folder)


def test_of_several_processes_the_first_alone_logs(tiny_run, monkeypatch) -> None:
    monkeypatch.setattr(preparation, "first", lambda: False)
    spec = tiny_run("logger=wandb", "trainer.max_steps=1")
    run(spec)
    assert read_record(spec.folder) is not None and not (spec.folder / "wandb").exists()


def test_the_runs_of_an_experiment_are_one_group() -> None:
    assert {planned.spec.logger.group for planned in expand(load_experiment("demo"))} == {"demo"}


def test_git_keeps_nothing_of_a_loggers_files(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[1]
    run_folder = "results/runs/glue/cola/lora_xs-r4/s0-0123456789ab"
    names = [
        "wandb/logged.json",
        "wandb/offline-run-1-a/run-a.wandb",
        "wandb/run-1-a/files/config.yaml",
        "tensorboard/x",
    ]
    asked = ["git", "-C", str(root), "check-ignore", *(f"{run_folder}/{name}" for name in names)]
    answer = subprocess.run(asked, capture_output=True, text=True)
    if answer.returncode == 128:
        pytest.skip("this copy of the code is no git checkout")
    assert len(answer.stdout.splitlines()) == len(names)
