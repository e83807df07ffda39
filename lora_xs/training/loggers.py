"""Loggers beside metrics.jsonl: wandb and TensorBoard. One that fails is dropped with a warning; the run goes on."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from lora_xs.errors import UserError
from lora_xs.records import Record
from lora_xs.spec import RunSpec
from lora_xs.training.logged import Logged
from lora_xs.training.wandb_run import WandbLogger, lines_in, quiet_wandb, resolve_mode

log = logging.getLogger(__name__)


class MetricsLogger(Protocol):
    """What a logger must offer."""

    @property
    def part(self) -> Path | None:
        """The file it writes to behind our back; None where `lines` returns with the lines on disk."""

    def lines(self, lines: Sequence[dict[str, Any]]) -> None:
        """Further lines of the run's history (`kind`, `step`, `epoch`, values)."""

    def finish(self, record: Record | None) -> None:
        """The record that was just written, or None where this process leaves none; then close."""

    def abandon(self) -> None:
        """Let go of whatever is still held, after a failure; raises nothing."""


class TensorBoardLogger:
    """Event files in `<run>/tensorboard`; those of a resumed run's parts add up to one curve."""

    def __init__(self, spec: RunSpec, folder: Path, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    @property
    def part(self) -> None:
        return None

    def lines(self, lines: Sequence[dict[str, Any]]) -> None:
        for line in lines:
            for key, value in line.items():
                if isinstance(value, int | float) and key not in ("step", "epoch"):
                    self._writer.add_scalar(f"{line['kind']}/{key}", value, line["step"])
        self._writer.flush()

    def finish(self, record: Record | None) -> None:
        self._writer.close()

    def abandon(self) -> None:
        """Its thread ends with the process."""


class Unbreakable:
    """Wraps a logger: it gets every line once, and its first failure is a warning and the end of it."""

    def __init__(self, name: str, logger: MetricsLogger, logged: Logged) -> None:
        self.name, self._logged = name, logged
        self._logger: MetricsLogger | None = logger

    def history(self, lines: Sequence[dict[str, Any]]) -> None:
        """Take the whole history so far; what the logger has already, also from an earlier attempt, is left out."""
        new = lines[self._logged.lines :]
        if new:
            self._safely(lambda logger: logger.lines(new), lambda: self._logged.reached(len(lines)))

    def finish(self, record: Record | None) -> None:
        """The run's end, with the record that was written of it; further calls do nothing."""
        self._safely(lambda logger: logger.finish(record), self._logged.closed)
        self._logger = None

    def _safely(self, give: Callable[[MetricsLogger], None], note: Callable[[], None]) -> None:
        if self._logger is None:
            return
        try:
            give(self._logger)
            note()
        except Exception as error:  # a logger's trouble, of whatever kind, is never the run's
            log.warning("logger=%s failed and is off for the rest of the run: %s", self.name, error)
            self._logger.abandon()
            self._logger = None


def check_logger(spec: RunSpec) -> None:
    """Raise UserError for a logger that cannot be had: not installed, or online without a key."""
    name = spec.logger.name
    if name == "none":
        return
    try:
        importlib.metadata.version(name)  # not an import: any folder of that name would do for it
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"logger={name} needs {name}; run `pip install '.[{name}]'`, or use logger=none") from None
    if name == "wandb":
        quiet_wandb()
        resolve_mode(spec.logger)


def open_logger(spec: RunSpec, folder: Path) -> Unbreakable | None:
    """The spec's logger, ready; None for `logger=none`, and where it could not start."""
    kinds: dict[str, type[Any]] = {"wandb": WandbLogger, "tensorboard": TensorBoardLogger}
    name = spec.logger.name
    if name == "none" or (name == "wandb" and resolve_mode(spec.logger) == "disabled"):
        return None
    place = folder / name
    try:
        place.mkdir(exist_ok=True)  # wandb would turn to a temporary folder, and say so to the terminal alone
        logged = Logged.read(place)
        logged.recover(lines_in)
        logger: MetricsLogger = kinds[name](spec, place, logged.start)
        logged.opened(logger.part)
        return Unbreakable(name, logger, logged)
    except Exception as error:  # the run matters more
        log.warning("logger=%s could not start: %s", name, error)
        return None
