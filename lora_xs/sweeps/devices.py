"""The devices a plan can be made for: what they can do by their data sheets, and which one a record came from."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from lora_xs.errors import UserError
from lora_xs.spec import RunSpec

TABLE = Path(__file__).with_name("devices.csv")
CPU = "cpu2"
PROC_GPUS = Path("/proc/driver/nvidia/gpus")
Numbers = Literal["fp32", "tf32", "half precision"]


@dataclass(frozen=True)
class Device:
    """Peaks of one device; `efficiency` of a peak is what a run's products are taken to reach before calibration.

    matches: a pattern in the name CUDA gives it. memory_gib: what a process can have of it; a CPU's is this machine's
    RAM. tflops: 10¹² floating-point operations a second in fp32, in TF32 and in bf16 or fp16.
    bandwidth: 10⁹ bytes a second. layer_ms: milliseconds that starting the kernels of one transformer layer takes at
    least, forward; small batches wait for it. cores: what the CPU's numbers hold for, 0 for a GPU.
    """

    name: str
    matches: str
    memory_gib: float
    fp32_tflops: float
    tf32_tflops: float
    half_tflops: float
    bandwidth_gb_s: float
    efficiency: float
    layer_ms: float
    source: str
    cores: int = 0

    @property
    def gpu(self) -> bool:
        """Whether it is a GPU."""
        return self.cores == 0

    def peak(self, spec: RunSpec) -> float:
        """Floating-point operations a second in the numbers that `spec` computes in; a CPU's grow with its threads."""
        tflops = {"fp32": self.fp32_tflops, "tf32": self.tf32_tflops, "half precision": self.half_tflops}
        threads = 1.0 if self.gpu else min(spec.launcher.threads or self.cores, self.cores) / self.cores
        return tflops[numbers_of(spec)] * 1e12 * threads


def numbers_of(spec: RunSpec) -> Numbers:
    """The numbers that the products of `spec` are computed in."""
    if spec.trainer.precision in ("bf16", "fp16") or spec.model.dtype != "float32":
        return "half precision"
    return "tf32" if spec.trainer.precision == "tf32" else "fp32"


@cache
def devices() -> Mapping[str, Device]:
    """Every known device by name."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return {row["name"]: _device(row) for row in csv.DictReader(file)}


def device_named(name: str) -> Device:
    """The device of that name; `cpu` is this machine's. Raises UserError with the known ones."""
    known = devices()
    if name == "cpu":
        name = CPU
    if name not in known:
        raise UserError(f"--device {name}: no such device; choose one of {', '.join(known)}, cpu")
    return known[name]


def device_called(gpu: str | None) -> Device | None:
    """The device that CUDA calls `gpu`, e.g. "NVIDIA H100 80GB HBM3"; the CPU for None; None where it is unknown."""
    if gpu is None:
        return devices()[CPU]
    found = [d for d in devices().values() if d.gpu and re.search(d.matches, gpu)]
    return found[0] if found else None


def device_of_record(environment: Mapping[str, Any]) -> Device | None:
    """Where the run of a record's `environment` took place; None where that is no device of the table."""
    hardware = environment.get("hardware")
    return device_called(hardware.get("gpu")) if isinstance(hardware, Mapping) else None


def this_machine() -> Device:
    """This machine's GPU where its driver shows one of the table, else its CPU; asks no library."""
    for file in sorted(PROC_GPUS.glob("*/information")):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "Model" and (found := device_called(value.strip())) is not None:
                return found
    return devices()[CPU]


def _device(row: Mapping[str, str]) -> Device:
    cpu = not row["matches"]
    return Device(
        name=row["name"],
        matches=row["matches"],
        memory_gib=_ram_gib() if cpu else float(row["memory_gib"]),
        fp32_tflops=float(row["fp32_tflops"]),
        tf32_tflops=float(row["tf32_tflops"] or row["fp32_tflops"]),  # a CPU has no TF32 and computes in fp32
        half_tflops=float(row["half_tflops"]),
        bandwidth_gb_s=float(row["bandwidth_gb_s"]),
        efficiency=float(row["efficiency"]),
        layer_ms=float(row["layer_ms"]),
        source=row["source"],
        cores=2 if cpu else 0,
    )


def _ram_gib() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
