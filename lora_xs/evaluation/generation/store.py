"""The file of a test's completions: JSON lines, a header first, appended batch by batch. Needs no torch.

    {"kind": "header", "version": 1, "test": …, "decoding": …, "settings": …, "rows": …, "prompts": …, "golds": …}
    {"id": …, "prompt": …, "prompt_sha256": …, "completion": …, "completion_sha256": …, "tokens": …, "finish": …,
     "gold": …}

A file may be incomplete (`header["rows"]` says how many lines it is to have), and its last line torn by a kill; every
line before is whole and carries the hashes of its texts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from lora_xs.atomic import replace_file
from lora_xs.errors import UserError
from lora_xs.evaluation.generation.decoding import Decoding, Finish

if TYPE_CHECKING:
    from lora_xs.data.question_set import QuestionSet

VERSION = 1
MAX_LINE = 1 << 22
"""Bytes; a longer line is refused unread."""

_KINDS: dict[str, type] = {"id": str, "prompt": str, "completion": str, "tokens": int, "finish": str, "gold": str}
_NAMES = {str: "string", int: "whole number"}
_HASHED = ("prompt", "completion")


@dataclass(frozen=True)
class Generation:
    """A question's completion and all that is needed to score it. `tokens` were generated; `finish`: see Completion."""

    id: str
    prompt: str
    completion: str
    tokens: int
    finish: Finish
    gold: str


def header_of(questions: QuestionSet, decoding: Decoding | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What makes two files comparable line by line; `settings` is the caller's share (model, adapter, dtype …).

    decoding: None where nothing is generated. Raises UserError where `settings` is not JSON.
    """
    header = {
        "kind": "header",
        "version": VERSION,
        "test": questions.name,
        "decoding": asdict(decoding) if decoding else None,
        "settings": dict(settings),
        "rows": len(questions.questions),
        "prompts": _digest([[question.id, question.prompt] for question in questions.questions]),
        "golds": _digest([[question.id, question.gold] for question in questions.questions]),
    }
    try:
        return json.loads(json.dumps(header, allow_nan=False))  # tuples become lists, as they will when read
    except (TypeError, ValueError) as error:
        raise UserError(
            f"settings of {questions.name}'s completions are not JSON ({error}); give plain values"
        ) from None


def open_file(file: Path, header: dict[str, Any]) -> list[Generation]:
    """Make the file, or take up an earlier one: what it holds already, a torn last line removed.

    Raises UserError where the file has another header, naming what differs, or holds a line it should not.
    """
    if not file.is_file():
        line = _line(header)
        replace_file(file, lambda temporary: temporary.write_bytes(line))
        return []
    found, generations, whole = _read(file)
    different = _differences(found, header)
    if different:
        raise UserError(f"{file}: made with other settings ({'; '.join(different)}); delete it or give another file")
    with open(file, "r+b") as opened:
        opened.truncate(whole)
        os.fsync(opened.fileno())
    return generations


def append(file: Path, generations: Sequence[Generation]) -> None:
    """Add the lines in one write and wait until the disk has them."""
    lines = b"".join(_line(_to_json(generation)) for generation in generations)
    with open(file, "ab", buffering=0) as opened:
        written = opened.write(lines)
        if written != len(lines):
            raise OSError(f"{file}: only {written} of {len(lines)} bytes could be written")
        os.fsync(opened.fileno())


def read_generations(file: Path) -> tuple[dict[str, Any], list[Generation]]:
    """The header and the completions in the file's order; a torn last line is left out.

    Raises UserError `file:line: …` for anything else that is not as it was written, edited texts included.
    """
    header, generations, _ = _read(file)
    return header, generations


def _read(file: Path) -> tuple[dict[str, Any], list[Generation], int]:
    """Header, completions, and how many bytes the whole lines are."""
    if not file.is_file():
        raise UserError(f"{file}: no such file of completions")
    header: dict[str, Any] | None = None
    generations: list[Generation] = []
    seen: set[str] = set()
    number = whole = 0
    with open(file, "rb") as opened:
        while line := opened.readline(MAX_LINE + 1):
            number += 1
            place = f"{file}:{number}"
            if len(line) > MAX_LINE:
                raise UserError(f"{place}: longer than {MAX_LINE} bytes; not a file of completions")
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            content = _parse(line, place)
            if header is None:
                header = _check_header(content, place)
                continue
            generation = _from_json(content, place)
            if generation.id in seen:
                raise UserError(f"{place}: field 'id': {generation.id!r} is there twice; delete one of the lines")
            seen.add(generation.id)
            generations.append(generation)
    if header is None:
        raise UserError(f"{file}:1: no header; not a file of completions, delete it or give another file")
    return header, generations, whole


def _parse(line: bytes, place: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not JSON ({str(error).partition(': line')[0]})") from None
    if not isinstance(content, dict):
        raise UserError(f"{place}: a JSON object is expected, not {type(content).__name__}")
    return content


def _check_header(content: dict[str, Any], place: str) -> dict[str, Any]:
    if content.get("kind") != "header":
        raise UserError(f"{place}: field 'kind' must be 'header'; not a file of completions")
    if content.get("version") != VERSION:
        raise UserError(f"{place}: field 'version': {content.get('version')!r} is not {VERSION}, which is read here")
    if not isinstance(content.get("test"), str) or not isinstance(content.get("rows"), int):
        raise UserError(f"{place}: fields 'test' (a string) and 'rows' (a number) are missing")
    return content


def _to_json(generation: Generation) -> dict[str, Any]:
    return asdict(generation) | {f"{name}_sha256": _sha256(getattr(generation, name)) for name in _HASHED}


def _from_json(content: dict[str, Any], place: str) -> Generation:
    for name, kind in _KINDS.items():
        value = content.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(f"{place}: field '{name}' must be a {_NAMES[kind]}, not {type(value).__name__}")
    if content["finish"] not in get_args(Finish):
        raise UserError(f"{place}: field 'finish': {content['finish']!r} is none of {', '.join(get_args(Finish))}")
    for name in _HASHED:
        if content.get(f"{name}_sha256") != _sha256(content[name]):
            raise UserError(f"{place}: field '{name}' is not what was written, its sha256 differs; generate it again")
    return Generation(**{name: content[name] for name in _KINDS})


def _differences(found: Any, wanted: Any, name: str = "") -> list[str]:
    """`name=old, now new` for every value that differs, dotted names for nested ones."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = [*wanted, *(key for key in found if key not in wanted)]
        return [
            text
            for key in keys
            for text in _differences(found.get(key), wanted.get(key), f"{name}.{key}" if name else key)
        ]
    if found == wanted:
        return []
    if name in ("prompts", "golds"):
        return [f"other {name}"]
    return [f"{name}={json.dumps(found, ensure_ascii=False)}, now {json.dumps(wanted, ensure_ascii=False)}"]


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _digest(rows: Sequence[Any]) -> str:
    return _sha256("".join(json.dumps(row) + "\n" for row in rows))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
