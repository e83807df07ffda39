"""Fill what a config leaves open from the papers' published settings, and say where each value came from.

A value given by the user wins; then the task's own table for protocol, method and rank (LoRA-XS Table 7), then for
every method; then what the method's own file says was published for the task's family; then what the protocol says of
that family; then this project's documented defaults, recorded as "ours". A field nobody published and nobody gave is an
error that names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lora_xs.errors import UserError

OPEN_FIELDS = (
    "trainer.learning_rate",
    "trainer.head_learning_rate",
    "trainer.epochs",
    "trainer.batch_size",
    "trainer.schedule",
    "trainer.warmup_ratio",
    "trainer.weight_decay",
    "trainer.max_grad_norm",
    "trainer.warmup_steps",
    "trainer.loss",
    "trainer.loss_rows",
    "method.alpha",
    "method.dropout",
    "method.target_modules",
    "task.max_length",
    "task.train_rows",
    "task.validation_rows",
    "task.take",
    "init.samples",
    "init.batch_size",
    "evaluation.every",
    "evaluation.steps",
    "evaluation.select",
    "evaluation.reading",
    "evaluation.beams",
    "evaluation.max_new_tokens",
)
NEEDS_SCALE = ("lora", "rslora", "pissa", "lora_xs", "lora_sb")
SETTINGS_ONLY = {"task": ("family", "published", "ours"), "method": ("published", "ours")}
MAY_STAY_OPEN = (  # what the dataclass says of None or gives by default holds then
    "method.target_modules",
    "init.batch_size",
    "trainer.warmup_steps",
    "trainer.loss",
    "trainer.loss_rows",
    "task.train_rows",
    "task.validation_rows",
    "task.take",
    "evaluation.steps",
)
TO_ANSWER = ("evaluation.reading", "evaluation.beams", "evaluation.max_new_tokens")  # open only where there are tests
BESIDE_A_CHOICE = {  # what is published beside a choice holds only where that choice does
    "evaluation.steps": ("every", "steps"),
    "trainer.loss_rows": ("loss", "micro_batches"),
}
GIVEN = "given"


def resolve(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return (values ready to bind, dotted key → source of the value).

    Raises UserError for a field that is neither given nor published nor has a default of ours.
    """
    values: dict[str, Any] = {k: dict(v) if isinstance(v, Mapping) else v for k, v in config.items()}
    rank = values["rank"].get("r")
    provenance: dict[str, str] = {}
    for dotted in OPEN_FIELDS:
        section, key = dotted.split(".")
        if values[section].get(key) is not None:
            provenance[dotted] = GIVEN
            continue
        if dotted == "trainer.warmup_steps" and provenance["trainer.warmup_ratio"] == GIVEN:
            values[section].pop(key, None)
            continue  # steps win over a ratio, but not published ones over one that is given
        if dotted == "method.alpha" and values["method"]["name"] not in NEEDS_SCALE:
            continue
        if section == "init" and not _estimates(values, key):
            continue
        if dotted == "trainer.head_learning_rate" and values["task"]["kind"] == "instruction":
            continue  # a language model has no head of its own
        if dotted in TO_ANSWER and not values["task"].get("tests"):
            values[section].pop(key, None)
            continue
        for source, settings in _layers(values, rank):
            value = (settings.get(section) or {}).get(key)
            if value is not None:
                values[section][key], provenance[dotted] = value, source
                break
        else:
            if dotted in MAY_STAY_OPEN:
                values[section].pop(key, None)
                continue
            raise UserError(
                f"{dotted} is an open field: not published for protocol={values['protocol']['name']} "
                f"task={values['task']['name']} method={values['method']['name']} rank={rank}; give {dotted}=…"
            )
    if values["method"].get("alpha") == "r":
        values["method"]["alpha"] = rank
    for dotted, needed in BESIDE_A_CHOICE.items():
        section, key = dotted.split(".")
        chosen, wanted = needed
        if values[section].get(chosen) != wanted and provenance.get(dotted, GIVEN) != GIVEN:
            del values[section][key], provenance[dotted]
    limit = values["evaluation"].get("max_new_tokens")
    if isinstance(limit, int):
        values["evaluation"]["max_new_tokens"] = dict.fromkeys(values["task"].get("tests") or (), limit)
    values["rank"] = rank if values["method"].get("uses_rank") else None
    values["protocol"] = values["protocol"]["name"]
    for section, keys in SETTINGS_ONLY.items():
        values[section] = {k: v for k, v in values[section].items() if k not in keys}
    return values, provenance


def _estimates(values: Mapping[str, Any], key: str) -> bool:
    """Whether LoRA-SB's estimate is made and needs `key` of `init`: a share of the rows replaces their number."""
    by_share = key == "samples" and values["init"].get("fraction") is not None
    return values["method"]["name"] == "lora_sb" and values["init"]["name"] == "update" and not by_share


def _layers(values: Mapping[str, Any], rank: int | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Settings that may fill an open field, strongest first, each with its source in words."""
    task, method, protocol = values["task"], values["method"], values["protocol"]
    family = (protocol.get("families") or {}).get(task["family"]) or {}
    table = (task.get("published") or {}).get(protocol["name"]) or {}
    of_method = table.get(method["name"]) or {}
    published_in = table.get("source", "")
    yield published_in, of_method.get(rank) or {}
    yield published_in, of_method.get("any") or {}
    yield published_in, table.get("any") or {}
    of_family = ((method.get("published") or {}).get(protocol["name"]) or {}).get(task["family"]) or {}
    yield of_family.get("source", ""), of_family
    if (values.get("start_from") or {}).get("run"):
        yield f"{family.get('source', '')} (started from another task)", family.get("started") or {}
    yield family.get("source", ""), (family.get("methods") or {}).get(method["name"]) or {}
    yield family.get("source", ""), family
    ours = task.get("ours") or {}
    yield f"ours (configs/task/{task['name']}.yaml)", ours.get(method["name"]) or {}
    yield f"ours (configs/task/{task['name']}.yaml)", ours.get("any") or {}
    kind = values["model"]["kind"]
    yield f"ours (configs/method/{method['name']}.yaml)", (method.get("ours") or {}).get(kind) or {}
