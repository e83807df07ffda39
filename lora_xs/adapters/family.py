"""What all adapters of one bundle have in common (settings, modules, factors), and the reading of one adapter's folder.

R means nothing without the A and B it was trained between, so adapters share a file only where their factors are the
same. Factors of the weights (`svd_w`, `random`, …) are the same for every user of a base model. LoRA-SB's come out of
the training rows: two users share them only if both started from the same estimate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lora_xs.adapters.files import ADAPTER, CONFIG, HEAD, adapter_place
from lora_xs.adapters.trainable import PEFT_PREFIX
from lora_xs.adapters.tuner import LoraXsConfig
from lora_xs.adapters.tuner.fingerprint import Fingerprint
from lora_xs.errors import UserError

TRAINING_ONLY = frozenset(
    {"init_std", "lora_dropout", "inference_mode", "peft_version", "base_model_name_or_path", "revision"}
)
"""Settings that change nothing of what an adapter computes once trained; a bundle keeps the first adapter's. The base
model's name is among them: the fingerprints tell the weights themselves."""

EMBEDDED_TOLERANCE = 1e-6
"""How far sketches of embedded factors may be off, relative to the factors' size: rounding alone."""


@dataclass(frozen=True)
class Module:
    """One adapted module: its path in the base model, its rank, and the fingerprint of its factors."""

    name: str
    rank: int
    fingerprint: Fingerprint


