"""An exception as JSON and back: what the processes of a run, and the one that started them, say of a failure."""

from __future__ import annotations

from typing import Any, TypeVar

from lora_xs.errors import UserError

E = TypeVar("E", bound=type[BaseException])
_KNOWN: dict[str, type[BaseException]] = {kind.__name__: kind for kind in (UserError, KeyboardInterrupt)}


def portable(kind: E) -> E:
    """Class decorator: the exception keeps its type on the way, made anew from its attribute `arguments` (JSON), or
    from its text where it has none."""
    _KNOWN[kind.__name__] = kind
    return kind


def to_json(error: BaseException) -> dict[str, Any]:
    """The exception's kind, or that of its next portable ancestor, and what to make it from; of any other, a
    RuntimeError that says its type's name and its text."""
    kind = next((kind for kind in type(error).__mro__ if _KNOWN.get(kind.__name__) is kind), None)
    if kind is None:
        return {"kind": "RuntimeError", "arguments": [f"{type(error).__name__}: {error}"]}
    return {"kind": kind.__name__, "arguments": list(getattr(error, "arguments", [str(error)]))}


def from_json(said: dict[str, Any]) -> BaseException:
    """The exception that `to_json` described: RuntimeError for one that is not portable."""
    return _KNOWN.get(said["kind"], RuntimeError)(*said["arguments"])
