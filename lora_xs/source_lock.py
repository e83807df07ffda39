"""What a set of runs reads from outside, resolved once into a file: models, rows, tests, packages, each as found.

A login node with a connection makes the lock (and fills the caches on the way); runs that name it refuse anything else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_xs.atomic import write_json
from lora_xs.environment import PACKAGES, versions
from lora_xs.errors import UserError

if TYPE_CHECKING:
    from lora_xs.spec import RunSpec

SCHEMA = 1
# what names a source; not what a run makes of it, such as the content of a subset
ORIGIN = ("source", "repo", "repository", "revision", "package", "version", "files", "gguf", "generator", "seed")


def resolve(specs: Iterable[RunSpec], progress: Callable[[str], None] = lambda what: None) -> dict[str, Any]:
    """The lock of `specs`: every model, training set and test they name, found (fetched where need be) and identified.

    progress is told what comes next. Raises UserError naming all that is missing, once everything has been tried.
    """
    from lora_xs.data import load_rows, load_test
    from lora_xs.models import locate

    lock: dict[str, Any] = {"schema": SCHEMA, "models": {}, "data": {}, "tests": {}, "packages": versions(PACKAGES)}
    missing: dict[str, None] = {}

    def find(kind: str, key: str, identify: Callable[[], Mapping[str, Any]]) -> None:
        if key in lock[kind]:
            return
        progress(f"{kind}: {key}")
        lock[kind][key] = None
        try:
            lock[kind][key] = origin(identify())
        except UserError as error:
            missing[str(error)] = None

    for spec in specs:
        where: Any = {"source": spec.data.source, "root": spec.data.root, "prompt": spec.task.prompt}
        find("models", spec.model.name, lambda spec=spec: locate(spec.model).identity)  # type: ignore[misc]
        find(
            "data",
            spec.task.name,
            lambda spec=spec, where=where: load_rows(spec.task.name, revision=spec.task.revision, **where).identity,  # type: ignore[misc]
        )
        for name in spec.task.tests:
            find("tests", name, lambda name=name, where=where: load_test(name, **where).identity)  # type: ignore[misc]
    if missing:
        raise UserError("; ".join(missing))
    return lock


def write_lock(path: Path, lock: Mapping[str, Any]) -> None:
    """Write the lock, whole or not at all."""
    write_json(path, lock)


def check(path: Path, spec: RunSpec, inputs: Mapping[str, Any]) -> None:
    """Raise UserError where what a run found (`inputs`: `model`, `data` and `tests` identities) is not the lock's.

    Other versions of packages are refused too: a result may hang on them.
    """
    lock = read_lock(path)
    found = {f"models.{spec.model.name}": inputs["model"], f"data.{spec.task.name}": inputs["data"]}
    found |= {f"tests.{name}": identity for name, identity in inputs.get("tests", {}).items()}
    for key, identity in found.items():
        kind, _, name = key.partition(".")
        if name not in lock[kind]:
            raise UserError(f"{path}: has no {key}; make it again with scripts/prefetch.py")
        now = origin(json.loads(json.dumps(identity)))
        differ = sorted(
            part for part in lock[kind][name].keys() | now.keys() if lock[kind][name].get(part) != now.get(part)
        )
        if differ:
            raise UserError(f"{path}: {key} is another one here ({', '.join(differ)} differ); restore it, or lock anew")
    here = versions(PACKAGES)
    other = sorted(
        name for name in lock["packages"].keys() | here.keys() if lock["packages"].get(name) != here.get(name)
    )
    if other:
        said = ", ".join(f"{name} {here.get(name, 'none')} for {lock['packages'].get(name, 'none')}" for name in other)
        raise UserError(f"{path}: other packages are installed: {said}; install the locked ones, or lock anew")


def read_lock(path: Path) -> dict[str, Any]:
    """The lock of a file. Raises UserError for a missing one, or one that is none."""
    try:
        lock = json.loads(path.read_text(encoding="utf-8"))
        if lock["schema"] != SCHEMA:
            raise KeyError("schema")
        return {kind: dict(lock[kind]) for kind in ("models", "data", "tests", "packages")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"data.lock={path}: no lock that can be read ({error}); make one with scripts/prefetch.py"
        ) from None


def origin(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Of an identity what says where it came from."""
    return {key: identity[key] for key in ORIGIN if identity.get(key) is not None}
