"""Loggers beside metrics.jsonl: wandb and TensorBoard. One that fails is dropped with a warning; the run goes on."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any, Protocol

from lora_xs.errors import UserError
from lora_xs.spec import RunSpec, canonical_json

log = logging.getLogger(__name__)


class MetricsLogger(Protocol):
    """What a logger must offer."""

    def line(self, values: dict[str, Any]) -> None:
        """A line of the run's history (`kind`, `step`, `epoch`, values)."""

    def finish(self, summary: dict[str, Any]) -> None:
        """The run's summary, then close."""


class WandbLogger:
    """One wandb run a RunSpec, its id the signature: a resumed run goes on, never doubles. Offline unless logged in."""

    def __init__(self, spec: RunSpec, folder: Path) -> None:
        import wandb

        mode = spec.logger.mode
        if mode == "auto":
            mode = (
                "online" if os.environ.get("WANDB_API_KEY") and os.environ.get("WANDB_MODE") != "offline" else "offline"
            )
        self._run = wandb.init(
            project=spec.logger.project,
            group=spec.logger.group,
            id=spec.signature,
            name=f"{spec.task.name} {spec.method.name} s{spec.seed}",
            resume="allow",
            dir=str(folder),
            mode=mode,
            config=json.loads(canonical_json(spec)),
            settings=wandb.Settings(silent=True, console="off", init_timeout=60),
        )

    def line(self, values: dict[str, Any]) -> None:
        kind = values["kind"]
        numbers = {f"{kind}/{k}": v for k, v in values.items() if isinstance(v, int | float) and k != "step"}
        self._run.log({**numbers, "optimiser_step": values["step"]})

    def finish(self, summary: dict[str, Any]) -> None:
        self._run.summary.update(summary)
        self._run.finish()


class TensorBoardLogger:
    """Event files in `<run>/tensorboard`."""

    def __init__(self, spec: RunSpec, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def line(self, values: dict[str, Any]) -> None:
        for key, value in values.items():
            if isinstance(value, int | float) and key not in ("step", "epoch"):
                self._writer.add_scalar(f"{values['kind']}/{key}", value, values["step"])

    def finish(self, summary: dict[str, Any]) -> None:
        self._writer.close()


class Unbreakable:
    """Wraps a logger: its first failure is a warning and the end of it."""

    def __init__(self, name: str, logger: MetricsLogger) -> None:
        self.name = name
        self._logger: MetricsLogger | None = logger

    def line(self, values: dict[str, Any]) -> None:
        self._call("line", values)

    def finish(self, summary: dict[str, Any]) -> None:
        self._call("finish", summary)

    def _call(self, method: str, values: dict[str, Any]) -> None:
        if self._logger is None:
            return
        try:
            getattr(self._logger, method)(values)
        except Exception as error:  # a logger's trouble, of whatever kind, is never the run's
            log.warning("logger=%s failed and is off for the rest of the run: %s", self.name, error)
            self._logger = None


def open_logger(spec: RunSpec, folder: Path) -> Unbreakable | None:
    """The spec's logger, ready; None for `logger=none`. Raises UserError when its package is not installed."""
    kinds: dict[str, tuple[str, type[Any]]] = {
        "wandb": ("wandb", WandbLogger),
        "tensorboard": ("tensorboard", TensorBoardLogger),
    }
    if spec.logger.name == "none":
        return None
    package, kind = kinds[spec.logger.name]
    try:
        return Unbreakable(spec.logger.name, kind(spec, folder))
    except ImportError as error:
        raise UserError(f"logger={spec.logger.name}: package {package} is missing; `pip install {package}`") from error
    except Exception as error:  # e.g. no network, no login: the run matters more
        log.warning("logger=%s could not start: %s", spec.logger.name, error)
        return None
