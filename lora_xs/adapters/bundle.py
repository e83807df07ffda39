"""Many users' adapters over one base and one set of factors: one safetensors file, a user a row, read a row at a time.

    R         [users, Σ r²]     a user's R's back to back, in the order of the description's modules
    head      [users, entries]  fp32; only where heads are kept, which outweigh R by far: RoBERTa-large's has 4.2 MB,
                                R 240 KB at rank 25
    rounding  [users]           ‖stored R − R‖ / ‖R‖, in R's dtype: 0 where R is stored in the dtype it was trained in
    digests   uint8 [users, 16] XXH3-64 of the row's bytes in R and in head: damage is found when a user is read
    names     uint8             the users' names in row order, a newline after each
    <module>.lora_A, .lora_B    once, only where the adapters embed their factors

One row a user, not one tensor a module: a user is one contiguous read instead of a read a module (several times
faster in a file of 10,000, more so where it is not in memory: `benchmarks/bundle.py`), and an addition goes to the end
of each column. The description (settings, modules, the factors' fingerprints, once) is JSON in the file's metadata.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lora_xs.adapters.family import Family
from lora_xs.adapters.files import ADAPTER, CONFIG
from lora_xs.adapters.streaming import Stream, raw_bytes, write_streams
from lora_xs.adapters.trainable import PEFT_PREFIX
from lora_xs.atomic import new_folder, replace_file, write_json
from lora_xs.errors import UserError

SCHEMA = 1
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
CHUNK_BYTES = 8 * 2**20
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_@+-]|\.(?!\.)){0,127}")


class UserState(Protocol):
    """One user's trained numbers, handed over when their turn to be written comes."""

    def R(self) -> Tensor:
        """[Σ r²], the R's in the family's order."""

    def head(self) -> Tensor:
        """[entries] of the family's head tensors; asked for only where it has some."""