@dataclass(frozen=True)
class HeadTensor:
    """One trained tensor beside the R's: the file it lies in, its key there, shape and dtype."""

    file: str
    key: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def numel(self) -> int:
        """Number of entries."""
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class Family:
    """The description of a bundle: settings, modules in file order, layout of a user's R and head."""

    config: dict[str, Any]
    """The content of adapter_config.json."""
    modules: tuple[Module, ...]
    head: tuple[HeadTensor, ...]
    R_dtype: str
    """Dtype of R in the adapters, which unpacking restores."""

    @property
    def R_numel(self) -> int:
        """Entries of all R's of one user: Σ r²."""
        return sum(module.rank**2 for module in self.modules)

    @property
    def head_numel(self) -> int:
        """Entries of one user's head; 0 where the bundle keeps none."""
        return sum(tensor.numel for tensor in self.head)

    @property
    def embeds_factors(self) -> bool:
        """Whether the adapters carry A and B because they cannot, or shall not, be rebuilt."""
        return bool(self.config.get("factors_in_checkpoint"))

    @cached_property
    def peft_config(self) -> LoraXsConfig:
        """The settings as the tuner takes them."""
        known = {field.name for field in fields(LoraXsConfig)}
        return LoraXsConfig(**{key: value for key, value in self.config.items() if key in known})

    def scaling(self, module: Module) -> float:
        """s = lora_alpha / r of a module."""
        return self.peft_config.alpha_of(module.name) / module.rank

    def split_R(self, flat: Tensor) -> dict[str, Tensor]:
        """[..., R_numel] -> by module [..., r, r], views."""
        parts = flat.split([module.rank**2 for module in self.modules], dim=-1)
        return {m.name: part.unflatten(-1, (m.rank, m.rank)) for m, part in zip(self.modules, parts, strict=True)}

    def split_head(self, flat: Tensor) -> list[tuple[HeadTensor, Tensor]]:
        """[..., head_numel] -> the head's tensors, views of their shapes."""
        parts = flat.split([tensor.numel for tensor in self.head], dim=-1)
        return [(t, part.reshape(*flat.shape[:-1], *t.shape)) for t, part in zip(self.head, parts, strict=True)]

    def without_head(self) -> Family:
        """The same family, heads left out."""
        return Family(self.config, self.modules, (), self.R_dtype)

    def check_member(self, other: Family, who: str) -> None:
        """Raise UserError, naming `who`, unless `other`'s adapters may lie in one file with this family's."""
        for key in sorted(set(self.config) | set(other.config)):
            ours, its = self._setting(key), other._setting(key)
            if key not in TRAINING_ONLY and ours != its:
                raise UserError(f"{who}: {key} is {its!r}, the bundle's is {ours!r}; give it a bundle of its own")
        if [m.name for m in self.modules] != [m.name for m in other.modules]:
            odd = sorted({m.name for m in self.modules} ^ {m.name for m in other.modules})
            raise UserError(f"{who}: {len(odd)} modules differ from the bundle's, first {odd[0]}; use one base model")
        for mine, theirs in zip(self.modules, other.modules, strict=True):
            if mine.rank != theirs.rank:
                raise UserError(f"{who}: rank {theirs.rank} at {mine.name}, the bundle's is {mine.rank}; pack it apart")
            difference = self._factor_difference(mine.fingerprint, theirs.fingerprint)
            if difference is not None:
                raise UserError(f"{who}: not over the bundle's factors ({mine.name}): {difference}, or pack it apart")
        if self.R_dtype != other.R_dtype:
            raise UserError(f"{who}: R is {other.R_dtype}, the bundle's are {self.R_dtype}; pack it apart")
        if self.head != other.head:
            raise UserError(
                f"{who}: its head is {_describe_head(other)}, the bundle's is {_describe_head(self)}; "
                "pack it apart, or pack all of them without heads"
            )

    def _setting(self, key: str) -> Any:
        """As the tuner reads it: a setting that a version did not write yet has its default."""
        return getattr(self.peft_config, key, self.config.get(key))

    @cached_property
    def _norms(self) -> tuple[float, float]:
        """About ‖A‖ and ‖B‖: a projection on ±1 vectors has the norm's size on average, of one module by chance next to
        none; the factors themselves are not here."""
        sketches = [module.fingerprint.sketch for module in self.modules]
        return max(abs(s) for one in sketches for s in one[:2]), max(abs(s) for one in sketches for s in one[2:])

    def _factor_difference(self, mine: Fingerprint, theirs: Fingerprint) -> str | None:
        """In the tuner's words where factors are rebuilt, which moves them a little from machine to machine; those
        that come in a file are the very same or others."""
        norms = self._norms
        difference = mine.difference(theirs, norms)
        if difference is None and self.embeds_factors:
            difference = mine.difference(theirs, norms, EMBEDDED_TOLERANCE)
        if difference and self.embeds_factors and (mine.digest, mine.recipe) == (theirs.digest, theirs.recipe):
            return (
                "it embeds factors of its own, as LoRA-SB's, which follow from the rows of its estimate: "
                "train it from the estimate the others started from"
            )
        return difference

    def to_json(self) -> str:
        """Canonical JSON; fingerprints as hexadecimal."""
        content = {
            "config": self.config,
            "modules": [[m.name, m.rank, raw_fingerprint(m.fingerprint).hex()] for m in self.modules],
            "head": [[t.file, t.key, list(t.shape), t.dtype] for t in self.head],
            "R_dtype": self.R_dtype,
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Family:
        """Read it back. Raises ValueError, KeyError, TypeError or UserError where the text is no family's."""
        content = json.loads(text)
        modules = []
        for name, rank, hexadecimal in content["modules"]:
            data = torch.frombuffer(bytearray(bytes.fromhex(hexadecimal)), dtype=torch.uint8)
            modules.append(Module(name, int(rank), Fingerprint.from_tensor(data, name)))
        head = tuple(HeadTensor(file, key, tuple(shape), dtype) for file, key, shape, dtype in content["head"])
        for tensor in head:
            if tensor.file not in (ADAPTER, HEAD):
                raise ValueError(f"{tensor.file!r} is no file of an adapter")
        return cls(content["config"], tuple(modules), head, content["R_dtype"])


def raw_fingerprint(fingerprint: Fingerprint) -> bytes:
    """The bytes a checkpoint stores."""
    return bytes(fingerprint.to_tensor().tolist())


class AdapterFolder:
    """One LoRA-XS adapter on disk, read a tensor at a time. A run's folder stands for its best adapter.

    Raises UserError where the folder holds no whole LoRA-XS adapter.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = adapter_place(folder)
        self.family = self._read_family(self._read_config())

    def R(self) -> Tensor:
        """[R_numel]: every module's R, row by row, in the family's order."""
        read = self._read(ADAPTER, [f"{PEFT_PREFIX}{module.name}.lora_R" for module in self.family.modules])
        return torch.cat([tensor.reshape(-1) for tensor in read])

    def head(self) -> Tensor:
        """[head_numel] fp32 (fp64 where the head is)."""
        read = [self._read(tensor.file, [tensor.key])[0].reshape(-1) for tensor in self.family.head]
        return torch.cat([tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in read])

    def factors(self) -> Mapping[str, Tensor]:
        """The embedded A [r, in] and B [out, r] by `<module>.lora_A` and `<module>.lora_B`; empty where none are."""
        if not self.family.embeds_factors:
            return {}
        names = [f"{module.name}.{factor}" for module in self.family.modules for factor in ("lora_A", "lora_B")]
        return dict(zip(names, self._read(ADAPTER, [PEFT_PREFIX + name for name in names]), strict=True))

    def _read_config(self) -> dict[str, Any]:
        try:
            config = json.loads((self.folder / CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise UserError(f"{self.folder}: no readable {CONFIG}; give the folder of a saved adapter") from None
        kind = config.get("peft_type") if isinstance(config, dict) else None
        if kind != "LORA_XS":
            raise UserError(f"{self.folder}: the adapter is of type {kind}, not LORA_XS; give a LoRA-XS adapter")
        return dict(config)

    def _read_family(self, config: dict[str, Any]) -> Family:
        modules, head, dtypes = [], [], set()
        with self._open(ADAPTER) as file:
            keys = set(file.keys())
            for key in sorted(keys):
                owner, _, kind = key.rpartition(".")
                if kind == "lora_R":
                    if f"{owner}.lora_fingerprint" not in keys:
                        raise UserError(f"{self.folder}: {owner} has no lora_fingerprint; save the adapter again")
                    tensor, name = file.get_tensor(key), owner.removeprefix(PEFT_PREFIX)
                    saved = file.get_tensor(f"{owner}.lora_fingerprint")
                    modules.append(Module(name, tensor.shape[0], Fingerprint.from_tensor(saved, name)))
                    dtypes.add(_dtype_name(tensor))
                elif kind not in ("lora_A", "lora_B", "lora_fingerprint"):
                    head.append(_head_tensor(ADAPTER, key, file.get_tensor(key)))
        if len(dtypes) != 1:
            raise UserError(f"{self.folder}: {ADAPTER} holds no R, or R's of several dtypes; save the adapter again")
        if (self.folder / HEAD).is_file():
            with self._open(HEAD) as file:
                head += [_head_tensor(HEAD, key, file.get_tensor(key)) for key in sorted(file.keys())]
        return Family(config, tuple(modules), tuple(head), dtypes.pop())

    def _read(self, name: str, keys: list[str]) -> list[Tensor]:
        with self._open(name) as file:
            try:
                return [file.get_tensor(key) for key in keys]
            except SafetensorError:
                raise UserError(f"{self.folder / name}: lacks tensors it should hold; save the adapter again") from None

    def _open(self, name: str) -> Any:
        try:
            return safe_open(self.folder / name, framework="pt")
        except (OSError, SafetensorError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"{self.folder / name}: cannot be read ({reason}); take an intact copy") from None


def _head_tensor(file: str, key: str, tensor: Tensor) -> HeadTensor:
    return HeadTensor(file, key, tuple(tensor.shape), _dtype_name(tensor))


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _describe_head(family: Family) -> str:
    return ", ".join(f"{tensor.key} {list(tensor.shape)}" for tensor in family.head) or "absent"
