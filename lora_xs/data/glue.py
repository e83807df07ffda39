"""The seven GLUE tasks of the papers: fields, labels, and their rows from the hub or from JSONL files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lora_xs.data.files import read_rows
from lora_xs.data.hub import HubUnavailable, fetch_hub_file
from lora_xs.data.rows import Columns, Kind, TaskRows, build_rows
from lora_xs.data.sources import Request, local_root, resolve_source, sha256
from lora_xs.errors import UserError

REPO = "nyu-mll/glue"
REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"  # the repository's commit with Parquet files, one a split
SCORES = (0.0, 5.0)  # of STS-B


@dataclass(frozen=True)
class GlueTask:
    """`fields`: the names of the one or two texts. `labels`: class names by id, () for STS-B."""

    fields: tuple[str, ...]
    labels: tuple[str, ...]
    validation: str = "validation"


GLUE = {
    "cola": GlueTask(("sentence",), ("unacceptable", "acceptable")),
    "mrpc": GlueTask(("sentence1", "sentence2"), ("not_equivalent", "equivalent")),
    "rte": GlueTask(("sentence1", "sentence2"), ("entailment", "not_entailment")),
    "stsb": GlueTask(("sentence1", "sentence2"), ()),
    "qnli": GlueTask(("question", "sentence"), ("entailment", "not_entailment")),
    "sst2": GlueTask(("sentence",), ("negative", "positive")),
    "mnli": GlueTask(("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), "validation_matched"),
}


def load_glue(name: str, request: Request) -> TaskRows:
    """Rows of GLUE task `name`, validation being the matched one for MNLI.

    `local`: `<root>/glue/<name>/{train,validation}.jsonl` (`validation_matched.jsonl` for MNLI), the hub's field names.
    Raises UserError for a missing file, an unreachable hub and a malformed row (`file:line: field …`).
    """
    task = GLUE[name]
    splits = ("train", task.validation)
    origin: dict[str, Any]
    if resolve_source(request, ("local", "hub")) == "local":
        folder = local_root(request)
        paths = [folder / "glue" / name / f"{split}.jsonl" for split in splits]
        for path in paths:
            if not path.is_file():
                raise UserError(_missing(request, f"no file {path}"))
        origin = {"source": "local", "files": {}}
    else:
        names = [f"{name}/{split}-00000-of-00001.parquet" for split in splits]
        try:
            first, commit = fetch_hub_file(REPO, names[0], request.revision or REVISION)
            second, _ = fetch_hub_file(REPO, names[1], commit)
        except HubUnavailable as error:
            raise UserError(_missing(request, str(error))) from error
        paths = [first, second]
        origin = {"source": "hub", "repo": REPO, "revision": commit, "files": {}}
    columns: list[Columns] = []
    for path in paths:
        content = path.read_bytes()
        origin["files"][f"{name}/{path.name}"] = sha256(content)
        columns.append(Columns.of([_check(row, place, task) for place, row in read_rows(path, content)]))
    kind: Kind = "classification" if task.labels else "regression"
    return build_rows(columns[0], columns[1], kind, task.labels, origin)


def _check(row: Any, place: str, task: GlueTask) -> tuple[str, str | None, Any]:
    """(text_a, text_b or None, label) of a raw row. Raises UserError naming `place` and the field."""
    if not isinstance(row, dict):
        raise UserError(f"{place}: a row must be a JSON object, not {type(row).__name__}")
    for field in (*task.fields, "label"):
        if field not in row:
            raise UserError(f"{place}: field '{field}' is missing")
    for field in task.fields:
        if not isinstance(row[field], str):
            raise UserError(f"{place}: field '{field}' must be a text, not {type(row[field]).__name__}")
    label = row["label"]
    if task.labels:
        if type(label) is not int or not 0 <= label < len(task.labels):
            raise UserError(f"{place}: field 'label' must be an integer 0 to {len(task.labels) - 1}, not {label!r}")
    elif type(label) not in (int, float) or not math.isfinite(label) or not SCORES[0] <= label <= SCORES[1]:
        raise UserError(f"{place}: field 'label' must be a number {SCORES[0]} to {SCORES[1]}, not {label!r}")
    return row[task.fields[0]], row[task.fields[1]] if len(task.fields) == 2 else None, label


def _missing(request: Request, what: str) -> str:
    return (
        f"task={request.task}: {what}; three ways to provide it: the hub (data.source=hub, needs internet once),"
        " a folder (data.root=<folder> or LORA_XS_DATA, with glue/<name>/<split>.jsonl), or task=reviews instead,"
        " which the package registry serves"
    )