class Bundle:
    """A bundle opened for reading. Opening reads the description and the names; a user's numbers only when asked for.

    `family` is what all users share, `users` their names in row order. Use as a context manager, or call `close`.
    A writer that replaces the file meanwhile does not disturb it: it goes on with the file it opened. Raises UserError
    for a file that is missing, truncated, damaged or no bundle.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._file: Any = safe_open(self.path, framework="pt")
        except FileNotFoundError:
            raise UserError(f"{self.path}: no such bundle; make one with scripts/bundle.py pack") from None
        except (OSError, SafetensorError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"{self.path}: truncated or no safetensors file ({reason}); take an intact copy") from None
        try:
            self.family, self.users, self.dtype = self._describe()
        except UserError:
            raise
        except Exception as error:  # whatever a foreign description makes the parsers raise
            self.close()
            raise UserError(f"{self.path}: not a bundle, or damaged ({error!r}); take an intact copy") from None
        self._row = {name: row for row, name in enumerate(self.users)}

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.users)

    def __contains__(self, user: object) -> bool:
        return user in self._row

    def close(self) -> None:
        """Give the file back. What was read stays valid."""
        self._file = None

    def R(self, user: str) -> Tensor:
        """[Σ r²] of this user alone, in the bundle's dtype; `family.split_R` tells it apart by module.

        Raises UserError for an unknown user, and where the row does not match its checksum.
        """
        return self._checked("R", user, slice(0, 8))

    def head(self, user: str) -> Tensor:
        """[entries] fp32 of this user's head. Raises UserError as `R` does, and where the bundle keeps no heads."""
        if not self.family.head:
            raise UserError(f"{self.path}: keeps no heads; pack it again with them")
        return self._checked("head", user, slice(8, 16))

    def rounding(self, user: str) -> float:
        """‖stored R − R‖ / ‖R‖ (Frobenius, over all modules): what storing cost this user; 0 is bit for bit."""
        return float(self._rows("rounding")[self._row_of(user)])

    def factors(self) -> dict[str, Tensor]:
        """The embedded A [r, in] and B [out, r] by `<module>.lora_A`, `<module>.lora_B`; empty where none are."""
        names = [f"{m.name}.{factor}" for m in self.family.modules for factor in ("lora_A", "lora_B")]
        return {name: self._file.get_tensor(name) for name in names} if self.family.embeds_factors else {}

    def entries(self, user: str | None) -> dict[str, Tensor]:
        """What adapter_model.safetensors of this user holds, the head excepted; with R = 0 for None."""
        dtype = DTYPES[self.family.R_dtype]
        flat = torch.zeros(self.family.R_numel, dtype=dtype) if user is None else self.R(user).to(dtype)
        found = {f"{PEFT_PREFIX}{name}.lora_R": R for name, R in self.family.split_R(flat).items()}
        found |= {f"{PEFT_PREFIX}{m.name}.lora_fingerprint": m.fingerprint.to_tensor() for m in self.family.modules}
        return found | {PEFT_PREFIX + name: factor for name, factor in self.factors().items()}

    def unpack(self, user: str, folder: str | Path) -> Path:
        """Write this user's adapter as the folder PEFT loads, whole or not at all; R as it is stored.

        Returns the folder. Raises UserError where it is not empty, and what `R` and `head` raise.
        """
        from lora_xs.adapters.export import free_folder

        place = free_folder(folder)
        files = {ADAPTER: self.entries(user)}
        if self.family.head:
            for tensor, value in self.family.split_head(self.head(user)):
                files.setdefault(tensor.file, {})[tensor.key] = value.to(getattr(torch, tensor.dtype))
        with new_folder(place) as temporary:
            write_json(temporary / CONFIG, self.family.config)
            for name, tensors in files.items():
                whole = {key: tensor.contiguous().clone() for key, tensor in tensors.items()}
                save_file(whole, temporary / name, metadata={"format": "pt"} if name == ADAPTER else None)
        return place

    def verify(self) -> None:
        """Read every user once. Raises UserError naming the first whose numbers do not match their checksum."""
        for user in self.users:
            self.R(user)
            if self.family.head:
                self.head(user)

    def _checked(self, name: str, user: str, part: slice) -> Tensor:
        row = self._row_of(user)
        values: Tensor = self._rows(name)[row].clone()
        if _digest(values) != bytes(self._rows("digests")[row].tolist())[part]:
            raise UserError(f"{self.path}: {user}'s {name} is damaged (checksum); take an intact copy")
        return values

    def _row_of(self, user: str) -> int:
        if user not in self._row:
            raise UserError(f"{self.path}: no user {user!r} among {len(self)}; scripts/bundle.py list shows them")
        return self._row[user]

    def _rows(self, name: str) -> Any:
        """A lazy handle: indexing it touches the rows asked for and no others."""
        if self._file is None:
            raise UserError(f"{self.path}: the bundle is closed; open it again")
        return self._file.get_slice(name)

    def _describe(self) -> tuple[Family, list[str], torch.dtype]:
        entry = json.loads((self._file.metadata() or {})["lora_xs_bundle"])
        if entry["schema"] != SCHEMA:
            raise UserError(f"{self.path}: schema {entry['schema']}, this version reads {SCHEMA}; update lora_xs")
        family = Family.from_json(entry["family"])
        names = self._file.get_tensor("names")
        if _digest(names).hex() != entry["names"]:
            raise UserError(f"{self.path}: its names are damaged (checksum); take an intact copy")
        users = bytes(raw_bytes(names)).decode().split("\n")[:-1]
        for user in users:
            check_name(user)
        if len(set(users)) != len(users):
            raise ValueError("a user is in it twice")
        if not {family.R_dtype, *(tensor.dtype for tensor in family.head)} <= set(DTYPES):
            raise ValueError("a dtype that no adapter has")
        dtype = DTYPES[entry["dtype"]]
        shapes = {"R": [len(users), family.R_numel], "rounding": [len(users)], "digests": [len(users), 16]}
        if family.head:
            shapes["head"] = [len(users), family.head_numel]
        for name, shape in shapes.items():
            if self._file.get_slice(name).get_shape() != shape:
                raise ValueError(f"{name} is not {shape}")
        return family, users, dtype


