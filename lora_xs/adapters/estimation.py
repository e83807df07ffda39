"""What LoRA-SB's estimate of a run looks at: which training rows, in which batches, and the step's rate η."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from lora_xs.spec import RunSpec
    from lora_xs.spec.sections import InitSpec


class Portion(NamedTuple):
    """Rows that go through the model at once."""

    inputs: Mapping[str, Tensor]  # as the collator makes them, labels included
    weight: float  # of their mean loss in the estimate's; responses bring the weight of each token instead


class EstimationRows:
    """The rows of one run's estimate, iterated as `Portion`s; equal for equal spec and dataset.

    dataset: the training rows; `dataset[i]` is a mapping that `collate` takes lists of. kept: a folder where the start
    (factors and R) of a run lies, so that a resumed run goes on with the same bits; None keeps nothing. `report` is
    what the record says of the estimate, once `attach` has made or found it.
    """

    def __init__(
        self,
        spec: RunSpec,
        dataset: Any,
        collate: Callable[[list[Any]], Mapping[str, Tensor]],
        kept: Path | None = None,
    ) -> None:
        self.spec, self.dataset, self.collate, self.kept = spec, dataset, collate, kept
        self.report: dict[str, Any] | None = None

    @property
    def indices(self) -> list[int]:
        """The chosen rows, in the order they are seen."""
        return sample_indices(len(self.dataset), self.spec.init, self.spec.seed)

    @property
    def batch_size(self) -> int:
        """Rows of one estimation batch: `init.batch_size`, else the trainer's."""
        return self.spec.init.batch_size or self.spec.trainer.batch_size

    def digest(self) -> str:
        """64 hex digits over the chosen rows' content, in order."""
        rows = [self.dataset[index] for index in self.indices]
        return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()

    def __iter__(self) -> Iterator[Portion]:
        """Portions of at most `trainer.device_batch_size` rows.

        `init.normalise=batches`: the estimate's loss is the mean of the batches' mean losses (over rows; of responses,
        over tokens). `rows`: the sum over rows, or tokens. A sign step sees the difference only where batches are
        uneven.
        """
        chosen, size = self.indices, self.batch_size
        held = self.spec.trainer.device_batch_size or size
        batches = math.ceil(len(chosen) / size)
        for start in range(0, len(chosen), size):
            batch = chosen[start : start + size]
            rows = [self.dataset[index] for index in batch]
            summed = self.spec.init.normalise == "rows"
            if "prompt_tokens" in rows[0]:
                tokens = sum(max(0, len(row["input_ids"]) - max(1, row["prompt_tokens"])) for row in rows)
                weight = 1.0 if summed else 1.0 / max(1, tokens) / batches
                rows = [{**row, "weight": weight} for row in rows]
            for first in range(0, len(rows), held):
                part = rows[first : first + held]
                share = len(part) if summed else len(part) / len(rows) / batches
                yield Portion(self.collate(part), share)

    def step(self) -> tuple[float, int]:
        """η = lr / (warm-up ratio · steps), the rate of the first warm-up step, and the steps that were counted.

        `init.eta=estimation_batches`, the official code: epochs · ⌈rows / estimation batch⌉. On GLUE that batch is the
        optimiser's own; on the language models it is 3 (math) and 10 rows (commonsense) where an optimiser step has 32
        and 192, so η is 10 and 19 times smaller than the paper's text says. `optimiser_steps`, the text: epochs · ⌈rows
        / batch⌉, or `trainer.max_steps`. `trainer.warmup_steps` wins over the ratio. Without any warm-up step the first
        rate is lr itself.
        """
        trainer, rows = self.spec.trainer, len(self.dataset)
        if self.spec.init.eta == "estimation_batches":
            steps = trainer.epochs * math.ceil(rows / self.batch_size)
        else:
            steps = trainer.max_steps or trainer.epochs * math.ceil(rows / trainer.batch_size)
        warmup = trainer.warmup_ratio * steps if trainer.warmup_steps is None else trainer.warmup_steps
        return trainer.learning_rate / max(1.0, warmup), steps


def sample_indices(rows: int, init: InitSpec, seed: int) -> list[int]:
    """Which of `rows` training rows the estimate sees: `init.samples`, or the share `init.fraction`, at least one.

    `init.choice=first`: the first ones. `random`: those whose sha256 of `"update:<seed>:<row index>"` is smallest, in
    that order, so that fewer samples are the beginning of more. More than there are means all.
    """
    wanted = math.ceil(init.fraction * rows) if init.fraction is not None else init.samples or 1
    order = list(range(rows))
    if init.choice == "random":
        order.sort(key=lambda index: hashlib.sha256(f"update:{seed}:{index}".encode()).digest())
    return order[: max(1, wanted)]
