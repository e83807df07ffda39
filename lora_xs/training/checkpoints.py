"""Checkpoints that resume to the same bits: trainable weights, optimiser, schedule, RNGs and the ledger; no pickle.

A checkpoint is a folder `step-<n>` that appears by a rename, with a manifest of its files' SHA-256. Frozen weights are
never in it. An unsound one (cut short, corrupt, of another run) is passed over for the next older one.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, load_file, save, save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lora_xs.adapters.trainable import trainable, trainable_state
from lora_xs.adapters.tuner.layer import check_factors, fingerprints, is_fingerprint
from lora_xs.atomic import new_folder, write_json
from lora_xs.content import file_sha256
from lora_xs.processes import gathered, gathered_bytes, place, told
from lora_xs.training import random_state
from lora_xs.training.random_state import own_stream
from lora_xs.training.sharding import as_sharded, fill, whole

log = logging.getLogger(__name__)
WEIGHTS, OPTIMIZER, RNG, STATE, MANIFEST = (
    "trainable.safetensors",
    "optimizer.safetensors",
    "rng.safetensors",
    "state.json",
    "manifest.json",
)
KEEP = 2


def save_checkpoint(
    root: Path,
    step: int,
    model: nn.Module,
    optimizer: Optimizer,
    schedule: LRScheduler,
    scaler: torch.amp.GradScaler | None,
    extra: dict[str, Any],
    trainer_state: str,
) -> Path:
    """Write `root/step-<step>` whole, then drop all but the newest two. `extra` is JSON the caller wants back.

    trainer_state: the Hugging Face TrainerState as JSON, under the file name its `train` reads. Of several processes
    all call this: the first writes, with the random generators of every one. What it raises, all raise.
    """
    folder = root / f"step-{step:08d}"
    weights = whole(trainable_state(model) | fingerprints(model))
    tensors, groups = _flatten(optimizer.state_dict())
    tensors = whole(tensors)
    own_tensors, own_values = random_state.state()
    generators = [load(data) for data in gathered_bytes(save(own_tensors))]
    rng_tensors = {f"{rank}.{name}": t for rank, own in enumerate(generators) for name, t in own.items()}
    state = {
        "step": step,
        "optimizer_groups": groups,
        "schedule": schedule.state_dict(),
        "scaler": scaler.state_dict() if scaler is not None else None,
        "rng": [{**v, "tensors": sorted(own)} for own, v in zip(generators, gathered(own_values), strict=True)],
        "extra": extra,
    }

    def write() -> None:
        with new_folder(folder) as temporary:
            save_file(weights, temporary / WEIGHTS)
            save_file(tensors, temporary / OPTIMIZER)
            save_file(rng_tensors, temporary / RNG)
            (temporary / "trainer_state.json").write_text(trainer_state, encoding="utf-8")
            write_json(temporary / STATE, state)
            write_json(temporary / MANIFEST, {f.name: file_sha256(f) for f in sorted(temporary.iterdir())})
        kept = sorted(root.glob("step-*"))
        beyond = [other for other in kept if other.name > folder.name]  # unsound, or it would have gone on there
        for old in [*beyond, *[one for one in kept if one not in beyond][:-KEEP]]:
            shutil.rmtree(old, ignore_errors=True)

    told(write)
    return folder


def newest_sound(root: Path, signature: str) -> Path | None:
    """The newest checkpoint of run `signature` below `root` whose files match their manifest; None if there is none."""
    for folder in sorted(root.glob("step-*"), reverse=True):
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            sound = all(file_sha256(folder / name) == digest for name, digest in manifest.items())
            complete = {WEIGHTS, OPTIMIZER, RNG, STATE} <= manifest.keys()
            if sound and complete and read_extra(folder)["signature"] == signature:
                return folder
        except (OSError, ValueError, KeyError, AttributeError):
            pass
        log.warning("checkpoint %s is not sound; trying an older one", folder.name)
    return None


def read_extra(folder: Path) -> dict[str, Any]:
    """The `extra` of a checkpoint."""
    return dict(json.loads((folder / STATE).read_text(encoding="utf-8"))["extra"])


def load_weights(folder: Path, model: nn.Module) -> None:
    """Copy the checkpoint's tensors into the model's trainable parameters.

    Raises KeyError where the two differ, and UserError where an R was trained between other factors than this
    machine made: it means nothing there.
    """
    saved = load_file(folder / WEIGHTS)
    own = dict(trainable(model))
    check_factors(model, saved)
    saved = {name: tensor for name, tensor in saved.items() if not is_fingerprint(name)}
    if own.keys() != saved.keys():
        raise KeyError(f"{folder}: parameters differ, e.g. {sorted(own.keys() ^ saved.keys())[:3]}")
    for name, parameter in own.items():
        fill(parameter, saved[name])


def load_optimizer(folder: Path, optimizer: Optimizer, schedule: LRScheduler) -> None:
    """Restore optimiser and schedule."""
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in load_file(folder / OPTIMIZER).items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        like = parameter if tensor.shape == parameter.shape else tensor  # a step count has no shards
        moments.setdefault(int(index), {})[name] = as_sharded(tensor, like)
    optimizer.load_state_dict({"state": moments, "param_groups": state["optimizer_groups"]})
    schedule.load_state_dict(state["schedule"])


def load_scaler(folder: Path, scaler: torch.amp.GradScaler | None) -> None:
    """Restore the fp16 loss scale, where there is one."""
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))["scaler"]
    if scaler is not None and state is not None:
        scaler.load_state_dict(state)


def load_rng(folder: Path, seed: int) -> None:
    """Restore this process's generators; one that the checkpoint does not know gets a stream of its own from `seed`."""
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    rank, _ = place()
    if rank < len(state["rng"]):
        tensors = load_file(folder / RNG)
        own = {name: tensors[f"{rank}.{name}"] for name in state["rng"][rank]["tensors"]}
        random_state.restore(own, state["rng"][rank])
    else:
        own_stream(seed, state["step"])


def _flatten(state: dict[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """An optimiser's state as tensors `<parameter index>.<moment>` and its JSON-able groups."""
    tensors = {
        f"{index}.{name}": torch.as_tensor(value).detach().contiguous()
        for index, moments in state["state"].items()
        for name, value in moments.items()
    }
    return tensors, state["param_groups"]
