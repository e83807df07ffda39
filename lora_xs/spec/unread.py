"""A setting that nothing would read is a mistake: it would look as if it did something, and make another run of it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from lora_xs.errors import UserError
from lora_xs.spec.resolve import NEEDS_SCALE

if TYPE_CHECKING:
    from lora_xs.spec.runspec import RunSpec

OF_ESTIMATE = (
    *("samples", "fraction", "choice", "batch_size", "normalise", "dropout", "eta", "sign"),
    *("matrix", "noise", "orthonormal", "seed"),
)
INIT_READS = {
    "svd_w": ("part", "sigma", "std"),
    "svd_random": ("part", "sigma", "std", "seed"),
    "random": ("kaiming_bounds", "std", "seed"),
    "update": OF_ESTIMATE,
    "method": (),
}
"""Which keys of `init` beside its name each initialisation reads; VeRA, of `method`, draws from `seed`."""
WITHOUT_MODULES = ("full_ft", "head_only")


def check_unread(spec: RunSpec) -> None:
    """Raise UserError for the first setting that was given and that nothing of this run reads."""
    init, method, trainer = spec.init, spec.method, spec.trainer
    reads = ("seed",) if method.name == "vera" else INIT_READS[init.name]
    for field in dataclasses.fields(init):
        value = getattr(init, field.name)
        if field.name != "name" and field.name not in reads and value != field.default:
            keys = f"it reads {', '.join(f'init.{key}' for key in reads)}" if reads else "it reads no key of init"
            _refuse(f"init.{field.name}={value}", f"init={init.name} of method={method.name}: {keys}")
    if method.alpha is not None and method.name not in NEEDS_SCALE:
        _refuse(f"method.alpha={method.alpha:g}", f"method={method.name}: it has no scale")
    if method.name in WITHOUT_MODULES and method.target_modules is not None:
        _refuse("method.target_modules", f"method={method.name}: it adapts no modules")
    if method.name in WITHOUT_MODULES and method.dropout:
        _refuse(f"method.dropout={method.dropout}", f"method={method.name}: it has no adapter whose inputs are dropped")
    if spec.task.kind == "instruction" and trainer.head_learning_rate is not None:
        _refuse("trainer.head_learning_rate", f"task={spec.task.name}: a language model has no head of its own")
    if trainer.early_stopping is not None and spec.evaluation.every == "end":
        _refuse(f"trainer.early_stopping={trainer.early_stopping}", "evaluation.every=end: it is over by then")


def _refuse(setting: str, why: str) -> None:
    raise UserError(f"{setting} has no meaning for {why}; leave it out")
