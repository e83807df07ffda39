"""From adapters' folders into a bundle: made anew, or added to one that is there."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lora_xs.adapters.bundle import Bundle, check_name, write_bundle
from lora_xs.adapters.family import AdapterFolder, Family
from lora_xs.adapters.files import CONFIG
from lora_xs.errors import UserError


def pack_adapters(
    path: str | Path, adapters: Mapping[str, str | Path], *, dtype: str = "float32", heads: bool = True
) -> None:
    """Write a new bundle of `adapters`, users' names to folders (a run's folder stands for its best adapter).

    dtype: `float32` keeps R bit for bit; `float16` and `bfloat16` halve it, at the loss that `Bundle.rounding` tells.
    heads: keep the heads that were trained with R; False leaves them out. Raises UserError, naming the user, where an
    adapter differs from the first in settings, modules, factors or head, and where `path` exists.
    """
    place = Path(path)
    if place.exists():
        raise UserError(f"{place}: exists; add to it, or give another name")
    if not adapters:
        raise UserError(f"{place}: no adapter to pack; give NAME=FOLDER")
    opened = _open_all(adapters, heads)
    first = next(iter(opened.values()))
    _check_all(first.family, opened)
    write_bundle(place, first.family, opened, dtype=dtype, factors=first.factors())


def add_adapters(path: str | Path, adapters: Mapping[str, str | Path], *, heads: bool = True) -> None:
    """Add users to a bundle; in its dtype, behind those it has.

    A reader sees the old file or the new one. Cost: the file is copied once, in pieces of 8 MiB (so add in batches);
    disk for both stands until it is replaced. Raises UserError where an adapter does not belong, a name is taken, or
    another process is adding; nothing is changed then.
    """
    place = Path(path)
    with _sole_writer(place), Bundle(place) as before:
        opened = _open_all(adapters, heads)
        _check_all(before.family, opened)
        write_bundle(place, before.family, opened, before=before)


def adapters_under(folder: str | Path) -> dict[str, Path]:
    """Users by the names of the folders directly under `folder` that hold an adapter, or a run's best one."""
    place = Path(folder)
    marks = (Path(CONFIG), Path("adapter") / "best" / CONFIG)
    found = {
        child.name: child
        for child in sorted(place.iterdir() if place.is_dir() else [])
        if any((child / mark).is_file() for mark in marks)
    }
    if not found:
        raise UserError(f"{place}: no folder with an adapter in it; give the folder that holds the users' folders")
    return found


class _Headless(AdapterFolder):
    """An adapter whose head stays behind."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder)
        self.family = self.family.without_head()


def _open_all(adapters: Mapping[str, str | Path], heads: bool) -> dict[str, AdapterFolder]:
    for user in adapters:
        check_name(user)
    return {user: (AdapterFolder if heads else _Headless)(folder) for user, folder in adapters.items()}


def _check_all(family: Family, opened: Mapping[str, AdapterFolder]) -> None:
    for user, adapter in opened.items():
        family.check_member(adapter.family, f"{user} ({adapter.folder})")
        adapter.family = family  # equal but for training's settings: thousands of users share one description


@contextmanager
def _sole_writer(path: Path) -> Iterator[None]:
    """Hold the bundle against other writers: of two, the later would replace what the earlier added.

    The lock is the system's, on the file itself, and gone with the process that held it.
    """
    try:
        held = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UserError(f"{path}: no bundle that can be read ({error.strerror}); pack one first") from None
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{path}: another process is adding to it; try again when it is done") from None
        if os.fstat(held.fileno()).st_ino != path.stat().st_ino:
            raise UserError(f"{path}: another process has just added to it; try again")
        yield
