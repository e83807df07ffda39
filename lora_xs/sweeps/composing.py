"""Overrides to a RunSpec, the same as `train.py`'s, in milliseconds instead of Hydra's quarter of a second.

Hydra composes each single choice of a group (`task=glue/mrpc`) once; many choices together are put together from the
sections each of them decides, and `key=value` overrides are laid on plain containers. Whatever is not that simple
(two choices that both decide a third group, `+key`, an unknown key) goes through Hydra itself, mistakes included.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

from lora_xs.errors import UserError
from lora_xs.spec import RunSpec
from lora_xs.spec.compose import GROUPS, compose_config, options, require_value

Choices = tuple[tuple[str, str], ...]  # (group, name), in the order given, a group once


def settled(overrides: Sequence[str]) -> tuple[str, ...]:
    """`overrides` without those that a later one of the same key undoes: what `train.py` is given for such a run.

    Raises UserError for what is no override, and for `force`, which says how to run and not what.
    """
    last: dict[str, str] = {}
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals:
            raise UserError(f"{override!r} is no override; write key=value")
        require_value(override)
        if key == "force":
            raise UserError(f"{override} is not a property of a run; leave it out of experiments")
        key = {"start_from": "start_from.run", "rank": "rank.r"}.get(key, key)
        last.pop(key, None)
        last[key] = override
    return tuple(last.values())


def spec_of(overrides: Sequence[str]) -> RunSpec:
    """The RunSpec of `python train.py <overrides>`. Raises UserError for whatever `train.py` and `settled` refuse."""
    chosen: list[tuple[str, str]] = []
    keys: list[str] = []
    seed: int | None = None
    for override in settled(overrides):
        key, _, value = override.partition("=")
        if key == "seed" and value.isdigit():
            seed = int(value)  # decides no other field: the runs of a cell differ in it alone
        elif key == "rank" and value in _known("rank"):
            keys.append(f"rank.r={value}")  # what such a file holds, without a composition for each rank
        elif key in GROUPS:
            chosen.append((key, value))
        else:
            keys.append(f"start_from.run={value}" if key == "start_from" else override)
    if seed is not None and any("${" in key for key in keys):
        keys.append(f"seed={seed}")  # unless one is written to follow it
    spec = _spec(tuple(chosen), tuple(keys))
    return spec if seed is None else spec.replace(seed=seed)


@lru_cache(maxsize=8192)
def _spec(chosen: Choices, keys: tuple[str, ...]) -> RunSpec:
    config = _laid_on(chosen, keys) or compose_config([*(f"{group}={name}" for group, name in chosen), *keys])
    config.pop("force", None)
    return RunSpec.from_config(config)


def _laid_on(chosen: Choices, keys: tuple[str, ...]) -> dict[str, Any] | None:
    """The composed config with `keys` laid on; None where that is Hydra's to do."""
    config = copy.deepcopy(_composed(chosen))
    for text in keys:
        override = _parsed(text)
        if override is None:
            return None
        *sections, last = override[0].split(".")
        place: Any = config
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if not isinstance(place, dict) or last not in place or isinstance(place[last], dict):
            return None
        place[last] = copy.deepcopy(override[1])
    return config


@cache
def _parsed(override: str) -> tuple[str, Any] | None:
    """Key and value as Hydra's grammar reads them; None for anything but a plain `key=value`."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        read = OverridesParser.create().parse_override(override)
    except HydraException:
        return None
    special = read.is_add() or read.is_delete() or read.is_force_add() or read.is_sweep_override() or read.package
    if special or "${" in override:
        return None
    value = read.value()
    return (read.key_or_group, value) if isinstance(value, str | int | float | bool | list | None) else None


@cache
def _composed(chosen: Choices) -> dict[str, Any]:
    """The config of these choices and no other override."""
    default = _alone(None)
    decided: dict[str, Any] = {}
    for choice in chosen:
        for section, content in _alone(choice).items():
            if section == choice[0]:
                decided[section] = content
            elif content == default[section] or section in dict(chosen):
                continue
            elif decided.setdefault(section, content) != content:
                return compose_config([f"{group}={name}" for group, name in chosen])
    return {**default, **decided}


@cache
def _alone(choice: tuple[str, str] | None) -> dict[str, Any]:
    return compose_config([f"{choice[0]}={choice[1]}"] if choice else [])


@cache
def _known(group: str) -> frozenset[str]:
    return frozenset(options(group))
