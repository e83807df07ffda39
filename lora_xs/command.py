"""What `train.py` does: arguments in, exit status out. Mistakes answer in a line, before torch is imported."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lora_xs.environment import set_threads
from lora_xs.errors import UserError
from lora_xs.exit_status import DIVERGED, FAILED, FINISHED, INTERRUPTED, MISTAKE
from lora_xs.imports import quiet_libraries
from lora_xs.processes import asked
from lora_xs.spec import RunSpec
from lora_xs.spec.compose import compose_config, help_page, portable

if TYPE_CHECKING:
    from lora_xs.records import Record


def main(arguments: Sequence[str]) -> int:
    """Run what `arguments` (Hydra overrides and flags) describe; return the exit status."""
    flags = {a for a in arguments if a.startswith("-")}
    overrides = [a for a in arguments if not a.startswith("-")]
    if flags & {"--help", "-h"}:
        print(help_page())
        return FINISHED
    try:
        if flags - {"--cfg", "--spec"}:
            raise UserError(
                f"unknown flag {sorted(flags - {'--cfg', '--spec'})[0]}; `python train.py --help` lists them"
            )
        config = compose_config(overrides)
        if "--cfg" in flags:
            print(json.dumps(config, indent=2, ensure_ascii=False))
            return FINISHED
        force = config.pop("force")
        if not isinstance(force, bool):
            raise UserError(f"force={force!r} must be true or false")
        spec = RunSpec.from_config(config)
        if "--spec" in flags:
            print(json.dumps({"signature": spec.signature, "folder": str(spec.folder), **spec.to_json()}, indent=2))
            return FINISHED
        return _run(spec, force, overrides)
    except UserError as mistake:
        _say(f"error: {mistake}")
        return MISTAKE


def portable_command(overrides: Sequence[str], program: str = "python train.py") -> str:
    """The command for the record: without where files lie on this machine."""
    return " ".join([program, *portable(overrides)])


def show(record: Record, folder: Path, already: bool) -> None:
    """Print a run's outcome; the last line of standard output is its folder."""
    train, main = record.train, record.run["spec"]["task"]["main_metric"]
    if already:
        print(f"already finished ({record.run['started']})")
    best, last = train.get("best") or {}, train.get("last") or {}
    if record.status == "diverged":
        print(f"diverged: {record.run['error']['what']} (step {record.run['error']['step']})")
    if best and "majority" in train:
        print(
            f"{main}: best {best[main]:.2f} (epoch {best['epoch']:g}), last {last[main]:.2f}, "
            f"majority {train['majority'][main]:.2f}"
        )
    elif best:
        start = f"start {train['start'][main]:.4f}, " if train.get("start") else ""
        print(f"{main}: {start}best {best[main]:.4f} (epoch {best['epoch']:g}), last {last[main]:.4f}")
    for name, test in train.get("tests", {}).items():
        print(f"{name}: {test['points']:.2f} ± {test['standard_error']:.2f} ({test['scorer']}, n={test['n']})")
    lost, silent = ((train.get(key) or {}).get("train", 0) for key in ("truncated_rows", "silent_rows"))
    if lost:
        nothing_left = f", {silent:,} of them have nothing left to learn" if silent else ""
        print(f"cut at {record.run['spec']['task']['max_length']} tokens: {lost:,} training rows{nothing_left}")
    counts = train["parameters"]
    print(
        f"trained {counts['adapter']:,} adapter and {counts['head']:,} head parameters of {counts['total']:,} "
        f"in {train['train_seconds']:.0f} s ({train['tokens_per_second']:,.0f} tokens/s)"
    )
    print(folder)


def _run(spec: RunSpec, force: bool, overrides: Sequence[str]) -> int:
    from lora_xs.records import read_record

    folder = spec.folder
    there = next(above for above in (folder.absolute(), *folder.absolute().parents) if above.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"results={spec.results}: in {there} no folder can be made; name another")
    record = None if force or asked() > 1 else read_record(folder)  # of several processes, the first decides for all
    already = record is not None
    if record is None:
        set_threads(spec.launcher.threads, spec.launcher.wait_policy)
        quiet_libraries()
        from lora_xs.lease import RunBusy
        from lora_xs.runner import run
        from lora_xs.training.preemption import Preempted

        try:
            already = not force and read_record(folder) is not None
            record = run(spec, force=force, command=portable_command(overrides))
        except RunBusy as busy:
            _say(f"busy: {busy}")
            return FAILED
        except Preempted as stopped:
            _say(f"cancelled: {stopped}")
            return 128 + stopped.signum
        except KeyboardInterrupt:
            _say("cancelled: interrupted; the same command goes on from the last checkpoint")
            return INTERRUPTED
        except UserError:
            raise
        except Exception as failure:
            logging.getLogger(__name__).debug("failed", exc_info=True)
            _say(f"failed: {type(failure).__name__}: {failure}; see {folder / 'log.txt'}")
            if os.environ.get("LORA_XS_TRACEBACK"):
                raise
            return FAILED
    if _speaks():
        show(record, folder, already)
    return DIVERGED if record.status == "diverged" else FINISHED


def _say(trouble: str) -> None:
    if _speaks():
        print(trouble, file=sys.stderr)


def _speaks() -> bool:
    """Whether this process's words are the run's: of several that torchrun started, the first one's are."""
    return asked() == 1 or os.environ.get("RANK") == "0"
