"""Compose the config with Hydra: overrides in, plain containers out, mistakes as one line; and the help page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_xs.errors import UserError
from lora_xs.spec.runspec import RunSpec

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PATH_KEYS = ("data.root", "data.lock", "model.path", "results", "start_from", "start_from.run")
GROUPS = ("model", "task", "method", "rank", "init", "protocol", "trainer", "evaluation", "logger", "launcher")


def compose_config(overrides: Sequence[str]) -> dict[str, Any]:
    """The composed config of `configs/config.yaml` under Hydra `overrides`, as plain dicts and lists.

    `start_from=<folder>` is short for `start_from.run=<folder>`. Raises UserError for anything Hydra refuses.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    spelled = [_hydra_spelling(text) for text in overrides]
    for text in spelled:
        if text.startswith("~"):
            raise UserError(f"{text}: nothing can be taken out of a run's config; give another value with {text[1:]}=…")
        require_value(text)
    try:
        with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
            config = compose(config_name="config", overrides=spelled)
        plain = OmegaConf.to_container(config, resolve=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: a group set to null
        raise UserError(_one_line(error, spelled)) from error
    assert isinstance(plain, dict)
    _check_model(plain["model"])
    return {str(key): value for key, value in plain.items()}


def require_value(override: str) -> None:
    """Raises UserError for `key=`, of an unset variable, say, which Hydra would take for an empty text."""
    if override.endswith("="):
        raise UserError(f"{override} has no value; give one, {override}null for none, or leave it out")


def compose_spec(overrides: Sequence[str]) -> RunSpec:
    """The run that `train.py` makes of these overrides. Raises UserError as `compose_config`, `RunSpec.from_config`."""
    config = compose_config(overrides)
    config.pop("force")
    return RunSpec.from_config(config)


def _check_model(model: dict[str, Any]) -> None:
    """A model's name stands for its weights in a run's identity: other weights need another name."""
    from omegaconf import OmegaConf

    file = CONFIGS / "model" / f"{model.get('name')}.yaml"
    if not file.is_file():
        return
    usual: Any = OmegaConf.load(file)
    for key in ("hub", "package"):
        value = model.get(key)
        if value is not None and value != usual.get(key):
            raise UserError(
                f"model.{key}={value} is not model={model['name']}, whose name stands for its weights in a run's "
                "identity; give it a name of its own too: model.name=…"
            )


def _hydra_spelling(override: str) -> str:
    """`start_from=X` means `start_from.run=X`; an option named by digits must be quoted for Hydra's grammar."""
    return re.sub(r"^rank=(\d+)$", r'rank="\1"', re.sub(r"^start_from=", "start_from.run=", override))


def portable(overrides: Sequence[str]) -> tuple[str, ...]:
    """Those of `overrides` that mean the same on any machine: without where files lie on this one."""
    return tuple(text for text in overrides if text.partition("=")[0].lstrip("+") not in PATH_KEYS)


def options(group: str) -> list[str]:
    """The names a group offers, e.g. `glue/mrpc` of `task`; files whose name begins with `_` are building blocks."""
    folder = CONFIGS / group
    names = [str(p.relative_to(folder).with_suffix("")) for p in folder.rglob("*.yaml") if not p.name.startswith("_")]
    return sorted(names, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))


def help_page() -> str:
    """What `train.py --help` prints: each group's options, a line each."""
    lines = [
        "Fine-tune a pretrained model with LoRA-XS or one of its rivals, and leave a record.",
        "",
        "  python train.py GROUP=NAME … key=value …",
        "  python train.py task=glue/mrpc method=lora_xs rank=16          the paper's run, seed 0",
        "  python train.py task=reviews trainer.epochs=3 seed=1           a laptop's run",
        "",
        "Groups:",
    ]
    for group in GROUPS:
        heads = [(name, _head(CONFIGS / group / f"{name}.yaml")) for name in options(group)]
        if group == "rank":
            lines.append(f"  {group:<11} {' '.join(name for name, _ in heads)}; any other: rank.r=17")
            continue
        width = max(len(name) for name, _ in heads)
        lines += [f"    {group}={name:<{width}}  {head}" for name, head in heads]
    lines += [
        "",
        "Keys beside the groups: seed, results, force, start_from, data.root, data.source; trainer.*, init.*, … as",
        "`python train.py --cfg …` prints them.",
        "  --cfg      print the composed config and stop        --spec   print the resolved run and its signature",
        "Exit status: 0 finished or already finished, 1 failed, 2 a mistake in what was asked for, 3 diverged.",
    ]
    return "\n".join(lines)


def _head(file: Path) -> str:
    first = file.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") and "@package" not in first else ""


def _one_line(error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's message without its page of options, with the mend where the mistake is a common one."""
    text = " ".join(str(error).split())
    missing = re.search(r"Could not find '(\w+)/([^']+)'", text)
    if missing:
        group, name = missing.groups()
        if group == "rank" and name.isdigit():
            return f"rank={name} has no file in configs/rank; give rank.r={name}"
        if group in GROUPS:
            return f"{group}={name} is unknown; choose one of {', '.join(options(group))}"
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        return f"unknown key {unknown.group(1)}; `python train.py --help` names the groups, `--cfg` prints every key"
    ungrouped = re.search(r"Could not find (?:match for )?'?([\w/]+)'?.*overrid", text)
    if ungrouped:
        return f"cannot read the override of {ungrouped.group(1)}: {text[:200]}"
    return f"cannot compose {' '.join(overrides)}: {text[:300]}"
