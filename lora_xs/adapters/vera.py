"""VeRA (arXiv 2310.11454) through PEFT: two vectors a module train between random projections all modules share.

y = W x + b ⊙ B (d ⊙ A x), A [r, in] and B [out, r] frozen, d [r] and b [out] trained. By default the projections are
not in the file: they are drawn again from their key, `init.seed`, and their digests beside the adapter tell whether the
draw came out the same.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_xs.adapters.baselines import inject, peft_targets
from lora_xs.adapters.window import tensor_digest
from lora_xs.atomic import write_json
from lora_xs.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from lora_xs.spec import RunSpec

PROJECTIONS = "projections.json"


def vera(model: nn.Module, spec: RunSpec) -> nn.Module:
    """VeRA on the spec's targets: d starts at `method.d_initial`, b at zero. Raises UserError when no module matches.

    Modules of several shapes share the upper left parts of the largest A and B, as in PEFT. `method.save_factors`
    puts A and B into the adapter's file.
    """
    from peft import VeraConfig

    assert spec.rank is not None and spec.method.d_initial is not None
    with without_projection_warnings():
        config = VeraConfig(
            r=spec.rank,
            target_modules=peft_targets(spec.target_modules),
            projection_prng_key=spec.init.seed,
            save_projection=spec.method.save_factors,
            vera_dropout=spec.method.dropout,
            d_initial=spec.method.d_initial,
            bias="none",
        )
        return inject(model, config, spec)


def write_projections(model: Any, folder: Path) -> None:
    """Put the projections' key and digests beside a VeRA adapter; nothing for other models."""
    facts = _projections(model)
    if facts is not None:
        write_json(folder / PROJECTIONS, facts)


def check_projections(model: Any, folder: Path) -> None:
    """Raise UserError where the projections drawn here are not those the adapter of `folder` was trained with."""
    here = _projections(model)
    if here is None or not (folder / PROJECTIONS).is_file():
        return
    saved = json.loads((folder / PROJECTIONS).read_text(encoding="utf-8"))
    differ = sorted(key for key in here if saved.get(key) != here[key])
    if differ:
        raise UserError(
            f"{folder}: VeRA's {', '.join(differ)} differ from those drawn here; use the same init.seed, rank and "
            "targets, or train with method.save_factors=true"
        )


@contextmanager
def without_projection_warnings() -> Iterator[None]:
    """PEFT warns at every turn that the projections are not saved: that is stated here, and checked by digests."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Specified to not (save|load) vera_A and vera_B")
        yield


def _projections(model: Any) -> dict[str, Any] | None:
    """Key and digests of projections drawn here; None for a model without, on the meta device, or that saves them."""
    tuner = getattr(model, "base_model", None)
    A, B = getattr(tuner, "vera_A", None), getattr(tuner, "vera_B", None)
    if A is None or B is None or A["default"].is_meta:
        return None
    config = model.peft_config["default"]
    if config.save_projection:  # the file brings its own
        return None
    return {
        "key": config.projection_prng_key,
        "vera_A": tensor_digest(A["default"]),
        "vera_B": tensor_digest(B["default"]),
    }
