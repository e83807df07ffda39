"""How many numbers a method trains and keeps, in plain Python: the same counts the models themselves give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lora_xs.errors import UserError
from lora_xs.models.architecture import Architecture, Linear, architecture_of
from lora_xs.spec import RunSpec

LABELS = {"glue/mnli": 3}  # tasks with other than two classes
LORA = ("lora", "rslora", "pissa")
XS = ("lora_xs", "lora_sb")


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters.

    base: of the model before any adapter. adapter: the method's trained ones, all of the backbone for full
    fine-tuning. head: those of modules trained whole. frozen: an adapter's factors or projections that do not train.
    targets: the adapted layers.
    """

    base: int
    adapter: int
    head: int
    frozen: int
    targets: tuple[Linear, ...]

    @property
    def trainable(self) -> int:
        """Everything the optimiser changes."""
        return self.adapter + self.head


def labels_of(spec: RunSpec) -> int:
    """Outputs of the classification head."""
    return 1 if spec.task.kind == "regression" else LABELS.get(spec.task.name, 2)


def count_parameters(spec: RunSpec, shape: Architecture | None = None) -> Parameters:
    """The counts of `spec`'s model and method. Raises UserError where its architecture or its method is not known."""
    shape = shape or architecture_of(spec.model)
    base = shape.parameters(labels_of(spec))
    head = shape.head_parameters(labels_of(spec), spec.model.head)
    method, rank = spec.method.name, spec.rank or 0
    if method == "full_ft":
        return Parameters(base, base - head, head, 0, ())
    if method == "head_only":
        return Parameters(base, 0, head, 0, ())
    targets = shape.targets(spec.target_modules)
    adapter = adapter_parameters(method, targets, rank)
    frozen = 0
    if method in XS:
        frozen = adapter_parameters("lora", targets, rank)  # A and B
    elif method == "vera":
        shared = max(layer.in_features for layer in targets) + max(layer.out_features for layer in targets)
        frozen = rank * shared
    return Parameters(base, adapter, head, frozen, targets)


def adapter_parameters(method: str, layers: Sequence[Linear], rank: int) -> int:
    """What `method` trains at `rank` in these layers (LoRA-XS §3.3): LoRA r Σ (out + in), VeRA Σ out + r a module, its
    b and d, LoRA-XS r² a module. Raises UserError for a method that is not known."""
    if method in XS:
        return len(layers) * rank**2
    if method in LORA:
        return rank * sum(layer.in_features + layer.out_features for layer in layers)
    if method == "vera":
        return sum(layer.out_features for layer in layers) + rank * len(layers)
    raise UserError(f"method={method}: no plan can count its parameters; add them to lora_xs/sweeps/parameters.py")
