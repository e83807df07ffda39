"""The seven GLUE tasks of the papers: fields, labels, and their rows from the hub or from JSONL files."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from lora_xs.data.files import HubFiles, gather_rows, text_field
from lora_xs.data.rows import Columns, Kind, TaskRows, build_rows
from lora_xs.data.sources import Request, resolve_source
from lora_xs.errors import UserError

REPO = "nyu-mll/glue"
REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"  # the repository's commit with Parquet files, one a split
OTHERWISE = "task=reviews instead, which the package registry serves"
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
    # for both splits together: half a task in the folder is a mistake, not a reason to mix it with the hub's
    asked = replace(request, source=resolve_source(request, ("local", "hub"), local_holds=f"glue/{name}"))
    origin: dict[str, Any] = {}
    files: dict[str, str] = {}
    columns: list[Columns] = []
    for split in ("train", task.validation):
        remote = HubFiles(REPO, REVISION, (f"{name}/{split}-00000-of-00001.parquet",))
        rows, origin = gather_rows(asked, (f"glue/{name}/{split}.jsonl",), remote, OTHERWISE)
        asked = replace(asked, revision=origin.get("revision"))  # a branch may move between the two
        files |= {file.removeprefix("glue/"): digest for file, digest in origin["files"].items()}
        columns.append(Columns.of([_check(row, place, task) for place, row in rows]))
    kind: Kind = "classification" if task.labels else "regression"
    return build_rows(columns[0], columns[1], kind, task.labels, origin | {"files": files})


def _check(row: Any, place: str, task: GlueTask) -> tuple[str, str | None, Any]:
    """(text_a, text_b or None, label) of a raw row. Raises UserError naming `place` and the field."""
    texts = [text_field(row, place, field, may_be_empty=True) for field in task.fields]
    if "label" not in row:
        raise UserError(f"{place}: field 'label' is missing")
    label = row["label"]
    if task.labels:
        if type(label) is not int or not 0 <= label < len(task.labels):
            raise UserError(f"{place}: field 'label' must be an integer 0 to {len(task.labels) - 1}, not {label!r}")
    elif type(label) not in (int, float) or not math.isfinite(label) or not SCORES[0] <= label <= SCORES[1]:
        raise UserError(f"{place}: field 'label' must be a number {SCORES[0]} to {SCORES[1]}, not {label!r}")
    return texts[0], texts[1] if len(texts) == 2 else None, label