def write_bundle(
    path: Path,
    family: Family,
    states: Mapping[str, UserState],
    *,
    dtype: str = "float32",
    factors: Mapping[str, Tensor] | None = None,
    before: Bundle | None = None,
) -> None:
    """Write a bundle of `before`'s users (none) and then those of `states`, whole or not at all.

    dtype: of the stored R's; in half precision `rounding` tells each user's loss. factors: A and B by
    `<module>.lora_A`, where the family embeds them. Memory: one state, or 8 MiB of `before`, whose rows are copied as
    they are (its dtype and factors hold). Raises UserError for a name that is no name or taken, and for numbers that
    are not finite or that `dtype` cannot hold.
    """
    old = [] if before is None else before.users
    for name in states:
        check_name(name)
        if before is not None and name in before:
            raise UserError(f"{before.path}: has a user {name!r} already; give the new one another name")
    stored = dtype if before is None else str(before.dtype).removeprefix("torch.")
    if stored not in DTYPES:
        raise UserError(f"dtype={stored!r} is not one R can be stored in; choose one of {', '.join(DTYPES)}")
    columns = _Columns(family, states, DTYPES[stored], before)
    users = len(old) + len(states)
    names = torch.frombuffer(bytearray("".join(f"{n}\n" for n in [*old, *states]).encode()), dtype=torch.uint8)
    kept = dict(factors or {}) if before is None else before.factors()
    wide = [Stream("R", DTYPES[stored], (users, family.R_numel), columns.R)]
    if family.head:
        wide.append(Stream("head", torch.float32, (users, family.head_numel), columns.head))
    wide += [Stream(name, factor.dtype, tuple(factor.shape), partial(_once, factor)) for name, factor in kept.items()]
    small = [  # behind R and of its width or less: known once the rows are written
        Stream("rounding", DTYPES[stored], (users,), columns.rounding),
        Stream("digests", torch.uint8, (users, 16), columns.digests),
        Stream("names", torch.uint8, (len(names),), partial(_once, names)),
    ]
    entry = {"schema": SCHEMA, "family": family.to_json(), "dtype": stored, "names": _digest(names).hex()}
    description = {"lora_xs_bundle": json.dumps(entry, sort_keys=True)}
    replace_file(path, lambda file: write_streams(file, wide + small, description))


def check_name(name: str) -> None:
    """Raise UserError unless `name` can be a user's: it may become a folder's name, and stays one line of a list."""
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} cannot be a user's name: 1 to 128 ASCII letters, digits and . _ @ + -, "
            "a letter or digit first, no two dots in a row"
        )


class _Columns:
    """The columns of a bundle as they are written, a user at a time; what is small is gathered on the way."""

    def __init__(
        self, family: Family, states: Mapping[str, UserState], dtype: torch.dtype, before: Bundle | None
    ) -> None:
        self.family, self.states, self.dtype, self.before = family, states, dtype, before
        self._rounding: list[float] = []
        self._digests: dict[str, list[bytes]] = {"R": [], "head": []}

    def R(self) -> Iterator[Tensor]:
        yield from self._copied("R")
        for user, state in self.states.items():
            exact = state.R()
            row = exact.to(self.dtype)
            if not torch.isfinite(exact).all():
                raise UserError(f"{user}: R is not finite: a diverged run; leave it out")
            if not torch.isfinite(row).all():
                raise UserError(f"{user}: R is beyond what {self.dtype} holds; store this bundle in float32")
            norm = float(exact.double().norm())
            self._rounding.append(float((row.double() - exact.double()).norm()) / norm if norm > 0 else 0.0)
            self._digests["R"].append(_digest(row))
            yield row

    def head(self) -> Iterator[Tensor]:
        yield from self._copied("head")
        for user, state in self.states.items():
            row = state.head().float()
            if not torch.isfinite(row).all():
                raise UserError(f"{user}: the head is not finite in fp32; leave it out")
            self._digests["head"].append(_digest(row))
            yield row

    def rounding(self) -> Iterator[Tensor]:
        yield from self._copied("rounding")
        yield torch.tensor(self._rounding, dtype=self.dtype)

    def digests(self) -> Iterator[Tensor]:
        yield from self._copied("digests")
        heads: Sequence[bytes] = self._digests["head"] or [bytes(8)] * len(self.states)
        rows = b"".join(one + other for one, other in zip(self._digests["R"], heads, strict=True))
        yield torch.frombuffer(bytearray(rows), dtype=torch.uint8) if rows else torch.empty(0, dtype=torch.uint8)

    def _copied(self, name: str) -> Iterator[Tensor]:
        """The old rows in pieces of about 8 MiB."""
        if self.before is None:
            return
        rows = self.before._rows(name)
        count = len(self.before)
        width = raw_bytes(rows[0:1]).nbytes
        step = max(1, CHUNK_BYTES // max(width, 1))
        for first in range(0, count, step):
            yield rows[first : min(first + step, count)]


def _once(tensor: Tensor) -> list[Tensor]:
    return [tensor]


def _digest(values: Tensor) -> bytes:
    """XXH3-64 of a tensor's bytes."""
    return xxhash.xxh3_64(raw_bytes(values)).digest()
