"""Content-addressed store of truncated SVDs on disk: a weight is decomposed once, whoever asks.

An entry is named by the weight's digest, the part of the spectrum, the rank it was made at and the algorithm's version,
so nothing in it can be out of date; made on another device or with other threads, it agrees to the stated accuracy, not
to the bit. On one machine a truncation's bits are the same whatever else is stored, or if nothing is. Any number
of processes may read and write it: files are replaced whole, the last writer wins, and what is lost or damaged is
computed again. A store that cannot be written only costs time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lora_xs.adapters.svd import ALGORITHM, check_request, decompose
from lora_xs.adapters.window import (
    Part,
    TruncatedSvd,
    Window,
    encode_window,
    part_start,
    read_window,
    tensor_digest,
)
from lora_xs.atomic import write_bytes
from lora_xs.cache import cache_root
from lora_xs.errors import UserError

logger = logging.getLogger(__name__)

BUCKETS = (25, 64, 128)
"""A truncation is computed at the next of these ranks (above: at the next multiple of 128), plus the neighbours that
the gaps at the cuts need. So every rank of the papers' GLUE grids, 4 … 25, is a slice of the same bits, whichever was
asked for first. An entry of a larger rank never serves instead: it has the same triplets, but not to the bit, and a
run's scores would depend on what else this machine has run."""

NEAR_DEGENERATE = 2e-5
"""Gap, relative to s_1, below which a truncation carries a warning: ten times the residual at which the iteration
stops, so by Davis and Kahan the factors' subspace may be off by a tenth of a radian, and differ between machines."""

DEFAULT_GB = 20.0
ABANDONED = 3600.0  # seconds after which a temporary file is a dead writer's


@dataclass(frozen=True)
class StoredTruncation:
    """A truncation, and what a run's record says of it."""

    svd: TruncatedSvd  # on the weight's device
    digest: str  # of the weight
    residual: float  # largest of a triplet, relative to s_1; estimated from random projections
    gap: float | None  # smallest at the cuts of this very rank, relative to s_1; None where nothing is cut
    warning: str | None  # where that gap is too small for the subspace to be well defined
    cached: bool  # read, not computed
    seconds: float  # hashing, reading or computing, writing


@dataclass(frozen=True)
class StoredEntry:
    """One file of the store."""

    path: Path
    digest: str  # of the weight
    part: str
    rank: int  # at which it was made
    algorithm: str
    bytes: int
    used: float  # when it was last read or written, seconds since 1970


