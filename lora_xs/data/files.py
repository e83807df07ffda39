"""Rows out of data files: JSON lines, a JSON list or Parquet, each row with the place a message can name."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lora_xs.data.hub import HubUnavailable, fetch_hub_file
from lora_xs.data.sources import Request, local_root, resolve_source, sha256
from lora_xs.errors import UserError

Row = tuple[str, Any]  # its place, `file:line` or `file: row number`, and what stands there


@dataclass(frozen=True)
class HubFiles:
    """Files of a dataset repository on the hub at a pinned commit.

    `git_blob`: where the repository is somebody's copy of a single file, git's name for the authors' own content.
    """

    repo: str
    revision: str
    names: tuple[str, ...]
    git_blob: str | None = None


def gather_rows(
    request: Request, local: Sequence[str], hub: HubFiles | None, otherwise: str
) -> tuple[list[Row], dict[str, Any]]:
    """All rows of the first of the `local` files that the folder has, or of the hub's files one after the other.

    With the rows comes what an identity says of their origin: `source`, `repo` and `revision`, `files` (name → sha256)
    and, for a file with a known `git_blob`, `original`: whether it is that content byte for byte. `otherwise` ends the
    message where neither source has them. Raises UserError for that, and for a malformed file.
    """
    origin: dict[str, Any]
    if _source(request, local, hub, otherwise) == "local":
        folder = local_root(request)
        name = next((name for name in local if (folder / name).is_file()), None)
        if name is None:
            raise UserError(_missing(request, f"no file {folder / local[0]}", local, hub, otherwise))
        paths = {name: folder / name}
        origin = {"source": "local", "files": {}}
    else:
        assert hub is not None
        paths, commit = {}, request.revision or hub.revision
        try:
            for name in hub.names:
                paths[name], commit = fetch_hub_file(hub.repo, name, commit)
        except HubUnavailable as error:
            raise UserError(_missing(request, str(error), local, hub, otherwise)) from error
        origin = {"source": "hub", "repo": hub.repo, "revision": commit, "files": {}}
    rows: list[Row] = []
    for name, path in paths.items():
        content = _content(path)
        origin["files"][name] = sha256(content)
        if hub and hub.git_blob:
            blob = hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False)
            origin["original"] = blob.hexdigest() == hub.git_blob
        rows += read_rows(path, content)
    return rows, origin


def gather_matching(request: Request, pattern: str, otherwise: str) -> tuple[list[Row], dict[str, Any]]:
    """All rows of every file under the local folder whose name matches, one file after the other by name.

    Otherwise as `gather_rows` without a hub.
    """
    resolve_source(request, ("local",))  # refuses a source named outright that this task does not have
    if request.source == "auto" and not (request.root or os.environ.get("LORA_XS_DATA")):
        raise UserError(_missing(request, "no folder is named", (pattern,), None, otherwise))
    folder = local_root(request)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.glob(pattern) if path.is_file())
    if not names:
        raise UserError(_missing(request, f"no file {folder / pattern}", (pattern,), None, otherwise))
    rows: list[Row] = []
    files: dict[str, str] = {}
    for name in names:
        content = _content(folder / name)
        files[name] = sha256(content)
        rows += read_rows(folder / name, content)
    return rows, {"source": "local", "files": files}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a file that can") from None


def read_rows(path: Path, content: bytes) -> list[Row]:
    """Every row of a file with this content. A JSON list's rows are counted from 1, JSON lines by their line.

    Raises UserError for a file that is none of the three, and for one without rows.
    """
    if path.suffix == ".parquet":
        rows = list(_parquet(path, content))
    elif content[:1024].lstrip()[:1] == b"[":
        rows = list(_json_list(path, content))
    else:
        rows = list(_json_lines(path, content))
    if not rows:
        raise UserError(f"{path}:1: no rows, the file is empty")
    return rows


def text_field(row: Any, place: str, *names: str, may_be_empty: bool = False) -> str:
    """The text under the first of `names` that `row` has. Raises UserError naming the place and the field."""
    if not isinstance(row, dict):
        raise UserError(f"{place}: a row must be a JSON object, not {type(row).__name__}")
    name = next((name for name in names if name in row), None)
    if name is None:
        raise UserError(f"{place}: field '{names[0]}' is missing" + "".join(f" (so is '{n}')" for n in names[1:]))
    value = row[name]
    if not isinstance(value, str):
        raise UserError(f"{place}: field '{name}' must be a text, not {type(value).__name__}")
    if not value.strip() and not may_be_empty:
        raise UserError(f"{place}: field '{name}' is empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{place}: field '{name}' has half a character ({value[error.start]!a}) at {error.start}; correct the text"
        ) from error
    return value


def _source(request: Request, local: Sequence[str], hub: HubFiles | None, otherwise: str) -> str:
    if request.source == "auto":
        # A folder of other tasks' files must not hide the hub's: only one that has a file of this task counts.
        for name in local:
            if resolve_source(request, ("local", "hub"), local_holds=name) == "local":
                return "local"
        if hub is None:
            raise UserError(_missing(request, f"no folder with {local[0]} is named", local, hub, otherwise))
        return "hub"
    return resolve_source(request, ("local", "hub") if hub else ("local",))


def _missing(request: Request, what: str, local: Sequence[str], hub: HubFiles | None, otherwise: str) -> str:
    ways = ["the hub (data.source=hub, needs internet once)"] if hub else []
    ways += [f"a folder (data.root=<folder> or LORA_XS_DATA, with {' or '.join(local)})", otherwise]
    return f"task={request.task}: {what}; ways to provide it: {', or '.join(ways)}"


def _parquet(path: Path, content: bytes) -> Iterator[Row]:
    try:
        rows = pq.ParquetFile(io.BytesIO(content)).read().to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:  # damage within columns comes out as any of the three
        raise UserError(f"{path}: not a Parquet file ({str(error).partition(chr(10))[0]})") from error
    for number, row in enumerate(rows, start=1):
        yield f"{path}: row {number}", row


def _json_list(path: Path, content: bytes) -> Iterator[Row]:
    try:
        rows = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}:{content[: error.start].count(10) + 1}: not UTF-8") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg} at column {error.colno})") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, lists in lists without end
        raise UserError(f"{path}: not JSON that can be read ({error})") from error
    for number, row in enumerate(rows, start=1):
        yield f"{path}: row {number}", row


def lines_of(path: Path | str, content: bytes) -> Iterator[tuple[str, str]]:
    """(`path:line`, text) of each line of UTF-8. Raises UserError naming the line that is none."""
    lines = content.split(b"\n")  # not splitlines: JSON strings may hold other line separators
    for number, line in enumerate(lines[:-1] if lines[-1] == b"" else lines, start=1):
        try:
            yield f"{path}:{number}", line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}:{number}: not UTF-8 (byte {error.start} of the line)") from error


def _json_lines(path: Path, content: bytes) -> Iterator[Row]:
    for place, line in lines_of(path, content):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{place}: not JSON ({error.msg} at column {error.colno})") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place}: not JSON that can be read ({error})") from error
        yield place, row
