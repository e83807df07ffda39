"""One wandb run a RunSpec. Its files lie in the run's own folder; offline they wait there for `wandb sync`.

What the spec says wins over wandb's environment variables; what it leaves open follows them. Run against a stand-in for
wandb's server (tests/wandb_server.py), never against the real one.
"""

from __future__ import annotations

import json
import logging
import netrc
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from lora_xs.errors import UserError
from lora_xs.exit_status import DIVERGED, FAILED, FINISHED
from lora_xs.records import Record
from lora_xs.spec import RunSpec, canonical_json
from lora_xs.spec.sections import LoggerSpec

log = logging.getLogger(__name__)

Mode = Literal["online", "offline", "disabled"]
INIT_TIMEOUT, FINISH_TIMEOUT = 30.0, 60.0
"""Seconds a server has to answer when a run begins, and to take the rest when it ends."""
RETRY_AFTER = 600.0
"""Seconds for which runs of this process start offline once a server did not answer: short runs must not all wait."""
FLUSH = 0.05
"""Seconds between wandb's writes to its file: what a kill keeps from it, the next attempt logs again."""
PUBLIC_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")  # one service: a key for either will do
EXIT_CODES = {"finished": FINISHED, "diverged": DIVERGED}

_unanswered: float | None = None  # when a server last did not answer, on the monotonic clock


def resolve_mode(logger: LoggerSpec) -> Mode:
    """`logger.mode`; for `auto` WANDB_MODE, and without it online where there is a key, else offline.

    Raises UserError for online without a key (wandb would ask for one on a terminal), and for an unknown WANDB_MODE.
    """
    asked = logger.mode if logger.mode != "auto" else os.environ.get("WANDB_MODE")
    if asked is None:
        return "online" if _has_key() else "offline"
    if asked == "online":
        if not _has_key():
            raise UserError(
                "logger=wandb is to be online, but there is no API key; run `wandb login`, set WANDB_API_KEY, or use "
                "logger.mode=offline and upload later with `wandb sync`"
            )
        return "online"
    if asked in ("offline", "dryrun"):
        return "offline"
    if asked == "disabled":
        return "disabled"
    raise UserError(f"WANDB_MODE={asked} is not known here; use online, offline or disabled")


class WandbLogger:
    """The run's history, its spec as the config, its record's `train` block as the summary.

    The id is the signature, so that a run that goes on later goes on there too; a forced one has its number appended.
    """

    def __init__(self, spec: RunSpec, folder: Path, start: int) -> None:
        """folder: the run's `wandb`. start: which training of this RunSpec it is, from 1."""
        self._spec, self._folder, self._start = spec, folder, start
        mode = resolve_mode(spec.logger)
        recently = _unanswered is not None and time.monotonic() - _unanswered < RETRY_AFTER
        self._run = self._online() if mode == "online" and not recently else self._init("offline")
        settings = {**json.loads(canonical_json(spec)), "signature": spec.signature}  # no folder of this machine
        self._run.config.update(settings, allow_val_change=True)
        # the x axis; and no summary but the record's
        self._run.define_metric("*", step_metric="optimiser_step", summary="none")

    @property
    def part(self) -> Path:
        return Path(self._run.dir).parent / f"run-{self._run.id}.wandb"

    def lines(self, lines: Sequence[dict[str, Any]]) -> None:
        for line in lines:
            kind = line["kind"]
            numbers = {f"{kind}/{k}": v for k, v in line.items() if isinstance(v, int | float) and k != "step"}
            self._run.log({**numbers, "optimiser_step": line["step"]})

    def finish(self, record: Record | None) -> None:
        if record is not None:
            self._run.summary.update(summary_of(record))
            if record.status == "cancelled":
                self._run.mark_preempting()
        self._run.finish(exit_code=EXIT_CODES.get(record.status, FAILED) if record is not None else FAILED)

    def abandon(self) -> None:
        """Let go of wandb's service process as well: the next run of this process must not meet a dead one."""
        import wandb

        with suppress(Exception):
            wandb.teardown(exit_code=FAILED)

    def _online(self) -> Any:
        global _unanswered
        try:
            run = self._init("online")
            _unanswered = None
            return run
        except Exception as error:  # no network, a wrong key: the run matters more
            _unanswered = time.monotonic()
            self.abandon()  # it would say that the id is in use
            log.warning("logger=wandb is offline, `wandb sync` uploads it later: %s", " ".join(str(error).split()))
            return self._init("offline")

    def _init(self, mode: Literal["online", "offline"]) -> Any:
        import wandb

        spec, again = self._spec, self._start > 1
        return wandb.init(
            project=spec.logger.project,
            group=spec.logger.group,
            id=f"{spec.signature}-{self._start}" if again else spec.signature,
            name=f"{spec.task.name} {spec.folder.parent.name} s{spec.seed}" + (f" ({self._start})" if again else ""),
            resume="allow",  # offline too: `wandb sync` reads it, and appends what a resumed run logged
            reinit="create_new",  # a run that whoever called us has open is theirs
            dir=str(self._folder.parent),
            mode=mode,
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=INIT_TIMEOUT,
                finish_timeout=FINISH_TIMEOUT,
                finish_timeout_raises=True,
                x_transaction_log_flush_interval=FLUSH,
                # paths, arguments and host of this machine; versions and hardware are in the record
                program="train.py",
                host="",
                disable_git=True,
                disable_code=True,
                x_disable_meta=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
            ),
        )


def lines_in(file: Path) -> int | None:
    """Lines of history in a `.wandb` file, one that breaks off included; None where its reader cannot tell."""
    inspect = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    try:
        # where it runs, it keeps a log of its own below ./wandb
        answer = subprocess.run(inspect, capture_output=True, text=True, timeout=60, cwd=file.parents[2])
        records = [json.loads(line) for line in answer.stdout.splitlines()]
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return sum(record["type"] == "history" for record in records) if records else None


def summary_of(record: Record) -> dict[str, Any]:
    """What wandb's table of runs shows: the record's `train` block but for the evaluations, which are the history."""
    train = {key: value for key, value in record.train.items() if key != "evaluations"}
    return {**train, "status": record.status, "error": record.run["error"], "run_seconds": record.run["seconds"]}


def quiet_wandb() -> None:
    """Nothing on the terminal, no reports to wandb's makers (offline too, it would try); the user's variables win."""
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")


def _has_key() -> bool:
    """Whether wandb would find an API key for its server, without asking for one."""
    import wandb

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        settings = wandb.setup().settings
    except Exception as error:  # its service does not start, or a variable of its own makes no sense to it
        log.warning("wandb: %s", " ".join(str(error).split()))
        return False
    if settings.api_key:
        return True
    host = urlsplit(settings.base_url).netloc
    try:
        entries = netrc.netrc(os.environ.get("NETRC"))
        return any(entries.authenticators(name) for name in (PUBLIC_HOSTS if host in PUBLIC_HOSTS else (host,)))
    except (OSError, netrc.NetrcParseError):
        return False
