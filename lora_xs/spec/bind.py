"""Bind plain config values to a dataclass, naming key, value and what is allowed when they do not fit."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lora_xs.errors import UserError

T = TypeVar("T")


def bind(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Make a `cls` (a dataclass) of `values`; `where` is the config path used in messages.

    Raises UserError for an unknown key, a missing one, or a value of another type.
    """
    hints = get_type_hints(cls)
    prefix = f"{where}." if where else ""
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {prefix}{close[0]}?" if close else f"known keys: {', '.join(fields)}"
            raise UserError(f"unknown key {prefix}{key}; {hint}")
    bound = {}
    for name, field in fields.items():
        if name in values:
            bound[name] = _convert(values[name], hints[name], f"{prefix}{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"missing key {prefix}{name}; give it as {prefix}{name}=…")
    return cls(**bound)


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        inner = [a for a in args if a is not type(None)]
        return _convert(value, type(value) if type(value) in inner else inner[0], where)
    if origin is Literal:
        if not any(value == arg and type(value) is type(arg) for arg in args):  # 0 is not false here
            raise UserError(f"{where}={value!r} is not allowed; choose one of {', '.join(map(str, args))}")
        return value
    if origin is tuple:
        if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
            raise UserError(f"{where}={value!r} must be a list, e.g. {where}=[a,b]")
        items = list(value)
        kinds = [args[0]] * len(items) if args[-1] is Ellipsis else list(args)
        if len(kinds) != len(items):
            raise UserError(f"{where}={items} must have {len(kinds)} items")
        return tuple(_convert(v, k, f"{where}[{i}]") for i, (v, k) in enumerate(zip(items, kinds, strict=True)))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise UserError(f"{where}={value!r} must be a group of keys")
        return bind(hint, value, where)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise UserError(f"{where}={value!r} must be a mapping")
        if not args or args[1] is Any:
            return dict(value)
        return {key: _convert(one, args[1], f"{where}.{key}") for key, one in value.items()}
    return _scalar(value, hint, where)


def _scalar(value: Any, hint: type, where: str) -> Any:
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise UserError(f"{where}={value} must be a finite number")
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is bool and isinstance(value, bool):
        return value
    if hint is str and isinstance(value, str):
        return value
    kind = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}.get(hint, str(hint))
    raise UserError(f"{where}={value!r} must be {kind}")