class FactorStore:
    """Truncated SVDs by content.

    root: the folder; without it the `factors` room of the cache (`LORA_XS_CACHE`, which may be `off`).
    max_bytes: beyond this the least recently used entries go; without it `LORA_XS_CACHE_GB` (default 20).
    Raises UserError where `LORA_XS_CACHE_GB` is not a size.
    """

    def __init__(self, root: Path | None = None, max_bytes: int | None = None) -> None:
        self.root: Path | None = cache_root("factors") if root is None else root
        self.max_bytes = _size_limit() if max_bytes is None else max_bytes
        self._room = 0  # bytes that may be written before the folder is measured again
        self._writable = True

    @classmethod
    def disabled(cls) -> FactorStore:
        """A store that keeps nothing; its truncations are bitwise those of an empty store."""
        store = cls()
        store.root = None
        return store

    def truncation(self, weight: Tensor, rank: int, part: Part = "top", *, name: str = "weight") -> StoredTruncation:
        """The truncation of `weight` [m, n] at `rank`, read where it is stored, computed and stored where not.

        Raises UserError, naming `name`, where the weight cannot be decomposed at this rank.
        """
        began = time.perf_counter()
        k = check_request(weight, rank, part, name)
        first = part_start(part, rank, k)
        digest = tensor_digest(weight)
        bucket = _bucket(rank, k)
        wanted = _with_neighbours(part_start(part, bucket, k), bucket, k)
        identity = {"digest": digest, "part": part, "rank": bucket, "algorithm": ALGORITHM}
        window = self._read(identity)
        cached = window is not None
        if window is None:
            window = decompose(weight, *wanted, name=name)
            self._write(identity, window)
        gap = window.gap(first, rank)
        svd = TruncatedSvd(*(tensor.to(weight.device) for tensor in window.slice(first, rank)))
        warning = _warning(name, part, rank, gap)
        seconds = time.perf_counter() - began
        return StoredTruncation(svd, digest, window.residual, gap, warning, cached, seconds)

    def entries(self) -> list[StoredEntry]:
        """What is stored, most recently used first."""
        found = []
        for path, size, used in self._files():
            match path.name.removesuffix(".safetensors").split("_"):
                case [digest, part, rank, algorithm] if rank.isdecimal():
                    found.append(StoredEntry(path, digest, part, int(rank), algorithm, size, used))
        return sorted(found, key=lambda entry: -entry.used)

    def clear(self) -> tuple[int, int]:
        """Remove every entry, those of earlier versions too; return how many went and their bytes."""
        gone = [size for path, size, _ in self._files() if not path.name.startswith(".") and _remove(path)]
        return len(gone), sum(gone)

    def _path(self, root: Path, identity: dict[str, Any]) -> Path:
        name = "_".join(str(identity[key]) for key in ("digest", "part", "rank", "algorithm"))
        return root / identity["digest"][:2] / f"{name}.safetensors"

    def _read(self, identity: dict[str, Any]) -> Window | None:
        if self.root is None:
            return None
        path = self._path(self.root, identity)
        try:
            window = read_window(path, identity)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.info("factor store: %s is not usable (%s); computing it again", path, error)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # what was used last is evicted last
        return window

    def _write(self, identity: dict[str, Any], window: Window) -> None:
        if self.root is None or not self._writable:
            return
        content = encode_window(window, identity)
        try:
            write_bytes(self._path(self.root, identity), content)
        except OSError as error:
            logger.warning(
                "factor store: %s cannot be written (%s); going on without keeping factors", self.root, error
            )
            self._writable = False
        self._room -= len(content)
        if self._room < 0:
            self._room = self._evict()

    def _evict(self) -> int:
        """Remove dead writers' files and, least recently used first, what exceeds the limit; return the bytes left."""
        entries, total, now = [], 0, time.time()
        for path, size, used in self._files():
            if not path.name.startswith("."):
                entries.append((used, size, path))
            elif now - used > ABANDONED and _remove(path):
                continue
            total += size
        for _, size, path in sorted(entries):
            if total <= self.max_bytes:
                break
            if _remove(path):
                total -= size
        return self.max_bytes - total

    def _files(self) -> Iterator[tuple[Path, int, float]]:
        """Path, bytes and time of last use of every file under the root."""
        if self.root is None:
            return
        for path in self.root.glob("??/*"):
            try:
                facts = path.stat()
            except OSError:  # another process removed it
                continue
            yield path, facts.st_size, facts.st_mtime


def _bucket(rank: int, k: int) -> int:
    """The rank at which to decompose for `rank`."""
    return min(k, next((bucket for bucket in BUCKETS if rank <= bucket), -(-rank // 128) * 128))


def _with_neighbours(first: int, count: int, k: int) -> tuple[int, int]:
    """First and count of the triplets `first … first + count - 1` and one more at each end, where there is one."""
    low, high = max(first - 1, 0), min(first + count + 1, k)
    return low, high - low


def _warning(name: str, part: Part, rank: int, gap: float | None) -> str | None:
    if gap is None or gap >= NEAR_DEGENERATE:
        return None
    return (
        f"{name}: the singular values at the cut of rank {rank} ({part}) are near-degenerate ({gap:.1e} of the largest "
        f"apart, limit {NEAR_DEGENERATE:.0e}): the factors' subspace is ill-defined; try a rank beside it"
    )


def _size_limit() -> int:
    text = os.environ.get("LORA_XS_CACHE_GB", "") or str(DEFAULT_GB)
    try:
        size = float(text)
    except ValueError:
        size = -1.0
    if not 0 <= size < float("inf"):
        raise UserError(f"LORA_XS_CACHE_GB={text}: not a size in gigabytes; give a number such as 20")
    return int(size * 1e9)


def _remove(path: Path) -> bool:
    """Whether the file could be removed by this process."""
    try:
        path.unlink()
    except OSError:
        return False
    return True
