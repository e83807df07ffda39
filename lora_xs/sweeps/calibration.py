"""How far finished runs were from their estimates: a factor for each device, kind of model and kind of numbers."""

from __future__ import annotations

import dataclasses
import functools
import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_xs.errors import UserError
from lora_xs.records import RECORD, Record, read_record
from lora_xs.spec import RunSpec
from lora_xs.spec.compose import compose_config
from lora_xs.sweeps.cost import estimate
from lora_xs.sweeps.devices import CPU, Device, Numbers, device_of_record, numbers_of

NEWEST = 300
SHORTEST = 5.0
"""Seconds of training below which a run's time says more about its start than about its steps."""


@dataclass(frozen=True)
class Measured:
    """A finished run: seconds of training it took over those estimated, and peak memory likewise."""

    device: str
    kind: str
    numbers: Numbers
    seconds: float
    memory: float


@dataclass(frozen=True)
class Fit:
    """One device, kind of model (`encoder`, `decoder`) and numbers that it computes in, from `records` finished runs.

    factor: the median of (seconds taken / seconds estimated). off, worst: how far estimates are off with the factor
    that the other records give, as a ratio of at least 1, in the median and at worst; None with a single record.
    memory, memory_worst: median of (peak memory taken / estimated), and the ratio furthest from 1. It is not scaled.
    """

    device: str
    kind: str
    numbers: Numbers
    records: int
    factor: float
    off: float | None
    worst: float | None
    memory: float
    memory_worst: float

    def in_words(self) -> str:
        """One line."""
        runs = f"{self.records} finished run{'s' * (self.records > 1)}"
        what = f"{self.device}, {self.kind}s in {self.numbers}"
        line = f"{what}: {runs} took {self.factor:.2f} × the uncalibrated seconds (median)"
        if self.off is not None and self.worst is not None:
            line += (
                f"; calibrated by the others, an estimate is off by {self.off:.2f}× (median), {self.worst:.2f}× (worst)"
            )
        return line + f"; peak memory {self.memory:.2f}× the estimate (median), {self.memory_worst:.2f}× (worst)"


@dataclass(frozen=True)
class Calibration:
    """Every fit there is; runs without one are planned by their device's data sheet."""

    fits: tuple[Fit, ...] = ()

    def factor(self, device: Device, spec: RunSpec) -> float:
        """What to multiply the estimated seconds of `spec` on a device by; 1 without records."""
        fit = self._fit(device, *_alike(spec))
        return fit.factor if fit else 1.0

    def in_words(self, device: Device, specs: Iterable[RunSpec]) -> list[str]:
        """A line for each kind of model and numbers among the runs of a plan for `device`."""
        missing = "{}, {}s in {}: no finished run to calibrate by; seconds are an assumed {:.0%} of the data sheet's"
        lines = []
        for kind, numbers in sorted({_alike(spec) for spec in specs}):
            fit = self._fit(device, kind, numbers)
            lines.append(fit.in_words() if fit else missing.format(device.name, kind, numbers, device.efficiency))
        return lines

    def _fit(self, device: Device, *kind: str) -> Fit | None:
        return next((fit for fit in self.fits if (fit.device, fit.kind, fit.numbers) == (device.name, *kind)), None)


def calibrate(roots: Iterable[Path]) -> Calibration:
    """Fit the newest finished records below the results folders `roots`; what cannot be compared is passed over."""
    groups: dict[tuple[str, ...], list[Measured]] = {}
    for measured in _measured(roots):
        groups.setdefault((measured.device, measured.kind, measured.numbers), []).append(measured)
    return Calibration(tuple(fit(group) for _, group in sorted(groups.items())))


def fit(group: Sequence[Measured]) -> Fit:
    """The fit of measured runs of one device, kind of model and numbers (at least one)."""
    ratios = [one.seconds for one in group]
    errors = [_apart(ratio / _middle(ratios[:i] + ratios[i + 1 :])) for i, ratio in enumerate(ratios) if len(group) > 1]
    memory = [one.memory for one in group]
    return Fit(
        device=group[0].device,
        kind=group[0].kind,
        numbers=group[0].numbers,
        records=len(group),
        factor=_middle(ratios),
        off=_middle(errors) if errors else None,
        worst=max(errors) if errors else None,
        memory=_middle(memory),
        memory_worst=max(memory, key=_apart),
    )


def measure(spec: RunSpec, record: Record) -> Measured | None:
    """What `record` says against the estimate of its `spec`; None where it trained too shortly or somewhere unknown."""
    device = device_of_record(record.environment)
    if device is None or not record.scored:
        return None
    try:
        seconds = float(record.train["train_seconds"]) * int(record.environment.get("world_size", 1))
        steps, memory = int(record.train["steps"]), float(record.train["peak_memory_mib"]) / 1024
        if device.name == CPU:
            threads = int(record.environment["threads"]["torch"])
            spec = spec.replace(launcher=dataclasses.replace(spec.launcher, threads=threads))
        expected = estimate(spec, device)
    except (KeyError, TypeError, ValueError):  # UserError among them: a model whose architecture is not known
        return None
    if seconds < SHORTEST or not expected.train_seconds or not expected.steps:
        return None
    expected_seconds = expected.train_seconds * steps / expected.steps  # stopped early: as many steps as it took
    return Measured(device.name, *_alike(spec), seconds / expected_seconds, memory / expected.peak_gib)


def _alike(spec: RunSpec) -> tuple[str, Numbers]:
    """Runs of which kind share a factor on a device."""
    return spec.model.kind, numbers_of(spec)


def _measured(roots: Iterable[Path]) -> Iterator[Measured]:
    files: dict[Path, float] = {}
    for root in roots:
        for file in root.rglob(RECORD):
            try:
                files[file.resolve()] = file.stat().st_mtime
            except OSError:
                continue
    for file in sorted(files, key=lambda file: -files[file])[:NEWEST]:
        record = read_record(file.parent)
        spec = _spec(file.parent, record) if record is not None else None
        if record is not None and spec is not None and (measured := measure(spec, record)) is not None:
            yield measured


def _spec(folder: Path, record: Record) -> RunSpec | None:
    """Of `spec.json`, which git does not keep; else of the record, its model shaped as it is configured now."""
    try:
        if (file := folder / "spec.json").is_file():
            return RunSpec.from_json(json.loads(file.read_text(encoding="utf-8")))
        spec = RunSpec.from_json({key: value for key, value in record.run["spec"].items() if key != "protocol_version"})
        return spec.replace(model=dataclasses.replace(spec.model, architecture=_architecture(spec.model.name)))
    except (OSError, ValueError, KeyError, AttributeError, UserError):
        return None


@functools.cache
def _architecture(model: str) -> Mapping[str, object]:
    """Of `configs/model/<model>.yaml`. Raises UserError where there is none."""
    architecture: Mapping[str, object] = compose_config([f"model={model}"])["model"]["architecture"]
    return architecture


def _middle(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def _apart(ratio: float) -> float:
    """How far from 1, either way."""
    return max(ratio, 1 / ratio) if ratio > 0 else float("inf")
